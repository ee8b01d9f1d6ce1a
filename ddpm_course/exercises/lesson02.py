"""The checks of lesson 02: from the chain to the closed form."""

import torch
from torch import Tensor

from .. import diffusion
from ..schedules import Schedule
from . import answers
from .cases import EIGHT, FIVE, Entries, and_broadcasting, step_cases, step_mistakes, weighted
from .records import Betas, Case, Exercise, Mistake

SUM = "lesson 02, 'The sum of two Gaussians'"
PATTERN = "lesson 02, 'The pattern'"
CLOSED = "lesson 02, 'The closed form'"
BACK = "lesson 02, 'Back to the image'"
RATIO = "lesson 02, 'Signal and noise'"


def _merge_cases() -> list[Case]:
    numbers = [(0.6, 0.8), (0.3, 0.1), (2.0, 1.5), (0.5, 0.0), (1.2, 1.2)]
    cases = [
        Case(f"a = {a}, b = {b}", (a, b), {"for numbers": True, "where a and b differ": a != b}) for a, b in numbers
    ]
    a, b = torch.tensor([0.6, 0.2, 1.3], device="cpu"), torch.tensor([0.9, 0.7, 0.4], device="cpu")
    more = [("tensors of shape (3,)", (a, b)), ("tensors of shape (3, 1, 1)", (a.reshape(3, 1, 1), b.reshape(3, 1, 1)))]
    cases += [Case(label, args, {"for tensors": True, "where a and b differ": True}) for label, args in more]
    return [*cases, Case("a = -0.6, b = 0.7", (-0.6, 0.7), {"where a is negative": True, "for numbers": True})]


merge_noises = Exercise(
    "2.1",
    "merge_noises",
    answers.merge_noises,
    _merge_cases,
    stub='''
def merge_noises(a, b):
    """The standard deviation of a * e1 + b * e2: e1, e2 independent and standard normal.

    a, b:    numbers, or tensors of one shape
    """
    raise NotImplementedError  # your code here
''',
    first="what is the variance of a * e1 alone? Variances of independent noises add; the rest follows.",
    tolerance=1e-5,
    mistakes=[
        Mistake(
            "added_deviations",
            f"You add the standard deviations. Independent noises partly cancel: their *variances* add ({SUM}).",
            lambda a, b: a + b,
        ),
        Mistake(
            "returned_variance",
            f"a² + b² is the variance of the sum. The standard deviation is its root ({SUM}).",
            lambda a, b: a**2 + b**2,
        ),
        Mistake(
            "not_squared",
            f"a and b are standard deviations: square them to get the variances that add ({SUM}).",
            lambda a, b: (a + b) ** 0.5,
        ),
        Mistake(
            "averaged",
            f"The average is not what adding does: variances add ({SUM}).",
            lambda a, b: (a + b) / 2,
            lambda a, b: (a + b) / 2**0.5,
        ),  # fmt: skip
        Mistake(
            "averaged_variances",
            f"The variances add. There is nothing to divide by ({SUM}).",
            lambda a, b: ((a**2 + b**2) / 2) ** 0.5,
            lambda a, b: (a**2 + b**2) ** 0.5 / 2,
        ),
        Mistake(
            "multiplied",
            f"The noises are added, so their variances add; nothing is multiplied ({SUM}).",
            lambda a, b: a * b,
            lambda a, b: (a * b) ** 0.5,
        ),  # fmt: skip
        Mistake(
            "roots_added",
            f"The root belongs around the whole sum, not on each term ({SUM}).",
            lambda a, b: a**0.5 + b**0.5,
        ),  # fmt: skip
        Mistake(
            "difference",
            f"The variances of independent noises add, even when the noises are subtracted ({SUM}).",
            lambda a, b: abs(a**2 - b**2) ** 0.5,
            lambda a, b: abs(a - b),
        ),
        Mistake(
            "larger_one",
            f"The smaller noise counts too: the variances add ({SUM}).",
            lambda a, b: (
                a if not isinstance(a, Tensor) and a > b else torch.maximum(a, b) if isinstance(a, Tensor) else b
            ),
        ),
    ],
)


