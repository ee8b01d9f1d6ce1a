"""Every lesson, both editions: what is committed is sound, and it runs from top to bottom in fast mode."""

import os
import re
import sys
from copy import deepcopy
from pathlib import Path

import lessons
import pytest
from courses import python, run
from nbformat.v4 import new_code_cell

from ddpm_course.classroom import build, editions, verify

TESTS = Path(__file__).parent


def exercises(lesson: lessons.Lesson) -> dict[str, str]:
    """Which function each check cell checks, from its one line `f = checks.f(f)`."""
    found = {}
    for cell in filter(editions.is_check, lesson.code):
        line = re.fullmatch(r"(\w+) = checks\.(\w+)\(\1\)", cell.source.strip())
        assert line and line[1] == line[2], f"{cell.id} is not of the form f = checks.f(f): {cell.source}"
        found[cell.id] = line[1]
    return found


def test_what_is_committed_is_sound():
    """Equal editions, no solutions handed out, every cell run, no errors, no standard error, links that work …"""
    assert {"00", "01", "02"} <= {name[:2] for name in lessons.NAMES}
    faults = verify.verify()
    assert not faults, "\n" + "\n".join(faults)


@lessons.every_edition
def test_at_least_five_outputs_are_compared(lesson):
    """nbval's lax mode compares the cells with this tag; a comparison of nothing with nothing does not count."""
    marked = [cell for cell in lesson.notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len([cell for cell in marked if lesson.printed(cell.id).strip()]) == len(marked) >= 5


@lessons.every_source
def test_every_check_is_right_about_both_editions(lesson):
    """The verdicts that a reader sees: solved in the one edition, nothing attempted in the other."""
    student, checked = lessons.read("student", lesson.name), exercises(lesson)
    assert checked and checked == exercises(student)
    for cell in checked:
        assert re.search(r"\bsolved\b", lesson.printed(cell)), f"{cell}: {lesson.printed(cell)}"
        assert re.search(r"\bnot attempted\b", student.printed(cell)), f"{cell}: {student.printed(cell)}"


@lessons.every_edition
def test_runs_from_top_to_bottom(lesson):
    """nbval in fast mode: no cell fails or writes to standard error, marked outputs are the stored ones.

    The student edition has nothing solved, as after Colab's "Run all" on the first day.
    """
    options = ["--nbval-lax", "--nbval-cell-timeout=120", "--tb=short", "--color=no", "-q", "-o", "addopts="]
    plugins = ["-p", "nbval_quiet", "-p", "no:cacheprovider"]
    settings = os.environ | {"DDPM_COURSE_FAST": "1", "PYTHONPATH": str(TESTS)}
    settings.pop("MPLBACKEND")  # figures are drawn as a reader's are
    done = run(sys.executable, "-m", "pytest", *options, *plugins, lesson.path, env=settings)
    if done.returncode:
        pytest.fail(done.stdout[-8000:] + done.stderr[-2000:], pytrace=False)


ALONE = """
import sys
sys.modules["ddpm_course"] = None  # importing it raises
sys.path.insert(0, ".")
import my_ddpm
print([name for name in sys.argv[1:] if not callable(getattr(my_ddpm, name, None))])
"""
WATCHED = """
from pathlib import Path
import test_accessibility
test_accessibility.watch(Path("figures"))
"""


def test_all_solved_leaves_a_library_that_needs_no_course_and_no_figure_speaks_by_colour_alone(tmp_path):
    """Solved from the first lesson to the last in one folder, away from the clone: my_ddpm.py stands alone."""
    wanted = []
    for name in lessons.NAMES:
        lesson = lessons.read("solutions", name)
        wanted += exercises(lesson).values()
        notebook = deepcopy(lesson.notebook)
        notebook.cells.insert(0, new_code_cell(WATCHED))
        build.execute(notebook, tmp_path, name=name, fast=True, DDPM_COURSE_SAVE="1", PYTHONPATH=str(TESTS))
    figures = (tmp_path / "figures").read_text().splitlines()
    assert len(figures) > 80 and [figure for figure in figures if not figure.startswith("[]")] == []
    assert python("-I", "-c", ALONE, *wanted, cwd=tmp_path) == "[]\n"
    python("-m", "ddpm_course.checks", "my_ddpm.py", cwd=tmp_path)  # says with its exit code that all are solved
