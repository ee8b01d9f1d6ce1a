"""Names a student's mistake, or says where the answer first goes wrong."""

import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..exercises.records import Mistake
from . import patterns
from .calls import first_wrong
from .causes import cause, only_right
from .comparing import STRUCTURAL, Comparison
from .expected import Expected
from .neighbours import for_others
from .places import elsewhere
from .running import Outcome, home

NEAR = 50  # tolerances within which no other pair may come


def name_mistake(
    known: Expected, outcomes: list[Outcome], comparisons: list[Comparison]
) -> tuple[Mistake, list[str]] | None:
    """The mistake that one of whose variants does what the student's function did, and what to say.

    It must do so on every case. Where the function gives no values for some cases (it knows no int t, say), the
    others decide, if they leave no doubt, and what goes wrong in those cases is said too.
    """
    exercise = known.exercise
    if match := matching(exercise.mistakes, known, outcomes):
        return match[0], match[0].says.splitlines()
    valued = [i for i in _not_gpu(known) if comparisons[i].problem not in STRUCTURAL]
    if len(valued) < 2 or isinstance(known.values[0], int) or all(not comparisons[i].problem for i in valued):
        return None
    found = [m for m in exercise.mistakes if not m.whole and _matching(m, known, outcomes, valued)]
    if len(found) != 1:
        return None
    rest = [c if c.problem in STRUCTURAL else _as_if_right(c) for c in comparisons]
    where = cause(exercise.cases, rest)
    also = next(c.sentence for c in rest if c.problem)
    return found[0], [*found[0].says.splitlines(), f"And only {where}: {also[0].lower()}{also[1:]}" if where else also]


def matching(mistakes: list[Mistake], known: Expected, outcomes: list[Outcome]) -> tuple[Mistake, Callable] | None:
    """The first of the mistakes that does on every case what the student's function did, and the variant that does."""
    everywhere = _not_gpu(known)
    return next(((m, v) for m in mistakes if (v := _matching(m, known, outcomes, everywhere))), None)


def name_two(known: Expected, outcomes: list[Outcome], comparisons: list[Comparison]) -> tuple[Mistake, Mistake] | None:
    """The only two mistakes that, made together, do on every case what the student's function did.

    No other pair may come near it, and neither may change the shape by itself. Where results are whole numbers, too
    many pairs do the same by chance; and running a network of several levels hundreds of times takes too long.
    """
    indices = _not_gpu(known)
    failing = [i for i in indices if comparisons[i].problem]
    values = all(comparisons[i].problem in ("", "values", "nan") for i in indices)
    if isinstance(known.values[0], int | list) or known.exercise.given or not failing or not values:
        return None
    indices.sort(key=lambda i: (i not in failing, known.outcome(known.exercise.reference, i).seconds))
    near = [
        pair
        for pair in known.pairs
        if all(known.agrees(outcomes[i], pair[2], i, NEAR * known.exercise.tolerance) for i in indices)
        and all(known.keeps_shape(mistake.variants[0], failing[0]) for mistake in pair[:2])
    ]
    if len(near) != 1 or not all(known.agrees(outcomes[i], near[0][2], i) for i in indices):
        return None
    return near[0][:2]


def _not_gpu(known: Expected) -> list[int]:
    return [i for i, case in enumerate(known.exercise.cases) if not case.gpu]


def _matching(mistake: Mistake, known: Expected, outcomes: list[Outcome], indices: list[int]) -> Callable | None:
    return next((v for v in mistake.variants if all(known.agrees(outcomes[i], v, i) for i in indices)), None)


def _as_if_right(comparison: Comparison) -> Comparison:
    return Comparison("", "", torch.zeros_like(comparison.wrong))


def locate(
    known: Expected, leaned: list[str], outcomes: list[Outcome], comparisons: list[Comparison]
) -> tuple[str, list[str]]:
    """The kind of the first problem, and what can be said about it without knowing the mistake."""
    exercise = known.exercise
    failing = [i for i, c in enumerate(comparisons) if c.problem]
    dtype = [i for i in failing if comparisons[i].problem == "dtype"]  # the least of all, but for missing digits
    serious = [i for i in failing if i not in dtype and not exercise.cases[i].gpu]
    first, n = (serious or dtype or failing)[0], len(comparisons)
    failing = [i for i in failing if not serious or i not in dtype]
    problem, text = comparisons[first].problem, []
    counted = [i for i, case in enumerate(exercise.cases) if not (serious and case.gpu)]
    told = [comparisons[i] if i in failing else _as_if_right(comparisons[i]) for i in counted]
    where = cause([exercise.cases[i] for i in counted], told)
    where = f", and wrong only {where}" if where else ""
    if not where and (there := only_right([exercise.cases[i] for i in counted], told)):
        where = f": right only {there}"
    if where or len(failing) < n:
        text.append(f"Right in {n - len(failing)} of {n} cases{where}.")
    text.append(comparisons[first].sentence)
    if right := [part for part in comparisons[first].right if all(part in comparisons[i].right for i in failing)]:
        text.append(f"In every case the {' and the '.join(right)} {'are' if len(right) > 1 else 'is'} right.")
    text += _found(known, outcomes, comparisons, serious or failing)
    returned = [(o, known.outcome(exercise.reference, i)) for i, o in enumerate(outcomes) if o.error is None]
    for name, verb in (("generator", "draws from"), ("optimizer", "uses")):
        if all(name in mine.unused for mine, _ in returned) and any(name not in right.unused for _, right in returned):
            text.append(f"It never {verb} the `{name}` it is given.")
    return problem, text + leaning(leaned)


