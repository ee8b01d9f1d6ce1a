"""The look of every figure, and how it gets into the page in few bytes."""

import io
from contextlib import contextmanager

import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.figure import Figure
from PIL import Image

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


def as_jpeg(figure: Figure, quality: int = 50):
    """A figure full of noisy photographs in few bytes, shown at once: as PNG a handful of them fill a notebook."""
    from IPython.display import Image as Shown

    file = io.BytesIO()
    options = {"quality": quality, "optimize": True}
    figure.savefig(file, format="jpeg", dpi=figure.dpi, bbox_inches="tight", pil_kwargs=options)
    return Shown(file.getvalue(), format="jpeg")
