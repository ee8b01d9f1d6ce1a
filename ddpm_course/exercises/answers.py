"""Right answers to the exercises of lessons 01 and 02 that no other module of the package needs."""

import torch
from torch import Tensor

from ..diffusion import q_step
from ..schedules import Schedule


def diffuse(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> Tensor:
    """(T+1, ...) every x_t of one run of the chain (Ho et al., eq. 2), x_0 first."""
    xs = [x0]
    for t in range(1, schedule.T + 1):
        noise = torch.randn(x0.shape, generator=generator)
        xs.append(q_step(schedule, xs[-1], t, noise))
    return torch.stack(xs)


def next_variance(variance: float | Tensor, beta: float | Tensor) -> float | Tensor:
    """Var x_t from Var x_{t-1}: scaling by sqrt(1 - beta) multiplies a variance by 1 - beta, the noise adds beta."""
    return (1 - beta) * variance + beta


def merge_noises(a: float | Tensor, b: float | Tensor) -> float | Tensor:
    """The standard deviation of a e_1 + b e_2 for independent standard normal e_1, e_2: their variances add."""
    return (a**2 + b**2) ** 0.5


def alpha_bars(betas: Tensor) -> Tensor:
    """(T,) variances to (T+1,) products of 1 - beta, with the empty product 1 for t = 0."""
    return torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])


def predict_x0(schedule: Schedule, xt: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    """Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise for x_0 (Ho et al., eq. 4 turned around)."""
    signal, sigma = schedule.q_coefficients(t, xt)  # (B, 1, ..., 1) each
    return (xt - sigma * noise) / signal


def equal_t(schedule: Schedule) -> int:
    """The first t at which the noise is at least as strong as the signal: alpha_bar_t <= 1/2."""
    return int((schedule.alpha_bar <= 0.5).nonzero()[0])
