"""For readers who do not see the pictures, or not the colours: alternative texts, dashes and markers, headings."""

import itertools
import re

import lessons
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from matplotlib.colors import to_hex
from nbformat.v4 import new_code_cell, new_notebook

from ddpm_course import plots
from ddpm_course.classroom import build
from ddpm_course.schedules import cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule


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
    return (
        bool(text) and len(text) >= 20 and " " in text and not re.search(r"\.(png|jpe?g|gif)\b|<Figure|object at", text)
    )


# ---- what is stored -----------------------------------------------------------------------------------------------


@lessons.every_edition
def test_every_stored_picture_has_an_alternative_text(lesson):
    texts = {cell.id: list(pictures(cell)) for cell in lesson.code}
    assert [name for name, found in texts.items() if not all(map(tells, found))] == []
    every = list(itertools.chain(*texts.values()))
    assert len(every) >= 5 and len(set(every)) == len(every), "two pictures have the same text"


@lessons.every_source
def test_pictures_in_the_text_have_an_alternative_text(lesson):
    for cell in lesson.markdown:
        assert not re.search(r"!\[\s*\]\(|<img(?![^>]*\salt=\"[^\"]+\")", cell.source), cell.id


def faults_of_headings(texts: list[str]) -> list[str]:
    """Headings that leave a level out on the way down, and titles after the first."""
    above, found = 0, []
    for text in texts:
        for marks, title in re.findall(r"^(#+) (.+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE):
            if len(marks) > above + 1 or (len(marks) == 1 and above):
                found.append(f"{marks} {title}")
            above = len(marks)
    return found


@lessons.every_source
def test_headings_are_in_order(lesson):
    assert faults_of_headings([cell.source for cell in lesson.markdown]) == []


def test_headings_out_of_order_are_found():
    assert faults_of_headings(["# A", "## B", "### C\n\n```\n#### no heading\n```", "## D"]) == []
    assert faults_of_headings(["# A\n\n### B", "# C"]) == ["### B", "# C"]
    assert faults_of_headings(["## A"]) == ["## A"]


# ---- how it gets there --------------------------------------------------------------------------------------------


SHOWN = """
import torch, matplotlib.pyplot as plt
from IPython.display import display
from ddpm_course import plots
x = torch.linspace(0, 1, 20)
images = torch.zeros(4, 1, 8, 8)
---
plots.lines({"slow": x**2, "fast": x**0.5}, x, ylabel="way")
---
plots.as_jpeg(plots.show_images(images, list("abcd"), alt="Four black squares"))
---
plots.in_few_greys(plots.show_rows([images, images], ["left & right", "up"]))
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
    "Four black squares. 4 pictures in a row; above them: a, b, c, d.",
    "8 pictures in 2 rows of 4; the rows: left & right, up.",
    "Redrawn over t: falls from 3 to 2.",
    'Noise turns into "boots"',
    "Over days: my own rises from 3 to 5.",
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    cells = [new_code_cell(source.strip()) for source in SHOWN.split("---")]
    return build.execute(new_notebook(cells=cells), tmp_path_factory.mktemp("shown"))


def test_whatever_a_cell_shows_is_described(shown):
    """Figures that a cell returns, displays and redraws, saved small or not, and a figure of a student's own."""
    assert [list(pictures(cell)) for cell in shown.cells] == [[], *([text] for text in TOLD)]


def test_the_texts_reach_the_page(shown):
    """nbconvert writes 'No description has been provided' where it finds none."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_notebook_node(shown)
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


def test_a_text_stays_short_enough_to_listen_to():
    panels = [f"panel {i}" for i in range(40)]
    text = plots.describe(plots.scatters([torch.randn(9, 2)] * 40, panels))
    many = plots.describe(plots.lines({f"curve number {i}": torch.rand(50) for i in range(60)}))
    assert text.endswith("And 39 more panels.") and "and 52 more" in many and len(many) < 1000


# ---- colours ------------------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes (2009), linear RGB, no red or no green cones at all
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour such as "#0072B2", as an eye with these cones sees it; distances of 2 can just be told."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(seen @ linear, 0, 1) / (TO_XYZ @ np.ones(3))
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(colors, seen: np.ndarray) -> float:
    return min(np.linalg.norm(lab(a, seen) - lab(b, seen)) for a, b in itertools.combinations(colors, 2))


@pytest.mark.parametrize("eye", SEEN)
def test_colours_can_be_told_apart_by_every_eye(eye):
    assert nearest(plots.COLORS, SEEN[eye]) > 15


def test_the_simulation_confuses_what_people_confuse():
    """matplotlib's own first colours contain a pair that is nearly one to eyes without green cones."""
    usual = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"]
    assert nearest(usual, SEEN["all cones"]) > 25 and nearest(usual, SEEN["deuteranopia"]) < 10


FOUR = {
    "linear": linear_schedule(), "cosine": cosine_schedule(), "quadratic": quadratic_schedule(),
    "sigmoid": sigmoid_schedule(),
}  # fmt: skip


def seven():
    return {str(i): torch.linspace(0, i, 30) for i in range(7)}


def groups():
    return {"1,000 steps": (range(10), {name: torch.rand(10) for name in "abc"})}


DRAWN = {
    "lines": lambda: plots.lines(seven()),
    "histograms": lambda: plots.histograms({name: torch.rand(50) + i for i, name in enumerate("abcd")}),
    "schedule_curves": lambda: plots.schedule_curves(FOUR),
    "shares_below": lambda: plots.shares_below({name: s.snr[1:].log() for name, s in FOUR.items()}, (-10, 10)),
    "over_t_and_log_snr": lambda: plots.over_t_and_log_snr(
        FOUR, range(1, 1000, 50), {name: torch.rand(20) for name in FOUR}, (torch.arange(3), torch.rand(3))
    ),
    "work_and_steps": lambda: plots.work_and_steps(
        torch.arange(9), {"work": {name: torch.rand(9) for name in "ab"}}, {"linear": torch.rand(50)}
    ),
    "time_and_memory": lambda: plots.time_and_memory([8, 16], *[{name: [1, 2 + i] for i, name in enumerate("abc")}] * 2),
    "ablations": lambda: plots.ablations(
        {name: [(1, 1.0), (2, 0.5)] for name in "abcd"}, {name: [0.3, 0.2, 0.1] for name in "abcd"}
    ),
    "best_guesses": lambda: plots.best_guesses(
        torch.arange(9), torch.rand(9), torch.arange(9), {name: torch.rand(9) for name in ("l2", "huber", "l1")}
    ),
    "bits_against_std": lambda: plots.bits_against_std([0.1, 0.2], [3.0, 4.0], {"a": 0.12, "b": 0.15}),
    "variances": lambda: plots.variances(groups()),
    "spectra": lambda: plots.spectra(
        torch.rand(4, 1, 16, 16), FOUR["linear"].alpha_bar, [900, 700, 500, 200, 50],
        {t: torch.rand(4, 1, 16, 16) for t in (1000, 800, 500, 100)},
    ),
    "descent": lambda: plots.descent([3, 2, 1], {"x": [3, 2, 1], "x0": [2, 2, 1]}, 0.5),
    "bias_curves": lambda: plots.bias_curves(
        torch.tensor([100, 200]), {"real": torch.tensor([2.0, 1]), "network": torch.tensor([5.0, 4])},
        {"real": 0.1, "network": 3.0},
    ),
    "cumulative_shares": lambda: plots.cumulative_shares({"a": torch.rand(9), "b": torch.rand(9)}, 0.5, (0.4, 0.6)),
    "signal_and_noise": lambda: plots.signal_and_noise(FOUR["linear"].alpha_bar, [0, 500]),
}  # fmt: skip


def alike(figure) -> list[str]:
    """What only its colour tells from something else in the same panel: lines, outlines, bars."""
    found = []
    for ax in figure.axes:
        looks = {}
        for line in ax.get_lines():
            looks.setdefault(("line", str(line._unscaled_dash_pattern), line.get_marker()), set()).add(
                to_hex(line.get_color())
            )
        for bars in (each for each in ax.containers if len(each)):
            looks.setdefault(("bars", bars[0].get_hatch()), set()).add(to_hex(bars[0].get_facecolor()))
        for patch in ax.patches:
            if patch not in itertools.chain(*ax.containers) and not patch.get_fill():
                looks.setdefault(("outline", patch.get_linestyle()), set()).add(to_hex(patch.get_edgecolor()))
        found += [f"{look[0]} {look[1:]}: {colors}" for look, colors in looks.items() if len(colors - {"#000000"}) > 1]
    return found


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_is_said_by_colour_alone(name):
    assert alike(DRAWN[name]()) == []


def test_what_is_said_by_colour_alone_is_found():
    figure, (left, middle, right) = plt.subplots(1, 3)
    left.plot([1, 2], label="a")
    left.plot([2, 1], label="b")
    middle.hist([1, 2, 3], histtype="step", color="red")
    middle.hist([3, 4, 3], histtype="step", color="blue")
    right.bar([1], [2], color="red")
    right.bar([2], [2], color="blue")
    plt.close(figure)
    assert [text.split()[0] for text in alike(figure)] == ["line", "outline", "bars"]
