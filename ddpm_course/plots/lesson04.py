"""Figures of lesson 04, and what they are measured with."""

import timeit
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from .base import COLORS, DASHES, HATCHES, finish, style


@torch.no_grad()
def milliseconds(function: Callable, *inputs: Tensor) -> float:
    """How long function(*inputs) takes without gradients: the shortest of three runs, after one to warm up."""
    function(*inputs)
    return 1000 * min(timeit.repeat(lambda: function(*inputs), number=1, repeat=3))


def kept_megabytes(function: Callable, *inputs: Tensor) -> float:
    """What autograd keeps of function(*inputs) for the backward pass, counted exactly: each storage once."""
    kept = {}

    def count(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        result = function(*(x.clone().requires_grad_() for x in inputs))
    del result
    return sum(kept.values()) / 1e6


@style()
def unet_diagram(rows: Sequence) -> Figure:
    """A U-Net from its `layer_table`: heights are resolutions, widths channels, dashed arrows the skips."""
    names = {"ResidualBlock": "block", "Block": "block", "Attention": "attention", "SelfAttention": "attention"}
    kinds = {"block": COLORS[0], "attention": COLORS[2], "convolution": COLORS[4]}
    looks = {
        kind: {"facecolor": color, "hatch": hatch, "edgecolor": "#fbfaf7", "alpha": 0.85, "linewidth": 0}
        for (kind, color), hatch in zip(kinds.items(), HATCHES, strict=False)
    }
    layers = [row for row in rows if len(row.output) == 4 and row.layer not in ("GroupNorm", "Identity")]
    sides = sorted({row.output[2] for row in layers}, reverse=True)
    skips, x = [], 0.0
    figure, ax = plt.subplots(figsize=(7.5, 3.9))
    for row in layers:
        channels, side = row.output[1], row.output[2]
        level = sides.index(side)
        middle = -1.35 * level - 0.7 * row.name.startswith(("middle", "attention"))
        width, height = 0.25 + 0.006 * channels, 1.1 * (side / sides[0]) ** 0.5
        look = looks[names.get(row.layer, "convolution")]
        ax.add_patch(Rectangle((x, middle - height / 2), width, height, **look))
        ax.text(x + width / 2, middle + height / 2 + 0.04, f"{channels}", ha="center", va="bottom", fontsize=8)
        if row.name.startswith(("stem", "down")):
            skips.append((x + width, middle))
        elif row.name.startswith("up") and row.layer in ("ResidualBlock", "Block"):
            start = skips.pop()
            look = {"arrowstyle": "-|>", "linestyle": "--", "mutation_scale": 9, "color": "black", "alpha": 0.45}
            ax.add_patch(FancyArrowPatch(start, (x, middle), connectionstyle="arc3,rad=-0.12", **look))
        x += width + 0.28
    for level, side in enumerate(sides):
        ax.text(-0.25, -1.35 * level, f"{side} × {side}", ha="right", va="center", fontsize=10)
    keys = [Rectangle((0, 0), 1, 1, label=kind, **look) for kind, look in looks.items()]
    keys += ax.plot([], [], "--", color="black", alpha=0.45, label="skip")
    ax.set(xlim=(-1.2, x), ylim=(-1.35 * (len(sides) - 1) - 1.5, 1.0))
    ax.axis("off")
    ax.legend(handles=keys, loc="lower center", ncols=4, fontsize=9)
    way = f"from {sides[0]} × {sides[0]} down to {sides[-1]} × {sides[-1]} and up again"
    return finish(figure, f"Diagram of a U-Net: boxes lead {way}, and dashed arrows, the skips, across")


@style()
def codes_and_gram(codes: dict[str, Tensor], first: int = 1) -> Figure:
    """For each named table of codes (n, dim), of t = first and on: the codes, and all products of two of them."""
    figure, axes = plt.subplots(len(codes), 2, figsize=(7.5, 3.0 * len(codes)), squeeze=False, width_ratios=(1.5, 1))
    for (left, right), (name, table) in zip(axes, codes.items(), strict=True):
        ends = (first - 0.5, first + len(table) - 0.5)
        left.imshow(table.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, extent=(*ends, table.shape[1], 0))
        left.set(xlabel="t", ylabel="feature", title=f"{name}: the codes")
        gram = table @ table.T / table.square().sum(1).mean()
        picture = right.imshow(gram, vmin=-0.2, vmax=1, cmap="viridis", extent=(*ends, *ends[::-1]))
        right.set(xlabel="t", ylabel="t′", title="Gram matrix")
        for ax in (left, right):
            ax.grid(False)
        figure.colorbar(picture, ax=right, shrink=0.85)
    return finish(figure, "Codes of t as heat maps, and the products of all pairs beside them: " + ", ".join(codes))


@style()
def maps(panels: dict[str, Tensor], *, columns: int = 4, numbers: bool = False) -> Figure:
    """Small maps (H, W) side by side, each on its own scale from 0; `numbers` writes the values into the cells."""
    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    figure, axes = plt.subplots(rows, columns, figsize=(7.5, 7.5 / columns * rows + 0.4), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=False):
        ax.imshow(values, cmap="viridis", vmin=0, vmax=max(values.max().item(), 1e-12))
        ax.set_title(name, fontsize=10)
        for i, row in enumerate(values.tolist() if numbers else ()):
            for j, value in enumerate(row):
                light = value < 0.6 * values.max()
                ax.text(j, i, f"{value:g}", ha="center", va="center", color="white" if light else "black")
    return finish(figure, "Small maps side by side: " + ", ".join(panels))


@style()
def time_and_memory(
    sides: Sequence[int], times: dict[str, Sequence[float]], sizes: dict[str, Sequence[float]]
) -> Figure:
    """Milliseconds and megabytes against the number of positions, on logarithmic axes, a panel each."""
    positions = [side**2 for side in sides]
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.3))
    for ax, curves, name in zip(axes, (times, sizes), ("time (ms)", "kept for backward (MB)"), strict=True):
        for (label, values), line in zip(curves.items(), ("-o", "--s", ":^"), strict=False):
            ax.plot(positions, values, line, linewidth=2, markersize=5, label=label)
        ax.set(xscale="log", yscale="log", xlabel="positions (side²)", title=name)
        ax.set_xticks(positions, [f"{side}²" for side in sides])
        ax.minorticks_off()
    axes[0].legend(fontsize=9)
    return finish(figure, "Time and memory against the number of positions")


@style()
def ablations(curves: dict[str, list[tuple[int, float]]], thirds: dict[str, Sequence[float]]) -> Figure:
    """Left: training losses over the steps. Right: held-out losses for early, middle and late t, a bar a network."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.4), width_ratios=(1.15, 1))
    for i, (name, losses) in enumerate(curves.items()):
        left.plot(*zip(*losses, strict=True), linestyle=DASHES[i % 7], marker=".", linewidth=2, label=name)
        places = torch.arange(3) + 0.2 * (i - (len(curves) - 1) / 2)
        look = {"color": COLORS[i], "hatch": HATCHES[i], "edgecolor": "#fbfaf7", "linewidth": 0}
        right.bar(places, thirds[name], 0.18, label=name, **look)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    right.set(ylabel="held-out loss", yscale="log", xlabel="t")
    right.set_xticks(range(3), ["1 … 100", "101 … 400", "401 … 1000"], fontsize=9)
    for ax in (left, right):
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    left.legend(fontsize=9)  # for both: the bars leave no room
    return finish(figure, "Left, training losses; right, held-out losses for early, middle and late t, a bar a network")
