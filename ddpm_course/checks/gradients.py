"""Whether gradients flow through a result, in exercises whose record says that a training depends on it (`flows`)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..exercises.records import Case
from ..exercises.written import Exercise
from .running import Outcome, run


def cases(exercise: Exercise) -> list[Case]:
    """The cases again, with gradients in the place of results; none where no training depends on the result."""
    return [_asking_for_gradients(case, exercise) for case in exercise.cases if exercise.flows]


def complaint(exercise: Exercise, outcomes: list[Outcome], right: Callable) -> str | None:
    """What is wrong with the gradients of a function whose results are right; None if nothing is.

    outcomes: what it did on `cases`
    right:    a function that has the right ones
    """
    for case, mine in zip(cases(exercise), outcomes, strict=True):
        if mine.error is not None and "numpy" not in str(mine.error):
            return f"The values are right, but where gradients are recorded {mine.complaint}."
        theirs = {n: g for n, g in run(right, case, exercise.arguments).value.items() if g is not None}
        scale = max(gradient.abs().max().item() for gradient in theirs.values())  # some are 0 up to rounding
        for name, gradient in theirs.items():
            if fault := _fault(mine, name, gradient, scale):
                return f"The values are right, but {fault} `{name}` through them: something cuts it off " + (
                    "(.detach(), .item(), torch.no_grad(), NumPy), and a training would not learn."
                )
    return None


def _asking_for_gradients(case: Case, exercise: Exercise) -> Case:
    """The case with the gradients that reach its arguments, and a network's weights, in the place of the result."""

    def use(function: Callable, *args: Any) -> dict[str, Tensor | None]:
        inputs: dict[str, Tensor] = {}
        for name, value in zip(exercise.arguments, args, strict=False):
            if name in exercise.flows and isinstance(value, nn.Module):
                inputs |= {f"{name}.{weight}": parameter for weight, parameter in value.named_parameters()}
            elif name in exercise.flows:
                inputs[name] = value.requires_grad_()
        with torch.enable_grad():
            result = function(*args)
            weighted = result * torch.linspace(1, 2, result.numel(), device=result.device).reshape(result.shape)
        if not weighted.requires_grad:
            return dict.fromkeys(inputs)
        found = torch.autograd.grad(weighted.sum(), tuple(inputs.values()), allow_unused=True)
        return dict(zip(inputs, found, strict=True))

    return replace(case, use=use, result=None)


def _fault(outcome: Outcome, name: str, right: Tensor, scale: float) -> str | None:
    got = outcome.value[name] if outcome.error is None else None
    if got is None:
        return "no gradient reaches"
    close = torch.isclose(got, right, rtol=1e-2, atol=1e-3 * scale)
    return None if close.all() else "only a part of the gradient reaches"
