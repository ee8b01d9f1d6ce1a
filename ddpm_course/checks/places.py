"""Finds right values that stand elsewhere: in another shape or order, as a part, or added up along an axis."""

from collections.abc import Iterator
from itertools import combinations, islice, permutations, product

import torch
from torch import Tensor

from .comparing import Comparison

REDUCED = {"mean": torch.mean, "sum": torch.sum, "largest": torch.amax, "smallest": torch.amin}


def elsewhere(failures: list[Comparison], arguments: list[dict[str, Tensor]], tolerance: float) -> list[str]:
    """The first sentence that is true of every failure, if there is one.

    failures:  what goes wrong, in shape or values
    arguments: the tensors that came in each time
    """
    if any(f.got is None for f in failures) or max(len(f.want.unique()) for f in failures) < 3:
        return []
    said = [list(_sentences(f, given, tolerance)) for f, given in zip(failures, arguments, strict=True)]
    return [text for text in said[0] if all(text in others for others in said)][:1]


def _sentences(failure: Comparison, arguments: dict[str, Tensor], tolerance: float) -> Iterator[str]:
    got, want, it = failure.got, failure.want, failure.subject

    def alike(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)

    if alike(got.flatten(), want.flatten()):
        yield "The values are right and in the right order: only the shape is another."
    for axes in permutations(range(want.ndim)):
        if sorted(axes) != list(axes) and alike(got, want.permute(axes)):
            yield f"The values are right, but the axes stand in the order {axes}."
    for axis in range(want.ndim):
        if alike(got, want.cumsum(axis)):
            yield f"{it} is the running sum (cumsum) along axis {axis} of what it should be."
    for axes in (axes for k in range(want.ndim) for axes in combinations(range(want.ndim), k + 1)):
        for name, reduce in REDUCED.items() if want.numel() else ():
            if any(alike(got, reduce(want, dim=axes, keepdim=keep)) for keep in (False, True)):
                some = "all values" if len(axes) == want.ndim else f"axis {' and '.join(map(str, axes))}"
                for words in [some, *["its last axis"] * (axes == (want.ndim - 1,))]:
                    yield f"{it} is the {name} of what it should be, over {words}."
    if got.ndim == want.ndim and got.numel():
        missing = all(a <= b for a, b in zip(got.shape, want.shape, strict=True))
        small, large = (got, want) if missing else (want, got)
        starts = product(*(range(b - a + 1) for a, b in zip(small.shape, large.shape, strict=True)))
        for start in islice(starts, 1000):
            if alike(small, large[tuple(slice(a, a + n) for a, n in zip(start, small.shape, strict=True))]):
                if missing and not any(start):
                    yield "What is there is right, but only the beginning of it: does something stop too early?"
                yield f"The right values are in it, but {'a part is missing' if missing else 'more is around them'}."
    if got.numel() == want.numel() and alike(got.flatten().sort().values, want.flatten().sort().values):
        yield "The values are right, but they stand in other places."
    for name, values in arguments.items():  # for results that hold an argument's own values
        values = values.flatten().cpu().double()
        if torch.equal(values.sort().values, want.flatten().sort().values):
            if not torch.isin(got, values).all():
                yield f"It holds values that `{name}` does not have: they should move, and none should change."
            elif not torch.isin(values, got).all():
                yield f"Some values of `{name}` are missing in it."
