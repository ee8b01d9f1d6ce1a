"""Figures of lesson 04, and what they are measured with."""

import timeit
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor

from .base import COLORS, HATCHES, MARKERS, finish, panels, style

FAR = 1.3  # where the axis of `ablations` ends


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
def unet_diagram(rows: Sequence, xt: Tensor | None = None, noise: Tensor | None = None) -> Figure:
    """A U-Net from its `layer_table`: heights are resolutions, widths channels, dashed arrows the skips.

    xt, noise: (1, C, H, W) what goes in and what should come out, drawn at the two ends if given
    """
    names = {"ResidualBlock": "block", "Block": "block", "Attention": "attention", "SelfAttention": "attention"}
    kinds = {"block": COLORS[0], "attention": COLORS[2], "convolution": COLORS[4]}
    looks = {
        kind: {"facecolor": color, "hatch": hatch, "edgecolor": "#fbfaf7", "alpha": 0.85, "linewidth": 0}
        for (kind, color), hatch in zip(kinds.items(), HATCHES, strict=False)
    }
    layers = [row for row in rows if len(row.output) == 4 and row.layer not in ("GroupNorm", "Identity")]
    sides = sorted({row.output[2] for row in layers}, reverse=True)
    floor = -1.35 * (len(sides) - 1) - 1.55  # where the code for t runs along
    skips, told, begun, x = [], [], set(), 2.45
    figure, ax = plt.subplots(figsize=(7.5, 4.2))
    for row in layers:
        channels, side = row.output[1], row.output[2]
        kind, resampled = names.get(row.layer, "convolution"), side != row.input[2]
        middle = -1.35 * sides.index(side) - 0.7 * row.name.startswith(("middle", "attention"))
        width, height = 0.25 + 0.006 * channels, 1.1 * (side / sides[0]) ** 0.5
        ax.add_patch(Rectangle((x, middle - height / 2), width, height, **looks[kind]))
        ax.text(x + width / 2, middle + height / 2 + 0.04, f"{channels}", ha="center", va="bottom", fontsize=8)
        if side not in begun:
            begun.add(side)
            ax.text(x, middle + height / 2 + 0.27, f"{side} × {side}", fontsize=9)
        if kind == "block":
            told.append((x + width / 2, middle - height / 2))
        else:
            label = {"stem": "stem", "out": "out"}.get(row.name, row.name.split(".")[0] if resampled else "")
            ax.text(x + width / 2, middle - height / 2 - 0.04, label, ha="center", va="top", fontsize=8)
        if row.name.startswith(("stem", "down")):
            skips.append((x + width, middle))
        elif row.name.startswith("up") and kind == "block":
            arrow(ax, skips.pop(), (x, middle), linestyle="--", color="black", alpha=0.45, rad=-0.12)
        x += width + 0.28
    ends = ((0.0, xt, "$x_t$ goes in"), (x + 0.25, noise, "$\\hat{\\varepsilon}$ comes out"))
    for left, image, label in ends if xt is not None else ():
        ax.imshow(image[0, 0], extent=(left, left + 1.95, -0.6, 0.6), cmap="gray", vmin=-1.5, vmax=1.5)
        ax.text(left + 0.97, 0.66, label, ha="center", va="bottom", fontsize=10)
        ax.text(left + 0.97, -0.66, " × ".join(map(str, image.shape[2:])), ha="center", va="top", fontsize=9)
    arrow(ax, (2.0, 0), (2.43, 0), color="black")
    arrow(ax, (x - 0.26, 0), (x + 0.2, 0), color="black")
    for place in told:
        arrow(ax, (place[0], floor), place, color=COLORS[1], linewidth=0.8)
    ax.plot([2.0, told[-1][0]], [floor, floor], color=COLORS[1], linewidth=1.2)
    ax.text(1.9, floor, "code for $t$\n(and class $y$)", ha="right", va="center", fontsize=9, color=COLORS[1])
    keys = [Rectangle((0, 0), 1, 1, label=kind, **look) for kind, look in looks.items()]
    keys += ax.plot([], [], "--", color="black", alpha=0.45, label="skip")
    ax.set(xlim=(-0.1, x + 2.3), ylim=(floor - 0.65, 1.15), aspect="auto")
    ax.axis("off")
    ax.legend(handles=keys, loc="lower center", ncols=4, fontsize=9)
    way = f"from {sides[0]} × {sides[0]} down to {sides[-1]} × {sides[-1]} and up again"
    ends = "a noisy image enters on the left, an estimate of its noise leaves on the right"
    return finish(
        figure,
        f"Diagram of a U-Net: {ends}; boxes lead {way}, dashed arrows, the skips, across, and the code for t "
        "enters every block from below",
    )


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], rad: float = 0.0, **look) -> None:
    """An arrow in a drawing, bent by `rad`."""
    look = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0, **look}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={rad}", **look))


