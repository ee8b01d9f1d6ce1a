"""Probes of what a network makes of t: whether t arrives, as which code, and whether it is the right t (lesson 13)."""

import torch
from torch import Tensor, nn

from ..nets import evaluating
from .findings import UnjudgedError, Verdict, probe
from .patient import FEW, Patient, apart


@probe(
    "embedding of t",
    measures="the Gram matrix of what the first layer for t is given",
    sound="distinct codes, alike for neighbours",
    lesson="lesson 04, 'Telling the network t'",
)
def embedding(patient: Patient) -> Verdict:
    T = patient.schedule.T
    if T < 40:
        raise UnjudgedError(f"T = {T} is too small for it")
    start = torch.tensor([1, T // 5, 2 * T // 5, 3 * T // 5, 4 * T // 5])
    rows = codes(patient, torch.cat([start, start + 1, torch.tensor([T])]))
    rows = rows / rows.norm(dim=1).mean().clamp(min=1e-12)
    near, far = (rows[:5] - rows[5:10]).norm(dim=1), float(torch.pdist(rows[:5]).mean())
    ends = float((rows[-1] - rows[0]).norm())
    value = f"neighbours are {near.mean():.2g} apart, t = 1 and T {ends:.2g}, on codes of length 1"
    if int((near < 1e-6).sum()) >= 2:
        return value, "Several t share a code: t is rounded, or divided as an integer, before the sines."
    if float(near.mean()) > 0.7 * far:
        return value, (
            "Neighbouring t get unrelated codes: even and odd are taken over the rows in place of the features, or the "
            "frequencies are far too high."
        )
    if far < 0.15 or ends < 0.3:
        return value, (
            "All t have nearly the same code: t in (0, 1) is fed to frequencies made for 1…1000, or the frequencies "
            "fall too fast."
        )
    return value, None


def codes(patient: Patient, times: Tensor) -> Tensor:
    """(len(times), D) what the first linear layer that hears of t, and not of x, is given."""
    if not isinstance(patient.net, nn.Module):
        raise UnjudgedError("the network is no torch module to look into")
    layers = [module for module in patient.net.modules() if isinstance(module, nn.Linear)]
    y = None if patient.y is None else patient.y[:1].expand(len(times))
    seen: list[list[Tensor]] = [[], []]  # the layers' inputs, for either of two images
    for record, image in zip(seen, patient.x0[:2], strict=True):
        hooks = [m.register_forward_pre_hook(lambda _, x, to=record: to.append(x[0].detach())) for m in layers]
        try:
            with evaluating(patient.net):
                patient.ask(image.expand(len(times), *image.shape).contiguous(), times.to(patient.device), y)
        finally:
            for hook in hooks:
                hook.remove()
    for one, other in zip(*seen, strict=False):
        if one.ndim == 2 and len(one) == len(times) and one.shape == other.shape:
            fixed = (one - other).abs().amax(0) < 1e-6
            rows = one[:, fixed].cpu().double()
            if rows.shape[1] and float((rows - rows[:1]).abs().max()) > 0:
                return rows
    raise UnjudgedError("no linear layer was found that is given a code of t")


@probe(
    "use of t",
    measures="one x with two very different t",
    sound="clearly different answers",
    lesson="lesson 04, 'Telling the network t'",
)
def use_of_t(patient: Patient) -> Verdict:
    t, times = patient.time(0.45), patient.times
    patient.must_speak(t)
    change = apart(patient.answer(t, times[0], FEW), patient.answer(t, times[-1], FEW))
    value = f"told t = {times[0]} or {times[-1]}, the same x gets answers {change:.1%} apart"
    if change < 0.02:
        return value, (
            "The network hardly uses t: the embedding is never added, is multiplied by a weight that stayed 0, t is "
            "rounded to one value before it, or it is on another scale than in training (t / T)."
        )
    return value, None


@probe(
    "neighbouring t",
    measures="the answer one step of t away against T / 10 steps away",
    sound="much less change for one step",
    lesson="lesson 04, 'Telling the network t'",
)
def smooth(patient: Patient) -> Verdict:
    t, T = patient.time(0.45), patient.schedule.T
    far = min(T // 10, T - t)
    if far < 4:
        raise UnjudgedError(f"T = {T} has too few steps to tell neighbours from others")
    before, here, after, later = (patient.answer(t, told, FEW) for told in (t - 1, t, t + 1, t + far))
    near, other = (apart(before, here) + apart(after, here)) / 2, apart(later, here)
    value = f"a step of t changes the answer by {near:.2%}, {far} steps by {other:.2%}"
    if near > 0.5 * other and near > 0.005:
        return value, (
            "Neighbouring t get unrelated codes: sin and cos taken over the rows in place of the features, frequencies "
            "far too high, or a table of codes that was never trained."
        )
    return value, None


@probe(
    "t it is told",
    measures="the error at each noise level when told each other level's t",
    sound="least when told its own t",
    lesson="lesson 03, 'T and β belong together'",
)
def told(patient: Patient) -> Verdict:
    count = len(patient.times)
    if count < 4:
        raise UnjudgedError(f"the schedule has only {count} clearly different levels of noise")
    left, places = patient.best_told()
    value = f"told the best of {count} times instead of the right one, its error would be {left:.0%} of what it is"
    if left < 0.8:
        backwards = float((places * (torch.arange(count) - (count - 1) / 2)).sum()) < 0
        return value, (
            "t runs backwards for the network: its 1 is your T."
            if backwards
            else "The network was trained with another schedule, another T, or t on another scale (t / T, or 0…1 where "
            "it expects 0…1000), so it is told a noise level that x does not have."
        )
    return value, None


@probe(
    "start of t",
    measures="the shift of t that would fit its answers best, at small t",
    sound="within half a step of 0",
    lesson="lesson 06, 'Algorithm 2, line by line'",
)
def one_off(patient: Patient) -> Verdict:
    times = [t for t in (3, 5, 8, 13, 21, 34, 55, 89) if t < patient.schedule.T / 4]
    for n in (FEW, None):  # all items only where few don't tell
        shifts, variances = torch.tensor([shift(patient, t, n) for t in times]).reshape(-1, 2).T.double()
        clear = variances < 0.25
        shifts, variances = shifts[clear], variances[clear]
        if len(shifts) >= 3 and float(1 / (1 / variances).sum()) < 0.15**2:
            break
    if len(shifts) < 3:
        raise UnjudgedError("a step of t changes too little, or T is too small, to see whether t is one off")
    # A network's own errors look like a shift too, but like another one at every t: this is how much they differ.
    weights = 1 / (variances + (shifts.var() - variances.mean()).clamp(min=0))
    offset, deviation = float((weights * shifts).sum() / weights.sum()), float(weights.sum() ** -0.5)
    value = f"its answers fit best with t shifted by {offset:+.2f} ± {deviation:.2f}"
    if 0.5 < abs(offset) < 2 and abs(offset) > 2.5 * deviation:
        way = "later than" if offset > 0 else "earlier than"
        return value, (
            f"The network expects a t one {way} what it is told: it counts from 0 and you from 1, or the other way "
            "round, or the table it was trained with is shifted by one. Convert t in one place."
        )
    if deviation > 0.35:
        raise UnjudgedError(f"{value}, which differs too much between small t to see whether t is one off")
    return value, None


def shift(patient: Patient, t: int, n: int | None) -> tuple[float, float]:
    """A Gauss-Newton step to the t that would have been right, from answer(t + d) = answer(t) + d slope, and the
    variance it has because the items are few."""
    before, here, after = (patient.answer(t, told, n) for told in (t - 1, t, t + 1))
    slope, rest = (after - before) / 2, patient.target(t, n) - here
    strength = slope.square().sum().clamp(min=1e-12)
    return float((slope * rest).sum() / strength), float(rest.var() / strength)
