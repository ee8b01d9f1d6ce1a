"""Figures of lesson 02."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, finish, panels, style
from .images import as_pixels


@style()
def sum_of_noises(e1: Tensor, e2: Tensor, a: float, b: float) -> Figure:
    """Pairs of independent noises as a cloud, a few with their shadows on the line through (a, b); and a e1 + b e2."""
    size = (a**2 + b**2) ** 0.5
    grid = torch.linspace(-5, 5, 401)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.4), width_ratios=(1, 1.25))
    left.scatter(e1[:1500], e2[:1500], s=4, alpha=0.3, linewidths=0)
    left.axline((0, 0), (a, b), color="black", linewidth=0.8)
    along, across = (a * e1[:200] + b * e2[:200]) / size, (b * e1[:200] - a * e2[:200]) / size
    few = (across.abs() > 1.2).nonzero()[:8, 0]
    ends = [torch.stack([e[few], along[few] * part / size]) for e, part in ((e1, a), (e2, b))]  # pair, then shadow
    left.plot(*ends, color=COLORS[0], linewidth=1)
    left.scatter(ends[0], ends[1], s=12, color=COLORS[0], zorder=3)
    arrow = {"color": COLORS[1], "width": 2.5, "headwidth": 9, "headlength": 8}
    left.annotate("", (a, b), (0, 0), arrowprops=arrow, zorder=4)
    left.text(a + 0.35, b - 0.35, "(a, b)", color=COLORS[1], fontsize=12, weight="bold")
    left.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="ε₁", ylabel="ε₂", title="pairs of noises")
    total = (a * e1 + b * e2).numpy()
    right.hist(total, 90, range=(-5, 5), density=True, histtype="stepfilled", alpha=0.35, label="a ε₁ + b ε₂")
    for std, line, color, name in ((size, "-", COLORS[1], "√(a² + b²)"), (a + b, "--", "black", "a + b")):
        density = torch.exp(-(grid**2) / (2 * std**2)) / (std * (2 * torch.pi) ** 0.5)
        right.plot(grid, density, line, color=color, label=f"Gaussian, std {name} = {std:.2g}")
    right.set(xlabel="value", ylabel="density", ylim=(0, 0.62), title=f"their sum, a = {a}, b = {b}")
    right.legend(loc="upper center", fontsize=9)
    return finish(
        figure,
        "Left, a round cloud of pairs of noises, a few with their shadows on the line through (a, b); "
        "right, the distribution of their sum",
    )


@style()
def images_with_values(images: Tensor, names: Sequence[str]) -> Figure:
    """Images (N, C, H, W) above the distribution of their values, with the standard normal density for comparison."""
    grid = torch.linspace(-4, 4, 201)
    normal = torch.exp(-(grid**2) / 2) / (2 * torch.pi) ** 0.5
    width = min(7.5, 2.9 * len(images))
    figure, axes = plt.subplots(
        2, len(images), figsize=(width, 1.75 * width / len(images) + 0.6), squeeze=False, sharey="row"
    )
    for (top, below), image, pixels, name in zip(axes.T, images, as_pixels(images), names, strict=True):
        top.imshow(pixels.permute(1, 2, 0).expand(-1, -1, 3))
        top.axis("off")
        top.set_title(name, fontsize=10)
        below.hist(image.flatten().numpy(), 60, range=(-4, 4), density=True, alpha=0.5, histtype="stepfilled")
        below.plot(grid, normal, "k--", linewidth=1)
        below.set(xlabel="value", ylim=(0, 1.5), xticks=[-3, 0, 3])
    axes[1, 0].set_ylabel("density")
    told = ", ".join(f"{name} {image.std():.2f}" for name, image in zip(names, images, strict=True))
    return finish(figure, f"Images, and below each how its values are spread; their standard deviations: {told}")


@style()
def walk_and_jump(drawn: Sequence[tuple[str, Tensor, Tensor]], grid: Tensor, densities: Sequence[Tensor]) -> Figure:
    """Histograms of walked and jumped samples over each other, a panel (name, walked, jumped) and its density each."""
    figure, axes = plt.subplots(1, len(drawn), figsize=(7.5, 2.9), squeeze=False)
    shared = {"bins": 150, "range": (grid[0].item(), grid[-1].item()), "density": True}
    for ax, (name, walked, jumped), density in zip(axes[0], drawn, densities, strict=True):
        ax.hist(walked.flatten().numpy(), histtype="stepfilled", alpha=0.35, label="chain", **shared)
        ax.hist(jumped.flatten().numpy(), histtype="step", linewidth=1.2, label="closed form", **shared)
        ax.plot(grid, density, "k--", linewidth=1.2, label="exact")
        ax.set(title=name, xlabel="x")
    axes[0, 0].set_ylabel("density")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return finish(figure, "Histograms of walked and of jumped samples over each other, with the exact density")


@style()
def cumulative_shares(samples: dict[str, Tensor]) -> Figure:
    """Empirical distribution functions of two samples, with a bar where the gap between them is widest."""
    ordered = [values.flatten().sort().values for values in samples.values()]
    x = torch.cat(ordered).sort().values
    shares = torch.stack([torch.searchsorted(values, x, right=True) / len(values) for values in ordered])
    at = (shares[0] - shares[1]).abs().argmax()
    gap = (shares[0, at] - shares[1, at]).abs()
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    for name, share, line in zip(samples, shares, ("-", "--"), strict=True):
        ax.plot(x, share, line, linewidth=2, label=name)
    ax.plot([x[at], x[at]], shares[:, at], color="black", linewidth=3)
    ax.annotate(f"D = {gap:.2f}", (x[at], shares[:, at].min()), (14, -14), textcoords="offset points")
    ax.set(xlabel="x", ylabel="share of values ≤ x")
    ax.legend(loc="upper left")
    return finish(figure, f"Shares of values up to x; the widest gap is {gap:.2f} at {x[at]:.2g}")


@style()
def paths(ways: dict[str, Tensor], times: Tensor, mean: Tensor, std: Tensor) -> Figure:
    """One path (len(times),) for each way of following a value, over the band of two standard deviations at each t."""
    figure, axes = panels(ways, 2.8, ylabel="x", sharey=True)
    for ax, path in zip(axes, ways.values(), strict=True):
        ax.fill_between(times, mean - 2 * std, mean + 2 * std, color=COLORS[5], alpha=0.3, linewidth=0)
        ax.plot(times, path, color=COLORS[0], linewidth=1)
        ax.set_xlabel("t")
    return finish(figure, f"One value followed over t, in {len(ways)} ways, over the same band in each panel")


@style()
def signal_and_noise(alpha_bar: Tensor, marks: Sequence[int]) -> Figure:
    """Left: both standard deviations over t. Right: the same pair as a point that moves along a quarter circle."""
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3), width_ratios=(1.2, 1))
    left.plot(signal, linewidth=2, label="signal √ᾱ")
    left.plot(noise, "--", linewidth=2, label="noise √(1 − ᾱ)")
    left.set(xlabel="t", ylabel="standard deviation")
    left.legend(loc="center right")
    right.plot(signal, noise, color="black", linewidth=1.2)
    right.plot([0, 0.5**0.5], [0, 0.5**0.5], ":", color="black", linewidth=1)
    right.scatter(signal[marks], noise[marks], s=30, color=COLORS[2], zorder=3)
    for t in marks:  # along the radius, where neighbours have room
        angle = torch.atan2(noise[t], signal[t]).rad2deg().item()
        at = (signal[t] * 1.06, noise[t] * 1.06)
        right.text(*at, f"t = {t}", fontsize=9, va="center", rotation=angle, rotation_mode="anchor")
    ticks = [0, 0.5, 1]
    limits = (-0.12, 1.4)
    right.set(xlabel="signal √ᾱ", ylabel="noise √(1 − ᾱ)", xlim=limits, ylim=limits, xticks=ticks, yticks=ticks)
    right.set_aspect("equal")
    return finish(
        figure, "Left, signal and noise over t; right, the same pair as a point that moves along a quarter circle"
    )
