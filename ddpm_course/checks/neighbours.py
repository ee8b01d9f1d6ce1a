"""What a right answer returns for other arguments than it is given: whose result is that, did this to an argument."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ..exercises.records import Betas
from ..exercises.written import Exercise
from ..schedules import Schedule

FLOATS = {
    "clipped to [-1, 1]": lambda x: x.clamp(-1, 1),
    "clipped to [0, 1]": lambda x: x.clamp(0, 1),
    "with the other sign": lambda x: -x,
    "without its sign": abs,
    "squared": lambda x: x**2,
    "with a root taken of it": lambda x: x**0.5,
    "doubled": lambda x: 2 * x,
    "halved": lambda x: x / 2,
    "set to 0": lambda x: 0 * x,
    "set to 1": lambda x: 0 * x + 1,
}
TENSORS = {
    "put through tanh": torch.tanh,
    "rounded to whole numbers": torch.round,
    "cut to whole numbers": torch.trunc,
    "replaced by its mean": lambda x: x.mean().expand_as(x),
    "in half precision": lambda x: x.half().to(x.dtype),
}
ROWS = {
    "with its first entry in the place of all": lambda x: x[:1].expand_as(x),
    "with the batch turned around": lambda x: x.flip(0),
}
WHOLE = {"one larger": lambda x: x + 1, "one smaller": lambda x: x - 1}


def neighbours(exercise: Exercise) -> Iterator[tuple[str, Callable]]:
    """Every such sentence, with a function that returns what it says."""
    for i, name in enumerate(exercise.arguments):
        values = [case.args[i] for case in exercise.cases if len(case.args) > i]
        for phrase, change in _changes(values):
            yield f"It is what is right for `{name}` {phrase}.", _changed(exercise.reference, {i: change})
    whole = [i for i, name in enumerate(exercise.arguments) if name in ("t", "s")]
    for phrase, change in WHOLE.items() if len(whole) == 2 else ():
        says = f"It is what is right for `t` and `s` {phrase}."
        yield says, _changed(exercise.reference, dict.fromkeys(whole, change))
    args = exercise.cases[0].args
    for i, j in combinations(range(len(args)), 2):
        if type(args[i]) is type(args[j]) in (Tensor, int, float):
            one, other = (f"`{exercise.arguments[k]}`" for k in (i, j))
            yield f"It is what is right with {one} and {other} exchanged.", _exchanged(exercise.reference, i, j)


def _changes(values: list[Any]) -> Iterator[tuple[str, Callable]]:
    """What may be done to an argument that has such values in the cases."""
    first = values[0]
    if isinstance(first, bool | str):
        for value in dict.fromkeys(values):
            yield f"{value!r}, whatever is given", lambda _, value=value: value
    elif isinstance(first, Betas):
        yield "with its tables in half precision", lambda x: _other_tables(x, lambda table: table.half().double())
        yield (
            "with its tables rounded to two decimals",
            lambda x: _other_tables(x, lambda table: table.round(decimals=2)),
        )
    elif isinstance(first, int | float) or (isinstance(first, Tensor) and not first.dtype.is_complex):
        tensor = isinstance(first, Tensor)
        if tensor and first.ndim:
            yield from ROWS.items()
        if isinstance(first, int) or (tensor and not first.is_floating_point()):
            yield from WHOLE.items()
        else:
            yield from (FLOATS | (TENSORS if tensor else {})).items()


def _changed(reference: Callable, changes: dict[int, Callable]) -> Callable:
    return lambda *args: reference(*(changes[i](x) if i in changes else x for i, x in enumerate(args)))


def _exchanged(reference: Callable, i: int, j: int) -> Callable:
    def call(*args: Any) -> Any:
        args = list(args)
        args[i], args[j] = args[j], args[i]
        return reference(*args)

    return call


def _other_tables(schedule: Schedule, change: Callable[[Tensor], Tensor]) -> Schedule:
    for name in ("beta", "alpha", "alpha_bar"):
        setattr(schedule, name, change(getattr(schedule, name)))
    return schedule
