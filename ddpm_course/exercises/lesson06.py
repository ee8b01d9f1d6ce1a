"""The checks of lesson 06: the estimate of x_0, one step back, the loop, and a sampler to repair."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..schedules import Schedule
from . import answers06, lesson02
from .cases import (
    EIGHT,
    FIVE,
    IMAGES,
    first_of_batch,
    four_axes,
    normal,
    on_gpu,
    per_sample,
    raw,
    step_cases,
    three_axes,
    two_axes,
)
from .records import Betas, Case, Exercise, Mistake, Seed

ESTIMATE = "lesson 06, 'Through the estimate of x_0'"
CLIPPING = "lesson 06, 'Clipping'"
ALGORITHM = "lesson 06, 'Algorithm 2, line by line'"
STRIDE = "lesson 06, 'Any step from t to s'"
VARIANCE = "lesson 06, 'Which variance'"
LAST = "lesson 06, 'The last step'"
GALLERY = "lesson 06, 'A gallery of broken samplers'"


# ---- 6.1


def _estimate_cases() -> list[Case]:
    """Every case of lesson 02's predict_x0 without clipping, some with, and some that leave it to the default."""
    base = step_cases(first=1)
    cases = [_with_clip(case, False) for case in base]
    return cases + [_with_clip(case, clip) for case in base[:5] + base[10:12] for clip in (True, None)]


def _with_clip(case: Case, clip: bool | None) -> Case:
    said = "clip not said" if clip is None else f"clip={clip}"
    facts = {**case.facts, "with clip=False": clip is False, "with clipping": clip is not False}
    facts["where clip is not given"] = clip is None
    args = case.args if clip is None else (*case.args, clip)
    return replace(case, label=f"{case.label}, {said}", args=args, facts=facts)


def _clipped(unclipped: Callable, low: float = -1.0) -> Callable:
    """An answer with the right clipping around any answer without."""

    def function(schedule, xt, t, noise, clip=True):
        x0 = unclipped(schedule, xt, t, noise)
        return x0.clamp(low, 1) if clip else x0

    return function


def _unclipped(schedule: Schedule, xt: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    return answers06.estimate_x0(schedule, xt, t, noise, clip=False)


def _by_largest(schedule, xt, t, noise, clip=True):
    x0 = _unclipped(schedule, xt, t, noise)
    return x0 / x0.abs().max() if clip else x0


estimate_x0 = Exercise(
    "6.1",
    "estimate_x0",
    answers06.estimate_x0,
    _estimate_cases,
    stub='''
def estimate_x0(schedule, xt, t, noise, clip=True):
    """The x_0 that xt and an estimate of its noise imply.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the network's estimate of the noise in xt, same shape
    clip:      clip the result to [-1, 1], the range of images
    returns    (B, ...) in float32, on the device of xt
    """
    raise NotImplementedError  # your code here
''',
    first="solve x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε for x_0. It is exercise 2.4, with a clamp behind it.",
    mistakes=[
        *(
            Mistake(m.id, m.says, *map(_clipped, m.variants), whole=m.whole)
            for m in lesson02.predict_x0.mistakes
            if m.id not in ("clipped", "posterior_mean", "forward")
        ),
        Mistake(
            "never_clipped",
            f"Right, but never clipped: with clip=True, which is the default, the result lies in [-1, 1] ({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=True: _unclipped(schedule, xt, t, noise),
        ),
        Mistake(
            "always_clipped",
            f"You clip whatever `clip` says. Data that is no image may lie outside [-1, 1] ({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=True: _unclipped(schedule, xt, t, noise).clamp(-1, 1),
        ),
        Mistake(
            "clip_turned_around",
            f"You clip when `clip` is False, and do not when it is True ({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=True: answers06.estimate_x0(schedule, xt, t, noise, not clip),
        ),
        Mistake(
            "clipped_to_0_1",
            "You clip to [0, 1], and everything darker than middle grey is lost. The range of the network is [-1, 1] "
            f"({CLIPPING}).",
            _clipped(_unclipped, low=0.0),
        ),
        Mistake(
            "input_clipped",
            "You clip x_t. Noisy images may leave [-1, 1]: what cannot lie outside is x_0, so clip the result "
            f"({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=True: _unclipped(schedule, xt.clamp(-1, 1) if clip else xt, t, noise),
        ),
        Mistake(
            "noise_clipped",
            f"You clip the noise, which is Gaussian and has no bounds. Clip the result, x_0 ({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=True: _unclipped(
                schedule, xt, t, noise.clamp(-1, 1) if clip else noise
            ),
        ),
        Mistake(
            "rescaled",
            "You divide by the largest value, so one bad pixel makes every other one grey. Clip: only what lies "
            f"outside [-1, 1] changes ({CLIPPING}).",
            _by_largest,
        ),
        Mistake(
            "squashed",
            f"tanh bends every value, the right ones too. Clip: only what lies outside [-1, 1] changes ({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=True: (
                _unclipped(schedule, xt, t, noise).tanh() if clip else _unclipped(schedule, xt, t, noise)
            ),
        ),
        Mistake(
            "default_off",
            f"Where `clip` is not given, you do not clip. Its default is True: images are the usual case ({CLIPPING}).",
            lambda schedule, xt, t, noise, clip=False: answers06.estimate_x0(schedule, xt, t, noise, clip),
        ),
    ],
)


# ---- 6.2 and 6.3: formulas of two rows of the tables


class Pair(NamedTuple):
    """Rows t and s of a schedule's tables, shaped to multiply the data."""

    alpha_bar_t: Tensor
    alpha_bar_s: Tensor
    beta_t: Tensor  # the table's: of the one step from t - 1 to t
    alpha_t: Tensor
    s: Tensor

    @property
    def alpha(self) -> Tensor:
        return self.alpha_bar_t / self.alpha_bar_s

    @property
    def beta(self) -> Tensor:
        return 1 - self.alpha

    @property
    def small(self) -> Tensor:
        return self.beta * (1 - self.alpha_bar_s) / (1 - self.alpha_bar_t)


