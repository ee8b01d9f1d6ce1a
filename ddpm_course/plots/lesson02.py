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
    """Pairs of independent noises as a cloud, and the sum a e1 + b e2: a multiple of its shadow on one direction."""
    size = (a**2 + b**2) ** 0.5
    grid = torch.linspace(-5, 5, 401)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.4), width_ratios=(1, 1.25))
    left.scatter(e1[:1500], e2[:1500], s=4, alpha=0.4, linewidths=0)
    arrow = {"color": COLORS[1], "width": 2, "headwidth": 9}
    left.annotate("", (3 * a / size, 3 * b / size), (0, 0), arrowprops=arrow)
    left.text(3.1 * a / size, 3.1 * b / size, "(a, b)", color=COLORS[1], fontsize=12)
    left.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="ε₁", ylabel="ε₂", title="pairs of noises")
    total = (a * e1 + b * e2).numpy()
    right.hist(total, 90, range=(-5, 5), density=True, histtype="stepfilled", alpha=0.35, label="a ε₁ + b ε₂")
    for std, line, color, name in ((size, "-", COLORS[1], "√(a² + b²)"), (a + b, "--", "black", "a + b")):
        density = torch.exp(-(grid**2) / (2 * std**2)) / (std * (2 * torch.pi) ** 0.5)
        right.plot(grid, density, line, color=color, label=f"Gaussian, std {name} = {std:.2g}")
    right.set(xlabel="value", ylabel="density", ylim=(0, 0.62), title=f"their sum, a = {a}, b = {b}")
    right.legend(loc="upper center", fontsize=9)
    return finish(
        figure, "Left, a round cloud of pairs of noises with the direction (a, b); right, the distribution of their sum"
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
    shared = {"bins": 60, "range": (grid[0].item(), grid[-1].item()), "density": True}
    for ax, (name, walked, jumped), density in zip(axes[0], drawn, densities, strict=True):
        ax.hist(walked.flatten().numpy(), histtype="stepfilled", alpha=0.35, label="chain", **shared)
        ax.hist(jumped.flatten().numpy(), histtype="step", linewidth=1.6, label="closed form", **shared)
        ax.plot(grid, density, "k--", linewidth=1.2, label="exact")
        ax.set(title=name, xlabel="x")
    axes[0, 0].set_ylabel("density")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return finish(figure, "Histograms of walked and of jumped samples over each other, with the exact density")


@style()
def cumulative_shares(samples: dict[str, Tensor], at: float, shares: tuple[float, float]) -> Figure:
    """Empirical distribution functions of two samples, with the largest gap between them, which is at `at`."""
    figure, ax = plt.subplots(figsize=(7.5, 3.2))
    for (name, values), line in zip(samples.items(), ("-", "--"), strict=True):
        ordered = values.flatten().sort().values
        ax.plot(ordered, torch.arange(1, len(ordered) + 1) / len(ordered), line, linewidth=2, label=name)
    ax.plot([at, at], shares, color="black", linewidth=3)
    ax.annotate(f"D = {abs(shares[0] - shares[1]):.2f}", (at, min(shares)), (14, -14), textcoords="offset points")
    ax.set(xlabel="x", ylabel="share of values ≤ x")
    ax.legend(loc="upper left")
    return finish(figure, f"Shares of values up to x; the widest gap is {abs(shares[0] - shares[1]):.2f} at {at:.2g}")


@style()
def paths(groups: dict[str, Tensor], times: Tensor) -> Figure:
    """Sample paths (len(times), N) side by side, one panel a group, on one vertical axis."""
    figure, axes = panels(groups, 2.8, ylabel="x", sharey=True)
    for ax, group in zip(axes, groups.values(), strict=True):
        for i, path in enumerate(group.T):
            ax.plot(times, path, color=COLORS[i], linewidth=0.9)
        ax.set_xlabel("t")
    return finish(figure, f"The same {len(group.T)} values followed over t, in {len(groups)} ways")


@style()
def signal_and_noise(alpha_bar: Tensor, marks: Sequence[int]) -> Figure:
    """Left: both standard deviations over t. Right: the same pair as a point that moves along a quarter circle."""
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3), width_ratios=(1.35, 1))
    left.plot(signal, linewidth=2, label="signal √ᾱ")
    left.plot(noise, "--", linewidth=2, label="noise √(1 − ᾱ)")
    left.set(xlabel="t", ylabel="standard deviation")
    left.legend(loc="center right")
    right.plot(signal, noise, color="black", linewidth=1.2)
    right.plot([0, 0.5**0.5], [0, 0.5**0.5], ":", color="black", linewidth=1)
    right.scatter(signal[marks], noise[marks], s=30, color=COLORS[2], zorder=3)
    for t in marks:
        right.annotate(f"t = {t}", (signal[t] * 1.06, noise[t] * 1.07 + 0.02), fontsize=9)
    right.set(xlabel="signal", ylabel="noise", xlim=(0, 1.35), ylim=(0, 1.2), aspect="equal")
    return finish(
        figure, "Left, signal and noise over t; right, the same pair as a point that moves along a quarter circle"
    )
