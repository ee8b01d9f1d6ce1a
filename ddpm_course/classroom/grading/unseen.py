"""Cases that no student has seen: an exercise's own, with other numbers in them, new ones for every report.

Who knows the fixed inputs of a check could hand in a table of the results. The report therefore asks for results on
inputs like these as well: `solved` needs both.
"""

import random
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...exercises.records import Betas, Case, Seed
from ...exercises.written import Exercise


@cache  # with it the right answers on these cases, and the wrong ones, which take seconds
def unseen(exercise: Exercise, seed: int) -> Exercise:
    """The exercise with every number in its cases changed that may be another one, and each random seed replaced.

    Signs and the order within a table stay, and so do networks, labels, steps and sizes, but for the arguments that are
    `free`. The same comes out wherever it is made: in the confined process, and in the one that judges.
    """
    return replace(exercise, make_cases=lambda: [_other(case, exercise, seed) for case in exercise.cases], flows=())


def _other(case: Case, exercise: Exercise, seed: int) -> Case:
    dice = random.Random(f"{seed} {case.label}")
    mirrored = any(
        map(_of_pixels, case.args)
    )  # whose values are 256, and which belong to means and distances beside them

    def new(value: Any, free: bool) -> Any:
        if isinstance(value, Betas):
            return Betas(tuple(beta * dice.uniform(0.8, 0.98) for beta in value.values))
        if isinstance(value, Seed):
            return Seed(dice.randrange(2**31))
        if isinstance(value, Tensor) and value.dtype == torch.uint8:
            return (value.int() + dice.randrange(1, 255)).remainder(256).byte()
        if isinstance(value, Tensor) and value.is_floating_point():
            if mirrored and value.min() < 0:
                return -value
            within = ((value >= 0) & (value <= 1)).all()  # shares and tables of them, of which a power is one as well
            return value ** dice.uniform(0.8, 0.98) if within else value * dice.uniform(0.8, 0.98)
        if isinstance(value, float):
            return value * dice.uniform(0.8, 0.98)
        if isinstance(value, list | tuple) and (free or all(isinstance(entry, Tensor) for entry in value)):
            return type(value)(new(entry, free) for entry in value)
        if free and isinstance(value, int | Tensor):
            return value + 8 * dice.randrange(1, 9)  # widths of networks are multiples of 8
        return value

    args = (new(value, name in exercise.free) for name, value in zip(exercise.arguments, case.args, strict=False))
    return replace(case, args=tuple(args), facts={})


def _of_pixels(value: Any) -> bool:
    """Is it a tensor of the values that bytes have in [-1, 1]?"""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.min() >= 0:
        return False
    level = (value + 1) * 127.5
    return bool((level - level.round()).abs().max() < 1e-3)