def _pair(schedule: Schedule, t, s, like: Tensor | None = None, column: Callable = per_sample, shift: int = 0) -> Pair:
    tables = [
        *((schedule.alpha_bar, t), (schedule.alpha_bar, s), (schedule.beta, t), (schedule.alpha, t)),
        (torch.arange(schedule.T + 1), s),
    ]
    rows = [table[row + (shift if table is not tables[-1][0] else 0)] for table, row in tables]
    return Pair(*(column(row, like) if like is not None else row for row in rows))


def _variance(small: Callable | None = None, large: Callable | None = None, shift: int = 0) -> Callable:
    """A function of (schedule, t, s, kind): the right variances, or those that small and large make of the Pair."""

    def function(schedule, t, s, kind="small"):
        pair = _pair(schedule, t, s, shift=shift)
        if kind == "large":
            return (large or (lambda p: p.beta))(pair)
        return (small or (lambda p: p.small))(pair)

    return function


def _both(change: Callable[[Tensor], Tensor]) -> Callable:
    return _variance(lambda p: change(p.small), lambda p: change(p.beta))


def _variance_cases() -> list[Case]:
    plan = [
        *((EIGHT, 6, 5), (EIGHT, 6, 2), (EIGHT, 8, 1), (EIGHT, 2, 1), (EIGHT, 1, 0), (EIGHT, 5, 0), (FIVE, 4, 2)),
        (EIGHT, (6, 2, 8), (5, 1, 7)),
        (EIGHT, (6, 8, 4, 3), (2, 7, 1, 0)),
        (FIVE, (5, 3), (2, 1)),
    ]
    cases = []
    for betas, t, s in plan:
        many = not isinstance(t, int)
        rows, before = torch.tensor(t, device="cpu"), torch.tensor(s, device="cpu")
        for kind in ("small", "large", None):
            facts = {
                'for kind "small"': kind != "large",
                'for kind "large"': kind == "large",
                "where kind is not given": kind is None,
                "where s = 0": before == 0,
                "where s is more than 0": before > 0,
                "for steps longer than one": rows - before > 1,
                "for single steps, s = t - 1": rows - before == 1,
                "for ints": not many,
                "for t and s of shape (B,)": many,
                "for a schedule with another T": betas is FIVE,
            }
            args = (betas, rows, before) if many else (betas, t, s)
            label = f"t = {list(t) if many else t}, s = {list(s) if many else s}, " + (
                f'kind "{kind}"' if kind else "kind not given"
            )
            cases.append(Case(label, args if kind is None else (*args, kind), facts))
    return cases


reverse_variance = Exercise(
    "6.2",
    "reverse_variance",
    answers06.reverse_variance,
    _variance_cases,
    stub='''
def reverse_variance(schedule, t, s, kind="small"):
    """The variance of the noise in a reverse step from t to s.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    t, s:      ints with 0 <= s < t <= T, or (B,) integers each
    kind:      "large" is beta, the variance that the forward process adds between s and t;
               "small" is beta-tilde, the variance of q(x_s | x_t, x_0)
    returns    a number for ints, (B,) for tensors
    """
    raise NotImplementedError  # your code here
''',
    first="what share of the variance survives from s to t? One minus that is β. Then multiply for β̃.",
    tolerance=1e-5,
    any_float=True,
    mistakes=[
        Mistake(
            "one_step_beta",
            "You take β_t from the table, which belongs to the one step from t - 1 to t. From s to t it is "
            f"1 - ᾱ_t/ᾱ_s ({STRIDE}).",
            _variance(lambda p: p.beta_t * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t), lambda p: p.beta_t),
            lambda schedule, t, s, kind="small": answers06.reverse_variance(schedule, t, t - 1, kind),
        ),
        Mistake(
            "one_step_large",
            f"β̃ is right. For β you take the table's, of one step alone. From s to t it is 1 - ᾱ_t/ᾱ_s ({STRIDE}).",
            _variance(large=lambda p: p.beta_t),
        ),
        Mistake(
            "one_step_small",
            f"β is right. In β̃ you take the table's β_t, of one step alone: put 1 - ᾱ_t/ᾱ_s there too ({STRIDE}).",
            _variance(small=lambda p: p.beta_t * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t)),
        ),
        Mistake(
            "kinds_swapped",
            f'The two are swapped: "small" is β̃, which is β times a number below 1 ({VARIANCE}).',
            _variance(lambda p: p.beta, lambda p: p.small),
        ),
        Mistake(
            "always_small",
            f'You return β̃ whatever `kind` says. "large" is β itself, 1 - ᾱ_t/ᾱ_s ({VARIANCE}).',
            _variance(large=lambda p: p.small),
        ),
        Mistake(
            "always_large",
            f'You return β whatever `kind` says. "small" is β̃ = β (1 - ᾱ_s)/(1 - ᾱ_t) ({VARIANCE}).',
            _variance(small=lambda p: p.beta),
        ),
        Mistake(
            "default_large",
            f'Where `kind` is not given, you return β. The default is "small", β̃ ({VARIANCE}).',
            lambda schedule, t, s, kind="large": answers06.reverse_variance(schedule, t, s, kind),
        ),
        Mistake(
            "deviation",
            f"You return standard deviations. Asked is the variance: no root here ({VARIANCE}).",
            _both(torch.sqrt),
        ),
        Mistake(
            "squared",
            f"β and β̃ are variances already: do not square them ({VARIANCE}).",
            _both(torch.square),
        ),
        Mistake(
            "logarithm",
            f"You return logarithms, and that of β̃ is -∞ where s = 0. Asked is the variance itself ({VARIANCE}).",
            _both(torch.log),
        ),
        Mistake(
            "ratio_inverted",
            f"Your ratio stands upside down: β̃ is *smaller* than β, (1 - ᾱ_s) above and (1 - ᾱ_t) below ({STRIDE}).",
            _variance(small=lambda p: p.beta * (1 - p.alpha_bar_t) / (1 - p.alpha_bar_s)),
        ),
        Mistake(
            "ratio_alone",
            f"The factor β is missing: β̃ = β (1 - ᾱ_s)/(1 - ᾱ_t) ({STRIDE}).",
            _variance(small=lambda p: (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t)),
        ),
        Mistake(
            "not_divided",
            f"The division by 1 - ᾱ_t is missing: β̃ = β (1 - ᾱ_s)/(1 - ᾱ_t) ({STRIDE}).",
            _variance(small=lambda p: p.beta * (1 - p.alpha_bar_s)),
        ),
        Mistake(
            "survives",
            f"ᾱ_t/ᾱ_s is the share that survives from s to t. What is *added* is the rest, 1 - ᾱ_t/ᾱ_s ({STRIDE}).",
            _variance(
                lambda p: p.alpha * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t),
                lambda p: p.alpha,
            ),
        ),
        Mistake(
            "quotient_inverted",
            f"You divide ᾱ_s by ᾱ_t, which is more than 1. The share that survives is ᾱ_t/ᾱ_s ({STRIDE}).",
            _variance(
                lambda p: (1 - 1 / p.alpha) * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t),
                lambda p: 1 - 1 / p.alpha,
            ),
        ),
        Mistake(
            "difference",
            "You subtract: ᾱ_s - ᾱ_t is what x_0's share loses. The step adds 1 - ᾱ_t/ᾱ_s, because shares multiply "
            f"({STRIDE}).",
            _variance(
                lambda p: (p.alpha_bar_s - p.alpha_bar_t) * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t),
                lambda p: p.alpha_bar_s - p.alpha_bar_t,
            ),
        ),
        Mistake(
            "all_steps",
            "1 - ᾱ_t is the noise of all t steps from x_0 on. Between s and t the process adds 1 - ᾱ_t/ᾱ_s "
            f"({STRIDE}).",
            _variance(lambda p: 1 - p.alpha_bar_s, lambda p: 1 - p.alpha_bar_t),
            _variance(large=lambda p: 1 - p.alpha_bar_t),
        ),
        Mistake(
            "alpha_for_alpha_bar",
            f"The ratio in β̃ is made of ᾱ, what *all* steps left, and you take the α of single steps ({STRIDE}).",
            lambda schedule, t, s, kind="small": (
                _variance()(schedule, t, s, kind)
                if kind == "large"
                else _pair(schedule, t, s).beta * schedule.beta[s] / schedule.beta[t]
            ),
        ),
        Mistake(
            "counted_from_0",
            "You read the entry before each. Entry t of a table belongs to step t, and entry 0 to clean data: "
            f"at s = 0 yours wraps around to the table's end ({GALLERY}).",
            _variance(shift=-1),
        ),
    ],
)


