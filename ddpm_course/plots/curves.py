"""Distributions, curves and clouds of points."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, finish, panels, style


@style()
def histograms(
    samples: dict[str, Tensor],
    *,
    bins: int = 80,
    range: tuple[float, float] | None = None,
    curve=None,
    xlabel: str = "x",
) -> Figure:
    """Histograms of several samples over each other, as densities; `curve` is (grid, density, name)."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    for i, (name, values) in enumerate(samples.items()):
        look = {"histtype": "step", "linestyle": DASHES[i - 1]} if i else {"histtype": "stepfilled", "alpha": 0.35}
        look |= {"label": name, "color": COLORS[i], "linewidth": 1.8}
        ax.hist(values.flatten().numpy(), bins, range=range, density=True, **look)
    if curve is not None:
        ax.plot(curve[0], curve[1], "k--", linewidth=1.3, label=curve[2])
    ax.set(xlabel=xlabel, ylabel="density")
    ax.legend()
    return finish(figure, "Histograms, as densities")


@style()
def lines(
    curves: dict[str, Tensor],
    x: Tensor | None = None,
    *,
    xlabel: str = "t",
    ylabel: str = "",
    title: str | None = None,
    log: str = "",
) -> Figure:
    """Curves over a common x (the index unless given), told apart by colour and dashes; `log`: "", "x", "y" or "xy"."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    for i, (name, values) in enumerate(curves.items()):
        xs = torch.arange(len(values)) if x is None else x
        ax.plot(xs, values, linestyle=DASHES[i % 7], linewidth=2, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title, **{f"{axis}scale": "log" for axis in log})
    if len(curves) > 1:
        ax.legend()
    return finish(figure)


@style()
def scatters(
    points: Sequence[Tensor], names: Sequence[str], *, limit: float = 3.0, xlabel: str = "", ylabel: str = ""
) -> Figure:
    """2-D points (N, 2) side by side, one panel an entry, on equal axes."""
    figure, axes = panels(names, 7.5 / len(points) + 0.5, ylabel=ylabel)
    for ax, p in zip(axes, points, strict=True):
        ax.scatter(p[:, 0], p[:, 1], s=3, alpha=0.4, linewidths=0)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-2, 0, 2], yticks=[-2, 0, 2], aspect="equal")
        ax.set_xlabel(xlabel)
    wide = [" × ".join(f"{std:.2g}" for std in p.std(0)) for p in points]
    told = "; ".join(f"{name} {spread}" for name, spread in zip(names, wide, strict=True))
    return finish(figure, f"Clouds of points, with their standard deviations across and up: {told}")


@style()
def density_panels(
    titles: Sequence[str], grid: Tensor, curves: dict[str, Sequence[Tensor]], samples: Sequence[Tensor] | None = None,
    *, xlabel: str = "x", height: float = 2.7,
) -> Figure:  # fmt: skip
    """Densities side by side, one panel a title: named curves on a common grid (X,), over histograms of samples."""
    figure, axes = panels(titles, height, ylabel="density", sharex=True)
    for i, ax in enumerate(axes):
        if samples is not None:
            edges = np.linspace(grid[0], grid[-1], 61)
            ax.hist(samples[i].flatten().numpy(), edges, density=True, color=COLORS[5], alpha=0.5, label="samples")
        for (name, densities), line, color in zip(curves.items(), ("-", "--"), (COLORS[0], "black"), strict=False):
            ax.plot(grid, densities[i], line, color=color, linewidth=1.7, label=name)
        end = max(1, int(0.75 * grid[-1]))
        ax.set(xlabel=xlabel, xticks=[-end, 0, end], yticks=[], ylim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return finish(figure, "Densities side by side" + (", over histograms of samples" * (samples is not None)))