def _betas_cases() -> list[Case]:
    plan = [EIGHT.values, FIVE.values, (0.2,), (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)]
    cases = []
    for values in plan:
        first = torch.arange(len(values) + 1) == 0
        facts = {
            "at t = 0": first,
            "at t = T": first.flip(0),
            "for t of 1 and more": ~first,
            "for T = 1": len(values) == 1,
        }
        betas = torch.tensor(values, dtype=torch.float64, device="cpu")
        cases.append(Case(f"T = {len(values)}", (betas,), facts))
    single = torch.tensor(EIGHT.values, dtype=torch.float32, device="cpu")
    return [*cases, Case("T = 8, float32", (single,), {**cases[0].facts, "for betas in float32": True})]


def _with_one(values: Tensor) -> Tensor:
    return torch.cat([values.new_ones(1), values])


alpha_bars = Exercise(
    "2.2",
    "alpha_bars",
    answers.alpha_bars,
    _betas_cases,
    stub='''
def alpha_bars(betas):
    """The share of x_0's variance that is left after t steps, for t = 0...T.

    betas:   (T,) variances, the first one for t = 1
    returns  (T+1,) products of 1 - beta up to t; entry 0 belongs to clean data
    """
    raise NotImplementedError  # your code here
''',
    first="write down entries 0, 1 and 2 by hand. How does each follow from the one before?",
    tolerance=1e-5,
    any_float=True,
    mistakes=[
        Mistake(
            "product_of_betas",
            f"You multiply the betas. What is left after a step is 1 - β, so multiply those ({PATTERN}).",
            lambda betas: _with_one(betas.cumprod(0)),
            lambda betas: betas.cumprod(0),
        ),
        Mistake(
            "sum",
            f"You add. Each step keeps a share of what the last one left, so the shares *multiply* ({PATTERN}).",
            lambda betas: _with_one(1 - betas.cumsum(0)),
            lambda betas: 1 - betas.cumsum(0),
            lambda betas: _with_one((1 - betas).cumsum(0)),
            lambda betas: (1 - betas).cumsum(0),
            lambda betas: _with_one(betas.cumsum(0)),
            lambda betas: betas.cumsum(0),
        ),
        Mistake(
            "no_first_entry",
            f"The products are right, but entry 0 is missing: no step leaves everything, ᾱ_0 = 1 ({PATTERN}).",
            lambda betas: (1 - betas).cumprod(0),
        ),
        Mistake(
            "padded_at_end",
            f"The 1 stands at the end. It belongs to t = 0, clean data, so it comes first ({PATTERN}).",
            lambda betas: torch.cat([(1 - betas).cumprod(0), betas.new_ones(1)]),
        ),
        Mistake(
            "zero_first",
            f"Entry 0 is 0. At t = 0 all of x_0 is still there: the empty product is 1 ({PATTERN}).",
            lambda betas: torch.cat([betas.new_zeros(1), (1 - betas).cumprod(0)]),
        ),
        Mistake(
            "last_entry_dropped",
            f"Entry T is missing: T steps and clean data make T + 1 entries ({PATTERN}).",
            lambda betas: _with_one((1 - betas).cumprod(0))[:-1],
        ),
        Mistake(
            "first_entry_twice",
            f"Entry 0 repeats ᾱ_1. At t = 0 nothing has been taken away yet: ᾱ_0 = 1 ({PATTERN}).",
            lambda betas: torch.cat([1 - betas[:1], (1 - betas).cumprod(0)]),
        ),
        Mistake(
            "full_product",
            f"Every entry is the product of all T steps. Entry t stops at step t: cumprod, not prod ({PATTERN}).",
            lambda betas: (1 - betas).prod().repeat(len(betas) + 1),
            lambda betas: _with_one((1 - betas).prod().repeat(len(betas))),
            lambda betas: (1 - betas).prod().repeat(len(betas)),
            lambda betas: (1 - betas).prod(),
        ),
        Mistake(
            "not_cumulative",
            f"These are the α of single steps. ᾱ_t is the product of all of them up to t ({PATTERN}).",
            lambda betas: _with_one(1 - betas),
            lambda betas: 1 - betas,
        ),
        Mistake(
            "rooted",
            f"You return √ᾱ, the factor of x_0. Asked is ᾱ, the product of 1 - β itself ({PATTERN}).",
            lambda betas: _with_one((1 - betas).cumprod(0).sqrt()),
        ),
        Mistake(
            "complement",
            f"You return 1 - ᾱ, the variance of the noise. Asked is what is left of x_0 ({PATTERN}).",
            lambda betas: 1 - _with_one((1 - betas).cumprod(0)),
            lambda betas: _with_one(1 - (1 - betas).cumprod(0)),
        ),
        Mistake(
            "first_step_lost",
            f"Your product leaves out β_1, the first of `betas`, which belongs to t = 1 ({PATTERN}).",
            lambda betas: _with_one(_with_one((1 - betas[1:]).cumprod(0))),
        ),
        Mistake(
            "backwards",
            f"You multiply from the last step down. ᾱ_t is the product of the *first* t steps ({PATTERN}).",
            lambda betas: _with_one((1 - betas).flip(0).cumprod(0)),
            lambda betas: _with_one((1 - betas).cumprod(0)).flip(0),
            lambda betas: _with_one((1 - betas).flip(0).cumprod(0).flip(0)),
        ),
        Mistake(
            "exponential",
            "exp(-Σβ) is close to ᾱ only where every β is small. The exact answer is the product of 1 - β "
            f"({PATTERN}).",
            lambda betas: _with_one((-betas.cumsum(0)).exp()),
        ),
    ],
)


