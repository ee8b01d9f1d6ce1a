"""`release`: writes what an instructor hands out.

`release` makes a folder for students that is complete: lessons, the package they import, its data, and a README that
says how to install. So a class works with the very package that its notebooks were made for, changed exercises
included, and needs no git. `grading_folder` makes a course of nbgrader's, which clears the solutions itself. The pages
that they write out lie in `pages/`; names after a $ are filled in here.
"""

import argparse
import os
import re
import shutil
from copy import deepcopy
from pathlib import Path
from string import Template

from .. import REF, REPOSITORY
from ..files import write_atomically
from ..lab import ROOT, page
from .editions import STUB, lessons, read, write

PAGES = Path(__file__).parent / "pages"
COURSE = ("ddpm_course", "assets", "LICENSE", "environment.yml", "pyproject.toml", "requirements.txt")
# of the package, students need what the wheel has: neither this folder nor the old commands that lead to it
FOR_INSTRUCTORS = ("classroom", "editions.py", "kernels.py")
LEFT_OUT = shutil.ignore_patterns(*FOR_INSTRUCTORS, "__pycache__", ".ipynb_checkpoints", ".DS_Store")


def release(out: Path | str, chosen: list[str] | None = None, *, solutions: bool = True, root: Path = ROOT) -> Path:
    """Write a folder to hand out: README, student edition, package and data, and the solutions in `solutions/`.

    chosen:    lessons by number or name; all of them if none is named
    solutions: without them the links to them go too
    returns    the folder
    raises     ValueError for a folder that is not empty, or a lesson that there is not;
               FileNotFoundError without notebooks, as in an installed package
    """
    names, out = _chosen(root, chosen), _empty(out)
    beside, titles = "solutions/{0}.ipynb" if solutions else None, {}
    for name in names:
        notebook = read(root / "notebooks" / f"{name}.ipynb")
        titles[name] = re.search(r"^# (.+)$", notebook.cells[0].source, flags=re.MULTILINE)[1]
        write(relinked(notebook, names, lesson="{0}.ipynb", solution=beside), out / f"{name}.ipynb")
        if solutions:
            notebook = relinked(_solved(root, name), names, lesson="{0}.ipynb", solution="{0}.ipynb")
            write(notebook, out / "solutions" / f"{name}.ipynb")
    for top in COURSE:
        if (root / top).is_dir():
            shutil.copytree(root / top, out / top, ignore=LEFT_OUT, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(root / top, out / top)
    readme = filled_in(
        "students.md",
        lessons="\n".join(f"- [{title}]({name}.ipynb)" for name, title in titles.items()),
        first=names[0],
        repository=REPOSITORY,
        solutions=" Solutions are in `solutions/`." if solutions else "",
    )
    write_atomically(out / "README.md", readme)
    return out


def grading_folder(out: Path | str, chosen: list[str] | None = None, *, root: Path = ROOT) -> Path:
    """Write a course folder of nbgrader's, ready for `nbgrader generate_assignment LESSON`.

    Its sources are the solutions edition without the links to itself, which students would otherwise be handed.
    returns and raises as `release`
    """
    names, out = _chosen(root, chosen), _empty(out)
    for name in names:
        notebook = relinked(_solved(root, name), names, lesson="../{0}/{0}.ipynb", solution=None)
        write(notebook, out / "source" / name / f"{name}.ipynb")
    count = f"{len(names)} lessons" if len(names) > 1 else "the lesson"
    readme = filled_in("grading.md", first=names[0], count=count, repository=REPOSITORY, ref=REF)
    write_atomically(out / "README.md", readme)
    write_atomically(out / "nbgrader_config.py", filled_in("nbgrader_config.py", stub=STUB))
    return out


def filled_in(name: str, **values: str) -> str:
    """The text of one of the pages, with the values where it names them after a $."""
    return Template((PAGES / name).read_text(encoding="utf-8")).substitute(values)


def relinked(notebook, names: list[str], *, lesson: str, solution: str | None):
    """A copy whose links to lessons and solutions work where it is going.

    names:    the lessons that go along; links to others lead to the course's pages
    lesson:   where a lesson will lie, with {0} for its name
    solution: the same for its solution; None takes out every sentence that links to one
    """
    notebook = deepcopy(notebook)
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


def _solved(root: Path, name: str):
    return read(root / "notebooks" / "solutions" / f"{name}.ipynb")


def add_options(parser: argparse.ArgumentParser) -> None:
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


def run(options: argparse.Namespace) -> int:
    if options.nbgrader:
        out = grading_folder(options.out, options.lessons, root=options.root)
        print(f"{out}: an nbgrader course; README.md there says how to assign and grade")
    else:
        out = release(options.out, options.lessons, solutions=not options.no_solutions, root=options.root)
        solutions = "" if options.no_solutions else "; solutions/ has the solutions: keep it back if you like"
        print(f"{out}: ready to hand out{solutions}")
    return 0
