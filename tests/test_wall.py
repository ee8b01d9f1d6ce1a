"""The page for the wall is drawn from lesson 13's table, which names probes and lessons that there are."""

import re
import sys

import pytest

from ddpm_course.classroom.editions import ROOT, lessons, read
from ddpm_course.doctor import PROBES

sys.path.append(str(ROOT / "assets"))

import wall

TABLE = "| what you see | suspects | probe | lesson |\n|---|---|---|---|\n| It is $x_t$. | much `here`; no $0$ | `one`, `two` | 06 A, B; 07 C |"


def headings() -> set[str]:
    """ "06 The loop" for every section of the lessons."""
    found = set()
    for lesson in lessons():
        for cell in read(ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb").cells:
            found |= {f"{lesson[:2]} {title}" for title in re.findall("^## (.+)", cell.source, re.MULTILINE)}
    return found


def test_the_page_is_of_the_notebook_s_present_table():
    page = (ROOT / "assets" / "bug_clinic.pdf").read_bytes()
    assert wall.digest(wall.table()).encode() in page, "run: python assets/make.py wall"


def test_every_probe_is_on_the_wall_and_every_lesson_has_its_section():
    body = wall.rows(wall.table())[1:]
    assert 14 <= len(body) <= 20 and all(len(cells) == 4 and all(cells) for cells in body)
    named = {name for cells in body for name in re.findall("`([^`]+)`", cells[2])}
    assert named == {probe.name for probe in PROBES}
    assert {lesson for cells in body for lesson in cells[3].split("; ")} <= headings()


def test_the_lessons_of_the_probes_have_their_sections():
    known = headings()
    for probe in PROBES:
        number, *title = re.fullmatch("lesson ([0-9]{2})(?:, '(.+)')?", probe.lesson).groups()
        assert title == [None] or f"{number} {title[0]}" in known, probe.lesson


def test_a_page_holds_its_digest_and_the_same_text_gives_the_same_page(tmp_path):
    pages = []
    for name in ("a.pdf", "b.pdf"):
        wall.draw(TABLE, tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1] and wall.digest(TABLE).encode() in pages[0]


def test_lines_fit_their_column_and_formulas_stay_whole():
    assert wall.rows(TABLE) == [["what you see", "suspects", "probe", "lesson"],
                                ["It is $x_t$.", "much `here`; no $0$", "`one`, `two`", "06 A, B; 07 C"]]  # fmt: skip
    assert wall.wrapped("`one`, `two`", 2, 100) == ["one", "two"]
    assert wall.wrapped("06 A, B; 07 C", 3, 100) == ["06 A, B", "07 C"]
    text = r"the root $\sqrt{\bar\alpha_t} = 0$, and more words after it"
    lines = wall.wrapped(text, 1, 8)
    assert " ".join(lines) == text and all(line.count("$") % 2 == 0 for line in lines) and len(lines) > 2
    assert all(wall.width(line, 1) <= 8 for line in lines if " " in line.split("$")[-1].strip())


def test_a_table_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shorten it"):
        wall.draw("\n".join([TABLE, *TABLE.splitlines()[-1:] * 80]), tmp_path / "a.pdf")
