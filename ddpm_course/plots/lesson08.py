"""Figures of lesson 08."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, panels, style


@style()
def rate_and_distortion(terms: Tensor, times: Sequence[int], spent: Sequence[float], off: Sequence[float]) -> Figure:
    """Left: what every step costs, terms (T+1,). Right: how far the estimate of x_0 is off after so many bits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3))
    left.loglog(torch.arange(2, len(terms)), terms[2:], drawstyle="steps-mid", linewidth=1.8)
    left.set(xlabel="t", ylabel="bits per dimension", title="one step")
    right.plot(spent, off, "o-", linewidth=1.8, markersize=5)
    for t, x, y in zip(times, spent, off, strict=True):
        if t in (800, 600, 400, 200, 50, 10, 2):
            right.annotate(f"t = {t}", (x, y), (7, 4), textcoords="offset points", fontsize=9)
    right.set(xlabel="bits per dimension so far", ylabel="x̂₀ off by (grey levels)", title="the message")
    right.set(ylim=(0, None), xlim=(None, 1.12 * max(spent)))
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
        right.annotate(f"{limits[name]:.2f}", (0, limits[name]), (4, 8), textcoords="offset points", color=color)
    left.loglog(n, curves["real"][0] * n[0] / n, "k:", linewidth=1, label="∝ 1/n")
    left.set(xlabel="number of samples n", ylabel="Fréchet distance")
    left.minorticks_off()
    left.set_xticks(n.tolist(), [str(size) for size in n.tolist()], fontsize=9)
    left.legend()
    right.locator_params(axis="x", nbins=5)
    right.set(xlabel="1/n", xlim=(-0.0004, None), ylim=(min(0, *limits.values()), None))
    told = ", ".join(f"{name} {limit:.2f}" for name, limit in limits.items())
    return finish(
        figure, f"Fréchet distances over the number of samples and over its inverse, where lines end at: {told}"
    )


@style()
def class_bars(counts: dict[str, Tensor], shares: Tensor, names: Sequence[str]) -> Figure:
    """Counts for each class, one row of bars a set, over the band of two standard deviations that chance allows."""
    where = torch.arange(len(names))
    figure, axes = plt.subplots(len(counts), 1, figsize=(7.5, 1.9 * len(counts) + 0.6), sharex=True, squeeze=False)
    for ax, (name, count), color in zip(axes[:, 0], counts.items(), COLORS, strict=False):
        n = count.sum()
        expected, chance = n * shares, 2 * (n * shares * (1 - shares)).sqrt()
        ax.bar(where, count, 0.62, color=color, alpha=0.75)
        ax.bar(where, 2 * chance, 0.9, bottom=expected - chance, color="black", alpha=0.22, linewidth=0)
        ax.set_ylabel("images")
        ax.set_title(name, fontsize=10)
        ax.grid(axis="x", visible=False)
    axes[-1, 0].set_xticks(where, names, rotation=25, ha="right", fontsize=9)
    return finish(figure, f"Images of each class ({', '.join(names)}), bars over the grey band that chance allows")
