"""The two editions of a lesson: texts that all lessons share, making the student edition, reading, tidying, writing.

`notebooks/solutions/` holds the sources, the only notebooks edited by hand. The student edition in `notebooks/` is
made from them: nbgrader replaces each solution by a stub. `build` runs both, `verify` says what is wrong with them.
"""

import hashlib
import inspect
import re
from collections import Counter
from copy import deepcopy
from pathlib import Path

from .. import REF, REPOSITORY
from ..files import write_atomically
from ..lab import ROOT

STUB = "raise NotImplementedError  # your code here"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
NOTEBOOK_METADATA = ("accelerator", "colab", "kernelspec", "language_info")  # the first two choose Colab's machine
CELL_METADATA = ("cellView", "ddpm_course", "jupyter", "nbgrader", "slideshow", "tags")
FOLDED = "# @title Your answer goes here\n"  # all that is seen of an exercise while it is folded up
WIDGET = "application/vnd.jupyter.widget-view+json"


# ---- texts that every lesson shares -------------------------------------------------------------------------------


def badge(lesson: str) -> str:
    """The Markdown of the badge that opens a lesson's student edition in Colab."""
    address = f"https://colab.research.google.com/github/{REPOSITORY}/blob/{REF}/notebooks/{lesson}.ipynb"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def setup_cell() -> str:
    """The source of the first code cell of every lesson.

    It takes the package from the clone around the notebook, else leaves an installed one alone, else (Colab, or a
    notebook downloaded alone) installs the one that this notebook was published with. pip is told the versions of
    torch, torchvision and numpy that are there, so it leaves them alone. A failure is one sentence, no traceback; so is
    a Python that is too old (down to 3.8 this cell runs) or in which the libraries are not.
    """
    return f"""\
# @title Setup: finds the course, or installs it (up to a minute). Silent when all is well.
import re
import sys
from importlib import invalidate_caches, metadata, util
from pathlib import Path
from subprocess import run

COURSE = "git+https://github.com/{REPOSITORY}@{REF}"
NEEDS = "torch torchvision numpy PIL datasets matplotlib einops tqdm safetensors ipywidgets"
SELECT = "Select the Python with the course (Kernel → Change Kernel, in VS Code: Select Kernel)"
this, text = f"this one, {{sys.executable}},", ""
folders = [Path.cwd(), *Path.cwd().parents]
if sys.version_info < (3, 11):  # noqa: UP036
    text = f"{{SELECT}}: {{this}} is {{sys.version.split()[0]}}, and the course needs 3.11 or newer."
elif clone := next((f for f in folders if (f / "ddpm_course" / "__init__.py").exists()), None):
    sys.path.insert(0, str(clone))
elif getattr(util.find_spec("ddpm_course"), "origin", None) is None:
    here = [name for name in ("torch", "torchvision", "numpy") if util.find_spec(name)]
    held = [f"{{name}}=={{metadata.version(name)}}" for name in here]  # pip leaves these alone
    pip = [sys.executable, "-m", "pip", "install", "--quiet", COURSE, *held]
    done = run(pip, capture_output=True, text=True)
    invalidate_caches()
    if done.returncode:
        why = re.findall(r"(?im)^\\s*(?:fatal|error): (?!subprocess)(.+)", done.stderr) or ["?"]
        needed = "a network, git, and a Python from 3.11 to 3.14, for which there is a PyTorch"
        text = f"The course could not be installed (is there {{needed}}?): {{why[-1]}}"
if not text and (lacking := [name for name in NEEDS.split() if not util.find_spec(name)]):
    text = f"{{SELECT}}: {{this}} has no {{', '.join(lacking)}}."
if text:
    error = RuntimeError(text)
    error._render_traceback_ = lambda: [text]  # the sentence alone
    raise error"""


# ---- sources and the student edition ------------------------------------------------------------------------------


