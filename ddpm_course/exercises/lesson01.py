"""The exercises of lesson 01: bytes and back, one step, the whole chain, its variance, a step of one's own, a chain to
repair. What goes wrong in them is in lesson01.mistakes."""

import torch

from .cases import EIGHT, FIVE, OTHER_EIGHT, TWELVE, normal, on_gpu, step_cases
from .records import Betas, Case, Seed
from .written import exercise

THOUSAND = Betas(tuple(torch.linspace(1e-4, 0.02, 1000, device="cpu", dtype=torch.float64).tolist()))  # the paper's


def range_cases() -> list[Case]:
    levels = torch.arange(256, device="cpu", dtype=torch.float32)
    wiggle = normal((2, 3, 8, 8), 5).clamp(-1, 1) * 0.495  # not a half
    nearby = (torch.arange(384, device="cpu") * 37 % 256).reshape(2, 3, 8, 8) + wiggle
    beyond = torch.tensor([-3.0, -1.6, -1.21, -1.05, -0.5, 0.25, 0.9, 1.03, 1.3, 1.7, 2.5], device="cpu")
    images = torch.tensor([-1.3, -1.1, 1.1, 1.2, 0.1, 0.7, -2.0, 2.0], device="cpu").reshape(1, 1, 2, 4)
    plan = [
        ("all 256 levels", levels / 127.5 - 1),
        ("images (2, 3, 8, 8) between the levels", (nearby / 127.5 - 1).clamp(-1, 1)),
        ("values from -3 to 2.5", beyond),
        ("images (1, 1, 2, 4) beyond the range", images),
    ]
    cases = []
    for label, x in plan:
        exact = (x + 1) * 127.5
        facts = {
            "for values outside [-1, 1]": x.abs() > 1,
            "for values above 1": x > 1,
            "where 255 is right": exact.round() >= 255,
            "for values below -1": x < -1,
            "for values that lie between two levels": (exact - exact.round()).abs() > 1e-3,
        }
        cases.append(Case(label, (x,), facts))
    return cases + on_gpu(cases[1])


@exercise(
    "1.1",
    range_cases,
    first="which byte should each of -1, 0.5 and 1.2 become, and which would a plain cast make of it?",
    tolerance=1e-6,
)
def to_uint8(x):
    """Floats, meant to lie in [-1, 1], to uint8 values 0...255, whatever the shape.

    What lies outside is clamped to the nearest end; what lies between two levels
    goes to the nearer one.

    x:       (...) float
    returns  (...) uint8
    """
    scaled = (x + 1) * 127.5
    clamped = scaled.clamp(0, 255)
    rounded = clamped.round()
    return rounded.to(torch.uint8)


@exercise(
    "1.2",
    lambda: step_cases(first=1),
    first="take one int t. Which two numbers do x and the noise get multiplied by, so that the variance stays 1?",
    linear=("x", "noise"),
    sampled=True,
)
def q_step(schedule, x, t, noise):
    """Draw x_t from q(x_t | x_{t-1}), Ho et al. (2020), eq. 2: one step of the chain.

    schedule:  has the table schedule.beta, (T+1,) in float64 on the CPU
    x:         (B, ...) data at noise level t - 1 in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     same shape as x, standard normal
    returns    (B, ...) in float32, on the device of x
    """
    column = (-1,) + (1,) * (x.ndim - 1)  # (B, 1, ..., 1)
    beta = schedule.beta  # (T+1,) in float64
    keep = (1 - beta).sqrt()
    add = beta.sqrt()
    keep, add = (table.to(x.dtype).to(x.device)[t].reshape(column) for table in (keep, add))
    return keep * x + add * noise