def _closed(e: Entries) -> tuple[Tensor, Tensor]:
    return e.alpha_bar.sqrt(), (1 - e.alpha_bar).sqrt()


q_sample = Exercise(
    "2.3",
    "q_sample",
    diffusion.q_sample,
    lambda: step_cases(first=0),
    stub='''
def q_sample(schedule, x0, t, noise):
    """Draw x_t from q(x_t | x_0).

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    x0:        (B, ...) clean data in float32
    t:         (B,) integers in 0...T, or one int for the whole batch
    noise:     same shape as x0, standard normal
    returns    (B, ...) in float32, on the device of x0
    """
    raise NotImplementedError  # your code here
''',
    first="write x_t = ... x_0 + ... ε from the closed form, for one int t. Then for t of shape (B,).",
    linear=("x0", "noise"),
    mistakes=and_broadcasting(
        [
            Mistake(
                "noise_variance",
                f"Your noise is scaled by 1 - ᾱ_t. That must be its *variance*, so scale by √(1 - ᾱ_t) ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), 1 - e.alpha_bar)),
            ),
            Mistake(
                "signal_not_rooted",
                f"Your x_0 is scaled by ᾱ_t. The factor of x_0 is √ᾱ_t; ᾱ_t is the share of its variance ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar, (1 - e.alpha_bar).sqrt())),
            ),
            Mistake(
                "no_roots",
                "You scale by ᾱ_t and 1 - ᾱ_t, which are shares of the *variance*. The factors are their roots "
                f"({CLOSED}).",
                weighted(lambda e: (e.alpha_bar, 1 - e.alpha_bar)),
            ),
            Mistake(
                "alpha_for_alpha_bar",
                "You use α_t, what one step keeps. t steps keep the product ᾱ_t: with α_t, x_T would still be almost "
                f"all image ({PATTERN}).",
                weighted(lambda e: (e.alpha.sqrt(), (1 - e.alpha).sqrt())),
            ),
            Mistake(
                "alpha_for_signal",
                "The noise is right, but x_0 is scaled by √α_t, one step's factor. t steps keep √ᾱ_t of it "
                f"({PATTERN}).",
                weighted(lambda e: (e.alpha.sqrt(), (1 - e.alpha_bar).sqrt())),
            ),
            Mistake(
                "beta_for_noise",
                "x_0 is right, but the noise is scaled by √β_t, what the last step alone adds. All t steps together "
                f"add the variance 1 - ᾱ_t ({SUM}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), e.beta.sqrt())),
            ),
            Mistake(
                "swapped",
                "The two factors are swapped: √ᾱ_t belongs to x_0, √(1 - ᾱ_t) to the noise. At t = 0 nothing but x_0 "
                f"is there ({CLOSED}).",
                weighted(lambda e: _closed(e)[::-1]),
            ),
            Mistake(
                "signal_unscaled",
                f"x_0 keeps its full size, so the variance grows above 1. Shrink it by √ᾱ_t ({CLOSED}).",
                weighted(lambda e: (1, (1 - e.alpha_bar).sqrt())),
            ),
            Mistake(
                "noise_unscaled",
                f"The noise comes in at full size at every t. Scale it by √(1 - ᾱ_t) ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), 1)),
            ),
            Mistake(
                "noise_forgotten",
                f"That is the mean of x_t. The noise, scaled by √(1 - ᾱ_t), is missing ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), 0)),
            ),
            Mistake(
                "signal_forgotten",
                f"That is the noise in x_t. x_0, scaled by √ᾱ_t, is missing ({CLOSED}).",
                weighted(lambda e: (0, (1 - e.alpha_bar).sqrt())),
            ),
            Mistake(
                "noise_subtracted",
                "You subtract the noise. The distribution is the same, but not the sample: the network learns to find "
                f"the ε that was *added* ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), -((1 - e.alpha_bar).sqrt()))),
            ),
            Mistake(
                "one_minus_root",
                f"1 - √ᾱ_t is not √(1 - ᾱ_t): take the root last, of the variance 1 - ᾱ_t ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), 1 - e.alpha_bar.sqrt())),
            ),
            Mistake(
                "noise_before_shrinking",
                f"Your noise is shrunk together with x_0. √ᾱ_t belongs to x_0 alone ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), (e.alpha_bar * (1 - e.alpha_bar)).sqrt())),
            ),
            Mistake(
                "squared",
                f"You square ᾱ_t as if it were a factor of x_0. It is a variance already ({CLOSED}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), (1 - e.alpha_bar**2).sqrt())),
                weighted(lambda e: (e.alpha_bar, (1 - e.alpha_bar**2).sqrt())),
            ),
            Mistake(
                "product_of_betas",
                f"You use the product of the betas. ᾱ_t is the product of 1 - β ({PATTERN}).",
                weighted(lambda e: (e.beta_bar.sqrt(), (1 - e.beta_bar).sqrt())),
                weighted(lambda e: ((1 - e.beta_bar).sqrt(), e.beta_bar.sqrt())),
            ),
            *step_mistakes(_closed, "x0", CLOSED),
        ]
    ),
)


