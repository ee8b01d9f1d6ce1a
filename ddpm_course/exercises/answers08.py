"""Right answers to the exercises of lesson 08 that no other module of the package needs."""

import math

import torch
from torch import Tensor

from ..schedules import Schedule


def bits_per_dimension(nats: Tensor | float, shape: tuple[int, ...]) -> Tensor | float:
    """Bits per dimension from the nats of whole items of this shape."""
    return nats / (math.prod(shape) * math.log(2))


def step_bits(schedule: Schedule, t: Tensor | int, error: Tensor) -> Tensor:
    """(B,) L_{t-1} in bits per dimension: half the drop in SNR times the mean squared error of x_0's estimate."""
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return (snr[t - 1] - snr[t]) * error / (2 * math.log(2))


def frechet_limit(sizes: Tensor, distances: Tensor) -> float:
    """The constant of the least-squares line of the distances in 1 / sizes."""
    line = torch.stack([torch.ones(len(sizes)), 1 / sizes], dim=1).to(distances.dtype)  # (K, 2)
    return torch.linalg.lstsq(line, distances[:, None]).solution[0, 0].item()


def nearest(samples: Tensor, training: Tensor) -> Tensor:
    """(N,) index of the training image with the least sum of squared differences to each sample, both uint8."""
    a, b = samples.flatten(1).double(), training.flatten(1).double()  # (N, D), (M, D)
    return (a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)).argmin(1)


def count_scores(counts: Tensor, shares: Tensor) -> Tensor:
    """(K,) standard deviations between each count and its binomial expectation."""
    n = counts.sum()
    return (counts - n * shares) / (n * shares * (1 - shares)).sqrt()
