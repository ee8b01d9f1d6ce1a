"""Figures of lesson 05."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, finish, style


@style()
def best_guesses(noise: Tensor, density: Tensor, guesses: Tensor, costs: dict[str, Tensor]) -> Figure:
    """Left: the density of the noise given x_t. Right: what each guess costs under each loss; minima on both sides."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2), sharex=True)
    left.fill_between(noise, density, color="black", alpha=0.18, linewidth=0)
    left.set(xlabel="ε", ylabel="density given x_t", xlim=(-3, 3), ylim=(0, 1.5 * density.max().item()))
    for i, (name, cost) in enumerate(costs.items()):
        best, line = cost.argmin().item(), ("-", "--", ":")[i % 3]
        left.axvline(guesses[best].item(), linestyle=line, color=COLORS[i], linewidth=2, label=f"best for {name}")
        right.plot(guesses, cost, line, color=COLORS[i], linewidth=2, label=name)
        right.scatter(guesses[best], cost[best], s=40, color=COLORS[i], zorder=3)
    right.set(xlabel="the guess", ylabel="average loss", ylim=(0, 3))
    left.legend(loc="upper right", fontsize=9)
    right.legend(loc="upper center", fontsize=9)
    return finish(
        figure,
        "Left, the density of the noise given x_t, with the best guess under each loss; right, what each guess costs",
    )


@style()
def bits_against_std(stds: Sequence[float], bits: Sequence[float], marks: dict[str, float]) -> Figure:
    """L_0 over the standard deviation of the decoder, with some standard deviations marked."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    ax.plot(stds, bits, linewidth=2)
    for i, (name, std) in enumerate(marks.items(), start=1):
        ax.axvline(std, linestyle=("--", ":")[i % 2], color=COLORS[i], linewidth=2, label=name)
    ax.set(xscale="log", xlabel="standard deviation of the last step", ylabel="L₀, bits per pixel")
    ax.set_ylim(0, min(max(bits), 8) * 1.05)
    ax.legend()
    return finish(figure, "L₀ over the standard deviation of the decoder")
