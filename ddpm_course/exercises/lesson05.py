"""The checks of lesson 05: from the bound to the loss, and the loop that trains."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import bound
from ..diffusion import q_sample
from ..schedules import Schedule
from . import answers05 as answers
from .cases import (
    EIGHT,
    FIVE,
    IMAGES,
    Entries,
    and_broadcasting,
    first_of_batch,
    four_axes,
    four_axes_by_einops,
    four_axes_by_index,
    normal,
    per_sample,
    raw,
    step_cases,
    step_mistakes,
    three_axes,
    two_axes,
    weighted,
)
from .records import Case, Exercise, Mistake, Rounded, Seed

KL = "lesson 05, 'The divergence of two Gaussians'"
POSTERIOR = "lesson 05, 'The posterior'"
MEANS = "lesson 05, 'From means to noise'"
WEIGHT = "lesson 05, 'The weight'"
SIMPLE = "lesson 05, 'The simple loss'"
KINDS = "lesson 05, 'L1, L2 and Huber'"
LAST = "lesson 05, 'The last step'"
ALGORITHM = "lesson 05, 'Algorithm 1'"


def _tensor(*values: float) -> Tensor:
    return torch.tensor(values, device="cpu")


# ---- 5.1


def _kl_cases() -> list[Case]:
    shape = (3, 2, 4)
    m1, m2 = normal(shape, 1), normal(shape, 2)
    v1, v2 = normal(shape, 3).exp(), normal(shape, 4).exp()
    column = _tensor(0.3, 1.0, 2.5).reshape(3, 1, 1)
    means, variances = "where the means differ", "where the variances differ"
    return [
        Case("tensors of shape (3, 2, 4)", (m1, v1, m2, v2), {means: True, variances: True}),
        Case("equal variances", (m1, v1, m2, v1), {means: True}),
        Case("equal means", (m1, v1, m1, v2), {variances: True}),
        Case("twice the same Gaussian", (m1, v1, m1, v1)),
        Case("variances of shape (3, 1, 1)", (m1, column, m2, column.flip(0)), {means: True, variances: True}),
        Case(
            "tensors of shape (3,)",
            (_tensor(0, 0, 1), _tensor(1, 4, 0.25), _tensor(0, 1, 0), _tensor(1, 1, 2)),
            {means: _tensor(0, 1, 1) > 0, variances: _tensor(0, 1, 1) > 0},
        ),
    ]


gaussian_kl = Exercise(
    "5.1",
    "gaussian_kl",
    bound.gaussian_kl,
    _kl_cases,
    stub='''
def gaussian_kl(mean1, variance1, mean2, variance2):
    """KL(N(mean1, variance1) || N(mean2, variance2)) in nats, for each element.

    mean1, variance1, mean2, variance2: tensors of one shape, or of shapes that broadcast to one
    """
    raise NotImplementedError  # your code here
''',
    first="for two equal Gaussians every term must cancel. Which three terms are in the formula, and which -1?",
    any_float=True,
    mistakes=[
        Mistake(
            "reversed",
            f"That is KL(second || first): the expectation runs over the *first* Gaussian, and the two differ ({KL}).",
            lambda m1, v1, m2, v2: bound.gaussian_kl(m2, v2, m1, v1),
        ),
        Mistake(
            "no_half",
            f"Twice too large: both exponents have a 1/2, and the whole formula keeps it ({KL}).",
            lambda m1, v1, m2, v2: (v2 / v1).log() + (v1 + (m1 - m2) ** 2) / v2 - 1,
        ),
        Mistake(
            "no_minus_one",
            f"The -1 is missing: E_1[(x - m1)²/v1] is 1. Without it two equal Gaussians are 1/2 apart, not 0 ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + (v1 + (m1 - m2) ** 2) / v2),
        ),
        Mistake(
            "logarithm_inverted",
            f"The logarithm is upside down: log v2 comes from minus log of the *second* density: log(v2/v1) ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v1 / v2).log() + (v1 + (m1 - m2) ** 2) / v2 - 1),
        ),
        Mistake(
            "no_logarithm",
            f"log(v2/v1), from the factors in front of the two densities, is missing ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v1 + (m1 - m2) ** 2) / v2 - 1),
        ),
        Mistake(
            "logarithm_not_halved",
            "The logarithm is in there twice. With standard deviations it is log(s2/s1); with variances that is half "
            f"of log(v2/v1) ({KL}).",
            lambda m1, v1, m2, v2: (v2 / v1).log() + 0.5 * ((v1 + (m1 - m2) ** 2) / v2 - 1),
        ),
        Mistake(
            "difference_not_squared",
            f"The difference of the means is squared: (m1 - m2)² ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + (v1 + (m1 - m2)) / v2 - 1),
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + (v1 + (m1 - m2).abs()) / v2 - 1),
        ),
        Mistake(
            "means_over_first_variance",
            "The squared difference of the means is divided by v1. It stands in the exponent of the *second* density, "
            f"over v2 ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + v1 / v2 + (m1 - m2) ** 2 / v1 - 1),
        ),
        Mistake(
            "means_undivided",
            f"The squared difference of the means is measured in units of the second variance: divide it by v2 ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + v1 / v2 + (m1 - m2) ** 2 - 1),
        ),
        Mistake(
            "ratio_inverted",
            f"The ratio of the variances is upside down: it is v1/v2, E_1[(x - m1)²] over v2 ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + v2 / v1 + (m1 - m2) ** 2 / v2 - 1),
        ),
        Mistake(
            "means_only",
            f"That is right only for equal variances. Theirs may differ: two more terms ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * (m1 - m2) ** 2 / v2,
        ),
        Mistake(
            "variances_only",
            f"The difference of the means, (m1 - m2)²/v2, is missing ({KL}).",
            lambda m1, v1, m2, v2: 0.5 * ((v2 / v1).log() + v1 / v2 - 1),
        ),
        Mistake(
            "taken_for_deviations",
            f"You square the variances. The arguments are variances already, not standard deviations ({KL}).",
            lambda m1, v1, m2, v2: bound.gaussian_kl(m1, v1**2, m2, v2**2),
        ),
        Mistake(
            "negative",
            f"The sign is turned around: a divergence is never negative ({KL}).",
            lambda m1, v1, m2, v2: -bound.gaussian_kl(m1, v1, m2, v2),
        ),
        Mistake(
            "bits",
            f"That is in bits. Asked is nats: the natural logarithm, no division by log 2 ({KL}).",
            lambda m1, v1, m2, v2: bound.gaussian_kl(m1, v1, m2, v2) / math.log(2),
        ),
        Mistake(
            "mean_of_all",
            f"You average over the elements. Asked is one divergence for each element ({KL}).",
            lambda m1, v1, m2, v2: bound.gaussian_kl(m1, v1, m2, v2).mean(),
        ),
        Mistake(
            "summed",
            f"You sum over the elements. Asked is one divergence for each element ({KL}).",
            lambda m1, v1, m2, v2: bound.gaussian_kl(m1, v1, m2, v2).sum(),
        ),
    ],
)


# ---- 5.2


def _entries(schedule: Schedule, t: Tensor | int, x: Tensor, column: Callable) -> Entries:
    tables = (schedule.beta, schedule.alpha, schedule.alpha_bar, torch.arange(schedule.T + 1), schedule.beta.cumprod(0))
    return Entries(*(column(table[t], x) for table in tables))


def _mean_and_variance(args: tuple, value: Any) -> Any:
    """Both by name, the variance in the shape and type of the mean: (B, 1, ..., 1), () or (B, ...) are all right."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return value
    mean, variance = value
    if not isinstance(variance, Tensor | float | int):
        return value
    if isinstance(mean, Tensor):
        variance = torch.as_tensor(variance, device=mean.device).to(mean.dtype)
        fits = variance.ndim <= mean.ndim and all(
            a in (1, b) for a, b in zip(variance.shape[::-1], mean.shape[::-1], strict=False)
        )
        variance = variance.expand_as(mean) if fits else variance
    return {"mean": mean, "variance": variance}


