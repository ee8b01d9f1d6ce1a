"""Builds and verifies the editions of the notebooks; serves every lesson, is imported by none.

`notebooks/solutions/` holds the sources, the only notebooks edited by hand. The student edition in `notebooks/` is
made from them: nbgrader replaces each solution by a stub, and the result is run like the source, so that the outputs
a reader sees are real. `work/` holds a student's own copies.

    python -m ddpm_course.editions build 00 02     run these sources, write and run their student edition
    python -m ddpm_course.editions verify          say what is wrong with any edition
    python -m ddpm_course.editions copy work       copy the lessons that are not in work/ yet
    python -m ddpm_course.editions release OUT     what an instructor hands out (--help says more)
    python -m ddpm_course.editions report FOLDER   run what students handed in, count the mistakes (--help says more)
    python -m ddpm_course.editions publish OWNER/NAME[@REF]    badges, setup cells and links of a fork or a release
"""

import argparse
import copy as copying
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

from . import REF, REPOSITORY

ROOT = Path(__file__).resolve().parent.parent
STUB = "raise NotImplementedError  # your code here"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
NOTEBOOK_METADATA = ("accelerator", "colab", "kernelspec", "language_info")  # the first two choose Colab's machine
CELL_METADATA = ("cellView", "jupyter", "nbgrader", "slideshow", "tags")
WIDGET = "application/vnd.jupyter.widget-view+json"


# ---- texts that every lesson shares -------------------------------------------------------------------------------


def page(path: str) -> str:
    """The address of a file of the repository, for links that must work from every folder and from Colab."""
    return f"https://github.com/{REPOSITORY}/blob/{REF}/{path}"


def badge(lesson: str) -> str:
    """The Markdown of the badge that opens a lesson's student edition in Colab."""
    address = f"https://colab.research.google.com/github/{REPOSITORY}/blob/{REF}/notebooks/{lesson}.ipynb"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def setup_cell() -> str:
    """The source of the first code cell of every lesson.

    It takes the package from the clone around the notebook, else leaves an installed one alone, else (Colab, or a
    notebook downloaded alone) installs the one that this notebook was published with. pip is told the versions of
    torch, torchvision and numpy that are there, so it leaves them alone. A failure is one sentence, no traceback.
    """
    return f"""\
# @title Setup: finds the course, or installs it (up to a minute). Silent when all is well.
import re
import sys
from importlib import invalidate_caches, metadata, util
from pathlib import Path
from subprocess import run

COURSE = "git+https://github.com/{REPOSITORY}@{REF}"
folders = [Path.cwd(), *Path.cwd().parents]
if clone := next((f for f in folders if (f / "ddpm_course" / "__init__.py").exists()), None):
    sys.path.insert(0, str(clone))
elif getattr(util.find_spec("ddpm_course"), "origin", None) is None:
    here = [name for name in ("torch", "torchvision", "numpy") if util.find_spec(name)]
    held = [f"{{name}}=={{metadata.version(name)}}" for name in here]  # pip leaves these alone
    pip = [sys.executable, "-m", "pip", "install", "--quiet", COURSE, *held]
    done = run(pip, capture_output=True, text=True)
    invalidate_caches()
    if done.returncode:
        why = re.findall(r"(?im)^\\s*(?:fatal|error): (?!subprocess)(.+)", done.stderr) or ["?"]
        text = f"The course could not be installed (is there a network, and git?): {{why[-1]}}"
        problem = RuntimeError(text)
        problem._render_traceback_ = lambda: [text]  # the sentence alone
        raise problem"""


# ---- build --------------------------------------------------------------------------------------------------------


def lessons(root: Path = ROOT, chosen: list[str] | None = None) -> list[str]:
    """Names of the lessons that have a source, in order; `chosen` picks some by number ("02") or by name."""
    names = sorted(path.stem for path in (root / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))
    for wanted in chosen or []:
        if not any(name == wanted or name.split("_")[0] == wanted for name in names):
            raise ValueError(f"there is no lesson {wanted!r}; there are: {', '.join(names) or 'none'}")
    return [name for name in names if not chosen or name in chosen or name.split("_")[0] in chosen]


