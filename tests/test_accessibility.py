"""For readers who do not see the pictures, or not the colours: alternative texts, dashes and markers, headings."""

import itertools
import re
from pathlib import Path

import lessons
import matplotlib.pyplot as plt
import torch
from bs4 import BeautifulSoup
from matplotlib.colors import to_hex
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook

from ddpm_course import plots
from ddpm_course.classroom import build
from ddpm_course.schedules import cosine_schedule, linear_schedule


def pictures(cell):
    """The alternative text of every picture in a code cell's outputs; None for one that has none."""
    for output in cell.outputs:
        data = output.get("data", {})
        if html := data.get("text/html"):
            yield from (image.get("alt") for image in BeautifulSoup(html, "html.parser").find_all("img"))
        elif any(kind.startswith("image/") for kind in data):
            yield None  # neither JupyterLab nor nbconvert's pages take an alternative text from the metadata


def tells(text) -> bool:
    """Whether a text says more than that there is a picture."""
    named = re.compile(r"\.(png|jpe?g|gif)\b|<Figure|object at")
    return bool(text) and len(text) >= 20 and " " in text and not named.search(text)


@lessons.every_edition
def test_every_stored_picture_has_an_alternative_text(lesson):
    texts = {cell.id: list(pictures(cell)) for cell in lesson.code}
    assert [name for name, found in texts.items() if not all(map(tells, found))] == []
    every = list(itertools.chain(*texts.values()))
    assert len(every) >= 5 and len(set(every)) == len(every), "two pictures have the same text"


