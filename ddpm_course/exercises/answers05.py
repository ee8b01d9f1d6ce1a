"""Right answers to the exercises of lesson 05 that no other module of the package needs."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import bound
from ..diffusion import q_posterior, q_sample
from ..schedules import Schedule


def posterior(schedule: Schedule, x0: Tensor, xt: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_{t-1} | x_t, x_0), Ho et al. (2020), eqs. 6 and 7."""
    return q_posterior(schedule, x0, xt, t, t - 1)


def mean_from_noise(schedule: Schedule, xt: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    """The same mean from x_t and the noise in it, Ho et al. (2020), eq. 11."""
    beta, sigma = schedule.at("beta", t, xt), schedule.at("sqrt_one_minus_alpha_bar", t, xt)
    return (xt - beta / sigma * noise) / schedule.at("sqrt_alpha", t, xt)


def loss_weight(schedule: Schedule, t: Tensor | int, variance: str = "small") -> Tensor:
    """The weight on the squared error of the noise in L_{t-1}, Ho et al. (2020), eq. 12.

    Infinite at t = 1 for the small variance.
    """
    beta, alpha, alpha_bar = schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t]
    shrinks = (1 - schedule.alpha_bar[t - 1]) / (1 - alpha_bar) if variance == "small" else 1
    return beta**2 / (2 * beta * shrinks * alpha * (1 - alpha_bar))


def simple_loss(noise: Tensor, predicted: Tensor, kind: str = "l2") -> Tensor:
    """The mean over everything of the distance between the noise and its prediction, Ho et al. (2020), eq. 14."""
    distance = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}[kind]
    return distance(predicted, noise)


def discretised_log_likelihood(x0: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """Log-probability of each value's bin of 256 under N(mean, std²), Ho et al. (2020), eq. 13."""
    return bound.discretised_log_likelihood(x0, mean, std**2)


def training_step(
    net: torch.nn.Module, schedule: Schedule, optimizer: torch.optim.Optimizer, x0: Tensor, t: Tensor, noise: Tensor
) -> float:
    """One pass through the loop of Algorithm 1: the weights move, the loss is returned."""
    xt = q_sample(schedule, x0, t, noise)
    loss = simple_loss(noise, net(xt, t))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def training_loop(
    net: torch.nn.Module,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    generator: torch.Generator,
) -> list[float]:
    """Algorithm 1 over all batches: t is drawn first, then the noise. One loss a batch."""
    losses = []
    for x0 in batches:
        t = schedule.sample_t(len(x0), device=x0.device, generator=generator)
        noise = torch.randn(x0.shape, device=x0.device, generator=generator)
        losses.append(training_step(net, schedule, optimizer, x0, t, noise))
    return losses
