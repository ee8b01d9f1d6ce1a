"""Pictures for the lessons: grids of images, distributions, paths, animations, live training.

Every function returns the figure it draws, on a light card that is legible on light and dark pages alike.
Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

import base64
import html
import io
from collections.abc import Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from IPython import get_ipython
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .data import to_uint8

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "figure.facecolor": "#fbfaf7",
    "axes.facecolor": "#fbfaf7",
    "savefig.facecolor": "#fbfaf7",
    "figure.dpi": 90,
    "axes.prop_cycle": plt.cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 11,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style():
    """The course's look, for a figure of your own: `with plots.style(): fig, ax = plt.subplots()`."""
    with plt.rc_context(STYLE):
        yield


def finish(figure: Figure) -> Figure:
    """Hand a figure to the cell that returns it, shown once: without this Jupyter would also draw it by itself."""
    plt.close(figure)
    if shell := get_ipython():  # told each time: Jupyter sets its own way of drawing whenever it sets up pyplot
        shell.display_formatter.formatters["image/png"].for_type(Figure, small_png)
    return figure


def small_png(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours, a third of the bytes: a saved notebook holds two dozen of them."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi, bbox_inches="tight")
    picture, file = Image.open(file).convert("RGB"), io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


def as_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 on the CPU from uint8, or from floats in [-1, 1]."""
    images = images.detach().cpu()
    return images if images.dtype == torch.uint8 else to_uint8(images)


def tile(images: Tensor, columns: int) -> np.ndarray:
    """(H, W, 3) uint8: images (N, C, H, W) side by side, `columns` in a row, on a light ground."""
    images = as_pixels(images).expand(-1, 3, -1, -1)
    columns = min(columns, len(images))
    empty = -len(images) % columns  # places left in the last row
    padded = torch.nn.functional.pad(images, (2, 0, 2, 0), value=250)  # a gap left of each image and above it
    padded = torch.cat([padded, padded.new_full((empty, *padded.shape[1:]), 250)])
    grid = rearrange(padded, "(row column) c h w -> (row h) (column w) c", column=columns)
    return np.pad(grid.numpy(), ((0, 2), (0, 2), (0, 0)), constant_values=250)


def show_images(
    images: Tensor,
    labels: Sequence[str] | None = None,
    *,
    columns: int = 8,
    title: str | None = None,
    width: float = 7.5,
) -> Figure:
    """A grid of images (N, C, H, W), uint8 or floats in [-1, 1]; `labels`, if any, stand above each image."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    with style():
        if labels is None:
            picture = tile(images, columns)
            figure, ax = plt.subplots(figsize=(width, width * picture.shape[0] / picture.shape[1] + 0.3 * bool(title)))
            ax.imshow(picture)
            ax.axis("off")
        else:
            figure, axes = plt.subplots(rows, columns, figsize=(width, width / columns * 1.25 * rows), squeeze=False)
            for ax in axes.flat:
                ax.axis("off")
            for ax, image, label in zip(axes.flat, as_pixels(images), labels, strict=False):
                ax.imshow(image.permute(1, 2, 0).expand(-1, -1, 3))
                ax.set_title(label, fontsize=9)
        if title:
            figure.suptitle(title, fontsize=11)
    return finish(figure)


def show_rows(
    rows: Sequence[Tensor], names: Sequence[str], *, above: Sequence[str] | None = None, title: str | None = None,
    width: float = 7.5,
) -> Figure:  # fmt: skip
    """One named row of images (N, C, H, W) for each entry; `above` labels the columns."""
    count = len(rows[0])
    with style():
        figure, axes = plt.subplots(
            len(rows), count, figsize=(width, width / (count + 1) * len(rows) + 0.3), squeeze=False
        )
        for r, (row, name) in enumerate(zip(rows, names, strict=True)):
            for c, image in enumerate(as_pixels(row)):
                ax = axes[r, c]
                ax.imshow(image.permute(1, 2, 0).expand(-1, -1, 3))
                ax.set(xticks=[], yticks=[])
                for spine in ax.spines.values():
                    spine.set_visible(False)
                if c == 0:
                    ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
                if r == 0 and above is not None:
                    ax.set_title(above[c], fontsize=9)
        if title:
            figure.suptitle(title, fontsize=11)
    return finish(figure)


def animate(
    frames: Sequence[Tensor], *, columns: int = 8, seconds: float = 4.0, zoom: int = 3, path=None, alt: str = ""
):
    """An animated GIF, shown in the page: each frame a batch of images (N, C, H, W). Also saved to `path`, if given.

    The last frame stays for a second and a half. A GIF plays wherever a page shows pictures, with no scripts. It is
    stored in the images' own size, which keeps notebooks small; the page enlarges it `zoom` times.
    """
    from IPython.display import HTML

    grey = frames[0].shape[1] == 1  # a third of the file
    pictures = [Image.fromarray(tile(frame, columns)).convert("L" if grey else "RGB") for frame in frames]
    pause = max(20, round(1000 * seconds / len(pictures)))
    file = io.BytesIO()
    durations = [pause] * (len(pictures) - 1) + [1500]
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    if path is not None:
        with open(path, "wb") as f:
            f.write(file.getvalue())
    data = base64.b64encode(file.getvalue()).decode()
    width, look = pictures[0].width * zoom, "image-rendering: pixelated"
    return HTML(f'<img alt="{html.escape(alt)}" width="{width}" style="{look}" src="data:image/gif;base64,{data}">')


def histograms(
    samples: dict[str, Tensor], *, bins: int = 80, range: tuple[float, float] | None = None, curve=None,
    xlabel: str = "x", title: str | None = None,
) -> Figure:  # fmt: skip
    """Histograms of several samples over each other, as densities; `curve` is (grid, density, name)."""
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.2))
        for i, (name, values) in enumerate(samples.items()):
            ax.hist(
                values.flatten().numpy(), bins, range, density=True, histtype="stepfilled" if i == 0 else "step",
                alpha=0.35 if i == 0 else 1, linewidth=1.8, color=COLORS[i], label=name,
            )  # fmt: skip
        if curve is not None:
            ax.plot(curve[0], curve[1], "k--", linewidth=1.3, label=curve[2])
        ax.set(xlabel=xlabel, ylabel="density", title=title)
        ax.legend()
    return finish(figure)


