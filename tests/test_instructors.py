"""What the page for instructors says is so: names, times, headings, commands, and code that works as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest

from ddpm_course import checks
from ddpm_course.classroom import editions
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.verify import exercise_faults

PAGE = (editions.ROOT / "notebooks" / "INSTRUCTORS.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\d\d .+)\n\n((?:- .+\n)+)", PAGE, flags=re.MULTILINE))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]


PLANS = PAGE[PAGE.index("## Plans") : PAGE.index("## Lesson by lesson")]
EXERCISES = {exercise.number: exercise for exercise in checks.EXERCISES}


def source_of(lesson: str):
    [name] = editions.lessons(chosen=[lesson])
    return editions.read(editions.ROOT / "notebooks" / "solutions" / f"{name}.ipynb")


PROSE = {  # by the lesson's number
    lesson[:2]: "\n".join(cell.source for cell in source_of(lesson).cells if cell.cell_type == "markdown")
    for lesson in editions.lessons()
}


def headings(lesson: str) -> list[str]:
    return re.findall(r"^##+ (.+)$", PROSE[lesson], flags=re.MULTILINE)


def test_every_lesson_has_its_section_and_its_minutes():
    titles = [re.search(r"^# Lesson (.+)$", text, re.MULTILINE)[1].replace(":", "") for text in PROSE.values()]
    assert list(SECTIONS) == titles
    table = dict(re.findall(r"^\| (\d\d) [^|]+\| (\d+) min \|", PAGE, flags=re.MULTILINE))
    stated = {
        lesson: re.findall(r"^Difficulty [●○]+ · (\d+) minutes?", text, flags=re.MULTILINE)
        for lesson, text in PROSE.items()
    }
    assert table == {lesson: str(sum(map(int, minutes))) for lesson, minutes in stated.items()}


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_names_two_mistakes_that_the_checks_know_and_quotes_headings(title):
    named = re.findall(r"`(\d\.\d) (\w+)`", SECTIONS[title].split("\n")[0])
    assert len(named) == 2
    for number, mistake in named:
        assert f"{EXERCISES[number].lesson} " == title[:3]
        assert mistake in [known.id for known in EXERCISES[number].mistakes]
    assert set(re.findall('"([^"]+)"', SECTIONS[title])) <= set(headings(title[:2]))


def test_the_plans_fill_their_time_and_quote_headings_and_exercises_that_are_there():
    found = 0
    for row in re.findall(r"^\| [\d–]+ \| (.+)$", PLANS, flags=re.MULTILINE):
        known = [heading for lesson in re.findall(r"\b0\d\b", row) for heading in headings(lesson)]
        quoted = re.findall('"([^"]+)"', row)
        assert set(quoted) <= set(known), row
        assert set(re.findall(r"\b\d\.\d\b", row)) <= EXERCISES.keys(), row
        found += len(quoted)
    assert found >= 10
    spans = [tuple(map(int, span)) for span in re.findall(r"^\| (\d+)–(\d+) \|", PLANS, flags=re.MULTILINE)]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])] and spans[-1][1] == 90
    half_day = PLANS[PLANS.index("**Half a day**") : PLANS.index("**A week**")]
    assert sum(map(int, re.findall(r"^\| (\d+) \|", half_day, flags=re.MULTILINE))) == 240


def test_the_commands_work_as_typed(tmp_path, monkeypatch, capsys):
    """In an empty folder; `publish` in a clone of a few files (tests/test_publish.py has a whole one)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "submitted").mkdir()
    (tmp_path / "submitted" / "ada.ipynb").write_text("no notebook")  # tests/test_report.py has real ones
    for place in ("ddpm_course/__init__.py", "notebooks/INSTRUCTORS.md"):
        (tmp_path / "clone" / place).parent.mkdir(parents=True)
        shutil.copy(editions.ROOT / place, tmp_path / "clone" / place)
    tried = []
    for command in COMMANDS:
        words = shlex.split(command.replace("OWNER/NAME@TAG", "octo/cat@v1"))
        if words[:3] == ["python", "-m", "ddpm_course.classroom"]:
            tried.append(words[3])
            network = ["--with-network"] if words[3] == "report" and not sys.platform.startswith("linux") else []
            root = tmp_path / "clone" if words[3] == "publish" else editions.ROOT
            assert main(words[3:] + network, root) == 0, capsys.readouterr().err
    assert tried == ["publish", "release", "release", "report"]
    assert 'REF = "v1"' in (tmp_path / "clone" / "ddpm_course" / "__init__.py").read_text(encoding="utf-8")
    assert (tmp_path / "handout" / "02_closed_form.ipynb").exists()
    assert (tmp_path / "grading" / "source" / "01_forward_process").is_dir()
    assert (tmp_path / "report" / "report.csv").exists()


def test_the_slides_are_made_as_typed(tmp_path):
    [command] = [line for line in COMMANDS if "nbconvert" in line]
    words = shlex.split(command)
    source = editions.ROOT / words[-1]
    (tmp_path / words[-1]).parent.mkdir(parents=True)
    shutil.copy(source, tmp_path / words[-1])
    subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "slides" / f"{source.stem}.slides.html").exists()


def test_an_exercise_is_added_as_described(tmp_path):
    """In a clone with one short lesson: the page's two blocks, the one import, and `build`."""
    record, cells = (text for language, text in BLOCKS if language == "python")
    assert len([line for line in record.splitlines() if line.strip()]) == 15
    shutil.copytree(
        editions.ROOT / "ddpm_course", tmp_path / "ddpm_course", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "assets").mkdir()
    lesson = source_of("01")
    lesson.cells = [cell for cell in lesson.cells if cell.id in ("setup", "imports", "fixed-point-plot")]
    lesson.cells[-1].source = "pass"
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    path = tmp_path / "notebooks" / "solutions" / "01_forward_process.ipynb"
    nbformat.write(lesson, path)

    here = tmp_path / "ddpm_course" / "exercises"
    (here / "ours.py").write_text(record, encoding="utf-8")
    line = re.search(r"`(from \.ours import \w+)`", PAGE)[1]
    text = (here / "__init__.py").read_text(encoding="utf-8")
    text = text.replace("from .records", f"{line}\nfrom .records").replace(
        "next_variance),", "next_variance, half_life),"
    )
    (here / "__init__.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-c", cells)
    assert exercise_faults(editions.read(path)) == []
    python("-m", "ddpm_course.classroom", "build", "--fast")
    for edition, verdict in ((path, "solved"), (path.parents[1] / path.name, "not attempted yet")):
        [check] = [cell for cell in editions.read(edition).cells if cell.id == "check-1-5"]
        assert check.outputs[0].data["text/plain"].startswith(("✓", "○"))
        assert f"Exercise 1.5, half_life: {verdict}." in check.outputs[0].data["text/plain"]
    answers = {
        "0.5 / beta": "linear",
        "1 / -math.log1p(-beta)": "to_1_over_e",
        "math.log(0.5) / math.log1p(-beta)": None,
    }
    typed = "import math\nfrom ddpm_course import checks\n"
    for answer in answers:
        typed += f"print(checks.half_life.check(lambda beta: {answer}).mistake)\n"
    assert python("-c", typed).split() == [str(mistake) for mistake in answers.values()]
    (tmp_path / "mine.py").write_text(
        "import math\nfrom ddpm_course import checks\n\n"
        "def half_life(beta):\n    return math.log(0.5) / math.log(1 - beta)\n\nchecks.half_life(half_life)\n",
        encoding="utf-8",
    )
    environment["DDPM_COURSE_SAVE"] = "1"
    assert "Saved in my_ddpm.py" in python("mine.py")
