"""What wrong values have to do with the right ones: a factor, an offset, a function, few digits, weights of a sum."""

import torch
from torch import Tensor

from ..exercises.written import Exercise
from .comparing import Comparison

TIMES = {2: "twice", 0.5: "half", 2**0.5: "√2 times", 0.5**0.5: "1/√2 times", torch.pi: "π times", -1: "minus"}
FUNCTIONS = {
    "the square of what it should be": torch.square,
    "the square root of what it should be": torch.sqrt,
    "the logarithm of what it should be": torch.log,
    "the inverse of what it should be": torch.reciprocal,
    "1 minus what it should be": lambda x: 1 - x,
    "what it should be, cut down to whole numbers,": torch.floor,
    **{f"what it should be, rounded to {n} decimals,": lambda x, n=n: x.round(decimals=n) for n in range(6)},
}
DIFFERENT = 3  # so many different right values say that what holds for all of them is no coincidence
NEARLY = 0.01  # of the largest value
MOST = 0.7  # of the wrong values, as a mean over the cases
HINT = "is a number rounded, in half precision, or added to keep a denominator from 0?"


def in_common(exercise: Exercise, failures: dict[int, Comparison]) -> list[str]:
    """What makes every wrong value from the right one, or most of them, where one relation does.

    failures: the comparisons of the cases, by number, whose values are wrong
    """
    failures = list(failures.values())
    got, want, wrong = (torch.cat([getattr(f, name).flatten() for f in failures]) for name in ("got", "want", "wrong"))
    x, y, it = got[wrong], want[wrong], failures[0].subject
    if len({f.subject for f in failures}) > 1 or len(y.unique()) < DIFFERENT or not (x - y).isfinite().all():
        return []
    if len(x.unique()) == 1:
        side = "more" if (y > x).all() else "less" if (y < x).all() else ""
        where = f"wherever it is wrong, and should be {side} there" if side else "wherever it is wrong"
        return [f"{it} is {_number(x[0])} {where if len(got.unique()) > 1 else 'everywhere, whatever comes in'}."]

    offset, factor = (x - y).median().item(), (x / y).median().item()
    relations = {f"{abs(offset):.4g} too {'large' if offset > 0 else 'small'}": want + offset}
    if factor and not (want == want.round()).all():  # indices and levels have no factor
        name = next((name for k, name in TIMES.items() if abs(factor / k - 1) < 1e-4), f"{factor:.4g} times")
        relations[f"{name} what it should be"] = factor * want
        relations |= {relation: function(want) for relation, function in FUNCTIONS.items()}
        ratios = [(f.got / f.want)[f.wrong] for f in failures]
        several = [r for r in ratios if len(r) >= DIFFERENT]
        if len(several) > 1 and all(torch.allclose(r, r.median(), rtol=1e-4) for r in several):
            each = [(r.median() * f.want).flatten() for r, f in zip(ratios, failures, strict=True)]
            relations["what it should be times one number, another in each case,"] = torch.cat(each)
    allowed = exercise.tolerance * (1 + want.abs())
    allowed[wrong] = torch.minimum(allowed, 0.02 * (got - want).abs())[wrong]
    sizes, found, most = [f.got.numel() for f in failures], [], MOST
    for relation, made in relations.items():
        fits = (got - made).abs() <= allowed
        cases = zip(fits.split(sizes), wrong.split(sizes), strict=True)
        share = sum(fit[bad].double().mean().item() for fit, bad in cases) / len(sizes)
        if share > most:
            some = f"in {fits[wrong].sum()} of the {len(y)} places where it is wrong"
            where = "everywhere" if fits.all() else "where it is wrong" if share == 1 else some
            most, found = share, [f"{it} is {relation} {where}."]
    if found:
        return found
    off = max(((f.got - f.want).abs().max() / f.want.abs().max()).item() for f in failures)
    if off <= NEARLY:
        return [f"{it} is nearly right, to {off:.1g} of the largest value: {HINT}"]
    few, many = len(got.unique()), len(want.unique())
    return [f"{it} takes {few} different values and should take {many}."] if 5 * few < many else []


def weights(exercise: Exercise, failures: dict[int, Comparison]) -> list[str]:
    """For a result that should be a weighted sum of arguments, or a multiple of one plus a number: what is wrong.

    Rows that should be no such sum (they are clipped, or another argument varies) tell nothing, nor do those that
    leave the weights open. The first row that tells something does.
    """
    names = exercise.linear or ()
    for case, f in ((exercise.cases[i], f) for i, f in failures.items() if names and f.subject in ("It", "The mean")):
        given = [case.args[exercise.arguments.index(name)] for name in names]
        if not all(isinstance(x, Tensor) and x.shape == f.want.shape for x in given):
            continue
        terms = torch.stack(given if len(given) > 1 else [*given, torch.ones_like(given[0])], dim=-1).cpu().double()
        for row in f.wrong.flatten(1).any(1).nonzero().flatten().tolist() if f.want.ndim > 1 else [...]:
            basis, got, want = terms[row].reshape(-1, terms.shape[-1]), f.got[row].flatten(), f.want[row].flatten()
            if len(basis) <= basis.shape[1] or torch.linalg.matrix_rank(basis, rtol=1e-3) < basis.shape[1]:
                continue
            fit, right = (torch.linalg.lstsq(basis, y).solution for y in (got, want))
            if not torch.allclose(basis @ right, want, rtol=1e-4, atol=1e-4):
                continue
            place = "." if f is next(iter(failures.values())) else f" ({case.label})."
            if (basis @ fit - got).abs().max() <= 1e-3:
                return [_weigh(exercise, fit, right, basis.abs().amax(0)) + place]
            summands = " and ".join([*(f"`{name}`" for name in names), "a number"][: max(len(names), 2)])
            return [f"It is no sum of {summands} with one weight each for every item there{place}"]
    return []


def _weigh(exercise: Exercise, got: Tensor, want: Tensor, sizes: Tensor) -> str:
    """Which of the weights are wrong, each as it is and as it should be; sizes: the largest that each multiplies."""
    names = [*(f"the weight of `{name}`" for name in exercise.linear), "what is added"][: len(got)]
    right = ((got - want).abs() * sizes < 1e-3).tolist()
    wrong = [
        f"{name} is {_number(a)} and should be {_number(b)}"
        for name, a, b, ok in zip(names, got, want, right, strict=True)
        if not ok
    ]
    if not wrong:
        return "The weights are right to three digits, but not beyond"
    if not any(right):
        return f"{'Neither' if len(right) == 2 else 'No'} weight is right: {', '.join(wrong)}"
    if exercise.sampled:
        return f"{'Right mean, wrong variance' if right[0] else 'Right noise, wrong signal'}: {wrong[0]}"
    kept = " and ".join(name for name, ok in zip(names, right, strict=True) if ok)
    return f"{kept[0].upper()}{kept[1:]} {'is' if sum(right) == 1 else 'are'} right, but {', '.join(wrong)}"


def _number(value: Tensor) -> str:
    return f"{round(value.item(), 9) + 0.0:.4g}"