@style()
def attention_maps(picture: Tensor, shares: Tensor, queries: Sequence[tuple[int, int]]) -> Figure:
    """Where some positions of a picture look: a row per query: the query in the picture, then its heads.

    picture: (H, W)
    shares:  (heads, h, w, h, w): of each query, by row and column, the shares that it gives to all positions
    queries: (row, column) of those to show
    """
    heads, h, w = shares.shape[:3]
    tall, wide = picture.shape[0] / h, picture.shape[1] / w
    figure, axes = plt.subplots(len(queries), 1 + heads, figsize=(7.5, 1.65 * len(queries)), squeeze=False)
    shown = torch.stack([shares[:, row, column] for row, column in queries])  # (queries, heads, h, w)
    area = (0, picture.shape[1], picture.shape[0], 0)
    for line, (row, column), maps in zip(axes, queries, shown, strict=True):
        for i, ax in enumerate(line):
            ax.imshow(picture, extent=area, cmap="gray", vmin=-1, vmax=1)
            if i:  # the larger a share, the less of the picture shows through
                seen = (maps[i - 1] / maps[i - 1].max()).sqrt() * 0.9
                ax.imshow(seen, extent=area, cmap=ListedColormap([COLORS[4]]), alpha=seen)
                ax.set_xlabel(f"largest {maps[i - 1].max():.2f}", fontsize=9)
            mark = {"fill": False, "edgecolor": COLORS[5], "linewidth": 2}
            ax.add_patch(Rectangle((column * wide, row * tall), wide, tall, **mark))
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
    for ax, name in zip(axes[0], ("who asks", *(f"head {i + 1}" for i in range(heads))), strict=True):
        ax.set_title(name, fontsize=10)
    asked = " and ".join(f"row {row}, column {column}" for row, column in queries)
    return finish(figure, f"A picture, and the shares that each head gives to its {h} × {w} positions, for {asked}")


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
def ablations(losses: dict[str, Tensor], spans: Sequence[str]) -> Figure:
    """Losses of several networks, a dot for each seed and a panel for each span of t, and what lies beyond as a number.

    losses: (seeds, spans) of each network by name; all are divided by the mean of the first one's
    """
    figure, axes = panels([f"t = {span}" for span in spans], 0.9 + 0.4 * len(losses), sharey=True, sharex=True)
    first, whole = next((name, values.mean(dim=0)) for name, values in losses.items())  # (spans,)
    for column, ax in enumerate(axes):
        for row, values in enumerate(losses.values()):
            dots = (values / whole)[:, column]
            if dots.mean() > FAR:
                text = f"{dots.min():.1f} … {dots.max():.1f} →"
                ax.text(FAR, row, text, ha="right", va="center", fontsize=9, color=COLORS[row])
            else:
                ax.plot(dots, [row] * len(dots), MARKERS[row], color=COLORS[row], alpha=0.6, markersize=8)
        ax.axvline(1, color="black", linewidth=1, linestyle=":")
        ax.set(yticks=range(len(losses)), yticklabels=list(losses), ylim=(len(losses) - 0.5, -0.5), xlim=(0.86, FAR))
    axes[len(axes) // 2].set_xlabel(f"loss on unseen images, as a multiple of the mean of “{first}”")
    return finish(figure, f"Losses of {', '.join(losses)}, a dot for each seed, as multiples of the mean of {first}")
