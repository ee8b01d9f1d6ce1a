"""Settings for every test: nothing is saved, no window opens, nothing depends on who runs them."""

import os

os.environ["DDPM_COURSE_SAVE"] = "0"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes at once: threads of their own would be in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("DDPM_COURSE_FAST", "NBGRADER_EXECUTION"):
    os.environ.pop(name, None)