def lines(
    curves: dict[str, Tensor], x: Tensor | None = None, *, xlabel: str = "t", ylabel: str = "",
    title: str | None = None,
    log: str = "",
) -> Figure:  # fmt: skip
    """Curves over a common x (the index unless given), told apart by colour and dashes; `log`: "", "x", "y" or "xy"."""
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.2))
        for i, (name, values) in enumerate(curves.items()):
            xs = torch.arange(len(values)) if x is None else x
            ax.plot(xs, values, ("-", "--", ":", "-.")[i % 4], linewidth=2, label=name)
        if "x" in log:
            ax.set_xscale("log")
        if "y" in log:
            ax.set_yscale("log")
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if len(curves) > 1:
            ax.legend()
    return finish(figure)


def heatmap_with_paths(
    density: Tensor, x_range: tuple[float, float], paths: Tensor | None = None, *, title: str | None = None
) -> Figure:
    """A distribution over time as a heat map, density (T+1, X), with sample paths (T+1, N) on top."""
    steps = len(density) - 1
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.6))
        brightness = (density / density.amax(1, keepdim=True)).T.numpy()  # each t on its own scale, or t = 0 outshines
        ax.imshow(brightness, aspect="auto", origin="lower", extent=(0, steps, *x_range), cmap="magma")
        if paths is not None:
            ax.plot(paths.numpy(), color="white", alpha=0.7, linewidth=0.8)
        ax.set(xlabel="t", ylabel="x", ylim=x_range, title=title)
        ax.grid(False)
    return finish(figure)


