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
def ways_down(times: Sequence[int], paths: Tensor, density: Tensor, x_range: tuple[float, float]) -> Figure:
    """Paths of a sampler (len(times), N) over the density of x_t, (T+1, X) or every k-th t of it: from T to 0.

    Paths that end above 0 are solid and orange, the others dashed and black.
    """
    shade = (density / density.amax(1, keepdim=True)).T.numpy()  # each t on its own scale, or t = 0 outshines the rest
    figure, ax = plt.subplots(figsize=(7.5, 3.6))
    ax.imshow(shade, aspect="auto", origin="lower", extent=(0, times[0], *x_range), cmap="Blues", vmax=1.3)
    for above, color, line in ((True, COLORS[1], "-"), (False, "black", "--")):
        for i, path in enumerate(paths.T[(paths[-1] > 0) == above]):
            name = "_"[: i > 0] + ("ends in the left peak", "ends in the right peak")[above]
            ax.plot(times, path, line, color=color, linewidth=1, label=name)
    ax.set(xlabel="t", ylabel="x", xlim=(times[0], 0), ylim=x_range)
    ax.grid(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return finish(
        figure, "Paths from noise at t = T on the left to data at 0 on the right, over the shaded density of x_t"
    )


@style()
def on_one_scale(titles: Sequence[str], samples: Sequence[Tensor], grid: Tensor, density: Tensor) -> Figure:
    """Histograms of samples (N, 1), one panel a title, under the same density on a grid (X,), on equal axes."""
    figure, axes = panels(titles, 3.1, ylabel="density", sharex=True, sharey=True)
    for ax, x in zip(axes, samples, strict=True):
        ax.hist(x.flatten().numpy(), grid[::5].numpy(), density=True, color=COLORS[5], alpha=0.5, label="samples")
        ax.plot(grid, density, color=COLORS[0], linewidth=1.7, label="the data's density")
        ax.set(xlabel="x", xticks=[-1, -0.5, 0, 0.5, 1], xlim=(-1.1, 1.1))
        ax.tick_params(labelsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return finish(figure, "Histograms of samples under the density of the data, side by side on equal axes")


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
