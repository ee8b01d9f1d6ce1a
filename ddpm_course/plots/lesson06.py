"""Figures of lesson 06."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, panels, style


def power_spectrum(images: Tensor) -> Tensor:
    """(F,) mean power at 0, 1, ... waves across the image, over all directions; white noise of variance 1 has 1."""
    side = images.shape[-1]
    power = torch.fft.fft2(images.cpu().double()).abs().square() / (images.shape[-2] * side)  # (N, C, H, W)
    f = torch.fft.fftfreq(side, 1 / side)
    radius = (f[:, None] ** 2 + f**2).sqrt().round().long()  # (H, W)
    mean = power.mean((0, 1))
    return torch.stack([mean[radius == r].mean() for r in range(side // 2 + 1)])


@style()
def variances(groups: dict[str, tuple[Sequence[int], dict[str, Tensor]]]) -> Figure:
    """Variances of a reverse step as shares of beta over t, one panel a group: name -> (times, {curve: shares})."""
    figure, axes = panels(groups, 3.1, ylabel="share of β", sharey=True)
    for ax, (times, curves) in zip(axes, groups.values(), strict=True):
        for i, (name, shares) in enumerate(curves.items()):
            ax.plot(times, shares, linestyle=DASHES[i], color=COLORS[i], linewidth=2, label=name)
        ax.set(xlabel="t", ylim=(0, 1.1))
    axes[-1].legend(loc="lower right")
    return finish(figure, "Variances of a reverse step as shares of β")


@style()
def spectra(images: Tensor, alpha_bar: Tensor, times: Sequence[int], estimates: dict[int, Tensor]) -> Figure:
    """Left: power of the image and of the noise in x_t at several t. Right: what of the image's the estimates have.

    images:    (N, C, H, W) real ones, in [-1, 1]
    estimates: t -> estimates of x_0 at t, (N, C, H, W)
    """
    power = power_spectrum(images)
    waves = torch.arange(len(power))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.6))
    for i, t in enumerate(times):
        look = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 5, "markevery": (i, 4)}
        left.plot(waves[1:], alpha_bar[t] * power[1:], linewidth=2, label=f"t = {t}", **look)
        noise = (1 - alpha_bar[t]).expand(len(waves) - 1)
        left.plot(waves[1:], noise, linestyle="--", linewidth=1.2, **look)
    left.set(yscale="log", xlabel="waves across the image", ylabel="power", ylim=(1e-3, 3e2), xticks=waves[2::3])
    left.set_title("in x_t: image (solid), noise (dashed)", fontsize=10)
    left.legend(fontsize=9, ncols=2)
    for i, (t, x0) in enumerate(estimates.items()):
        look = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 5, "linestyle": DASHES[i]}
        right.plot(waves[1:], (power_spectrum(x0) / power)[1:], linewidth=2, markevery=(i, 4), label=f"t = {t}", **look)
    right.axhline(1, color="black", linewidth=1, linestyle=":")
    right.set(yscale="log", xlabel="waves across the image", ylabel="share of the power in real images")
    right.set_xticks(waves[2::3])
    right.set_title("in the estimate of x_0", fontsize=10)
    right.legend(fontsize=9, ncols=2)
    return finish(
        figure, "Power over the number of waves: of image and noise in x_t, and of estimates of x_0 as a share"
    )


@style()
def descent(times: Sequence[int], scores: dict[str, Sequence[float]], floor: float | None = None) -> Figure:
    """A score over t, from T on the left to 0 on the right, as the sampler meets it."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    for (name, values), marker in zip(scores.items(), ("o", "s"), strict=False):
        ax.plot(times, values, marker=marker, linewidth=2, label=name)
    if floor is not None:
        ax.axhline(floor, color="black", linestyle=":", linewidth=1, label="as many real images")
    ax.set(xlabel="t", ylabel="Fréchet distance", yscale="log")
    ax.invert_xaxis()
    ax.legend()
    return finish(figure, "A score on the way from t = T on the left to 0 on the right")