def scatters(
    points: Sequence[Tensor], names: Sequence[str], *, limit: float = 3.0, xlabel: str = "", ylabel: str = "",
    title: str | None = None,
) -> Figure:  # fmt: skip
    """2-D points (N, 2) side by side, one panel an entry, on equal axes."""
    with style():
        figure, axes = plt.subplots(1, len(points), figsize=(7.5, 7.5 / len(points) + 0.5), squeeze=False)
        for ax, p, name in zip(axes[0], points, names, strict=True):
            ax.scatter(p[:, 0], p[:, 1], s=3, alpha=0.4, linewidths=0)
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-2, 0, 2], yticks=[-2, 0, 2], aspect="equal")
            ax.set_xlabel(xlabel)
            ax.set_title(name, fontsize=10)
        axes[0, 0].set_ylabel(ylabel)
        if title:
            figure.suptitle(title, fontsize=11)
    return finish(figure)


def curve_with_samples(
    losses: Sequence[tuple[int, float]], grids: Sequence[tuple[int, Tensor]], steps: int | None = None
) -> Figure:
    """A training at a glance: the loss, and below it one row of samples for each stage, with its step."""
    with style():
        figure = plt.figure(figsize=(7.5, 2.6 + 0.78 * len(grids)))
        heights = [2.6, 0.78 * len(grids)] if grids else [2.6]
        top, *rest = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        ax = top.subplots()
        ax.plot(*zip(*losses, strict=True), linewidth=1.5, marker="." if len(losses) < 10 else None)
        ax.set(xlabel="step", ylabel="loss", xlim=(0, steps or losses[-1][0]))
        ax.set_ylim(bottom=0)
        if grids:
            axes = rest[0].subplots(len(grids), 1, squeeze=False)[:, 0]
            for ax, (step, images) in zip(axes, grids, strict=True):
                ax.imshow(tile(images, len(images)))
                ax.set(xticks=[], yticks=[])
                ax.grid(False)
                for spine in ax.spines.values():
                    spine.set_visible(False)
                ax.set_ylabel(f"step {step:,}", rotation=0, ha="right", va="center", fontsize=10)
    return finish(figure)


class LiveTraining:
    """Pass one as `watch=` to `train`: the loss curve and samples of the averaged network, redrawn in place.

    diffusion: what the network's output means
    shape:     (C, H, W) of one image
    labels:    (n,) the classes to draw, or None for n unlabelled images
    previews:  how many rows of samples over the whole training
    """

    def __init__(
        self, diffusion, shape: tuple[int, int, int], labels: Tensor | None = None, *, n: int = 10, previews: int = 6
    ):
        self.diffusion, self.shape, self.labels, self.previews = diffusion, shape, labels, previews
        self.n = n if labels is None else len(labels)
        self.grids: list[tuple[int, Tensor]] = []
        self.handle = None

    def __call__(self, run) -> None:
        from IPython.display import display

        if run.steps is not None and run.step >= run.steps * (len(self.grids) + 1) / self.previews:
            self.grids.append((run.step, self.draw(run.ema.net)))
        figure = curve_with_samples(run.losses, self.grids, run.steps)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)

    def draw(self, net) -> Tensor:
        """Samples from the same noise every time, so that rows compare; the training's generator is not touched."""
        from .samplers import ddim_steps, device_of, sample
        from .training import fast_mode

        device = device_of(net)
        generator = torch.Generator(device).manual_seed(0)
        labels = None if self.labels is None else self.labels.to(device)
        shape, count = (self.n, *self.shape), 3 if fast_mode() else 25
        steps = ddim_steps(net, self.diffusion, shape, count, y=labels, generator=generator)
        return sample(steps, progress=False)


# --- lesson 02