def _on_x0(p: Pair) -> Tensor:
    return p.alpha_bar_s.sqrt() * p.beta / (1 - p.alpha_bar_t)


def _on_xt(p: Pair) -> Tensor:
    return p.alpha.sqrt() * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t)


def _std(p: Pair, kind: str) -> Tensor:
    return (p.beta if kind == "large" else p.small).sqrt() * (p.s > 0)


def _step(
    on_x0: Callable = _on_x0, on_xt: Callable = _on_xt, std: Callable = _std, *, shift: int = 0,
    column: Callable = per_sample, pick: Callable = lambda t: t, draw: Callable | None = None,
    default: str = "small",
) -> Callable:  # fmt: skip
    """A function of (schedule, x0, xt, t, s, z, kind): the right step, or what the changed parts make of it."""

    def function(schedule, x0, xt, t, s, z, kind=default):
        pair = _pair(schedule, pick(t), pick(s), xt, column, shift)
        return on_x0(pair) * x0 + on_xt(pair) * xt + std(pair, kind) * (draw(xt) if draw else z)

    return function


def _step_cases() -> list[Case]:
    plan = [
        (EIGHT, IMAGES, 6, 5),
        (EIGHT, IMAGES, 6, 2),
        (EIGHT, IMAGES, 8, 7),
        (EIGHT, IMAGES, 1, 0),
        (EIGHT, IMAGES, 4, 0),
        (EIGHT, IMAGES, (8, 2, 5), (7, 1, 4)),
        (EIGHT, IMAGES, (8, 7, 4), (3, 2, 0)),
        (EIGHT, (4, 1, 3, 4), (5, 2, 8, 3), (2, 1, 7, 1)),  # as many images as columns
        (EIGHT, (4, 1, 4, 5), (3, 8, 2, 6), (1, 4, 1, 5)),  # as many images as rows
        (EIGHT, (3, 3, 4, 5), (6, 3, 7), (5, 1, 2)),  # as many images as channels
        (EIGHT, (4, 2), (7, 2, 6, 3), (6, 1, 2, 0)),
        (EIGHT, (6,), 5, 2),
        (FIVE, IMAGES, 4, 2),
    ]
    cases = []
    for i, (betas, shape, t, s) in enumerate(plan):
        many = not isinstance(t, int)
        axes = (-1,) + (1,) * (len(shape) - 1)
        rows, before = (torch.tensor(r, device="cpu").reshape(axes if many else ()) for r in (t, s))
        for kind in ("small", "large") if i else ("small", "large", None):
            facts = {
                'for kind "small"': kind != "large",
                'for kind "large"': kind == "large",
                "where kind is not given": kind is None,
                "where s = 0": before == 0,
                "where s is more than 0": before > 0,
                'for kind "large" where s = 0': (before == 0) & torch.tensor(kind == "large"),
                "for steps longer than one": rows - before > 1,
                "for single steps, s = t - 1": rows - before == 1,
                "for an int t": not many,
                "for t of shape (B,)": many,
                "where the batch has as many images as an image has columns": len(shape) == 4 and shape[0] == shape[3],
                "where the batch has as many images as an image has channels": len(shape) == 4 and shape[0] == shape[1],
                "for images": len(shape) == 4,
                "for data that is not images, of shape (B,) or (B, D)": len(shape) < 4,
                "for a schedule with another T": betas is FIVE,
            }
            label = f"data {shape}, t = {list(t) if many else t}, s = {list(s) if many else s}"
            x0, xt, z = (normal(shape, 300 + 3 * i + j) for j in range(3))
            times = (torch.tensor(t, device="cpu"), torch.tensor(s, device="cpu")) if many else (t, s)
            said = f', kind "{kind}"' if kind else ", kind not given"
            cases.append(Case(label + said, (betas, x0, xt, *times, z, *([kind] if kind else [])), facts))
    return cases + on_gpu(cases[0])


