"""Every lesson, both editions: what is committed is sound, and it runs from top to bottom in fast mode."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_course import editions, verification

ROOT = editions.ROOT
LESSONS = editions.lessons()
FOLDERS = {"student": ROOT / "notebooks", "solutions": ROOT / "notebooks" / "solutions"}
TESTS = Path(__file__).parent


def exercises(notebook) -> dict[str, str]:
    """Which function each check cell checks, from its one line `f = checks.f(f)`."""
    found = {}
    for cell in filter(editions.is_check, notebook.cells):
        line = re.fullmatch(r"(\w+) = checks\.(\w+)\(\1\)", cell.source.strip())
        assert line and line[1] == line[2], f"{cell.id} is not of the form f = checks.f(f): {cell.source}"
        found[cell.id] = line[1]
    return found


def printed(cell) -> str:
    """The text of a cell's outputs, plain and HTML."""
    data = [text for output in cell.outputs for text in output.get("data", {}).values() if isinstance(text, str)]
    return "\n".join([*(output.get("text", "") for output in cell.outputs), *data])


def test_the_lessons_are_there():
    numbers = [name[:2] for name in LESSONS]
    assert len(set(numbers)) == len(numbers) and set(numbers) >= {"00", "01", "02"}


def test_what_is_committed_is_sound():
    """Equal editions, no solutions handed out, every cell run, no errors, no standard error, links that work …"""
    faults = verification.verify()
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("edition", FOLDERS)
def test_at_least_five_outputs_are_compared(edition, lesson):
    """nbval's lax mode compares the cells with this tag; a comparison of nothing with nothing does not count."""
    notebook = editions.read(FOLDERS[edition] / f"{lesson}.ipynb")
    marked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len([cell for cell in marked if printed(cell).strip()]) == len(marked) >= 5


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_check_is_right_about_both_editions(lesson):
    """The verdicts that a reader sees: solved in the one edition, nothing attempted in the other."""
    source = editions.read(FOLDERS["solutions"] / f"{lesson}.ipynb")
    student = editions.read(FOLDERS["student"] / f"{lesson}.ipynb")
    checked = exercises(source)
    assert checked and checked == exercises(student)
    for solved, stub in zip(
        filter(editions.is_check, source.cells), filter(editions.is_check, student.cells), strict=True
    ):
        assert re.search(r"\bnot attempted\b", printed(stub)), f"{stub.id}: {printed(stub)}"
        assert re.search(r"\bsolved\b", printed(solved)), f"{solved.id}: {printed(solved)}"


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("edition", FOLDERS)
def test_runs_from_top_to_bottom(edition, lesson):
    """nbval in fast mode: no cell fails or writes to standard error, marked outputs are the stored ones.

    The student edition has nothing solved, as after Colab's "Run all" on the first day.
    """
    options = ["--nbval-lax", "--nbval-cell-timeout=120", "--tb=short", "--color=no", "-q", "-o", "addopts="]
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}  # figures as a reader's
    plugins = ["-p", "nbval_quiet", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugins, str(FOLDERS[edition] / f"{lesson}.ipynb")],
        cwd=ROOT,
        env={**environment, "DDPM_COURSE_FAST": "1", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stdout[-8000:] + done.stderr[-2000:], pytrace=False)


def test_all_solved_leaves_a_library_that_needs_no_course(tmp_path):
    """Solved from the first lesson to the last in one folder, away from the clone: my_ddpm.py stands alone."""
    wanted = []
    for lesson in LESSONS:
        source = editions.read(FOLDERS["solutions"] / f"{lesson}.ipynb")
        wanted += exercises(source).values()
        editions.run(source, tmp_path, name=lesson, fast=True, DDPM_COURSE_SAVE="1")
    script = """
import sys
sys.modules["ddpm_course"] = None  # importing it raises
sys.path.insert(0, ".")
import my_ddpm
print([name for name in sys.argv[1:] if not callable(getattr(my_ddpm, name, None))])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, *wanted], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    checked = subprocess.run(
        [sys.executable, "-m", "ddpm_course.checks", "my_ddpm.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