def build(chosen: list[str] | None = None, *, root: Path = ROOT, fast: bool = False) -> None:
    """Run the sources of the chosen lessons (all of them by default), then write and run their student edition.

    Nothing is written for an edition in which a cell fails. `fast` shortens every budget, for tests: what is
    committed was run at the student's own budget.
    raises ValueError for a source that no edition can be made from, RuntimeError for a cell that fails
    """
    for lesson in lessons(root, chosen):
        source = read(root / "notebooks" / "solutions" / f"{lesson}.ipynb")
        refresh(source)
        student = student_edition(source)
        for notebook, folder in ((source, root / "notebooks" / "solutions"), (student, root / "notebooks")):
            path, start = folder / f"{lesson}.ipynb", time.monotonic()
            run(notebook, folder, name=str(path.relative_to(root)), fast=fast)
            write(notebook, path)
            seconds, size = time.monotonic() - start, path.stat().st_size / 1000
            print(f"{path.relative_to(root)}: ran in {seconds:.0f} s, {size:.0f} kB", flush=True)


def student_edition(source):
    """A copy of the source without outputs in which every solution is a stub; nbgrader clears the solutions."""
    try:
        from nbgrader.nbgraderformat import ValidationError
        from nbgrader.preprocessors import CheckCellMetadata, ClearSolutions
    except ImportError as error:
        raise RuntimeError("building needs nbgrader: pip install -e '.[test]'") from error

    if broken := [cell.id for cell in source.cells if is_solution(cell) and not has_region(cell)]:
        # nbgrader would replace the whole cell by a bare stub, which stops "Run all" at that point
        raise ValueError(f"no solution region inside a function in: {', '.join(broken)}")
    notebook = copying.deepcopy(source)
    try:
        notebook, _ = CheckCellMetadata().preprocess(notebook, {})
    except ValidationError as error:
        raise ValueError(f"nbgrader refuses the cells' metadata: {error.__context__ or error}") from error
    notebook, _ = ClearSolutions(code_stub={"python": STUB}).preprocess(notebook, {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def is_solution(cell) -> bool:
    return cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("solution", False)


def is_check(cell) -> bool:
    return cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade", False)


def has_region(cell) -> bool:
    """Whether the solution is marked, and indented: inside a function or method, where a stub raises when called."""
    begin = re.findall(r"^([ \t]*)### BEGIN SOLUTION$", cell.source, flags=re.MULTILINE)
    end = re.findall(r"^[ \t]*### END SOLUTION$", cell.source, flags=re.MULTILINE)
    return len(begin) == len(end) > 0 and all(begin)


def run(notebook, folder: Path, *, name: str = "notebook", fast: bool = False, **environment: str):
    """Execute in place, in a fresh kernel whose current folder is `folder`, and tidy the outputs.

    The student's library is not written (DDPM_COURSE_SAVE=0) unless `environment` says so.
    """
    try:
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        from .kernels import PatientKernelManager
    except ImportError as error:
        raise RuntimeError("running notebooks needs nbclient: pip install -e '.[test]'") from error

    # what would change the outcome for a reader; the last would keep figures from being shown in the notebook
    foreign = ("DDPM_COURSE_FAST", "NBGRADER_EXECUTION", "MPLBACKEND")
    env = {key: value for key, value in os.environ.items() if key not in foreign}
    env |= {"DDPM_COURSE_SAVE": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"} | environment
    if fast:
        env["DDPM_COURSE_FAST"] = "1"
    how = dict(
        timeout=300 if fast else 1800,
        kernel_name=KERNEL["name"],
        kernel_manager_class=PatientKernelManager,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=True,  # what nbclient shows in a slider it looks up there; tidy removes it
        coalesce_streams=True,
    )
    try:
        NotebookClient(notebook, **how).execute(env=env)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # no terminal colours
        raise RuntimeError(f"{name}: {plain}") from None
    tidy(notebook)
    return notebook


def refresh(notebook) -> None:
    """Bring the shared texts up to date and give every cell a lasting, readable id."""
    taken = Counter(cell.id for cell in notebook.cells)
    for cell in notebook.cells:
        if is_random(cell.id) or taken[cell.id] > 1:
            kind = "text" if cell.cell_type == "markdown" else cell.cell_type
            taken[cell.id] -= 1
            cell.id = next(name for n in range(1, 1000) if not taken[name := f"{kind}-{n}"])
            taken[cell.id] += 1
        cell.metadata.setdefault("slideshow", {"slide_type": "skip"})  # a talk shows what was chosen for it, no more
        if cell.id == "setup":
            cell.source = setup_cell()
            cell.metadata["cellView"] = "form"  # Colab shows its first line alone
        elif cell.cell_type == "markdown":
            cell.source = re.sub(
                r"(https://(?:colab\.research\.google\.com/)?github(?:\.com)?/)[^/\s]+/[^/\s]+/blob/[^/\s]+/notebooks/",
                rf"\g<1>{REPOSITORY}/blob/{REF}/notebooks/",
                cell.source,
            )
    tidy(notebook)


def is_random(name: str) -> bool:
    """Whether an editor drew this cell id: not words in lower case joined by dashes, or 8 or 32 hexadecimal digits."""
    readable = re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
    return not readable or bool(re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name))


def tidy(notebook) -> None:
    """Leave what a reader needs: no editor's notes, no timings, no widget state, one line a progress bar."""
    kept = {key: value for key, value in notebook.metadata.items() if key in NOTEBOOK_METADATA}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    notebook.metadata = type(notebook)(kept | {"kernelspec": KERNEL, "language_info": language})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = type(notebook)({key: value for key, value in cell.metadata.items() if key in CELL_METADATA})
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = "".join(as_shown(line) for line in output.text.splitlines(keepends=True))
            elif WIDGET in output.get("data", {}):
                # without its state, which no viewer needs, a widget cannot be drawn; with it GitHub refuses the file
                output.data = type(notebook)({"text/plain": "Run this cell to get the controls."})
                output.metadata = type(notebook)()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.text]


def as_shown(line: str) -> str:
    """What a terminal shows of a line that a progress bar wrote over many times."""
    if "\r" not in line:
        return line
    text = line.rstrip("\r\n").split("\r")[-1].rstrip()
    return f"{text}\n" if text else ""


def read(path: Path):
    """A notebook as it lies in the file: nothing repaired, so that faults are seen; a missing id is empty."""
    import nbformat

    notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    for cell in notebook.cells:
        cell.setdefault("id", "")
    return notebook


def write(notebook, path: Path) -> None:
    """Write atomically: an interrupted build leaves the old file."""
    import nbformat

    part = path.with_suffix(".part")
    part.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    part.replace(path)


# ---- copy ---------------------------------------------------------------------------------------------------------


def copy(destination: Path | str, root: Path = ROOT) -> list[Path]:
    """Copy the student edition for a student to work in. What is there already is never touched.

    Inside the clone, links to the solutions become relative, so that they open without a network.
    returns the files that are new
    raises  FileNotFoundError where there are no notebooks, as in an installed package
    """
    lessons_here = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not lessons_here:
        raise FileNotFoundError(f"there are no notebooks beside the package; they are at {page('notebooks')}")
    destination = Path(destination).resolve()
    destination.mkdir(parents=True, exist_ok=True)
    inside = destination.is_relative_to(root.resolve())
    solutions = os.path.relpath(root.resolve() / "notebooks" / "solutions", destination).replace(os.sep, "/")
    new = []
    for path in lessons_here:
        text = path.read_text(encoding="utf-8")
        if inside:
            text = text.replace(page("notebooks/solutions/"), f"{solutions}/")
        try:
            with open(destination / path.name, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            new.append(destination / path.name)
        except FileExistsError:
            continue
    return new


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m ddpm_course.editions", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build_parser = commands.add_parser("build", help="run the sources, write and run the student edition")
    build_parser.add_argument("lessons", nargs="*", help="numbers or names; all lessons if none is given")
    build_parser.add_argument("--fast", action="store_true", help="with shortened budgets, not for committing")
    commands.add_parser("verify", help="say what is wrong with any edition")
    copy_parser = commands.add_parser("copy", help="copy lessons that are not there yet")
    copy_parser.add_argument("destination")
    publish_parser = commands.add_parser("publish", help="give badges, setup cells and links the address of a fork")
    publish_parser.add_argument("name", metavar="OWNER/NAME[@REF]", help="without @REF, the branch main")
    from .release import add_options

    add_options(commands.add_parser("release", help="write what an instructor hands out"))
    from .report import add_arguments

    add_arguments(commands.add_parser("report", help="run what students handed in and count the mistakes"))
    options = parser.parse_args(arguments)

    try:
        if options.command == "build":
            build(options.lessons, root=root, fast=options.fast)
        elif options.command == "copy":
            new = copy(options.destination, root)
            print(f"{options.destination}: lessons copied now: {len(new)}; those that were there are as you left them")
        elif options.command == "publish":
            from .publish import publish

            address, changed = publish(options.name, root)
            print(f"{address}: files changed: {len(changed)}. Commit them, and let {address.ref} point to that commit.")
        elif options.command == "release":
            from .release import from_options

            print(from_options(options, root))
        elif options.command == "report":
            from .report import report

            report(options, root)
        else:
            from .verification import verify

            faults = verify(root)
            print("\n".join(faults) or f"lessons: {len(lessons(root))}, both editions: nothing wrong")
            return bool(faults)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