_MEAN = "on x_0: √ᾱ_s β/(1 - ᾱ_t); on x_t: √α (1 - ᾱ_s)/(1 - ᾱ_t), with α = ᾱ_t/ᾱ_s and β = 1 - α"

posterior_step = Exercise(
    "6.3",
    "posterior_step",
    answers06.posterior_step,
    _step_cases,
    stub='''
def posterior_step(schedule, x0, xt, t, s, z, kind="small"):
    """x_s, drawn from q(x_s | x_t, x_0) for any 0 <= s < t (Ho et al., eqs. 6 and 7).

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    x0:        (B, ...) the estimate of x_0, float32
    xt:        (B, ...) data at noise level t
    t, s:      one int each for the whole batch, or (B,) integers each
    z:         same shape, standard normal
    kind:      the variance: "small" or "large", as reverse_variance knows them
    returns    (B, ...) mean + sqrt(variance) * z in float32; where s = 0, the mean alone
    """
    raise NotImplementedError  # your code here
''',
    first="compute α = ᾱ_t/ᾱ_s and β = 1 - α. Then write eq. 7 with α for α_t, β for β_t and ᾱ_s for ᾱ_{t-1}.",
    mistakes=[
        Mistake(
            "root_over_beta",
            "In your weight of x_0 the root covers β as well. It belongs to ᾱ_s alone: √ᾱ_s β/(1 - ᾱ_t). (A widely "
            f"copied version prints it your way.) ({STRIDE})",
            _step(lambda p: (p.alpha_bar_s * p.beta).sqrt() / (1 - p.alpha_bar_t)),
        ),
        Mistake(
            "alpha_bar_t_for_s",
            f"You use ᾱ_t where ᾱ_s belongs. The mean has {_MEAN} ({STRIDE}).",
            _step(lambda p: p.alpha_bar_t.sqrt() * p.beta / (1 - p.alpha_bar_t)),
            _step(on_xt=lambda p: p.alpha.sqrt()),
            _step(lambda p: p.alpha_bar_t.sqrt() * p.beta / (1 - p.alpha_bar_t), lambda p: p.alpha.sqrt()),
        ),
        Mistake(
            "swapped",
            f"The two weights of the mean are swapped. {_MEAN[:1].upper()}{_MEAN[1:]} ({STRIDE}).",
            _step(_on_xt, _on_x0),
        ),
        Mistake(
            "one_step",
            "You take α_t and β_t from the tables, which belong to the one step from t - 1 to t. From s to t, "
            f"α = ᾱ_t/ᾱ_s and β = 1 - α ({STRIDE}).",
            lambda schedule, x0, xt, t, s, z, kind="small": answers06.posterior_step(
                schedule, x0, xt, t, t - 1, z * (per_sample(torch.as_tensor(s), xt) > 0), kind
            ),
            _step(
                lambda p: p.alpha_bar_s.sqrt() * p.beta_t / (1 - p.alpha_bar_t),
                lambda p: p.alpha_t.sqrt() * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t),
            ),
            _step(
                lambda p: p.alpha_bar_s.sqrt() * p.beta_t / (1 - p.alpha_bar_t),
                lambda p: p.alpha_t.sqrt() * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t),
                lambda p, kind: (
                    (p.beta_t * (1 if kind == "large" else (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t))).sqrt()
                    * (p.s > 0)
                ),
            ),
        ),
        Mistake(
            "one_step_variance",
            "The mean is right. The variance uses the table's β_t, of one step alone: take 1 - ᾱ_t/ᾱ_s there too "
            f"({STRIDE}).",
            _step(
                std=lambda p, kind: (
                    (p.beta_t * (1 if kind == "large" else (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t))).sqrt()
                    * (p.s > 0)
                )
            ),
        ),
        Mistake(
            "alpha_bar_for_alpha",
            "You scale x_t with √ᾱ_t, what all t steps keep. This step goes from t to s: its own share is "
            f"α = ᾱ_t/ᾱ_s ({STRIDE}).",
            _step(on_xt=lambda p: p.alpha_bar_t.sqrt() * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t)),
        ),
        Mistake(
            "not_rooted",
            f"A root is missing in the mean: {_MEAN} ({STRIDE}).",
            _step(lambda p: p.alpha_bar_s * p.beta / (1 - p.alpha_bar_t)),
            _step(on_xt=lambda p: p.alpha * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t)),
            _step(
                lambda p: p.alpha_bar_s * p.beta / (1 - p.alpha_bar_t),
                lambda p: p.alpha * (1 - p.alpha_bar_s) / (1 - p.alpha_bar_t),
            ),
        ),
        Mistake(
            "not_divided",
            f"The division of the mean by 1 - ᾱ_t is missing: {_MEAN} ({STRIDE}).",
            _step(lambda p: p.alpha_bar_s.sqrt() * p.beta, lambda p: p.alpha.sqrt() * (1 - p.alpha_bar_s)),
            _step(on_xt=lambda p: p.alpha.sqrt() * (1 - p.alpha_bar_s)),
            _step(lambda p: p.alpha_bar_s.sqrt() * p.beta),
        ),
        Mistake(
            "xt_forgotten",
            f"x_t has no part in your mean. It is a weighted sum of the estimate and x_t: {_MEAN} ({STRIDE}).",
            _step(on_xt=lambda p: 0),
            _step(lambda p: p.alpha_bar_s.sqrt(), lambda p: 0),
        ),
        Mistake(
            "renoised",
            "You noise the estimate anew, as q_sample does, and forget where x_t was. The step is a Gaussian between "
            f"the two ({STRIDE}).",
            _step(
                lambda p: p.alpha_bar_s.sqrt(),
                lambda p: 0,
                lambda p, kind: (1 - p.alpha_bar_s).sqrt(),
            ),
        ),
        Mistake(
            "variance_for_deviation",
            "You multiply z by the *variance*. z has variance 1, so scale it by the root: √variance · z "
            f"({ALGORITHM}).",
            _step(std=lambda p, kind: _std(p, kind) ** 2),
        ),
        Mistake(
            "z_unscaled",
            f"z comes in at full size. Scale it by √variance ({ALGORITHM}).",
            _step(std=lambda p, kind: 1.0 * (p.s > 0)),
            _step(std=lambda p, kind: 1.0),
        ),
        Mistake(
            "no_noise",
            "You return the mean alone. Every step but the last adds √variance · z: without it the samples draw "
            f"together ({ALGORITHM}).",
            _step(std=lambda p, kind: 0),
        ),
        Mistake(
            "noise_at_the_end",
            "You add noise in the step to s = 0 too. β̃ is 0 there by itself, but β is not: the last step returns the "
            f"mean ({LAST}).",
            _step(std=lambda p, kind: (p.beta if kind == "large" else p.small).sqrt()),
        ),
        Mistake(
            "no_noise_at_1",
            "You leave the noise out where t = 1, or where s is 1. The last step is the one to s = 0, whatever its t "
            f"({LAST}).",
            _step(std=lambda p, kind: (p.beta if kind == "large" else p.small).sqrt() * (p.s > 1)),
            lambda schedule, x0, xt, t, s, z, kind="small": _step(
                std=lambda p, kind: (p.beta if kind == "large" else p.small).sqrt()
            )(schedule, x0, xt, t, s, z * (per_sample(torch.as_tensor(t), xt) > 1), kind),
        ),
        Mistake(
            "kinds_swapped",
            f'The two variances are swapped: "small" is β̃, "large" is β ({VARIANCE}).',
            _step(std=lambda p, kind: _std(p, "small" if kind == "large" else "large")),
        ),
        Mistake(
            "always_small",
            f'You use β̃ whatever `kind` says. Pass it on: "large" is β ({VARIANCE}).',
            _step(std=lambda p, kind: _std(p, "small")),
        ),
        Mistake(
            "always_large",
            f'You use β whatever `kind` says. Pass it on: "small" is β̃ ({VARIANCE}).',
            _step(std=lambda p, kind: _std(p, "large")),
        ),
        Mistake(
            "default_large",
            f'Where `kind` is not given, you use β. The default is "small", β̃ ({VARIANCE}).',
            _step(default="large"),
        ),
        Mistake(
            "marginal_noise",
            "You add √(1 - ᾱ_s) z, the noise that x_s holds in all. Part of it is in x_t already: add √variance · z "
            f"({STRIDE}).",
            _step(std=lambda p, kind: (1 - p.alpha_bar_s).sqrt()),
        ),
        Mistake(
            "noise_subtracted",
            "You subtract z. The distribution is the same, but not the sample, and you could not compare it with "
            f"anybody's: add it ({ALGORITHM}).",
            _step(std=lambda p, kind: -_std(p, kind)),
        ),
        Mistake(
            "fresh_noise",
            f"You draw noise of your own. Use the `z` you are given: then the same seed gives the same sample "
            f"({ALGORITHM}).",
            _step(draw=lambda x: torch.randn_like(x)),
        ),
        Mistake(
            "counted_from_0",
            "You read the entry before each. Entry t of a table belongs to step t, and entry 0 to clean data: at s = 0 "
            f"yours wraps around to the table's end ({GALLERY}).",
            _step(shift=-1),
        ),
        Mistake(
            "broadcast_width",
            "The weights run along the width of the images, one a column: reshape them to (B, 1, ..., 1) "
            "(lesson 02, 'Broadcasting').",
            _step(column=raw),
        ),
        Mistake(
            "broadcast_rows",
            "The weights run along the height of the images, one a row: reshape them to (B, 1, ..., 1) "
            "(lesson 02, 'Broadcasting').",
            _step(column=two_axes),
        ),
        Mistake(
            "broadcast_channels",
            "The weights run over the channels: reshape them to (B, 1, ..., 1) (lesson 02, 'Broadcasting').",
            _step(column=three_axes),
        ),
        Mistake(
            "images_only",
            "Right for images. Other data has fewer axes: reshape the weights to as many axes as `xt` has, "
            "(B, 1, ..., 1) (lesson 02, 'Broadcasting').",
            _step(column=four_axes),
        ),
        Mistake(
            "one_t_for_all",
            "You use the first t and s of the batch for every image. Each has its own (lesson 02, 'Broadcasting').",
            _step(pick=first_of_batch),
        ),
    ],
)


