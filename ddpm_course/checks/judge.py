"""Judges a student's function: is it right, which mistake does it hold, or where does it first go wrong?

It shows nothing and saves nothing, and knows of an exercise what its record says.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..exercises.catalogue import beside
from ..exercises.written import Exercise
from ..schedules import Schedule
from . import diagnosis, gradients
from .comparing import Comparison, compare, sentence
from .expected import Expected, expected
from .limits import TooLong
from .running import Outcome, home, run
from .sources import source_of

AT_LEAST, AS_OFTEN = 5, 50  # seconds of computing that every check gives, and for each second of the course's function


@dataclass
class Verdict:
    """What a check found.

    status:   "solved", "not attempted", "wrong", or "package" (it was given the package's own function)
    mistake:  the id of the mistake it is, if it is one the exercise knows
    problem:  else what kind of thing goes wrong first: signature, time, raises, none, type, shape, device, nan,
              values, dtype, changed, gradient
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


def check(exercise: Exercise, function: Any, schedule_class: type = Schedule) -> Verdict:
    """Run a function on the cases of an exercise, with schedules of `schedule_class`, and say what it is."""
    if refused := refusal(exercise, function):
        return refused
    outcomes = attempts(exercise, function, allowed(exercise), schedule_class)
    return verdict(exercise, outcomes, diagnosis.notebook_variables(function))


def allowed(exercise: Exercise) -> float:
    """Seconds of computing that a function may take on all cases."""
    return AT_LEAST + AS_OFTEN * expected(exercise).seconds


def refusal(exercise: Exercise, function: Any) -> Verdict | None:
    """The verdict on what need not be run."""
    if (getattr(home(function), "__module__", None) or "").split(".")[0] == "ddpm_course":
        return Verdict("package", ["This is the course's own function, standing in for yours.",
                                   "Run the exercise cell again, then this one."])  # fmt: skip
    if not callable(function):
        return Verdict("wrong", [f"`{exercise.name}` is {function!r:.60}, not a function."], problem="type")
    if complaint := _signature_complaint(exercise, function):
        return Verdict("wrong", [complaint], problem="signature")
    return Verdict("not attempted", [f"Begin here: {exercise.first}"]) if _is_empty(function) else None


def attempts(exercise: Exercise, function: Callable, seconds: float, schedule_class: type = Schedule) -> list[Outcome]:
    """What a function does on each case, and on those that ask for gradients; the last one is where its time was up."""
    outcomes = []
    for case in [*exercise.cases, *gradients.cases(exercise)]:
        outcome = run(function, case, exercise.arguments, schedule_class, bound_to=exercise.name, seconds=seconds)
        seconds -= outcome.seconds
        outcomes.append(outcome)
        if isinstance(outcome.error, TooLong):
            break
    return outcomes


def verdict(exercise: Exercise, outcomes: list[Outcome], leaned: list[str]) -> Verdict:
    """Say what a function is by what it did, which may have been elsewhere: nothing is run here but the course's own.

    The order is that of usefulness to the student: what is no attempt at all, what is right, what has a name, and only
    then what merely differs.
    outcomes: as `attempts` returns them
    leaned:   names that the function reads from its notebook
    """
    known, cases = expected(exercise), exercise.cases
    if late := [o for o in outcomes if isinstance(o.error, TooLong)]:
        i = min(len(outcomes), len(cases)) - 1
        return Verdict("wrong", [sentence(late[0], cases[i])], problem="time", cases=len(cases))
    outcomes, flows = outcomes[: len(cases)], outcomes[len(cases) :]
    if all(isinstance(outcome.error, NotImplementedError) for outcome in outcomes):
        return Verdict("not attempted", [f"Begin here: {exercise.first}"])

    comparisons = [
        compare(outcome, value, case, exercise.tolerance, exercise.any_float)
        for outcome, value, case in zip(outcomes, known.values, exercise.cases, strict=True)
    ]
    problems = {comparison.problem for comparison in comparisons}
    left_behind = diagnosis.left_behind(known, outcomes, right=problems == {""})
    if exercise.aim:
        return _by_aim(known, outcomes, comparisons, left_behind, leaned)
    passed, n = sum(not c.problem for c in comparisons), len(comparisons)
    other = diagnosis.matching(exercise.alternatives, known, outcomes) if passed < n else None
    if not left_behind and (passed == n or (other and "dtype" not in problems)):
        like = other[1] if other else exercise.reference
        if cut_off := gradients.complaint(exercise, flows, like):
            return Verdict("wrong", [cut_off], problem="gradient", passed=n, cases=n)
        if other:
            return _solved(n, f"All {n}", other[0].says.splitlines())
        return _solved(n, f"{n} of {n}", diagnosis.printed(outcomes))

    named = diagnosis.name_mistake(known, outcomes, comparisons) if passed < n else None
    mistake, problem = None, None
    if named:
        mistake, text = named[0].id, named[1]
    elif two := diagnosis.name_two(known, outcomes, comparisons):
        mistake, text = " and ".join(m.id for m in two), [line for m in two for line in beside(m.says).splitlines()]
    elif passed < n:
        problem, text = diagnosis.locate(known, leaned, outcomes, comparisons)
    else:
        problem, text = "changed", ["The result is right."]
    text += [*left_behind, *diagnosis.printed(outcomes)]
    return Verdict("wrong", text, mistake, problem, passed=passed, cases=n)


def _solved(n: int, number: str, more: list[str]) -> Verdict:
    return Verdict("solved", [f"{number} cases pass. The lesson now runs on your function.", *more], passed=n, cases=n)


def _by_aim(
    known: Expected, outcomes: list[Outcome], comparisons: list[Comparison], faults: list[str], leaned: list[str]
) -> Verdict:
    """The verdict by what the results do, whatever their values.

    comparisons: with the reference, which count where a result is not even of the kind that is asked for
    faults:      sentences on what the answer does besides returning them
    """
    aim, n = known.exercise.aim, len(outcomes)
    results = [(outcome.value, case) for outcome, case in zip(outcomes, known.exercise.cases, strict=True)]
    fits = [aim.fits(*result) for result in results]
    shown = [aim.fault(*result) if fit else None for result, fit in zip(results, fits, strict=True)]
    passed = sum(fit and not mistake for fit, mistake in zip(fits, shown, strict=True))
    if diagnosis.draws_more(known, outcomes, range(n)):
        faults = [diagnosis.DREW, *faults]
    mistake = problem = None
    if not all(fits):
        first = comparisons[fits.index(False)]
        problem, text = first.problem, [first.sentence, *diagnosis.leaning(leaned)]
        if problem == "values":  # no table of floats with these digits is asked for, whatever the numbers
            dtype = str(results[fits.index(False)][0].dtype).removeprefix("torch.")
            problem, text[0] = "dtype", f"Its entries are {dtype}: compute in float64, from the first tensor on."
        if passed:
            text.insert(0, f"Right in {passed} of {n} cases.")
    elif any(shown):
        mistake = next(mistake.id for mistake in known.exercise.mistakes if mistake.id in shown)
        [first, *rest] = next(m.says for m in known.exercise.mistakes if m.id == mistake).splitlines()
        score = aim.score(*results[shown.index(mistake)])
        text = [first, *([score] if score else []), *rest]
    elif faults:
        problem, text = "changed", ["The result is right."]
    else:
        return _solved(n, f"{n} of {n}", [aim.score(*results[0]), *diagnosis.printed(outcomes)])
    return Verdict("wrong", [*text, *faults, *diagnosis.printed(outcomes)], mistake, problem, passed, n)


def _signature_complaint(exercise: Exercise, function: Callable) -> str | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return None
    try:
        signature.bind(*exercise.arguments)
    except TypeError:
        theirs = ", ".join(signature.parameters)
        return f"The lesson calls {exercise.name}({', '.join(exercise.arguments)}); yours takes ({theirs})."
    return None


def _is_empty(function: Callable) -> bool:
    """Is the body nothing but a docstring, `pass`, `...` or `return None`?"""

    def says_nothing(line: ast.stmt) -> bool:
        value = getattr(line, "value", None)
        returns = isinstance(line, ast.Return) and (value is None or getattr(value, "value", 0) is None)
        return isinstance(line, ast.Pass) or returns or (isinstance(line, ast.Expr) and isinstance(value, ast.Constant))

    wrote = home(function)
    if wrote is None or wrote.__code__.co_names:
        return False
    source = source_of(wrote)
    if source is None:  # as of a lambda: then by comparison with what is empty, with a docstring and without

        def documented() -> None:
            """Nothing."""

        constants = set(map(repr, wrote.__code__.co_consts)) <= {repr(None), repr(wrote.__doc__)}
        return constants and wrote.__code__.co_code in [f.__code__.co_code for f in (lambda: None, documented)]
    return all(map(says_nothing, ast.parse(source).body[0].body))
