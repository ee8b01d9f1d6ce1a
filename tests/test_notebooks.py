"""Every lesson, both editions: what is committed is sound, and it runs from top to bottom in fast mode."""

import os
import re
import sys
from pathlib import Path

import lessons
import pytest
from courses import python, run, save
from nbformat.v4 import new_code_cell, new_notebook

from ddpm_course.classroom import build, editions, verify

TESTS = Path(__file__).parent


def exercises(lesson: lessons.Lesson) -> dict[str, str]:
    """Which function each check cell checks, from its one line `f = checks.f(f)`, below a title where it is folded."""
    found = {}
    for cell in filter(editions.is_check, lesson.code):
        line = re.fullmatch(r"(?:# @title .*\n)?(\w+) = checks\.(\w+)\(\1\)", cell.source.strip())
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
def test_the_first_line_of_a_folded_cell_is_a_title(lesson):
    """JupyterLab and Colab show it; in the clinic a function's name would tell where a patient is ill."""
    for cell in lesson.code:
        titled = cell.source.startswith("# @title ")
        assert titled == ("cellView" in cell.metadata) == ("jupyter" in cell.metadata), cell.id


WATCHED = """
from pathlib import Path
import test_accessibility
test_accessibility.watch(Path({}))
"""


@lessons.every_edition
def test_runs_from_top_to_bottom_and_no_figure_speaks_by_colour_alone(lesson, tmp_path):
    """nbval in fast mode: no cell fails or writes to standard error, marked outputs are the stored ones.

    The student edition has nothing solved, as after Colab's "Run all" on the first day.
    """
    figures = tmp_path / "figures"
    save(tmp_path / "profile_default" / "startup" / "watch.py", WATCHED.format(repr(str(figures))))
    options = ["--nbval-lax", "--nbval-cell-timeout=120", "--tb=short", "--color=no", "-q", "-o", "addopts="]
    plugins = ["-p", "nbval_quiet", "-p", "no:cacheprovider"]
    settings = os.environ | {"DDPM_COURSE_FAST": "1", "PYTHONPATH": str(TESTS), "IPYTHONDIR": str(tmp_path)}
    settings.pop("MPLBACKEND")  # figures are drawn as a reader's are
    done = run(sys.executable, "-m", "pytest", *options, *plugins, lesson.path, env=settings)
    if done.returncode:
        pytest.fail(done.stdout[-8000:] + done.stderr[-2000:], pytrace=False)
    shown = figures.read_text(encoding="utf-8").splitlines()
    assert len(shown) >= 5 and [figure for figure in shown if not figure.startswith("[]")] == []


ALONE = """
import sys
sys.modules["ddpm_course"] = None  # importing it raises
sys.path.insert(0, ".")
import my_ddpm
print([name for name in sys.argv[1:] if not callable(getattr(my_ddpm, name, None))])
"""


def test_all_solved_leaves_a_library_that_needs_no_course(tmp_path):
    """Solved from the first lesson to the last in one folder, away from the clone: my_ddpm.py stands alone."""
    wanted, cells = [], []
    for name in lessons.NAMES:
        lesson = lessons.read("solutions", name)
        wanted += (checked := exercises(lesson)).values()
        needed = {"setup", "imports", *checked, *(cell.replace("check", "ex") for cell in checked)}
        cells += [
            new_code_cell("%reset -f"),
            *(new_code_cell(cell.source) for cell in lesson.code if cell.id in needed),
        ]
    notebook = new_notebook(cells=cells, metadata=lesson.notebook.metadata)
    build.execute(notebook, tmp_path, fast=True, DDPM_COURSE_SAVE="1")
    assert python("-I", "-c", ALONE, *wanted, cwd=tmp_path) == "[]\n"
    python("-m", "ddpm_course.checks", "my_ddpm.py", cwd=tmp_path)  # says with its exit code that all are solved
