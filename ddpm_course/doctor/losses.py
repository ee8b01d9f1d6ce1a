"""Probes of a training's losses, beside what can be had and what this network reaches (lesson 13)."""

from collections.abc import Callable

import torch

from .findings import UnjudgedError, Verdict, probe
from .patient import Patient


@probe(
    "losses",
    measures="every loss",
    sound="finite and not negative",
    lesson="lesson 07, 'Half precision'",
)
def losses_finite(patient: Patient) -> Verdict:
    losses = patient.need("losses")
    bad = (~losses.isfinite()).nonzero().flatten()
    if len(bad):
        return f"entry {int(bad[0])} of {len(losses)} is not finite", (
            "The learning rate is too high, float16 overflowed without loss scaling, or a weight 1 / (1 - alpha_bar_0) "
            "was used at t = 0. What comes after is lost: go back to weights from before."
        )
    if bool((losses < 0).any()):
        return "some are negative", "A squared error is never negative: a sign is turned, as in the bound itself."
    return f"{len(losses)} finite numbers", None


@probe(
    "jumps of the loss",
    measures="averages over 40 pieces of the training",
    sound="falling or level",
    lesson="lesson 07, 'The learning rate'",
)
def losses_jumps(patient: Patient) -> Verdict:
    losses = patient.need("losses")
    if len(losses) < 20:
        raise UnjudgedError(f"only {len(losses)} losses were given, and 20 are needed")
    pieces = torch.stack([piece.mean() for piece in losses.tensor_split(min(40, len(losses) // 5 * 2))])
    rise = float((pieces[1:] / pieces.cummin(0).values[:-1]).max())
    value = f"it rises to at most {rise:.2g} times the least so far"
    if rise > 1.8:
        return value, (
            "The training jumps or turns around: the learning rate is too high, warm-up or clipping of gradients is "
            "missing, the run was resumed without its optimizer's state, or some batches hold bad images."
        )
    return value, None


@probe(
    "level of the loss",
    measures="the mean of the last tenth",
    sound="well below the loss of answering 0",
    lesson="lesson 05, 'Is my loss converged?'",
)
def losses_level(patient: Patient) -> Verdict:
    def linear_filter(t: int) -> float:
        level = patient.level(t)
        return {"noise": level, "x0": 1 - level, "v": 1}[patient.diffusion.predicts] * patient.linear(t)

    end = at_the_end(patient)
    zero = over_t(patient, lambda t: float(patient.target(t).square().mean()))
    linear = over_t(patient, linear_filter)
    value = f"it ends at {end:.3g}; answering 0 costs {zero:.2g}, a linear filter {linear:.2g}"
    if end > 1.6 * zero:
        return value, (
            "Worse than answering 0: the squares are summed where their mean belongs, the training diverged, or "
            "the target has another scale."
        )
    if end > 0.75 * zero and end > 1.2 * linear:
        return value, (
            "Hardly better than answering 0: the loss compares with a noise that is not in x_t (drawn again), the "
            "learning rate is far too small or 0, or gradients are cleared before the step."
        )
    return value, None


@probe(
    "loss against the network",
    measures="the last losses against this network's error over all t",
    sound="about the same",
    lesson="lesson 05, 'Algorithm 1'",
)
def losses_fit(patient: Patient) -> Verdict:
    end = at_the_end(patient)
    net = over_t(patient, lambda t: float((patient.answer(t) - patient.target(t)).square().mean()))
    value = f"the training ends at {end:.3g}, this network has {net:.3g} on these images"
    if net > 2.5 * end + 0.01:
        return value, (
            "This is not the network that was trained, or not its data: an average of weights that still holds the "
            "random ones, weights that were not loaded, other images. Or the training saw only easy t (one t for all, "
            "a wrong weight), or its loss is not the mean over t of the squared error."
        )
    if end > 2.5 * net + 0.01:
        return value, (
            "The losses are not on the scale of this network's squared error: a sum or another weight stands for the "
            "mean, or they are of an earlier run."
        )
    return value, None


def at_the_end(patient: Patient) -> float:
    losses = patient.need("losses")
    if len(losses) < 10:
        raise UnjudgedError(f"only {len(losses)} losses were given, and 10 are needed")
    return float(losses[-max(3, len(losses) // 10) :].mean())


def over_t(patient: Patient, cost: Callable[[int], float]) -> float:
    """The mean of what each t costs, from ten of them."""
    T = patient.schedule.T
    times = {max(1, round(T * (i + 0.5) / 10)) for i in range(10)}
    return sum(map(cost, times)) / len(times)
