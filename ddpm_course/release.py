"""Writes what an instructor hands out: `python -m ddpm_course.editions release`; imported by no lesson.

`release` makes a folder for students that is complete: lessons, the package they import, its data, and a README that
says how to install. So a class works with the very package that its notebooks were made for, changed exercises
included, and needs no git. `grading_folder` makes a course of nbgrader's, which clears the solutions itself.
"""

import argparse
import copy as copying
import os
import re
import shutil
from pathlib import Path

from . import REF, REPOSITORY
from .editions import ROOT, STUB, lessons, page, read, write
from .release_texts import CONFIG, FOR_GRADING, FOR_STUDENTS

COURSE = ("ddpm_course", "assets", "LICENSE", "environment.yml", "pyproject.toml", "requirements.txt")
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", ".DS_Store"}


def release(out: Path | str, chosen: list[str] | None = None, *, solutions: bool = True, root: Path = ROOT) -> Path:
    """Write a folder to hand out: README, student edition, package and data, and the solutions in `solutions/`.

    chosen:    lessons by number or name; all of them if none is named
    solutions: without them the links to them go too
    returns    the folder
    raises     ValueError for a folder that is not empty, or a lesson that there is not;
               FileNotFoundError without notebooks, as in an installed package
    """
    names = _chosen(root, chosen)
    student = {name: read(root / "notebooks" / f"{name}.ipynb") for name in names}
    solved = {name: read(root / "notebooks" / "solutions" / f"{name}.ipynb") for name in names if solutions}
    files = [path for top in COURSE for path in _files(root / top)]  # now: OUT may lie inside the clone
    out = _empty(out)
    for name, notebook in student.items():
        write(relinked(notebook, names, lesson="{0}.ipynb", solution="solutions/{0}.ipynb" if solutions else None),
              out / f"{name}.ipynb")  # fmt: skip
    for name, notebook in solved.items():
        (out / "solutions").mkdir(exist_ok=True)
        write(relinked(notebook, names, lesson="{0}.ipynb", solution="{0}.ipynb"), out / "solutions" / f"{name}.ipynb")
    for path in files:
        to = out / path.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    text = FOR_STUDENTS.format(
        lessons="\n".join(f"- [{_title(notebook)}]({name}.ipynb)" for name, notebook in student.items()),
        first=names[0],
        repository=REPOSITORY,
        solutions=" Solutions are in `solutions/`." if solutions else "",
    )
    (out / "README.md").write_text(text, encoding="utf-8", newline="\n")
    return out


def grading_folder(out: Path | str, chosen: list[str] | None = None, *, root: Path = ROOT) -> Path:
    """Write a course folder of nbgrader's, ready for `nbgrader generate_assignment LESSON`.

    Its sources are the solutions edition without the links to itself, which students would otherwise be handed.
    returns and raises as `release`
    """
    names = _chosen(root, chosen)
    solved = {name: read(root / "notebooks" / "solutions" / f"{name}.ipynb") for name in names}
    out = _empty(out)
    for name, notebook in solved.items():
        (out / "source" / name).mkdir(parents=True)
        notebook = relinked(notebook, names, lesson="../{0}/{0}.ipynb", solution=None)
        write(notebook, out / "source" / name / f"{name}.ipynb")
    count = f"{len(names)} lessons" if len(names) > 1 else "the lesson"
    texts = {
        "nbgrader_config.py": CONFIG.format(stub=STUB),
        "README.md": FOR_GRADING.format(first=names[0], count=count, repository=REPOSITORY, ref=REF),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return out


def relinked(notebook, names: list[str], *, lesson: str, solution: str | None):
    """A copy whose links to lessons and solutions work where it is going.

    names:    the lessons that go along; links to others lead to the course's pages
    lesson:   where a lesson will lie, with {0} for its name
    solution: the same for its solution; None takes out every sentence that links to one
    """
    notebook = copying.deepcopy(notebook)
    folder = re.escape(page("notebooks/solutions/"))

    def to_lesson(link: re.Match) -> str:
        place = lesson.format(link[1]) if link[1] in names else page(f"notebooks/{link[1]}.ipynb")
        return f"]({place}"

    def to_solution(link: re.Match) -> str:
        return f"]({solution.format(link[1])}" if link[1] in names else link[0]

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", to_lesson, cell.source)
            if solution is None:
                cell.source = re.sub(rf" ?[^.\n]*\[[^]\n]*\]\({folder}[^)]*\)[^.\n]*\.?", "", cell.source)
            else:
                cell.source = re.sub(rf"\]\({folder}(\d\d_\w+)\.ipynb", to_solution, cell.source)
    return notebook


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m ddpm_course.editions release`, which `from_options` obeys."""
    parser.description = (
        "Write what an instructor hands out, into a folder that is new or empty: the student edition with the package "
        "that it imports, its data and a README that says how to install; and the solutions, in solutions/."
    )
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument("--lessons", nargs="+", metavar="LESSON", help="numbers (01 02) or names; all by default")
    parser.add_argument("--no-solutions", action="store_true", help="without solutions, and without the links to them")
    parser.add_argument(
        "--nbgrader",
        action="store_true",
        help="instead, an nbgrader course folder: source/ with solutions, which is yours, and nbgrader_config.py; "
        "`nbgrader generate_assignment` makes what students get, without solutions and links to them",
    )


def from_options(options: argparse.Namespace, root: Path = ROOT) -> str:
    """Do what was asked for; returns what to tell the user. Raises as `release` does."""
    if options.nbgrader:
        out = grading_folder(options.out, options.lessons, root=root)
        return f"{out}: an nbgrader course; README.md there says how to assign and grade"
    out = release(options.out, options.lessons, solutions=not options.no_solutions, root=root)
    solutions = "" if options.no_solutions else "; solutions/ has the solutions: keep it back if you like"
    return f"{out}: ready to hand out{solutions}"


def _chosen(root: Path, chosen: list[str] | None) -> list[str]:
    if not lessons(root):
        raise FileNotFoundError(
            f"there are no notebooks beside the package; releases are made in a clone of https://github.com/{REPOSITORY}"
        )
    names = lessons(root, chosen)
    if missing := [name for name in names if not (root / "notebooks" / f"{name}.ipynb").exists()]:
        raise FileNotFoundError(f"no student edition of {', '.join(missing)}: make notebooks writes it")
    return names


def _empty(out: Path | str) -> Path:
    """The folder, made if it is not there; ValueError if there is anything in it."""
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(os.scandir(out))):
        raise ValueError(f"{out} is there already, and not an empty folder. Nothing was written: name another place.")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _files(top: Path) -> list[Path]:
    paths = [top] if top.is_file() else sorted(top.rglob("*"))
    return [path for path in paths if path.is_file() and not LEFT_OUT & set(path.relative_to(top.parent).parts)]


def _title(notebook) -> str:
    """The lesson's heading: "Lesson 02: The closed form"."""
    return re.search(r"^# (.+)$", notebook.cells[0].source, flags=re.MULTILINE)[1]