def _back(e: Entries) -> tuple[Tensor, Tensor]:
    return 1 / e.alpha_bar.sqrt(), -((1 - e.alpha_bar) / e.alpha_bar).sqrt()


def _clipped(schedule: Schedule, xt: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    return answers.predict_x0(schedule, xt, t, noise).clamp(-1, 1)


predict_x0 = Exercise(
    "2.4",
    "predict_x0",
    answers.predict_x0,
    lambda: step_cases(first=1),
    stub='''
def predict_x0(schedule, xt, t, noise):
    """Recover x_0 from x_t and the noise that is in it: q_sample turned around.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the noise in xt, same shape
    returns    (B, ...) in float32, on the device of xt
    """
    raise NotImplementedError  # your code here
''',
    first="write down x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε and solve it for x_0. Two operations.",
    linear=("xt", "noise"),
    mistakes=and_broadcasting(
        [
            Mistake(
                "divided_by_alpha",
                "You divide by √α_t, one step's factor. x_0 was shrunk by all t steps, so divide by √ᾱ_t. (A widely "
                f"read explanation of sampling prints it your way.) ({BACK})",
                weighted(lambda e: (1 / e.alpha.sqrt(), -((1 - e.alpha_bar) / e.alpha).sqrt())),
            ),
            Mistake(
                "division_not_rooted",
                f"You divide by ᾱ_t. The factor of x_0 in x_t is √ᾱ_t ({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar, -((1 - e.alpha_bar).sqrt() / e.alpha_bar))),
            ),
            Mistake(
                "noise_added",
                f"You add the noise once more. It was added to make x_t, so subtract it ({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), ((1 - e.alpha_bar) / e.alpha_bar).sqrt())),
            ),
            Mistake(
                "noise_variance",
                "You subtract (1 - ᾱ_t) ε. The noise in x_t has the *variance* 1 - ᾱ_t and the factor √(1 - ᾱ_t) "
                f"({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), -(1 - e.alpha_bar) / e.alpha_bar.sqrt())),
            ),
            Mistake(
                "no_roots",
                f"The factors in x_t are the roots, √ᾱ_t and √(1 - ᾱ_t), not ᾱ_t and 1 - ᾱ_t ({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar, -(1 - e.alpha_bar) / e.alpha_bar)),
            ),
            Mistake(
                "not_divided",
                f"Without its noise, x_t is √ᾱ_t x_0. Divide by √ᾱ_t ({BACK}).",
                weighted(lambda e: (1, -((1 - e.alpha_bar).sqrt()))),
            ),
            Mistake(
                "multiplied",
                f"x_0 was multiplied by √ᾱ_t to make x_t. Going back, divide by it ({BACK}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), -((e.alpha_bar * (1 - e.alpha_bar)).sqrt()))),
            ),
            Mistake(
                "noise_unscaled",
                f"You subtract ε at full size. x_t holds √(1 - ᾱ_t) of it ({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), -1 / e.alpha_bar.sqrt())),
            ),
            Mistake(
                "only_noise_divided",
                f"Division binds tighter than the minus: put parentheses around x_t - √(1 - ᾱ_t) ε ({BACK}).",
                weighted(lambda e: (1, _back(e)[1])),
            ),
            Mistake(
                "only_xt_divided",
                f"The division by √ᾱ_t is for both terms. You subtract the noise after it ({BACK}).",
                weighted(lambda e: (_back(e)[0], -((1 - e.alpha_bar).sqrt()))),
            ),
            Mistake(
                "swapped",
                f"The two factors are swapped: √(1 - ᾱ_t) goes with the noise, √ᾱ_t is divided by ({BACK}).",
                weighted(lambda e: (1 / (1 - e.alpha_bar).sqrt(), -(e.alpha_bar / (1 - e.alpha_bar)).sqrt())),
            ),
            Mistake(
                "alpha_for_alpha_bar",
                f"You undo one step, with α_t. x_0 lies t steps back: use ᾱ_t ({BACK}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -((1 - e.alpha) / e.alpha).sqrt())),
            ),
            Mistake(
                "posterior_mean",
                "That is the mean of x_{t-1}, one step back, from lesson 05. Asked is x_0, all t steps back "
                f"({BACK}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -e.beta / ((1 - e.alpha_bar) * e.alpha).sqrt())),
            ),
            Mistake(
                "beta_for_noise",
                f"You subtract √β_t ε, one step's noise. All t steps left √(1 - ᾱ_t) ε in x_t ({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), -(e.beta / e.alpha_bar).sqrt())),
            ),
            Mistake(
                "one_minus_root",
                f"1 - √ᾱ_t is not √(1 - ᾱ_t): take the root last ({BACK}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), -(1 - e.alpha_bar.sqrt()) / e.alpha_bar.sqrt())),
            ),
            Mistake(
                "forward",
                f"That is q_sample: it goes from x_0 to x_t. Solve the same equation for x_0 ({BACK}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), (1 - e.alpha_bar).sqrt())),
            ),
            Mistake(
                "clipped",
                "Right, until you clip to [-1, 1]. Clipping is a choice that samplers make, and not all data lies in "
                f"that range ({BACK}).",
                _clipped,
            ),
            *step_mistakes(_back, "xt", BACK),
        ]
    ),
)


def _schedule_cases() -> list[Case]:
    ramp = tuple(0.01 + 0.002 * i for i in range(60))
    plan = [
        (ramp, "T = 60"),
        (EIGHT.values, "T = 8"),
        ((0.02,) * 100, "T = 100, all betas 0.02"),
        ((0.3, 0.25, 0.6, 0.4), "T = 4, a large third step"),
        ((0.5, 0.3, 0.2, 0.3), "T = 4, ᾱ_1 exactly 1/2"),
        ((0.1, 0.02, 0.4, 0.1, 0.3, 0.4), "T = 6"),
        (ramp[::-1], "T = 60, betas falling"),
    ]
    facts = "where ᾱ is exactly 1/2 at some t"
    return [Case(label, (Betas(betas),), {facts: betas[0] == 0.5}) for betas, label in plan]


def _first(condition: Tensor) -> int:
    return int(condition.nonzero()[0])


equal_t = Exercise(
    "2.5",
    "equal_t",
    answers.equal_t,
    _schedule_cases,
    stub='''
def equal_t(schedule):
    """The first t (an int) at which the noise is at least as strong as the signal.

    schedule:  has the table schedule.alpha_bar, (T+1,): the variance of the signal;
               that of the noise is the rest
    """
    raise NotImplementedError  # your code here
''',
    first="signal and noise have the variances ᾱ_t and 1 - ᾱ_t. For which ᾱ_t are they equal?",
    mistakes=[
        Mistake(
            "one_early",
            "One too early: at your t the signal is still the stronger one. Entry t of a table belongs to step t "
            f"({RATIO}).",
            lambda schedule: _first(schedule.alpha_bar <= 0.5) - 1,
            lambda schedule: _first(schedule.alpha_bar < 0.5) - 1,
        ),
        Mistake(
            "one_late",
            f"One too late: tables have an entry 0 for clean data, so the index is t itself ({RATIO}).",
            lambda schedule: _first(schedule.alpha_bar <= 0.5) + 1,
        ),
        Mistake(
            "strictly",
            f"*At least* as strong: where ᾱ_t is exactly 1/2, noise and signal are equal, so use <= ({RATIO}).",
            lambda schedule: _first(schedule.alpha_bar < 0.5),
        ),
        Mistake(
            "factor_half",
            f"You wait for the *factor* √ᾱ_t to fall to 1/2. Strength is variance: ᾱ_t itself ({RATIO}).",
            lambda schedule: _first(schedule.alpha_bar.sqrt() <= 0.5),
        ),
        Mistake(
            "factor_noise",
            f"You wait for the *factor* of the noise to reach 1/2. Strength is variance: 1 - ᾱ_t ({RATIO}).",
            lambda schedule: _first((1 - schedule.alpha_bar).sqrt() >= 0.5),
        ),
        Mistake(
            "mixed",
            f"You compare a factor with a variance. Compare ᾱ_t with 1 - ᾱ_t, or their roots ({RATIO}).",
            lambda schedule: _first(schedule.alpha_bar.sqrt() <= 1 - schedule.alpha_bar),
            lambda schedule: _first(schedule.alpha_bar <= (1 - schedule.alpha_bar).sqrt()),
        ),
        Mistake(
            "nearest",
            f"Nearest to 1/2 is not the same as the first at or below it ({RATIO}).",
            lambda schedule: int((schedule.alpha_bar - 0.5).abs().argmin()),
        ),
        Mistake(
            "halfway",
            f"Half of T says nothing about the noise: it depends on the betas. Look in the table ({RATIO}).",
            lambda schedule: schedule.T // 2,
        ),
        Mistake(
            "single_step",
            f"You look at one step's β_t. What counts is what all t steps left of x_0, ᾱ_t ({RATIO}).",
            lambda schedule: _first(schedule.beta >= 0.5),
            lambda schedule: int((schedule.alpha <= 0.5).int().argmax()),
        ),
        Mistake(
            "last_step",
            f"At T there is almost nothing but noise. Asked is the *first* such t ({RATIO}).",
            lambda schedule: schedule.T,
        ),
        Mistake(
            "first_with_more_signal",
            f"The comparison is turned around: at t = 0 the signal is the stronger one ({RATIO}).",
            lambda schedule: _first(schedule.alpha_bar >= 0.5),
        ),
        Mistake(
            "counted",
            f"You count entries in which the noise is the stronger one. Asked is the t of the first of them ({RATIO}).",
            lambda schedule: int((schedule.alpha_bar <= 0.5).sum()),
        ),
    ],
)
