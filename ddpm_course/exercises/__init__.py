"""The exercises: for each its number, stub and right answer, the inputs it is checked on, and the mistakes it knows.

`lessonNN` holds the solutions of a lesson and lessonNN.mistakes what goes wrong; `written` makes exercises of them, and
`reading`, `edits` and `catalogue` make wrong functions of that text. `ddpm_course.checks` judges with them.
"""

from . import (
    lesson00,
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson05,
    lesson06,
    lesson07,
    lesson08,
    lesson09,
    lesson10,
    lesson11,
    lesson12,
    lesson13,
)
from .records import Aim, Betas, Case, Mistake, Seed
from .written import Exercise, exercise, exercises_of

LESSONS = (
    lesson00,
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson05,
    lesson06,
    lesson07,
    lesson08,
    lesson09,
    lesson10,
    lesson11,
    lesson12,
    lesson13,
)
EXERCISES = tuple(record for lesson in LESSONS for record in exercises_of(lesson))  # in the course's order

__all__ = ["EXERCISES", "Aim", "Betas", "Case", "Exercise", "Mistake", "Seed", "exercise"]
