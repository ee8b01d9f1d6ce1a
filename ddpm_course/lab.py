"""Opens a lesson in JupyterLab as a learner wants it: `make lab`; imported by no lesson.

    python -m ddpm_course.lab work/00_start_here.ipynb [JupyterLab's own arguments]

The settings beside this file (`jupyter/`) come before those of the machine: no question about Jupyter's news, no look
for updates, and nothing of nbgrader's, whose menus appear wherever it is installed, as it is for the course's tests.
"""

import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

SETTINGS = Path(__file__).parent / "jupyter"


def main(arguments: list[str] | None = None) -> int:
    notebook, *others = (sys.argv[1:] if arguments is None else arguments) or [""]
    if not Path(notebook).is_file():
        print(f"There is no notebook {notebook!r} here; `python -m ddpm_course.editions copy work` brings the lessons.")
        return 1
    if find_spec("jupyterlab") is None:
        print("JupyterLab is not installed: python -m pip install -r requirements.txt")
        return 1
    ours = [str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, ours))
    address = f"--LabApp.default_url=/lab/tree/{Path(notebook).as_posix()}"
    sys.argv = ["jupyter-lab", "--ServerApp.root_dir=.", address, *others]
    runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
