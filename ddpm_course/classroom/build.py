"""`build`: runs the sources of the lessons, then makes their student edition and runs that too, so that all outputs are
real. What is run, is run as a reader would run it: in a fresh kernel, in the folder of the notebook.
"""

import argparse
import os
import re
import time
from pathlib import Path

from ..lab import ROOT
from .editions import KERNEL, lessons, read, refresh, student_edition, tidy, write

# What would change the outcome for a reader; MPLBACKEND would keep figures from being shown in the notebook.
FOREIGN = ("DDPM_COURSE_FAST", "NBGRADER_EXECUTION", "MPLBACKEND")


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
            execute(notebook, folder, name=str(path.relative_to(root)), fast=fast)
            write(notebook, path)
            seconds, size = time.monotonic() - start, path.stat().st_size / 1000
            print(f"{path.relative_to(root)}: ran in {seconds:.0f} s, {size:.0f} kB", flush=True)


def execute(notebook, folder: Path, *, name: str = "notebook", fast: bool = False, **environment: str):
    """Run a notebook in place, in a fresh kernel whose current folder is `folder`, and tidy the outputs.

    The student's library is not written (DDPM_COURSE_SAVE=0) unless `environment` says so.
    returns the notebook
    raises  RuntimeError, with `name` and the cell, for a cell that fails or takes too long
    """
    try:
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        from .kernels import PatientKernelManager
    except ImportError as error:
        raise RuntimeError("running notebooks needs nbclient: pip install -e '.[test]'") from error

    variables = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    variables |= {"DDPM_COURSE_SAVE": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"} | environment
    if fast:
        variables["DDPM_COURSE_FAST"] = "1"
    client = NotebookClient(
        notebook,
        timeout=300 if fast else 1800,
        kernel_name=KERNEL["name"],
        kernel_manager_class=PatientKernelManager,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=True,  # what nbclient shows in a slider it looks up there; tidy removes it
        coalesce_streams=True,
    )
    try:
        client.execute(env=variables)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # no terminal colours
        raise RuntimeError(f"{name}: {plain}") from None
    tidy(notebook)
    return notebook


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lessons", nargs="*", help="numbers or names; all lessons if none is given")
    parser.add_argument("--fast", action="store_true", help="with shortened budgets, not for committing")


def run(options: argparse.Namespace) -> int:
    build(options.lessons, root=options.root, fast=options.fast)
    return 0
