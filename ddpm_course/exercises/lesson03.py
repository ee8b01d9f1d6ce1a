"""The exercises of lesson 03: schedules as betas (one to repair) and as alpha bars, what is left of x_0, one's own.

What goes wrong in them is in lesson03.mistakes. Of 3.7 there is no one right answer: `aim` says what makes one right.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import EIGHT, FIVE
from .records import Aim, Case
from .written import exercise

WINDOW = (-10.0, 10.0)  # of log-SNR; beyond it noise, or what is left of the signal, is finer than a grey level
MOST_BITS, MOST_UNEVEN = 1e-4, 0.1
ODD = 77  # divides none of the other lengths
LENGTHS = (1000, 200, 50, ODD)  # of the chains that a schedule of one's own is tried on


def beta_cases() -> list[Case]:
    plan = [(10,), (1000,), (300,), (7, 0.1, 0.4), (2, 0.05, 0.3), (25, 0.01, 0.2), (10, 0.003, 0.3), (31, 0.002)]
    plan += [(27,)]  # for which torch.arange makes one too many of steps of (last - first) / T
    cases = []
    for args in plan:
        t = torch.arange(1, args[0] + 1)
        facts = {
            "at t = 1": t == 1,
            "at t = T": t == args[0],
            "between the two ends": (t > 1) & (t < args[0]),
            "where `first` is not given": len(args) == 1,
            "where `last` is given": len(args) > 2,
            "where `last` is not given": len(args) < 3,
            "for T above 100": args[0] > 100,
            "for T above 500": args[0] > 500,
            "where T came before with other ends": args == (10, 0.003, 0.3),
        }
        label = f"T = {args[0]}"
        for name, value in zip(("first", "last"), args[1:], strict=False):
            label += f", {name} = {value}"
        cases.append(Case(label, args, facts))
    return [*cases, steps_case(cases[1])]


def steps_case(case: Case) -> Case:
    """A case that only float64 passes: it multiplies float32's roundings by a million."""
    use = lambda function, T: torch.cat([function(T), 1e6 * function(T).diff(n=2)])  # noqa: E731
    says = f"{case.label}, with a million times the differences of differences"
    return Case(says, case.args, {"in digits that float32 does not hold": True}, use=use, gpu=True)


@exercise(
    "3.1",
    beta_cases,
    first="write down the five betas that are asked for T = 5, from 0.1 to 0.5. What does found_betas make of them?",
    tolerance=1e-6,
)
def linear_betas(T, first=1e-4, last=0.02):
    """found_betas without its three faults: beta grows by the same amount at each step.

    T:            number of steps, 2 or more
    first, last:  beta at t = 1 and at t = T, both included
    returns       (T,) float64
    """
    betas = torch.linspace(first, last, T, dtype=torch.float64)
    return betas


@exercise(
    "3.2",
    beta_cases,
    first="work out T = 3, from first = 0.01 to last = 0.09, by hand. What is β in the middle? (It isn't 0.05.)",
    tolerance=1e-6,
)
def quadratic_betas(T, first=1e-4, last=0.02):
    """The square root of beta grows by the same amount at each step.

    T:            number of steps, 2 or more
    first, last:  beta (not its root) at t = 1 and at t = T, both included
    returns       (T,) float64
    """
    roots = torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64)
    betas = roots**2
    return betas


def cosine_cases() -> list[Case]:
    cases = []
    for args in [(10,), (1000,), (7, 0.1), (4, 0.02), (5, 0.0), (2, 0.05), (10, 0.2), (1, 0.3), (23,)]:
        t, own = torch.arange(args[0] + 1), len(args) > 1
        facts = {
            "at t = 0": t == 0,
            "at t = T": t == args[0],
            "between the two ends": (t > 0) & (t < args[0]),
            "where `s` is given": own,
            "where `s` is not given": not own,
            "without an offset, s = 0": args[1:] == (0.0,),
            "where T came before with another offset": args == (10, 0.2),
        }
        cases.append(Case(f"T = {args[0]}" + (f", s = {args[1]}" if own else ""), args, facts))
    shares = slice(1, 4)
    says = "a million times 1 - ᾱ_t for t = 1, 2, 3"
    return [*cases, digits_case(cases[1], shares, says, lambda function, T: 1e6 * (1 - function(T)[shares]))]


def digits_case(case: Case, entries: slice, says: str, use: Callable) -> Case:
    """A case that only float64 passes: 1 - ᾱ_t from float32 is 0.1 % off. Mistakes made in float32 keep their names."""
    facts = {
        phrase: true[entries] if isinstance(true, Tensor) and true.ndim else true for phrase, true in case.facts.items()
    }
    facts["in digits that float32 does not hold"] = True
    return Case(f"{case.label}, {says}", case.args, facts, use=use, gpu=True)


