"""The lecture path: nbconvert turns every lesson into a talk of pictures and formulas, with little to read."""

import re

import lessons
from bs4 import BeautifulSoup
from nbconvert import SlidesExporter
from traitlets.config import Config

from ddpm_course.classroom import editions

FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$", re.DOTALL)
NO_INPUT = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}


@lessons.every_source
def test_a_lesson_is_a_talk_of_ten_to_twenty_slides_with_little_to_read(lesson):
    """As `jupyter nbconvert --to slides --no-input` makes it, without the speaker's notes."""
    page, _ = SlidesExporter(config=Config(TemplateExporter=NO_INPUT)).from_notebook_node(lesson.notebook)
    talk = BeautifulSoup(page, "html.parser")
    for notes in talk.select("aside.notes"):
        notes.decompose()
    slides = talk.select(".slides > section > section")
    assert 10 <= len(slides) <= 20 and "Lesson" in slides[0].get_text()
    for number, slide in enumerate(slides, start=1):
        assert slide.get_text(strip=True) or slide.find("img"), f"slide {number} is empty"
        words = FORMULA.sub(" formula ", slide.get_text(" ")).replace("¶", "").split()  # a formula counts as one
        assert len(words) <= 120, f"slide {number} has {len(words)} words: {' '.join(words[:20])}"
    shown = sum(bool(slide.find("img") or FORMULA.search(slide.get_text())) for slide in slides)
    assert shown >= len(slides) / 2, "most slides are text alone"


@lessons.every_source
def test_every_cell_says_what_the_talk_does_with_it_and_no_exercise_or_answer_is_shown(lesson):
    """A cell without a word about it would hang on to the slide before. A talk is held before the exercises are done."""
    for cell in lesson.notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        assert kind in {"slide", "subslide", "fragment", "notes", "skip", "-"}, cell.id
        if kind not in ("skip", "notes"):
            assert not (editions.is_solution(cell) or editions.is_check(cell)), cell.id
            assert "<details>" not in cell.source and "### Exercise" not in cell.source, cell.id
