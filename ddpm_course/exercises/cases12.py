"""Fixed inputs for the exercises of lesson 12, but for the open one, whose judge is in trade12."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import EIGHT, FIVE, IMAGES, OTHER_EIGHT, TWELVE, normal, on_gpu
from .records import Betas, Case


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


# ---- 12.1


def best_cases() -> list[Case]:
    """Levels far apart, so that they stay in order where a report changes them."""
    plan = [
        ((0.25, 0.5, 0.02), (0.6, 0.9, 0.2), (0.1, 0.03, 0.4)),
        ((0.3, 0.05, 0.6, 0.01), (1.0, 1.0, 1.0, 1.0), (0.08, 0.3, 0.01, 0.6)),  # to s = 0
        ((0.4, 0.1, 0.003), (0.8, 0.5, 0.05), (0.0, 0.0, 0.0)),
        ((0.4, 0.1, 0.003), (0.8, 0.5, 0.05), (1.4, 2.0, 1.1)),  # errors of more than 1 - alpha_bar_t
        ((0.6, 0.2, 0.001, 0.3, 0.04), (0.95, 1.0, 0.4, 0.7, 0.3), (0.02, 0.2, 0.9, 0.15, 0.5)),
        ((0.15,), (0.5,), (0.25,)),
    ]
    cases = []
    for low, high, error in plan:
        t, s, e = doubles(*low), doubles(*high), doubles(*error)
        facts = {
            "where s = 0": s == 1,
            "where s is more than 0": s < 1,
            "where the error is 0": e == 0,
            "where the error is more than 0": e > 0,
            "where the error is more than 1 - ᾱ_t": e > 1 - t,
            "behind the first step": torch.arange(len(t), device="cpu") > 0,
            "for one step": len(t) == 1,
        }
        label = f"ᾱ_t {list(low)}, ᾱ_s {list(high)}, errors {list(error)}"
        cases.append(Case(label, (t, s, e), facts))
    return cases


# ---- 12.2


def log_cases() -> list[Case]:
    plan = [
        *((EIGHT, IMAGES, t, s) for t, s in ((6, 5), (6, 2), (1, 0), (5, 0), (2, 1), (8, 1))),
        *((EIGHT, IMAGES, t, s) for t, s in (((8, 2, 5), (7, 1, 4)), ((7, 8, 4), (3, 2, 0)))),
        (EIGHT, (4, 1, 3, 4), (5, 2, 8, 3), (2, 1, 7, 0)),  # as many images as columns
        (EIGHT, (4, 1, 4, 5), (3, 8, 2, 6), (1, 4, 0, 5)),  # as many images as rows
        (EIGHT, (3, 3, 4, 5), (6, 3, 7), (5, 1, 2)),  # as many images as channels
        *((EIGHT, (4, 2), (7, 2, 6, 1), (6, 1, 2, 0)), (EIGHT, (6,), 5, 2), (FIVE, IMAGES, 4, 2)),
        *((OTHER_EIGHT, IMAGES, 6, 2), (TWELVE, (2, 3), (11, 10), (0, 9)), (TWELVE, (1, 3, 2, 2), (12,), (4,))),
    ]
    cases = []
    for i, (betas, shape, t, s) in enumerate(plan):
        many, images = not isinstance(t, int), len(shape) == 4
        axes = (-1,) + (1,) * (len(shape) - 1)
        rows, before = (torch.tensor(r, device="cpu").reshape(axes if many else ()) for r in (t, s))
        v = normal(shape, 1500 + i)
        v.view(-1)[:3] = torch.tensor([-1.0, 1.0, 0.0])
        facts = {
            "where s = 0": before == 0,
            "where s is more than 0": before > 0,
            "where t = 1": rows == 1,
            "for steps longer than one": rows - before > 1,
            "where v is beyond -1 or 1": v.abs() > 1,
            "where v is -1": v == -1,
            "where v is 1": v == 1,
            "for ints": not many,
            "for t and s of shape (B,)": many,
            "for data that is not images": not images,
            "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
            "where the batch has as many images as an image has channels": images and shape[0] == shape[1],
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        times = (torch.tensor(t, device="cpu"), torch.tensor(s, device="cpu")) if many else (t, s)
        label = f"v {shape}, from t = {list(t) if many else t} to s = {list(s) if many else s}"
        cases.append(Case(label, (betas, v, *times), facts))
    return cases + on_gpu(cases[0])


# ---- 12.3


def _reject_others(estimate: Tensor, v: Tensor) -> None:
    if not (isinstance(estimate, Tensor) and isinstance(v, Tensor) and estimate.shape == v.shape):
        got = [tuple(x.shape) if isinstance(x, Tensor) else x for x in (estimate, v)]
        raise ValueError(f"term(estimate, v) takes two halves of one shape; got {got[0]} and {got[1]}")


def narrow_term(estimate: Tensor, v: Tensor) -> Tensor:
    """Bits of Gaussians around the estimate, whose variance v says; every item of the batch has data of its own."""
    _reject_others(estimate, v)
    item = torch.arange(len(estimate), dtype=estimate.dtype, device=estimate.device).reshape(
        (-1,) + (1,) * (estimate.ndim - 1)
    )
    away = estimate - torch.sin(1.7 * item)
    nats = 0.5 * v + away**2 * torch.exp(-0.6 * v)
    return nats.flatten(1).mean(1) / math.log(2)


def wide_term(estimate: Tensor, v: Tensor) -> Tensor:
    """The same with other numbers, and with a penalty on large v."""
    _reject_others(estimate, v)
    nats = torch.log1p((estimate + 0.4) ** 2) * (2 - torch.tanh(v)) + 0.2 * v**2
    return nats.flatten(1).mean(1) / math.log(2)


def loss_and_gradients(function: Callable, term: Callable, output: Tensor, target: Tensor, T: int) -> Any:
    """The loss, and what of it reaches the two halves of the output, where the items count differently."""
    with torch.enable_grad():
        output = output.detach().clone().requires_grad_()
        loss = function(term, output, target, T)
        if not isinstance(loss, Tensor):
            return loss
        gradient = torch.zeros_like(output)
        if loss.requires_grad:
            weights = torch.linspace(1, 2, loss.numel(), device=loss.device).reshape(loss.shape)
            (gradient,) = torch.autograd.grad((weights * loss).sum(), output)
    of_estimate, of_v = gradient.detach().chunk(2, 1)
    return {
        "loss": loss.detach(),
        "gradient that reaches the estimate": of_estimate,
        "gradient that reaches v": of_v,
    }


def hybrid_cases() -> list[Case]:
    plan = [
        *((narrow_term, IMAGES, 1000), (wide_term, (4, 1, 3, 4), 1000), (narrow_term, (4, 1, 4, 5), 250)),
        *((wide_term, IMAGES, 4000), (narrow_term, (3, 3, 2, 2), 500), (wide_term, (5, 2), 1000)),
        *((narrow_term, (2, 4), 2000), (wide_term, (1, 1, 2, 3), 300), (narrow_term, (3, 2, 4), 1000)),
    ]
    cases = []
    for i, (term, shape, T) in enumerate(plan):
        twice = (shape[0], 2 * shape[1], *shape[2:])
        facts = {
            "for one channel": shape[1] == 1,
            "for more than one channel": shape[1] > 1,
            "for T = 1000": T == 1000,
            "for another T than 1000": T != 1000,
            "for more than one item": shape[0] > 1,
            "for data that is not images": len(shape) != 4,
            "for the first term": term is narrow_term,
        }
        args = (term, normal(twice, 1600 + 2 * i).double(), normal(shape, 1601 + 2 * i).double(), T)
        cases.append(Case(f"output {twice}, T = {T}", args, facts, use=loss_and_gradients))
    return cases


# ---- 12.4


def importance_cases() -> list[Case]:
    plan = [  # widths, H, how often the bins were drawn (None: often enough), the uniform share
        ((1, 2, 3, 5, 9), 10, None, 0.1),
        ((1, 2, 3, 5, 9), 10, None, 0.0),
        ((1, 2, 3, 5, 9), 10, (12, 30, 9, 10, 11), 0.1),
        ((1, 2, 3, 5, 9), 10, (10, 10, 10, 10, 10), 0.2),
        ((1, 1, 2, 4), 4, (4, 7, 5, 6), 0.3),
        ((1, 1, 2, 4), 4, (0, 0, 0, 0), 0.3),
        ((1, 2, 4), 5, (6, 1, 0), 0.2),
        ((4, 4, 4), 10, None, 0.5),
        ((1, 1, 1, 1, 1, 1), 3, (3, 3, 9, 3, 3, 2), 0.05),
        ((2, 6, 10, 14, 18, 30, 40), 10, (20, 11, 40, 25, 18, 10, 16), 0.001),
    ]
    cases = []
    for i, (widths, H, times, uniform) in enumerate(plan):
        bins = len(widths)
        drawn = torch.tensor(times or [50 + 3 * k for k in range(bins)], device="cpu")
        sizes = 3.0 / (1 + torch.arange(bins, device="cpu", dtype=torch.float64)) ** 1.3
        scatter = torch.exp(1.5 * normal((bins, H), 1700 + i).double())
        filled = torch.arange(H, device="cpu") >= H - drawn[:, None]  # the newest stands last
        squares = sizes[:, None] ** 2 * scatter * filled
        full = bool((drawn >= H).all())
        facts = {
            "where every bin was drawn H times or more": full,
            "where a bin was drawn fewer times than H": not full,
            "where a bin was drawn exactly H times": full and bool((drawn == H).any()),
            "where no bin was drawn yet": not drawn.any(),
            "where uniform is 0": uniform == 0,
            "where uniform is more than 0": uniform > 0,
            "where all bins are as wide": len(set(widths)) == 1,
            "where the bins differ in width": len(set(widths)) > 1,
            "for another H than 10": H != 10,
        }
        said = f", drawn {list(times)} times" if times else ""
        label = f"{bins} bins of {list(widths)} t, H = {H}{said}, uniform {uniform:g}"
        args = (squares, drawn, torch.tensor(widths, device="cpu"), uniform)
        cases.append(Case(label, args, facts, result=probability_and_weight))
    return cases


def probability_and_weight(_: tuple, value: Any) -> Any:
    """The two parts of an answer by their names, where it has two."""
    pair = isinstance(value, list | tuple) and len(value) == 2
    return {"probability": value[0], "weight": value[1]} if pair else value


# ---- 12.5


def min_snr_cases() -> list[Case]:
    plan = [((40.0, 6.0, 4.0, 1.3, 0.6, 0.04), None), ((40.0, 6.0, 4.0, 1.3, 0.6, 0.04), 1.0)]
    plan += [((900.0, 5.5, 0.002), 20.0), ((30.0, 0.5), 5.0), ((0.3, 0.2, 0.01), None), ((7.0,), 2.5)]
    cases = []
    for values, gamma in plan:
        for predicts in ("noise", "v", "x0"):
            row = (*values, 0.0) if predicts != "noise" and gamma == 1.0 else values
            snr = doubles(*row)
            facts = {f'for "{name}"': name == predicts for name in ("noise", "v", "x0")}
            facts |= {
                "where SNR is above gamma": snr > (gamma or 5),
                "where SNR is below gamma": snr < (gamma or 5),
                "where SNR is 0": snr == 0,
                "where gamma is not given": gamma is None,
                "for another gamma than 5": gamma not in (None, 5.0),
            }
            said = f"gamma {gamma:g}" if gamma else "gamma not given"
            args = (snr, predicts) if gamma is None else (snr, predicts, gamma)
            cases.append(Case(f'SNR {list(row)}, "{predicts}", {said}', args, facts))
    return cases


# ---- 12.7


def table_of(betas: Betas) -> Tensor:
    """(T+1,) alpha_bar."""
    return torch.cat([doubles(1.0), (1 - doubles(*betas.values)).cumprod(0)])


def rescaling_cases() -> list[Case]:
    paper = Betas(tuple(0.0001 + 0.0199 * i / 999 for i in range(200)))  # ends early: a lot of x_0 is left
    plan = {"T = 8": EIGHT, "T = 5": FIVE, "T = 12": TWELVE, "another T = 8": OTHER_EIGHT}
    plan |= {"T = 2": Betas((0.2, 0.3)), "T = 200": paper, "T = 3, slow": Betas((0.01, 0.02, 0.03))}
    cases = []
    for label, betas in plan.items():
        t = torch.arange(len(betas.values) + 1, device="cpu")
        facts = {
            "at t = 0": t == 0,
            "at t = 1": t == 1,
            "at t = T": t == len(betas.values),
            "between t = 1 and T": (t > 1) & (t < len(betas.values)),
            "for T = 2": len(betas.values) == 2,
        }
        cases.append(Case(label, (table_of(betas),), facts))
    return cases
