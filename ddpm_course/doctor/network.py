"""Probes of a network's answers: whether it gives any, what they are answers to, how good they are (lesson 13)."""

import torch

from .findings import UnjudgedError, Verdict, probe
from .patient import FEW, Patient, apart


@probe(
    "the answer",
    measures="shape and finiteness of net(x, t, y) at six noise levels",
    sound="the shape of x, finite numbers",
    lesson="lesson 04, 'The job'",
)
def answer(patient: Patient) -> Verdict:
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
    return f"finite, {tuple(x.shape[1:])} per item", None


@probe(
    "the same answer twice",
    measures="the same call twice, in the mode the network is in",
    sound="the same numbers",
    lesson="lesson 06, 'The loop'",
)
def twice(patient: Patient) -> Verdict:
    t = patient.time(0.45)
    x, y = patient.noised(t, FEW), patient.labels_of(FEW)
    with patient.buffers_kept():
        difference = apart(*(patient.ask(x, t, y, as_it_is=True) for _ in range(2)))
    value = f"two calls differ by {difference:.2%}"
    if difference > 0.001:
        return value, "Dropout is still on, or something else in it is random: call net.eval() before sampling."
    return value, None


@probe(
    "one item at a time",
    measures="items with different t, together and one by one",
    sound="the same answers",
    lesson="lesson 02, 'Broadcasting'",
)
def alone(patient: Patient) -> Verdict:
    times = torch.tensor(patient.times[:4], device=patient.device)
    n = len(times)
    x = torch.cat([patient.noised(int(t), n)[i : i + 1] for i, t in enumerate(times)])
    y = [None] * n if patient.y is None else patient.y[:n].split(1)
    items = list(zip(x.split(1), times.split(1), y, strict=True))
    with patient.buffers_kept():
        together = patient.ask(x, times, patient.labels_of(n), as_it_is=True).split(1)
        difference = max(
            apart(one, patient.ask(*item, as_it_is=True)) for one, item in zip(together, items, strict=True)
        )
    value = f"in a batch of {n} with different t an item's answer differs by {difference:.2%}"
    if difference > 0.02:
        return value, (
            "One item's answer depends on the others: one t (or label) is used for the whole batch, a reshape or "
            "broadcast mixes items, or batch normalisation is in training mode."
        )
    return value, None


@probe(
    "what is predicted",
    measures="the output against noise, x_0, v and their relatives",
    sound="nearest to what diffusion.predicts says",
    lesson="lesson 05, 'Three targets'",
)
def target(patient: Patient) -> Verdict:
    """Does what it says look more like another quantity than like the one that diffusion.predicts names?"""
    predicts, missed = patient.diffusion.predicts, {}  # name: what is missed of its square, at each time
    outputs = [patient.answer(t, labels=patient.better_labels) for t in patient.times]
    for t, output in zip(patient.times, outputs, strict=True):
        noise, x0 = patient.noise(t), patient.x0
        signal, sigma = patient.schedule.q_coefficients(t, x0)
        readings = {"noise": noise, "x0": x0, "v": signal * noise - sigma * x0}
        readings |= {f"-{name}": -value for name, value in readings.items()}
        readings |= {"the score": -noise / sigma, "noise - x0": noise - x0, "x0 - noise": x0 - noise}
        for name, value in readings.items():
            share = float((output - value).square().mean() / value.square().mean())
            missed.setdefault(name, []).append(min(share, 4.0))
    errors = {name: sum(shares) / len(shares) for name, shares in missed.items()}
    best = min(errors, key=errors.get)
    value = f"{errors[predicts]:.0%} of the square of {predicts} is missed"
    otherwise, _ = patient.best_told()  # a wrong t looks like another target, but then another t explains more
    if best != predicts and errors[best] < min(0.5, otherwise) * errors[predicts]:
        return f"{value}, of {best} {errors[best]:.0%}", (
            f"The network predicts {best}, and is read as {predicts}: a sign is turned, or GaussianDiffusion("
            "predicts=...) differs between training and sampling."
        )
    output, wanted = torch.cat(outputs), torch.cat([patient.target(t) for t in patient.times])
    factor = float((output * wanted).mean() / output.square().mean().clamp(min=1e-12))
    before, after = (float((wanted - k * output).square().mean()) for k in (1, factor))
    if after < min(0.7, otherwise) * before and output.square().mean() > 0.01 * wanted.square().mean():
        return f"{value}; times {factor:.2g} it would miss {after / before:.0%} of that", (
            "The output is off by a factor: a rescaling of input or output that was there in training is missing or "
            "doubled, or guidance is applied where none was meant."
        )
    return value, None


@probe(
    "averaged weights",
    measures="the error of averaged and of raw weights",
    sound="at most 115 % of the raw ones'",
    lesson="lesson 07, 'The average of the weights'",
)
def averaged(patient: Patient) -> Verdict:
    if patient.raw is None:
        raise UnjudgedError("no network with the weights before averaging was given (raw=)")
    ours = patient.errors(patient.times)
    theirs = sum(patient.error_of(patient.ask(patient.noised(t), t, patient.y, raw=True), t) for t in patient.times)
    value = f"the averaged network's error is {ours / theirs:.0%} of the raw one's"
    if ours > 1.15 * theirs:
        return value, (
            "The average still holds much of the random weights it began with: its memory, 1 / (1 - decay) steps, is "
            "longer than the training. Let the decay grow as (1 + n) / (10 + n), or begin to average later."
        )
    return value, None


@probe(
    "error by t",
    measures="the mean squared error of v by t, against Wiener's linear filter",
    sound="below the filter's",
    lesson="lesson 05, 'Is my loss converged?'",
)
def error_by_t(patient: Patient) -> Verdict:
    measured = [(patient.error(t), patient.linear(t), t) for t in patient.times]
    excess, found, linear, t = max((found / (1.15 * linear + 0.03), found, linear, t) for found, linear, t in measured)
    value = f"nearest to or furthest above a linear filter at t = {t}: it misses {found:.2g}, the filter {linear:.2g}"
    if excess > 1:
        flat = all(float(patient.answer(t).square().mean()) < 0.05 for t in patient.times)
        return value, (
            "Its answers are almost 0: the noise in the loss is not the one in x_t, the learning rate is 0 or "
            "far too small, or gradients never reach it."
            if flat
            else "A matrix product would do better, so the network has not learnt this task: too few steps or a wrong "
            "learning rate, a loss whose noise, t or target differs from what it saw, random weights, or other data."
        )
    return value, None
