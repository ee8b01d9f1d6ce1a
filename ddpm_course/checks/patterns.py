"""What wrong values have to do with the right ones: a factor, an offset, a function, the weights of a sum."""

import math

import torch
from torch import Tensor

from ..exercises.written import Exercise
from .comparing import Comparison

TIMES = {"twice": 2, "half": 0.5, "√2 times": 2**0.5, "1/√2 times": 0.5**0.5, "π times": math.pi, "minus": -1}
FUNCTIONS = {"square": torch.square, "square root": torch.sqrt, "logarithm": torch.log, "inverse": torch.reciprocal}
DIFFERENT = 3  # so many different right values say that what holds for all of them is no coincidence


def in_common(exercise: Exercise, failures: dict[int, Comparison]) -> list[str]:
    """What makes every wrong value from the right one, where one factor, offset or function does.

    failures: the comparisons of the cases, by number, whose values are wrong
    """
    failures = list(failures.values())
    got, want, wrong = (torch.cat([getattr(f, name).flatten() for f in failures]) for name in ("got", "want", "wrong"))
    x, y = got[wrong], want[wrong]
    if len({f.subject for f in failures}) > 1 or len(y.unique()) < DIFFERENT or not (x - y).isfinite().all():
        return []
    factor, offset = float(x @ y / (y @ y)), float((x - y).mean())
    relations = {f"{abs(offset):.4g} too {'large' if offset > 0 else 'small'}": want + offset}
    relations |= {f"{name} what it should be": k * want for name, k in TIMES.items()}
    relations |= {f"{factor:.4g} times what it should be": factor * want}
    relations |= {f"the {name} of what it should be": function(want) for name, function in FUNCTIONS.items()}
    allowed = exercise.tolerance * (1 + want.abs())
    allowed[wrong] = torch.minimum(allowed, 0.02 * (got - want).abs())[wrong]
    for says, made in relations.items():
        fits = (got - made).abs() <= allowed
        if fits[wrong].all():
            return [f"{failures[0].subject} is {says} {'everywhere' if fits.all() else 'where it is wrong'}."]
    return []


def weights(exercise: Exercise, failures: dict[int, Comparison]) -> list[str]:
    """For a result that should be a weighted sum of two arguments, or a multiple of one plus a number: what is wrong.

    Rows that should be no such sum (they are clipped, or another argument varies) tell nothing.
    """
    if exercise.linear is None:
        return []
    bent = False
    for case, f in ((exercise.cases[i], f) for i, f in failures.items()):
        given = [case.args[exercise.arguments.index(name)] for name in exercise.linear]
        if not all(isinstance(x, Tensor) and x.shape == f.want.shape for x in given):
            continue
        terms = torch.stack([*given, torch.ones_like(given[0])][:2], dim=-1).cpu().double()
        for row in f.wrong.flatten(1).any(1).nonzero().flatten().tolist() if f.want.ndim > 1 else [...]:
            basis, got, want = terms[row].reshape(-1, 2), f.got[row].flatten(), f.want[row].flatten()
            fit, right = (torch.linalg.lstsq(basis, y).solution for y in (got, want))
            if len(basis) < 3 or not torch.allclose(basis @ right, want, rtol=1e-4, atol=1e-4):
                continue
            if (basis @ fit - got).abs().max() <= 1e-3:
                place = "" if f is next(iter(failures.values())) else f" ({case.label})"
                return [_weigh(exercise, fit.tolist(), right.tolist(), basis.abs().amax(0).tolist()) + place + "."]
            bent = True
    summands = [*(f"`{name}`" for name in exercise.linear), "a number"][:2]
    return [f"It is not a weighted sum of {' and '.join(summands)} there."] if bent else []


def _weigh(exercise: Exercise, got: list[float], want: list[float], sizes: list[float]) -> str:
    """Which of two weights is wrong, each as it is and as it should be; sizes: the largest that each multiplies."""
    names = [*(f"the weight of `{name}`" for name in exercise.linear), "what is added"][:2]
    right = [abs(a - b) * size < 1e-3 for a, b, size in zip(got, want, sizes, strict=True)]
    wrong = [
        f"{name} is {round(a, 9):.4g} and should be {round(b, 9):.4g}"
        for name, a, b, ok in zip(names, got, want, right, strict=True)
        if not ok
    ]
    if not wrong:
        return "Both weights are right to three digits, but not beyond"
    if not any(right):
        return f"Neither weight is right: {', '.join(wrong)}"
    if exercise.sampled:
        return f"{'Right mean, wrong variance' if right[0] else 'Right noise, wrong signal'}: {wrong[0]}"
    kept = names[right.index(True)]
    return f"{kept[0].upper()}{kept[1:]} is right, but {wrong[0]}"
