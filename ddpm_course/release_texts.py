"""The pages and settings that `release` writes beside the notebooks; names in braces are filled in there."""

FOR_STUDENTS = """\
# Diffusion models from one noisy pixel

{lessons}

This folder is complete: the lessons, the package `ddpm_course` that they import, its data and a trained model. Keep \
it together. A lesson finds the package in this folder by itself, and once the libraries are installed it needs no \
network.

## Setting up

You need Python 3.11, 3.12 or 3.13. In this folder, on Linux and macOS:

```
python3 -m venv .venv
.venv/bin/python -m pip install -r requirements.txt
.venv/bin/python -m ddpm_course.lab {first}.ipynb
```

and in Windows PowerShell:

```
py -3.12 -m venv .venv
.venv\\Scripts\\python -m pip install -r requirements.txt
.venv\\Scripts\\python -m ddpm_course.lab {first}.ipynb
```

(On a Mac with an Intel processor use Colab: no PyTorch that is new enough is made for it.)

This downloads PyTorch and JupyterLab. On Linux that is about 3 GB, for NVIDIA's GPUs; without one, install \
`torch torchvision --index-url https://download.pytorch.org/whl/cpu` first, about 0.4 GB with everything else. With \
conda: `conda env create -f environment.yml`, `conda activate ddpm_course`, `python -m ddpm_course.lab {first}.ipynb`.

The badge on top of a lesson opens the lesson in Colab as it is published at https://github.com/{repository}.

## Working

Run the cells from top to bottom. Fill in an exercise, run the cell below it, and it says whether you are right, or \
which mistake you made. What is right is collected in `my_ddpm.py`, beside the lessons.{solutions}
"""

FOR_GRADING = """\
# Grading with nbgrader

| folder | what is in it |
|---|---|
| `source/` | {count}, with solutions: yours |
| `release/` | what students get; nbgrader makes it |
| `submitted/STUDENT/LESSON/LESSON.ipynb` | what students hand in |
| `autograded/`, `feedback/`, `gradebook.db` | what nbgrader makes of it |

nbgrader and the course must be installed where you grade; in a clone of https://github.com/{repository}:
`python -m pip install -e ".[test]" -r requirements.txt`. Students need the course alone; a lesson that does not find \
it installs it from there; `python -m pip install "git+https://github.com/{repository}@{ref}"` does it beforehand.

In this folder, for one lesson:

```
nbgrader generate_assignment {first}
nbgrader autograde {first}
nbgrader generate_feedback {first}
nbgrader export
```

The first makes `release/{first}`, which you hand out. The second wants the answers in \
`submitted/STUDENT/{first}/{first}.ipynb`, one folder a student. The third writes a page for each student under \
`feedback/`, with the diagnosis of every wrong answer; the last writes all scores to `grades.csv`.

An exercise gives its points or none: as many as it has dots of difficulty. A wrong answer is replaced by the course's \
own before the next cell runs, so nobody loses points twice. While it grades, a lesson runs in fast mode, some ten to \
thirty seconds each; a cell that takes longer than the limit in `nbgrader_config.py` counts as wrong.

Submissions are programs, and nbgrader runs them as you, on this machine, with its files and its network.
"""

CONFIG = '''\
"""Settings of nbgrader for this course. Run nbgrader in this folder."""

import os
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
c = get_config()  # noqa: F821 (nbgrader provides it)

# nbgrader calls alembic by its name: find it in this environment, activated or not
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

c.CourseDirectory.course_id = "ddpm_course"
c.CourseDirectory.root = str(here)
c.CourseDirectory.db_url = f"sqlite:///{{here / 'gradebook.db'}}"

# Seconds. Grading runs lessons in fast mode, in which no cell takes more than a few; the first one that imports torch
# can take a minute on a busy machine. An endless loop in an answer costs this long, once. nbgrader's own limit is 30.
c.Execute.timeout = 120
c.Execute.startup_timeout = 120
c.Execute.iopub_timeout = 60  # for a reply that is on its way; its own limit of 4 gives up a whole submission
c.Execute.kernel_manager_class = "ddpm_course.kernels.PatientKernelManager"  # beside sliders, replies get overlooked

# What stands where a solution was, as in the student edition.
c.ClearSolutions.code_stub = {{"python": {stub!r}}}
'''
