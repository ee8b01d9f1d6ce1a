"""What a right answer returns for other arguments than it is given: whose result is that, did this to an argument."""

from collections.abc import Callable
from functools import cache
from itertools import combinations, product

import torch
from torch import Tensor

from ..exercises.written import Exercise
from .expected import Expected
from .running import Outcome

CHANGES = {
    "clipped to [-1, 1]": lambda x: x.clamp(-1, 1),
    "clipped to [0, 1]": lambda x: x.clamp(0, 1),
    "put through tanh": torch.tanh,
    "with the other sign": lambda x: -x,
    "without its sign": abs,
    "squared": lambda x: x**2,
    "with a root taken of it": lambda x: x**0.5,
    "set to 0": lambda x: 0 * x,
    "one larger": lambda x: x + 1,
    "one smaller": lambda x: x - 1,
    "replaced by its mean": lambda x: x.mean().expand_as(x),
    "with its first entry in the place of all": lambda x: x[:1].expand_as(x),
}


@cache
def neighbours(exercise: Exercise) -> list[tuple[str, Callable]]:
    """Every such sentence, with a function that returns what it says, or raises where it makes no sense."""
    names, args = exercise.arguments, exercise.cases[0].args
    numbers = [i for i, value in enumerate(args) if isinstance(value, Tensor | int | float)]

    def other(change: Callable, *places: int) -> Callable:
        def call(*args: object) -> object:
            args = list(args)
            for i, value in zip(places, change(*(args[i] for i in places)), strict=True):
                args[i] = value
            return exercise.reference(*args)

        return call

    single = [
        (f"for `{names[i]}` {phrase}", other(lambda x, change=change: [change(x)], i))
        for i, (phrase, change) in product(numbers, CHANGES.items())
    ]
    exchanged = [
        (f"with `{names[i]}` and `{names[j]}` exchanged", other(lambda x, y: [y, x], i, j))
        for i, j in combinations(numbers, 2)
    ]
    return [(f"It is what is right {phrase}.", function) for phrase, function in single + exchanged]


def for_others(known: Expected, outcomes: list[Outcome]) -> list[str]:
    """Is it, on every case, what is right for other arguments?"""
    for says, function in neighbours(known.exercise):
        if all(known.agrees(outcome, function, i) for i, outcome in enumerate(outcomes)):
            return [says]
    return []
