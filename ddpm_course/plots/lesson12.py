"""Figures of lesson 12."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, style

Curves = dict[str, tuple[Sequence[int], Sequence[float]]]  # name: (steps, values)


@style()
def over_steps(bits: Curves, distances: Curves) -> Figure:
    """Bits per dimension and Fréchet distances (logarithmic) over the number of steps, the same names in both."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.3))
    for ax, curves, label in zip(axes, (bits, distances), ("bits per dimension", "Fréchet distance"), strict=True):
        for i, (name, (steps, values)) in enumerate(curves.items()):
            look = dict(color=COLORS[i], marker=MARKERS[i], linestyle=DASHES[i], linewidth=1.8)
            ax.plot(steps, values, label=name, **look)
        ax.set(xscale="log", xlabel="steps", ylabel=label)
        ax.set_xticks(steps, labels=[f"{count:,}" for count in steps])
        ax.minorticks_off()
    axes[1].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return finish(figure, "Bits per dimension and Fréchet distances over the number of steps")


@style()
def weights(log_snr: Tensor, on_x0: dict[str, Tensor], on_v: dict[str, Tensor]) -> Figure:
    """What weightings count the squared error of x_0, and that of v, over log-SNR; both logarithmic."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.6), sharex=True)
    for ax, curves, target in zip(axes, (on_x0, on_v), ("x₀", "v"), strict=True):
        for i, (name, values) in enumerate(curves.items()):
            look = dict(color=COLORS[i], linestyle=DASHES[i], marker=MARKERS[i], markersize=4, linewidth=1.8)
            ax.plot(log_snr, values, label=name, markevery=(30 * i, 180), **look)
        ax.set(yscale="log", xlabel="log-SNR", ylabel=f"weight on the error of {target}", xlim=(-9, 9))
    axes[0].set_ylim(1e-3, 1e4)
    axes[1].set_ylim(1e-3, 1e1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    return finish(figure, "Weights of several losses over log-SNR")
