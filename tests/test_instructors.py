"""What the page for instructors says is so: names, times, headings, commands, and code that works as it stands there."""

import re
import shlex
import shutil
from functools import partial

import lessons
import pytest
from courses import python, save

from ddpm_course import checks
from ddpm_course.classroom import editions
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.grading import sandbox
from ddpm_course.classroom.verify import exercise_faults

PAGE = (editions.ROOT / "notebooks" / "INSTRUCTORS.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\d\d .+)\n\n((?:- .+\n)+)", PAGE, flags=re.MULTILINE))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]
EXERCISES = {exercise.number: exercise for exercise in checks.EXERCISES}
PROSE = {  # by the lesson's number
    name[:2]: "\n".join(cell.source for cell in lessons.read("solutions", name).markdown) for name in lessons.NAMES
}


def headings(lesson: str) -> list[str]:
    return re.findall(r"^##+ (.+)$", PROSE[lesson], flags=re.MULTILINE)


def test_every_lesson_has_its_section_and_its_minutes():
    titles = [re.search(r"^# Lesson (.+)$", text, re.MULTILINE)[1].replace(":", "") for text in PROSE.values()]
    assert list(SECTIONS) == titles
    table = dict(re.findall(r"^\| (\d\d) [^|]+\| (\d+) min \|", PAGE, flags=re.MULTILINE))
    assert table.keys() == PROSE.keys()
    for lesson, text in PROSE.items():
        stated = re.findall(r"^Difficulty [●○]+ · (\d+) minutes?", text, flags=re.MULTILINE)
        assert sum(map(int, stated)) == int(table[lesson]), lesson


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_names_two_mistakes_that_the_checks_know_and_quotes_headings(title):
    named = re.findall(r"`(\d+\.\d) (\w+)`", SECTIONS[title].split("\n")[0])
    assert len(named) == 2
    for number, mistake in named:
        assert f"{EXERCISES[number].lesson} " == title[:3]
        assert mistake in [known.id for known in EXERCISES[number].mistakes]
    assert set(re.findall('"([^"]+)"', SECTIONS[title])) <= set(headings(title[:2]))


def test_the_commands_work_as_typed(tmp_path, monkeypatch, capsys):
    """In an empty folder; `publish` in a clone of a few files (tests/test_publish.py has a whole one)."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "submitted" / "ada.ipynb", "no notebook")  # tests/test_report.py has real ones
    for place in ("ddpm_course/__init__.py", "notebooks/INSTRUCTORS.md"):
        save(tmp_path / "clone" / place, (editions.ROOT / place).read_bytes())
    tried = []
    for command in COMMANDS:
        words = shlex.split(command.replace("OWNER/NAME@TAG", "octo/cat@v1"))
        if words[:3] == ["python", "-m", "ddpm_course.classroom"]:
            tried.append(words[3])
            bare = ["--trust"] if words[3] == "report" and sandbox.why_not("bubblewrap") else []
            root = tmp_path / "clone" if words[3] == "publish" else editions.ROOT
            assert main(words[3:] + bare, root) == 0, capsys.readouterr().err
        elif words[:2] == ["jupyter", "nbconvert"]:
            tried.append("nbconvert")
            save(tmp_path / words[-1], (editions.ROOT / words[-1]).read_bytes())
            python("-m", *words, cwd=tmp_path)
    assert tried == ["publish", "release", "release", "report", "nbconvert"]
    assert 'REF = "v1"' in (tmp_path / "clone" / "ddpm_course" / "__init__.py").read_text(encoding="utf-8")
    made = ["handout/02_closed_form.ipynb", "grading/source/01_forward_process", "report/report.csv"]
    assert all((tmp_path / name).exists() for name in [*made, "slides/01_forward_process.slides.html"])


ANSWERS = {"0.5 / beta": "linear", "1 / -math.log1p(-beta)": "to_1_over_e", "math.log(0.5) / math.log1p(-beta)": None}


def test_an_exercise_and_a_mistake_are_added_as_described(tmp_path):
    """In a clone with one short lesson: the page's blocks, the one import, and `build`."""
    record, cells = (text for language, text in BLOCKS if language == "python")
    mistake, catalogue, *_ = (text for language, text in BLOCKS if language == "text")
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(editions.ROOT / "ddpm_course", tmp_path / "ddpm_course", ignore=unwanted)
    (tmp_path / "assets").mkdir()
    lesson = editions.read(lessons.by_number("01").path)
    lesson.cells = [cell for cell in lesson.cells if cell.id in ("setup", "imports", "fixed-point-plot")]
    lesson.cells[-1].source = "pass"
    source = save(tmp_path / "notebooks" / "solutions" / "01_forward_process.ipynb", lesson)

    content = tmp_path / "ddpm_course" / "exercises"
    save(content / "ours.py", record)
    save(content / "ours.mistakes", catalogue)
    known = (content / "lesson01.mistakes").read_text("utf-8")
    assert known.rstrip().split("\n\n")[-1] and known.rindex("next_variance: ") > known.rindex("diffuse: ")
    save(content / "lesson01.mistakes", known + mistake)
    exercises = (content / "__init__.py").read_text("utf-8").replace("import (\n", "import (\n    ours,\n")
    placed = exercises.replace(
        "LESSONS = (\n    lesson00,\n    lesson01,\n", "LESSONS = (\n    lesson00,\n    lesson01,\n    ours,\n"
    )
    assert placed.count("ours,") == 2
    save(content / "__init__.py", placed)

    there = partial(python, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    there("-c", cells)
    there("-m", "ddpm_course.classroom", "build", "--fast")
    assert exercise_faults(editions.read(source)) == []
    for edition, verdict in (("notebooks/solutions", "solved"), ("notebooks", "not attempted yet")):
        built = editions.read(tmp_path / edition / source.name)
        [check] = [cell for cell in built.cells if cell.id == "check-1-7"]
        assert f"Exercise 1.7, half_life: {verdict}." in check.outputs[0].data["text/plain"]
    typed = [f"print(checks.half_life.check(lambda beta: {answer}).mistake)" for answer in ANSWERS]
    typed.append("print(checks.next_variance.check(lambda variance, beta: beta * 1.0).mistake)")
    told = there("-c", "\n".join(["import math", "from ddpm_course import checks", *typed]))
    assert told.split() == [*map(str, ANSWERS.values()), "only_the_noise"]
