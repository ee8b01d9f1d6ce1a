"""A learner's own copies of the lessons, and JupyterLab as a learner wants it: `make lab`; imported by no lesson.

    python -m ddpm_course.lab copy work                     copy the lessons that are not in work/ yet
    python -m ddpm_course.lab work/00_start_here.ipynb [JupyterLab's own arguments]

The settings beside this file (`jupyter/`) come before those of the machine: no question about Jupyter's news, no look
for updates, and nothing of nbgrader's, whose menus appear wherever it is installed, as it is for the course's tests.
"""

import argparse
import os
import runpy
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from . import REF, REPOSITORY

ROOT = Path(__file__).resolve().parent.parent  # the clone; in an installed package there are no notebooks in it
SETTINGS = Path(__file__).parent / "jupyter"


def page(path: str) -> str:
    """The address of a file of the repository, for links that must work from every folder and from Colab."""
    return f"https://github.com/{REPOSITORY}/blob/{REF}/{path}"


def copy(destination: Path | str, root: Path = ROOT) -> list[Path]:
    """Copy the student edition for a student to work in. What is there already is never touched.

    Inside the clone, links to the solutions become relative, so that they open without a network.
    returns the files that are new
    raises  FileNotFoundError where there are no notebooks, as in an installed package
    """
    lessons = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not lessons:
        raise FileNotFoundError(f"there are no notebooks beside the package; they are at {page('notebooks')}")
    destination = Path(os.path.expanduser(destination)).resolve()
    destination.mkdir(parents=True, exist_ok=True)
    inside = destination.is_relative_to(root.resolve())
    solutions = os.path.relpath(root.resolve() / "notebooks" / "solutions", destination).replace(os.sep, "/")
    new = []
    for path in lessons:
        text = path.read_text(encoding="utf-8")
        if inside:
            text = text.replace(page("notebooks/solutions/"), f"{solutions}/")
        copied = destination / path.name
        # "x" refuses to open what is there, so nothing can be lost between looking and writing
        with suppress(FileExistsError), open(copied, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            new.append(copied)
    return new


def open_lesson(notebook: str, others: list[str]) -> int:
    """Open a notebook in JupyterLab, which takes over this process; `others` are its own arguments."""
    path = Path(os.path.expanduser(notebook))
    if not path.is_file():
        print(f"There is no notebook {notebook!r} here; `python -m ddpm_course.lab copy work` brings the lessons.")
        return 1
    if find_spec("jupyterlab") is None:
        print("JupyterLab is not installed: python -m pip install -r requirements.txt")
        return 1
    ours = [str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, ours))
    path, folder = path.resolve(), Path.cwd()
    if not path.is_relative_to(folder):  # JupyterLab shows nothing from outside the folder that it is started for
        folder = path.parent
    address = f"--LabApp.default_url=/lab/tree/{quote(path.relative_to(folder).as_posix())}"
    sys.argv = ["jupyter-lab", f"--ServerApp.root_dir={folder}", address, *others]
    runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)
    return 0


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    first, *others = (sys.argv[1:] if arguments is None else arguments) or [""]
    if first != "copy":
        return open_lesson(first, others)
    parser = argparse.ArgumentParser("python -m ddpm_course.lab copy")
    parser.description = "Copy the lessons that are not there yet, and no others."
    parser.add_argument("folder", help="where to, usually work")
    folder = parser.parse_args(others).folder
    try:
        new = copy(folder, root)
    except OSError as error:
        print(f"copy: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: lessons copied now: {len(new)}; those that were there are as you left them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
