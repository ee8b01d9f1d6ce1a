"""What an instructor hands out, and a class of five that nbgrader grades."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ddpm_course import checks, diffusion
from ddpm_course.classroom import editions, release
from ddpm_course.classroom.__main__ import main
from ddpm_course.lab import page

LESSONS = editions.lessons()
SOURCES = editions.ROOT / "notebooks" / "solutions"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("lesson", LESSONS)
def test_points_are_the_dots_of_difficulty(lesson):
    notebook = editions.read(SOURCES / f"{lesson}.ipynb")
    stated = re.findall(r"^#+ Exercise (\d+)\.(\d+)\b.*\n+Difficulty ([●○]{5}) ·", prose(notebook), re.MULTILINE)
    stated = {f"check-{first}-{second}": dots.count("●") for first, second, dots in stated}
    about = [cell.metadata.nbgrader for cell in notebook.cells if editions.is_check(cell)]
    assert {one.grade_id: one.points for one in about} == stated and set(stated.values()) <= {1, 2, 3, 4, 5}


# ---- what is handed out -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    return release.release(tmp_path_factory.mktemp("class") / "out", ["01", "02"])


def test_students_get_the_lessons_the_solutions_beside_them_and_links_that_work_there(handed_out):
    names = {"01_forward_process.ipynb", "02_closed_form.ipynb"}
    files = [*handed_out.glob("*.ipynb"), *handed_out.glob("solutions/*")]
    assert {path.name for path in files} == names and len(files) == 4
    count, texts = 0, {handed_out / "README.md": text_of(handed_out / "README.md")}
    for path in files:
        theirs = editions.read(path)
        ours = editions.read(SOURCES.parent / path.relative_to(handed_out))
        assert code(theirs) == code(ours)  # outputs included
        texts[path] = prose(theirs)
    for path, text in texts.items():
        for link in map("".join, re.findall(r"""\]\(([^)\s]+)|(?:src|href)=["']([^"']+)""", text)):
            if not re.match(r"https?:|#|data:|mailto:", link):
                assert (path.parent / link.split("#")[0]).exists(), f"{path.name}: {link}"
                count += 1
    first, second = (texts[handed_out / name] for name in sorted(names))
    assert "](02_closed_form.ipynb" in first and "](solutions/01_forward_process.ipynb)" in first and count > 10
    assert page("notebooks/03_noise_schedules.ipynb") in second or "](03_" not in second


def test_links_to_lessons_that_stay_behind_lead_to_the_course_s_pages():
    cell = nbformat.v4.new_markdown_cell("[next](02_b.ipynb#top), [back](00_a.ipynb) and [c](03_c.ipynb)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    moved = release.relinked(notebook, ["00_a", "02_b"], lesson="../{0}/{0}.ipynb", solution=None).cells[0].source
    there = page("notebooks/03_c.ipynb")
    assert moved == f"[next](../02_b/02_b.ipynb#top), [back](../00_a/00_a.ipynb) and [c]({there})"
    assert "03_c.ipynb)" in cell.source  # the original is not touched


def test_the_folder_is_complete(handed_out):
    """A lesson finds package and data in it, its commands work, and pip can build what it is told to install there."""

    def python(*arguments) -> list[str]:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=handed_out, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    setup = code(editions.read(handed_out / "01_forward_process.ipynb"))[0].source
    script = f"{setup}\nfrom ddpm_course import data, lab\nprint(data.__file__, data.ASSETS, *data.load_photo().shape)"
    package = handed_out.resolve() / "ddpm_course"
    assert python("-c", script) == [str(package / "data.py"), str(package.with_name("assets")), "3", "128", "128"]
    python("-m", "hatchling", "build", "-t", "wheel", "-d", handed_out.parent / "dist")
    readme = text_of(handed_out / "README.md")
    assert "pip install -r requirements.txt" in readme and "-m ddpm_course.lab 01_forward_process.ipynb" in readme
    assert (package / "jupyter" / "labconfig" / "page_config.json").exists()  # that command's
    assert not [name for name in ("classroom", "editions.py", "kernels.py") if (package / name).exists()]


def test_without_solutions_no_lesson_links_to_one(tmp_path):
    out = release.release(tmp_path / "out", solutions=False)
    assert sorted(path.stem for path in out.rglob("*.ipynb")) == LESSONS
    for lesson in LESSONS:
        before = prose(editions.read(SOURCES.parent / f"{lesson}.ipynb"))
        after = prose(editions.read(out / f"{lesson}.ipynb"))
        assert "notebooks/solutions" in before and "notebooks/solutions" not in after
        assert "the solution]" not in after and "rather see it" not in after
        assert after.count("<summary>") == before.count("<summary>")  # every hint is still there
        gone = re.findall(r"[^.\n]*\[the solution\]\([^)]*\)\.", before)
        assert len(before) - len(after) == sum(map(len, gone))  # and nothing else went
    assert "solutions" not in text_of(out / "README.md").split("## Working")[1]
    assert not [path for path in out.rglob("*") if path.name in ("__pycache__", ".ipynb_checkpoints")]


@pytest.mark.parametrize("options", [["--lessons", "01"], ["--nbgrader"]])
def test_what_cannot_be_written_is_a_sentence_and_changes_nothing(tmp_path, capsys, options):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        assert main(["release", str(place), *options]) == 1
        assert "not an empty folder. Nothing was written" in capsys.readouterr().err
    assert main(["release", str(tmp_path / "out"), *options, "--lessons", "99"]) == 1
    assert "there is no lesson '99'" in capsys.readouterr().err
    assert main(["release", str(tmp_path / "out"), *options], tmp_path) == 1
    assert "there are no notebooks beside the package" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("notes.txt", "mine")]


# ---- grading ------------------------------------------------------------------------------------------------------

MERGE = "    return (a * a + b * b) ** 0.5"
BARS = "    return torch.cat([torch.ones_like(betas[:1]), (1 - betas).cumprod(0)])"
CLOSED = """\
    share = schedule.alpha_bar[t].to(x0.dtype).reshape(-1, *[1] * (x0.ndim - 1))
    return share.sqrt() * x0 + (1 - share).sqrt() * noise"""
BACK = """\
    share = schedule.alpha_bar[t].to(xt.dtype).reshape(-1, *[1] * (xt.ndim - 1))
    return (xt - (1 - share).sqrt() * noise) / share.sqrt()"""
EQUAL = "    return int((schedule.alpha_bar > 0.5).sum())"
ALL = {"ex-2-1": MERGE, "ex-2-2": BARS, "ex-2-3": CLOSED, "ex-2-4": BACK, "ex-2-5": EQUAL}
CHATTY = f"    print('working')\n    import warnings\n    warnings.warn('look out')\n{MERGE}"
DEE = {
    "ex-2-1": CHATTY,
    "ex-2-3": CLOSED.replace("(1 - share).sqrt() * noise", "(1 - share) * noise"),
    "ex-2-5": "    return first_half(schedule)",
}
EVA = {"ex-2-1": MERGE, "ex-2-2": "    return torch.cat([", "ex-2-3": CLOSED, "ex-2-5": f"{EQUAL} + 1"}
CLASS = {  # who typed what, and the points that each exercise earns
    "ada": (ALL, [1, 2, 3, 2, 2]),
    "ben": ({}, [0, 0, 0, 0, 0]),
    # the first two wrong, which the lesson builds on: the rest counts all the same
    "cem": (ALL | {"ex-2-1": "    return a + b", "ex-2-2": "    return betas.cumprod(0)"}, [0, 0, 3, 2, 2]),
    # a known mistake in the middle, a name that does not exist at the end; talking and warning costs nothing
    "dee": (ALL | DEE, [1, 2, 0, 2, 0]),
    # a cell that Python refuses, an answer that is nearly right, one exercise left out
    "eva": (EVA, [1, 0, 3, 0, 0]),
}


def nbgrader(folder: Path, *arguments):
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def hand_in(path: Path, notebook, answers: dict[str, str]) -> None:
    """Write a copy of a notebook with these bodies where the stubs were."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.id in answers:
            assert cell.source.endswith(f"    {editions.STUB}")
            cell.source = cell.source.removesuffix(f"    {editions.STUB}") + answers[cell.id]
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def assigned(course: Path, lesson: str):
    """What nbgrader hands out, in a course folder that is made for it."""
    assert main(["release", str(course), "--nbgrader", "--lessons", lesson]) == 0
    nbgrader(course, "generate_assignment", lesson)
    return nbformat.read(course / "release" / lesson / f"{lesson}.ipynb", as_version=4)


def scores(course: Path, lesson: str, student: str) -> list[float]:
    """The points of each exercise, in order, as the gradebook has them."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        submission = gradebook.find_submission_notebook(lesson, lesson, student)
        assert not submission.needs_manual_grade
        found = sorted((grade.name, grade.score) for grade in submission.grades)
        assert submission.score == sum(score for _, score in found)
    return [score for _, score in found]


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_class_of_five_gets_exactly_its_points(tmp_path):
    lesson, course = "02_closed_form", tmp_path / "course"
    given, edition = assigned(course, lesson), editions.student_edition(editions.read(SOURCES / f"{lesson}.ipynb"))
    assert [cell.source for cell in code(given)] == [cell.source for cell in code(edition)]
    assert "SOLUTION" not in str(given) and "notebooks/solutions" not in str(given)

    for student, (answers, _) in CLASS.items():
        # cem worked in Colab, from the badge: on the student edition, which nbgrader has not marked
        path = course / "submitted" / student / lesson / f"{lesson}.ipynb"
        hand_in(path, edition if student == "cem" else given, answers)
    nbgrader(course, "autograde", lesson)
    for student, (_, points) in CLASS.items():
        assert scores(course, lesson, student) == points, student
    assert files_in(course / "autograded") == {f"{lesson}.ipynb"}  # no my_ddpm.py, no checkpoint

    nbgrader(course, "export")
    with open(course / "grades.csv", newline="") as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert exported == {student: sum(points) for student, (_, points) in CLASS.items()}

    nbgrader(course, "generate_feedback", lesson)
    pages = {student: text_of(course / "feedback" / student / lesson / f"{lesson}.html") for student in CLASS}
    told = {student: " ".join(re.sub(r"<[^>]+>", " ", page).split()) for student, page in pages.items()}
    assert "Exercise 2.1, merge_noises: not right yet. You add the standard deviations." in told["cem"]
    assert "You multiply the betas." in told["cem"]
    assert "Exercise 2.3, q_sample: not right yet." in told["dee"] and "(lesson 02, 'The closed form')" in told["dee"]
    assert "NameError" in told["dee"] and "SyntaxError" in told["eva"]
    assert "Exercise 2.4, predict_x0: not attempted yet." in told["eva"]
    assert not any(re.search(r"checks/\w+\.py", page) for page in told.values())
    for student, (_, points) in CLASS.items():
        assert f"Score: {sum(points)}.0 / 10.0" in told[student]


@pytest.mark.slow
def test_an_answer_that_leans_on_an_earlier_one_stands_without_it(tmp_path):
    """Lesson 06: the sampler calls two functions, of which one is wrong and one is a cell that Python refuses."""
    lesson, course = "06_sampling", tmp_path / "course"
    given, region = assigned(course, lesson), r"    ### BEGIN SOLUTION\n(.*)\n    ### END SOLUTION"
    cells = filter(editions.is_solution, editions.read(SOURCES / f"{lesson}.ipynb").cells)
    answers = {cell.id: re.search(region, cell.source, re.DOTALL)[1] for cell in cells}
    answers |= {"ex-6-1": "    return xt +", "ex-6-3": "    return xt"}
    assert "estimate_x0(" in answers["ex-6-4"] and "posterior_step(" in answers["ex-6-4"]
    del answers["ex-6-5"]
    hand_in(course / "submitted" / "fay" / lesson / f"{lesson}.ipynb", given, answers)
    nbgrader(course, "autograde", lesson)
    assert scores(course, lesson, "fay") == [0, 2, 0, 3, 0]
    assert files_in(course / "autograded") == {f"{lesson}.ipynb"}


def test_students_can_validate_before_they_hand_in(tmp_path):
    """On two exercises of a lesson: the wrong one is named, with what is wrong; the right one is not mentioned."""
    given = editions.read(SOURCES.parent / "02_closed_form.ipynb")
    wanted = ("setup", "imports", "ex-2-1", "check-2-1", "ex-2-4", "check-2-4")
    given.cells = [cell for cell in given.cells if cell.id in wanted]
    hand_in(tmp_path / "folder" / "mine.ipynb", given, {"ex-2-1": "    return a + b", "ex-2-4": BACK})
    done = nbgrader(tmp_path / "folder", "validate", "mine.ipynb")
    complaint = " ".join(done.stdout.split())
    assert "VALIDATION FAILED ON 1 CELL(S)!" in complaint and len(given.cells) == len(wanted)
    assert "Exercise 2.1, merge_noises: not right yet. You add the standard deviations." in complaint
    assert "predict_x0" not in complaint and ".py" not in complaint and "Traceback" not in done.stderr
    assert {name for name in files_in(tmp_path) if name.endswith((".ipynb", ".py"))} == {"mine.ipynb"}


def test_an_exercise_that_ran_for_ever_or_not_at_all_is_replaced(monkeypatch):
    """The check cell as nbgrader runs it: the points are lost if it raises, and later exercises go on all the same."""
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")

    def endless(schedule, x0, t, noise):
        raise KeyboardInterrupt  # what nbgrader sends when the time is up

    names = {"checks": checks, "merge_noises": len, "q_sample": endless}
    with pytest.raises(checks.CheckFailed, match="still running when its time was up"):
        exec("q_sample = checks.q_sample(q_sample)", names)
    assert names["q_sample"] is diffusion.q_sample and names["alpha_bars"] is checks.alpha_bars.reference
    assert names["merge_noises"] is len  # what a student has is theirs
    assert "equal_t" not in names and "q_step" not in names  # later, and of another lesson
