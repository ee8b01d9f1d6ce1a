"""Settings for every test: nothing is saved, no window opens, nothing depends on who runs them."""

import os

os.environ["DDPM_COURSE_SAVE"] = "0"
os.environ["MPLBACKEND"] = "Agg"
for name in ("DDPM_COURSE_FAST", "NBGRADER_EXECUTION"):
    os.environ.pop(name, None)
