"""Holds what a function returned against what it should have returned."""

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..exercises.records import Case
from .running import Outcome, Parts

STRUCTURAL = ("raises", "none", "type", "shape")  # problems that leave no values to compare


@dataclass
class Comparison:
    """One case: what is wrong with it, if anything.

    problem:   "" if right, or one of raises, none, type, shape, device, nan, values, dtype, gradient
    sentence:  the same for the student
    wrong:     bool tensor in the shape of the expected result: which elements are wrong
    right:     of a result in parts, the names of those that are right
    subject:   what it is about: "It", or a part by name
    got, want: where values or the shape are wrong, all values
    """

    problem: str
    sentence: str
    wrong: Tensor
    right: tuple[str, ...] = ()
    subject: str = "It"
    got: Tensor | None = None
    want: Tensor | None = None


def compare(outcome: Outcome, expected: Any, case: Case, tolerance: float, any_float: bool) -> Comparison:
    """The first thing that is wrong, from the coarsest to the finest. dtype is last: then the values are right."""
    if isinstance(expected, Parts):
        return _compare_parts(outcome, expected, case, tolerance, any_float)
    several, expected = isinstance(expected, list | tuple), _joined(expected)
    everything = torch.ones(expected.shape if isinstance(expected, Tensor) else (), dtype=torch.bool)
    if outcome.error is not None:
        return Comparison("raises", sentence(outcome, case), everything)
    if outcome.value is None:
        return Comparison("none", "It returns None: is there a `return`?", everything)
    got, complaint = _several(outcome.value, expected) if several else _as_tensor(outcome.value, expected)
    if got is None:
        return Comparison("type", complaint, everything)
    want = torch.as_tensor(expected)
    if got.shape != want.shape:
        text = f"The result has shape {tuple(got.shape)} and should have {tuple(want.shape)} ({case.label})."
        return Comparison("shape", text, everything, got=_double(got), want=_double(want))
    if got.device != want.device:
        text = f"The result is on {got.device} and should be on {want.device}, where the data is ({case.label})."
        return Comparison("device", text, everything)
    got, want = got.detach().cpu(), want.detach().cpu()
    if got.dtype.is_complex:
        return Comparison("dtype", "The result holds complex numbers.", everything)
    bad = ~torch.isfinite(got) & torch.isfinite(want)
    if bad.any():
        text = f"The result holds {_number(got[_first(bad)])} at {_place(_first(bad))} ({case.label})."
        return Comparison("nan", text, bad)
    if got.dtype in (torch.float16, torch.bfloat16) and got.dtype != want.dtype:
        tolerance = max(tolerance, 0.02)  # right as far as these few digits go
    wrong = ~torch.isclose(got.double(), want.double(), rtol=tolerance, atol=tolerance)
    if wrong.any():
        i = _first(wrong)
        at = f" at {_place(i)}" if i else ""
        pair = [_number(got[i]), _number(want[i])]
        if pair[0] == pair[1]:
            pair = [_number(got[i], 7), _number(want[i], 7)]
        before = " All before it are right." if len(i) == 1 and i[0] else ""
        text = f"The result{at} is {pair[0]} and should be {pair[1]} ({case.label}).{before}"
        return Comparison("values", text, wrong, got=got.double(), want=want.double())
    fine = (want.dtype, torch.float32, torch.float64) if any_float else (want.dtype,)
    if isinstance(expected, Tensor) and got.dtype not in fine:
        return Comparison("dtype", _dtype_sentence(got.dtype, want.dtype), everything)
    if isinstance(outcome.value, Tensor) and outcome.value.requires_grad and not getattr(expected, "requires_grad", 0):
        text = "The values are right, but they ask for gradients: the result's requires_grad is True and should not be."
        return Comparison("gradient", text, everything)
    return Comparison("", "", wrong)


def sentence(outcome: Outcome, case: Case) -> str:
    """What a call raised, and on which case."""
    what, stop, question = outcome.complaint.partition(". Is ")
    return f"{_capital(what)} ({case.label}).{stop[1:]}{question}"


def _compare_parts(outcome: Outcome, expected: Parts, case: Case, tolerance: float, any_float: bool) -> Comparison:
    """Results by name, {"mean": ..., "variance": ...}: the first one that is wrong speaks for all."""
    if outcome.error is not None or outcome.value is None:
        return compare(outcome, next(iter(expected.values())), case, tolerance, any_float)
    if not isinstance(outcome.value, Parts):
        text = f"It returns {_article(type(outcome.value).__name__)} and should return {' and '.join(expected)}."
        return Comparison("type", text, torch.ones(_joined(next(iter(expected.values()))).shape, dtype=torch.bool))
    parts = {
        name: compare(Outcome(outcome.value[name]), want, case, tolerance, any_float) for name, want in expected.items()
    }
    name, first = next(((n, c) for n, c in parts.items() if c.problem), next(iter(parts.items())))
    sentence = first.sentence.replace("The result", f"The {name}", 1)
    right = tuple(part for part, comparison in parts.items() if not comparison.problem)
    return replace(first, sentence=sentence, right=right, subject=f"The {name}")


