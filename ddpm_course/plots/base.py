"""The look of every figure, and how it gets into the page in few bytes."""

import base64
import io
from collections.abc import Iterable, Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from .describing import Picture, describe

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# one of these goes with each colour, so that nothing is said by colour alone
DASHES = ("-", "--", ":", "-.", (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")
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
    "legend.framealpha": 0.8,  # lines behind a legend show, and do not make it illegible
    "legend.edgecolor": "none",
    "figure.constrained_layout.use": True,
}


@contextmanager
def style():
    """The course's look, for a figure of your own: `with plots.style(): fig, ax = plt.subplots()`; or a decorator."""
    with plt.style.context(["default", STYLE]):  # not from a matplotlibrc, which may ask for LaTeX, or for a dark page
        yield


def panels(titles: Iterable[str], height: float, *, ylabel: str = "", **shared) -> tuple[Figure, Sequence[Axes]]:
    """One panel a title, side by side, the first with `ylabel`; `shared` is what `plt.subplots` takes besides."""
    titles = list(titles)
    figure, axes = plt.subplots(1, len(titles), figsize=(7.5, height), squeeze=False, **shared)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=10)
    axes[0, 0].set_ylabel(ylabel)
    return figure, axes[0]


def finish(figure: Figure, summary: str = "") -> Figure:
    """Hand a figure to the cell that returns it, shown once: without this Jupyter would also draw it by itself.

    summary: what the picture is, in a sentence that begins its alternative text; what its axes and curves show follows
    """
    plt.close(figure)
    figure.summary = summary
    if shell := get_ipython():  # told each time: Jupyter sets its own way of drawing whenever it sets up pyplot
        shown_as = shell.display_formatter.formatters
        shown_as["image/png"].for_type(Figure, lambda figure: None)
        shown_as["text/html"].for_type(Figure, lambda figure: in_colors(figure, 128)._repr_html_())
    return figure


def in_colors(figure: Figure, levels: int) -> Picture:
    """The figure as a PNG of so many colours: 128 take a quarter of the bytes; a lesson holds two dozen figures."""
    file, small = io.BytesIO(), io.BytesIO()
    with plt.style.context("default"):  # ticks and their labels are made only now
        figure.savefig(file, format="png", dpi=figure.dpi, bbox_inches="tight")
    picture = Image.open(file).convert("RGB").quantize(levels, dither=Image.Dither.NONE)
    picture.save(small, "png", optimize=True)
    return Picture(base64.b64encode(small.getvalue()).decode(), "png", describe(figure))


def in_few_greys(figure: Figure) -> Picture:
    """A figure full of small grey images in half the bytes, shown at once; 24 greys are enough for samples."""
    return in_colors(figure, 24)


def as_jpeg(figure: Figure, quality: int = 50) -> Picture:
    """A figure full of noisy photographs in few bytes, shown at once: as PNG a handful of them fill a notebook."""
    file = io.BytesIO()
    options = {"quality": quality, "optimize": True}
    with plt.style.context("default"):
        figure.savefig(file, format="jpeg", dpi=figure.dpi, bbox_inches="tight", pil_kwargs=options)
    return Picture(base64.b64encode(file.getvalue()).decode(), "jpeg", describe(figure))


def show_guess(guess: object, about: str = "") -> None:
    """Print what a reader predicted, below the answer; nothing if `guess` is None, as the cells come.

    about: what the guess was for, where the lines above have several answers: "for T = 200"
    """
    if guess is not None:
        print(f"your guess{about and ' ' + about}: {guess}")
