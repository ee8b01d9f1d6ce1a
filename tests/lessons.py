"""The lessons as they are committed, for every test that reads one; the fixture `lesson` hands one out.

def test_something(lesson): ...        in test_lesson05.py: lesson 05, the solutions edition
@lessons.every_source                  before it: once for each lesson
@lessons.every_edition                 once for each lesson and edition
"""

import re
from contextlib import redirect_stdout
from functools import cache
from io import StringIO

import pytest

from ddpm_course.classroom import editions

NAMES = editions.lessons()  # "00_start_here", …
FOLDERS = {"student": editions.ROOT / "notebooks", "solutions": editions.ROOT / "notebooks" / "solutions"}


class Lesson:
    """One edition of a lesson, with its cells by their ids. All tests share it: they leave it as it is."""

    def __init__(self, edition: str, name: str):
        self.name, self.path = name, FOLDERS[edition] / f"{name}.ipynb"
        self.notebook = editions.read(self.path)
        self.cells = {cell.id: cell for cell in self.notebook.cells}
        self.code = [cell for cell in self.notebook.cells if cell.cell_type == "code"]
        self.markdown = [cell for cell in self.notebook.cells if cell.cell_type == "markdown"]

    def source(self, cell: str) -> str:
        return self.cells[cell].source

    def printed(self, cell: str) -> str:
        """The text of a cell's stored outputs, plain and HTML."""
        outputs = self.cells[cell].outputs
        shown = [text for output in outputs for text in output.get("data", {}).values() if isinstance(text, str)]
        return "\n".join([*(output.get("text", "") for output in outputs), *shown])

    def numbers(self, cell: str) -> list[list[float]]:
        """The numbers that a cell printed, line by line."""
        lines = "".join(output.get("text", "") for output in self.cells[cell].outputs).splitlines()
        return [[float(n) for n in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?", line)] for line in lines]

    def run(self, *cells: str, **given) -> dict:
        """What these cells leave behind, run after the lesson's imports, and what they print as "printed".

        given:  names that the cells use, in place of the imported ones or of what other cells would leave
        """
        namespace = {}
        with redirect_stdout(StringIO()) as out:
            exec(self.source("imports"), namespace)
            namespace |= given
            for cell in cells:
                exec(self.source(cell), namespace)
        return namespace | {"printed": out.getvalue()}


read = cache(Lesson)


def by_number(number: str, edition: str = "solutions") -> Lesson:
    """Lesson "05", say."""
    (name,) = (name for name in NAMES if name.startswith(number))
    return read(edition, name)


every_source = pytest.mark.parametrize("lesson", [("solutions", name) for name in NAMES], ids=NAMES, indirect=True)
EDITIONS = [(edition, name) for edition in FOLDERS for name in NAMES]
every_edition = pytest.mark.parametrize("lesson", EDITIONS, ids="-".join, indirect=True)
