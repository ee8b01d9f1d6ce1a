"""Distributions, curves and clouds of points."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, finish, style


def histograms(
    samples: dict[str, Tensor], *, bins: int = 80, range: tuple[float, float] | None = None, curve=None,
    xlabel: str = "x", title: str | None = None,
) -> Figure:  # fmt: skip
    """Histograms of several samples over each other, as densities; `curve` is (grid, density, name)."""
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.2))
        for i, (name, values) in enumerate(samples.items()):
            ax.hist(
                values.flatten().numpy(), bins, range=range, density=True, histtype="stepfilled" if i == 0 else "step",
                alpha=0.35 if i == 0 else 1, linewidth=1.8, linestyle=DASHES[max(0, i - 1)], color=COLORS[i],
                label=name,
            )  # fmt: skip
        if curve is not None:
            ax.plot(curve[0], curve[1], "k--", linewidth=1.3, label=curve[2])
        ax.set(xlabel=xlabel, ylabel="density", title=title)
        ax.legend()
    return finish(figure, "Histograms, as densities")


def lines(
    curves: dict[str, Tensor], x: Tensor | None = None, *, xlabel: str = "t", ylabel: str = "",
    title: str | None = None,
    log: str = "",
) -> Figure:  # fmt: skip
    """Curves over a common x (the index unless given), told apart by colour and dashes; `log`: "", "x", "y" or "xy"."""
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.2))
        for i, (name, values) in enumerate(curves.items()):
            xs = torch.arange(len(values)) if x is None else x
            ax.plot(xs, values, linestyle=DASHES[i % 7], linewidth=2, label=name)
        if "x" in log:
            ax.set_xscale("log")
        if "y" in log:
            ax.set_yscale("log")
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if len(curves) > 1:
            ax.legend()
    return finish(figure)


def heatmap_with_paths(
    density: Tensor, x_range: tuple[float, float], paths: Tensor | None = None, *, title: str | None = None
) -> Figure:
    """A distribution over time as a heat map, density (T+1, X), with sample paths (T+1, N) on top."""
    steps = len(density) - 1
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.6))
        brightness = (density / density.amax(1, keepdim=True)).T.numpy()  # each t on its own scale, or t = 0 outshines
        ax.imshow(brightness, aspect="auto", origin="lower", extent=(0, steps, *x_range), cmap="magma")
        if paths is not None:
            ax.plot(paths.numpy(), color="white", alpha=0.7, linewidth=0.8)
        ax.set(xlabel="t", ylabel="x", ylim=x_range, title=title)
        ax.grid(False)
    return finish(
        figure, f"Heat map of a distribution over {steps:,} steps" + (", under sample paths" * (paths is not None))
    )


def scatters(
    points: Sequence[Tensor], names: Sequence[str], *, limit: float = 3.0, xlabel: str = "", ylabel: str = "",
    title: str | None = None,
) -> Figure:  # fmt: skip
    """2-D points (N, 2) side by side, one panel an entry, on equal axes."""
    with style():
        figure, axes = plt.subplots(1, len(points), figsize=(7.5, 7.5 / len(points) + 0.5), squeeze=False)
        for ax, p, name in zip(axes[0], points, names, strict=True):
            ax.scatter(p[:, 0], p[:, 1], s=3, alpha=0.4, linewidths=0)
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-2, 0, 2], yticks=[-2, 0, 2], aspect="equal")
            ax.set_xlabel(xlabel)
            ax.set_title(name, fontsize=10)
        axes[0, 0].set_ylabel(ylabel)
        if title:
            figure.suptitle(title, fontsize=11)
    wide = [" × ".join(f"{std:.2g}" for std in p.std(0)) for p in points]
    told = "; ".join(f"{name} {spread}" for name, spread in zip(names, wide, strict=True))
    return finish(figure, f"Clouds of points, with their standard deviations across and up: {told}")


def density_panels(
    titles: Sequence[str], grid: Tensor, curves: dict[str, Sequence[Tensor]], samples: Sequence[Tensor] | None = None,
    *, xlabel: str = "x", height: float = 2.7,
) -> Figure:  # fmt: skip
    """Densities side by side, one panel a title: named curves on a common grid (X,), over histograms of samples."""
    with style():
        figure, axes = plt.subplots(1, len(titles), figsize=(7.5, height), sharex=True, squeeze=False)
        for i, (ax, title) in enumerate(zip(axes[0], titles, strict=True)):
            if samples is not None:
                edges = np.linspace(grid[0], grid[-1], 61)
                ax.hist(samples[i].flatten().numpy(), edges, density=True, color=COLORS[5], alpha=0.5, label="samples")
            for (name, densities), line, color in zip(curves.items(), ("-", "--"), (COLORS[0], "black"), strict=False):
                ax.plot(grid, densities[i], line, color=color, linewidth=1.7, label=name)
            end = max(1, int(0.75 * grid[-1]))
            ax.set(xlabel=xlabel, xticks=[-end, 0, end], yticks=[], ylim=(0, None))
            ax.set_title(title, fontsize=10)
        axes[0, 0].set_ylabel("density")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return finish(figure, "Densities side by side" + (", over histograms of samples" * (samples is not None)))
