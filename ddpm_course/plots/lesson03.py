"""Figures of lesson 03."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..schedules import Schedule
from .base import COLORS, DASHES, MARKERS, finish, style


@style()
def schedule_curves(schedules: dict[str, Schedule]) -> Figure:
    """Each schedule three times, over t/T: beta (logarithmic), alpha_bar, and the logarithm of SNR."""
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.0))
    for i, (name, schedule) in enumerate(schedules.items()):
        share = torch.arange(schedule.T + 1) / schedule.T
        look = {"color": COLORS[i % 7], "linestyle": DASHES[i % 7], "linewidth": 2}
        axes[0].plot(share[1:], schedule.beta[1:].log10(), **look)
        axes[1].plot(share, schedule.alpha_bar, label=name, **look)
        axes[2].plot(share[1:], schedule.snr[1:].log(), **look)
    axes[0].set(title="β", ylim=(-4.8, 0.2))  # logarithms by hand: a logarithmic axis takes a second to draw
    axes[0].set_yticks([-4, -3, -2, -1, 0], ["0.0001", "0.001", "0.01", "0.1", "1"])
    axes[1].set(title="ᾱ", ylim=(-0.03, 1.03))
    axes[2].set(title="log-SNR", ylim=(-21, 11))
    for ax in axes:
        ax.set(xlabel="t / T", xticks=[0, 0.5, 1])
    figure.legend(loc="outside lower center", ncols=max(1, len(schedules)), fontsize=9)
    return finish(
        figure, "Noise schedules three times over t/T: β on a logarithmic scale, ᾱ, and the logarithm of the SNR"
    )


@style()
def shares_below(log_snrs: dict[str, Tensor], window: tuple[float, float]) -> Figure:
    """For each schedule the share of its steps at or below a log-SNR, and the line of a perfectly even one."""
    low, high = window
    figure, ax = plt.subplots(figsize=(7.5, 3.3))
    for i, (name, values) in enumerate(log_snrs.items()):
        values = values.sort().values
        share = torch.arange(1, len(values) + 1) / len(values)
        look = {"color": COLORS[i % 7], "linestyle": DASHES[i % 7], "linewidth": 2}
        ax.step(values, share, where="post", label=name, **look)
    ax.plot([low, high], [0, 1], color="black", linewidth=1, label="perfectly even")
    ax.set(xlabel="log-SNR", ylabel="share of steps at or below", xlim=(low - 4, high + 1))
    ax.legend(loc="upper left", fontsize=9)
    return finish(figure, "How evenly schedules spread their steps over log-SNR; a straight line would be even")


@style()
def over_t_and_log_snr(
    schedules: dict[str, Schedule], times: Sequence[int], losses: dict[str, Tensor], guess: tuple[Tensor, Tensor]
) -> Figure:
    """The same losses twice: over t, one curve per schedule; over log-SNR, where they share one. `guess` is dashed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True)
    for i, (name, schedule) in enumerate(schedules.items()):
        look = {"color": COLORS[i % 7], "marker": MARKERS[i % 7]}
        every = (2 * i, max(1, len(times) // 6))
        left.plot(times, losses[name], linestyle=DASHES[i % 7], linewidth=2, markersize=5, markevery=every, **look)
        right.scatter(schedule.snr[times].log(), losses[name], s=14, label=name, **look)
    right.plot(*guess, "--", color="black", linewidth=1, label="best straight line")
    left.set(xlabel="t", ylabel="least squared error", ylim=(0, 1.03))
    right.set(xlabel="log-SNR", xlim=(-14, 12))
    figure.legend(loc="outside lower center", ncols=5, fontsize=9, markerscale=1.5)
    return finish(
        figure, "The same losses twice: over t, one curve per schedule; over log-SNR, where they lie on one curve"
    )


@style()
def work_and_steps(log_snr: Tensor, work: dict[str, dict[str, Tensor]], log_snrs: dict[str, Tensor]) -> Figure:
    """Above: how much there is to learn at each log-SNR, one panel per measure. Below: 40 of each schedule's steps."""
    figure, axes = plt.subplots(
        len(work) + 1, 1, figsize=(7.5, 1.6 * len(work) + 1.8), sharex=True, height_ratios=[1] * len(work) + [1.1]
    )
    for ax, (measure, curves) in zip(axes, work.items(), strict=False):
        for i, (name, values) in enumerate(curves.items()):
            ax.plot(log_snr, values, linestyle=DASHES[i], color=COLORS[i], linewidth=2, label=name)
            ax.fill_between(log_snr, values, color=COLORS[i], alpha=0.15)
        ax.set(ylabel=measure, ylim=(0, None))
    axes[0].legend(fontsize=9)
    for i, values in enumerate(log_snrs.values()):
        chosen = values[torch.linspace(0, len(values) - 1, 40).round().long()]
        axes[-1].plot(chosen, torch.full((40,), -float(i)), "|", color="black", markersize=11)
    axes[-1].set(xlabel="log-SNR", xlim=(-14, 11), ylim=(0.6 - len(log_snrs), 0.6))
    axes[-1].set_yticks([-i for i in range(len(log_snrs))], list(log_snrs))
    axes[-1].grid(False)
    return finish(
        figure, "Above, how much there is to learn at each log-SNR; below, a tick for every 25th step of each schedule"
    )


@style()
def scores(points: dict[str, tuple[float, float]], bounds: tuple[float, float]) -> Figure:
    """Schedules by their two scores, prior bits (logarithmic) and unevenness; the corner within both bounds shaded."""
    figure, ax = plt.subplots(figsize=(7.5, 3.3))
    low = min([bits for bits, _ in points.values()] + [bounds[0]]) / 10
    high = max([bits for bits, _ in points.values()] + [bounds[0]]) * 30
    ax.fill_between([low, bounds[0]], 0, bounds[1], color=COLORS[2], alpha=0.2, linewidth=0)
    ax.text(low * 1.4, bounds[1] - 0.01, "both bounds met", color=COLORS[2], va="top", fontsize=10)
    for i, (name, (bits, gap)) in enumerate(points.items()):
        ax.scatter(bits, gap, s=50, color=COLORS[i % 7], zorder=3)
        ax.annotate(name, (bits, gap), (7, 4), textcoords="offset points", fontsize=10)
    ax.set(xscale="log", xlim=(low, high), ylim=(0, 0.35), xlabel="L_T, bits per dimension", ylabel="unevenness D")
    told = "; ".join(f"{name} {bits:.1e} and {gap:.2f}" for name, (bits, gap) in points.items())
    return finish(figure, f"Schedules by their two scores, L_T and unevenness D: {told}")
