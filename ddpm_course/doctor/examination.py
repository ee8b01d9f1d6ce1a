"""The examination: every probe in turn, and which of them wait for another one's repair (lesson 13)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_labels, as_tensor
from ..diffusion import GaussianDiffusion
from ..pixels import to_unit_range
from .findings import Examination, Finding, Probe, named
from .inputs import data_range, first_step, order, signal_at_T, tables
from .labels import no_label, right_labels, use_of_labels
from .losses import losses_finite, losses_fit, losses_jumps, losses_level
from .network import alone, answer, averaged, error_by_t, target, twice
from .patient import Patient
from .samples import (
    samples_alike,
    samples_copies,
    samples_detail,
    samples_level,
    samples_noise,
    samples_range,
    samples_tint,
    sampling,
)
from .times import embedding, one_off, smooth, told, use_of_t

DATA = (data_range, tables)
CALLED = (*DATA, answer)
HEARD = (*CALLED, alone, use_of_t)  # t arrives
CODED = (*HEARD, embedding, smooth, order)
TOLD = (*CODED, target, told)  # it is told what it was in training
LABELLED = (*TOLD, use_of_labels, right_labels)
LEARNT = (*LABELLED, one_off, averaged)
MADE = (*TOLD, twice, no_label, error_by_t, averaged, sampling, first_step)
IN_RANGE = (*MADE, samples_range)
CLEAR = (*IN_RANGE, samples_noise, samples_alike)

# A probe, and those that explain what it finds if they find something: until that is repaired, it waits.
WAITS: dict[Probe, tuple[Probe, ...]] = {
    data_range: (),
    tables: (),
    order: (tables,),
    first_step: (tables, order),
    signal_at_T: DATA,
    answer: DATA,
    twice: CALLED,
    alone: (*CALLED, twice),
    embedding: CALLED,
    use_of_t: (*CALLED, embedding),
    smooth: (*HEARD, embedding),
    target: CODED,
    told: (*CODED, target),
    use_of_labels: TOLD,
    right_labels: (*TOLD, use_of_labels),
    one_off: (*TOLD, right_labels),
    no_label: LABELLED,
    averaged: TOLD,
    error_by_t: LEARNT,
    sampling: (*LEARNT, error_by_t, first_step, signal_at_T),
    samples_range: MADE,
    samples_noise: IN_RANGE,
    samples_alike: IN_RANGE,
    samples_level: (*CLEAR, signal_at_T),
    samples_tint: (*IN_RANGE, samples_alike),
    samples_detail: (*CLEAR, samples_level),
    samples_copies: (*IN_RANGE, samples_noise),
    losses_finite: (),
    losses_jumps: (losses_finite,),
    losses_level: (*DATA, losses_finite, losses_jumps),
    losses_fit: (*TOLD, losses_finite, losses_jumps, losses_level),
}
PROBES = tuple(WAITS)


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
    patient = admit(net, diffusion, images, labels, samples, losses, raw=raw)
    findings: dict[Probe, Finding] = {}
    for probe, others in WAITS.items():
        cause = next((other.name for other in others if findings[other].state == "suspicious"), None)
        waits = Finding(probe, "waiting", f"to be judged once this is repaired: {cause}")
        findings[probe] = ask(patient, probe.name) if cause is None else waits
    return Examination(tuple(findings.values()))


def ask(patient: Patient, name: str) -> Finding:
    """What the probe of that name finds, whatever others would find. KeyError, with the names there are, if there is
    none."""
    probe = named(name, PROBES)
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # dropout draws from the global generator
        return probe.ask(patient)


def admit(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    images: Any,
    labels: Any = None,
    samples: Any = None,
    losses: Any = None,
    *,
    raw: Callable[..., Tensor] | None = None,
) -> Patient:
    """A patient, of whom one may `ask` single probes: what `examine` takes, checked at the door."""
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
