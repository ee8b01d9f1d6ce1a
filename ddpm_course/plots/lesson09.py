"""Figures of lesson 09."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, style


@style()
def visits(clocks: dict[str, Sequence[int]]) -> Figure:
    """Which times a sampler visits, one row a name: from T on the left to 0 on the right, calls filled, the end not."""
    figure, ax = plt.subplots(figsize=(7.5, 0.6 + 0.42 * len(clocks)))
    for row, (name, times) in enumerate(clocks.items()):
        look = dict(color=COLORS[row], marker=MARKERS[row], linestyle="none", markersize=8, alpha=0.6)
        ax.plot(times[:-1], [row] * len(times[:-1]), label=name, **look)
        ax.plot(times[-1:], [row], markerfacecolor="none", **look)
    ax.set(xlabel="t", yticks=range(len(clocks)), yticklabels=clocks, ylim=(len(clocks) - 0.5, -0.5))
    ax.invert_xaxis()
    told = "; ".join(f"{name}: {', '.join(map(str, times))}" for name, times in clocks.items())
    return finish(figure, f"Points on lines of time. {told}")


@style()
def circle(angles: Sequence[float]) -> Figure:
    """x_t = cos(phi) x_0 + sin(phi) noise for four or more angles that fall from almost pi/2 to 0: a walk along a
    quarter of a circle, with its third step marked.
    """
    figure, ax = plt.subplots(figsize=(4.2, 4.0))
    arc, phi = torch.linspace(0, torch.pi / 2, 100), torch.tensor(angles)
    ax.plot(arc.cos(), arc.sin(), color="black", linewidth=1)
    ax.plot(phi.cos(), phi.sin(), "o", color=COLORS[0], markersize=7)
    ends = [(phi[i].cos().item(), phi[i].sin().item()) for i in (2, 3)]
    for (x, y), name in zip(ends, ("$x_t$", "$x_s$"), strict=True):
        ax.plot([0, x], [0, y], color=COLORS[1], linewidth=1.5)
        ax.annotate(name, (1.05 * x, 1.05 * y), fontsize=13)
    x, y = ends[0]
    ax.annotate("", (x - 0.4 * y, y + 0.4 * x), (x, y), arrowprops=dict(arrowstyle="->", color=COLORS[2], linewidth=2))
    ax.annotate("$v$", (x - 0.42 * y - 0.02, y + 0.42 * x + 0.04), fontsize=13, color=COLORS[2])
    between = torch.linspace(phi[3].item(), phi[2].item(), 30)
    ax.plot(0.3 * between.cos(), 0.3 * between.sin(), color=COLORS[1], linewidth=1.5)
    ax.annotate(r"$\varphi_t - \varphi_s$", (0.28, 0.17), fontsize=11)
    ax.set(xlabel=r"share of $x_0$, $\cos\varphi$", ylabel=r"share of the noise, $\sin\varphi$", aspect="equal")
    ax.set(xlim=(0, 1.2), ylim=(0, 1.2), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    return finish(
        figure,
        "A quarter of a circle between the axes of x_0 and of the noise, with the times of a sampler as points on it. "
        "A step from x_t to x_s turns by the difference of their angles, and v points along the circle",
    )


@style()
def two_slopes(curve: tuple[Tensor, Tensor], start: tuple, euler: tuple, heun: tuple, xlabel: str) -> Figure:
    """One step of Euler's and of Heun's method beside the exact curve; start, euler and heun are (x, y, slope)."""
    figure, ax = plt.subplots(figsize=(7.5, 3.4))
    ax.plot(*curve, color="black", linewidth=2, label="exact")
    for i, (name, to) in enumerate((("Euler", euler), ("Heun", heun))):
        ends = ([start[0], to[0]], [start[1], to[1]])
        ax.plot(*ends, linestyle=("--", ":")[i], color=COLORS[i], marker=MARKERS[i], markersize=7, label=name)
    length = 0.35 * (euler[0] - start[0])
    for x, y, slope in (start, euler):
        arrow = dict(arrowstyle="->", color=COLORS[2], linewidth=2)
        ax.annotate("", (x + length, y + length * slope), (x, y), arrowprops=arrow)
    (_, low), (_, high) = sorted((y, y + length * slope) for _, y, slope in (start, euler))
    ax.set(xlabel=xlabel, ylabel="x", xlim=(start[0] - 0.05 * length, euler[0] + 1.1 * length))
    ax.update_datalim([(start[0], low), (start[0], high)])
    ax.autoscale_view(scalex=False)
    ax.legend()
    return finish(figure, "One step from left to right, with the slopes at its start and at the end of Euler's step")


@style()
def over_calls(budgets: Sequence[int], curves: dict[str, Sequence[float]]) -> Figure:
    """Fréchet distances (len(budgets),) over network calls, on logarithmic axes, one curve a sampler."""
    figure, ax = plt.subplots(figsize=(7.5, 3.8))
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(budgets, values, color=COLORS[i], marker=MARKERS[i], linestyle=DASHES[i], linewidth=1.8, label=name)
    ax.set(xscale="log", yscale="log", xlabel="network calls", ylabel="Fréchet distance")
    ax.set_xticks(budgets, labels=map(str, budgets))
    ax.set_yticks([0.5, 1, 2, 5, 10, 20, 50], labels=["0.5", "1", "2", "5", "10", "20", "50"])
    ax.minorticks_off()
    figure.legend(loc="outside right center", fontsize=9)
    return finish(figure)
