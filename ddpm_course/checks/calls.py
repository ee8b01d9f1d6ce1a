"""Notes what a function asks of the networks and the optimizer that it is given, and finds the first wrong question."""

import functools
import types
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[str, tuple]  # "net.stem", and what it was given


def noted(names: tuple[str, ...], args: tuple) -> tuple[tuple, list[Call]]:
    """The arguments, and a list to which every call of a network, a layer with weights or an optimizer is added."""
    calls: list[Call] = []

    def note(name: str, given: tuple) -> None:
        calls.append((name, tuple(x.detach().clone() for x in given if isinstance(x, Tensor))))

    def watched(name: str, value: Any) -> Any:
        if isinstance(value, types.FunctionType):

            @functools.wraps(value)
            def ask(*given: Any, **more: Any) -> Any:
                note(name, (*given, *more.values()))
                return value(*given, **more)

            return ask
        if isinstance(value, nn.Module):
            for place, layer in value.named_modules(prefix=name):
                if any(True for _ in layer.parameters(recurse=False)):
                    layer.register_forward_pre_hook(
                        lambda _, given, more, place=place: note(place, (*given, *more.values())), with_kwargs=True
                    )
        if isinstance(value, torch.optim.Optimizer):
            value.register_step_pre_hook(lambda *_: note(f"{name}.step", ()))
        return value

    return tuple(map(watched, names, args)), calls


def first_wrong(mine: list[Call], right: list[Call], tolerance: float) -> str | None:
    """A sentence on the first call that is missing or different; None where nothing is called."""
    for name in dict.fromkeys(name for name, _ in right):
        count, wanted = ([called for called, _ in calls].count(name) for calls in (mine, right))
        if count != wanted and ("." not in name or name.endswith(".step")):
            return f"`{name}` is called {_times(count)} there and should be called {_times(wanted)}."
    mine, right = ([call for call in calls if call[1]] for calls in (mine, right))
    if len({name for name, _ in right}) == 1:  # a network: its calls have an order
        for i, (one, other) in enumerate(zip(mine, right, strict=True)):
            if not _alike(one, other, tolerance):
                before = f"Up to call {i} of `{one[0]}` all is right; call {i + 1}" if i else f"Call 1 of `{one[0]}`"
                return f"{before} is given another {_first_other(one, other, tolerance)} than it should be."
    for call in right:
        if not any(_alike(call, other, tolerance) for other in mine):
            return f"`{call[0]}` is the first layer that is not called with what it should get."
    return right and f"Up to the last call of `{right[-1][0]}` all is right: what goes wrong comes behind it."


def _alike(one: Call, other: Call, tolerance: float) -> bool:
    return one[0] == other[0] and len(one[1]) == len(other[1]) and not _first_other(one, other, tolerance)


def _first_other(one: Call, other: Call, tolerance: float) -> str | None:
    """The first argument in which two calls differ, as networks name them: x, t, y."""
    for name, a, b in zip("xty", one[1], other[1], strict=False):
        if a.shape != b.shape or not torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance):
            return name
    return None


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n} times")
