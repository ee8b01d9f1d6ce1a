"""What the right answer and the known mistakes do on an exercise's cases: run once, compared with many functions."""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

from ..exercises.written import Exercise
from .comparing import between, same
from .running import Outcome, run


class Expected:
    """The results on the cases of one exercise, each computed when it is first asked for."""

    def __init__(self, exercise: Exercise):
        self.exercise = exercise
        self._outcomes: dict[tuple[Callable, int], Outcome] = {}

    @cached_property
    def values(self) -> list[Any]:
        """The right results, one a case."""
        return [self.outcome(self.exercise.reference, i).value for i in range(len(self.exercise.cases))]

    @property
    def seconds(self) -> float:
        """What the right answer takes to compute on all cases."""
        return sum(self.outcome(self.exercise.reference, i).seconds for i in range(len(self.exercise.cases)))

    def outcome(self, function: Callable, i: int) -> Outcome:
        """What the right answer, or a variant of a mistake, does on case i."""
        if (function, i) not in self._outcomes:
            self._outcomes[function, i] = run(function, self.exercise.cases[i], self.exercise.arguments)
        return self._outcomes[function, i]

    def agrees(self, outcome: Outcome, variant: Callable, i: int, tolerance: float | None = None) -> bool:
        """Did a student's function do on case i what a variant does there? By default to the exercise's tolerance."""
        tolerance = tolerance or self.exercise.tolerance
        if versions := getattr(variant, "versions", ()):
            return between(outcome, [self.outcome(version, i) for version in versions], tolerance)
        return same(outcome, self.outcome(variant, i), tolerance)


@cache
def expected(exercise: Exercise) -> Expected:
    """The one object with an exercise's results."""
    return Expected(exercise)