def _posterior_cases() -> list[Case]:
    """`step_cases`, with x_0 and x_t in the places of x and the noise."""
    cases = []
    for case in step_cases(first=1):
        schedule, x0, t, xt = case.args
        cases.append(replace(case, args=(schedule, x0, xt, t), result=_mean_and_variance))
    return cases


def _gaussian(
    weights: Callable[[Entries, Entries], tuple[Any, Any, Any]],
    *,
    shift: int = 0,
    column: Callable[[Tensor, Tensor], Tensor] = per_sample,
    pick: Callable[[Any], Any] = lambda t: t,
) -> Callable:
    """A function of (schedule, x0, xt, t) that returns (a x0 + b xt, variance); weights: entries of t and of t - 1."""

    def function(schedule: Schedule, x0: Tensor, xt: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        t = pick(t) + shift
        a, b, variance = weights(_entries(schedule, t, x0, column), _entries(schedule, t - 1, x0, column))
        return a * x0 + b * xt, variance

    function.broadcast_by = lambda other: _gaussian(weights, shift=shift, column=other, pick=pick)
    return function


def _on_x0(e: Entries, p: Entries) -> Tensor:
    return p.alpha_bar.sqrt() * e.beta / (1 - e.alpha_bar)


def _on_xt(e: Entries, p: Entries) -> Tensor:
    return e.alpha.sqrt() * (1 - p.alpha_bar) / (1 - e.alpha_bar)


def _tilde(e: Entries, p: Entries) -> Tensor:
    return e.beta * (1 - p.alpha_bar) / (1 - e.alpha_bar)


def _mean_by(on_x0: Callable, on_xt: Callable = _on_xt) -> Callable:
    return _gaussian(lambda e, p: (on_x0(e, p), on_xt(e, p), _tilde(e, p)))


def _variance_by(variance: Callable) -> Callable:
    return _gaussian(lambda e, p: (_on_x0(e, p), _on_xt(e, p), variance(e, p)))


def _right(e: Entries, p: Entries) -> tuple[Tensor, Tensor, Tensor]:
    return _on_x0(e, p), _on_xt(e, p), _tilde(e, p)


def _flat_variance(schedule: Schedule, x0: Tensor, xt: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = answers.posterior(schedule, x0, xt, t)
    return mean, variance.reshape(-1 if isinstance(t, Tensor) else ())


posterior = Exercise(
    "5.2",
    "posterior",
    answers.posterior,
    _posterior_cases,
    stub='''
def posterior(schedule, x0, xt, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0).

    schedule:  has the tables beta, alpha and alpha_bar, (T+1,) each, in float64
    x0, xt:    (B, ...) clean data, and the same data at noise level t, in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    returns    mean (B, ...) in float32, on the device of x0; variance (B, 1, ..., 1), or
               any shape that broadcasts to the mean
    """
    raise NotImplementedError  # your code here
''',
    first="read ᾱ_{t-1}, ᾱ_t, α_t and β_t from the tables, then write eq. 7. At t = 1 the mean must be x_0 itself.",
    mistakes=and_broadcasting(
        [
            Mistake(
                "root_over_beta",
                "You draw the root over β_t too. It covers ᾱ_{t-1} alone: √ᾱ_{t-1} β_t. (A widely copied version "
                f"prints it your way.) ({POSTERIOR})",
                _mean_by(lambda e, p: (p.alpha_bar * e.beta).sqrt() / (1 - e.alpha_bar)),
            ),
            Mistake(
                "alpha_bar_t_on_x0",
                f"The factor of x_0 holds √ᾱ_(t-1): what one step less leaves of x_0. You have ᾱ_t ({POSTERIOR}).",
                _mean_by(lambda e, p: e.alpha_bar.sqrt() * e.beta / (1 - e.alpha_bar)),
            ),
            Mistake(
                "alpha_bar_t_on_xt",
                "The factor of x_t holds 1 - ᾱ_(t-1). With 1 - ᾱ_t it cancels against the denominator, and x_t alone "
                f"would decide ({POSTERIOR}).",
                _mean_by(_on_x0, lambda e, p: e.alpha.sqrt()),
            ),
            Mistake(
                "alpha_bar_for_previous",
                "You read ᾱ_t where ᾱ_(t-1) belongs: what was left one step earlier. At t = 1 the mean must be x_0, "
                f"and yours is not ({POSTERIOR}).",
                _mean_by(lambda e, p: e.alpha_bar.sqrt() * e.beta / (1 - e.alpha_bar), lambda e, p: e.alpha.sqrt()),
                _gaussian(
                    lambda e, p: (e.alpha_bar.sqrt() * e.beta / (1 - e.alpha_bar), e.alpha.sqrt(), e.beta + 0 * p.beta)
                ),
            ),
            Mistake(
                "variance_flat",
                "The mean is right. Your variance has shape (B,), which lines up with the columns of the images: "
                "reshape it to (B, 1, ..., 1) (lesson 02, 'Broadcasting').",
                _flat_variance,
            ),
            Mistake(
                "swapped",
                "The two factors are swapped. At t = 1 the mean is x_0, so the factor with 1 - ᾱ_(t-1), which is 0 "
                f"there, belongs to x_t ({POSTERIOR}).",
                _mean_by(_on_xt, _on_x0),
            ),
            Mistake(
                "alpha_bar_for_alpha",
                f"The factor of x_t holds √α_t: x_t is one step away, not t. You have √ᾱ_t ({POSTERIOR}).",
                _mean_by(_on_x0, lambda e, p: e.alpha_bar.sqrt() * (1 - p.alpha_bar) / (1 - e.alpha_bar)),
            ),
            Mistake(
                "no_roots",
                f"The factors hold the *roots* √ᾱ_(t-1) and √α_t ({POSTERIOR}).",
                _mean_by(
                    lambda e, p: p.alpha_bar * e.beta / (1 - e.alpha_bar),
                    lambda e, p: e.alpha * (1 - p.alpha_bar) / (1 - e.alpha_bar),
                ),
            ),
            Mistake(
                "x0_not_rooted",
                f"The factor of x_0 holds the *root* √ᾱ_(t-1) ({POSTERIOR}).",
                _mean_by(lambda e, p: p.alpha_bar * e.beta / (1 - e.alpha_bar)),
            ),
            Mistake(
                "xt_not_rooted",
                f"The factor of x_t holds the *root* √α_t ({POSTERIOR}).",
                _mean_by(_on_x0, lambda e, p: e.alpha * (1 - p.alpha_bar) / (1 - e.alpha_bar)),
            ),
            Mistake(
                "previous_alpha",
                f"The factor of x_t holds √α_t, of the step to x_t. You have α_(t-1) ({POSTERIOR}).",
                _mean_by(_on_x0, lambda e, p: p.alpha.sqrt() * (1 - p.alpha_bar) / (1 - e.alpha_bar)),
            ),
            Mistake(
                "not_normalised",
                f"Both factors are divided by 1 - ᾱ_t: the mean is a balance of the two ({POSTERIOR}).",
                _mean_by(lambda e, p: p.alpha_bar.sqrt() * e.beta, lambda e, p: e.alpha.sqrt() * (1 - p.alpha_bar)),
            ),
            Mistake(
                "only_one_divided",
                "The division by 1 - ᾱ_t is for both terms of the mean: put them in parentheses, or divide each "
                f"({POSTERIOR}).",
                _mean_by(lambda e, p: p.alpha_bar.sqrt() * e.beta),
                _mean_by(_on_x0, lambda e, p: e.alpha.sqrt() * (1 - p.alpha_bar)),
            ),
            Mistake(
                "divided_by_previous",
                f"You divide by 1 - ᾱ_(t-1). The denominator is 1 - ᾱ_t, and at t = 1 yours is 0 ({POSTERIOR}).",
                _gaussian(
                    lambda e, p: (
                        p.alpha_bar.sqrt() * e.beta / (1 - p.alpha_bar),
                        e.alpha.sqrt() * (1 - p.alpha_bar) / (1 - p.alpha_bar),
                        _tilde(e, p),
                    )
                ),
            ),
            Mistake(
                "variance_beta",
                "The mean is right. β_t is that of the step forward. The variance of the posterior is "
                f"smaller, because x_0 is known: times (1 - ᾱ_(t-1))/(1 - ᾱ_t) ({POSTERIOR}).",
                _variance_by(lambda e, p: e.beta),
            ),
            Mistake(
                "variance_inverted",
                "The mean is right. The ratio in the variance is upside down: (1 - ᾱ_(t-1))/(1 - ᾱ_t), below 1 "
                f"({POSTERIOR}).",
                _variance_by(lambda e, p: e.beta * (1 - e.alpha_bar) / (1 - p.alpha_bar)),
            ),
            Mistake(
                "deviation",
                f"The mean is right. You return a standard deviation; asked is the variance, its square ({POSTERIOR}).",
                _variance_by(lambda e, p: _tilde(e, p).sqrt()),
            ),
            Mistake(
                "log_variance",
                "The mean is right. You return the logarithm of the variance, which is -∞ at t = 1; asked is the "
                f"variance itself ({POSTERIOR}).",
                _variance_by(lambda e, p: _tilde(e, p).log()),
            ),
            Mistake(
                "variance_unbars",
                f"The mean is right. The ratio in the variance has ᾱ in both places, not α ({POSTERIOR}).",
                _variance_by(lambda e, p: e.beta * (1 - p.alpha) / (1 - e.alpha)),
            ),
            Mistake(
                "variance_ratio_alone",
                f"The mean is right. The ratio in the variance is multiplied by β_t ({POSTERIOR}).",
                _variance_by(lambda e, p: (1 - p.alpha_bar) / (1 - e.alpha_bar)),
            ),
            Mistake(
                "variance_no_ratio",
                "The mean is right. 1 - ᾱ_t is the variance of x_t around √ᾱ_t x_0, after t steps; asked is that of "
                f"x_(t-1), with x_t known too ({POSTERIOR}).",
                _variance_by(lambda e, p: 1 - e.alpha_bar),
                _variance_by(lambda e, p: 1 - p.alpha_bar),
            ),
            Mistake(
                "previous_entry",
                "You read every table one entry too early. Entry t belongs to step t, because entry 0 stands for clean "
                "data (lesson 02, 'Counting from 1').",
                _gaussian(_right, shift=-1),
            ),
            Mistake(
                "broadcast_width",
                "The factors run along the width of the images, one a column, not one an image: reshape them to "
                "(B, 1, ..., 1) (lesson 02, 'Broadcasting').",
                _gaussian(_right, column=raw),
            ),
            Mistake(
                "broadcast_rows",
                "The factors run along the height of the images, one a row, not one an image: reshape them to "
                "(B, 1, ..., 1) (lesson 02, 'Broadcasting').",
                _gaussian(_right, column=two_axes),
            ),
            Mistake(
                "broadcast_channels",
                "The factors run over the channels, one a channel, not one an image: reshape them to (B, 1, ..., 1) "
                "(lesson 02, 'Broadcasting').",
                _gaussian(_right, column=three_axes),
            ),
            Mistake(
                "images_only",
                "Right for images. Other data has fewer axes: reshape the factors to as many axes as `x0` has, and let "
                "an int t through (lesson 02, 'Broadcasting').",
                _gaussian(_right, column=four_axes),
                _gaussian(_right, column=four_axes_by_index),
                _gaussian(_right, column=four_axes_by_einops),
            ),
            Mistake(
                "one_t_for_all",
                "You use the first t of the batch for every image. Each has its own (lesson 02, 'Broadcasting').",
                _gaussian(_right, pick=first_of_batch),
            ),
        ]
    ),
)


# ---- 5.3


def _noise_weight(e: Entries) -> Tensor:
    return e.beta / (1 - e.alpha_bar).sqrt()


def _from_noise(e: Entries) -> tuple[Tensor, Tensor]:
    return 1 / e.alpha.sqrt(), -_noise_weight(e) / e.alpha.sqrt()


mean_from_noise = Exercise(
    "5.3",
    "mean_from_noise",
    answers.mean_from_noise,
    lambda: step_cases(first=1),
    stub='''
def mean_from_noise(schedule, xt, t, noise):
    """The mean of q(x_{t-1} | x_t, x_0), from x_t and the noise in it.

    schedule:  has the tables beta, alpha and alpha_bar, (T+1,) each, in float64
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the noise in xt, or a guess at it; same shape
    returns    (B, ...) in float32, on the device of xt
    """
    raise NotImplementedError  # your code here
''',
    first="take β_t/√(1 - ᾱ_t) ε from x_t, then undo one step's shrinking.",
    linear=("xt", "noise"),
    mistakes=and_broadcasting(
        [
            Mistake(
                "denominator_not_rooted",
                "You subtract β_t/(1 - ᾱ_t) ε. There is a root under the fraction: β_t/√(1 - ᾱ_t), because the noise "
                f"comes in with √(1 - ᾱ_t) ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -e.beta / (1 - e.alpha_bar) / e.alpha.sqrt())),
            ),
            Mistake(
                "numerator_rooted",
                f"You subtract √β_t/√(1 - ᾱ_t) ε. β_t has no root: it comes from eq. 7, where it has none ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -(e.beta / (1 - e.alpha_bar)).sqrt() / e.alpha.sqrt())),
            ),
            Mistake(
                "no_division",
                f"Divide by √α_t at the end: the step back undoes the shrinking of one step ({MEANS}).",
                weighted(lambda e: (1, -_noise_weight(e))),
            ),
            Mistake(
                "alpha_bar_for_alpha",
                f"You divide by √ᾱ_t, the shrinking of t steps. The mean is one step back: √α_t ({MEANS}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), -_noise_weight(e) / e.alpha_bar.sqrt())),
            ),
            Mistake(
                "division_not_rooted",
                f"You divide by α_t. One step shrinks by √α_t ({MEANS}).",
                weighted(lambda e: (1 / e.alpha, -_noise_weight(e) / e.alpha)),
            ),
            Mistake(
                "multiplied",
                f"The step forward multiplies by √α_t. Going back, divide by it ({MEANS}).",
                weighted(lambda e: (e.alpha.sqrt(), -_noise_weight(e) * e.alpha.sqrt())),
            ),
            Mistake(
                "noise_added",
                f"You add the noise once more. The step back takes some of it away ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), _noise_weight(e) / e.alpha.sqrt())),
            ),
            Mistake(
                "only_noise_divided",
                f"Division binds tighter than the minus: put parentheses around the difference ({MEANS}).",
                weighted(lambda e: (1, -_noise_weight(e) / e.alpha.sqrt())),
            ),
            Mistake(
                "only_xt_divided",
                f"The division by √α_t is for both terms. You subtract the noise after it ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -_noise_weight(e))),
            ),
            Mistake(
                "all_noise_removed",
                f"That removes *all* noise and estimates x_0. Asked is one step back, with β_t/√(1 - ᾱ_t) ({MEANS}).",
                weighted(lambda e: (1 / e.alpha_bar.sqrt(), -((1 - e.alpha_bar) / e.alpha_bar).sqrt())),
            ),
            Mistake(
                "all_noise_removed_one_step",
                "You subtract √(1 - ᾱ_t) ε, all the noise there is. One step back takes only β_t/√(1 - ᾱ_t) of it "
                f"({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -((1 - e.alpha_bar) / e.alpha).sqrt())),
            ),
            Mistake(
                "one_steps_noise",
                "You subtract √β_t ε, as if ε were the noise of the last step. It is the noise of all t steps together "
                f"({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -(e.beta / e.alpha).sqrt())),
            ),
            Mistake(
                "beta_alone",
                f"You subtract β_t ε. The factor is β_t/√(1 - ᾱ_t) ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -e.beta / e.alpha.sqrt())),
            ),
            Mistake(
                "one_minus_root",
                f"1 - √ᾱ_t is not √(1 - ᾱ_t): take the root last ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -e.beta / (1 - e.alpha_bar.sqrt()) / e.alpha.sqrt())),
            ),
            Mistake(
                "noise_unscaled",
                f"You subtract ε at full size. One step back takes β_t/√(1 - ᾱ_t) of it ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), -1 / e.alpha.sqrt())),
            ),
            Mistake(
                "noise_forgotten",
                f"The noise is missing: β_t/√(1 - ᾱ_t) ε is subtracted before the division ({MEANS}).",
                weighted(lambda e: (1 / e.alpha.sqrt(), 0)),
            ),
            *step_mistakes(_from_noise, "xt", MEANS),
        ]
    ),
)


# ---- 5.4


def _weight_cases() -> list[Case]:
    plan = [
        (EIGHT, (4,)),
        (EIGHT, (2, "small")),
        (EIGHT, ((2, 5, 8, 3), "small")),
        (EIGHT, ((7, 2),)),
        (EIGHT, (6, "large")),
        (EIGHT, (1, "large")),
        (EIGHT, ((1, 8, 4), "large")),
        (FIVE, (5, "small")),
        (FIVE, ((1, 2, 3, 4, 5), "large")),
    ]
    cases = []
    for betas, (t, *variance) in plan:
        many = not isinstance(t, int)
        value = torch.tensor(t, device="cpu") if many else t
        large = variance == ["large"]
        facts = {
            'for variance="large"': large,
            'for variance="small"': not large,
            "where no variance is named": not variance,
            "for an int t": not many,
            "for t of shape (B,)": many,
            "where t = 1": torch.as_tensor(t, device="cpu") == 1,
            "for a schedule with another T": betas is FIVE,
        }
        label = f"t = {list(t) if many else t}, {variance[0] if variance else 'no variance named'}"
        cases.append(Case(label, (betas, value, *variance), facts, result=_as_number))
    return cases


def _as_number(args: tuple, value: Any) -> Any:
    """Floats and tensors alike: a weight is a number."""
    return torch.as_tensor(value, dtype=torch.float64) if isinstance(value, Tensor | int | float) else value


def _weight(formula: Callable[[Entries, Entries, Tensor], Tensor], *, shift: int = 0, chooses=lambda kind: kind):
    """A weight made from the entries of t and t - 1 and from the variance σ²."""

    def function(schedule: Schedule, t: Tensor | int, variance: str = "small") -> Tensor:
        e, p = (_entries(schedule, t + shift - back, None, lambda values, _: values) for back in (0, 1))
        return formula(e, p, e.beta if chooses(variance) == "large" else _tilde(e, p))

    return function


def _right_weight(e: Entries, p: Entries, variance: Tensor) -> Tensor:
    return e.beta**2 / (2 * variance * e.alpha * (1 - e.alpha_bar))


loss_weight = Exercise(
    "5.4",
    "loss_weight",
    answers.loss_weight,
    _weight_cases,
    stub='''
def loss_weight(schedule, t, variance="small"):
    """The weight on the squared error of the noise in L_{t-1}.

    schedule:  has the tables beta, alpha and alpha_bar, (T+1,) each, in float64
    t:         (B,) integers, or one int: 1...T for "large", 2...T for "small"
    variance:  "small" is the variance of the posterior, "large" is beta_t
    returns    (B,), or one number for an int
    """
    raise NotImplementedError  # your code here
''',
    first="which σ² does each name stand for? Compute that, then put it into eq. 12.",
    any_float=True,
    mistakes=[
        Mistake(
            "no_alpha",
            f"α_t is missing under the fraction: the 1/√α_t in front of eq. 11 is squared with the rest ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * (1 - e.alpha_bar))),
        ),
        Mistake(
            "variance_squared",
            "You have σ⁴ for σ². The divergence divides the squared distance by the variance once. (It stands in print "
            f"as 1/(2β²) on the distance of the means.) ({WEIGHT})",
            _weight(lambda e, p, v: e.beta**2 / (2 * v**2 * e.alpha * (1 - e.alpha_bar))),
        ),
        Mistake(
            "deviation",
            f"You divide by σ, a standard deviation. It is the variance σ² ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v.sqrt() * e.alpha * (1 - e.alpha_bar))),
        ),
        Mistake(
            "weight_of_means",
            "1/(2σ²) is the weight on the squared distance of the *means*. A distance of the means is only "
            f"β_t/√(α_t(1 - ᾱ_t)) times the one of the noises, and that factor is squared ({WEIGHT}).",
            _weight(lambda e, p, v: 1 / (2 * v)),
        ),
        Mistake(
            "beta_not_squared",
            f"β_t is squared: the distance of the means is β_t/√(...) times that of the noises ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta / (2 * v * e.alpha * (1 - e.alpha_bar))),
        ),
        Mistake(
            "no_half",
            f"Twice too large: the 1/2 of the divergence is missing ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (v * e.alpha * (1 - e.alpha_bar))),
        ),
        Mistake(
            "no_one_minus_alpha_bar",
            f"1 - ᾱ_t is missing under the fraction ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * e.alpha)),
        ),
        Mistake(
            "alpha_bar_for_alpha",
            f"You have ᾱ_t in the place of α_t. One step's factor stands in front of eq. 11 ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * e.alpha_bar * (1 - e.alpha_bar))),
        ),
        Mistake(
            "alpha_for_alpha_bar",
            f"1 - ᾱ_t, not 1 - α_t: the noise in x_t is that of all t steps ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * e.alpha * (1 - e.alpha))),
        ),
        Mistake(
            "root_left",
            f"√(1 - ᾱ_t) is squared with the rest and loses its root ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * e.alpha * (1 - e.alpha_bar).sqrt())),
        ),
        Mistake(
            "alpha_rooted",
            f"√α_t is squared with the rest and loses its root ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * e.alpha.sqrt() * (1 - e.alpha_bar))),
        ),
        Mistake(
            "previous_alpha_bar",
            f"1 - ᾱ_t, not 1 - ᾱ_(t-1): the network sees x_t ({WEIGHT}).",
            _weight(lambda e, p, v: e.beta**2 / (2 * v * e.alpha * (1 - p.alpha_bar))),
        ),
        Mistake(
            "inverted",
            f"Upside down: β_t² is above the fraction, σ² below ({WEIGHT}).",
            _weight(lambda e, p, v: 1 / _right_weight(e, p, v)),
        ),
        Mistake(
            "always_large",
            f'For "small" σ² is the variance of the posterior, β_t (1 - ᾱ_(t-1))/(1 - ᾱ_t). You use β_t ({WEIGHT}).',
            _weight(_right_weight, chooses=lambda kind: "large"),
        ),
        Mistake(
            "always_small",
            f'For "large" σ² is β_t. You use the variance of the posterior for both ({WEIGHT}).',
            _weight(_right_weight, chooses=lambda kind: "small"),
        ),
        Mistake(
            "kinds_swapped",
            f'The two variances are swapped: "small" is the posterior\'s, "large" is β_t ({WEIGHT}).',
            _weight(_right_weight, chooses=lambda kind: {"small": "large", "large": "small"}[kind]),
        ),
        Mistake(
            "variance_inverted",
            f"The ratio in the small variance is upside down: (1 - ᾱ_(t-1))/(1 - ᾱ_t), below 1 ({WEIGHT}).",
            _weight(
                lambda e, p, v: _right_weight(
                    e, p, torch.where(v == e.beta, v, e.beta * (1 - e.alpha_bar) / (1 - p.alpha_bar))
                )
            ),
        ),
        Mistake(
            "simple",
            f"1 is the weight that L_simple puts in its place. Asked is the one the bound has ({WEIGHT}).",
            _weight(lambda e, p, v: torch.ones_like(v)),
        ),
        Mistake(
            "previous_entry",
            "You read every table one entry too early. Entry t belongs to step t, because entry 0 stands for clean "
            f"data ({WEIGHT}).",
            _weight(_right_weight, shift=-1),
        ),
    ],
)


# ---- 5.5


def _loss_cases() -> list[Case]:
    shapes = [IMAGES, (5, 1, 3, 3), (6, 2), (8,)]
    plan = [(IMAGES, None), *((shape, kind) for kind in ("l2", "l1", "huber") for shape in shapes)]
    cases = []
    for seed, (shape, kind) in enumerate(plan):
        facts = {f'for kind="{name}"': kind == name for name in ("l1", "huber")}
        facts |= {'for kind="l2"': kind in (None, "l2"), "where no kind is named": kind is None}
        facts |= {"for l1 and huber": kind in ("l1", "huber"), "for images": len(shape) == 4}
        noise, predicted = normal(shape, 50 + 2 * seed), normal(shape, 51 + 2 * seed)
        label = f"shape {shape}, {f'kind {kind}' if kind else 'no kind named'}"
        cases.append(Case(label, (noise, predicted, *([kind] if kind else [])), facts))
    return cases


DISTANCES = {
    "l2": lambda d: d**2,
    "l1": lambda d: d.abs(),
    "huber": lambda d: torch.where(d.abs() < 1, 0.5 * d**2, d.abs() - 0.5),
}


def _distance(reduce: Callable = torch.mean, **others: Callable) -> Callable:
    """A loss with other distances, or with something else in the place of the mean."""
    distances = {**DISTANCES, **others}
    return lambda noise, predicted, kind="l2": reduce(distances[kind](predicted - noise))


simple_loss = Exercise(
    "5.5",
    "simple_loss",
    answers.simple_loss,
    _loss_cases,
    stub='''
def simple_loss(noise, predicted, kind="l2"):
    """How far the predicted noise is from the true one: the mean over all elements.

    noise, predicted: (B, ...) tensors
    kind:     "l2":    d²
              "l1":    |d|
              "huber": d²/2 where |d| < 1, |d| - 1/2 elsewhere
    returns   one number, a tensor of shape ()
    """
    raise NotImplementedError  # your code here
''',
    first="d = predicted - noise. Write the l2 case, then the other two, and take the mean over everything.",
    mistakes=[
        Mistake(
            "summed",
            "You sum. Take the mean: otherwise loss and gradient grow with the size of the image and of the batch "
            f"({SIMPLE}).",
            _distance(torch.sum),
        ),
        Mistake(
            "summed_over_pixels",
            f"You average over the batch and sum over the pixels. Take the mean over everything ({SIMPLE}).",
            _distance(lambda d: d.sum() / len(d)),
        ),
        Mistake(
            "per_image",
            f"You return one loss an image. Take the mean over the batch too ({SIMPLE}).",
            _distance(lambda d: d.flatten(1).mean(1) if d.ndim > 1 else d),
        ),
        Mistake(
            "unreduced", f"Take the mean over everything: a loss is one number ({SIMPLE}).", _distance(lambda d: d)
        ),
        Mistake(
            "rooted",
            f"The root of the mean square has other gradients. L_simple has no root ({SIMPLE}).",
            _distance(l2=lambda d: torch.full_like(d, (d**2).mean().sqrt().item())),
        ),
        Mistake(
            "halved",
            f"Your l2 is halved. L_simple is the plain mean of squares ({SIMPLE}).",
            _distance(l2=lambda d: 0.5 * d**2),
        ),
        Mistake(
            "signed",
            f"The l1 distance is the absolute value |d|. Without it positive and negative errors cancel ({KINDS}).",
            _distance(l1=lambda d: d),
            _distance(l1=lambda d: -d),
        ),
        Mistake(
            "swapped",
            f"l1 and l2 are swapped: l2 is the square ({KINDS}).",
            _distance(l1=DISTANCES["l2"], l2=DISTANCES["l1"]),
        ),
        Mistake(
            "always_l2",
            f"You compute the l2 distance whatever `kind` says ({KINDS}).",
            lambda noise, predicted, kind="l2": F.mse_loss(predicted, noise),
        ),
        Mistake(
            "huber_not_halved",
            f"Huber's inner part is d²/2. Without the 1/2 it jumps at |d| = 1 ({KINDS}).",
            _distance(huber=lambda d: torch.where(d.abs() < 1, d**2, d.abs() - 0.5)),
        ),
        Mistake(
            "huber_continuous_squares",
            f"Huber's inner part is d²/2, so that its *slope* is continuous at |d| = 1 too ({KINDS}).",
            _distance(huber=lambda d: torch.where(d.abs() < 1, d**2, d.abs())),
        ),
        Mistake(
            "huber_not_lowered",
            f"Huber's outer part is |d| - 1/2. Without the 1/2 it jumps at |d| = 1 ({KINDS}).",
            _distance(huber=lambda d: torch.where(d.abs() < 1, 0.5 * d**2, d.abs())),
        ),
        Mistake(
            "huber_inside_out",
            f"Huber's two parts are swapped: the square is for *small* errors, so that outliers count less ({KINDS}).",
            _distance(huber=lambda d: torch.where(d.abs() > 1, 0.5 * d**2, d.abs() - 0.5)),
        ),
        Mistake(
            "huber_signed",
            f"Huber looks at |d|: for large negative errors your comparison picks the wrong part ({KINDS}).",
            _distance(huber=lambda d: torch.where(d < 1, 0.5 * d**2, d - 0.5)),
            _distance(huber=lambda d: torch.where(d > -1, 0.5 * d**2, d.abs() - 0.5)),  # d turned around
        ),
        Mistake(
            "huber_from_the_mean",
            f"Huber decides for each element, not for the mean error ({KINDS}).",
            lambda noise, predicted, kind="l2": (
                _distance()(noise, predicted, kind)
                if kind != "huber"
                else DISTANCES["huber"]((predicted - noise).abs().mean())
            ),
        ),
        Mistake(
            "relative",
            f"You divide by the noise. L_simple measures the plain difference ({SIMPLE}).",
            lambda noise, predicted, kind="l2": DISTANCES[kind]((predicted - noise) / noise).mean(),
        ),
    ],
)


# ---- 5.6


def _levels(shape: tuple[int, ...], seed: int) -> Tensor:
    """Image values: 256 levels from -1 to 1, both ends among them."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    level = torch.randint(0, 256, shape, generator=generator, device="cpu")
    level.flatten()[:4] = torch.tensor([0, 255, 1, 128])
    return level / 127.5 - 1


def _pixel_cases() -> list[Case]:
    plan = [(IMAGES, 0.05), (IMAGES, 0.15), ((3, 1, 4, 4), (0.02, 0.05, 0.2)), ((12,), 0.2), ((4, 3), 0.1)]
    cases = []
    for seed, (shape, std) in enumerate(plan):
        x0 = _levels(shape, seed)
        many = not isinstance(std, float)
        value = _tensor(*std).reshape(-1, *[1] * (len(shape) - 1)) if many else std
        mean = x0 + value * normal(shape, 30 + seed).clamp(-2, 2)  # no bin so unlikely that float32 loses its digits
        black, white = x0 == -1, x0 == 1
        facts = {
            "where x_0 = -1": black,
            "where x_0 = 1": white,
            "where x_0 is -1 or 1": black | white,
            "where x_0 is neither -1 nor 1": ~(black | white),
            "for std of shape (B, 1, 1, 1)": many,
        }
        label = f"x_0 of shape {shape}, std = {'of shape (3, 1, 1, 1)' if many else std}"
        cases.append(Case(label, (x0, mean, value), facts))
    return cases


def _cdf(z: Tensor) -> Tensor:
    return torch.special.ndtr(z)


ROUNDING = 2.0**-21  # by so much at the most is an edge or a probability off in float32, whatever the processor


def _bins(
    *,
    half: float = 1 / 255,
    scale: Callable = lambda std: std,
    cdf: Callable = _cdf,
    ends: str = "open",
    log: Callable = torch.log,
    centre: Callable = lambda mean: mean,
    rounding: float = 0.0,
) -> Callable:
    """The log-probability of a bin with another half width, spread, distribution function, end or centre.

    rounding: how much wider and more probable the bin comes out, less than 0 for narrower; NaN if nothing is left
    """

    def function(x0: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
        s, x0, mean = scale(torch.as_tensor(std).double()), x0.double(), centre(mean.double())
        reach = half + rounding
        above, below = cdf((x0 + reach - mean) / s), cdf((x0 - reach - mean) / s)
        if ends != "closed":
            first, last = (x0 == -1, x0 == 1) if ends == "open" else (x0 == 1, x0 == -1)
            above, below = torch.where(last, 1.0, above), torch.where(first, 0.0, below)
        return log(above - below + rounding)

    return function


def _rounded(**change: Any) -> Rounded:
    """A mistake in the probability of a bin, which in float32 has no digits far out in the tails."""
    return Rounded(*(_bins(**change, rounding=rounding) for rounding in (0.0, ROUNDING, -ROUNDING)))


def _density(width: float) -> Callable:
    def function(x0: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
        s = torch.as_tensor(std)
        return -0.5 * ((x0 - mean) / s) ** 2 - (s * math.sqrt(2 * math.pi)).log() + math.log(width)

    return function


discretised_log_likelihood = Exercise(
    "5.6",
    "discretised_log_likelihood",
    answers.discretised_log_likelihood,
    _pixel_cases,
    stub='''
def discretised_log_likelihood(x0, mean, std):
    """The log-probability of each pixel's bin under a Gaussian.

    The bin of x is [x - 1/255, x + 1/255]. That of -1 is open below, that of 1 is open above.

    x0:       (B, ...) image values, levels k / 127.5 - 1 for k = 0...255
    mean:     (B, ...) where the Gaussian is centred
    std:      its standard deviation: a number, or a tensor that broadcasts to x0
    returns   (B, ...) in nats
    """
    raise NotImplementedError  # your code here
''',
    first="torch.special.ndtr(z) is the probability below z standard deviations. What is that of an interval?",
    tolerance=2e-5,
    any_float=True,
    mistakes=[
        Mistake(
            "density",
            f"That is the log-*density* at the pixel. Asked is the probability of its bin, 2/255 wide ({LAST}).",
            _density(1.0),
        ),
        Mistake(
            "density_times_width",
            "Density times width is close in the middle, but the bins of -1 and 1 reach to infinity and a narrow "
            f"Gaussian bends within a bin: take the difference of two values of ndtr ({LAST}).",
            _density(2 / 255),
        ),
        Mistake(
            "closed_ends",
            "The outermost bins must be open, at -1 below and at 1 above. Otherwise the 256 probabilities do not sum "
            f"to one ({LAST}).",
            _rounded(ends="closed"),
        ),
        Mistake(
            "ends_swapped",
            f"The open ends are on the wrong sides: the bin of -1 is open *below*, that of 1 *above* ({LAST}).",
            _rounded(ends="swapped"),
        ),
        Mistake(
            "bin_twice_as_wide",
            f"Your bins reach 2/255 to each side and overlap. The *whole* bin is 2/255 wide: half of that each side "
            f"({LAST}).",
            _rounded(half=2 / 255),
        ),
        Mistake(
            "bin_half_as_wide",
            "Your bins are half as wide as the distance of two levels, as for data in [0, 1]. In [-1, 1] the levels "
            f"are 2/255 apart ({LAST}).",
            _rounded(half=1 / 510),
        ),
        Mistake(
            "bytes",
            f"Your bins are one level wide on the scale 0...255. Here x_0 is in [-1, 1]: 1/255 each side ({LAST}).",
            _rounded(half=0.5),
        ),
        Mistake(
            "std_squared",
            f"You divide by std². A distance is measured in standard deviations: divide by std ({LAST}).",
            _rounded(scale=lambda s: s**2),
        ),
        Mistake(
            "std_rooted",
            f"You take the root of std, which is no variance: divide by std itself ({LAST}).",
            _rounded(scale=lambda s: s.sqrt()),
        ),
        Mistake(
            "std_forgotten",
            f"The distances are in units of `std`: divide by it before ndtr ({LAST}).",
            _rounded(scale=torch.ones_like),
        ),
        Mistake(
            "erf_without_root_two",
            f"erf counts in units of √2 standard deviations: ½(1 + erf(z/√2)) ({LAST}).",
            _rounded(cdf=lambda z: 0.5 * (1 + torch.erf(z))),
        ),
        Mistake(
            "tanh",
            "The tanh formula is a rough stand-in for the Gaussian's distribution function, from when no library had "
            f"it. torch.special.ndtr is exact ({LAST}).",
            _rounded(cdf=lambda z: 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))),
        ),
        Mistake(
            "no_logarithm",
            f"That is the probability. Asked is its logarithm ({LAST}).",
            _rounded(log=lambda p: p),
        ),
        Mistake("bits", f"That is in bits. Asked is nats, the natural logarithm ({LAST}).", _rounded(log=torch.log2)),
        Mistake(
            "negative",
            f"The sign is turned around: the logarithm of a probability is never positive ({LAST}).",
            _rounded(log=lambda p: -p.log()),
        ),
        Mistake(
            "not_centred",
            f"The Gaussian is centred on `mean`: measure the edges of the bin from there ({LAST}).",
            _rounded(centre=torch.zeros_like),
        ),
        Mistake(
            "summed",
            f"You sum over the pixels. Asked is one log-probability for each ({LAST}).",
            lambda x0, mean, std: _bins()(x0, mean, std).sum(),
            lambda x0, mean, std: _bins()(x0, mean, std).flatten(1).sum(1) if x0.ndim > 1 else _bins()(x0, mean, std),
        ),
        Mistake(
            "averaged",
            f"You average over the pixels. Asked is one log-probability for each ({LAST}).",
            lambda x0, mean, std: _bins()(x0, mean, std).mean(),
        ),
        Mistake(
            "one_sided",
            f"That is the probability of everything below the bin's upper edge. Subtract what lies below its lower one "
            f"({LAST}).",
            lambda x0, mean, std: torch.where(
                x0 == 1, 0.0, torch.special.log_ndtr((x0.double() + 1 / 255 - mean) / torch.as_tensor(std))
            ),
            lambda x0, mean, std: torch.special.log_ndtr((x0.double() + 1 / 255 - mean) / torch.as_tensor(std)),
        ),
    ],
)


# ---- 5.7


class Tiny(nn.Module):
    """A network of four weights for data of any shape. In evaluation mode it answers differently, as dropout would."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.4, -0.3, 0.2, 0.1], device="cpu"))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) to match x's batch of {len(x)}, got {tuple(t.shape)}")
        late = (t.float() / 5).reshape(-1, *[1] * (x.ndim - 1))
        a, b, c, d = self.weights
        return (a * x + b * late * x + c * late + d) * (1.0 if self.training else 0.5)


def _learner(kind: type, lr: float) -> tuple[Tiny, torch.optim.Optimizer]:
    net = Tiny()
    return net, kind(net.parameters(), lr=lr)


def _weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


def _number(value: Any) -> Any:
    """A loss, whether float or tensor, on a graph or not."""
    return value.detach().double() if isinstance(value, Tensor) else value


def _two_steps(step: Callable, net, schedule, optimizer, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
    """What two calls do: what the first one leaves behind shows in the second."""
    first = step(net, schedule, optimizer, x0, t, noise)
    after_one = _weights(net)
    second = step(net, schedule, optimizer, -x0, t, noise.flip(0))
    if first is None or second is None:
        return None
    return {
        "loss": _number(first),
        "set of weights after a step": after_one,
        "loss of a second step": _number(second),
        "set of weights after a second step": _weights(net),
    }


def _step_cases() -> list[Case]:
    plan = [
        (torch.optim.SGD, 0.1, IMAGES, (8, 1, 5), EIGHT),
        (torch.optim.SGD, 0.1, (6, 2), (2, 7, 1, 4, 8, 3), EIGHT),
        (torch.optim.Adam, 0.05, (4, 1, 2, 3), (3, 5, 1, 2), FIVE),
    ]
    cases = []
    for seed, (kind, lr, shape, t, betas) in enumerate(plan):
        net, optimizer = _learner(kind, lr)
        args = (net, betas, optimizer, normal(shape, 70 + seed), torch.tensor(t), normal(shape, 80 + seed))
        label = f"x_0 of shape {shape}, {kind.__name__}"
        facts = {"for images": len(shape) == 4, "with Adam": kind is torch.optim.Adam}
        cases.append(Case(label, args, facts, may_change=("net", "optimizer"), use=_two_steps))
    return cases


def _step(
    *,
    noisy: Callable = lambda schedule, x0, t, noise: q_sample(schedule, x0, t, noise),
    target: Callable = lambda x0, xt, noise: noise,
    times: Callable = lambda schedule, t: t,
    told: Callable = lambda t: t,
    loss: Callable = F.mse_loss,
    order: str = "zbs",
    draw: Callable | None = None,
    train: bool = True,
    returns: Callable = lambda loss: loss.item(),
) -> Callable:
    """A training step with something changed. `order`: z for zero_grad, b for backward, s for step."""

    def function(net, schedule, optimizer, x0, t, noise):
        t = times(schedule, t)
        noise = draw(x0) if draw else noise
        xt = noisy(schedule, x0, t, noise)
        net.train(train)
        value = loss(net(xt, told(t)), target(x0, xt, noise))
        for letter in order:
            {"z": optimizer.zero_grad, "b": value.backward, "s": optimizer.step}[letter]()
        return returns(value)

    return function


def _fresh_target(x0: Tensor, xt: Tensor, noise: Tensor) -> Tensor:
    return torch.randn_like(x0)


training_step = Exercise(
    "5.7",
    "training_step",
    answers.training_step,
    _step_cases,
    stub='''
def training_step(net, schedule, optimizer, x0, t, noise):
    """One step of Algorithm 1: make x_t, let the network predict the noise, move the weights.

    net:       a torch.nn.Module, called as net(xt, t); it is in training mode
    schedule:  for q_sample
    optimizer: of the network's weights
    x0:        (B, ...) clean data
    t:         (B,) integers in 1...T
    noise:     same shape as x0
    returns    the loss before the step, as a float or a tensor
    """
    raise NotImplementedError  # your code here
''',
    first="x_t from q_sample, the network's prediction at (x_t, t), simple_loss. Then zero_grad, backward, step.",
    mistakes=[
        Mistake(
            "no_zero_grad",
            "The first step is right, the second is not: gradients of the step before are still there and add up. "
            f"Call optimizer.zero_grad() once a step ({ALGORITHM}).",
            _step(order="bs"),
        ),
        Mistake(
            "step_before_backward",
            "You step before backward(): each step uses the gradients of the step before. The order is zero_grad, "
            f"backward, step ({ALGORITHM}).",
            _step(order="szb"),
        ),
        Mistake(
            "weights_stay",
            "The losses are right, but the weights never move. backward() must come after zero_grad() and before "
            f"step(), and all three must be there ({ALGORITHM}).",
            _step(order="zb"),
        ),
        Mistake(
            "ascent",
            f"The loss goes up: you step along the gradient of minus the loss ({ALGORITHM}).",
            _step(loss=lambda a, b: -F.mse_loss(a, b), returns=lambda loss: -loss.item()),
            _step(loss=lambda a, b: -F.mse_loss(a, b)),
        ),
        Mistake(
            "fresh_noise",
            "You draw noise of your own. Use the `noise` you are given, for x_t and as the target: the loop draws it "
            f"({ALGORITHM}).",
            _step(draw=torch.randn_like),
            _step(draw=torch.rand_like),
            _step(target=_fresh_target),
            _step(noisy=lambda schedule, x0, t, noise: q_sample(schedule, x0, t, torch.randn_like(x0))),
        ),
        Mistake(
            "own_t",
            f"You draw t yourself. Use the `t` you are given: the loop draws it ({ALGORITHM}).",
            _step(times=lambda schedule, t: schedule.sample_t(len(t))),
            _step(times=lambda schedule, t: torch.randint(0, schedule.T, t.shape)),
        ),
        Mistake(
            "one_t",
            f"You use one t for the whole batch. Each image has its own ({ALGORITHM}).",
            _step(times=lambda schedule, t: t[:1].expand(len(t))),
        ),
        Mistake(
            "counts_from_0",
            f"x_t is made at t - 1: t runs over 1...T, and q_sample takes it as it is ({ALGORITHM}).",
            _step(times=lambda schedule, t: t - 1),
        ),
        Mistake(
            "network_told_another_t",
            "x_t is right, but the network is told t - 1. It would learn one level's noise under another level's name "
            f"({ALGORITHM}).",
            _step(told=lambda t: t - 1),
        ),
        Mistake(
            "network_told_nothing",
            f"The network must be told t ({ALGORITHM}).",
            _step(told=torch.zeros_like),
        ),
        Mistake(
            "target_x0",
            "You compare the prediction with x_0. This network predicts the noise; with x_0 as the target it would be "
            f"another parametrisation ({ALGORITHM}; 'Three targets').",
            _step(target=lambda x0, xt, noise: x0),
        ),
        Mistake(
            "target_xt",
            f"You compare the prediction with x_t. The target is the noise that was put in ({ALGORITHM}).",
            _step(target=lambda x0, xt, noise: xt),
        ),
        Mistake(
            "target_added",
            f"You compare the prediction with x_t - x_0. The target is ε itself, before its scaling ({ALGORITHM}).",
            _step(target=lambda x0, xt, noise: xt - x0),
        ),
        Mistake(
            "clean_input",
            f"The network sees x_0, so there is no noise to find. Show it x_t ({ALGORITHM}).",
            _step(noisy=lambda schedule, x0, t, noise: x0),
        ),
        Mistake(
            "unscaled_noise",
            f"x_0 + ε is not x_t: use q_sample, eq. 4 ({ALGORITHM}).",
            _step(noisy=lambda schedule, x0, t, noise: x0 + noise),
        ),
        Mistake(
            "evaluation_mode",
            "You put the network into evaluation mode, which switches dropout off. Training wants it on "
            f"({ALGORITHM}).",
            _step(train=False),
        ),
        Mistake(
            "summed",
            f"You sum the squares. L_simple is their mean: simple_loss has it ({SIMPLE}).",
            _step(loss=lambda a, b: F.mse_loss(a, b, reduction="sum")),
            _step(loss=lambda a, b: F.mse_loss(a, b, reduction="sum") / len(a)),
        ),
        Mistake("l1", f"That is the l1 loss. Algorithm 1 has squares ({KINDS}).", _step(loss=F.l1_loss)),
        Mistake("huber", f"That is Huber's loss. Algorithm 1 has squares ({KINDS}).", _step(loss=F.smooth_l1_loss)),
        Mistake(
            "rooted",
            f"The root of the mean square has other gradients. L_simple has no root ({SIMPLE}).",
            _step(loss=lambda a, b: F.mse_loss(a, b).sqrt()),
        ),
        Mistake(
            "two_steps",
            f"You step twice with the same gradient. Once is enough ({ALGORITHM}).",
            _step(order="zbss"),
        ),
    ],
)


# ---- 5.8


class Stream:
    """Batches that can be iterated over, again and again, and have neither length nor index."""

    def __init__(self, *batches: Tensor):
        self.batches = batches

    def __iter__(self):
        return (batch.clone() for batch in self.batches)

    def __eq__(self, other):
        return isinstance(other, Stream) and all(map(torch.equal, self.batches, other.batches))


def _losses_and_weights(args: tuple, value: Any) -> dict[str, Any]:
    if isinstance(value, Tensor) and value.ndim == 1:
        value = list(value)
    if isinstance(value, list | tuple) and all(isinstance(v, Tensor | float | int) for v in value):
        value = [float(v) if not isinstance(v, Tensor) or v.numel() == 1 else v for v in value]
    return {"list of losses": value, "set of weights afterwards": _weights(args[0])}


def _loop_cases() -> list[Case]:
    plan = [
        ("four batches of images", [(4, 1, 3, 3)] * 4, EIGHT, False),
        ("six batches of shape (5, 2)", [(5, 2)] * 6, FIVE, False),
        ("three batches, the last one smaller", [(4, 2), (4, 2), (3, 2)], EIGHT, False),
        ("a stream of five batches", [(3, 1, 2, 2)] * 5, EIGHT, True),
    ]
    cases = []
    for seed, (label, shapes, betas, streams) in enumerate(plan):
        net, optimizer = _learner(torch.optim.SGD, 0.1)
        batches = [normal(shape, 100 + 10 * seed + i) for i, shape in enumerate(shapes)]
        facts = {
            "for batches that have no length": streams,
            "where the last batch is smaller": len(set(shapes)) > 1,
            "for a schedule with another T": betas is FIVE,
        }
        args = (net, betas, optimizer, Stream(*batches) if streams else batches, Seed(seed))
        cases.append(Case(label, args, facts, may_change=("net", "optimizer"), result=_losses_and_weights))
    return cases


def _t_then_noise(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    t = schedule.sample_t(len(x0), generator=generator)
    return t, torch.randn(x0.shape, generator=generator)


def _loop(draw: Callable = _t_then_noise, *, once: bool = False, first_only: bool = False, same: bool = False):
    """A training loop that draws (t, noise) in another way, or once for all, or stops, or sees one batch alone."""

    def function(net, schedule, optimizer, batches, generator):
        losses, drawn = [], None
        for x0 in batches:
            if drawn is None or not once:
                drawn = draw(schedule, x0, generator)
            losses.append(answers.training_step(net, schedule, optimizer, x0, *drawn))
            if first_only:
                break
        return losses

    return function


def _drawn(
    low: int = 1,
    beyond: int = 1,
    *,
    one: bool = False,
    normal: Callable = torch.randn,
    swapped: bool = False,
    seeded: tuple[bool, bool] = (True, True),
) -> Callable:
    """t from low to T + beyond - 1, and noise, with the generator or without it; `swapped`: the noise first."""

    def draw(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        of_t, of_noise = (generator if used else None for used in seeded)
        noise = normal(x0.shape, generator=of_noise) if swapped else None
        t = torch.randint(low, schedule.T + beyond, (1 if one else len(x0),), generator=of_t).expand(len(x0))
        return t, noise if swapped else normal(x0.shape, generator=of_noise)

    return draw


def _counts(net, schedule, optimizer, batches, generator):
    losses = []
    for i, x0 in enumerate(batches):
        t = torch.full((len(x0),), i % schedule.T + 1)
        losses.append(
            answers.training_step(net, schedule, optimizer, x0, t, torch.randn(x0.shape, generator=generator))
        )
    return losses


training_loop = Exercise(
    "5.8",
    "training_loop",
    answers.training_loop,
    _loop_cases,
    stub='''
def training_loop(net, schedule, optimizer, batches, generator):
    """Algorithm 1: one training step for each batch.

    net, schedule, optimizer: as in training_step
    batches:   any iterable of clean data, (B, ...) each; the last one may be smaller
    generator: for every batch, draw t with it first, then the noise
    returns    list of the losses, one a batch
    """
    raise NotImplementedError  # your code here
''',
    first="for x0 in batches: draw t (schedule.sample_t), draw noise (torch.randn), call training_step.",
    mistakes=[
        Mistake(
            "from_0",
            "You draw t from 0...T-1: it trains on clean images, where there is no noise to find, and never on T, "
            f"where sampling starts ({ALGORITHM}).",
            _loop(_drawn(0, 0)),
        ),
        Mistake(
            "never_T",
            f"You draw t from 1...T-1. torch.randint leaves its upper end out, and sampling starts at T ({ALGORITHM}).",
            _loop(_drawn(1, 0)),
        ),
        Mistake(
            "from_0_to_T",
            f"You draw t from 0...T. At t = 0 there is no noise to find ({ALGORITHM}).",
            _loop(_drawn(0, 1)),
        ),
        Mistake(
            "one_t",
            "You draw one t for the whole batch. Right on average, but every batch is as noisy as a single image "
            f"({ALGORITHM}).",
            _loop(_drawn(one=True)),
        ),
        Mistake(
            "noise_first",
            "You draw the noise before t. Both are right; the order is a convention, which makes a run with one seed "
            f"the same for everybody: t first ({ALGORITHM}).",
            _loop(_drawn(swapped=True)),
        ),
        Mistake(
            "no_generator",
            f"You draw without the `generator`: pass generator=generator to every draw ({ALGORITHM}).",
            _loop(_drawn(seeded=(False, False))),
            _loop(_drawn(seeded=(True, False))),
            _loop(_drawn(seeded=(False, True))),
        ),
        Mistake(
            "drawn_once",
            f"You draw t and noise once, before the loop. Every batch needs its own ({ALGORITHM}).",
            _loop(once=True),
        ),
        Mistake(
            "first_batch_only",
            f"It stops after the first batch: is the `return` inside the loop? ({ALGORITHM})",
            _loop(first_only=True),
        ),
        Mistake(
            "uniform_noise",
            f"torch.rand is uniform on [0, 1). The noise is Gaussian: torch.randn ({ALGORITHM}).",
            _loop(_drawn(normal=torch.rand)),
        ),
        Mistake(
            "no_noise",
            f"Your noise is zero. Draw it with torch.randn ({ALGORITHM}).",
            _loop(_drawn(normal=lambda shape, generator: torch.zeros(shape))),
        ),
        Mistake(
            "t_in_order",
            f"You go through t in order. Algorithm 1 draws t at random for each image ({ALGORITHM}).",
            _counts,
        ),
    ],
)