@exercise(
    "3.3",
    cosine_cases,
    first="draw a road from 0 to 1 + s. Where on it is t = 0, and where are t = 1 and t = T? Which angles are these?",
    tolerance=1e-6,
)
def cosine_alpha_bars(T, s=0.008):
    """The schedule of Nichol and Dhariwal (2021), eq. 17: a multiple of a squared cosine.

    T:       number of steps, 1 or more
    s:       the offset, 0 or more
    returns  (T+1,) float64: alpha_bar for t = 0...T, from exactly 1 to 0 (but for rounding)
    """
    t = torch.arange(T + 1, dtype=torch.float64)
    share = (t / T + s) / (1 + s)
    angle = share * torch.pi / 2
    f = torch.cos(angle) ** 2
    return f / f[0]


def table_cases() -> list[Case]:
    cosine = cosine_alpha_bars(10)
    plan = [
        ("T = 8", products(EIGHT.values)),
        ("T = 5", products(FIVE.values)),
        ("a steep step in the middle", torch.tensor([1, 0.9, 5e-4, 4e-4, 1e-4], dtype=torch.float64)),
        ("cosine, T = 10", cosine),
        ("cosine, T = 1000", cosine_alpha_bars(1000)),
        ("a table that ends at 0", torch.tensor([1, 0.9, 0.5, 0.2, 0.0], dtype=torch.float64)),
        ("T = 1", torch.tensor([1, 0.7], dtype=torch.float64)),
        ("T = 8, largest = 0.3", products(EIGHT.values), 0.3),
        ("cosine, T = 10, largest = 0.5", cosine, 0.5),
    ]
    cases = []
    for label, table, *largest in plan:
        betas = 1 - table[1:] / table[:-1]
        t = torch.arange(1, len(table))
        facts = {
            "where β is above `largest`": betas > (largest or [0.999])[0],
            "where β is above 0.999 and `largest` not given": (betas > 0.999) & torch.tensor(not largest),
            "where β is below 0.001": betas < 0.001,
            "at t = 1": t == 1,
            "from t = 2 on": t > 1,
            "at t = T": t == len(betas),
            "where `largest` is not given": not largest,
            "where ᾱ_{t-1} is below 0.0001": table[:-1] < 1e-4,
        }
        cases.append(Case(label, (table, *largest), facts))
    betas = slice(0, 3)
    says = "a million times β_t for t = 1, 2, 3"
    cases.append(digits_case(cases[4], betas, says, lambda function, table: 1e6 * function(table)[betas]))
    for *largest, table in [([1, 0.5, 0, 0, 0],), (0.6, [1, 0.3, 0.2, 0, 0])]:
        table = torch.tensor(table, dtype=torch.float64)
        facts = {"where nothing was left before the step": table[:-1] == 0}
        cases.append(Case("a table that stays at 0", (table, *largest), facts, gpu=True))  # not asked for at first
    return cases


def products(betas: tuple[float, ...]) -> Tensor:
    return torch.cat([torch.ones(1), (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0)])


@exercise(
    "3.4",
    table_cases,
    first="work out by hand the betas of the table 1, 0.5, 0.1, 0, 0, for largest = 0.999. Which step has no answer?",
    tolerance=1e-6,
    any_float=True,
)
def betas_from_alpha_bars(alpha_bars, largest=0.999):
    """The steps of a schedule that is given by its alpha bars.

    alpha_bars:  (T+1,) float64, for t = 0...T: falling from 1; once it is 0 it stays there
    largest:     between 0 and 1: no beta is larger
    returns      (T,) float64: beta for t = 1...T; `largest` where nothing was left before
    """
    kept = alpha_bars[1:] / alpha_bars[:-1]  # 0 / 0, which is NaN, where nothing was left
    betas = 1 - torch.where(kept.isnan(), 0, kept)
    return betas.clamp(max=largest)


def prior_cases() -> list[Case]:
    cases = []
    plan = [(0.6, 0.3), (0.36, 1.0), (0.13, 0.69), (0.048, 0.25), (0.9, 0.5), (0.36, 2.5), (4e-5, 2.5)]
    for alpha_bar, square in plan:
        facts = {
            "for data whose mean square is not 1": square != 1,
            "for a very small ᾱ_T": alpha_bar < 1e-3,
        }
        args = (torch.tensor(alpha_bar, dtype=torch.float64, device="cpu"), float(square))
        cases.append(Case(f"ᾱ_T = {alpha_bar}, mean square {square}", args, facts))
    says = "a million times the bits"
    cases.append(digits_case(cases[-1], slice(None), says, lambda function, *args: 1e6 * function(*args)))
    return [*cases, *(tiny_case(*row) for row in [(3e-12, 0.69), (1e-18, 0.25), (1e-18, 2.5), (0.0, 0.5)])]


