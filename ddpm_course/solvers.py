"""Solvers of second order for the equation that DDIM solves with Euler's method (lesson 09).

Write x_t = cos(phi) x0 + sin(phi) noise, with cos(phi) = sqrt(alpha_bar_t): then dx / dphi = cos(phi) noise -
sin(phi) x0 is v, the velocity of Salimans and Ho (2022), section 4. Put E[x_0 | x_t] and E[noise | x_t] in their
places, and you have an equation without randomness whose solution has the law of x_t at every t. The angle runs from
almost pi/2 at T to 0 for data, and nothing in the equation grows without bound on the way.

All solvers are weighted sums of the network's estimates, so they run through the loop of samplers.py.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .arguments import as_tensor
from .diffusion import GaussianDiffusion
from .samplers import Step, ancestral_steps, ddim_coefficients, walk
from .schedules import check_float
from .times import falling_times

COORDINATES = ("angle", "sigma")


def heun_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int | None = None,
    *,
    coordinate: str = "angle",
    smooth_end: bool = False,
    **others: Any,
) -> Iterator[Step]:
    """Heun's method: Euler's step, a second call where it ends, and then the step again with the mean of both slopes.

    steps:       number of steps; each takes two network calls, but the last one, so there are 2 * steps - 1
    coordinate:  "angle": x as it is, against phi
                 "sigma": x / sqrt(alpha_bar) against sqrt(1 - alpha_bar) / sqrt(alpha_bar), as in Karras et al. (2022),
                 algorithm 1 without noise; there Euler's step is DDIM, and the first steps are thousands of times as
                 long as the last
    smooth_end:  False: the last step returns the estimate of x_0, which removes all noise, and is of first order
                 True: it is Heun's too, with the slope 0 that every smooth density has at phi = 0, as E[noise | x_0]
                 is 0 there. Right for a mixture; in images, which fill next to nothing of their space, it leaves half
                 of the last noise
    others:      as in `ancestral_steps`
    yields       a Step for every network call: first from t to s, then from s to s, where x is corrected
    raises       ValueError for another coordinate, for "sigma" if alpha_bar is 0 at T, where that is infinite, and what
                 `ancestral_steps` raises
    """
    if coordinate not in COORDINATES:
        raise ValueError(f"coordinate must be one of {', '.join(COORDINATES)}; got {coordinate!r}")
    if coordinate == "sigma" and bool(diffusion.schedule.alpha_bar[-1] == 0):
        raise ValueError("with alpha_bar = 0 at T sigma is infinite there: use the angle, which is pi/2")
    coefficients = partial(heun_coefficients, coordinate=coordinate, smooth_end=smooth_end)
    return ancestral_steps(net, diffusion, shape, steps, coefficients=coefficients, twice=True, **others)


def multistep_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int | None = None,
    **others: Any,
) -> Iterator[Step]:
    """DPM-Solver++(2M) of Lu et al. (2022), algorithm 2: second order at one network call a step.

    It is DDIM with the estimate of x_0 carried on along the line through this call's and the last one's, to the middle
    of the step in log-SNR. The first step knows no line, and on the last one it would have no end, as log-SNR is
    infinite at t = 0: both are DDIM. So is the second one, where SNR is 0 at T: its line would be infinitely flat.

    The arguments are those of `ancestral_steps`.
    """
    return ancestral_steps(net, diffusion, shape, steps, coefficients=multistep_coefficients, **others)


def encode_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    x0: Tensor,
    steps: int | None = None,
    *,
    solver: str = "ddim",
    y: Tensor | None = None,
    clip: bool = True,
    times: Sequence[int] | None = None,
) -> Iterator[Step]:
    """The equation the other way, from data to the noise that it is made from (Song et al., 2021, section 4.3).

    x0:      (B, ...) data, images in [-1, 1]
    steps:   number of steps, at most T (the default)
    solver:  "ddim", "multistep" (a network call a step both) or "heun" (two)
    y:       (B,) labels, as in `ancestral_steps`
    clip:    clip the estimate of x_0 to [-1, 1]; the way back is the same only if it clips too, or neither does
    times:   as a sampler's, from the last one down to 0; they are visited from the end
    yields   a Step for every network call, with t < s (or t == s where Heun's method corrects); the last x is x_T
    raises   ValueError, at the first step, for another solver, or if x0, steps, times or y do not fit

    No network was trained at t = 0. So the first call is at t = 1, where x is sqrt(alpha_bar_1) x0, which is what the
    equation does to it up to the square of the first angle.
    """
    solvers = dict(
        ddim=ddim_coefficients, multistep=multistep_coefficients, heun=partial(heun_coefficients, coordinate="angle")
    )
    if solver not in solvers:
        raise ValueError(f"solver must be one of {', '.join(solvers)}; got {solver!r}")
    x0 = as_tensor("x0", x0)
    check_float(x0)
    times = falling_times(diffusion.schedule.T, steps, times)
    rising = [1] + [t for t in times[::-1] if t > 1]
    if len(rising) < 2:
        raise ValueError(f"times must go beyond 1, got {times}")
    if solver == "heun":
        rising = rising[:1] + [t for t in rising[1:] for _ in range(2)]
    x1 = diffusion.schedule.at("sqrt_alpha_bar", 1, x0) * x0
    yield from walk(net, diffusion, x1, rising, solvers[solver], y=y, clip=clip)


def heun_coefficients(
    _: GaussianDiffusion, alpha_bar_t: Tensor, alpha_bar_s: Tensor, coordinate: str = "angle", smooth_end: bool = False
) -> tuple[Tensor, ...]:
    """The five numbers of every call, float64 (calls,) each; the calls alternate between a step and its correction.

    In a coordinate z = x / scale against a clock, the slope dz / dclock is on_xt x_t + on_x0 x0.
    """
    alpha_bar_t, alpha_bar_s = alpha_bar_t[::2], alpha_bar_s[::2]  # of the steps; at its correction x_s is the x given
    scale_t, clock_t, slope_x0, slope_xt = _coordinate(alpha_bar_t, coordinate)
    scale_s, clock_s, end_x0, end_xt = _coordinate(alpha_bar_s, coordinate)
    stay, length = scale_s / scale_t, scale_s * (clock_s - clock_t)  # x_s = stay x_t + length slope
    zero = torch.zeros_like(stay)
    calls = [  # on_x0, on_xt, sigma, on_last_x0, on_last_xt
        torch.stack([length * slope_x0, stay + length * slope_xt, zero, zero, zero]),
        torch.stack([length * end_x0, length * end_xt, zero, length * slope_x0, 2 * stay + length * slope_xt]) / 2,
    ]
    numbers = torch.stack(calls, 2).flatten(1)  # (5, 2 * steps), each step before its correction
    if alpha_bar_s[-1] < 1:
        return tuple(numbers)
    # At t = 0 no network is asked. Either the slope there is 0, or the estimate of x_0 is the answer.
    numbers[:2, -2] = numbers[3:, -1] if smooth_end else torch.tensor([1.0, 0.0])
    return tuple(numbers[:, :-1])


def _coordinate(alpha_bar: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scale and clock, and what x_0 and x_t weigh in the slope: of v = (cos x_t - x_0) / sin, or of the noise."""
    cos, sin = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if name == "angle":
        return torch.ones_like(cos), torch.atan2(sin, cos), -1 / sin, cos / sin
    return cos, sin / cos, -cos / sin, 1 / sin


def multistep_coefficients(
    diffusion: GaussianDiffusion, alpha_bar_t: Tensor, alpha_bar_s: Tensor
) -> tuple[Tensor, ...]:
    """The five numbers of every step, float64 (steps,) each: DDIM's, of an estimate that is carried on."""
    on_x0, on_xt, none = ddim_coefficients(diffusion, alpha_bar_t, alpha_bar_s)
    lengths = (alpha_bar_s.logit() - alpha_bar_t.logit()) / 2  # in lambda, half of log-SNR; infinite at both ends
    further = torch.zeros_like(on_x0)  # to the middle of this step, in lengths of the step before
    further[1:] = lengths[1:] / lengths[:-1] / 2
    further[lengths.isinf()] = 0
    return on_x0 * (1 + further), on_xt, none, -on_x0 * further, torch.zeros_like(on_x0)
