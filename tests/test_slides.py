"""The lecture path: nbconvert turns every lesson into a talk of pictures and formulas, with little to read."""

import re

import pytest
from bs4 import BeautifulSoup
from traitlets.config import Config

from ddpm_course.classroom import editions

LESSONS = editions.lessons()
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$", re.DOTALL)
KINDS = {"slide", "subslide", "fragment", "notes", "skip", "-"}


def notebook(lesson):
    return editions.read(editions.ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb")


def slides(source):
    """What `jupyter nbconvert --to slides --no-input` makes: one element a slide, without the speaker's notes."""
    from nbconvert import SlidesExporter

    quiet = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    page, _ = SlidesExporter(config=Config(TemplateExporter=quiet)).from_notebook_node(source)
    found = BeautifulSoup(page, "html.parser").select(".slides > section > section")
    for slide in found:
        for notes in slide.select("aside.notes"):
            notes.decompose()
    return found


def words(slide) -> int:
    """Words to read; a formula counts as one."""
    return len(FORMULA.sub(" formula ", slide.get_text(" ")).replace("¶", "").split())


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_is_a_talk_of_ten_to_twenty_slides_with_little_to_read(lesson):
    found = slides(notebook(lesson))
    assert 10 <= len(found) <= 20
    assert "Lesson" in found[0].get_text()
    for number, slide in enumerate(found, start=1):
        assert slide.get_text(strip=True) or slide.find("img"), f"slide {number} is empty"
        assert words(slide) <= 120, f"slide {number} has {words(slide)} words: {slide.get_text(' ', strip=True)[:80]}"
    shown = sum(bool(slide.find("img") or FORMULA.search(slide.get_text())) for slide in found)
    assert shown >= len(found) / 2, "most slides are text alone"


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_cell_says_what_the_talk_does_with_it_and_no_exercise_or_answer_is_shown(lesson):
    """A cell without a word about it would hang on to the slide before. A talk is held before the exercises are done."""
    for cell in notebook(lesson).cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        assert kind in KINDS, cell.id
        if kind not in ("skip", "notes"):
            assert not (editions.is_solution(cell) or editions.is_check(cell)), cell.id
            assert "<details>" not in cell.source and "### Exercise" not in cell.source, cell.id


def test_a_new_cell_stays_out_of_the_talk():
    source = notebook(LESSONS[0])
    for cell in source.cells[5:8]:
        del cell.metadata["slideshow"]
    editions.refresh(source)
    assert [cell.metadata["slideshow"] for cell in source.cells[5:8]] == [{"slide_type": "skip"}] * 3
