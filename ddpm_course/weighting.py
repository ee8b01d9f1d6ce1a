"""What the error at each t counts in a loss: what the targets imply, Min-SNR and P2 (lesson 12).

All three targets, noise, x_0 and v, are x_0 in other coordinates, so that their squared errors differ by a factor that
depends on t alone. To compare weightings, say each of them as a weight on the error of x_0.
"""

import torch
from torch import Tensor

from .arguments import as_tensor, number
from .diffusion import PREDICTS, GaussianDiffusion
from .schedules import Schedule


def implied_weights(schedule: Schedule, predicts: str) -> Tensor:
    """(T+1,) float64: as a loss on x_0, what the plain squared error of a target weighs at each t; 0 at t = 0.

    predicts: "noise": SNR, as noise = (x_t - sqrt(alpha_bar) x_0) / sigma; "x0": 1; "v": SNR + 1 (Salimans and Ho,
              2022, section 4)
    raises    ValueError for another name
    """
    if predicts not in PREDICTS:
        raise ValueError(f"predicts must be one of {', '.join(PREDICTS)}; got {predicts!r}")
    snr = schedule.snr[1:]
    weights = {"noise": snr, "x0": torch.ones_like(snr), "v": snr + 1}[predicts]
    return torch.cat([weights.new_zeros(1), weights])


def min_snr_weights(diffusion: GaussianDiffusion, gamma: float = 5.0) -> Tensor:
    """(T+1,) Min-SNR-gamma of Hang et al. (2023): min(SNR, gamma) on x_0, said for the target of `diffusion`.

    That is min(SNR, gamma) / SNR for noise, and min(SNR, gamma) / (SNR + 1) for v, which is 0 where SNR is.
    """
    on_x0 = diffusion.schedule.snr.clamp(max=number("gamma", gamma, 0, above=True))
    return _for_target(diffusion, on_x0)


def p2_weights(diffusion: GaussianDiffusion, gamma: float = 1.0, k: float = 1.0) -> Tensor:
    """(T+1,) P2 of Choi et al. (2022): 1 / (k + SNR)^gamma on the noise, said for the target of `diffusion`."""
    snr, gamma, k = diffusion.schedule.snr, number("gamma", gamma, 0), number("k", k, 0, above=True)
    return _for_target(diffusion, snr / (k + snr) ** gamma)


def as_weighting(table: Tensor, T: int) -> Tensor:
    """A weighting as a tensor. ValueError unless it is (T+1,) finite numbers, none below 0 and not all of them 0."""
    table = as_tensor("weighting", table)
    if table.shape != (T + 1,) or not bool((table.isfinite() & (table >= 0)).all()) or not table[1:].any():
        raise ValueError(f"weighting must hold {T + 1} finite numbers, for t = 0…{T}, none below 0 and not all 0")
    return table


def _for_target(diffusion: GaussianDiffusion, on_x0: Tensor) -> Tensor:
    """What the error of diffusion's target must count, so that the error of x_0 counts `on_x0`; 0 at t = 0."""
    weights = on_x0[1:] / implied_weights(diffusion.schedule, diffusion.predicts)[1:]
    return torch.cat([weights.new_zeros(1), weights])
