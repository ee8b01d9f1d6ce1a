"""What calls of a student's function did, as bytes: numbers, tensors, names and words, and nothing that could act.

The confined process packs them, the one that judges unpacks them. What is not plain is named by its type, which no
exercise asks for; what is not as `packed` writes it is refused.
"""

import builtins
import json
import struct
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ...checks import gradients
from ...checks.limits import TooLong
from ...checks.running import Outcome, Parts, plain_tensor, run
from ...exercises.written import Exercise

DEEPEST, LONGEST = 4, 20_000  # lists in lists, and entries of one
HEADER = 1 << 20  # bytes of what is no tensor, which takes up to fifty times as much when it is read
NOTES = {"drew": bool, "where": str, "endless": str, "printed": str, "seconds": float, "changed": dict, "left": list}
NOTES |= {"unused": list}


def packed(outcomes: list[Outcome]) -> bytes:
    """The outcomes as a safetensors file, whose header holds what is no tensor."""
    tensors: dict[str, Tensor] = {"": torch.zeros(1)}

    def tree(value: Any, depth: int = 0) -> Any:
        if isinstance(value, Tensor):
            value, name = plain_tensor(value), str(len(tensors))
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        if isinstance(value, bytes):  # the state of a generator
            return {"bytes": tree(torch.frombuffer(bytearray(value), dtype=torch.uint8))}
        if isinstance(value, np.ndarray | np.generic):
            return {type(value).__name__: None if value.dtype.hasobject else tree(torch.as_tensor(value))}
        if isinstance(value, list | tuple) and depth < DEEPEST and len(value) <= LONGEST:
            return {"tuple" if isinstance(value, tuple) else "list": [tree(entry, depth + 1) for entry in value]}
        if isinstance(value, dict) and depth < DEEPEST and len(value) <= LONGEST:
            return {
                "parts" if isinstance(value, Parts) else "dict": [
                    [str(name), tree(entry, depth + 1)] for name, entry in value.items()
                ]
            }
        if value is None or isinstance(value, bool | int | float):
            return value
        return {type(value).__name__: None}

    about = []
    for outcome in outcomes:
        notes = {name: getattr(outcome, name) for name in NOTES} | {"printed": outcome.printed[:2000]}
        error = outcome.error and [type(outcome.error).__name__, str(outcome.error)[:500]]
        notes |= {"value": tree(outcome.value), "error": error}
        states = {name: tree(state) for name, state in outcome.states.items() if isinstance(state, bytes)}
        about.append(notes | {"states": states})
    return save(tensors, metadata={"about": json.dumps(about)})


def unpacked(content: bytes, most: int) -> list[Outcome]:
    """The outcomes, at most so many; raises ValueError for what is none."""
    try:
        if (length := int.from_bytes(content[:8], "little")) > HEADER:
            raise ValueError(f"a header of {length} bytes")
        head = json.loads(content[8 : 8 + length])
        about, tensors = json.loads(head["__metadata__"]["about"]), load(content)

        def value_of(tree: Any) -> Any:
            if tree is None or isinstance(tree, bool | int | float):
                return tree
            [(kind, inside)] = tree.items()
            if kind == "tensor":
                return tensors.pop(inside)  # once: a thousand copies of one would not fit into memory
            if kind in ("list", "tuple"):
                return {"list": list, "tuple": tuple}[kind](map(value_of, inside))
            if kind in ("dict", "parts"):
                made = {str(name): value_of(entry) for name, entry in inside}
                return Parts(made) if kind == "parts" else made
            if kind == "bytes":
                return value_of(inside).numpy().tobytes()
            if kind == "ndarray" and inside is not None:
                return value_of(inside).numpy()
            return type(str(kind)[:40], (), {})()  # something that is only named

        outcomes = []
        for notes in about[:most]:
            outcome = Outcome(value=value_of(notes["value"]), error=_error(notes["error"]))
            for name, kind in NOTES.items():
                if isinstance(notes[name], kind):
                    setattr(outcome, name, notes[name])
            outcome.states = {str(name): value_of(state) for name, state in notes["states"].items()}
            for state in outcome.states.values():
                _, left, _, following = struct.unpack_from("<QiiQ", state)
                if left + following > 625:  # PyTorch would read beyond the generator's 624 numbers
                    raise ValueError("no state of a generator")
            outcomes.append(outcome)
        return outcomes
    except Exception as error:  # whatever is wrong with bytes that a stranger wrote
        raise ValueError(f"these are no outcomes: {error!r:.200}") from None


def _error(told: list | None) -> BaseException | None:
    """An exception of that name and with those words; one of a library is a RuntimeError to the judge."""
    if told is None:
        return None
    name, words = map(str, told)
    if name == "TooLong":
        return TooLong(words)
    kind = getattr(builtins, name, None)
    known = isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(kind, KeyboardInterrupt)
    try:
        return kind(words) if known else RuntimeError(f"{name}: {words}")
    except TypeError:  # UnicodeDecodeError wants five things to be made
        return RuntimeError(f"{name}: {words}")


def refuse_shapes(exercise: Exercise, outcomes: list[Outcome]) -> None:
    """Raise ValueError for gradients of other shapes than they have: held against those they could fill the memory."""
    for outcome, right in zip(outcomes, _gradients(exercise), strict=False):
        for name, gradient in right.items():
            theirs = None if outcome.error else outcome.value[name]
            if theirs is not None and gradient is not None and theirs.shape != gradient.shape:
                raise ValueError(f"a gradient of shape {tuple(theirs.shape)}")


@cache
def _gradients(exercise: Exercise) -> list[dict[str, Tensor | None]]:
    return [run(exercise.reference, case, exercise.arguments).value for case in gradients.cases(exercise)]
