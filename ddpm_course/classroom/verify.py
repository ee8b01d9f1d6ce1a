"""`verify`: says what is wrong with the editions of the notebooks.

A fault is one sentence that names the notebook and the cell. The command prints them, and a test requires that there
are none.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from .. import REF, REPOSITORY
from ..lab import ROOT
from . import editions

SIZE_LIMIT = 640 * 1024  # bytes a file: GitHub shows large notebooks late or not at all


def verify(root: Path = ROOT) -> list[str]:
    """What is wrong with the notebooks, one sentence each; an empty list when all is well."""
    names, folder = editions.lessons(root), root / "notebooks"
    found = [f"{path.name}: no source" for path in sorted(folder.glob("*.ipynb")) if path.stem not in names]
    for name in names:
        source_path, student_path = folder / "solutions" / f"{name}.ipynb", folder / f"{name}.ipynb"
        source = editions.read(source_path)
        faults = [*_faults(source, name, root), *exercise_faults(source)]
        found += [f"solutions/{name}, {fault}" for fault in faults] + _size_fault(source_path)
        if not student_path.exists():
            found.append(f"{name}: no student edition; make notebooks LESSONS={name[:2]}")
            continue
        student = editions.read(student_path)
        faults = [*_faults(student, name, root), *_differences(source, student)]
        found += [f"{name}, {fault}" for fault in faults] + _size_fault(student_path)
    return found


def _size_fault(path: Path) -> list[str]:
    size = path.stat().st_size
    return [f"{path.name}: {size / 1024:.0f} KiB, more than {SIZE_LIMIT // 1024}"] if size > SIZE_LIMIT else []


def _faults(notebook, lesson: str, root: Path) -> list[str]:
    """What is wrong with one notebook, whichever edition it is of."""
    found = []
    if notebook.metadata.get("kernelspec") != editions.KERNEL:
        found.append(f"kernelspec is {notebook.metadata.get('kernelspec')}")
    found += [f"metadata: {key!r} left behind" for key in notebook.metadata if key not in editions.NOTEBOOK_METADATA]
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        found.append(f"format is {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5")
    count = Counter(cell.id for cell in notebook.cells)
    found += [f"id {name!r} is used {n} times" for name, n in count.items() if n > 1]
    found += [f"id {name!r} is not readable" for name in count if editions.is_random(name)]

    if not notebook.cells or editions.badge(lesson) not in notebook.cells[0].source:
        found.append("the first cell has no badge of this lesson (editions.badge)")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not code or code[0].id != "setup" or "setup" not in code[0].metadata.get("tags", []):
        found.append("the first code cell is not the setup cell (id and tag 'setup')")
    elif code[0].source != editions.setup_cell():
        found.append("setup: the text differs from editions.setup_cell()")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not every code cell was run, once each, from top to bottom")

    for cell in notebook.cells:
        behind = sorted(set(cell.metadata) - set(editions.CELL_METADATA))
        found += [f"{cell.id}: metadata {key!r} left behind" for key in behind]
        if cell.cell_type == "markdown":
            found += [f"{cell.id}: {fault}" for fault in _link_faults(cell.source, root)]
        elif cell.cell_type == "code":
            found += [f"{cell.id}: {fault}" for output in cell.outputs for fault in _output_faults(output, root)]
    return found


def _output_faults(output, root: Path) -> list[str]:
    """What must not be committed in an output."""
    if output.output_type == "error":
        return [f"failed with {output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        texts, found = [output.text], ["wrote to standard error"] if output.name == "stderr" else []
    else:
        found = ["holds a widget without its state"] if editions.WIDGET in output.data else []
        texts = [text for kind, text in output.data.items() if kind.startswith("text/") and isinstance(text, str)]
    own = re.escape(str(root.resolve()))
    local = rf"(?<![\w:/.-])(?:/(?:home|Users|root|tmp|var|opt|mnt|content)/\w|[A-Z]:\\\w|{own}\b)"
    for text in texts:
        if match := re.search(local + r".*", re.sub(r"data:[^\"']*", "", text)):
            found.append(f"shows a path of the machine it ran on: {match[0][:60]}")
    return found


def _link_faults(markdown: str, root: Path) -> list[str]:
    """Links must work in notebooks/, solutions/, work/ and Colab: other lessons by name, all else by full address."""
    found = []
    for target in re.findall(r"""\]\(([^)\s]+)|(?:src|href)=["']([^"']+)""", markdown):
        link = (target[0] or target[1]).split("#")[0]
        name, _, path = link.partition(f"/{REPOSITORY}/blob/")
        if path:
            ref, _, path = path.partition("/")
            if ref != REF:
                found.append(f"links to {ref}, not to {REF}; use lab.page")
            elif not (root / path).exists():
                found.append(f"links to {path}, which does not exist")
        elif not re.match(r"https?:|mailto:|attachment:|data:|$", link):
            if "/" in link:
                found.append(f"link {link!r} cannot work from every folder; use lab.page or a code cell")
            elif not (root / "notebooks" / "solutions" / link).exists():
                found.append(f"links to {link}, which does not exist")
    return found


def exercise_faults(source) -> list[str]:
    """Every exercise is a solution cell with a region, followed by its check."""
    found, code = [], [cell for cell in source.cells if cell.cell_type == "code"]
    for cell, following in zip(code, [*code[1:], None], strict=True):
        written = editions.text_of(cell)
        if written and cell.source != written[0]:
            found.append(f"{cell.id}: not what the package says; {written[1]}, and `build` writes it here")
        if editions.is_solution(cell):
            if not editions.has_region(cell):
                found.append(f"{cell.id}: a solution cell without a region inside a function")
            if following is None or not editions.is_check(following):
                found.append(f"{cell.id}: the next code cell is not its check")
        elif "SOLUTION" in cell.source:
            found.append(f"{cell.id}: a solution region in a cell that is not marked as a solution")
    return found


def _differences(source, student) -> list[str]:
    """Where the student edition is not what the source makes."""
    try:
        expected = editions.student_edition(source)
    except (ValueError, RuntimeError) as error:  # nbgrader's own errors are RuntimeErrors
        return [f"cannot be made from its source: {error}"]
    if [cell.id for cell in expected.cells] != [cell.id for cell in student.cells]:
        return ["its cells are not those of its source (ids or order); build it again"]
    found = []
    for want, have in zip(expected.cells, student.cells, strict=True):
        different = [key for key in ("cell_type", "source", "metadata") if want[key] != have[key]]
        found += [f"{have.id}: {key} is not what the source makes; build it again" for key in different]
        if re.search(r"(BEGIN|END) SOLUTION", have.source):
            found.append(f"{have.id}: holds a solution")
    if expected.metadata != student.metadata:
        found.append("its metadata are not those of its source; build it again")
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace) -> int:
    faults = verify(options.root)
    print("\n".join(faults) or f"lessons: {len(editions.lessons(options.root))}, both editions: nothing wrong")
    return int(bool(faults))