def sum_of_noises(e1: Tensor, e2: Tensor, a: float, b: float) -> Figure:
    """Pairs of independent noises as a cloud, and the sum a e1 + b e2: a multiple of its shadow on one direction."""
    size = (a**2 + b**2) ** 0.5
    grid = torch.linspace(-5, 5, 401)
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.4), width_ratios=(1, 1.25))
        left.scatter(e1[:1500], e2[:1500], s=4, alpha=0.4, linewidths=0)
        arrow = {"color": COLORS[1], "width": 2, "headwidth": 9}
        left.annotate("", (3 * a / size, 3 * b / size), (0, 0), arrowprops=arrow)
        left.text(3.1 * a / size, 3.1 * b / size, "(a, b)", color=COLORS[1], fontsize=12)
        left.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="ε₁", ylabel="ε₂", title="pairs of noises")
        total = (a * e1 + b * e2).numpy()
        right.hist(total, 90, (-5, 5), density=True, histtype="stepfilled", alpha=0.35, label="a ε₁ + b ε₂")
        for std, line, color, name in ((size, "-", COLORS[1], "√(a² + b²)"), (a + b, "--", "black", "a + b")):
            density = torch.exp(-(grid**2) / (2 * std**2)) / (std * (2 * torch.pi) ** 0.5)
            right.plot(grid, density, line, color=color, label=f"Gaussian, std {name} = {std:.2g}")
        right.set(xlabel="value", ylabel="density", ylim=(0, 0.62), title=f"their sum, a = {a}, b = {b}")
        right.legend(loc="upper center", fontsize=9)
    return finish(figure)


def images_with_values(images: Tensor, names: Sequence[str]) -> Figure:
    """Images (N, C, H, W) above the distribution of their values, with the standard normal density for comparison."""
    grid = torch.linspace(-4, 4, 201)
    normal = torch.exp(-(grid**2) / 2) / (2 * torch.pi) ** 0.5
    with style():
        width = min(7.5, 2.9 * len(images))
        figure, axes = plt.subplots(
            2, len(images), figsize=(width, 1.75 * width / len(images) + 0.6), squeeze=False, sharey="row"
        )
        for (top, below), image, pixels, name in zip(axes.T, images, as_pixels(images), names, strict=True):
            top.imshow(pixels.permute(1, 2, 0).expand(-1, -1, 3))
            top.axis("off")
            top.set_title(name, fontsize=10)
            below.hist(image.flatten().numpy(), 60, (-4, 4), density=True, alpha=0.5, histtype="stepfilled")
            below.plot(grid, normal, "k--", linewidth=1)
            below.set(xlabel="value", ylim=(0, 1.5), xticks=[-3, 0, 3])
        axes[1, 0].set_ylabel("density")
    return finish(figure)


def walk_and_jump(panels: Sequence[tuple[str, Tensor, Tensor]], grid: Tensor, densities: Sequence[Tensor]) -> Figure:
    """Histograms of walked and jumped samples over each other, a panel (name, walked, jumped) and its density each."""
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 2.9), squeeze=False)
        for ax, (name, walked, jumped), density in zip(axes[0], panels, densities, strict=True):
            span = (grid[0].item(), grid[-1].item())
            for values, kind, look in ((walked, "stepfilled", {"alpha": 0.35}), (jumped, "step", {"linewidth": 1.6})):
                label = "chain" if values is walked else "closed form"
                ax.hist(values.flatten().numpy(), 60, span, density=True, histtype=kind, label=label, **look)
            ax.plot(grid, density, "k--", linewidth=1.2, label="exact")
            ax.set(title=name, xlabel="x")
        axes[0, 0].set_ylabel("density")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return finish(figure)


def cumulative_shares(samples: dict[str, Tensor], at: float, shares: tuple[float, float]) -> Figure:
    """Empirical distribution functions of two samples, with the largest gap between them, which is at `at`."""
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.2))
        for (name, values), line in zip(samples.items(), ("-", "--"), strict=True):
            ordered = values.flatten().sort().values
            ax.plot(ordered, torch.arange(1, len(ordered) + 1) / len(ordered), line, linewidth=2, label=name)
        ax.plot([at, at], shares, color="black", linewidth=3)
        ax.annotate(f"D = {abs(shares[0] - shares[1]):.2f}", (at, min(shares)), (14, -14), textcoords="offset points")
        ax.set(xlabel="x", ylabel="share of values ≤ x")
        ax.legend(loc="upper left")
    return finish(figure)


