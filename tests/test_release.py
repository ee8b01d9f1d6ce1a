"""What an instructor hands out, and a class that nbgrader grades."""

import csv
import re
from collections import Counter
from copy import deepcopy
from pathlib import Path

import lessons
import nbformat
import pytest
from courses import contents, python, save, with_cells

from ddpm_course.classroom import editions, release
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.mending import mended
from ddpm_course.lab import page

SECOND = "02_closed_form"


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@lessons.every_source
def test_points_are_the_dots_of_difficulty(lesson):
    stated = re.findall(r"^#+ Exercise (\d+)\.(\d+)\b.*\n+Difficulty (●+)○* ·", prose(lesson.notebook), re.MULTILINE)
    about = [cell.metadata.nbgrader for cell in filter(editions.is_check, lesson.code)]
    points = {f"check-{first}-{second}": len(dots) for first, second, dots in stated}
    assert {one.grade_id: one.points for one in about} == points and set(points.values()) <= {1, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    return release.release(tmp_path_factory.mktemp("class") / "out", ["01", "02"])


def test_students_get_the_lessons_the_solutions_beside_them_and_links_that_work_there(handed_out):
    names, texts = ["01_forward_process", SECOND], {}
    for edition, folder in (("student", handed_out), ("solutions", handed_out / "solutions")):
        assert sorted(path.stem for path in folder.glob("*.ipynb")) == names
        for name in names:
            theirs = editions.read(folder / f"{name}.ipynb")
            assert code(theirs) == lessons.read(edition, name).code  # outputs included
            texts[folder / f"{name}.ipynb"] = prose(theirs)
    texts[handed_out / "README.md"] = (handed_out / "README.md").read_text(encoding="utf-8")
    links = [
        (path, "".join(link)) for path in texts for link in re.findall(r"\]\(([^)\s]+)|src=\"([^\"]+)\"", texts[path])
    ]
    local = [(path, link) for path, link in links if not re.match(r"https?:|#|data:|mailto:", link)]
    assert len(local) > 10
    assert [link for path, link in local if not (path.parent / link.split("#")[0]).exists()] == []
    first, second = (texts[handed_out / f"{name}.ipynb"] for name in names)
    assert f"]({SECOND}.ipynb" in first and f"](solutions/{names[0]}.ipynb)" in first
    assert f"]({page('notebooks/03_noise_schedules.ipynb')}" in second  # which stays behind


def test_the_folder_is_complete(handed_out):
    """A lesson finds package and data in it, its commands work, and pip can build what it is told to install there."""
    [setup] = (cell.source for cell in editions.read(handed_out / f"{SECOND}.ipynb").cells if cell.id == "setup")
    script = f"{setup}\nfrom ddpm_course import data, lab\nprint(data.__file__, data.ASSETS, *data.load_photo().shape)"
    files, root = contents(handed_out), handed_out.resolve()
    wanted = [str(root / "ddpm_course" / "data.py"), str(root / "assets"), "3", "128", "128"]
    assert python("-c", script, cwd=handed_out).split() == wanted
    python("-m", "hatchling", "build", "-t", "wheel", "-d", handed_out.parent / "dist", cwd=handed_out)
    assert b"-m ddpm_course.lab 01_forward_process.ipynb" in files["README.md"]
    assert {"requirements.txt", "ddpm_course/jupyter/labconfig/page_config.json"} <= files.keys()  # which it needs
    unwanted = "ddpm_course/classroom", "ddpm_course/editions.py", "ddpm_course/kernels.py"
    assert not [name for name in files if name.startswith(unwanted) or re.search("__pycache__|ipynb_check", name)]


def test_without_solutions_no_lesson_links_to_one(tmp_path):
    out = release.release(tmp_path / "out", solutions=False)
    assert sorted(path.stem for path in out.rglob("*.ipynb")) == lessons.NAMES
    for name in lessons.NAMES:
        before, after = prose(lessons.read("student", name).notebook), prose(editions.read(out / f"{name}.ipynb"))
        assert "notebooks/solutions" in before and "notebooks/solutions" not in after
        assert after.count("<summary>") == before.count("<summary>")  # every hint is still there
        gone = re.findall(r"[^.\n]*\[the solution\]\([^)]*\)\.", before)
        assert len(before) - len(after) == sum(map(len, gone))  # and nothing else went
    assert "solutions" not in (out / "README.md").read_text(encoding="utf-8").split("## Working")[1]


@pytest.mark.parametrize("options", [["--lessons", "01"], ["--nbgrader"]])
def test_what_cannot_be_written_is_a_sentence_and_changes_nothing(tmp_path, capsys, options):
    out, file = tmp_path / "out", save(tmp_path / "notes.txt", "mine")
    assert main(["release", str(tmp_path), *options]) == main(["release", str(file), *options]) == 1
    assert capsys.readouterr().err.count("not an empty folder. Nothing was written") == 2
    assert main(["release", str(out), *options, "--lessons", "99"]) == main(["release", str(out), *options], out) == 1
    told = capsys.readouterr().err
    assert "there is no lesson '99'" in told and "there are no notebooks beside the package" in told
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "mine"


MERGE = "return (a * a + b * b + 2 * a * b * rho) ** 0.5"
BARS = "return torch.cat([torch.ones_like(betas[:1]), (1 - betas).cumprod(0)])"
CLOSED = """share = schedule.alpha_bar[t].to(x0.dtype).reshape(-1, *[1] * (x0.ndim - 1))
    return share.sqrt() * x0 + (1 - share).sqrt() * noise"""
BACK = """share = schedule.alpha_bar[t].to(xt.dtype).reshape(-1, *[1] * (xt.ndim - 1))
    return (xt - (1 - share).sqrt() * noise) / share.sqrt()"""
EQUAL = "return (schedule.alpha_bar <= 0.5).tolist().index(True)"
BATCH = """t = schedule.sample_t(len(x0), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    return q_sample(schedule, x0, t, noise), t, noise"""
ALL = {"ex-2-1": MERGE, "ex-2-2": BARS, "ex-2-3": CLOSED, "ex-2-4": BACK, "ex-2-5": EQUAL, "ex-2-6": BATCH}
CHATTY = f"print('working')\n    import warnings\n    warnings.warn('look out')\n    {MERGE}"
VARIANCE = CLOSED.replace("(1 - share).sqrt()", "(1 - share)")
CLASS = {  # who typed what, the points that each exercise earns, and what stands on their pages
    "ada": (ALL, [2, 2, 2, 2, 2, 2], []),
    "ben": ({}, [0, 0, 0, 0, 0, 0], ["Exercise 2.4, predict_x0: not attempted yet."]),
    "cem": (  # the first two wrong, which the lesson builds on: the rest counts all the same
        ALL | {"ex-2-1": "return a + b", "ex-2-2": "return betas.cumprod(0)"},
        [0, 0, 2, 2, 2, 2],
        ["2.1, merge_noises: not right yet. You add the standard deviations.", "You multiply the betas."],
    ),
    "dee": (  # talking and warning costs nothing; a known mistake; a name that does not exist
        ALL | {"ex-2-1": CHATTY, "ex-2-3": VARIANCE, "ex-2-5": "return first_half(schedule)"},
        [2, 2, 0, 2, 0, 2],
        ["Exercise 2.3, q_sample: not right yet.", "(lesson 02, 'The closed form')", "NameError"],
    ),
    "dan": (ALL, [2, 2, 2, 2, 2, 2], []),  # whose cells are `untidy`
    "eva": (  # a cell that Python refuses, one exercise left out, an answer that is nearly right
        {"ex-2-1": MERGE, "ex-2-2": "return (", "ex-2-3": CLOSED, "ex-2-5": f"{EQUAL} + 1"},
        [2, 0, 2, 0, 0, 0],
        ["SyntaxError"],
    ),
}


def untidy(notebook):
    """What becomes of cells: a check is deleted; a stub lies below its answer and a check is there twice, with all their
    metadata; an answer is merged with its check, another put into a cell of its own with both of the course's gone."""
    given = {cell.id: cell for cell in lessons.read("student", SECOND).notebook.cells}
    mine = {cell.id: cell for cell in notebook.cells}
    mine["ex-2-3"].source += f"\n\n{mine['check-2-3'].source}"
    own = nbformat.v4.new_code_cell(mine["ex-2-4"].source)
    gone = {"check-2-1": [], "check-2-3": [], "ex-2-4": [own], "check-2-4": []}
    for id, grade_id in {"ex-2-2": "ex-2-2", "check-2-5": "check-2-5"}.items():
        copied = nbformat.v4.new_code_cell(given[id].source, metadata=mine[id].metadata)
        assert copied.metadata.nbgrader.grade_id == grade_id
        gone[id] = [mine[id], copied]
    notebook.cells = [one for cell in notebook.cells for one in gone.get(cell.id, [cell])]
    return notebook


def hand_in(path: Path, notebook, answers: dict[str, str], change=lambda notebook: notebook) -> None:
    """Write a copy of a notebook with these bodies where the stubs were."""
    source = {cell.id: cell.source for cell in notebook.cells}
    assert all(source[name].endswith(f"    {editions.STUB}") for name in answers)
    filled = {name: [source[name].replace(editions.STUB, answers[name])] for name in answers}
    save(path, change(with_cells(notebook, filled)))


def assigned(course: Path, lesson: str):
    """What nbgrader hands out, in a course folder that is made for it."""
    assert main(["release", str(course), "--nbgrader", "--lessons", lesson]) == 0
    python("-m", "nbgrader", "generate_assignment", lesson, cwd=course)
    return nbformat.read(course / "release" / lesson / f"{lesson}.ipynb", as_version=4)


def autograded(course: Path, lesson: str, *students: str) -> dict[str, list[float]]:
    """The points of each exercise, in order, as the gradebook has them after grading."""
    from nbgrader.api import Gradebook

    python("-m", "nbgrader", "autograde", lesson, cwd=course)
    assert {Path(name).name for name in contents(course / "autograded")} == {f"{lesson}.ipynb"}  # no my_ddpm.py
    found = {}
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        for student in students:
            submission = gradebook.find_submission_notebook(lesson, lesson, student)
            assert not submission.needs_manual_grade
            found[student] = [score for _, score in sorted((grade.name, grade.score) for grade in submission.grades)]
            assert submission.score == sum(found[student])
    return found


@pytest.mark.slow
def test_a_class_gets_exactly_its_points(tmp_path):
    course, edition = tmp_path / "course", lessons.read("student", SECOND).notebook
    given = assigned(course, SECOND)
    assert [cell.source for cell in code(given)] == [cell.source for cell in code(edition)]
    assert "SOLUTION" not in str(given) and "notebooks/solutions" not in str(given)
    for student, (answers, _, _) in CLASS.items():
        # cem worked in Colab, from the badge: on the student edition, which nbgrader has not marked
        notebook = edition if student == "cem" else given
        hand_in(
            course / "submitted" / student / SECOND / f"{SECOND}.ipynb",
            notebook,
            answers,
            *[untidy] * (student == "dan"),
        )
    assert autograded(course, SECOND, *CLASS) == {student: points for student, (_, points, _) in CLASS.items()}
    python("-m", "nbgrader", "export", cwd=course)
    with open(course / "grades.csv", newline="") as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    python("-m", "nbgrader", "generate_feedback", SECOND, cwd=course)
    for student, (_, points, wanted) in CLASS.items():
        html = (course / "feedback" / student / SECOND / f"{SECOND}.html").read_text(encoding="utf-8")
        told = " ".join(re.sub(r"<[^>]+>", " ", html).split())
        wanted = [f"Score: {sum(points)}.0 / 12.0", *wanted]
        assert [text for text in wanted if text not in told] == [] and exported[student] == sum(points)
        assert not re.search(r"checks/\w+\.py", html)


NOTES = [None, "text", {}, {"grade_id": ["ex-2-1"]}, {"grade_id": "gone"}, {"grade_id": "ex-2-1", "schema_version": 9}]


@pytest.mark.parametrize("notes", NOTES)
def test_every_cell_is_mended_whatever_became_of_its_metadata(notes):
    cells = lessons.read("student", SECOND).notebook.cells
    given = {cell.metadata.nbgrader.grade_id: cell for cell in cells if "nbgrader" in cell.metadata}
    before = [cell.metadata.get("nbgrader") for cell in cells]
    theirs = deepcopy(cells)
    for cell in theirs:
        cell.source = cell.source.replace(editions.STUB, MERGE if cell.id == "ex-2-1" else editions.STUB)
        cell.metadata = nbformat.from_dict({"nbgrader": notes}) if cell.id in given else cell.metadata
    mine = mended(theirs, given)
    assert [cell.metadata.get("nbgrader") for cell in mine] == before or notes == NOTES[-1]
    assert Counter(str(cell.metadata.get("nbgrader")) for cell in mine) == Counter(map(str, before))
    [answer] = [cell for cell in mine if cell.metadata.get("nbgrader", {}).get("grade_id") == "ex-2-1"]
    assert MERGE in answer.source


def test_students_can_validate_before_they_hand_in(tmp_path):
    """On two exercises of a lesson: the wrong one is named, with what is wrong; the right one is not mentioned."""
    given = lessons.read("student", SECOND).notebook
    wanted = ["setup", "imports", "ex-2-1", "check-2-1", "ex-2-4", "check-2-4"]
    few = with_cells(given, {cell.id: [] for cell in given.cells if cell.id not in wanted})
    hand_in(tmp_path / "mine.ipynb", few, {"ex-2-1": "return a + b", "ex-2-4": BACK})
    complaint = " ".join(python("-m", "nbgrader", "validate", "mine.ipynb", cwd=tmp_path).split())
    assert "VALIDATION FAILED ON 1 CELL(S)!" in complaint and len(few.cells) == len(wanted)
    assert "Exercise 2.1, merge_noises: not right yet. You add the standard deviations." in complaint
    assert "predict_x0" not in complaint and ".py" not in complaint and not (tmp_path / "my_ddpm.py").exists()
