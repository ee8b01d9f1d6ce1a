"""Figures of lesson 10."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, panels, style


@style()
def against_scale(scales: Sequence[float], measures: dict[str, Sequence[float]], plain: float = 1.0) -> Figure:
    """One small panel a measure over the scale of guidance, two in a row; a dotted line stands at the plain scale."""
    rows = (len(measures) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(7.5, 2.3 * rows), sharex=True, squeeze=False)
    for ax, (name, values), color, mark in zip(axes.flat, measures.items(), COLORS, MARKERS, strict=False):
        ax.plot(scales, values, marker=mark, color=color, linewidth=1.8)
        ax.axvline(plain, color="black", linestyle=":", linewidth=1)
        ax.set(ylabel=name)
    for ax in axes[-1]:
        ax.set_xlabel("scale")
    return finish(figure, "Measures of samples over the scale of guidance, with a dotted line at scale 1")


@style()
def planes(clouds: dict[str, Tensor], given: float, shares: Sequence[float]) -> Figure:
    """Points in the plane (N, 2), one panel an entry, with a dashed line at the first coordinate that is given.

    shares: for each panel, what is written above it after the name
    """
    titles = [f"{name}: {share:.2f}" for name, share in zip(clouds, shares, strict=True)]
    figure, axes = panels(titles, 7.5 / len(clouds) + 0.6, ylabel="second coordinate", sharey=True)
    for ax, points in zip(axes, clouds.values(), strict=True):
        ax.axvline(given, color="black", linestyle="--", linewidth=1)
        ax.scatter(points[:, 0], points[:, 1], s=3, alpha=0.3, linewidths=0, color=COLORS[0])
        ax.set(xlim=(-1, 1), ylim=(-1.2, 1.2), xlabel="first", xticks=[-0.5, 0, 0.5])
    return finish(figure, f"Points in the plane beside a dashed line at {given}, with their lower share")


@style()
def accuracy_over_t(times: Sequence[int], curves: dict[str, Sequence[float]], chance: float) -> Figure:
    """Accuracies in per cent over t, with a dotted line where guessing is."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(times, values, linestyle=DASHES[i], marker=MARKERS[i], color=COLORS[i], linewidth=1.8, label=name)
    ax.axhline(chance, color="black", linestyle=":", linewidth=1, label="guessing")
    ax.set(xlabel="t", ylabel="right answers (%)", ylim=(0, 100))
    ax.legend()
    return finish(figure, "How many noisy images are named right, over t")


@style()
def gradient_maps(gradients: dict[str, Tensor]) -> Figure:
    """Gradients with respect to an image (H, W), each on its own scale: orange up, blue down."""
    figure, axes = panels(gradients, 2.7)
    for ax, map_ in zip(axes, gradients.values(), strict=True):
        limit = map_.abs().max().item() or 1.0
        ax.imshow(torch.as_tensor(map_), cmap="PuOr_r", vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    return finish(figure, f"What would change the image, pixel by pixel, side by side: {', '.join(gradients)}")
