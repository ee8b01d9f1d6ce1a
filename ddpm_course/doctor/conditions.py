"""Probes of what a network does with t and with labels (lesson 13)."""

import math

import torch
from torch import Tensor, nn

from ..nets import evaluating
from .findings import Probe, UnjudgedError
from .inputs import ORDER, RANGE, TABLES
from .patient import Patient, linear_error

ANSWER, DROPOUT, ALONE, USE_T, TARGET, TOLD, ONE_OFF, SMOOTH, EMBEDDING, USE_Y, RIGHT_Y, NULL = (
    "the answer", "the same answer twice", "one item at a time", "use of t", "what is predicted", "t it is told",
    "start of t", "neighbouring t", "embedding of t", "use of labels", "right labels", "no label",
)  # fmt: skip
FEW = 16  # images, where a rough answer will do


def apart(a: Tensor, b: Tensor) -> float:
    """How different two answers are, as a share of their size."""
    return float((a - b).norm() / ((a.norm() + b.norm()) / 2).clamp(min=1e-12))


def answer(patient: Patient) -> tuple[str, str | None]:
    t = patient.time(0.45)
    x = patient.noised(t, FEW)
    try:
        output = patient.ask(x, t, patient.labels_of(FEW))
    except Exception as error:  # a stranger's network raises anything
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:160]}", (
            "The network can't be called as net(x, t, y) with t of shape (B,) in 1…T and y None or (B,): wrap it in a "
            "function that does."
        )
    if output.shape != x.shape:
        return f"{tuple(x.shape)} became {tuple(output.shape)}", "The output must have the shape of x."
    broken = [t for t in patient.times if not bool(patient.answer(t, n=FEW).isfinite().all())]
    if broken:
        return f"NaN or infinite at t = {', '.join(map(str, broken))}", (
            "The training diverged or overflowed in half precision, or an embedding divides by 0. Look at the losses "
            "for the first step that is not finite."
        )
    return f"finite, {tuple(x.shape[1:])} an item", None


def twice(patient: Patient) -> tuple[str, str | None]:
    t = patient.time(0.45)
    x, y = patient.noised(t, FEW), patient.labels_of(FEW)
    with patient.buffers_kept():
        difference = apart(patient.ask(x, t, y, as_it_is=True), patient.ask(x, t, y, as_it_is=True))
    value = f"two calls differ by {difference:.2%}"
    if difference > 0.001:
        return value, "Dropout is still on, or something else is drawn in the network: call net.eval() before sampling."
    return value, None


def alone(patient: Patient) -> tuple[str, str | None]:
    times = torch.tensor(patient.times[:4], device=patient.device)
    n = len(times)
    x = torch.cat([patient.noised(int(t), n)[i : i + 1] for i, t in enumerate(times)])
    y = patient.labels_of(n)
    with patient.buffers_kept():
        together = patient.ask(x, times, y, as_it_is=True)
        each = [
            patient.ask(x[i : i + 1], times[i : i + 1], None if y is None else y[i : i + 1], as_it_is=True)
            for i in range(n)
        ]
    difference = max(apart(together[i : i + 1], one) for i, one in enumerate(each))
    value = f"in a batch of {n} with different t an item's answer differs by {difference:.2%}"
    if difference > 0.02:
        return value, (
            "One item's answer depends on the others: one t (or label) is used for the whole batch, a reshape or "
            "broadcast mixes items, or batch normalisation is in training mode."
        )
    return value, None


def use_of_t(patient: Patient) -> tuple[str, str | None]:
    t, times = patient.time(0.45), patient.times
    if float(patient.answer(t, n=FEW).square().mean()) < 1e-4:
        raise UnjudgedError("its answers are next to 0")
    change = apart(patient.answer(t, times[0], FEW), patient.answer(t, times[-1], FEW))
    value = f"told t = {times[0]} or {times[-1]}, the same x gets answers {change:.1%} apart"
    if change < 0.02:
        return value, (
            "The network hardly hears t: the embedding is never added, is multiplied by a weight that stayed 0, t is "
            "rounded to one value before it, or it is on another scale than in training (t / T)."
        )
    return value, None


