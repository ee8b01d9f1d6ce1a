"""Cases that no student has seen: an exercise's own, with other numbers in them, new ones for every report.

Who knows the fixed inputs of a check could hand in a table of the results. The report therefore asks for results on
inputs like these as well: `solved` needs both.
"""

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...exercises.records import Betas, Case, Seed


def unseen(case: Case, seed: int) -> Case:
    """The case with every number in it that may be another one changed a little, and each random seed replaced.

    Signs, order within a table, whole numbers (t, labels, sizes) and networks stay. What comes out is the same wherever
    it is made: in the confined process and in the one that judges.
    """
    dice = random.Random(f"{seed} {case.label}")

    def new(value: Any) -> Any:
        if isinstance(value, Betas):
            factor = dice.uniform(0.8, 0.98)
            return Betas(tuple(beta * factor * dice.uniform(0.99, 1) for beta in value.values))
        if isinstance(value, Seed):
            return Seed(dice.randrange(2**31))
        if isinstance(value, Tensor) and value.dtype == torch.uint8:
            return (value.int() + dice.randrange(1, 255)).remainder(256).byte()
        if isinstance(value, Tensor) and value.is_floating_point():
            return value * dice.uniform(0.8, 0.98)
        if isinstance(value, float):
            return value * dice.uniform(0.8, 0.98)
        if isinstance(value, list) and all(isinstance(v, Tensor) for v in value):
            return [new(v) for v in value]
        return value

    return replace(case, args=tuple(map(new, case.args)), facts={})
