"""Right answers to the exercises of lesson 06: the sampler in five functions.

`samplers.ancestral_steps` does the same in one loop, with its coefficients computed before the loop begins.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ..schedules import Schedule


def estimate_x0(schedule: Schedule, xt: Tensor, t: Tensor | int, noise: Tensor, clip: bool = True) -> Tensor:
    """The x_0 that x_t (B, ...) and an estimate of its noise imply (eq. 4 turned around), clipped to [-1, 1] or not."""
    signal, sigma = schedule.q_coefficients(t, xt)  # (B, 1, ..., 1) each
    x0 = (xt - sigma * noise) / signal
    return x0.clamp(-1, 1) if clip else x0


def reverse_variance(schedule: Schedule, t: Tensor | int, s: Tensor | int, kind: str = "small") -> Tensor | float:
    """The variance of a step from t to s < t: beta ("large"), or beta-tilde, that of q(x_s | x_t, x_0) ("small").

    returns  a number for ints, (B,) in float64 for tensors
    """
    alpha_bar_t, alpha_bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    beta = 1 - alpha_bar_t / alpha_bar_s  # what the forward process adds between s and t
    variance = beta if kind == "large" else beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return float(variance) if isinstance(t, int) else variance


def posterior_step(
    schedule: Schedule, x0: Tensor, xt: Tensor, t: Tensor | int, s: Tensor | int, z: Tensor, kind: str = "small"
) -> Tensor:
    """x_s: the mean of q(x_s | x_t, x_0) (eq. 7, s for t - 1) plus sqrt(variance) z; the mean alone where s = 0."""

    def column(values: Tensor | float) -> Tensor:  # (B, 1, ..., 1), of the data's type and on its device
        values = torch.as_tensor(values).reshape((-1,) + (1,) * (xt.ndim - 1))
        return values.to(xt.dtype).to(xt.device)

    alpha_bar_t, alpha_bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    alpha = alpha_bar_t / alpha_bar_s
    on_x0 = alpha_bar_s.sqrt() * (1 - alpha) / (1 - alpha_bar_t)
    on_xt = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    std = torch.as_tensor(reverse_variance(schedule, t, s, kind)).sqrt() * (alpha_bar_s < 1)  # none where s = 0
    return column(on_x0) * x0 + column(on_xt) * xt + column(std) * z


@torch.no_grad()
def ancestral_loop(
    net, schedule: Schedule, x_T: Tensor, times: list[int], generator: torch.Generator, kind: str = "small"
) -> Tensor:
    """Algorithm 2 of Ho et al. (2020) along `times`, from the first down to 0; one z a step, none in the last."""
    x = x_T
    for t, s in pairwise(times):
        noise = net(x, torch.full((len(x),), t, device=x.device))
        x0 = estimate_x0(schedule, x, t, noise)
        z = torch.randn(x.shape, generator=generator, device=x.device) if s > 0 else torch.zeros_like(x)
        x = posterior_step(schedule, x0, x, t, s, z, kind)
    return x


def repaired_sampler(
    net, schedule: Schedule, shape: tuple[int, ...], times: list[int], generator: torch.Generator
) -> Tensor:
    """The sampler of exercise 6.5 with its five faults mended: x_T first, then `ancestral_loop` with beta."""
    x_T = torch.randn(shape, generator=generator, device=generator.device)
    return ancestral_loop(net, schedule, x_T, times, generator, "large")