def target(patient: Patient) -> tuple[str, str | None]:
    """Does what it says look more like another quantity than like the one that diffusion.predicts names?"""
    predicts, far = patient.diffusion.predicts, {}
    for t in patient.times:
        output, noise, x0 = patient.answer(t, labels=patient.better_labels), patient.noise(t), patient.x0
        signal, sigma = patient.schedule.q_coefficients(t, x0)
        readings = {"noise": noise, "x0": x0, "v": signal * noise - sigma * x0}
        readings |= {f"-{name}": -value for name, value in readings.items()}
        readings |= {"the score": -noise / sigma, "noise - x0": noise - x0, "x0 - noise": x0 - noise}
        for name, value in readings.items():
            share = float((output - value).square().mean() / value.square().mean())
            far.setdefault(name, []).append(min(share, 4.0))
    errors = {name: sum(values) / len(values) for name, values in far.items()}
    best = min(errors, key=errors.get)
    value = f"{errors[predicts]:.0%} of the square of {predicts} is missed"
    otherwise = gain_by_telling(patient)[0]  # a wrong t looks like another target, but then another t explains more
    if best != predicts and errors[best] < min(0.5, otherwise) * errors[predicts]:
        return f"{value}, of {best} {errors[best]:.0%}", (
            f"The network was trained to say {best}, and is read as {predicts}: a sign is turned, or GaussianDiffusion("
            "predicts=...) differs between training and sampling."
        )
    output = torch.cat([patient.answer(t, labels=patient.better_labels) for t in patient.times])
    wanted = torch.cat([patient.target(t) for t in patient.times])
    factor = float((output * wanted).mean() / output.square().mean().clamp(min=1e-12))
    before, after = (float((wanted - k * output).square().mean()) for k in (1, factor))
    if after < min(0.7, otherwise) * before and output.square().mean() > 0.01 * wanted.square().mean():
        return f"{value}; times {factor:.2g} it would miss {after / before:.0%} of that", (
            "The output is off by a factor: a rescaling of input or output that was there in training is missing or "
            "doubled, or guidance is applied where none was meant."
        )
    return value, None


def gain_by_telling(patient: Patient) -> tuple[float, Tensor]:
    """What is left of the error when the network is told the best of the times, and which one that is at each."""
    times, labels = patient.times, patient.better_labels
    table = torch.tensor([[patient.error(t, patient.answer(t, k, FEW, labels), FEW) for k in times] for t in times])
    right, best = table.diagonal(), table.min(1)
    return float((best.values.clamp(min=1e-9) / right.clamp(min=1e-9)).log().mean().exp()), best.indices


def told(patient: Patient) -> tuple[str, str | None]:
    times = patient.times
    if len(times) < 4:
        raise UnjudgedError(f"the schedule has only {len(times)} clearly different levels of noise")
    gain, indices = gain_by_telling(patient)
    value = f"told the best of {len(times)} times instead of the right one, it would miss {gain:.0%} of what it does"
    if gain < 0.8:
        places = indices.double()
        backwards = float((places * torch.arange(len(times)).sub(len(times) / 2 - 0.5)).sum()) < 0
        return value, (
            "t runs backwards for the network: its 1 is your T."
            if backwards
            else "The network was trained with another schedule, another T, or t on another scale (t / T, or 0…1 where "
            "it expects 0…1000), so it is told a noise level that x does not have."
        )
    return value, None