def chain_cases() -> list[Case]:
    plan = [(EIGHT, (4, 1, 4, 4)), (FIVE, (1, 3, 4, 5)), (EIGHT, (30,))]
    plan += [(OTHER_EIGHT, (2, 1, 4, 4)), (TWELVE, (2, 3, 5, 5)), (THOUSAND, (20,))]
    cases = []
    for seed, (betas, shape) in enumerate(plan):
        T = len(betas.values)
        t = torch.arange(T + 1, device="cpu").reshape((-1,) + (1,) * len(shape))
        facts = {
            "at t = 0": t == 0,
            "at t = T": t == T,
            "from t = 2 on": t > 1,
            "for a batch of one": shape[0] == 1,
            "for T of more than 8": T > 8,
            "for a thousand steps": betas is THOUSAND,
            "for another schedule": betas is not EIGHT,
            "for images": len(shape) == 4,
            "for data of shape (B,)": len(shape) == 1,
            "for a schedule with another T": T != 8,
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        cases.append(Case(f"x0 of shape {shape}, T = {T}", (betas, normal(shape, 50 + seed), Seed(seed)), facts))
    return cases


@exercise(
    "1.3",
    chain_cases,
    first="write down for T = 2 how x_1 and x_2 are made. What does step 2 take over from step 1, and what is new?",
)
def diffuse(schedule, x0, generator):
    """Run the whole chain, with q_step, and keep every x_t.

    schedule:   steps t = 1...schedule.T, of which there may be a thousand or more
    x0:         (B, ...) clean data
    generator:  for the noise: torch.randn(x0.shape, generator=generator), once per step,
                in the order t = 1...T
    returns     (T+1, B, ...) x_0 first, x_T last
    """
    x = x0
    xs = [x]
    for t in range(1, schedule.T + 1):
        noise = torch.randn(x0.shape, generator=generator)
        x = q_step(schedule, x, t, noise)
        xs.append(x)
    return torch.stack(xs)


def variance_cases() -> list[Case]:
    pairs = [(0.2537, 0.0213), (2.5137, 0.1), (1.0, 0.3), (0.0, 0.4), (4.0, 0.5), (0.6213, 0.9)]
    variances, betas = torch.tensor([0.3, 1.0, 2.0], device="cpu"), torch.tensor([0.2, 0.05, 0.6], device="cpu")
    plan = [(f"variance = {v}, beta = {b}", v, b) for v, b in pairs]
    plan += [("tensors of shape (3,)", variances, betas), ("a tensor of variances, beta = 0.15", variances, 0.15)]
    cases = []
    for label, variance, beta in plan:
        facts = {
            "for numbers": isinstance(variance, float),
            "for tensors": not isinstance(variance, float),
            "where the variance is not 1": variance != 1,
            "where the variance is 0": variance == 0,
            "where the variance is above 1": variance > 1,
        }
        cases.append(Case(label, (variance, beta), facts))
    return cases


@exercise(
    "1.4",
    variance_cases,
    first="a step adds two independent terms. What is the variance of each?",
    linear=("variance",),
    tolerance=1e-5,
)
def next_variance(variance, beta):
    """Var x_t from Var x_{t-1}.

    variance, beta:  numbers, or tensors
    returns          a number, or a tensor
    """
    return (1 - beta) * variance + beta


def scale_cases() -> list[Case]:
    pairs = [(0.9, 1.0), (0.8, 0.3437), (-0.6, 2.5137), (0.0, 1.7), (1.0, 4.0), (0.97, 0.0)]
    factors, variances = torch.tensor([0.3, -0.9, 0.75], device="cpu"), torch.tensor([0.25, 1.0, 3.0], device="cpu")
    plan = [(f"a = {a}, variance = {v}", a, v) for a, v in pairs]
    plan += [("a of shape (3,), variance = 1.6", factors, 1.6), ("a = 0.7, variances of shape (3,)", 0.7, variances)]
    plan += [("tensors of shape (3,)", factors, variances)]
    cases = []
    for label, a, variance in plan:
        numbers = isinstance(a, float) and isinstance(variance, float)
        facts = {
            "for numbers": numbers,
            "for tensors": not numbers,
            "where the variance is not 1": variance != 1,
            "where the variance is 0": variance == 0,
            "where a is negative": a < 0,
            "where a is 0": a == 0,
            "where a is 1": a == 1,
        }
        cases.append(Case(label, (a, variance), facts))
    return cases


@exercise(
    "1.5",
    scale_cases,
    first="what is the variance after the step, in terms of a, b and the variance before? What must it be equal to?",
    tolerance=1e-5,
)
def noise_scale(a, variance):
    """The factor b with which the step x_t = a * x_{t-1} + b * noise keeps a variance.

    a:         the factor on the old value, from -1 to 1: a number, or a tensor
    variance:  of x_{t-1}, and of x_t as well, 0 or more: a number, or a tensor
    returns    b, 0 or more: a number for two numbers, else a tensor
    """
    left = a**2 * variance
    missing = variance - left
    return missing**0.5


def repair_cases() -> list[Case]:
    plan = [([0.9, 0.8, 0.6, 0.95, 0.85], (4, 1, 4, 4), 1.0), ([0.7], (3, 2), 0.3437), ([0.5, -0.8, 0.98], (30,), 2.5)]
    plan += [([0.6, 0.0, 0.9, 1.0, 0.7], (1, 3, 4, 5), 0.3437), ([0.95] * 12, (2, 3, 5, 5), 1.7)]
    cases = []
    for seed, (factors, shape, variance) in enumerate(plan):
        t = torch.arange(len(factors) + 1, device="cpu").reshape((-1,) + (1,) * len(shape))
        facts = {
            "at t = 0": t == 0,
            "from t = 2 on": t > 1,
            "for a chain of one step": len(factors) == 1,
            "for a variance other than 1": variance != 1,
            "for factors of different size": len(set(factors)) > 1,
            "for a batch of one": shape[0] == 1,
            "for data of shape (B,)": len(shape) == 1,
        }
        label = f"x0 of shape {shape}, factors {factors}, variance {variance}"
        cases.append(Case(label, (factors, normal(shape, 80 + seed), variance, Seed(20 + seed)), facts))
    return cases


@exercise(
    "1.6",
    repair_cases,
    first="follow broken_chain by hand through two steps, with the factors 0.9 and 0.8. What goes wrong in the second?",
)
def repaired_chain(factors, x0, variance, generator):
    """broken_chain without its two faults: a chain in which every step keeps the variance.

    factors:    list of T numbers from -1 to 1: what steps 1...T multiply the old value by
    x0:         (B, ...) clean data
    variance:   to keep, a number
    generator:  for the noise: torch.randn(x0.shape, generator=generator), once per step,
                in the order of the steps
    returns     (T+1, B, ...) x_0 first, x_T last
    """
    x = x0
    xs = [x]
    for a in factors:  # was the product of the factors so far
        noise = torch.randn(x0.shape, generator=generator)  # was drawn once, before the loop
        b = noise_scale(a, variance)
        x = a * x + b * noise
        xs.append(x)
    return torch.stack(xs)
