"""The examination: every probe in turn, and what waits for another one's repair (lesson 13)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_labels, as_tensor
from ..diffusion import GaussianDiffusion
from ..pixels import to_unit_range
from .findings import Examination, Finding, Probe, UnjudgedError
from .inputs import PROBES as OF_INPUTS
from .network import PROBES as OF_NETWORK
from .outcome import PROBES as OF_OUTCOME
from .patient import Patient

PROBES: tuple[Probe, ...] = (*OF_INPUTS, *OF_NETWORK, *OF_OUTCOME)


def examine(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    images: Any,
    labels: Any = None,
    samples: Any = None,
    losses: Any = None,
    *,
    raw: Callable[..., Tensor] | None = None,
) -> Examination:
    """Look for what is wrong with a model, by its effects alone.

    net:       any callable net(x, t, y), t in 1…T; the averaged weights, if there are some, as one samples with them
    diffusion: the schedule, and what the network predicts
    images:    (N, ...) a hundred training images or more, as the training has them: uint8, or floats in [-1, 1]
    labels:    (N,) or None: what a network with classes is told
    samples:   (M, ...) what your sampler made, or None
    losses:    the training's losses in order: numbers, or `run.losses`; or None
    raw:       the network with the weights before averaging, or None
    returns    an Examination: print it, or let a notebook show it
    raises     ValueError if what is given has the wrong shape or type. Nothing that is given is changed

    It takes about a hundred calls of the network on a small batch, and draws only from generators of its own.
    """
    patient = _admitted(net, diffusion, images, labels, samples, losses, raw)
    findings: dict[str, Finding] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # dropout draws from the global generator
        for probe in PROBES:
            cause = next((name for name in probe.after if findings[name].state == "suspicious"), None)
            findings[probe.name] = _looked(probe, patient, cause)
    return Examination(tuple(findings.values()))


def _looked(probe: Probe, patient: Patient, cause: str | None) -> Finding:
    if cause is not None:
        return Finding(probe, "waiting", f"to be judged once this is repaired: {cause}")
    try:
        value, means = probe.look(patient)
    except UnjudgedError as missing:
        return Finding(probe, "unknown", str(missing))
    return Finding(probe, "sound" if means is None else "suspicious", value, means or "")


def _admitted(net, diffusion, images, labels, samples, losses, raw) -> Patient:
    """Everything checked at the door."""
    if not callable(net):
        raise ValueError(f"net must be a callable net(x, t, y), got {type(net).__name__}")
    if not isinstance(diffusion, GaussianDiffusion):
        raise ValueError(
            f"diffusion must be a GaussianDiffusion, the schedule and what the network predicts; "
            f"got {type(diffusion).__name__}"
        )
    given = as_tensor("images", images).detach().cpu()
    if given.ndim < 2 or len(given) < 16 or given[0].numel() == 0:
        raise ValueError(f"images must have shape (N, ...) with at least 16 of them, got {tuple(given.shape)}")
    if labels is not None:
        classes = getattr(net, "num_classes", None)
        labels = as_labels("labels", labels, len(given), classes if isinstance(classes, int) else None).cpu()
    if samples is not None:
        samples = as_tensor("samples", samples).detach().cpu()
        if samples.shape[1:] != given.shape[1:] or len(samples) < 2:
            raise ValueError(
                f"samples must be two or more items of the images' shape {tuple(given.shape[1:])}, "
                f"got {tuple(samples.shape)}"
            )
    if losses is not None:
        losses = as_tensor("losses", losses, torch.float64).detach().cpu()
        losses = losses[:, -1] if losses.ndim == 2 and losses.shape[1] == 2 else losses  # (step, loss), as a Run has it
        if losses.ndim != 1:
            raise ValueError(f"losses must be a list of numbers in the order of training, got {tuple(losses.shape)}")
    return Patient(net, diffusion, given, as_floats(given), labels, samples, losses, raw)


def as_floats(items: Tensor) -> Tensor:
    """Floats as they are, 0…255 as [-1, 1]."""
    return items if items.is_floating_point() else to_unit_range(items.to(torch.uint8))
