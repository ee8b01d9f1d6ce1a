"""Settings of nbgrader for this course. Run nbgrader in this folder."""

import os
import sys
from pathlib import Path

from ddpm_course.classroom.mending import Mend

here = Path(__file__).resolve().parent
c = get_config()  # noqa: F821 (nbgrader provides it)

# nbgrader calls alembic by its name: find it in this environment, activated or not
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

c.CourseDirectory.course_id = "ddpm_course"
c.CourseDirectory.root = str(here)
c.CourseDirectory.db_url = f"sqlite:///{here / 'gradebook.db'}"

# Seconds. Grading runs lessons in fast mode, in which no cell takes more than a few; the first one that imports torch
# can take a minute on a busy machine. An endless loop in an answer costs this long, once. nbgrader's own limit is 30.
c.Execute.timeout = 120
c.Execute.startup_timeout = 120
c.Execute.iopub_timeout = 60  # for a reply that is on its way; its own limit of 4 gives up a whole submission
c.Execute.kernel_manager_class = (
    "ddpm_course.classroom.kernels.PatientKernelManager"  # beside sliders, replies get overlooked
)

# Cells that students deleted or copied are put in order first: nbgrader gives up over them.
c.Autograde.sanitize_preprocessors.prepend([Mend])

# What stands where a solution was, as in the student edition.
c.ClearSolutions.code_stub = {"python": "$stub"}
