"""What an exercise is: its fixed inputs, the right answer, and the mistakes it knows.

Calling an exercise checks a student's function, says what it found, and returns what the lesson goes on
with: the student's function if it passes, the package's own if it does not.

A new exercise is a record like this one, named in `checks.EXERCISES`:

    double = Exercise(
        "3.9",
        "double",
        answers.double,
        lambda: [Case("x of shape (4,)", (normal((4,), 0),)), Case("x of shape (2, 3)", (normal((2, 3), 1),))],
        stub="def double(x):\\n    raise NotImplementedError  # your code here",
        first="what is x + x?",
        mistakes=[Mistake("squared", "x² is not 2x (lesson 03, 'Doubling').", lambda x: x**2)],
    )
"""

import dis
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

from .. import colab
from ..schedules import Schedule
from . import diagnosis, library, report
from .comparing import compare
from .running import Case, Outcome, home, run


class CheckFailed(AssertionError):
    """Raised under nbgrader alone, on anything but solved. IPython shows its message and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Mistake:
    """A wrong answer that the check knows by name.

    id:        for tests and for the lesson's list of mistakes
    says:      what the student is told, with the lesson and the section that derive the step; a sentence a line
    variants:  wrong implementations; a student whose results equal one of them on every case made this mistake
    whole:     recognised only if the function returns something on every case
    """

    def __init__(self, id: str, says: str, *variants: Callable, whole: bool = False):
        self.id, self.says, self.variants, self.whole = id, says, variants, whole


@dataclass
class Verdict:
    """What a check found.

    status:   "solved", "not attempted", "wrong", or "package" (it was given the package's own function)
    mistake:  the id of the mistake it is, if it is one the exercise knows
    problem:  else what kind of thing goes wrong first: signature, raises, none, type, shape, device, nan,
              values, dtype, changed
    text:     for the student, one sentence a line
    """

    status: str
    text: list[str] = field(default_factory=list)
    mistake: str | None = None
    problem: str | None = None
    passed: int = 0
    cases: int = 0

    @property
    def solved(self) -> bool:
        return self.status == "solved"


@dataclass(eq=False)
class Exercise:
    """One exercise, and the object a notebook calls: `q_sample = checks.q_sample(q_sample)`.

    number:     "2.3": lesson and place
    name:       of the function, of the check, and of the entry in my_ddpm.py
    package:    the course's own function: the right answer, and the stand-in until the student has one;
                "data.to_uint8" names one in a module that takes long to import, and is imported when needed
    make_cases: () -> cases; called when they are first needed, so that importing stays light
    stub:       what the student starts from
    first:      what to do first, told to who has not begun
    mistakes:   the catalogue
    linear:     names of two arguments of which the result is a weighted sum, if it is one
    tolerance:  absolute and relative, on every element
    any_float:  float32 and float64 are both fine as a result
    alternatives: answers that are right too, but not the package's: another order of features, say. They count as
                solved, and the student is told what they say
    given:      a class that the exercise completes: goes into my_ddpm.py with it, marked "given"
    """

    number: str
    name: str
    package: Callable | str
    make_cases: Callable[[], list[Case]]
    stub: str
    first: str
    mistakes: list[Mistake]
    linear: tuple[str, str] | None = None
    tolerance: float = 1e-4
    any_float: bool = False
    alternatives: list[Mistake] = field(default_factory=list)
    given: type | None = None
    verdict: Verdict | None = field(default=None, init=False)  # the latest
    _of_variants: dict = field(default_factory=dict, init=False, repr=False)

    def __call__(self, function: Any, *, save: bool = True) -> Callable:
        """Check function, show the verdict, and return what the lesson goes on with.

        function:  the student's: any callable, or a class whose instances are called
        save:      keep it in my_ddpm.py if it passes (never under nbgrader, nor with DDPM_COURSE_SAVE=0)
        returns    function if it passes, the package's otherwise
        raises     CheckFailed under nbgrader if it does not pass, after rebinding the name to the package's
        """
        function = instance(function)
        if "NBGRADER_EXECUTION" in os.environ:
            return self._grade(function, sys._getframe(1).f_globals)
        verdict = self.verdict = self.check(function)
        if verdict.solved and save and os.environ.get("DDPM_COURSE_SAVE") != "0":
            verdict.text.append(library.save(self, function, colab.own_folder() / library.NAME))
        report.show_verdict(self, verdict)
        return function if verdict.solved else self.reference

    def _grade(self, function: Any, namespace: dict[str, Any]) -> Callable:
        """Check under nbgrader, so that nobody loses points twice; `namespace` is the notebook's.

        After anything but success the name means the package's function, as the assignment in the check cell is not
        reached. So does the name of an earlier exercise whose cell did not run at all.
        """
        from . import EXERCISES

        for earlier in takewhile(lambda other: other is not self, EXERCISES):
            if earlier.lesson == self.lesson and earlier.name not in namespace:
                namespace[earlier.name] = earlier.reference
        try:
            verdict = self.check(function)
        except KeyboardInterrupt:  # nbgrader's, when a cell takes too long
            says = "It was still running when its time was up. Is there a loop that does not end?"
            verdict = Verdict("wrong", [says], problem="raises")
        self.verdict = verdict
        if verdict.solved:
            report.show_verdict(self, verdict)
            return function
        if self.name in namespace:
            namespace[self.name] = self.reference
        raise CheckFailed("\n".join([report.heading(self, verdict), *verdict.text]))

    def check(self, function: Any, schedule_class: type = Schedule) -> Verdict:
        """Judge function without showing, saving or returning anything else. Cases use `schedule_class`."""
        if function is self.reference or home(function) is self.reference:
            return Verdict("package", ["This is the course's own function, standing in for yours.",
                                       "Run the exercise cell again, then this one."])  # fmt: skip
        if not callable(function):
            return Verdict("wrong", [f"`{self.name}` is {function!r:.60}, not a function."], problem="type")
        if complaint := self._signature_complaint(function):
            return Verdict("wrong", [complaint], problem="signature")
        outcomes = [run(function, case, self.arguments, schedule_class) for case in self.cases]
        if all(isinstance(outcome.error, NotImplementedError) for outcome in outcomes) or _is_empty(function):
            return Verdict("not attempted", [f"Begin here: {self.first}"])
        comparisons = [
            compare(outcome, expected, case, self.tolerance, self.any_float)
            for outcome, expected, case in zip(outcomes, self.expected, self.cases, strict=True)
        ]
        passed, n = sum(not c.problem for c in comparisons), len(self.cases)
        counted = {"passed": passed, "cases": n}
        side_effect = diagnosis.side_effect(self, outcomes)
        if passed == n and not side_effect:
            text = f"{n} of {n} cases pass. The lesson now runs on your function."
            return Verdict("solved", [text, *diagnosis.printed(outcomes)], **counted)
        other = diagnosis.matching(self.alternatives, self, outcomes)
        if other and not side_effect and not any(c.problem == "dtype" for c in comparisons):
            text = f"All {n} cases pass. The lesson now runs on your function."
            return Verdict("solved", [text, *other.says.splitlines()], passed=n, cases=n)
        named = diagnosis.name_mistake(self, outcomes, comparisons) if passed < n else None
        mistake, problem = None, None
        if named:
            mistake, text = named[0].id, named[1]
        elif passed < n:
            problem, text = diagnosis.locate(self, function, outcomes, comparisons)
        else:
            problem, text = "changed", ["The result is right."]
        text += [*side_effect, *diagnosis.printed(outcomes)]
        return Verdict("wrong", text, mistake, problem, **counted)

    @cached_property
    def reference(self) -> Callable:
        """The package's function itself."""
        if callable(self.package):
            return self.package
        module, _, name = self.package.partition(".")
        return getattr(importlib.import_module(f"ddpm_course.{module}"), name)

    @cached_property
    def cases(self) -> list[Case]:
        return self.make_cases()

    @cached_property
    def expected(self) -> list[Any]:
        """The package's results on the cases."""
        return [run(self.reference, case, self.arguments).value for case in self.cases]

    def of_variant(self, variant: Callable, i: int) -> Outcome:
        """What a variant of a mistake does on case i; asked for many times, run once."""
        if (variant, i) not in self._of_variants:
            self._of_variants[variant, i] = run(variant, self.cases[i], self.arguments)
        return self._of_variants[variant, i]

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.reference).parameters)

    @property
    def lesson(self) -> str:
        return f"{int(self.number.split('.')[0]):02d}"

    def _signature_complaint(self, function: Callable) -> str | None:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some built-in functions have none
            return None
        try:
            signature.bind(*self.arguments)
        except TypeError:
            theirs = ", ".join(signature.parameters)
            return f"The lesson calls {self.name}({', '.join(self.arguments)}); yours takes ({theirs})."
        return None


def instance(function: Any) -> Any:
    """An instance, if function is a class that can be made without arguments and then called."""
    if isinstance(function, type) and "__call__" in dir(function):
        try:
            return function()
        except Exception:
            return function
    return function


def _is_empty(function: Callable) -> bool:
    """Is the body nothing but a docstring, `pass` or `...`?"""
    wrote = home(function)
    if wrote is None:
        return False
    names = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS", "MAKE_CELL", "CACHE"}
    instructions = list(dis.get_instructions(wrote))
    returns = [i for i in instructions if i.opname in ("LOAD_CONST", "RETURN_CONST")]
    return all(i.opname in names for i in instructions) and all(i.argval is None for i in returns)