def _found(known: Expected, outcomes: list[Outcome], comparisons: list[Comparison], failing: list[int]) -> list[str]:
    """What wrong results are instead of right ones, as far as they tell."""
    exercise, problem = known.exercise, comparisons[failing[0]].problem
    failing = [i for i in failing if comparisons[i].problem in ("values", "shape")]
    if problem not in ("values", "shape"):
        return []
    if draws_more(known, outcomes, failing):
        return [DREW]
    failures = {i: comparisons[i] for i in failing if comparisons[i].problem == "values"}
    tensors = [
        {name: x for name, x in zip(exercise.arguments, exercise.cases[i].args, strict=False) if isinstance(x, Tensor)}
        for i in failing
    ]
    text = elsewhere([comparisons[i] for i in failing], tensors, exercise.tolerance)
    if not text and len(failures) == len(failing):
        text = (
            for_others(known, outcomes)
            or patterns.in_common(exercise, failures)
            or patterns.weights(exercise, failures)
        )
    mine, right = outcomes[failing[0]].calls, known.outcome(exercise.reference, failing[0]).calls
    if problem == "values" and right and mine is not None:
        text += first_wrong(mine, right, exercise.tolerance)
    return text


def leaning(leaned: list[str]) -> list[str]:
    """A sentence on the names that a function reads from its notebook, if there are any."""
    return [f"It reads {_quoted(leaned)} from the notebook: take everything from the arguments."] if leaned else []


def draws_more(known: Expected, outcomes: list[Outcome], indices: Iterable[int]) -> bool:
    """Does it draw from the notebook's random numbers on one of the cases where a right answer does not?"""
    return any(outcomes[i].drew and not known.outcome(known.exercise.reference, i).drew for i in indices)


HANDED_OVER = {"generator", "noise", "z"}  # where one comes in, all that is random does; elsewhere a layer may be made
DREW = "It draws random numbers of its own: everything random comes in through the arguments."
CHANGED = {  # how an argument may be found changed (`traces.difference`), and what is said of it
    "tables": "It changes the tables of {}, which every later step reads: work on a copy.",
    "values": "It changes {} in place, which belongs to the caller: write y = x * 2, not x *= 2.",
    "entries": "It changes the list {}, which belongs to the caller: work on a copy, list(...).",
    "weights": "It changes the weights of {}, which belongs to the caller.",
    "mode": "It leaves {} in another mode than it came in: what .eval() and .train() set holds for later cells too.",
    "frozen": "It changes which weights of {} are trained (requires_grad), in every later cell too.",
}
LEFT = {  # settings of the process (`traces.Traces`)
    "seed": "It seeds the notebook's random numbers: later cells draw the same ones every time. Leave out the seed.",
    "gradients": "It switches gradients on or off for every cell after it: `with torch.no_grad():` puts back what was.",
    "dtype": "It leaves a default dtype in which every later cell makes its tensors: name it where you make one.",
    "device": "It leaves a default device on which every later cell makes its tensors: name it where you make one.",
    "deterministic": "It leaves torch.use_deterministic_algorithms changed for every cell after it.",
}


def left_behind(known: Expected, outcomes: list[Outcome], right: bool) -> list[str]:
    """A sentence for everything that the calls left changed and a right answer does not.

    right: the results are; only then do generators and optimizers have to be in the state of a right answer's
    """
    changed: dict[str, list[str]] = {}
    for name, how in dict.fromkeys(item for outcome in outcomes for item in outcome.changed.items()):
        changed.setdefault(how, []).append(name)
    text = [CHANGED[how].format(_quoted(names)) for how, names in changed.items()]
    text += [LEFT[name] for name in LEFT if any(name in outcome.left for outcome in outcomes)]
    if text or not right:
        return text
    if HANDED_OVER & set(known.exercise.arguments) and draws_more(known, outcomes, range(len(outcomes))):
        return [DREW]
    for i, outcome in enumerate(outcomes):
        states = known.outcome(known.exercise.reference, i).states
        for name, state in outcome.states.items():
            if complaint := _state_complaint(name, state, states[name]):
                idle = isinstance(state, bytes) and all(name in outcome.unused for outcome in outcomes)
                return [f"It never draws from the `{name}` it is given, but from another one." if idle else complaint]
    return []


def _state_complaint(name: str, got: Any, want: Any) -> str | None:
    """What is wrong with the state in which a call leaves a generator or an optimizer."""
    if got == want:
        return None
    if not isinstance(got, bytes):
        return f"It leaves `{name}` in another state than training with it does: take the one that is given, as it is."
    for word, later, earlier in (("more", got, want), ("fewer", want, got)):
        following, first = _draws(earlier, 5000), _draws(later, 4)
        if len(ahead := (following.unfold(0, 4, 1) == first).all(1).nonzero()):
            says = f"It draws {word} numbers from `{name}` than it should: whatever draws from it next gets others."
            return says if ahead[0] > 0 else None  # at 0 only half of a pair of normal numbers is left
    return f"It draws other numbers from `{name}` than it should: whatever draws from it next gets others."


def _draws(state: bytes, n: int) -> Tensor:
    """The next numbers of a generator in this state."""
    generator = torch.Generator(device="cpu")
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return torch.rand(n, generator=generator, dtype=torch.float32, device="cpu")


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


def _quoted(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
