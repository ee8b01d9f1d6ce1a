"""Draws the table of lesson 13 for the wall: `python assets/make.py wall`.

Its text is the notebook's cell `wall`. What the page was drawn from is in its metadata, so a test sees when the
cell has changed.
"""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "solutions" / "13_bug_clinic.ipynb"
PAGE = (1190.6, 841.9)  # A3, in points
MARGIN, TITLE, GAP = 28, 46, 9  # around the page, above the table, around the text in it
SHARES = (0.2, 0.4, 0.18, 0.22)  # of the width, for each column
STYLES = (dict(weight="bold"), {}, dict(color="#0b5394", weight="bold"), {})
LEADING = 1.22


def table() -> str:
    """The lines of the notebook's table."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "".join(next(cell["source"] for cell in cells if cell["id"] == "wall"))
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def rows(text: str) -> list[list[str]]:
    """The cells of a markdown table, its heads first."""
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [cells for cells in split if not set("".join(cells)) <= set("-: ")]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def width(word: str, column: int) -> float:
    """Of a word set at one point."""
    figure = Figure(figsize=(50, 1), dpi=72)
    drawn = figure.text(0, 0, word, fontsize=100, **STYLES[column])
    return drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / 100


def wrapped(cell: str, column: int, room: float) -> list[str]:
    """Lines of at most `room`; probes and lessons begin lines of their own."""
    lines = []
    for part in re.findall("`([^`]+)`", cell) or (cell.split("; ") if column == 3 else [cell]):
        words = re.findall(r"[^\s$]*\$[^$]+\$[^\s$]*|\S+", part)
        lines.append(words[0])
        for word in words[1:]:
            if width(f"{lines[-1]} {word}", column) <= room:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
    return lines


def laid_out(body: list[list[str]], size: float) -> list[list[list[str]]]:
    columns = [(share * (PAGE[0] - 2 * MARGIN) - 2 * GAP) / size for share in SHARES]
    return [[wrapped(cell, i, columns[i]) for i, cell in enumerate(cells)] for cells in body]


def height(cells: list[list[str]], size: float) -> float:
    return LEADING * size * max(map(len, cells)) + GAP


def draw(text: str, out: Path) -> None:
    """The table in the largest letters with which it fits the page."""
    head, *body = rows(text)
    room = PAGE[1] - 2 * MARGIN - TITLE
    for size in (quarter / 4 for quarter in range(72, 27, -1)):
        lines = laid_out([head, *body], size)
        if sum(height(cells, size) for cells in lines) <= room:
            break
    else:
        raise ValueError("the table does not fit the page in letters of 7 points: shorten it")
    figure = Figure(figsize=(PAGE[0] / 72, PAGE[1] / 72), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE[0]), ylim=(PAGE[1], 0))
    axes.set_axis_off()
    axes.text(MARGIN, MARGIN, "What is wrong with my diffusion model?", fontsize=26, weight="bold", va="top")
    advice = "from ddpm_course.doctor import examine\nexamine(net, diffusion, images, labels)"
    axes.text(PAGE[0] - MARGIN, MARGIN, advice, fontsize=13, va="top", ha="right", family="DejaVu Sans Mono")
    y, stretch = MARGIN + TITLE, room / sum(height(cells, size) for cells in lines)
    for number, cells in enumerate(lines):
        tall, x = stretch * height(cells, size), MARGIN
        shade = "#1f3b57" if number == 0 else "#eaf1f7" if number % 2 else "white"
        axes.add_patch(Rectangle((MARGIN, y), PAGE[0] - 2 * MARGIN, tall, color=shade, linewidth=0))
        for column, part in enumerate(cells):
            style = dict(color="white", weight="bold") if number == 0 else STYLES[column]
            top = y + (tall - LEADING * size * len(part)) / 2
            for i, line in enumerate(part):
                axes.text(x + GAP, top + LEADING * size * (i + 0.78), line, fontsize=size, va="baseline", **style)
            x += SHARES[column] * (PAGE[0] - 2 * MARGIN)
        y += tall
    about = dict(Title="What is wrong with my diffusion model?", Keywords=digest(text), CreationDate=None)
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(out, metadata=about if out.suffix == ".pdf" else None)
    print(f"{out.name}: {len(body)} rows in letters of {size} points")
