"""Figures of lesson 01. It has many, so those of few colours are stored with 32 of them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, DASHES, MARKERS, finish, in_colors, panels, style
from .describing import Picture
from .images import as_pixels


@style()
def two_chains(images: Tensor) -> Figure:
    """Four images (4, C, H, W) as x_0, x_{t-1}, x_t and x_T; q leads to the right, p_θ back to the left."""
    figure, ax = plt.subplots(figsize=(7.5, 2.6))
    names = ("$x_0$", "$x_{t-1}$", "$x_t$", "$x_T$")
    left_edges = (0.0, 2.1, 4.2, 6.3)
    for image, name, x in zip(as_pixels(images), names, left_edges, strict=True):
        ax.imshow(image.permute(1, 2, 0).expand(-1, -1, 3), extent=(x, x + 1, 0, 1))
        ax.text(x + 0.5, -0.08, name, ha="center", va="top", fontsize=13)
    for x in left_edges[:-1]:
        for y, start, end, color in ((0.62, x + 1.1, x + 2, COLORS[0]), (0.38, x + 2, x + 1.1, COLORS[1])):
            arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 2, "linestyle": "-" if start < end else "--"}
            ax.annotate("", (end, y), (start, y), arrowprops=arrow)
        if x != left_edges[1]:
            ax.text(x + 1.55, 0.5, "· · ·", ha="center", va="center")  # steps that are left out
    for y, color, text in (
        (1.2, COLORS[0], "forward, fixed, adds noise:  $q(x_t \\mid x_{t-1})$"),
        (-0.48, COLORS[1], "reverse, learned, removes noise:  $p_\\theta(x_{t-1} \\mid x_t)$"),
    ):
        ax.text(3.65, y, text, ha="center", va="center", color=color, fontsize=12)
    ax.set(xlim=(-0.05, 7.35), ylim=(-0.65, 1.35), aspect="equal")
    ax.axis("off")
    return finish(
        figure,
        "Four pictures in a row, from a clean image on the left, x_0, over x_{t-1} and x_t to pure noise on the right, "
        "x_T; solid arrows lead to the right, the forward process q; dashed arrows lead back, the reverse process p_θ",
    )


@style()
def heatmap_with_paths(density: Tensor, x_range: tuple[float, float], paths: Tensor, early: int = 200) -> Figure:
    """A distribution over time, density (T+1, X), under sample paths (T+1, N): the first steps, then all of them.

    Paths that begin above 0 are solid and orange, the others dashed and black.
    """
    steps = len(density) - 1
    shade = (density / density.amax(1, keepdim=True)).T.numpy()  # each t on its own scale, or t = 0 outshines the rest
    figure, axes = panels([f"the first {early} steps", f"all {steps} steps"], 3.4, ylabel="x", sharey=True)
    for ax, last, stride in zip(axes, (early, steps), (1, 4), strict=True):
        ax.imshow(shade, aspect="auto", origin="lower", extent=(0, steps, *x_range), cmap="Blues", vmax=1.3)
        t = torch.arange(0, last + 1, stride)
        for start, color, line in ((0, COLORS[1], "-"), (1, "black", "--")):
            for i, path in enumerate(paths.T[(paths[0] < 0) == bool(start)]):
                name = "_"[: i > 0] + ("starts below", "starts above")[start == 0]
                ax.plot(t, path[t], line, color=color, linewidth=1, label=name)
        ax.set(xlabel="t", xlim=(0, last), ylim=x_range)
        ax.grid(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return finish(figure, "A distribution with two bands that merge, shaded, under sample paths that wander across it")


@style()
def kinds_of_process(walk: Tensor, chain: Tensor, clicks: Tensor, wiener: Tensor) -> Picture:
    """Three paths of each of four processes over one unit of time: time in steps above, continuous time below.

    chain is (N + 1, 3); of the others the moves are given, (N, 3), which are added up from 0.
    """
    walk, clicks, wiener = (torch.cat([x.new_zeros(1, 3), x]).cumsum(0) for x in (walk, clicks, wiener))
    figure, axes = plt.subplots(2, 2, figsize=(7.5, 3.9), sharex=True)
    told = (
        ("time in steps, whole numbers: coin flips", walk, False),
        ("time in steps, any number: your chain", chain, False),
        ("continuous time, whole numbers: clicks", clicks, True),
        ("continuous time, any number: Wiener", wiener, True),
    )
    for ax, (title, paths, continuous) in zip(axes.flat, told, strict=True):
        for i, path in enumerate(paths.T):
            look = {"linestyle": DASHES[i]} if continuous else {"linestyle": "none", "marker": MARKERS[i]}
            drawn = "steps-post" if paths is clicks else "default"
            ax.plot(torch.linspace(0, 1, len(path)), path, color=COLORS[i], markersize=3.5, drawstyle=drawn, **look)
        ax.set_title(title, fontsize=10)
        ax.set_ylabel("value")
    for ax in axes[1]:
        ax.set_xlabel("time")
    axes[1, 0].yaxis.get_major_locator().set_params(integer=True)
    finish(figure, "Three sample paths of each of four kinds of stochastic process")
    return in_colors(figure, 32)


@style()
def coefficients(times: Tensor, groups: dict[float, Tensor]) -> Picture:
    """Paths (len(times), N) for each diffusion coefficient k √β, with the band, from -k to k, where two thirds end."""
    figure, axes = panels([f"g = {k:g} √β" for k in groups], 2.8, ylabel="x", sharey=True)
    for ax, (k, paths) in zip(axes, groups.items(), strict=True):
        for path in paths.T:
            ax.plot(times, path, color=COLORS[0], linewidth=0.8)
        ax.axhspan(-k, k, color=COLORS[4], alpha=0.3, linewidth=0)
        ax.set_xlabel("t")
    finish(figure, "Paths with the same drift, spread the wider the larger the diffusion coefficient; shaded, ±k")
    return in_colors(figure, 32)


@style()
def ways_back(titles: Sequence[str], curves: Sequence[tuple[Tensor, Tensor, Tensor]], x_t: float) -> Picture:
    """q(x_s | x_t) and its Gaussian, (grid, exact, gaussian) for each panel, each on a range of its own."""
    figure, axes = panels(titles, 2.9, ylabel="density")
    for ax, (grid, exact, gaussian) in zip(axes, curves, strict=True):
        ax.plot(grid, exact, color=COLORS[0], linewidth=1.8, label="where it came from, exactly")
        ax.plot(grid, gaussian, "--", color="black", linewidth=1.5, label="best Gaussian")
        ax.axvline(x_t, linestyle=":", color=COLORS[1], linewidth=1.5, label="x_t")
        ax.set(xlabel="x_s", xlim=(grid[0], grid[-1]), ylim=(0, None), yticks=[])
        ax.locator_params(axis="x", nbins=3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    finish(figure, "Where x_t came from, each panel enlarged to its own width")
    return in_colors(figure, 32)


@style()
def paths_and_drift(chain: Tensor, euler: Tensor, drift: Tensor) -> Figure:
    """Paths (T+1, N): the chain in colour, its Euler-Maruyama twin dotted on top, and the equation without noise."""
    figure, ax = plt.subplots(figsize=(7.5, 3.6))
    for i in range(chain.shape[1]):
        first = "_"[: i > 0]  # matplotlib leaves names that begin with _ out of the legend
        t = torch.arange(0, len(chain), 8)  # every eighth step: more than that is a blot
        ax.plot(t, chain[t, i], color=COLORS[i], linewidth=1.6, alpha=0.75, label=f"{first}chain")
        ax.plot(t, euler[t, i], ":", color="black", linewidth=0.9, label=f"{first}Euler–Maruyama, same noise")
        ax.plot(t, drift[t, i], "--", color=COLORS[i], linewidth=2.2, label=f"{first}drift alone")
    ax.set(xlabel="t", ylabel="x", ylim=(-3.8, 4.2))
    ax.legend(loc="upper left", ncols=3, fontsize=9)
    return finish(
        figure, "Paths of the chain, the Euler–Maruyama paths that lie on them, and the equation without noise"
    )
