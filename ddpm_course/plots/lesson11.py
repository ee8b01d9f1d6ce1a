"""Figures of lesson 11."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, finish, panels, style


@style()
def paths_in_panels(
    times: Tensor,
    paths: dict[str, Tensor],
    *,
    x_range: tuple[float, float],
    density: Tensor | None = None,
    symlog: bool = False,
    summary: str = "Paths side by side, from noise on the left to data on the right",
) -> Figure:
    """Paths (len(times), N) over a time u that falls from noise to data, one panel a title, on equal axes.

    density: (len(times), X) of all points on an even grid over x_range, drawn as a shade, each time on its own scale
    symlog:  the height is logarithmic beyond ±1
    """
    figure, axes = panels(paths, 3.0, ylabel="x", sharey=True)
    first, last = float(times[0]), float(times[-1])
    for ax, lines in zip(axes, paths.values(), strict=True):
        if density is not None:
            shade = (density / density.amax(1, keepdim=True)).T.numpy()
            ax.imshow(
                shade, aspect="auto", origin="lower", extent=(first, last, *x_range), cmap="Blues", vmax=1.4, zorder=0
            )
        ax.plot(times, lines, color=COLORS[1], linewidth=0.9)
        ax.set(xlabel="u", xlim=(first, last), ylim=x_range)
        if symlog:
            ax.set_yscale("symlog", linthresh=1)
            ax.set_yticks([-1e8, -1e4, -1, 1, 1e4, 1e8])
            ax.minorticks_off()
        ax.grid(False)
    return finish(figure, summary)


@style()
def field_and_walkers(score: Callable[[Tensor], Tensor], walkers: dict[str, Tensor], limit: float = 2.2) -> Figure:
    """Left, the arrows of a score, their lengths on the scale of a root; then walkers, one panel a title."""
    figure, axes = panels(["arrows", *walkers], 7.5 / (1 + len(walkers)) + 0.4, ylabel="second coordinate", sharey=True)
    line = torch.linspace(-limit, limit, 19, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    arrows = score(points)
    size = arrows.norm(dim=1, keepdim=True)
    arrows = arrows / size.clamp(min=1e-12).sqrt()  # or the long ones hide the rest
    axes[0].quiver(*points.T, *arrows.T, angles="xy", color="black", width=0.006)
    for ax, x in zip(axes[1:], walkers.values(), strict=True):
        ax.scatter(x[:, 0], x[:, 1], s=3, alpha=0.4, linewidths=0)
    for ax in axes:
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-2, 0, 2], yticks=[-2, 0, 2], aspect="equal")
        ax.set_xlabel("first coordinate")
        ax.grid(False)
    return finish(figure, "Arrows of a field in the plane, and walkers that follow it with noise")


@style()
def against(x: Tensor, y: Tensor, *, xlabel: str, ylabel: str) -> Figure:
    """Points (N,) of two measures of the same things, with the line on which the two are equal."""
    figure, ax = plt.subplots(figsize=(4.6, 3.8))
    low, high = min(x.min(), y.min()).item(), max(x.max(), y.max()).item()
    ax.plot([low, high], [low, high], "k:", linewidth=1, label="equal")
    ax.scatter(x, y, s=16, alpha=0.7, linewidths=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, aspect="equal")
    ax.legend(loc="upper left")
    return finish(figure, "One measure against another, a point for each picture")


@style()
def clouds(points: dict[str, Tensor], limit: float = 1.3) -> Figure:
    """2-D points (N, 2) side by side, one panel a title, on equal axes."""
    figure, axes = panels(points, 7.5 / len(points) + 0.5, ylabel="second coordinate", sharey=True)
    for ax, p in zip(axes, points.values(), strict=True):
        ax.scatter(p[:, 0], p[:, 1], s=3, alpha=0.4, linewidths=0)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
        ax.set_xlabel("first coordinate")
    return finish(figure, "Clouds of points side by side")