# ---- 6.4 and 6.5: whole samplers


def probe(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """A network that nobody trained: smooth in x and t, and as particular about t as a real one."""
    if not isinstance(t, Tensor) or t.shape != x.shape[:1]:
        got = tuple(t.shape) if isinstance(t, Tensor) else f"the {type(t).__name__} {t}"
        raise ValueError(f"t must have shape ({len(x)},) to match x's batch of {len(x)}, got {got}")
    if t.is_floating_point():
        raise ValueError(f"t must hold integers (torch.int64), got {t.dtype}")
    phase = t.double().reshape((-1,) + (1,) * (x.ndim - 1))
    return (0.9 * x.double() + 0.4 * torch.sin(phase + 2 * x.double())).to(x.dtype)


_WEIGHT = torch.ones((), device="cpu", requires_grad=True)


def probe_with_weights(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """The same with a weight, so that gradients would be recorded; complains when they reach its input."""
    if x.requires_grad:
        raise RuntimeError("x carries the graph of all steps before. Switch gradients off: with torch.no_grad()")
    return probe(x, t, y) * _WEIGHT


def _loop_cases() -> list[Case]:
    plan = [
        (EIGHT, (3, 1, 4, 5), list(range(8, -1, -1)), "small"),
        (EIGHT, (3, 1, 4, 5), list(range(8, -1, -1)), "large"),
        (EIGHT, (2, 2, 3, 3), [8, 5, 2, 0], "small"),
        (EIGHT, (2, 2, 3, 3), [8, 5, 2, 0], "large"),
        (EIGHT, (2, 1, 3, 3), [7, 4, 0], None),
        (EIGHT, (5,), [8, 6, 3, 1, 0], "large"),
        (EIGHT, (4, 2), [8, 0], "large"),
        (FIVE, (2, 1, 3, 3), [5, 4, 3, 2, 1, 0], "small"),
    ]
    cases = [_loop_case(probe, *row, seed) for seed, row in enumerate(plan)]
    return [*cases, _loop_case(probe_with_weights, EIGHT, (2, 1, 3, 3), [8, 5, 2, 0], "small", 30)]


def _loop_case(net: Callable, betas: Betas, shape: tuple[int, ...], times: list[int], kind: str | None, seed: int):
    stride = any(t - s > 1 for t, s in itertools.pairwise(times))
    facts = {
        'for kind "large"': kind == "large",
        'for kind "small"': kind != "large",
        "where kind is not given": kind is None,
        "for times with strides": stride,
        "for times without strides": not stride,
        "where `times` begins below T": times[0] < len(betas.values),
        "for one step from T to 0": len(times) == 2,
        "for data that is not images": len(shape) < 4,
        "for a network with weights": net is probe_with_weights,
        "for a schedule with another T": betas is FIVE,
    }
    label = f"data {shape}, times {times}" + (f', kind "{kind}"' if kind else "")
    return Case(label, (net, betas, normal(shape, 400 + seed), times, Seed(seed), *([kind] if kind else [])), facts)


def _loop(
    *,
    ends: Callable[[list[int]], list[int]] = lambda times: times,
    pairs: Callable = itertools.pairwise,
    start: Callable[[Tensor, torch.Generator], Tensor] = lambda x_T, generator: x_T,
    told: Callable[[int, int], int] = lambda t, s: t,
    low: float | None = -1.0,
    draws: Callable | None = None,
    scale: Callable[[float], float] = math.sqrt,
    last_noise: bool | str = False,
    only: str | None = None,
    step: Callable | None = None,
    keep: Callable = lambda x: x,
    default: str = "small",
    gradients: bool = False,
) -> Callable:
    """A function of (net, schedule, x_T, times, generator, kind): the right loop, or with a part of it changed.

    ends:   which times are visited;  pairs: how they become (t, s)
    start:  what the loop begins from;  told: which t the network is told
    low:    the lower end of the clipping; None for no clipping
    draws:  (x, generator, number of steps) -> a function that hands out one z a call
    scale:  variance -> the factor of z;  only: the variance, whatever kind says
    last_noise: keep it in the last step too; "t > 1": wherever t is more than 1
    step:   (schedule, x0, x, t, s, z) -> x_s, in place of the posterior
    keep:   x -> the x that the next step starts from
    """

    def function(net, schedule, x_T, times, generator, kind=default):
        with torch.set_grad_enabled(gradients):
            x, times = start(x_T, generator), ends(times)
            steps = list(pairs(times))
            draw = (draws or _one_a_step)(x, generator, len(steps))
            for t, s in steps:
                noise = net(x, torch.full((len(x),), told(t, s)))
                x0 = answers06.estimate_x0(schedule, x, t, noise, clip=False)
                x0 = x0 if low is None else x0.clamp(low, 1)
                kept = t > 1 if last_noise == "t > 1" else s > 0 or last_noise
                z = draw() if kept else torch.zeros_like(x)
                if step is not None:
                    x = step(schedule, x0, x, t, s, z)
                    continue
                variance = answers06.reverse_variance(schedule, t, s, only or kind)
                mean = answers06.posterior_step(schedule, x0, x, t, s, torch.zeros_like(x))
                x = keep(mean + scale(variance) * z)
            return x

    return function


def _one_a_step(x: Tensor, generator: torch.Generator, n: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(x.shape, generator=generator)


def _the_same(x: Tensor, generator: torch.Generator, n: int) -> Callable[[], Tensor]:
    z = torch.randn(x.shape, generator=generator)
    return lambda: z


def _at_once(x: Tensor, generator: torch.Generator, n: int) -> Callable[[], Tensor]:
    z = iter(torch.randn((n, *x.shape), generator=generator))
    return lambda: next(z)


def _one_for_the_batch(x: Tensor, generator: torch.Generator, n: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(x.shape[1:], generator=generator).expand(x.shape)


def _table_step(schedule, x0, x, t, s, z):
    """The paper's line 4 with the tables' entries, which take one step and no more, at whatever stride."""
    return answers06.posterior_step(schedule, x0, x, t, t - 1, z)


def _from_x_T(net, schedule, x_T, times, generator, kind="small"):
    for t, s in itertools.pairwise(times):
        x0 = answers06.estimate_x0(schedule, x_T, t, net(x_T, torch.full((len(x_T),), t)).detach())
        z = torch.randn(x_T.shape, generator=generator) if s > 0 else torch.zeros_like(x_T)
        x = answers06.posterior_step(schedule, x0, x_T, t, s, z, kind)
    return x


ancestral_loop = Exercise(
    "6.4",
    "ancestral_loop",
    answers06.ancestral_loop,
    _loop_cases,
    stub='''
def ancestral_loop(net, schedule, x_T, times, generator, kind="small"):
    """Algorithm 2 of Ho et al. (2020) along any times, without gradients.

    net:        net(x, t) with t (B,) int64: the estimate of the noise in x
    x_T:        (B, ...) the noise to start from
    times:      falling ints, T as a rule first, 0 last: each step goes from one to the next
    generator:  for z: torch.randn(x.shape, generator=generator, device=x.device), once a step,
                and not at all in the last
    kind:       the variance of the steps, "small" or "large"
    returns     (B, ...) x_0
    """
    raise NotImplementedError  # your code here
''',
    first="loop over pairs (t, s) of neighbours in `times`. In each: the noise, the estimate of x_0, z, one step.",
    mistakes=[
        Mistake(
            "noise_at_the_end",
            f"Your last step adds noise. z = 0 there: nothing comes after it that could take the noise away ({LAST}).",
            _loop(last_noise=True),
        ),
        Mistake(
            "noise_where_t_is_above_1",
            "You leave z out where t = 1, as Algorithm 2 prints it. With strides the last step starts from a larger t: "
            f"leave it out where s = 0 ({LAST}).",
            _loop(last_noise="t > 1"),
        ),
        Mistake(
            "no_noise",
            f"You add no noise in any step, so the samples draw together in the middle. Only the last has none "
            f"({ALGORITHM}).",
            _loop(scale=lambda variance: 0.0),
        ),
        Mistake(
            "same_noise_every_step",
            f"z is drawn once and used in every step. Draw inside the loop ({ALGORITHM}).",
            _loop(draws=_the_same),
        ),
        Mistake(
            "same_noise_every_image",
            f"One z serves the whole batch. Draw it with the shape of x ({ALGORITHM}).",
            _loop(draws=_one_for_the_batch),
        ),
        Mistake(
            "drawn_at_once",
            f"You draw the noise of all steps at once, which gives other numbers. Draw once a step ({ALGORITHM}).",
            _loop(draws=_at_once),
        ),
        Mistake(
            "no_generator",
            "You draw from the global random state. Pass the generator on: torch.randn(x.shape, generator=generator) "
            f"({ALGORITHM}).",
            _loop(draws=lambda x, generator, n: lambda: torch.randn(x.shape)),
        ),
        Mistake(
            "starts_from_own_noise",
            f"You draw the start yourself. Start from `x_T` ({ALGORITHM}).",
            _loop(start=lambda x_T, generator: torch.randn(x_T.shape, generator=generator)),
            _loop(start=lambda x_T, generator: torch.randn_like(x_T)),
        ),
        Mistake(
            "starts_from_zero",
            f"You start from zeros. Start from `x_T`, the noise that decides what the sample becomes ({ALGORITHM}).",
            _loop(start=lambda x_T, generator: torch.zeros_like(x_T)),
        ),
        Mistake(
            "told_s",
            "The network is told s. What it sees is x_t, so tell it t: with s it takes out too little noise "
            f"({GALLERY}).",
            _loop(told=lambda t, s: s),
        ),
        Mistake(
            "told_t_minus_1",
            "The network is told t - 1. That is the adapter for networks that count from 0; ours count from 1, as the "
            f"paper does ({GALLERY}).",
            _loop(told=lambda t, s: t - 1),
        ),
        Mistake(
            "told_the_number",
            f"The network is told the number of the step. It needs the noise level t, which falls from T ({GALLERY}).",
            lambda net, schedule, x_T, times, generator, kind="small": _loop(told=lambda t, s: times.index(t))(
                net, schedule, x_T, times, generator, kind
            ),
        ),
        Mistake(
            "one_step_at_a_stride",
            "Each of your steps goes from t to t - 1, whatever comes next in `times`, so the noise level and t part "
            f"ways. Go from t to s ({STRIDE}).",
            _loop(step=_table_step),
        ),
        Mistake(
            "times_ignored",
            f"You walk through every t from T to 1. Visit the given `times` only ({STRIDE}).",
            lambda net, schedule, x_T, times, generator, kind="small": _loop(
                ends=lambda times: list(range(schedule.T, -1, -1))
            )(net, schedule, x_T, times, generator, kind),
        ),
        Mistake(
            "stops_early",
            f"You stop one step early: what you return still holds noise. The last step goes to 0 ({LAST}).",
            _loop(ends=lambda times: times[:-1]),
        ),
        Mistake(
            "first_step_skipped",
            f"Your first step starts from the second of the `times`. Start from the first, T ({STRIDE}).",
            _loop(ends=lambda times: times[1:] if len(times) > 2 else times),
        ),
        Mistake(
            "always_from_x_T",
            f"Every step starts from x_T again. Each starts from the x that the one before made ({ALGORITHM}).",
            _from_x_T,
        ),
        Mistake(
            "first_estimate",
            "You return the first estimate of x_0: the average of everything it might become. Take all the steps "
            f"({ESTIMATE}).",
            lambda net, schedule, x_T, times, generator, kind="small": _loop()(
                net, schedule, x_T, [times[0], 0], generator, kind
            ),
        ),
        Mistake(
            "renoised",
            f"You noise the estimate anew in each step, as q_sample does, and forget x. Use posterior_step ({STRIDE}).",
            _loop(
                step=lambda schedule, x0, x, t, s, z: (
                    schedule.alpha_bar[s].sqrt().float() * x0 + (1 - schedule.alpha_bar[s]).sqrt().float() * z
                )
            ),
        ),
        Mistake(
            "variance_for_deviation",
            f"z is multiplied by the *variance*. Scale it by the root ({ALGORITHM}).",
            _loop(scale=lambda variance: variance),
        ),
        Mistake(
            "kinds_swapped",
            f'The two variances are swapped: "small" is β̃, "large" is β ({VARIANCE}).',
            lambda net, schedule, x_T, times, generator, kind="small": _loop()(
                net, schedule, x_T, times, generator, "small" if kind == "large" else "large"
            ),
        ),
        Mistake(
            "always_small",
            f"You use β̃ whatever `kind` says. Pass it on to posterior_step ({VARIANCE}).",
            _loop(only="small"),
        ),
        Mistake(
            "always_large",
            f"You use β whatever `kind` says. Pass it on to posterior_step ({VARIANCE}).",
            _loop(only="large"),
        ),
        Mistake(
            "default_large",
            f'Where `kind` is not given, you use β. The default is "small", β̃ ({VARIANCE}).',
            _loop(default="large"),
        ),
        Mistake(
            "not_clipped",
            f"The estimate of x_0 is not clipped. estimate_x0 clips unless you tell it not to ({CLIPPING}).",
            _loop(low=None),
        ),
        Mistake(
            "clipped_to_0_1",
            f"The estimate is clipped to [0, 1]. The range of images is [-1, 1] here ({CLIPPING}).",
            _loop(low=0.0),
        ),
        Mistake(
            "x_clipped",
            f"You clip x itself. Noisy images leave [-1, 1]: only the estimate of x_0 is clipped ({CLIPPING}).",
            _loop(keep=lambda x: x.clamp(-1, 1)),
            _loop(low=None, keep=lambda x: x.clamp(-1, 1)),
        ),
        Mistake(
            "gradients_on",
            "The samples are right, but every step keeps the graph of all steps before, and memory grows with each. "
            f"Switch them off: @torch.no_grad() above the function, or `with torch.no_grad():` inside ({GALLERY}).",
            _loop(gradients=True),
        ),
    ],
)


FAULTS = {
    "uniform_start": f"It starts from uniform noise in [0, 1]. x_T is standard normal: torch.randn ({ALGORITHM}).",
    "told_s": f"The network is told s. What it sees is x_t, so tell it t ({GALLERY}).",
    "clipped_to_0_1": f"The estimate is clipped to [0, 1], someone else's range. Here it is [-1, 1] ({CLIPPING}).",
    "variance_for_deviation": f"z is multiplied by the *variance*. Scale it by the root ({ALGORITHM}).",
    "noise_at_the_end": f"The last step adds noise, and nothing after it takes that away: z = 0 there ({LAST}).",
}


def _with_faults(faults: tuple[str, ...], kind: str = "large") -> Callable:
    """The sampler of exercise 6.5 with some of its faults left in it."""
    loop = _loop(
        told=(lambda t, s: s) if "told_s" in faults else (lambda t, s: t),
        low=0.0 if "clipped_to_0_1" in faults else -1.0,
        scale=(lambda variance: variance) if "variance_for_deviation" in faults else math.sqrt,
        last_noise="noise_at_the_end" in faults,
    )

    def function(net, schedule, shape, times, generator):
        x_T = (torch.rand if "uniform_start" in faults else torch.randn)(shape, generator=generator)
        return loop(net, schedule, x_T, times, generator, kind)

    return function


def _left(faults: tuple[str, ...]) -> Mistake:
    """One fault is named. Of several, the first is: the others come to light when it is gone."""
    count = {1: "One fault is left.", len(FAULTS): "Nothing is repaired yet: five faults are left."}
    said = count.get(len(faults), f"{len(faults)} faults are left.")
    more = " The first of them:" if len(faults) > 1 else ""
    return Mistake(" and ".join(faults), f"{said}{more}\n{FAULTS[faults[0]]}", _with_faults(faults), whole=True)


def _repair_cases() -> list[Case]:
    cases = []
    for case in _loop_cases():
        net, betas, x_T, times, seed, *kind = case.args
        if kind != ["small"] or net is probe_with_weights:
            label = f"shape {tuple(x_T.shape)}, times {times}"
            facts = {phrase: true for phrase, true in case.facts.items() if "kind" not in phrase}
            cases.append(Case(label, (net, betas, tuple(x_T.shape), times, seed), facts))
    return cases


repaired_sampler = Exercise(
    "6.5",
    "repaired_sampler",
    answers06.repaired_sampler,
    _repair_cases,
    stub='''
def repaired_sampler(net, schedule, shape, times, generator):
    """broken_sampler without its five faults: ancestral sampling with the large variance.

    net:        net(x, t) with t (B,) int64: the estimate of the noise in x
    shape:      (B, ...) of the samples
    times:      falling ints, T as a rule first, 0 last
    generator:  for everything random: x_T first, then one z a step but for the last
    returns     (B, ...) x_0, made without recording gradients
    """
    raise NotImplementedError  # your code here
''',
    first="copy broken_sampler into this cell. Read it against Algorithm 2, one line at a time.",
    mistakes=[
        *(_left(faults) for n in range(1, 6) for faults in itertools.combinations(FAULTS, n)),
        Mistake(
            "small_variance",
            "A sampler without faults, but another one: broken_sampler takes the large variance, β. Keep that "
            f"({VARIANCE}).",
            _with_faults((), "small"),
        ),
        Mistake(
            "noise_where_t_is_above_1",
            "One fault is left. z is left out where t = 1, and with strides the last step starts from a larger t: "
            f"leave it out where s = 0 ({LAST}).",
            lambda net, schedule, shape, times, generator: _loop(last_noise="t > 1")(
                net, schedule, torch.randn(shape, generator=generator), times, generator, "large"
            ),
        ),
        Mistake(
            "no_noise",
            f"Now no step adds noise. Only the last has none ({LAST}).",
            lambda net, schedule, shape, times, generator: _loop(scale=lambda variance: 0.0)(
                net, schedule, torch.randn(shape, generator=generator), times, generator
            ),
        ),
        Mistake(
            "not_clipped",
            f"The clipping is gone altogether. Clip the estimate to [-1, 1] ({CLIPPING}).",
            lambda net, schedule, shape, times, generator: _loop(low=None)(
                net, schedule, torch.randn(shape, generator=generator), times, generator, "large"
            ),
        ),
        Mistake(
            "no_generator",
            f"You draw from the global random state. Pass the generator on, as broken_sampler does ({ALGORITHM}).",
            lambda net, schedule, shape, times, generator: _loop(draws=lambda x, g, n: lambda: torch.randn(x.shape))(
                net, schedule, torch.randn(shape), times, generator, "large"
            ),
        ),
        Mistake(
            "gradients_on",
            "The faults are gone, but every step keeps the graph of all steps before, and memory grows with each. Put "
            f"`with torch.no_grad():` back around the loop ({GALLERY}).",
            lambda net, schedule, shape, times, generator: _loop(gradients=True)(
                net, schedule, torch.randn(shape, generator=generator), times, generator, "large"
            ),
        ),
    ],
)