def one_off(patient: Patient) -> tuple[str, str | None]:
    """A Gauss-Newton step for the t that would have been right: answer(t + d) is about answer(t) + d * slope."""
    T = patient.schedule.T
    offsets, top, bottom = [], 0.0, 0.0
    times = sorted({t for t in (3, 5, 8, 13, 21, 55, 100) if t < T / 4})
    for t in times:
        middle = patient.answer(t)
        slope = (patient.answer(t, t + 1) - patient.answer(t, t - 1)) / 2
        rest = patient.target(t) - middle
        strength, spread = float(slope.square().mean()), float(rest.var())
        if strength * rest.numel() < 4 * spread:
            continue  # too little to see: an error of half a step and more
        along = float((slope * rest).mean())
        offsets.append(along / strength)
        top, bottom = top + along / spread, bottom + strength / spread
    if len(offsets) < 3 or bottom * patient.x0.numel() < 20:
        raise UnjudgedError("a step of t changes too little, or T is too small, to see whether t is one off")
    offset, median = top / bottom, sorted(offsets)[len(offsets) // 2]
    value = f"its answers fit t {offset:+.2f} best"
    agree = sum(0.35 < o * (1 if offset > 0 else -1) < 2.5 for o in offsets) >= 0.7 * len(offsets)
    if abs(offset) > 0.5 and abs(median) > 0.4 and agree:
        way = "later than" if offset > 0 else "earlier than"
        return value, (
            f"The network expects a t one {way} what it is told: it counts from 0 and you from 1, or the other way "
            "round, or the table it was trained with is shifted by one. Convert t in one place."
        )
    return value, None


def smooth(patient: Patient) -> tuple[str, str | None]:
    t, T = patient.time(0.45), patient.schedule.T
    far = min(T // 10, T - t)
    if far < 4:
        raise UnjudgedError(f"T = {T} has too few steps to tell neighbours from others")
    here = patient.answer(t, n=FEW)
    near = sum(apart(patient.answer(t, t + d, FEW), here) for d in (-1, 1)) / 2
    other = apart(patient.answer(t, t + far, FEW), here)
    value = f"a step of t changes the answer by {near:.2%}, {far} steps by {other:.2%}"
    if near > 0.5 * other and near > 0.005:
        return value, (
            "Neighbouring t get unrelated codes: sin and cos taken over the rows in place of the features, frequencies "
            "far too high, or a table of codes that was never trained."
        )
    return value, None


def embedding(patient: Patient) -> tuple[str, str | None]:
    T = patient.schedule.T
    if T < 40:
        raise UnjudgedError(f"T = {T} is too small for it")
    start = torch.tensor([1, T // 5, 2 * T // 5, 3 * T // 5, 4 * T // 5])
    times = torch.cat([start, start + 1, torch.tensor([T])])
    rows = _codes(patient, times)
    size = rows.norm(dim=1).mean().clamp(min=1e-12)
    near = (rows[:5] - rows[5:10]).norm(dim=1) / size
    ends = float((rows[-1] - rows[0]).norm() / size)
    far = float(torch.pdist(rows[:5]).mean() / size)
    value = f"neighbours are {float(near.mean()):.2g} apart, t = 1 and T {ends:.2g}, on codes of length 1"
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


def _codes(patient: Patient, times: Tensor) -> Tensor:
    """(len(times), D) what the first linear layer that hears of t, and not of x, is given."""
    if not isinstance(patient.net, nn.Module):
        raise UnjudgedError("the network is no torch module to look into")
    seen: list[list[Tensor]] = [[], []]
    inside = [m for m in patient.net.modules() if isinstance(m, nn.Linear)]
    times = times.to(patient.device)
    for record, image in zip(seen, patient.x0[:2], strict=True):
        hooks = [m.register_forward_pre_hook(lambda _, x, record=record: record.append(x[0].detach())) for m in inside]
        try:
            y = None if patient.y is None else patient.y[:1].expand(len(times))
            with evaluating(patient.net):
                patient.ask(image.expand(len(times), *image.shape).contiguous(), times, y)
        finally:
            for hook in hooks:
                hook.remove()
    for one, other in zip(*seen, strict=False):
        if one.ndim == 2 and len(one) == len(times) and one.shape == other.shape:
            fixed = (one - other).abs().amax(0) < 1e-6
            codes = one[:, fixed].cpu().double()
            if codes.shape[1] and float((codes - codes[:1]).abs().max()) > 0:
                return codes
    raise UnjudgedError("no linear layer was found that is given a code of t")


def use_of_labels(patient: Patient) -> tuple[str, str | None]:
    if patient.y is None:
        raise UnjudgedError("no labels were given")
    times = patient.times[-2:]
    if float(patient.answer(times[0]).square().mean()) < 1e-4:
        raise UnjudgedError("its answers are next to 0")
    change = max(apart(patient.answer(t), patient.answer(t, labels="others")) for t in times)
    value = f"with other labels the answer changes by {change:.1%}"
    if change < 0.005:
        return value, "The network does not hear y: its code is never added, or labels were always dropped in training."
    return value, None


def right_labels(patient: Patient) -> tuple[str, str | None]:
    if patient.y is None:
        raise UnjudgedError("no labels were given")
    times = patient.times[-3:]
    right, others = (sum(patient.error(t, patient.answer(t, labels=k)) for t in times) for k in ("given", "others"))
    value = f"with wrong labels the error is {others / right:.0%} of that with the right ones"
    try:
        none = sum(patient.error(t, patient.answer(t, labels="none")) for t in times)
    except Exception:  # a network that needs y
        none = math.inf
    if others < right or none < 0.9 * right:
        return value, (
            "The labels don't belong to the images: shuffled apart, sorted differently, or counted from 1 in one place."
        )
    return value, None


def no_label(patient: Patient) -> tuple[str, str | None]:
    if patient.y is None:
        raise UnjudgedError("no labels were given")
    times = patient.times[-3:]
    try:
        none, right = (sum(patient.error(t, patient.answer(t, labels=k)) for t in times) for k in ("none", "given"))
    except Exception as error:  # a network that needs y
        raise UnjudgedError(f"the network cannot be called without labels ({type(error).__name__})") from error
    value = f"without labels the error is {none / right:.0%} of that with them"
    variances, levels = patient.power(), [float(patient.schedule.alpha_bar[t]) for t in times]
    allowed = sum(1.15 * linear_error(variances, level) + 0.03 for level in levels)  # labels may well be worth much
    if none > allowed and none > 1.3 * right:
        return value, (
            "The null class was never trained (labels were dropped never, or for the wrong items), so guidance would "
            "push away from noise. Drop 10 % of the labels in training."
        )
    return value, None


DATA = (RANGE, TABLES)
READY = (*DATA, ANSWER)
HEARS = (*READY, ALONE, USE_T)
PROBES = (
    Probe(ANSWER, "shape and finiteness of net(x, t, y) at six noise levels", "the shape of x, finite numbers",
          "lesson 04, 'The job'", answer, DATA),
    Probe(DROPOUT, "the same call twice, in the mode the network is in", "the same numbers",
          "lesson 06, 'The loop'", twice, READY),
    Probe(ALONE, "items with different t, together and one by one", "the same answers",
          "lesson 02, 'Broadcasting'", alone, (*READY, DROPOUT)),
    Probe(EMBEDDING, "the Gram matrix of what the first layer for t is given", "distinct codes, alike for neighbours",
          "lesson 04, 'Telling the network t'", embedding, READY),
    Probe(USE_T, "one x with two very different t", "clearly different answers",
          "lesson 04, 'Telling the network t'", use_of_t, (*READY, EMBEDDING)),
    Probe(SMOOTH, "the answer one step of t away against T / 10 steps away", "much less change for one step",
          "lesson 04, 'Telling the network t'", smooth, (*HEARS, EMBEDDING)),
    Probe(TARGET, "the output against noise, x_0, v and their relatives", "nearest to what diffusion.predicts says",
          "lesson 05, 'Three targets'", target, (*HEARS, EMBEDDING, SMOOTH, ORDER)),
    Probe(TOLD, "the error at each noise level when told each other level's t", "least when told its own t",
          "lesson 03, 'T and β belong together'", told, (*HEARS, EMBEDDING, SMOOTH, TARGET, ORDER)),
    Probe(USE_Y, "right labels against others, where there is much noise", "different answers",
          "lesson 10, 'The null class'", use_of_labels, (*HEARS, TARGET, TOLD)),
    Probe(RIGHT_Y, "the error with right and with wrong labels", "less with the right ones",
          "lesson 10, 'The null class'", right_labels, (*HEARS, TARGET, TOLD, USE_Y)),
    Probe(ONE_OFF, "the shift of t that would fit its answers best, at small t", "within half a step of 0",
          "lesson 06, 'Algorithm 2, line by line'", one_off, (*HEARS, EMBEDDING, SMOOTH, TARGET, TOLD, RIGHT_Y, ORDER)),
    Probe(NULL, "the error without labels", "below that of a linear filter",
          "lesson 10, 'The null class'", no_label, (*HEARS, TARGET, TOLD, USE_Y, RIGHT_Y)),
)  # fmt: skip
