"""Notes what a function asks of the networks and the optimizer that it is given, and finds the first wrong question."""

import types
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[str, tuple[Tensor, ...]]  # "net.stem", and what it was given


def noted(names: tuple[str, ...], args: tuple) -> tuple[list, list[Call]]:
    """The arguments, and a list to which every call of a network, a layer with weights or an optimizer is added."""
    calls: list[Call] = []

    def note(name: str, given: tuple) -> None:
        calls.append((name, tuple(x.detach().clone() for x in given if isinstance(x, Tensor))))

    def watched(name: str, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return lambda *given, **more: note(name, (*given, *more.values())) or value(*given, **more)
        for place, layer in value.named_modules(prefix=name) if isinstance(value, nn.Module) else ():
            if next(layer.parameters(recurse=False), None) is not None:
                layer.register_forward_pre_hook(
                    lambda _, given, more, place=place: note(place, (*given, *more.values())), with_kwargs=True
                )
        if isinstance(value, torch.optim.Optimizer):
            value.register_step_pre_hook(lambda *_: note(f"{name}.step", ()))
        return value

    return [watched(name, value) for name, value in zip(names, args, strict=False)], calls


def first_wrong(mine: list[Call], right: list[Call], tolerance: float) -> list[str]:
    """A sentence on the first call that is missing or different, if anything should be called."""

    def alike(one: Call, other: Call) -> bool:
        return one[0] == other[0] and len(one[1]) == len(other[1]) and all(
            x.shape == y.shape and torch.allclose(x.double(), y.double(), rtol=tolerance, atol=tolerance)
            for x, y in zip(one[1], other[1], strict=True)
        )  # fmt: skip

    for name in dict.fromkeys(name for name, _ in right if "." not in name or name.endswith(".step")):
        count, wanted = ([called for called, _ in calls].count(name) for calls in (mine, right))
        if count != wanted:
            return [f"It calls `{name}` {count} times there and should do so {wanted} times."]
    mine, right = ([call for call in calls if call[1]] for calls in (mine, right))
    if len({name for name, _ in right}) == 1:  # a network: its calls have an order
        wrong = [i for i, (one, other) in enumerate(zip(mine, right, strict=False)) if not alike(one, other)]
        if wrong:
            before = ": until then all is right" if wrong[0] else ""
            return [f"Call {wrong[0] + 1} of `{right[0][0]}` is given something else than it should be{before}."]
    for call in right:
        if not any(alike(call, other) for other in mine):
            return [f"`{call[0]}` is the first layer that is not called with what it should get."]
    says = "what it should be: what goes wrong is done with what it returns"
    return [f"Every call, up to that of `{right[-1][0]}`, is given {says}."] if right else []
