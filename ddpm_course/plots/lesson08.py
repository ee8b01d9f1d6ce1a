"""Figures of lesson 08."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, panels, style


@style()
def rate_and_distortion(
    terms: Tensor, times: Sequence[int], spent: Sequence[float], off: Sequence[float], plain: int = 50
) -> Figure:
    """Left: what every step costs, terms (T+1,). Right: how far the estimate of x_0 is off after so many bits.

    times: of the points on the right, falling; the last, 0, is x_0 itself. From `plain` on nothing changes to the eye
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3))
    left.loglog(torch.arange(1, len(terms)), terms[1:], drawstyle="steps-mid", linewidth=1.8)
    left.set(xlabel="t", ylabel="bits per dimension", title="one step")
    right.axvspan(spent[list(times).index(plain)], spent[-1], color="black", alpha=0.08, linewidth=0)
    right.text(
        (spent[-1] + spent[list(times).index(plain)]) / 2, 0.5 * max(off), "no change\nthat you see", ha="center"
    )
    right.plot(spent, off, "o-", linewidth=1.8, markersize=5)
    for t, x, y in zip(times, spent, off, strict=True):
        if t in (800, 600, 400, 200, 50, 10, 2, 0):
            name, shift = (f"t = {t}", (7, 4)) if t else ("x_0", (-9, 8))
            right.annotate(name, (x, y), shift, textcoords="offset points", fontsize=9)
    right.set(xlabel="bits per dimension so far", ylabel="x̂₀ off by (grey levels)", title="the message")
    right.set(ylim=(0, None), xlim=(None, 1.05 * max(spent)))
    return finish(figure, "Left, what every step costs; right, how far the estimate of x_0 is off after so many bits")


@style()
def gaussian_pairs(pairs: dict[str, tuple[Tensor, ...]], distances: Sequence[float]) -> Figure:
    """Pairs of Gaussians in the plane, (mean, covariance, mean, covariance) each, as ellipses of two deviations."""
    names = [f"{name}: d² = {distance:.2f}" for name, distance in zip(pairs, distances, strict=True)]
    figure, axes = panels(names, 2.9)
    for ax, pair in zip(axes, pairs.values(), strict=True):
        for mean, cov, color, line in ((*pair[:2], COLORS[0], "-"), (*pair[2:], COLORS[1], "--")):
            values, vectors = torch.linalg.eigh(cov)
            angle = torch.atan2(vectors[1, 1], vectors[0, 1]).rad2deg().item()
            width, height = (4 * values.sqrt()).flip(0).tolist()
            look = dict(edgecolor=color, facecolor=color + "22", linewidth=2, linestyle=line)
            ax.add_patch(Ellipse(mean.tolist(), width, height, angle=angle, **look))
            ax.plot(*mean, "+", color=color, markersize=9)
        ax.set(xlim=(-4.4, 4.4), ylim=(-4.4, 4.4), aspect="equal", xticks=[-4, 0, 4], yticks=[-4, 0, 4])
    told = "; ".join(f"{name} {distance:.2f}" for name, distance in zip(pairs, distances, strict=True))
    return finish(
        figure, f"Pairs of Gaussians, drawn as a solid and a dashed ellipse, and their squared distances: {told}"
    )


@style()
def bias_curves(n: Tensor, curves: dict[str, Tensor], limits: dict[str, float]) -> Figure:
    """Fréchet distances against the number of samples, and against its inverse with the lines that fit."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3))
    for (name, curve), color, mark, dashes in zip(curves.items(), COLORS, MARKERS, DASHES, strict=False):
        left.loglog(n, curve, marker=mark, linestyle=dashes, color=color, linewidth=1.6, label=name)
        x = 1 / n.double()
        slope = ((curve - limits[name]) * x).sum() / x.square().sum()
        ends = torch.tensor([0, x.max()])
        right.plot(ends, limits[name] + slope * ends, linestyle=dashes, color=color, linewidth=1.2)
        right.plot(x, curve, mark, color=color)
        right.plot(0, limits[name], mark, color=color, fillstyle="none", markersize=9, clip_on=False)
        right.annotate(f"{limits[name]:.2f}", (0, limits[name]), (8, 10), textcoords="offset points", color=color)
    left.loglog(n, curves["real"][0] * n[0] / n, "k:", linewidth=1, label="∝ 1/n")
    left.set(xlabel="number of samples n", ylabel="Fréchet distance", title="both axes logarithmic")
    left.minorticks_off()
    marks = [mark for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if left.get_ylim()[0] <= mark <= left.get_ylim()[1]]
    left.set_yticks(marks, [f"{mark:g}" for mark in marks])
    left.set_xticks(n.tolist(), [f"{size:.0f}" for size in n.tolist()], fontsize=9)
    left.legend(loc="center right", bbox_to_anchor=(1, 0.65))
    right.locator_params(axis="x", nbins=5)
    right.set(xlabel="1/n", xlim=(0, None), ylim=(min(0, *limits.values()), None), title="lines, to infinitely many")
    told = ", ".join(f"{name} {limit:.2f}" for name, limit in limits.items())
    return finish(
        figure, f"Fréchet distances over the number of samples and over its inverse, where lines end at: {told}"
    )


@style()
def class_bars(counts: dict[str, Tensor], shares: Tensor, names: Sequence[str]) -> Figure:
    """Counts for each class as markers, one kind for each set, beside bars of the two deviations that chance allows.

    The sets are of one size.
    """
    where, n = torch.arange(len(names)), next(iter(counts.values())).sum()
    expected, chance = n * shares, 2 * (n * shares * (1 - shares)).sqrt()
    figure, ax = plt.subplots(figsize=(7.5, 3.4))
    ax.bar(where, 2 * chance, 0.8, bottom=expected - chance, color="#c9c7c2", label="chance, ± 2 deviations")
    for i, (name, count) in enumerate(counts.items()):
        aside = where + 0.36 * (i - (len(counts) - 1) / 2)
        ax.plot(aside, count, MARKERS[i], color=COLORS[i], markersize=7, label=name)
    ax.set(ylabel=f"images of {n:,}", ylim=(-4, None))
    ax.grid(axis="x", visible=False)
    ax.set_xticks(where, names, rotation=25, ha="right", fontsize=9)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=1 + len(counts), frameon=False)
    return finish(figure, f"Images of each class ({', '.join(names)}), markers beside the bars that chance allows")
