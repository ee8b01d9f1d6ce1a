"""The exercises of lesson 02: from the chain to the closed form. What goes wrong in them is in lesson02.mistakes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..schedules import Schedule
from .cases import EIGHT, FIVE, OTHER_EIGHT, TWELVE, normal, step_cases
from .records import Betas, Case, Seed
from .written import exercise


def merge_cases() -> list[Case]:
    plan = [(0.6, 0.8), (0.3, 0.1), (0.0, 1.5), (0.5, 0.0), (1.2, 1.2), (-0.6, 0.7)]
    plan += [(0.6, 0.8, 0.5), (0.3, 0.9, -0.4), (1.2, 0.5, 0.0), (0.5, 0.7, 1.0), (0.75, 0.75, -1.0), (-0.6, 0.7, 0.3)]
    a, b = torch.tensor([0.6, 0.0, 1.3], device="cpu"), torch.tensor([0.9, 0.7, 0.4], device="cpu")
    plan += [(a, b), (a, b, -0.8), (a.reshape(3, 1, 1), b.reshape(3, 1, 1), 0.6)]
    cases = []
    for args in plan:
        a, b, rho = args if len(args) == 3 else (*args, 0.0)
        given = len(args) == 3
        shown = f"a = {a}, b = {b}" if isinstance(a, float) else f"tensors of shape {tuple(a.shape)}"
        facts = {
            "for numbers": isinstance(a, float),
            "for tensors": not isinstance(a, float),
            "where rho is given": given,
            "where rho is not given": not given,
            "where rho is not 0": rho != 0,
            "where rho is negative": rho < 0,
            "where rho is 1": rho == 1,
            "where rho is -1": rho == -1,
            "where a and b differ": a != b,
            "where neither is 0": (a != 0) & (b != 0),
            "where a is not 0": a != 0,
            "where b is not 0": b != 0,
            "where a is negative": a < 0,
            "where a is smaller than b": a < b,
            "where a is larger than b": a > b,
        }
        cases.append(Case(f"{shown}, rho = {rho}" if given else shown, args, facts))
    return cases


@exercise(
    "2.1",
    merge_cases,
    first="expand the square (a e1 + b e2)². Which of its three means changes if e1 and e2 are not independent?",
    tolerance=1e-5,
)
def merge_noises(a, b, rho=0.0):
    """The standard deviation of a * e1 + b * e2, where e1 and e2 are standard normal.

    a, b:    numbers, or tensors of one shape
    rho:     the correlation of e1 and e2, a number from -1 to 1; 0 if they are independent
    returns  a number for numbers, a tensor of the same shape for tensors; 0 or more
    """
    variance = a**2 + b**2 + 2 * rho * a * b
    return variance**0.5


def betas_cases() -> list[Case]:
    plan = [EIGHT.values, FIVE.values, (0.2,), OTHER_EIGHT.values, TWELVE.values]
    plan = [(torch.tensor(values, dtype=torch.float64, device="cpu"), values) for values in plan]
    plan.append((plan[0][0].float(), EIGHT.values))
    cases = []
    for betas, values in plan:
        t = torch.arange(len(values) + 1, device="cpu")
        facts = {
            "at t = 0": t == 0,
            "at t = T": t == len(values),
            "for t of 2 and more": t > 1,
            "for T = 1": len(values) == 1,
            "for T of more than 8": len(values) > 8,
            "for other betas of the same T": values is OTHER_EIGHT.values,
            "for betas in float32": betas.dtype == torch.float32,
        }
        dtype = str(betas.dtype).removeprefix("torch.")
        cases.append(Case(f"T = {len(values)}, {dtype}", (betas,), facts))
    return cases


@exercise(
    "2.2",
    betas_cases,
    first="write down entries 0, 1 and 2 for the betas 0.1 and 0.2. How does each follow from the one before?",
    tolerance=1e-5,
)
def alpha_bars(betas):
    """The share of x_0's variance that is left after t steps, for t = 0...T.

    betas:   (T,) variances, the first one for t = 1
    returns  (T+1,) in the dtype of betas; entry 0 belongs to clean data
    """
    first = betas.new_ones(1)  # no step: everything is left
    alphas = 1 - betas
    products = alphas.cumprod(dim=0)
    return torch.cat([first, products])


@exercise(
    "2.3",
    lambda: step_cases(first=0),
    first="one image, one int t: which two numbers stand in eq. 4? Then: how many of each does a batch need?",
    linear=("x0", "noise"),
    sampled=True,
)
def q_sample(schedule, x0, t, noise):
    """Draw x_t from q(x_t | x_0).

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64;
               schedule.at("alpha_bar", t, x0) is its entry t, shaped and typed to multiply x0
    x0:        (B, ...) clean data in float32
    t:         (B,) integers in 0...T, or one int for the whole batch
    noise:     same shape as x0, standard normal
    returns    (B, ...) in float32, on the device of x0
    """
    column = (-1,) + (1,) * (x0.ndim - 1)  # (B, 1, ..., 1)
    ab = schedule.alpha_bar  # (T+1,) in float64
    signal = ab.sqrt()
    sigma = (1 - ab).sqrt()
    signal, sigma = (w.to(x0.dtype).to(x0.device)[t].reshape(column) for w in (signal, sigma))
    return signal * x0 + sigma * noise


@exercise(
    "2.4",
    lambda: step_cases(first=1),
    first="what happened to x_0 on its way to x_t, and in which order? Undo it.",
    linear=("xt", "noise"),
)
def predict_x0(schedule, xt, t, noise):
    """Recover x_0 from x_t and the noise that is in it: q_sample turned around.

    schedule:  goes into q_sample; and schedule.q_coefficients(t, xt) returns the factor of x_0
               and that of the noise, in this order, each shaped and typed to multiply xt
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the noise in xt, same shape
    returns    (B, ...) in float32, on the device of xt: the x_0 for which
               q_sample(schedule, x_0, t, noise) is xt; not clipped
    """
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    ab = schedule.alpha_bar  # (T+1,) in float64
    signal = ab.sqrt()
    sigma = (1 - ab).sqrt()
    signal, sigma = (w.to(xt.dtype).to(xt.device)[t].reshape(column) for w in (signal, sigma))
    x0 = (xt - sigma * noise) / signal
    return x0


def refusals(function: Callable, schedule: Schedule) -> dict[str, int]:
    """1 if the function raises ValueError; whatever else it does is 0, and one mistake."""
    try:
        function(schedule)
    except ValueError:
        return {"number of ValueErrors": 1}
    except NotImplementedError:  # a stub is no answer
        raise
    except Exception:
        pass
    return {"number of ValueErrors": 0}


def schedule_cases() -> list[Case]:
    ramp = tuple(0.01 + 0.002 * i for i in range(60))
    plan = [
        (ramp, 22, "T = 60"),
        (EIGHT.values, 4, "T = 8"),
        ((0.001505,) * 1000, 461, "T = 1000, all betas 0.001505"),
        ((0.3, 0.25, 0.6, 0.4), 3, "T = 4, a large third step"),
        ((0.2, 0.375, 0.2, 0.5), 2, "T = 4, ᾱ_2 exactly 1/2"),
        ((0.7, 0.02, 0.5), 1, "T = 3, a large first step"),
        ((0.1, 0.02, 0.4, 0.1, 0.3, 0.4), 4, "T = 6"),
        ((0.1, 0.15, 0.2, 0.05, 0.6), 5, "T = 5, a large last step"),
        (ramp[::-1], 6, "T = 60, betas falling"),
        ((0.1, 0.05, 0.08), None, "T = 3, where the noise never catches up"),
        ((0.2, 0.2, 0.15), None, "T = 3, where the noise nearly catches up"),
    ]
    cases, seen = [], set()
    for betas, t, label in plan:
        facts = {
            "for another schedule of the same T": len(betas) in seen,
            "where ᾱ is exactly 1/2 at some t": "exactly" in label,
            "where it is the first step": t == 1,
            "where it is the last step": t == len(betas),
            "for T of more than 60": len(betas) > 60,
            "where the noise catches up": t is not None,
            "where the noise does not catch up": t is None,
        }
        cases.append(Case(label, (Betas(betas),), facts, use=refusals if t is None else None))
        seen.add(len(betas))
    return cases


@exercise(
    "2.5",
    schedule_cases,
    first="what are the two variances at t = 0, and which of them grows? Where is the comparison decided?",
)
def equal_t(schedule):
    """The first t at which the noise is at least as strong as the signal.

    schedule:  has the table schedule.alpha_bar, (T+1,): the variance of the signal;
               that of the noise is the rest
    returns    an int from 1 to T
    raises     ValueError if the noise is weaker than the signal at every t
    """
    stronger = schedule.alpha_bar <= 0.5  # (T+1,) where the noise is
    if not stronger.any():
        raise ValueError("the signal is stronger than the noise at every t")
    return int(stronger.nonzero()[0])


def batch_cases() -> list[Case]:
    """Cases (schedule, x_0, generator)."""
    plan = [(EIGHT, (3, 2, 4, 5)), (EIGHT, (5, 1, 3, 5)), (EIGHT, (4, 1, 4, 5)), (EIGHT, (3, 3, 4, 5))]
    plan += [(EIGHT, (1, 2, 4, 5)), (EIGHT, (40,)), (EIGHT, (30, 1)), (EIGHT, (2, 3, 4)), (FIVE, (6, 1, 2, 3))]
    plan += [(OTHER_EIGHT, (7, 1, 3, 3)), (TWELVE, (50, 2))]
    cases = []
    for i, (betas, shape) in enumerate(plan):
        images = len(shape) == 4
        facts = {
            "for a batch of one": shape[0] == 1,
            "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
            "where the batch has as many images as an image has rows": images and shape[0] == shape[2],
            "where the batch has as many images as an image has channels": images and shape[0] == shape[1],
            "for images": images,
            "for data that is not images": not images,
            "for another schedule": betas is not EIGHT,
            "for a schedule with another T": betas in (FIVE, TWELVE),
        }
        label = f"{'images' if images else 'data'} {shape}, T = {len(betas.values)}"
        args = (betas, normal(shape, 200 + i), Seed(i))
        cases.append(Case(label, args, facts, result=three_parts))
    return cases


def three_parts(args: tuple, value: Any) -> Any:
    """x_t, t and the noise by name, if these are three tensors."""
    if isinstance(value, tuple | list) and len(value) == 3 and all(isinstance(part, Tensor) for part in value):
        return dict(zip(("t", "noise", "x_t"), (value[1], value[2], value[0]), strict=True))
    return value


@exercise(
    "2.6",
    batch_cases,
    first="run broken_batch on 28 garments, and look at x_t one image at a time. Then look at the smallest t.",
)
def noised_batch(schedule, x0, generator):
    """broken_batch without its two faults: each image at a random t of its own.

    schedule:   has T, the table alpha_bar, (T+1,) in float64, and at and q_coefficients
    x0:         (B, ...) clean data in float32, on the CPU
    generator:  for everything random: first t, then the noise
    returns     three tensors: x_t (B, ...) in float32; t (B,) in int64, where each of 1...T is
                equally likely; and the noise in x_t, standard normal, in the shape of x0
    """
    t = torch.randint(1, schedule.T + 1, (len(x0),), generator=generator)  # was from 0 to T - 1
    noise = torch.randn(x0.shape, generator=generator)
    signal, sigma = schedule.q_coefficients(t, x0)  # (B, 1, ..., 1); were (B,)
    xt = signal * x0 + sigma * noise
    return xt, t, noise
