"""The exercises of lesson 02: from the chain to the closed form. What goes wrong in them is in lesson02.mistakes."""

import torch

from .cases import EIGHT, FIVE, OTHER_EIGHT, TWELVE, step_cases
from .records import Betas, Case
from .written import exercise


def merge_cases() -> list[Case]:
    numbers = [(0.6, 0.8), (0.3, 0.1), (0.0, 1.5), (0.5, 0.0), (1.2, 1.2), (-0.6, 0.7)]
    plan = [(f"a = {a}, b = {b}", a, b) for a, b in numbers]
    a, b = torch.tensor([0.6, 0.0, 1.3], device="cpu"), torch.tensor([0.9, 0.7, 0.4], device="cpu")
    plan += [("tensors of shape (3,)", a, b), ("tensors of shape (3, 1, 1)", a.reshape(3, 1, 1), b.reshape(3, 1, 1))]
    cases = []
    for label, a, b in plan:
        facts = {
            "for numbers": isinstance(a, float),
            "for tensors": not isinstance(a, float),
            "where a and b differ": a != b,
            "where neither is 0": (a != 0) & (b != 0),
            "where a is not 0": a != 0,
            "where b is not 0": b != 0,
            "where a is negative": a < 0,
            "where a is smaller than b": a < b,
            "where a is larger than b": a > b,
        }
        cases.append(Case(label, (a, b), facts))
    return cases


@exercise(
    "2.1",
    merge_cases,
    first="what is the variance of a * e1 alone? Variances of independent noises add; the rest follows.",
    tolerance=1e-5,
)
def merge_noises(a, b):
    """The standard deviation of a * e1 + b * e2: e1, e2 independent and standard normal.

    a, b:    numbers, or tensors of one shape
    """
    return (a**2 + b**2) ** 0.5


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
    first="write down entries 0, 1 and 2 by hand. How does each follow from the one before?",
    tolerance=1e-5,
    any_float=True,
)
def alpha_bars(betas):
    """The share of x_0's variance that is left after t steps, for t = 0...T.

    betas:   (T,) variances, the first one for t = 1
    returns  (T+1,) products of 1 - beta up to t; entry 0 belongs to clean data
    """
    first = betas.new_ones(1)  # no step: everything is left
    alphas = 1 - betas
    products = alphas.cumprod(dim=0)
    return torch.cat([first, products])


@exercise(
    "2.3",
    lambda: step_cases(first=0),
    first="write x_t = ... x_0 + ... ε from the closed form, for one int t. Then for t of shape (B,).",
    linear=("x0", "noise"),
    sampled=True,
)
def q_sample(schedule, x0, t, noise):
    """Draw x_t from q(x_t | x_0).

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
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
    first="write down x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε and solve it for x_0. Two operations.",
    linear=("xt", "noise"),
)
def predict_x0(schedule, xt, t, noise):
    """Recover x_0 from x_t and the noise that is in it: q_sample turned around.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the noise in xt, same shape
    returns    (B, ...) in float32, on the device of xt
    """
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    ab = schedule.alpha_bar  # (T+1,) in float64
    signal = ab.sqrt()
    sigma = (1 - ab).sqrt()
    signal, sigma = (w.to(xt.dtype).to(xt.device)[t].reshape(column) for w in (signal, sigma))
    x0 = (xt - sigma * noise) / signal
    return x0


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
    ]
    cases, seen = [], set()
    for betas, t, label in plan:
        facts = {
            "for another schedule of the same T": len(betas) in seen,
            "where ᾱ is exactly 1/2 at some t": "exactly" in label,
            "where it is the first step": t == 1,
            "where it is the last step": t == len(betas),
            "for T of more than 60": len(betas) > 60,
        }
        cases.append(Case(label, (Betas(betas),), facts))
        seen.add(len(betas))
    return cases


@exercise(
    "2.5",
    schedule_cases,
    first="signal and noise have the variances ᾱ_t and 1 - ᾱ_t. For which ᾱ_t are they equal?",
)
def equal_t(schedule):
    """The first t (an int) at which the noise is at least as strong as the signal.

    schedule:  has the table schedule.alpha_bar, (T+1,): the variance of the signal;
               that of the noise is the rest
    """
    stronger = schedule.alpha_bar <= 0.5  # (T+1,) where the noise is
    return int(stronger.nonzero()[0])
