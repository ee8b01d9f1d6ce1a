"""Names a student's mistake, or says where the answer first goes wrong."""

import inspect
import types
from collections.abc import Callable

import torch

from ..exercises.records import Case, Mistake
from .comparing import Comparison, smallest_fact
from .expected import Expected
from .running import Outcome, home

STRUCTURAL = ("raises", "none", "type", "shape")  # nothing to hold against the values that a mistake makes


def name_mistake(
    known: Expected, outcomes: list[Outcome], comparisons: list[Comparison]
) -> tuple[Mistake, list[str]] | None:
    """The mistake that one of whose variants does what the student's function did, and what to say.

    It must do so on every case. Where the function gives no values for some cases (it knows no int t, say), the
    others decide, if they leave no doubt, and what goes wrong in those cases is said too.
    """
    exercise = known.exercise
    if mistake := matching(exercise.mistakes, known, outcomes):
        return mistake, mistake.says.splitlines()
    valued = [i for i in _not_gpu(known) if comparisons[i].problem not in STRUCTURAL]
    if len(valued) < 2 or isinstance(known.values[0], int) or all(not comparisons[i].problem for i in valued):
        return None
    found = [m for m in exercise.mistakes if not m.whole and _matches(m, known, outcomes, valued)]
    if len(found) != 1:
        return None
    rest = [c if c.problem in STRUCTURAL else _as_if_right(c) for c in comparisons]
    where = smallest_fact(exercise.cases, rest)
    also = next(c.sentence for c in rest if c.problem)
    return found[0], [*found[0].says.splitlines(), f"And only {where}: {also[0].lower()}{also[1:]}" if where else also]


def matching(mistakes: list[Mistake], known: Expected, outcomes: list[Outcome]) -> Mistake | None:
    """The first of the mistakes that does on every case what the student's function did."""
    everywhere = _not_gpu(known)
    return next((m for m in mistakes if _matches(m, known, outcomes, everywhere)), None)


def _not_gpu(known: Expected) -> list[int]:
    return [i for i, case in enumerate(known.exercise.cases) if not case.gpu]


def _matches(mistake: Mistake, known: Expected, outcomes: list[Outcome], indices: list[int]) -> bool:
    return any(all(known.agrees(outcomes[i], variant, i) for i in indices) for variant in mistake.variants)


def _as_if_right(comparison: Comparison) -> Comparison:
    return Comparison("", "", torch.zeros_like(comparison.wrong))


def locate(
    known: Expected, function: Callable, outcomes: list[Outcome], comparisons: list[Comparison]
) -> tuple[str, list[str]]:
    """The kind of the first problem, and what can be said about it without knowing the mistake."""
    exercise = known.exercise
    failing = [i for i, c in enumerate(comparisons) if c.problem]
    if any(comparisons[i].problem != "dtype" for i in failing):  # a wrong dtype is the least of them
        failing = [i for i in failing if comparisons[i].problem != "dtype"]
    first, n = failing[0], len(comparisons)
    problem, text = comparisons[first].problem, []
    where = smallest_fact(exercise.cases, [c if i in failing else _as_if_right(c) for i, c in enumerate(comparisons)])
    if where:
        text.append(f"Right in {n - len(failing)} of {n} cases, and wrong only {where}.")
    elif len(failing) < n:
        text.append(f"Right in {n - len(failing)} of {n} cases.")
    text.append(comparisons[first].sentence)
    if problem == "values":
        values = [i for i in failing if comparisons[i].problem == "values"]
        drew = any(outcomes[i].drew and not known.outcome(exercise.reference, i).drew for i in values)
        if exercise.linear and not drew:
            text += _weights(known, [(exercise.cases[i], comparisons[i], outcomes[i]) for i in values])
        if drew:
            text.append("It draws random numbers of its own: everything random comes in through the arguments.")
    returned = [outcome for outcome in outcomes if outcome.error is None]
    if returned and all(outcome.idle_generator for outcome in returned):
        text.append("It never draws from the `generator` it is given.")
    if leaned := notebook_variables(function):
        text.append(f"It reads {_quoted(leaned)} from the notebook: take everything from the arguments.")
    return problem, text


def side_effect(outcomes: list[Outcome]) -> list[str]:
    """A sentence if a call changed one of its arguments."""
    changed = list(dict.fromkeys(name for outcome in outcomes for name in outcome.changed))
    if not changed:
        return []
    if "schedule" in changed:
        return ["It changes the tables of `schedule`, which every later step reads: work on a copy."]
    return [f"It changes {_quoted(changed)} in place, which belongs to the caller: write y = x * 2, not x *= 2."]


def printed(outcomes: list[Outcome]) -> list[str]:
    """What the function printed in the first case that printed anything."""
    lines = next((o.printed.rstrip().splitlines() for o in outcomes if o.printed.strip()), [])
    if not lines:
        return []
    more = [f"  ... and {len(lines) - 10} lines more"] if len(lines) > 10 else []
    return ["It printed:", *("  " + line for line in lines[:10]), *more]


def notebook_variables(function: Callable) -> list[str]:
    """Names of the data (neither functions, classes nor modules) that a function reads from its notebook."""
    wrote = home(function)
    if wrote is None:
        return []
    used = inspect.getclosurevars(wrote)
    code = (type, types.ModuleType)
    return sorted(
        name
        for name, value in {**used.globals, **used.nonlocals}.items()
        if not isinstance(value, code) and not callable(value) and not isinstance(value, int | float | str)
    )


def _weights(known: Expected, failures: list[tuple[Case, Comparison, Outcome]]) -> list[str]:
    """For a result that should be a weighted sum of two arguments: which of the two weights is wrong."""
    exercise, names = known.exercise, known.exercise.linear
    for case, comparison, outcome in failures:
        x, noise = (case.args[exercise.arguments.index(name)] for name in names)
        for row in comparison.wrong.flatten(1).any(1).nonzero().flatten().tolist() if x.ndim > 1 else ():
            basis = torch.stack([x[row].flatten(), noise[row].flatten()], dim=1).cpu().double()  # (pixels, 2)
            if len(basis) < 4:
                continue
            want = known.values[exercise.cases.index(case)][row].flatten().cpu().double()
            got = outcome.value[row].detach().flatten().cpu().double()
            (a, b), (right_a, right_b) = (torch.linalg.lstsq(basis, y).solution.tolist() for y in (got, want))
            if (basis @ torch.tensor([a, b], dtype=torch.float64) - got).abs().max() > 1e-3:
                return [f"It is not a weighted sum of `{names[0]}` and `{names[1]}` there."]
            return [_weigh(names, (a, right_a), (b, right_b))]
    return []


def _weigh(names: tuple[str, str], first: tuple[float, float], second: tuple[float, float]) -> str:
    right = [abs(got - want) < 1e-3 for got, want in (first, second)]
    if all(right):
        return "Both weights are right to three digits, but not beyond."
    wrong = [
        f"the weight of `{name}` is {round(got, 9):.4g} and should be {round(want, 9):.4g}"
        for name, (got, want), ok in zip(names, (first, second), right, strict=True)
        if not ok
    ]
    if right == [True, False]:
        return f"Right mean, wrong variance: {wrong[0]}."
    if right == [False, True]:
        return f"Right noise, wrong signal: {wrong[0]}."
    return f"Neither weight is right: {', '.join(wrong)}."


def _quoted(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
