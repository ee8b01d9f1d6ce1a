"""Grids of images, and images that move."""

import base64
import io
import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..arguments import whole
from ..pixels import as_images, to_uint8
from .base import finish, style
from .describing import Picture


def as_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 on the CPU, from integers 0…255 or floats in [-1, 1], as all figures of images read them.

    raises ValueError for other numbers, floats 0…255 among them, for no images, and unless C is 1 or 3
    """
    images = as_images("images", images).detach().cpu()
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"images must have shape (N, 1, H, W) or (N, 3, H, W), got {tuple(images.shape)}")
    return to_uint8(images)


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
    alt: str = "",
) -> Figure:
    """A grid of images (N, C, H, W), uint8 or floats in [-1, 1]; `labels`, if any, stand above each image.

    alt: what they show, for people who do not see them; how they are laid out and labelled is added
    """
    images = as_pixels(images)
    columns = min(whole("columns", columns, 1), len(images))
    rows = images.split(columns)
    above = [labels[i : i + columns] for i in range(0, len(labels), columns)] if labels is not None else None
    return _grid(rows, above, title=title, width=width, alt=alt)


def show_rows(
    rows: Sequence[Tensor], names: Sequence[str], *, above: Sequence[str] | None = None, title: str | None = None,
    width: float = 7.5, alt: str = "",
) -> Figure:  # fmt: skip
    """One named row of images (N, C, H, W) for each entry; `above` labels the columns; `alt` as for `show_images`."""
    if len(rows) != len(names):
        raise ValueError(f"every row needs a name: {len(rows)} rows, {len(names)} names")
    labels = [above] + [None] * (len(rows) - 1) if above is not None else None
    return _grid(rows, labels, names, title=title, width=width, alt=alt)


@style()
def _grid(
    rows: Sequence[Tensor],
    above: Sequence[Sequence[str] | None] | None = None,
    names: Sequence[str] = (),
    *,
    title: str | None,
    width: float,
    alt: str,
) -> Figure:
    """Rows of images as one picture, with `above[r]` over the images of row r and `names[r]` to its left.

    One axes for all: an axes for each image would take matplotlib seconds.
    """
    rows = [as_pixels(row) for row in rows]
    columns = len(rows[0])
    side = max(row.shape[-1] for row in rows)  # smaller images are enlarged, so that columns line up
    rows = [row.repeat_interleave(k, 2).repeat_interleave(k, 3) for row in rows if (k := side // row.shape[-1])]
    tiles = [tile(row, columns) for row in rows]
    across = max(picture.shape[1] for picture in tiles)
    points = 72 * width * (columns / (columns + 1) if names else 1) / across  # of print, one pixel
    line = round(13 / points) + 1  # pixels that a line of text takes
    figure, ax = plt.subplots()
    parts, top = [], 0
    for picture, name, texts in zip_longest(tiles, names, above or ()):
        lead = line if texts else 0
        top += lead
        parts.append(np.pad(picture, ((lead, 0), (0, across - picture.shape[1]), (0, 0)), constant_values=250))
        ax.text(-6 / points, top + len(picture) / 2, name or "", ha="right", va="center", fontsize=10)
        for i, text in enumerate(texts or ()):
            middle = (i + 0.5) * picture.shape[1] / columns
            ax.text(middle, top - 1 / points, text, ha="center", va="bottom", fontsize=9)
        top += len(picture)
    ax.imshow(np.concatenate(parts))
    ax.axis("off")
    figure.set_size_inches(width, points * top / 72 + 0.3 * bool(title))
    if title:
        figure.suptitle(title, fontsize=11)
    return finish(figure, alt + ". " * bool(alt) + layout(rows, above, names))


def layout(rows: Sequence[Tensor], above: Sequence[Sequence[str] | None] | None, names: Sequence[str]) -> str:
    """How many pictures stand where, in words: rows of images (N, C, H, W), labels above them, names of the rows."""
    count, columns = sum(map(len, rows)), len(rows[0])
    pictures = "one picture" if count == 1 else f"{count} pictures"
    text = f"{pictures} in {len(rows)} rows of {columns}" if len(rows) > 1 else f"{pictures} in a row"
    if any(names):
        text += f"; the rows: {', '.join(name for name in names if name)}"
    if labels := [label for line in above or () for label in line or ()]:
        text += f"; above them: {', '.join(labels)}"
    return text[0].upper() + text[1:]


def animate(frames: Sequence[Tensor], *, columns: int = 8, zoom: int = 3, path=None, alt: str = "") -> Picture:
    """An animated GIF, shown in the page: each frame a batch of images (N, C, H, W). Also saved to `path`, if given.

    It takes four seconds, and the last frame stays for one and a half. A GIF plays wherever a page shows pictures, with
    no scripts. It is stored in the images' own size, which keeps notebooks small; the page enlarges it `zoom` times.
    """
    frames = [as_pixels(frame) for frame in frames]
    grey = frames[0].shape[1] == 1  # a third of the file
    pictures = [Image.fromarray(tile(frame, columns)).convert("L" if grey else "RGB") for frame in frames]
    durations = [max(20, round(4000 / len(pictures)))] * (len(pictures) - 1) + [1500]
    file = io.BytesIO()
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    if path is not None:
        Path(os.path.expanduser(path)).write_bytes(file.getvalue())
    look = f'width="{pictures[0].width * zoom}" style="image-rendering: pixelated; max-width: 100%"'
    return Picture(base64.b64encode(file.getvalue()).decode(), "gif", alt or "An animation.", look)