def tiny_case(alpha_bar: float, square: float) -> Case:
    """A case in which the whole formula, as it stands on paper, has few digits left or none, and may fall below 0."""
    use = lambda function, *args: 1e18 * function(*args)  # noqa: E731
    args = (torch.tensor(alpha_bar, dtype=torch.float64, device="cpu"), square)
    label = f"ᾱ_T = {alpha_bar:g}, mean square {square}, 10^18 times the bits"
    phrases = "in digits that float32 does not hold", "for an ᾱ_T so small that 1 - ᾱ_T loses it"
    return Case(label, args, dict.fromkeys(phrases, alpha_bar > 0), use=use, gpu=True)


@exercise(
    "3.5",
    prior_cases,
    first="what are the mean and the variance of one coordinate of x_T, given x_0? Which differs between coordinates?",
    tolerance=1e-6,
)
def prior_bits(alpha_bar_T, mean_square):
    """L_T: how far q(x_T | x_0) is from N(0, I), in bits per dimension.

    alpha_bar_T:  the last entry of schedule.alpha_bar, a float64 tensor without axes in [0, 1)
    mean_square:  a number, the average of x_0² over the coordinates of the data
    returns       a float, or a tensor without axes, correct to six digits, even for 1e-18
    """
    square = alpha_bar_T * mean_square  # of the mean of x_T
    excess = -alpha_bar_T  # the variance of x_T less 1; as 1 - ᾱ - 1 it would lose a tiny ᾱ
    log_variance = math.log1p(-alpha_bar_T)  # log(1 - ᾱ), exact where ᾱ is tiny
    nats = 0.5 * (square + excess - log_variance)
    return float(nats / math.log(2))


def length_cases() -> list[Case]:
    cases = []
    for T in (1000, 300, 50, 21, 20, 10, 5, 2, 4000):
        betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * 1000 / T
        facts = {
            "for T other than 1000": T != 1000,
            "for T above 1000": T > 1000,
            "for T below 1000": T < 1000,
            "for T of which 1000 is no multiple": 1000 % T > 0,
            "where β must be bounded": betas > 0.999,
        }
        cases.append(Case(f"T = {T}", (T,), facts))
    return [*cases, steps_case(cases[0])]


@exercise(
    "3.6",
    length_cases,
    first="add up linear_betas(1000) and linear_betas(200). How do the two sums differ? Then look at T = 10.",
    tolerance=1e-6,
    free=("T",),
)
def rescaled_betas(T):
    """The linear betas for any T, scaled to destroy as much signal as 1000 steps do.

    T:       number of steps, 2 or more
    returns  (T,) float64: linear_betas(T) times what makes their sum linear_betas(1000)'s,
             then 0.999 in the place of each that is larger
    """
    linear = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    scaled = linear * 1000 / T
    return scaled.clamp(max=0.999)


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
        and (alpha_bars.shape in ((T,), (T + 1,)) or (T == ODD and alpha_bars.ndim == 1))
        and bool(alpha_bars.isfinite().all())
    )


def fault(alpha_bars: Tensor, case: Case) -> str | None:
    """The id of the first thing that is wrong with a design, None if nothing is."""
    (T,) = case.args
    table = alpha_bars.detach().cpu().double()
    if T == ODD and table.shape != (T + 1,):
        return "length"
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
    if prior_bits(table[-1], 1) >= MOST_BITS:
        longest = max(LENGTHS)
        return "signal_left" if longest == T else "T_ignored"
    if unevenness(table) >= MOST_UNEVEN:
        return "uneven"
    return "single_precision" if alpha_bars.dtype == torch.float32 else None


def score(alpha_bars: Tensor, case: Case) -> str | None:
    """Both measures in one sentence, for a table that is a schedule."""
    if fault(alpha_bars, case) not in ("signal_left", "T_ignored", "uneven", "single_precision", None):
        return None
    bits, gap = prior_bits(alpha_bars[-1], 1), unevenness(alpha_bars.detach())
    return (
        f"At T = {case.args[0]}, L_T is {bits:.1e} bits per dimension (below {MOST_BITS:g} is asked) and the "
        f"unevenness D is {gap:.3f} (below {MOST_UNEVEN} is asked)."
    )


@exercise(
    "3.7",
    lambda: [Case(f"T = {T}", (T,)) for T in LENGTHS],
    first="look again at the scores of the four, and at what `unevenness` sorts. What would have to be even for D = 0?",
    tolerance=1e-6,
    aim=Aim(is_table, fault, score),
    free=("T",),
)
def my_alpha_bars(T):
    """A schedule of your own, for any number of steps.

    T:       number of steps
    returns  (T+1,) float64: alpha_bar for t = 0...T, falling from exactly 1 and staying above 0
    """
    log_snr = torch.linspace(9, -10, T, dtype=torch.float64)
    rest = log_snr.sigmoid()
    first = torch.ones(1, dtype=torch.float64)
    return torch.cat([first, rest])