def faults_of_text(texts: list[str]) -> list[str]:
    """Headings that leave a level out on the way down, titles after the first, pictures without alternative text."""
    above, found = 0, []
    for text in texts:
        found += re.findall(r"!\[\s*\]\(|<img(?![^>]*\salt=\"[^\"]+\")", text)
        for marks, title in re.findall(r"^(#+) (.+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE):
            if len(marks) > above + 1 or (len(marks) == 1 and above):
                found.append(f"{marks} {title}")
            above = len(marks)
    return found


@lessons.every_source
def test_the_text_can_be_listened_to(lesson):
    assert faults_of_text([cell.source for cell in lesson.markdown]) == []


def test_faults_of_the_text_are_found():
    broken = ["# A\n\n### B", "# C", '![ ](a.png) <img src="b.png" alt="">']
    assert faults_of_text(broken) == ["### B", "# C", "![ ](", "<img"]


SHOWN = """
import torch, matplotlib.pyplot as plt
from IPython.display import display
from ddpm_course import plots
x = torch.linspace(0, 1, 20)
images = torch.zeros(4, 1, 8, 8)
---
plots.lines({"slow": x**2, "fast": x**0.5}, x, ylabel="way")
---
plots.as_jpeg(plots.show_images(images, list("ab&d"), alt="Four black squares"))
---
handle = display(plots.lines({"": x}), display_id=True)
handle.update(plots.lines({"": 3 - x}, title="redrawn"))
---
plots.animate([images, images], alt='Noise turns into "boots"')
---
_ = plt.plot([1, 2], [3, 5], label="my own")
plt.xlabel("days")
plt.show()
"""
TOLD = [
    "Way over t: slow rises from 0 to 1; fast rises from 0 to 1.",
    "Four black squares. 4 pictures in a row; above them: a, b, &, d.",
    "Redrawn over t: falls from 3 to 2.",
    'Noise turns into "boots"',
    "Over days: my own rises from 3 to 5.",
]


def test_whatever_a_cell_shows_is_described_on_the_page_too(tmp_path):
    """Figures that a cell returns, displays and redraws, saved small or not, and a figure of a student's own."""
    cells = [new_code_cell(source.strip()) for source in SHOWN.split("---")]
    shown = build.execute(new_notebook(cells=cells), tmp_path)
    assert [list(pictures(cell)) for cell in shown.cells] == [[], *([text] for text in TOLD)]
    page, _ = HTMLExporter().from_notebook_node(shown)  # writes "No description has been provided" where it finds none
    assert [image["alt"] for image in BeautifulSoup(page, "html.parser").find_all("img")] == TOLD


def test_what_was_measured_is_in_the_text():
    x = torch.linspace(0, 10, 101)
    hill = plots.describe(plots.lines({"hill": 3 * torch.exp(-((x - 4) ** 2)), "flat": 0 * x + 2}, x))
    assert "hill starts and ends at 0, with a peak of 3 at 4; flat stays at 2" in hill
    clouds = plots.describe(plots.scatters([torch.randn(500, 2), torch.zeros(500, 2)], ["wide", "a point"]))
    assert "a point 0 × 0" in clouds and "500 points" in clouds
    down = plots.describe(plots.descent([1000, 500, 0], {"x": [9.0, 5.0, 2.0]}))  # T on the left, as it is drawn
    assert "x falls from 9 to 2" in down
    drawn = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert "histogram of four, highest near" in plots.describe(plots.histograms({"four": drawn}, bins=4))
    curves = plots.describe(plots.schedule_curves({"linear": linear_schedule(), "cosine": cosine_schedule()}))
    assert "Log-SNR over t / T" in curves and "linear falls from 9.21 to -10.1" in curves
    rows = plots.describe(plots.show_rows([torch.zeros(4, 1, 8, 8)] * 2, ["left", "up"]))
    assert "8 pictures in 2 rows of 4; the rows: left, up." in rows
    text = plots.describe(plots.scatters([torch.randn(9, 2)] * 40, [f"panel {i}" for i in range(40)]))
    many = plots.describe(plots.lines({f"curve number {i}": torch.rand(50) for i in range(60)}))
    assert text.endswith("And 39 more panels.") and "and 52 more" in many and len(many) < 1000  # to listen to


# Okabe and Ito (2008), "Color Universal Design": told apart with all cones, and without the red or the green ones
TOLD_APART = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def test_colours_can_be_told_apart_by_every_eye():
    assert set(plots.COLORS) <= TOLD_APART


def alike(figure) -> list[str]:
    """What only its colour tells from something else in the same panel: lines, outlines, bars."""
    found = []
    for ax in figure.axes:
        bars = [container for container in ax.containers if len(container)]
        outlines = [patch for patch in set(ax.patches) - set(itertools.chain(*bars)) if not patch.get_fill()]
        drawn = [(f"line {x._unscaled_dash_pattern} {x.get_marker()}", x.get_color()) for x in ax.get_lines()]
        drawn += [(f"bars {x[0].get_hatch()}", x[0].get_facecolor()) for x in bars]
        drawn += [(f"outline {x.get_linestyle()}", x.get_edgecolor()) for x in outlines]
        for look in dict(drawn):
            if len({to_hex(color) for other, color in drawn if other == look} - {"#000000"}) > 1:
                found.append(look)
    return found


SEVERAL = ("Paths of the chain", "Pairs of Gaussians")  # nobody has to tell which is which


def watch(told: Path) -> None:
    """From now on a line is written for every figure of this process: what colour alone tells in it, and its text.

    In a lesson's kernel: see test_notebooks.
    """

    def describe(figure):
        text = plots.describe(figure)
        with told.open("a") as file:
            print([] if text.startswith(SEVERAL) else alike(figure), text, file=file)
        return text

    plots.base.describe = describe


def test_what_is_said_by_colour_alone_is_found():
    figure, (left, middle, right) = plt.subplots(1, 3)
    left.plot([[1, 2], [2, 1]])
    middle.hist([1, 2, 3], histtype="step", color="red")
    middle.hist([3, 4, 3], histtype="step", color="blue")
    right.bar([1], [2], color="red")
    right.bar([2], [2], color="blue")
    plt.close(figure)
    assert [text.split()[0] for text in alike(figure)] == ["line", "outline", "bars"]
