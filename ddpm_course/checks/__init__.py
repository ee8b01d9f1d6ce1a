"""The checks of the exercises: `q_sample = checks.q_sample(q_sample)`.

A check runs a student's function on fixed inputs and says whether it is right, which mistake it holds, or where
it first goes wrong. It returns the student's function if that passes, and the package's own if it does not.
`checks.reset("q_sample")` shows the stub again, `checks.progress()` how far my_ddpm.py has come, and so does
`python -m ddpm_course.checks my_ddpm.py`.

What is checked stands in `ddpm_course.exercises`; every exercise there has its check here, under its name.
"""

from .. import exercises
from .judge import Verdict
from .notebook import Check, CheckFailed
from .overview import progress, reset

EXERCISES = tuple(Check(exercise) for exercise in exercises.EXERCISES)  # in the course's order
_BY_NAME = {check.name: check for check in EXERCISES}

__all__ = ["EXERCISES", "Check", "CheckFailed", "Verdict", "progress", "reset", *_BY_NAME]


def __getattr__(name: str) -> Check:
    """`checks.q_sample`, and so on for every exercise."""
    if name not in _BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it is not the name of an exercise either")
    return _BY_NAME[name]


def __dir__() -> list[str]:
    return __all__
