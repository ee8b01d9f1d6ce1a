"""The checks of lesson 03: schedules as betas and as alpha bars, what they leave of x_0, and one of your own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import answers03 as answers
from .cases import EIGHT, FIVE
from .records import Aim, Case, Exercise, Mistake

LINEAR = "lesson 03, 'Linear and quadratic'"
COSINE = "lesson 03, 'The cosine schedule'"
PRIOR = "lesson 03, 'The prior term'"
RESCALE = "lesson 03, 'Rescaling with T'"
SPREAD = "lesson 03, 'The spread of log-SNR'"
DESIGN = "lesson 03, 'Design your own'"

WINDOW = (-10.0, 10.0)  # of log-SNR; beyond it noise, or what is left of the signal, is finer than a grey level
MOST_BITS, MOST_UNEVEN = 1e-4, 0.1
LENGTHS = (1000, 200, 50)  # of the chains that a schedule of one's own is tried on


def _ramp(T: int, first: float, last: float) -> Tensor:
    return torch.linspace(first, last, T, dtype=torch.float64)


def _with_zero(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1), values])


def _beta_cases() -> list[Case]:
    plan = [(10,), (1000,), (300,), (7, 0.1, 0.4), (2, 0.05, 0.3), (25, 0.01, 0.2)]
    cases = []
    for args in plan:
        t, own = torch.arange(1, args[0] + 1), len(args) > 1
        facts = {
            "at t = 1": t == 1,
            "at t = T": t == args[0],
            "between the two ends": (t > 1) & (t < args[0]),
            "for a first and a last beta of your own": own,
            "for the first and last beta of the paper": not own,
        }
        label = f"T = {args[0]}" + (f", first = {args[1]}, last = {args[2]}" if own else "")
        cases.append(Case(label, args, facts))
    return cases


def _of_betas(right: Callable[[int, float, float], Tensor], exercise: str) -> list[Mistake]:
    """The mistakes that can be made with any shape of the betas."""

    def make(change: Callable[[Tensor], Tensor]) -> Callable:
        return lambda T, first=1e-4, last=0.02: change(right(T, first, last))

    return [
        Mistake(
            "entry_for_clean_data",
            "The values are right, and there is one too many: `Schedule` puts the 0 for clean data in front itself. "
            f"You return the T betas of t = 1...T ({LINEAR}).",
            make(_with_zero),
        ),
        Mistake(
            "one_too_many",
            f"You make T + 1 betas. T steps need T of them: the first for t = 1, the last for t = T ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(T + 1, first, last),
            lambda T, first=1e-4, last=0.02: torch.cat([x := right(T, first, last), x[-1:]]),
        ),
        Mistake(
            "one_too_few",
            f"One beta is missing. Both ends are included: β_1 is `first` and β_T is `last` ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(T - 1, first, last),
            make(lambda betas: betas[:-1]),
            make(lambda betas: betas[1:]),
        ),
        Mistake(
            "never_reaches_last",
            f"Your β_T stays below `last`: T values have T - 1 gaps, so divide by T - 1, not by T ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(T + 1, first, last)[:-1],
        ),
        Mistake(
            "misses_first",
            f"Your β_1 is above `first`. Count the gaps from 0 for t = 1: (t - 1) / (T - 1), not t / T ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(T + 1, first, last)[1:],
        ),
        Mistake(
            "falling",
            f"Your betas fall. Small steps come first, where a little noise already matters ({LINEAR}).",
            make(lambda betas: betas.flip(0)),
        ),
        Mistake(
            "alphas",
            f"You return 1 - β, what a step keeps. Asked is β, the variance that it adds ({LINEAR}).",
            make(lambda betas: 1 - betas),
        ),
        Mistake(
            "alpha_bars",
            f"You return ᾱ, what all steps so far keep. Asked is β of each single step ({LINEAR}).",
            make(lambda betas: (1 - betas).cumprod(0)),
            make(lambda betas: 1 - _with_zero(1 - (1 - betas).cumprod(0))),
        ),
        Mistake(
            "fixed_ends",
            "You ignore `first` and `last` and always go from 0.0001 to 0.02. Those are only their defaults "
            f"({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(T, 1e-4, 0.02),
        ),
        Mistake(
            "fixed_T",
            "You make 1000 betas and keep the first T, so a short chain ends far below `last`. Space T values over "
            f"the whole way ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(1000, first, last)[:T],
        ),
        Mistake(
            "rescaled",
            f"You multiply by 1000/T. That comes in exercise 3.6; here β_1 is `first` and β_T is `last` ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: right(T, first, last) * 1000 / T,
            lambda T, first=1e-4, last=0.02: (right(T, first, last) * 1000 / T).clamp(max=0.999),
        ),
        Mistake(
            "geometric",
            f"Your betas grow by the same *factor* at each step. {exercise} ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, math.log(first), math.log(last)).exp(),
        ),
    ]


linear_betas = Exercise(
    "3.1",
    "linear_betas",
    answers.linear_betas,
    _beta_cases,
    stub='''
def linear_betas(T, first=1e-4, last=0.02):
    """The schedule of Ho et al. (2020), section 4: beta grows by the same amount at each step.

    T:            number of steps
    first, last:  beta at t = 1 and at t = T, both included
    returns       (T,) float64
    """
    raise NotImplementedError  # your code here
''',
    first="write down all five betas for T = 5, first = 0.1, last = 0.5. torch has a function for such a row.",
    tolerance=1e-6,
    any_float=True,
    mistakes=[
        *_of_betas(_ramp, "Linear means that the *difference* is the same"),
        Mistake(
            "from_zero",
            f"Your first step starts from 0, and a β of 0 adds no noise. β_1 is `first` ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, 0, last),
        ),
        Mistake(
            "without_first",
            f"Your betas lie on a straight line from 0 at t = 0, and `first` plays no part. β_1 is `first` ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T + 1, 0, last)[1:],
        ),
        Mistake(
            "quadratic",
            f"Your betas are linear in the *root*: that is the quadratic schedule of exercise 3.2 ({LINEAR}).",
            answers.quadratic_betas,
        ),
        Mistake(
            "squared",
            f"You square. β itself grows linearly from `first` to `last` ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, first, last) ** 2,
        ),
        Mistake(
            "rooted",
            "You return √β, the factor of the noise. Asked is β, its variance, which grows linearly from `first` to "
            f"`last` ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, first, last).sqrt(),
            lambda T, first=1e-4, last=0.02: _ramp(T, math.sqrt(first), math.sqrt(last)),
        ),
        Mistake(
            "first_not_subtracted",
            "Your β_T is first + last. On the way from `first` to `last` you cover last - first, so add that share of "
            f"it ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: first + _ramp(T, 0, last),
        ),
    ],
)

quadratic_betas = Exercise(
    "3.2",
    "quadratic_betas",
    answers.quadratic_betas,
    _beta_cases,
    stub='''
def quadratic_betas(T, first=1e-4, last=0.02):
    """The square root of beta grows by the same amount at each step.

    T:            number of steps
    first, last:  beta (not its root) at t = 1 and at t = T, both included
    returns       (T,) float64
    """
    raise NotImplementedError  # your code here
''',
    first="between which two values does √β run? Space T values evenly between them; then get from √β to β.",
    tolerance=1e-6,
    any_float=True,
    mistakes=[
        *_of_betas(answers.quadratic_betas, "Here the *root* of β grows by the same amount"),
        Mistake(
            "not_squared",
            f"You return √β. Square it in the end: asked is β ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, math.sqrt(first), math.sqrt(last)),
        ),
        Mistake(
            "ends_not_rooted",
            "You square values between `first` and `last`, so your β_T is last². Take the roots of both ends first "
            f"({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, first, last) ** 2,
        ),
        Mistake(
            "squared_ramp",
            "You square the share of the way, first + u² (last - first). Even steps of √β are asked: square *after* "
            f"going from √first to √last ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: first + _ramp(T, 0, 1) ** 2 * (last - first),
        ),
        Mistake(
            "linear",
            f"Those are even steps of β itself, the linear schedule. Here √β takes the even steps ({LINEAR}).",
            answers.linear_betas,
        ),
        Mistake(
            "wrong_way",
            "You take roots where squares belong: your *β²* grows evenly. Roots of the ends, even steps, then the "
            f"square ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, first**2, last**2).sqrt(),
        ),
        Mistake(
            "rooted_ramp",
            f"You take the root of the linear betas. The even steps come first, between √first and √last ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, first, last).sqrt(),
        ),
        Mistake(
            "fourth_power",
            f"You square twice: √β runs evenly, and β is its square, once ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, math.sqrt(first), math.sqrt(last)) ** 4,
            lambda T, first=1e-4, last=0.02: _ramp(T, first**0.25, last**0.25) ** 4,
        ),
        Mistake(
            "last_alone",
            f"Your √β starts from 0. It starts from √first ({LINEAR}).",
            lambda T, first=1e-4, last=0.02: _ramp(T, 0, math.sqrt(last)) ** 2,
        ),
    ],
)


def _cosine_cases() -> list[Case]:
    cases = []
    for args in [(10,), (1000,), (7, 0.1), (4, 0.02), (50, 0.0), (2, 0.05)]:
        t, own = torch.arange(args[0] + 1), len(args) > 1
        facts = {
            "at t = 0": t == 0,
            "at t = T": t == args[0],
            "for t of 1 and more": t > 0,
            "for an offset of your own": own,
            "without an offset, s = 0": args[1:] == (0.0,),
            "with an offset, s > 0": args[1:] != (0.0,),
        }
        cases.append(Case(f"T = {args[0]}" + (f", s = {args[1]}" if own else ""), args, facts))
    return cases


def _cosine(
    phase: Callable[[Tensor, int, float], Tensor] = lambda t, T, s: (t / T + s) / (1 + s),
    power: float = 2,
    wave: Callable[[Tensor], Tensor] = torch.cos,
    divide: Callable[[Tensor], Tensor] = lambda f: f / f[0],
    times: Callable[[int], Tensor] = lambda T: torch.arange(T + 1),
    quarter: float = math.pi / 2,
) -> Callable:
    """A cosine schedule, right or wrong, as the arguments say."""

    def function(T: int, s: float = 0.008) -> Tensor:
        return divide(wave(phase(times(T).double(), T, s) * quarter) ** power)

    return function


cosine_alpha_bars = Exercise(
    "3.3",
    "cosine_alpha_bars",
    answers.cosine_alpha_bars,
    _cosine_cases,
    stub='''
def cosine_alpha_bars(T, s=0.008):
    """The schedule of Nichol and Dhariwal (2021), eq. 17: what share of the signal is left.

    T:       number of steps
    s:       the offset
    returns  (T+1,) float64: alpha_bar for t = 0...T, which is f(t) / f(0)
    """
    raise NotImplementedError  # your code here
''',
    first="compute f(t) for all t = 0...T at once, from torch.arange(T + 1). What is f(0), and where does it go?",
    tolerance=1e-6,
    any_float=True,
    mistakes=[
        Mistake(
            "divided_by_itself",
            f"You divide f by f, entry by entry, and get 1 everywhere. Divide by one number, f(0) = f[0] ({COSINE}).",
            _cosine(divide=lambda f: f / f),
        ),
        Mistake(
            "not_squared",
            f"The cosine is not squared: f is cos², so that ᾱ starts and ends flat ({COSINE}).",
            _cosine(power=1),
        ),
        Mistake(
            "no_offset",
            f"The offset is missing: s shifts t/T before the cosine is taken ({COSINE}).",
            _cosine(phase=lambda t, T, s: t / T),
        ),
        Mistake(
            "not_divided",
            f"That is f(t). Because of the offset f(0) is below 1, so divide by it: clean data has ᾱ_0 = 1 ({COSINE}).",
            _cosine(divide=lambda f: f),
        ),
        Mistake(
            "T_points",
            f"T entries: one is missing. ᾱ_0 belongs to clean data, so t runs over 0...T, T + 1 values ({COSINE}).",
            _cosine(times=lambda T: torch.arange(T)),
            lambda T, s=0.008: answers.cosine_alpha_bars(T, s)[1:],
            _cosine(times=lambda T: torch.arange(1, T + 1)),
            _cosine(times=lambda T: torch.linspace(0, T, T, dtype=torch.float64)),
        ),
        Mistake(
            "past_the_quarter",
            "You do not divide by 1 + s, so the angle goes beyond π/2 at the end, and ᾱ rises again. The division "
            f"keeps the end where it was ({COSINE}).",
            _cosine(phase=lambda t, T, s: t / T + s),
        ),
        Mistake(
            "parentheses",
            f"Parentheses: (t/T + s) / (1 + s). You divide only s by 1 + s ({COSINE}).",
            _cosine(phase=lambda t, T, s: t / T + s / (1 + s)),
        ),
        Mistake(
            "s_added_to_t",
            f"You add s to t, where it is a thousandth of nothing. It is added to the share t/T ({COSINE}).",
            _cosine(phase=lambda t, T, s: (t + s) / (T + s)),
            _cosine(phase=lambda t, T, s: (t + s) / T / (1 + s)),
            _cosine(phase=lambda t, T, s: (t + s) / T),
        ),
        Mistake(
            "half_turn",
            f"Your angle runs to π. A quarter turn is enough to bring the cosine to 0: π/2 ({COSINE}).",
            _cosine(quarter=math.pi),
        ),
        Mistake(
            "no_pi",
            f"Your angle ends at 1, not at π/2, so much of the signal is left at T ({COSINE}).",
            _cosine(quarter=1.0),
        ),
        Mistake(
            "sine",
            f"The sine grows where ᾱ must fall: take the cosine ({COSINE}).",
            _cosine(wave=torch.sin),
            _cosine(wave=torch.sin, divide=lambda f: f),
        ),
        Mistake(
            "betas",
            f"Those are betas. Asked is ᾱ, T + 1 shares that fall from 1; the betas come in exercise 3.4 ({COSINE}).",
            lambda T, s=0.008: answers.betas_from_alpha_bars(answers.cosine_alpha_bars(T, s)),
            lambda T, s=0.008: answers.betas_from_alpha_bars(answers.cosine_alpha_bars(T, s), largest=1.0),
        ),
        Mistake(
            "complement",
            f"You return 1 - ᾱ, the variance of the noise. Asked is the share of the signal ({COSINE}).",
            lambda T, s=0.008: 1 - answers.cosine_alpha_bars(T, s),
        ),
        Mistake(
            "multiplied_up",
            f"f(t)/f(0) is ᾱ already, the product of all steps so far. Do not multiply it up again ({COSINE}).",
            lambda T, s=0.008: answers.cosine_alpha_bars(T, s).cumprod(0),
        ),
        Mistake(
            "divided_by_the_last",
            f"You divide by f at the end, which is 0. Divide by f(0), the first entry ({COSINE}).",
            _cosine(divide=lambda f: f / f[-1]),
        ),
        Mistake(
            "fixed_offset",
            f"You ignore `s` and use 0.008 always: that is only its default ({COSINE}).",
            lambda T, s=0.008: answers.cosine_alpha_bars(T),
        ),
        Mistake(
            "never_reaches_T",
            f"Your angle never reaches π/2: there are T gaps between T + 1 entries, so divide t by T ({COSINE}).",
            _cosine(phase=lambda t, T, s: (t / (T + 1) + s) / (1 + s)),
        ),
    ],
)


def _table_cases() -> list[Case]:
    cosine = answers.cosine_alpha_bars(10)
    plan = [
        ("T = 8", _products(EIGHT.values)),
        ("T = 5", _products(FIVE.values)),
        ("cosine, T = 10", cosine),
        ("cosine, T = 1000", answers.cosine_alpha_bars(1000)),
        ("a table that ends at 0", torch.tensor([1, 0.9, 0.5, 0.2, 0.0], dtype=torch.float64)),
        ("T = 1", torch.tensor([1, 0.7], dtype=torch.float64)),
        ("T = 8, largest = 0.3", _products(EIGHT.values), 0.3),
        ("cosine, T = 10, largest = 0.5", cosine, 0.5),
    ]
    cases = []
    for label, table, *largest in plan:
        betas = 1 - table[1:] / table[:-1]
        t = torch.arange(1, len(table))
        facts = {
            "where β is clipped": betas > (largest or [0.999])[0],
            "where β needs no clipping": betas <= (largest or [0.999])[0],
            "at t = 1": t == 1,
            "from t = 2 on": t > 1,
            "at t = T": t == len(betas),
            "for a `largest` of your own": bool(largest),
        }
        cases.append(Case(label, (table, *largest), facts))
    return cases


def _products(betas: tuple[float, ...]) -> Tensor:
    return torch.cat([torch.ones(1), (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0)])


def _steps(make: Callable[[Tensor], Tensor]) -> Callable:
    """Betas made from the table in a wrong way, then clipped as asked."""
    return lambda alpha_bars, largest=0.999: make(alpha_bars).clamp(max=largest)


betas_from_alpha_bars = Exercise(
    "3.4",
    "betas_from_alpha_bars",
    answers.betas_from_alpha_bars,
    _table_cases,
    stub='''
def betas_from_alpha_bars(alpha_bars, largest=0.999):
    """The steps of a schedule that is given by its alpha bars.

    alpha_bars:  (T+1,) falling from 1, for t = 0...T
    largest:     no beta is larger than this
    returns      (T,) beta for t = 1...T
    """
    raise NotImplementedError  # your code here
''',
    first="ᾱ_t = (1 - β_t) ᾱ_{t-1}. Solve it for β_t; which two pieces of the table are ᾱ_t and ᾱ_{t-1} for all t?",
    tolerance=1e-6,
    any_float=True,
    mistakes=[
        Mistake(
            "no_clip",
            "Right, until the last step of a table that goes to 0: there your β is 1, and √(1 - β) leaves nothing. "
            f"Clip at `largest` ({COSINE}).",
            lambda alpha_bars, largest=0.999: 1 - alpha_bars[1:] / alpha_bars[:-1],
        ),
        Mistake(
            "fixed_clip",
            f"You clip at 0.999 always. Clip at `largest`; 0.999 is only its default ({COSINE}).",
            lambda alpha_bars, largest=0.999: (1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(max=0.999),
        ),
        Mistake(
            "clipped_from_below",
            f"You raise small betas to `largest` in place of lowering large ones: clamp(max=...) ({COSINE}).",
            lambda alpha_bars, largest=0.999: (1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(min=largest),
        ),
        Mistake(
            "squeezed",
            f"You scale all betas down so that the largest fits. Only those above `largest` change ({COSINE}).",
            lambda alpha_bars, largest=0.999: (b := 1 - alpha_bars[1:] / alpha_bars[:-1]) / b.max() * largest,
            lambda alpha_bars, largest=0.999: (1 - alpha_bars[1:] / alpha_bars[:-1]) * largest,
        ),
        Mistake(
            "clipped_alpha_bar",
            f"You keep ᾱ from falling too low. It is β that must stay below 1: clip after the division ({COSINE}).",
            lambda alpha_bars, largest=0.999: 1 - (a := alpha_bars.clamp(min=1 - largest))[1:] / a[:-1],
        ),
        Mistake(
            "ratio_turned",
            f"Your ratio is upside down, so β is negative. What a step *keeps* is ᾱ_t / ᾱ_{{t-1}} ({COSINE}).",
            _steps(lambda a: 1 - a[:-1] / a[1:]),
        ),
        Mistake(
            "alphas",
            f"ᾱ_t / ᾱ_{{t-1}} is what a step keeps, α_t. β_t is the rest, 1 - α_t ({COSINE}).",
            _steps(lambda a: a[1:] / a[:-1]),
            lambda alpha_bars, largest=0.999: alpha_bars[1:] / alpha_bars[:-1],
        ),
        Mistake(
            "difference",
            "You subtract. A step takes a *share* of what the one before it left: divide by ᾱ_{t-1} as well "
            f"({COSINE}).",
            _steps(lambda a: a[:-1] - a[1:]),
        ),
        Mistake(
            "no_division",
            f"1 - ᾱ_t is the noise of all t steps together. One step's share is 1 - ᾱ_t / ᾱ_{{t-1}} ({COSINE}).",
            _steps(lambda a: 1 - a[1:]),
        ),
        Mistake(
            "entry_for_clean_data",
            f"One entry too many: t = 0 takes no step and has no β here. Return T betas for t = 1...T ({COSINE}).",
            _steps(lambda a: _with_zero(1 - a[1:] / a[:-1])),
            _steps(lambda a: 1 - a),
        ),
        Mistake(
            "rolled",
            f"`roll` holds ᾱ_0 against ᾱ_T. Use the slices [1:] and [:-1], which have T entries each ({COSINE}).",
            _steps(lambda a: 1 - a / a.roll(1)),
        ),
        Mistake(
            "next_step",
            "Your betas are those of the *next* step, and the first is missing. β_t holds ᾱ_t against ᾱ_{t-1} "
            f"({COSINE}).",
            _steps(lambda a: 1 - a[2:] / a[1:-1]),
        ),
        Mistake(
            "last_step_lost",
            f"The last beta is missing: T + 1 alpha bars make T betas ({COSINE}).",
            _steps(lambda a: (1 - a[1:] / a[:-1])[:-1]),
        ),
        Mistake(
            "rooted",
            f"1 - √(ᾱ_t / ᾱ_{{t-1}}) is no variance. ᾱ is a share of variance already: take no root ({COSINE}).",
            _steps(lambda a: 1 - (a[1:] / a[:-1]).sqrt()),
        ),
        Mistake(
            "deviation",
            f"You return √β, the factor of the noise. Asked is its variance, β ({COSINE}).",
            _steps(lambda a: (1 - a[1:] / a[:-1]).sqrt()),
        ),
        Mistake(
            "logarithm",
            f"-ln(ᾱ_t / ᾱ_{{t-1}}) is near β only where β is small. The exact step is 1 minus the ratio ({COSINE}).",
            _steps(lambda a: a[:-1].log() - a[1:].log()),
        ),
    ],
)


def _prior_cases() -> list[Case]:
    cases = []
    for alpha_bar, square in [(0.6, 0.3), (0.36, 1.0), (0.13, 0.69), (0.048, 0.25), (0.9, 0.5), (0.36, 2.5), (4e-5, 1)]:
        facts = {
            "for data with mean square 1": square == 1,
            "for data whose mean square is not 1": square != 1,
            "for a very small ᾱ_T": alpha_bar < 1e-3,
        }
        args = (torch.tensor(alpha_bar, dtype=torch.float64, device="cpu"), float(square))
        cases.append(Case(f"ᾱ_T = {alpha_bar}, mean square {square}", args, facts))
    return cases


def _nats(mean: Callable, variance: Callable, log: Callable, *, minus_one: float = 1.0) -> Callable:
    """½ (mean² + variance - 1 - log) for functions of (ᾱ, m), in bits."""

    def function(alpha_bar_T, mean_square):
        a, m = float(alpha_bar_T), float(mean_square)
        return 0.5 * (mean(a, m) + variance(a, m) - minus_one - log(a, m)) / math.log(2)

    return function


def _a_m(a, m):
    return a * m


def _left(a, m):
    return 1 - a


def _ln(a, m):
    return math.log1p(-a)


prior_bits = Exercise(
    "3.5",
    "prior_bits",
    answers.prior_bits,
    _prior_cases,
    stub='''
def prior_bits(alpha_bar_T, mean_square):
    """L_T: how far q(x_T | x_0) is from N(0, I), in bits per dimension.

    alpha_bar_T:  the last entry of schedule.alpha_bar, a float64 tensor without axes
    mean_square:  a number, the average of x_0² over the coordinates of the data
    returns       a number
    """
    raise NotImplementedError  # your code here
''',
    first="what are the mean and the variance of one coordinate of x_T, given x_0? Put them into the KL divergence.",
    tolerance=1e-6,
    mistakes=[
        Mistake(
            "nats",
            f"Right, in nats. Divide by ln 2 to get bits ({PRIOR}).",
            lambda alpha_bar_T, mean_square: answers.prior_bits(alpha_bar_T, mean_square) * math.log(2),
        ),
        Mistake(
            "times_ln_2",
            f"You multiply by ln 2. A bit is ln 2 nats, so divide ({PRIOR}).",
            lambda alpha_bar_T, mean_square: answers.prior_bits(alpha_bar_T, mean_square) * math.log(2) ** 2,
        ),
        Mistake(
            "half_forgotten",
            f"Twice too large: the ½ in front of the divergence is missing ({PRIOR}).",
            lambda alpha_bar_T, mean_square: 2 * answers.prior_bits(alpha_bar_T, mean_square),
        ),
        Mistake(
            "half_forgotten_nats",
            f"Two things: the ½ in front of the divergence is missing, and the result is in nats ({PRIOR}).",
            lambda alpha_bar_T, mean_square: 2 * math.log(2) * answers.prior_bits(alpha_bar_T, mean_square),
        ),
        Mistake(
            "bits_in_one_term",
            "You turn only the logarithm into bits. The whole divergence is in nats: divide all of it by ln 2 "
            f"({PRIOR}).",
            lambda alpha_bar_T, mean_square: (
                0.5 * (float(alpha_bar_T) * (mean_square - 1) - math.log2(1 - float(alpha_bar_T)))
            ),
        ),
        Mistake(
            "mean_square_forgotten",
            f"Your result does not depend on the data. The mean of x_T is √ᾱ_T x_0: its square is ᾱ_T m ({PRIOR}).",
            lambda alpha_bar_T, mean_square: answers.prior_bits(alpha_bar_T, 1),
        ),
        Mistake(
            "mean_forgotten",
            f"The mean of x_T is missing from the divergence: add its square, ᾱ_T m ({PRIOR}).",
            lambda alpha_bar_T, mean_square: answers.prior_bits(alpha_bar_T, 0),
        ),
        Mistake(
            "signal_unscaled",
            f"You use the mean square of x_0. The mean of x_T is √ᾱ_T x_0, so its square is ᾱ_T m ({PRIOR}).",
            _nats(lambda a, m: m, _left, _ln),
        ),
        Mistake(
            "signal_not_squared",
            f"The mean of x_T is √ᾱ_T x_0, and its *square* enters: ᾱ_T m, not √ᾱ_T m ({PRIOR}).",
            _nats(lambda a, m: math.sqrt(a) * m, _left, _ln),
        ),
        Mistake(
            "signal_squared_twice",
            f"`mean_square` is a square already, and so is ᾱ_T: their product is the mean's square ({PRIOR}).",
            _nats(lambda a, m: a * m**2, _left, _ln),
            _nats(lambda a, m: a**2 * m, _left, _ln),
            _nats(lambda a, m: (a * m) ** 2, _left, _ln),
        ),
        Mistake(
            "variance_for_signal",
            f"The variance of x_T given x_0 is that of the noise, 1 - ᾱ_T. You put ᾱ_T there ({PRIOR}).",
            _nats(_a_m, lambda a, m: a, lambda a, m: math.log(a)),
        ),
        Mistake(
            "deviation_for_variance",
            f"The divergence takes the variance, 1 - ᾱ_T. You put in its root ({PRIOR}).",
            _nats(_a_m, lambda a, m: math.sqrt(1 - a), lambda a, m: 0.5 * math.log(1 - a)),
            _nats(_a_m, lambda a, m: math.sqrt(1 - a), _ln),
        ),
        Mistake(
            "log_of_deviation",
            f"Inside the ½ stands the logarithm of the *variance*, ln σ². You take ln σ ({PRIOR}).",
            _nats(_a_m, _left, lambda a, m: 0.5 * math.log(1 - a)),
        ),
        Mistake(
            "one_forgotten",
            f"The -1 is missing: without it, N(0, 1) would be half a nat away from itself ({PRIOR}).",
            _nats(_a_m, _left, _ln, minus_one=0.0),
        ),
        Mistake(
            "log_sign",
            f"The logarithm has the wrong sign: -ln σ² is positive where σ² is below 1 ({PRIOR}).",
            _nats(_a_m, _left, lambda a, m: -math.log1p(-a)),
        ),
        Mistake(
            "log_forgotten",
            f"The logarithm of the variance is missing from the divergence ({PRIOR}).",
            _nats(_a_m, _left, lambda a, m: 0.0),
        ),
        Mistake(
            "turned_around",
            "That is the divergence of N(0, 1) from q. L_T is the one of q(x_T | x_0) from N(0, 1): the order matters "
            f"({PRIOR}).",
            lambda alpha_bar_T, mean_square: (
                0.5 * ((1 + (a := float(alpha_bar_T)) * mean_square) / (1 - a) - 1 + math.log1p(-a)) / math.log(2)
            ),
        ),
        Mistake(
            "approximation",
            f"ᾱ_T m / (2 ln 2) is what remains where ᾱ_T is tiny. For T = 50 it is not: use the formula ({PRIOR}).",
            lambda alpha_bar_T, mean_square: float(alpha_bar_T) * mean_square / (2 * math.log(2)),
        ),
    ],
)


def _length_cases() -> list[Case]:
    cases = []
    for T in (1000, 300, 50, 21, 20, 10, 5, 2, 4000):
        betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * 1000 / T
        facts = {
            "for T = 1000": T == 1000,
            "for T other than 1000": T != 1000,
            "for T above 1000": T > 1000,
            "for T below 1000": T < 1000,
            "for T of 20 or fewer": T <= 20,
            "for T of more than 20": T > 20,
            "where β must be bounded": betas > 0.999,
        }
        cases.append(Case(f"T = {T}", (T,), facts))
    return cases


def _scaled(T: int) -> Tensor:
    return _ramp(T, 1e-4, 0.02) * 1000 / T


rescaled_betas = Exercise(
    "3.6",
    "rescaled_betas",
    answers.rescaled_betas,
    _length_cases,
    stub='''
def rescaled_betas(T):
    """The linear betas for any T, scaled to destroy as much signal as 1000 steps do.

    T:       number of steps
    returns  (T,) float64, from 0.0001 to 0.02 times 1000 / T, and none above 0.999
    """
    raise NotImplementedError  # your code here
''',
    first="make the T linear betas, multiply them by 1000/T, and look at the largest for T = 10.",
    tolerance=1e-6,
    any_float=True,
    mistakes=[
        Mistake(
            "no_bound",
            "Right for more than 20 steps. For fewer, some β is 1 or more, a variance larger than all there is: bound "
            f"it at 0.999 ({RESCALE}).",
            _scaled,
        ),
        Mistake(
            "bound_at_one",
            f"A β of exactly 1 leaves nothing of x, and ᾱ_T is 0. Bound it *below* 1, at 0.999 ({RESCALE}).",
            lambda T: _scaled(T).clamp(max=1.0),
        ),
        Mistake(
            "not_rescaled",
            f"Those are the same betas for any T, and a short chain leaves visible signal. Multiply by 1000/T "
            f"({RESCALE}).",
            lambda T: _ramp(T, 1e-4, 0.02),
        ),
        Mistake(
            "scaled_the_wrong_way",
            f"You multiply by T/1000. Fewer steps must be *larger* steps: 1000/T ({RESCALE}).",
            lambda T: (_ramp(T, 1e-4, 0.02) * T / 1000).clamp(max=0.999),
        ),
        Mistake(
            "only_last_scaled",
            f"You scale only the last beta. Both ends get the factor 1000/T ({RESCALE}).",
            lambda T: _ramp(T, 1e-4, 20 / T).clamp(max=0.999),
            lambda T: _ramp(T, 1e-4, 20 / T),
            lambda T: _ramp(T, 1e-4, min(20 / T, 0.999)),
        ),
        Mistake(
            "only_first_scaled",
            f"You scale only the first beta. Both ends get the factor 1000/T ({RESCALE}).",
            lambda T: _ramp(T, 0.1 / T, 0.02),
        ),
        Mistake(
            "whole_factor",
            f"1000 // T cuts off what stands behind the point, and is 0 for T above 1000. Divide with / ({RESCALE}).",
            lambda T: (_ramp(T, 1e-4, 0.02) * (1000 // T)).clamp(max=0.999),
            lambda T: _ramp(T, 1e-4, 0.02) * (1000 // T),
        ),
        Mistake(
            "bounded_ends",
            f"You bound the ends and space the betas between them, which flattens them all. Bound each β ({RESCALE}).",
            lambda T: _ramp(T, min(0.1 / T, 0.999), min(20 / T, 0.999)),
        ),
        Mistake(
            "bounded_at_last",
            f"You bound at 0.02, which undoes the scaling. The bound is there to keep β below 1: 0.999 ({RESCALE}).",
            lambda T: _scaled(T).clamp(max=0.02),
        ),
        Mistake(
            "squeezed",
            f"You squeeze all betas so that the largest is 0.999. Only those above it change ({RESCALE}).",
            lambda T: (b := _scaled(T)) * min(1.0, 0.999 / b.max().item()),
        ),
        Mistake(
            "bounded_from_below",
            f"You raise small betas to 0.999 in place of lowering large ones: clamp(max=...) ({RESCALE}).",
            lambda T: _scaled(T).clamp(min=0.999),
        ),
        Mistake(
            "root_of_the_factor",
            f"You scale by √(1000/T). β is a variance, and variances add: the factor is 1000/T itself ({RESCALE}).",
            lambda T: _ramp(T, 1e-4, 0.02) * math.sqrt(1000 / T),
        ),
        Mistake(
            "quadratic",
            f"Those are the quadratic betas. Take the linear ones ({RESCALE}).",
            lambda T: (answers.quadratic_betas(T) * 1000 / T).clamp(max=0.999),
            lambda T: answers.quadratic_betas(T) * 1000 / T,
        ),
        Mistake(
            "entry_for_clean_data",
            f"One too many: `Schedule` puts the 0 for clean data in front itself. Return T betas ({RESCALE}).",
            lambda T: _with_zero(answers.rescaled_betas(T)),
            lambda T: answers.rescaled_betas(T + 1),
        ),
    ],
)


# ---- 3.7: no single right answer


def unevenness(alpha_bars: Tensor) -> float:
    """The largest gap between the share of steps at or below a log-SNR and the share of WINDOW at or below it.

    alpha_bars:  (T+1,); 0 for T steps spread evenly over the window, near 1 for steps that all sit at one end
    """
    log_snr = alpha_bars.double()[1:].logit().sort().values
    low, high = WINDOW
    even = ((log_snr - low) / (high - low)).clamp(0, 1)
    rank = torch.arange(len(even), dtype=torch.float64)
    return max(((rank + 1) / len(even) - even).max().item(), (even - rank / len(even)).max().item())


def is_table(alpha_bars: Any, case: Case) -> bool:
    """Is it a table of finite floats, with or without the entry for clean data?"""
    (T,) = case.args
    return (
        isinstance(alpha_bars, Tensor)
        and alpha_bars.dtype in (torch.float32, torch.float64)
        and alpha_bars.shape in ((T,), (T + 1,))
        and bool(alpha_bars.isfinite().all())
    )


def fault(alpha_bars: Tensor, case: Case) -> str | None:
    """The id of the first thing that is wrong with a design, None if nothing is."""
    (T,) = case.args
    table = alpha_bars.detach().cpu().double()
    if table.shape == (T,):
        return "betas" if table[-1] > table[0] else "no_first_entry"
    if (table < 0).any() or (table > 1 + 1e-6).any():
        return "no_share"
    if abs(table[0] - 1) > 1e-6:
        return "first_not_one"
    if (table.diff() >= 0).any():
        return "not_falling"
    if (1 - table[1:] / table[:-1]).max() > 0.999 + 1e-6:
        return "step_too_large"
    if answers.prior_bits(table[-1], 1) >= MOST_BITS:
        longest = max(LENGTHS)
        return "signal_left" if longest == T else "T_ignored"
    if unevenness(table) >= MOST_UNEVEN:
        return "uneven"
    return None


def score(alpha_bars: Tensor, case: Case) -> str | None:
    """Both measures in one sentence, for a table that is a schedule."""
    if fault(alpha_bars, case) not in ("signal_left", "T_ignored", "uneven", None):
        return None
    bits, gap = answers.prior_bits(alpha_bars[-1], 1), unevenness(alpha_bars.detach())
    return (
        f"At T = {case.args[0]}, L_T is {bits:.1e} bits per dimension (below {MOST_BITS:g} is asked) and the "
        f"unevenness D is {gap:.3f} (below {MOST_UNEVEN} is asked)."
    )


def _falling(start: float, end: float) -> Callable[[int], Tensor]:
    """alpha_bar for log-SNR in even steps from start to end."""
    return lambda T: torch.cat([torch.ones(1, dtype=torch.float64), _ramp(T, start, end).sigmoid()])


my_alpha_bars = Exercise(
    "3.7",
    "my_alpha_bars",
    answers.my_alpha_bars,
    lambda: [Case(f"T = {T}", (T,)) for T in LENGTHS],
    stub='''
def my_alpha_bars(T):
    """A schedule of your own, for any number of steps.

    T:       number of steps
    returns  (T+1,) float64: alpha_bar for t = 0...T, falling from exactly 1 and staying above 0
    """
    raise NotImplementedError  # your code here
''',
    first="which log-SNR should step 1 have, and which step T? Space the rest evenly and turn log-SNR into ᾱ.",
    tolerance=1e-6,
    any_float=True,
    aim=Aim(is_table, fault, score),
    mistakes=[
        Mistake(
            "no_first_entry",
            f"T entries: one is missing. The first belongs to clean data, ᾱ_0 = 1, and T more follow ({DESIGN}).",
            lambda T: answers.my_alpha_bars(T)[1:],
        ),
        Mistake(
            "betas",
            "Those look like betas: T values that grow. Asked are T + 1 shares that fall from 1; the products of 1 - β "
            f"are such a table ({DESIGN}).",
            answers.rescaled_betas,
        ),
        Mistake(
            "no_share",
            "Some entries lie outside [0, 1], and ᾱ is a share of the variance. From a log-SNR you get to ᾱ with the "
            f"sigmoid ({DESIGN}).",
            lambda T: _ramp(T + 1, 9, -10),
            lambda T: _ramp(T + 1, 1, -0.01),
        ),
        Mistake(
            "first_not_one",
            f"Entry 0 is not 1. It belongs to clean data, with no noise at all: put a 1 in front ({DESIGN}).",
            lambda T: _ramp(T + 1, 9, -10).sigmoid(),
            lambda T: answers.my_alpha_bars(T).flip(0),
        ),
        Mistake(
            "not_falling",
            f"ᾱ does not fall at every step. Each step adds noise, so each must leave less signal ({DESIGN}).",
            lambda T: torch.cat([torch.ones(2, dtype=torch.float64), _ramp(T - 1, 9, -10).sigmoid()]),
            lambda T: torch.cat([torch.ones(1, dtype=torch.float64), _ramp(T, -10, 9).sigmoid()]),
        ),
        Mistake(
            "step_too_large",
            "One step takes away more than 99.9 % of the signal that is left, or all of it. Stay above 0, and bound β "
            f"as in exercise 3.4 ({COSINE}).",
            lambda T: _ramp(T + 1, 1, 0),
            lambda T: _ramp(T + 1, 1, 0) ** 4,
        ),
        Mistake(
            "signal_left",
            f"Too much signal is left at T: sampling would start where training never was. Go lower ({PRIOR}).",
            _falling(9, -6),
            lambda T: _products(tuple((answers.quadratic_betas(T) * 1000 / T).tolist())),
        ),
        Mistake(
            "T_ignored",
            f"Enough for a long chain, but in a short one much signal is left: T and the steps belong together "
            f"({RESCALE}).",
            lambda T: _products(tuple(answers.linear_betas(T).tolist())),
            lambda T: _falling(9, -10)(1000)[: T + 1],
        ),
        Mistake(
            "uneven",
            "Your steps crowd together at some log-SNR and are rare at others. Let log-SNR fall by about the same "
            f"amount at each step, over the whole window ({SPREAD}).",
            lambda T: _products(tuple(answers.betas_from_alpha_bars(answers.cosine_alpha_bars(T)).tolist())),
            lambda T: _products(tuple(answers.rescaled_betas(T).tolist())),
            _falling(10, -25),
        ),
    ],
)
