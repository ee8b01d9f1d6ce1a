"""Figures of lesson 10."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
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
def gradient_maps(name: str, image: Tensor, gradients: dict[str, Tensor]) -> Figure:
    """An image in [-1, 1] (H, W), and gradients with respect to it, each on its own scale: orange up, purple down."""
    figure, (first, *axes) = panels([name, *gradients], 2.1)
    first.imshow(image, cmap="gray", vmin=-1, vmax=1)
    for ax, map_ in zip(axes, gradients.values(), strict=True):
        limit = map_.abs().max().item() or 1.0
        ax.imshow(map_, cmap="PuOr_r", vmin=-limit, vmax=limit)
    for ax in figure.axes:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    alt = f"An image, and beside it what would change it, pixel by pixel: {', '.join(gradients)}"
    return finish(figure, alt)
