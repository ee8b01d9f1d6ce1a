"""Figures of lesson 05."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..schedules import Schedule
from ..toy import Mixture
from .base import COLORS, DASHES, MARKERS, finish, panels, style


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


@style()
def trained_answers(x: Tensor, trained: dict[str, Tensor], best: dict[str, Tensor]) -> Figure:
    """For each loss a panel: what a network trained with it answers at x, and the best answer there is."""
    figure, axes = panels(trained, 2.9, ylabel="answer: the noise", sharey=True)
    for ax, (name, answers), color in zip(axes, trained.items(), COLORS, strict=False):
        ax.plot(x, best[name], "k--", linewidth=1.3, label="best answer")
        ax.plot(x, answers, color=color, linewidth=2, label="trained network")
        ax.set(xlabel="xₜ at t = 15")
        ax.legend(loc="upper left", fontsize=8)
    return finish(figure, "The answers of networks trained with three losses, each beside the best answer for its loss")


@style()
def score_fields(mixture: Mixture, schedule: Schedule, times: Sequence[int], limit: float = 1.6) -> Figure:
    """The density of x_t in the plane with arrows -E[noise | x_t], along the score; a panel for each t."""
    figure, axes = panels([f"t = {t}" for t in times], 2.9, ylabel="second coordinate", sharey=True)
    lines = [torch.linspace(-limit, limit, n, dtype=mixture.means.dtype) for n in (80, 15)]
    fine, coarse = (torch.cartesian_prod(line, line) for line in lines)  # (n², 2)
    for ax, t in zip(axes, times, strict=True):
        density = mixture.noised(schedule, t).log_prob(fine).exp().reshape(80, 80).T
        ax.contourf(lines[0], lines[0], density, levels=8, cmap="Blues", alpha=0.7)
        arrows = -mixture.predict_noise(schedule, coarse, t)
        ax.quiver(*coarse.T, *arrows.T, angles="xy", color="black", width=0.006)
        ax.set(xlabel="first coordinate", xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
        ax.grid(False)
    return finish(figure, "Arrows along the score over the density of x_t: to the middle, to the ring, to single blobs")


@style()
def losses_per_t(times: Sequence[int], losses: dict[str, Tensor], *, ylabel: str, least: float | None = None) -> Figure:
    """Losses (len(times),) over a logarithmic t; with `least` they are drawn on a logarithmic scale, cut off there."""
    figure, ax = plt.subplots(figsize=(7.5, 3.6))
    for i, (name, values) in enumerate(losses.items()):
        values = values if least is None else values.clamp(min=least)
        # every other curve has large open markers, in which the small ones of a curve on top of it still show
        size, face = ((9, "none"), (4, COLORS[i]))[i % 2]
        marks = dict(marker=MARKERS[i], markersize=size, markerfacecolor=face)
        ax.plot(times, values, linestyle=DASHES[i], linewidth=1.5, label=name, **marks)
    ax.set(xscale="log", xlabel="t", ylabel=ylabel, yscale="log" if least else "linear")
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return finish(figure, "The loss at each t")
