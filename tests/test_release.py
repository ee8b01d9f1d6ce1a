"""What an instructor hands out, and a class of five that nbgrader grades."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ddpm_course import checks, diffusion, editions, release

LESSONS = editions.lessons()


def put(notebook, path: Path) -> None:
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def links(notebook) -> list[str]:
    """The relative links of the prose."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.findall(r"""\]\(([^)\s]+)|(?:src|href)=["']([^"']+)""", prose)
    return [link for link in map("".join, found) if not re.match(r"https?:|#|data:|mailto:", link)]


# ---- points -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", LESSONS)
def test_points_are_the_dots_of_difficulty(lesson):
    notebook = editions.read(editions.ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb")
    stated, points = {}, {}
    for cell in notebook.cells:
        if heading := re.search(r"^#+ Exercise (\d+)\.(\d+)\b.*\n+Difficulty ([●○]{5}) ·", cell.source, re.MULTILINE):
            stated[f"check-{heading[1]}-{heading[2]}"] = heading[3].count("●")
        if editions.is_check(cell):
            points[cell.metadata.nbgrader.grade_id] = cell.metadata.nbgrader.points
    assert points == stated and set(points.values()) <= {1, 2, 3, 4, 5}


# ---- what is handed out -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    return release.release(tmp_path_factory.mktemp("class") / "out", ["01", "02"])


def test_students_get_the_lessons_and_the_solutions_beside_them(handed_out):
    names = ["01_forward_process", "02_closed_form"]
    assert sorted(path.stem for path in handed_out.glob("*.ipynb")) == names
    assert sorted(path.stem for path in (handed_out / "solutions").iterdir()) == names
    for name in names:
        for folder in ("", "solutions"):
            ours = editions.read(editions.ROOT / "notebooks" / folder / f"{name}.ipynb")
            theirs = editions.read(handed_out / folder / f"{name}.ipynb")
            code = [[cell for cell in nb.cells if cell.cell_type == "code"] for nb in (ours, theirs)]
            assert code[0] == code[1]  # outputs included


def test_every_relative_link_works_from_there(handed_out):
    count = 0
    for path in handed_out.rglob("*.ipynb"):
        for link in links(editions.read(path)):
            assert (path.parent / link.split("#")[0]).exists(), f"{path.name}: {link}"
            count += 1
    first = (handed_out / "01_forward_process.ipynb").read_text(encoding="utf-8")
    assert "](02_closed_form.ipynb" in first and "](solutions/01_forward_process.ipynb)" in first and count > 10
    second = (handed_out / "02_closed_form.ipynb").read_text(encoding="utf-8")
    assert editions.page("notebooks/03_noise_schedules.ipynb") in second or "](03_" not in second
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", (handed_out / "README.md").read_text(encoding="utf-8")):
        assert (handed_out / link).exists()


def test_links_to_lessons_that_stay_behind_lead_to_the_course_s_pages():
    cell = nbformat.v4.new_markdown_cell("[next](02_b.ipynb#top), [back](00_a.ipynb) and [c](03_c.ipynb)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    moved = release.relinked(notebook, ["00_a", "02_b"], lesson="../{0}/{0}.ipynb", solution=None).cells[0].source
    page = editions.page("notebooks/03_c.ipynb")
    assert moved == f"[next](../02_b/02_b.ipynb#top), [back](../00_a/00_a.ipynb) and [c]({page})"
    assert "03_c.ipynb)" in cell.source  # the original is not touched


def test_the_folder_is_complete(handed_out):
    """A lesson finds package and data in the folder; pip can build what it is told to install there."""
    setup = next(c.source for c in editions.read(handed_out / "01_forward_process.ipynb").cells if c.id == "setup")
    script = f"{setup}\nimport ddpm_course.data as data\nprint(data.__file__, data.ASSETS, *data.load_photo().shape)"
    done = subprocess.run([sys.executable, "-c", script], cwd=handed_out, capture_output=True, text=True, check=False)
    inside = handed_out.resolve()
    assert done.stdout.split() == [str(inside / "ddpm_course" / "data.py"), str(inside / "assets"), "3", "128", "128"]
    assert done.stderr == ""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(handed_out.parent / "dist")]
    done = subprocess.run(build, cwd=handed_out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    readme = (handed_out / "README.md").read_text(encoding="utf-8")
    assert "pip install -r requirements.txt" in readme and "-m ddpm_course.lab 01_forward_process.ipynb" in readme
    assert (handed_out / "ddpm_course" / "jupyter" / "labconfig" / "page_config.json").exists()  # that command's


def test_without_solutions_no_lesson_links_to_one(tmp_path):
    out = release.release(tmp_path / "out", solutions=False)
    assert sorted(path.stem for path in out.rglob("*.ipynb")) == LESSONS
    for lesson in LESSONS:
        notebook = editions.read(out / f"{lesson}.ipynb")
        ours = editions.read(editions.ROOT / "notebooks" / f"{lesson}.ipynb")
        before, after = ("\n".join(cell.source for cell in nb.cells) for nb in (ours, notebook))
        assert "notebooks/solutions" in before and "notebooks/solutions" not in after
        assert "the solution]" not in after and "rather see it" not in after
        assert after.count("<summary>") == before.count("<summary>")  # every hint is still there
        gone = re.findall(r"[^.\n]*\[the solution\]\([^)]*\)\.", before)
        assert len(before) - len(after) == sum(map(len, gone))  # and nothing else went
    assert "solutions" not in (out / "README.md").read_text(encoding="utf-8").split("## Working")[1]
    assert not [path for path in out.rglob("*") if path.name in ("__pycache__", ".ipynb_checkpoints")]


def test_a_folder_in_use_is_left_as_it_is(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for options in (["--lessons", "01"], ["--nbgrader"]):
        assert editions.main(["release", str(tmp_path), *options]) == 1
        assert "not an empty folder. Nothing was written" in capsys.readouterr().err
        assert editions.main(["release", str(tmp_path / "notes.txt"), *options]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_lesson_that_there_is_not_and_a_package_without_notebooks(tmp_path, capsys):
    assert editions.main(["release", str(tmp_path / "out"), "--lessons", "99"]) == 1
    assert "there is no lesson '99'" in capsys.readouterr().err
    assert editions.main(["release", str(tmp_path / "out")], tmp_path) == 1
    assert "there are no notebooks beside the package" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
CLASS = {  # who typed what, and the points that each exercise earns
    "ada": (ALL, [1, 2, 3, 2, 2]),
    "ben": ({}, [0, 0, 0, 0, 0]),
    # the first two wrong, which the lesson builds on: the rest counts all the same
    "cem": (ALL | {"ex-2-1": "    return a + b", "ex-2-2": "    return betas.cumprod(0)"}, [0, 0, 3, 2, 2]),
    # a known mistake in the middle, a name that does not exist at the end; talking and warning costs nothing
    "dee": (
        ALL
        | {
            "ex-2-1": CHATTY,
            "ex-2-3": CLOSED.replace("(1 - share).sqrt() * noise", "(1 - share) * noise"),
            "ex-2-5": "    return first_half(schedule)",
        },
        [1, 2, 0, 2, 0],
    ),
    # a cell that Python refuses, an answer that is nearly right, one exercise left out
    "eva": (
        {"ex-2-1": MERGE, "ex-2-2": "    return torch.cat([", "ex-2-3": CLOSED, "ex-2-5": f"{EQUAL} + 1"},
        [1, 0, 3, 0, 0],
    ),
}


def nbgrader(folder: Path, *arguments):
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def solutions(lesson: str) -> dict[str, str]:
    """The body that the course itself puts into each exercise cell."""
    source = editions.read(editions.ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb")
    region = r"    ### BEGIN SOLUTION\n(.*)\n    ### END SOLUTION"
    return {
        cell.id: re.search(region, cell.source, re.DOTALL)[1] for cell in source.cells if editions.is_solution(cell)
    }


def answered(notebook, answers: dict[str, str]):
    """A notebook with these bodies where the stubs were."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.id in answers:
            assert cell.source.endswith(f"    {editions.STUB}")
            cell.source = cell.source.removesuffix(f"    {editions.STUB}") + answers[cell.id]
    return notebook


def scores(course: Path, lesson: str, student: str) -> list[float]:
    """The points of each exercise, in order, as the gradebook has them."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        submission = gradebook.find_submission_notebook(lesson, lesson, student)
        assert not submission.needs_manual_grade
        found = sorted((grade.name, grade.score) for grade in submission.grades)
        assert submission.score == sum(score for _, score in found)
    return [score for _, score in found]


@pytest.mark.slow
def test_a_class_of_five_gets_exactly_its_points(tmp_path):
    lesson, course = "02_closed_form", tmp_path / "course"
    assert editions.main(["release", str(course), "--nbgrader", "--lessons", "02"]) == 0
    nbgrader(course, "generate_assignment", lesson)
    given = nbformat.read(course / "release" / lesson / f"{lesson}.ipynb", as_version=4)
    source = editions.read(editions.ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb")
    student_edition = editions.student_edition(source)
    code = [[c.source for c in nb.cells if c.cell_type == "code"] for nb in (given, student_edition)]
    assert code[0] == code[1]
    assert "SOLUTION" not in str(given) and "notebooks/solutions" not in str(given)

    for student, (answers, _) in CLASS.items():
        # cem worked in Colab, from the badge: on the student edition, which nbgrader has not marked
        notebook = answered(student_edition if student == "cem" else given, answers)
        put(notebook, course / "submitted" / student / lesson / f"{lesson}.ipynb")
    nbgrader(course, "autograde", lesson)
    assert {student: scores(course, lesson, student) for student in CLASS} == {s: row for s, (_, row) in CLASS.items()}
    left = {path.name for path in (course / "autograded").rglob("*") if path.is_file()}
    assert left == {f"{lesson}.ipynb"}  # no my_ddpm.py, no checkpoint

    nbgrader(course, "export")
    with open(course / "grades.csv", newline="") as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert exported == {student: sum(row) for student, (_, row) in CLASS.items()}

    nbgrader(course, "generate_feedback", lesson)
    pages = {s: (course / "feedback" / s / lesson / f"{lesson}.html").read_text(encoding="utf-8") for s in CLASS}
    told = {student: " ".join(re.sub(r"<[^>]+>", " ", page).split()) for student, page in pages.items()}
    assert "Exercise 2.1, merge_noises: not right yet. You add the standard deviations." in told["cem"]
    assert "You multiply the betas." in told["cem"]
    assert "Exercise 2.3, q_sample: not right yet." in told["dee"] and "(lesson 02, 'The closed form')" in told["dee"]
    assert "NameError" in told["dee"] and "SyntaxError" in told["eva"]
    assert "Exercise 2.4, predict_x0: not attempted yet." in told["eva"]
    assert not any("core.py" in page or "diagnosis.py" in page for page in told.values())
    for student, (_, row) in CLASS.items():
        assert f"Score: {sum(row)}.0 / 10.0" in told[student]


@pytest.mark.slow
def test_an_answer_that_leans_on_an_earlier_one_stands_without_it(tmp_path):
    """Lesson 06: the sampler calls two functions, of which one is wrong and one is a cell that Python refuses."""
    lesson, course = "06_sampling", tmp_path / "course"
    release.grading_folder(course, ["06"])
    nbgrader(course, "generate_assignment", lesson)
    given = nbformat.read(course / "release" / lesson / f"{lesson}.ipynb", as_version=4)
    wrong = {"ex-6-1": "    return xt +", "ex-6-3": "    return xt"}
    answers = solutions(lesson) | wrong
    assert "estimate_x0(" in answers["ex-6-4"] and "posterior_step(" in answers["ex-6-4"]
    del answers["ex-6-5"]
    put(answered(given, answers), course / "submitted" / "fay" / lesson / f"{lesson}.ipynb")
    nbgrader(course, "autograde", lesson)
    assert scores(course, lesson, "fay") == [0, 2, 0, 3, 0]
    assert [path.name for path in (course / "autograded").rglob("*") if path.is_file()] == [f"{lesson}.ipynb"]


def test_students_can_validate_before_they_hand_in(tmp_path):
    """On two exercises of a lesson: the wrong one is named, with what is wrong; the right one is not mentioned."""
    path = editions.ROOT / "notebooks" / "02_closed_form.ipynb"
    given = answered(editions.read(path), ALL | {"ex-2-1": "    return a + b"})
    wanted = ("setup", "imports", "ex-2-1", "check-2-1", "ex-2-4", "check-2-4")
    given.cells = [cell for cell in given.cells if cell.id in wanted]
    put(given, tmp_path / "folder" / "mine.ipynb")
    done = nbgrader(tmp_path / "folder", "validate", "mine.ipynb")
    said = " ".join(done.stdout.split())
    assert "VALIDATION FAILED ON 1 CELL(S)!" in said and len(given.cells) == len(wanted)
    assert "Exercise 2.1, merge_noises: not right yet. You add the standard deviations." in said
    assert "predict_x0" not in said and "core.py" not in said and "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "folder").iterdir() if path.suffix in (".ipynb", ".py")] == ["mine.ipynb"]


def grade(namespace: dict, name: str, monkeypatch):
    """The check cell, as nbgrader runs it; the points are lost if this raises."""
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    exec(f"{name} = checks.{name}({name})", namespace)


def test_an_endless_loop_that_nbgrader_interrupts_is_replaced(monkeypatch):
    def endless(schedule, x0, t, noise):
        raise KeyboardInterrupt  # what nbgrader sends when the time is up

    namespace = {"checks": checks, "q_sample": endless}
    with pytest.raises(checks.CheckFailed, match="still running when its time was up"):
        grade(namespace, "q_sample", monkeypatch)
    assert namespace["q_sample"] is diffusion.q_sample


def test_a_cell_that_did_not_run_is_replaced_for_later_exercises(monkeypatch):
    namespace = {"checks": checks, "merge_noises": len, "predict_x0": diffusion.q_sample}
    with pytest.raises(checks.CheckFailed):
        grade(namespace, "predict_x0", monkeypatch)
    assert namespace["q_sample"] is diffusion.q_sample and namespace["alpha_bars"] is checks.alpha_bars.reference
    assert namespace["merge_noises"] is len  # what a student has is theirs
    assert "equal_t" not in namespace and "q_step" not in namespace  # later, and of another lesson