def lessons(root: Path = ROOT, chosen: list[str] | None = None) -> list[str]:
    """Names of the lessons that have a source, in order; `chosen` picks some by number ("02") or by name."""
    names = sorted(path.stem for path in (root / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))
    for wanted in chosen or []:
        if not any(name == wanted or name.split("_")[0] == wanted for name in names):
            raise ValueError(f"there is no lesson {wanted!r}; there are: {', '.join(names) or 'none'}")
    return [name for name in names if not chosen or name in chosen or name.split("_")[0] in chosen]


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
    notebook = deepcopy(source)
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


# ---- reading, tidying, writing ------------------------------------------------------------------------------------


def refresh(notebook) -> None:
    """Bring the shared texts and the exercises up to date, and give every cell a lasting, readable id.

    raises ValueError for an exercise cell that was edited here: its text stands in the package
    """
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
            cell.metadata["jupyter"] = {"source_hidden": True}  # and JupyterLab a bar to click on
        elif is_solution(cell) or is_given(cell):
            write_exercise(cell)
        elif cell.cell_type == "markdown":
            cell.source = re.sub(
                r"(https://(?:colab\.research\.google\.com/)?github(?:\.com)?/)[^/\s]+/[^/\s]+/blob/[^/\s]+/notebooks/",
                rf"\g<1>{REPOSITORY}/blob/{REF}/notebooks/",
                cell.source,
            )
    tidy(notebook)


def write_exercise(cell) -> None:
    """Make a cell what the package says it is. A digest in it tells whether somebody edited it since.

    raises ValueError if somebody did
    """
    noted = cell.metadata.get("ddpm_course", {})
    if (written := text_of(cell)) and cell.source != written[0]:
        if noted.get("written", digest(cell.source)) != digest(cell.source):
            raise ValueError(f"{cell.id} was edited in the notebook, but {written[1]}: make the change there")
        cell.source = written[0]
    cell.metadata["ddpm_course"] = noted | {"written": digest(cell.source)}


def is_given(cell) -> bool:
    """Whether the cell shows something of the package's that the exercises build on, as its metadata says."""
    return "given" in cell.metadata.get("ddpm_course", {})


def text_of(cell) -> tuple[str, str] | None:
    """What the package says that a cell is, and where; None for a cell that is edited in the notebook alone.

    It is the exercise whose number is in the cell's id, "ex-2-3", or what the metadata says is given, "lesson04.Block".
    """
    from .. import exercises  # brings torch along, which most commands do not need

    if is_given(cell):
        lesson, name = cell.metadata["ddpm_course"]["given"].split(".")
        text = inspect.getsource(getattr(getattr(exercises, lesson), name))
        return text.rstrip(), f"the text of {name} stands in ddpm_course/exercises/{lesson}.py"
    for exercise in exercises.EXERCISES:
        if cell.id == f"ex-{exercise.number.replace('.', '-')}":
            place = f"ddpm_course/exercises/lesson{(exercise.repeats or exercise).lesson}.py"
            title = FOLDED * (cell.metadata.get("cellView") == "form")
            return title + exercise.cell, f"the text of exercise {exercise.number} stands in {place}"
    return None


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
            if output.output_type == "stream":  # of a line that a progress bar wrote over many times, the last state
                output.text = re.sub(r"^.*\r(?!\n)(.*?) *$", r"\1", output.text, flags=re.MULTILINE)
            elif WIDGET in output.get("data", {}):
                # without its state, which no viewer needs, a widget cannot be drawn; with it GitHub refuses the file
                output.data = type(notebook)({"text/plain": "Run this cell to get the controls."})
                output.metadata = type(notebook)()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.text]


def read(path: Path):
    """A notebook as it lies in the file: nothing repaired, so that faults are seen; a missing id is empty."""
    import nbformat

    notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    for cell in notebook.cells:
        cell.setdefault("id", "")
    return notebook


def write(notebook, path: Path) -> None:
    """Write in one step: an interrupted build leaves the old file. The folder is made if it is not there."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, nbformat.writes(notebook) + "\n")