def paths(groups: dict[str, Tensor], times: Tensor) -> Figure:
    """Sample paths (len(times), N) side by side, one panel a group, on one vertical axis."""
    with style():
        figure, axes = plt.subplots(1, len(groups), figsize=(7.5, 2.8), sharey=True, squeeze=False)
        for ax, (name, group) in zip(axes[0], groups.items(), strict=True):
            for i, path in enumerate(group.T):
                ax.plot(times, path, color=COLORS[i], linewidth=0.9)
            ax.set_xlabel("t")
            ax.set_title(name, fontsize=10)
        axes[0, 0].set_ylabel("x")
    return finish(figure)


def signal_and_noise(alpha_bar: Tensor, marks: Sequence[int]) -> Figure:
    """Left: both standard deviations over t. Right: the same pair as a point that moves along a quarter circle."""
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    with style():
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
    return finish(figure)


# --- lesson 01


def density_panels(
    titles: Sequence[str], grid: Tensor, curves: dict[str, Sequence[Tensor]], samples: Sequence[Tensor] | None = None,
    *, xlabel: str = "x", height: float = 2.7,
) -> Figure:  # fmt: skip
    """Densities side by side, one panel a title: named curves on a common grid (X,), over histograms of samples."""
    with style():
        figure, axes = plt.subplots(1, len(titles), figsize=(7.5, height), sharex=True, squeeze=False)
        for i, (ax, title) in enumerate(zip(axes[0], titles, strict=True)):
            if samples is not None:
                edges = np.linspace(grid[0], grid[-1], 61)
                ax.hist(samples[i].flatten().numpy(), edges, density=True, color=COLORS[5], alpha=0.5, label="samples")
            for (name, densities), line, color in zip(curves.items(), ("-", "--"), (COLORS[0], "black"), strict=False):
                ax.plot(grid, densities[i], line, color=color, linewidth=1.7, label=name)
            end = max(1, int(0.75 * grid[-1]))
            ax.set(xlabel=xlabel, xticks=[-end, 0, end], yticks=[], ylim=(0, None))
            ax.set_title(title, fontsize=10)
        axes[0, 0].set_ylabel("density")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return finish(figure)


def paths_and_drift(chain: Tensor, euler: Tensor, drift: Tensor) -> Figure:
    """Paths (T+1, N): the chain in colour, its Euler-Maruyama twin dotted on top, and the equation without noise."""
    with style():
        figure, ax = plt.subplots(figsize=(7.5, 3.6))
        for i in range(chain.shape[1]):
            first = "_"[: i > 0]  # matplotlib leaves names that begin with _ out of the legend
            t = torch.arange(0, len(chain), 4)  # every fourth step: more than that is a blot
            ax.plot(t, chain[t, i], color=COLORS[i], linewidth=1.6, alpha=0.75, label=f"{first}chain")
            ax.plot(t, euler[t, i], ":", color="black", linewidth=0.9, label=f"{first}Euler–Maruyama, same noise")
            ax.plot(t, drift[t, i], "--", color=COLORS[i], linewidth=2.2, label=f"{first}drift alone")
        ax.set(xlabel="t", ylabel="x", ylim=(-3.8, 4.2))
        ax.legend(loc="upper left", ncols=3, fontsize=9)
    return finish(figure)


def as_jpeg(figure: Figure, quality: int = 50):
    """A figure full of noisy photographs in few bytes, shown at once: as PNG a handful of them fill a notebook."""
    from IPython.display import Image as Shown

    file = io.BytesIO()
    options = {"quality": quality, "optimize": True}
    figure.savefig(file, format="jpeg", dpi=figure.dpi, bbox_inches="tight", pil_kwargs=options)
    return Shown(file.getvalue(), format="jpeg")
