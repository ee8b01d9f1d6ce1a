"""The checks of the exercises: `q_sample = checks.q_sample(q_sample)`.

A check runs a student's function on fixed inputs and says whether it is right, which mistake it holds, or where
it first goes wrong. It returns the student's function if that passes, and the package's own if it does not.
`checks.reset("q_sample")` shows the stub again, `checks.progress()` how far my_ddpm.py has come, and so does
`python -m ddpm_course.checks my_ddpm.py`.
"""

from .core import CheckFailed, Exercise, Mistake, Verdict
from .lesson00 import to_model_range
from .lesson01 import diffuse, next_variance, q_step, to_uint8
from .lesson02 import alpha_bars, equal_t, merge_noises, predict_x0, q_sample
from .overview import progress, reset

EXERCISES = (
    to_model_range,
    *(to_uint8, q_step, diffuse, next_variance),
    *(merge_noises, alpha_bars, q_sample, predict_x0, equal_t),
)

__all__ = ["EXERCISES", "CheckFailed", "Exercise", "Mistake", "Verdict", "progress", "reset"]
__all__ += [exercise.name for exercise in EXERCISES]
