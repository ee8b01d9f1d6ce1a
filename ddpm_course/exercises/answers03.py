"""Right answers to the exercises of lesson 03. They stand by themselves, as a student's do."""

import math

import torch
from torch import Tensor


def linear_betas(T: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """(T,) float64, evenly spaced from first to last: Ho et al. (2020), section 4."""
    return torch.linspace(first, last, T, dtype=torch.float64)


def quadratic_betas(T: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """(T,) float64, with evenly spaced square roots."""
    return torch.linspace(math.sqrt(first), math.sqrt(last), T, dtype=torch.float64) ** 2


def cosine_alpha_bars(T: int, s: float = 0.008) -> Tensor:
    """(T+1,) float64: alpha_bar_t = f(t) / f(0), Nichol and Dhariwal (2021), eq. 17."""
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2
    return f / f[0]


def betas_from_alpha_bars(alpha_bars: Tensor, largest: float = 0.999) -> Tensor:
    """(T+1,) to (T,): one step's loss of signal, 1 - alpha_bar_t / alpha_bar_{t-1}, kept away from 1."""
    return (1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(max=largest)


def prior_bits(alpha_bar_T: float | Tensor, mean_square: float | Tensor) -> float:
    """L_T in bits per dimension: KL(q(x_T | x_0) || N(0, I)), averaged over the coordinates of x_0."""
    alpha_bar_T, mean_square = float(alpha_bar_T), float(mean_square)
    return (alpha_bar_T * (mean_square - 1) - math.log1p(-alpha_bar_T)) / (2 * math.log(2))


def rescaled_betas(T: int) -> Tensor:
    """(T,) float64: the linear betas of a thousand steps times 1000/T, kept away from 1."""
    return (torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * 1000 / T).clamp(max=0.999)


def my_alpha_bars(T: int) -> Tensor:
    """(T+1,) float64: one design of many, with log-SNR falling in equal steps from 9 to -10."""
    log_snr = torch.linspace(9, -10, T, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), log_snr.sigmoid()])
