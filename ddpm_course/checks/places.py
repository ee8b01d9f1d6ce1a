"""Finds right values that stand elsewhere: in another shape or order, as a part, or added up along an axis."""

from collections.abc import Iterator
from itertools import combinations, permutations, product

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
    said = [list(_sentences(*each, tolerance)) for each in zip(failures, arguments, strict=True)]
    everywhere = (text for text in said[0] if all(text in others for others in said))
    return [text.format(it=failures[0].subject) for text in everywhere][:1]


def _sentences(failure: Comparison, arguments: dict[str, Tensor], tolerance: float) -> Iterator[str]:
    got, want = failure.got, failure.want

    def alike(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)

    if got.shape != want.shape and alike(got.flatten(), want.flatten()):
        yield "The values are right and in the right order: only the shape is another."
    for axes in permutations(range(want.ndim)):
        if sorted(axes) != list(axes) and alike(got, want.permute(axes)):
            yield f"The values are right, but the axes stand in the order {axes}."
    for axis, n in enumerate(want.shape):
        along = f"along axis {axis}"
        if alike(got, want.flip(axis)):
            yield "{it} is back to front " + f"{along}."
        if alike(got, want.cumsum(axis)):
            yield "{it} is the running sum " + f"(cumsum) {along} of what it should be."
        if got.shape == want.shape and n > 2:
            for way, (a, b) in {"up": (1, 0), "down": (0, 1)}.items():
                if alike(got.narrow(axis, a, n - 1), want.narrow(axis, b, n - 1)):
                    yield f"Its entries are right, but each stands one too far {way} {along}."
        for place, i in {"first": 0, "last": -1}.items():
            if n and alike(got, want.select(axis, i)):
                yield "{it} is right, but the " + f"{place} entry {along} alone."
        if got.ndim == want.ndim and got.shape[axis] < n:
            for start in (0, 1):
                if alike(got, want.transpose(0, axis)[start::2].transpose(0, axis)):
                    yield f"Every other entry {along} is missing; what is there is right."
    for axes in (axes for k in range(1, want.ndim + 1) for axes in combinations(range(want.ndim), k)):
        for name, reduce in REDUCED.items() if want.numel() else ():
            if any(alike(got, reduce(want, dim=axes, keepdim=keep)) for keep in (False, True)):
                words = "all values" if len(axes) == want.ndim else f"axis {' and '.join(map(str, axes))}"
                yield "{it} is the " + f"{name} of what it should be, over {words}."
    if got.ndim == want.ndim:
        yield from _parts(got, want, alike)
    if got.numel() == want.numel() and alike(got.flatten().sort().values, want.flatten().sort().values):
        yield "The values are right, but they stand in other places."
    for name, values in arguments.items():
        yield from _only_moved(name, values, got, want)


def _parts(got: Tensor, want: Tensor, alike) -> Iterator[str]:
    """Whether one of the two is a part of the other."""
    fewer = all(a <= b for a, b in zip(got.shape, want.shape, strict=True))
    small, large = (got, want) if fewer else (want, got)
    left = [b - a for a, b in zip(small.shape, large.shape, strict=True)]
    if min(left, default=0) < 0 or not any(left) or small.numel() == 0:
        return
    axes = " and ".join(f"axis {axis}" for axis, n in enumerate(left) if n)
    whole = f"a part along {axes} is missing" if fewer else f"there is more before or behind them along {axes}"
    for starts in list(product(*(range(n + 1) for n in left)))[:1000]:
        part = large[tuple(slice(a, a + n) for a, n in zip(starts, small.shape, strict=True))]
        if alike(small, part):
            if fewer and not any(starts):
                yield f"What is there is right: the first entries along {axes}. Does it stop too early?"
            if fewer and starts == tuple(left):
                yield f"What is there is right: the last entries along {axes}."
            yield "{it} holds the right values, but " + f"{whole}."


def _only_moved(name: str, values: Tensor, got: Tensor, want: Tensor) -> Iterator[str]:
    """For results that hold an argument's own values: what has become of these."""
    values = values.flatten().cpu().double().sort().values
    if len(values.unique()) < len(values) or not torch.equal(values, want.flatten().sort().values):
        return
    if not torch.isin(got, values).all():
        yield f"It holds values that `{name}` does not have: they should move, and none should change."
    elif len(got.unique()) < got.numel():
        yield f"Some values of `{name}` are in it more than once" + (
            ", and others never." if got.unique().numel() < values.numel() else "."
        )
    elif got.numel() < values.numel():
        yield f"Some of the values of `{name}` are missing in it."
