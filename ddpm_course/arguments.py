"""What comes in at a public function's door: whole numbers, numbers, tensors and labels, each checked once.

What is read from a tensor makes the host wait for a GPU, so no step calls these.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = sys.float_info.max


def whole(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """`value` as an int: Python's, NumPy's and a tensor's numbers are taken, and 1e4, which is whole too.

    why:   follows the range in the sentence, ", the number of images"
    raises ValueError unless it is a whole number from low to high
    """
    try:
        fits = not _no_number(value) and int(value) == value
        fits = bool(fits) and low <= int(value) and (high is None or int(value) <= high)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # text, None, nan, infinity, a tensor of many
        fits = False
    if not fits:
        span = f", {low} or more" if high is None else f" from {low} to {high}"
        raise ValueError(f"{name} must be a whole number{span}{why}, got {value!r}")
    return int(value)


def number(name: str, value: Any, low: float = -LARGEST, high: float = LARGEST, *, above: bool = False) -> float:
    """`value` as a float.

    above: low itself is too little
    raises ValueError unless it is a number from low to high; infinity is one only where `high` is
    """
    try:
        found = float("nan") if _no_number(value) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        found = float("nan")
    if not low <= found <= high or (above and found == low):
        span = f" from {low:g} to {high:g}" if high != LARGEST else f", {low:g} or more" if low != -LARGEST else ""
        span = f", more than {low:g}" if above else span
        raise ValueError(f"{name} must be a finite number{span}, got {value!r}")
    return found


def _no_number(value: Any) -> bool:
    """What int() and float() take all the same: texts, and yes or no."""
    return isinstance(value, bool | str | bytes | bytearray) or getattr(value, "dtype", None) in (torch.bool, bool)


def as_tensor(name: str, value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """`value` as a tensor: lists, and NumPy arrays of any byte order and layout, which share their memory if they can.

    raises ValueError, with its type, for anything else, and for complex numbers and tensors that hold no values
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.is_meta or value.layout != torch.strided:
            kind = f"{value.dtype}, {value.layout}, on {value.device}"
            raise ValueError(f"{name} must be an ordinary tensor of real numbers, got one of {kind}")
        return value if dtype is None else value.to(dtype)
    try:
        if hasattr(value, "__array__"):
            array = np.asarray(value)
            value = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise ValueError(
            f"{name} must be a tensor, or something that torch.as_tensor takes; got {type(value).__name__} ({problem})"
        ) from problem


def as_labels(name: str, labels: Any, n: int, classes: int | None) -> Tensor:
    """(n,) int64, from integers of any type.

    classes: how many a network knows; None leaves the values alone
    raises   ValueError for another type or shape, or values outside 0…classes - 1
    """
    labels = as_tensor(name, labels)
    if labels.is_floating_point() or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, got {labels.dtype}")
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one label an image; got {tuple(labels.shape)}")
    values = labels.tolist() if classes is not None else []
    if values and not 0 <= min(values) <= max(values) < classes:
        raise ValueError(
            f"{name} must lie in 0..{classes - 1}, got {min(values)} to {max(values)}; {classes} is the null class, "
            f"which {name}=None stands for"
        )
    return labels.to(torch.int64)