def same(a: Outcome, b: Outcome, tolerance: float) -> bool:
    """Did two functions do the same on a case: the same values, or the same kind of exception? dtype is no matter."""
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error)
    if isinstance(a.value, Parts) and isinstance(b.value, Parts):
        return all(same(Outcome(a.value[name]), Outcome(b.value[name]), tolerance) for name in a.value)
    x, y = (_loosely(outcome.value) for outcome in (a, b))
    if x is None or y is None or x.shape != y.shape:
        return False
    x, y = (v.to(torch.complex128) if x.is_complex() or y.is_complex() else v.double() for v in (x, y))
    return bool(torch.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True).all())


def between(outcome: Outcome, versions: list[Outcome], tolerance: float) -> bool:
    """Does every value lie between those of the versions, up to the tolerance? Where one of them is NaN, any value may.

    versions: one formula, rounded one way and another: what a processor makes of it lies between
    """
    value = _loosely(outcome.value)
    if any(result.error is not None for result in (outcome, *versions)):
        return False
    bounds = torch.stack([version.value.double() for version in versions])
    if value is None or value.is_complex() or value.shape != bounds.shape[1:]:
        return False
    low, high = bounds.amin(0), bounds.amax(0)
    within = (value >= low - tolerance * (1 + low.abs())) & (value <= high + tolerance * (1 + high.abs()))
    return bool((within | low.isnan()).all())


def _joined(value: Any) -> Any:
    """A list or tuple, of numbers or of tensors alike, as one tensor with one entry each; anything else as it is."""
    if not isinstance(value, list | tuple) or not value:
        return value
    if all(isinstance(v, Tensor) for v in value):
        alike = len({(v.shape, v.dtype, v.device) for v in value}) == 1
        return torch.stack([v.detach() for v in value]) if alike else value
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in value):
        return torch.tensor([v.item() if isinstance(v, np.number) else v for v in value])
    return value


def _several(value: Any, expected: Tensor) -> tuple[Tensor | None, str]:
    """The value as a tensor with one entry for each of the numbers that are expected in a list."""
    n, kind = len(expected), _article(type(value).__name__)
    if not isinstance(value, list | tuple):
        hint = ": .tolist() makes one from it" if getattr(value, "ndim", 0) else f" of {n} numbers"
        return None, f"It returns {kind} and should return a list{hint}."
    if len(value) != n:
        return None, f"It returns {len(value)} result{'s' * (len(value) != 1)} and should return {n}."
    made = _joined([v.item() if isinstance(v, Tensor) and v.numel() == 1 else v for v in value])
    if not isinstance(made, Tensor):
        odd = next(v for v in value if not isinstance(_joined([v]), Tensor) or getattr(v, "ndim", 0))
        return None, f"Each of the {n} results should be a number, but one is {_article(type(odd).__name__)}."
    if made.is_floating_point() and not expected.is_floating_point():
        return None, "It returns floats and should return whole numbers: use // to divide."
    return made.to(expected.dtype), ""


def _as_tensor(value: Any, expected: Any) -> tuple[Tensor | None, str]:
    """The value as a tensor, or None and a sentence about its type."""
    kind = type(value).__name__
    if isinstance(expected, Tensor):
        if isinstance(value, Tensor):
            return value, ""
        tensors = isinstance(value, list) and any(isinstance(v, Tensor) for v in value)
        hint = {
            "list": " Join the tensors with torch.stack." if tensors else " torch.tensor makes one from it.",
            "tuple": " Join the tensors with torch.stack, or return only the one that is asked for.",
            "ndarray": " torch.from_numpy makes one from it.",
        }
        return None, f"It returns {_article(kind)} and should return a tensor.{hint.get(kind, '')}"
    if isinstance(expected, bool | int):
        whole = isinstance(value, Tensor) and value.ndim == 0 and not value.is_floating_point()
        if isinstance(value, bool) or not (whole or isinstance(value, numbers.Integral)):
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
            return None, f"It returns {_article(kind)}{shape} and should return an int."
        return torch.as_tensor(int(value)), ""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(()), ""
    if isinstance(value, numbers.Real | np.generic) and not isinstance(value, bool):
        return torch.as_tensor(float(value), dtype=torch.float64), ""
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return None, f"It returns {_article(kind)}{shape} for numbers and should return a number."


def _loosely(value: Any) -> Tensor | None:
    value = _joined(value)
    if isinstance(value, Tensor):
        return value.detach().cpu() if value.device.type != "meta" else None
    if isinstance(value, numbers.Complex) and not isinstance(value, bool):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, numbers.Real) else torch.complex128)
    return None


def _double(values: Tensor) -> Tensor | None:
    return None if values.is_complex() or values.device.type == "meta" else values.detach().cpu().double()


def _dtype_sentence(got: torch.dtype, want: torch.dtype) -> str:
    got_name, name = (str(dtype).removeprefix("torch.") for dtype in (got, want))
    text = f"The values are right, but they come back as {got_name} instead of {name}"
    if want == torch.float64:  # casting the result would not bring back the digits
        return f"The values are right to the digits that {got_name} has. Compute in {name}, from the first tensor on."
    if got == torch.float64 and want.is_floating_point:
        return f"{text}, which a network of {name} weights refuses: cast with .to(torch.{name})."
    return f"{text}: cast with .to(torch.{name})."


def _first(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def _place(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _number(value: Tensor, digits: int = 4) -> str:
    return f"{value.item():.{digits}g}"


def _article(kind: str) -> str:
    kind = {"ndarray": "NumPy array", "str": "string", "Tensor": "tensor"}.get(kind, kind)
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
