"""What the right answer and the known mistakes do on an exercise's cases: run once, compared with many functions."""

from collections.abc import Callable
from functools import cache, cached_property
from itertools import combinations
from math import inf
from typing import Any

from ..exercises.catalogue import Variant
from ..exercises.records import Mistake
from ..exercises.written import Exercise
from .comparing import between, same
from .running import Outcome, run

LONGEST = 5  # seconds of computing for a mistake on a case; two together may never end


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

    @cached_property
    def pairs(self) -> list[tuple[Mistake, Mistake, Variant]]:
        """Every two of the mistakes, made together: what they do is computed when it is first asked for."""
        single = [m for m in self.exercise.mistakes if not m.whole and not m.variants[0].change.startswith("def ")]
        return [(a, b, a.variants[0].together_with(b.variants[0])) for a, b in combinations(single, 2)]

    def outcome(self, function: Callable, i: int) -> Outcome:
        """What the right answer, or a variant of a mistake, does on case i."""
        if (function, i) not in self._outcomes:
            right = function is self.exercise.reference
            seconds, arguments = inf if right else LONGEST, self.exercise.arguments
            self._outcomes[function, i] = run(function, self.exercise.cases[i], arguments, seconds=seconds)
            if not right:  # a thousand mistakes would fill the memory with what layers are given
                self._outcomes[function, i].calls = None
        return self._outcomes[function, i]

    def keeps_shape(self, variant: Callable, i: int) -> bool:
        """Has what a variant returns on case i the right shape, where both have one?"""
        shapes = {getattr(value, "shape", None) for value in (self.outcome(variant, i).value, self.values[i])}
        return len(shapes - {None}) < 2

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
