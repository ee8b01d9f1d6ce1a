"""What a notebook calls: `q_sample = checks.q_sample(q_sample)`."""

import sys
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from .. import colab
from ..exercises import EXERCISES
from ..exercises.written import Exercise
from ..modes import graded, saving
from ..schedules import Schedule
from . import display, library
from .judge import Verdict
from .running import instance


class CheckFailed(AssertionError):
    """Raised under nbgrader alone, on anything but solved. IPython shows its message and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Check:
    """The check of one exercise: calling it checks a function, says what it found, and returns what to go on with.

    verdict:  the latest, None before the first call
    number, name, lesson, reference, stub, mistakes, cases:  the exercise's
    """

    def __init__(self, exercise: Exercise):
        self.exercise = exercise
        self.verdict: Verdict | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "exercise":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.exercise, name)

    def check(self, function: Any, schedule_class: type = Schedule) -> Verdict:
        """Judge a function without showing, saving or returning anything else. Cases use `schedule_class`."""
        return library.verdict_on(self.exercise, function, schedule_class)

    def __call__(self, function: Any, *, save: bool = True) -> Callable:
        """Check a function, show the verdict, and return what the lesson goes on with.

        function:  the student's: any callable, or a class whose instances are called
        save:      keep it in my_ddpm.py if it passes (never under nbgrader, nor with DDPM_COURSE_SAVE=0)
        returns    function if it passes, the package's otherwise
        raises     CheckFailed under nbgrader if it does not pass, after rebinding the name to the package's
        """
        function = instance(function)
        if graded():
            return self._grade(function, sys._getframe(1).f_globals)
        verdict = self.verdict = self.check(function)
        if verdict.solved and save and saving():
            verdict.text.append(library.save(self.exercise, function, colab.own_folder() / colab.LIBRARY))
        display.show_verdict(self.exercise, verdict)
        return function if verdict.solved else self.reference

    def _grade(self, function: Any, namespace: dict[str, Any]) -> Callable:
        """Check under nbgrader, so that nobody loses points twice; `namespace` is the notebook's.

        After anything but success the name means the package's function, as the assignment in the check cell is not
        reached. So does the name of an earlier exercise whose cell did not run at all.
        """
        for earlier in takewhile(lambda exercise: exercise is not self.exercise, EXERCISES):
            if earlier.lesson == self.lesson and earlier.name not in namespace:
                namespace[earlier.name] = earlier.reference
        try:
            verdict = self.check(function)
        except KeyboardInterrupt:  # nbgrader's, when a cell takes too long
            says = "It was still running when its time was up. Is there a loop that does not end?"
            verdict = Verdict("wrong", [says], problem="raises")
        self.verdict = verdict
        if verdict.solved:
            display.show_verdict(self.exercise, verdict)
            return function
        if self.name in namespace:
            namespace[self.name] = self.reference
        raise CheckFailed("\n".join([display.heading(self.exercise, verdict), *verdict.text]))
