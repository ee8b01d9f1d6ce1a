"""Pixels: the bytes of a picture, 0…255, and the floats in [-1, 1] that a network works with (lessons 00 and 01)."""

from typing import Any

import torch
from torch import Tensor

from .arguments import as_tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0…255 to float32 in [-1, 1], any shape: the range the network works in.

    raises ValueError if the images are not uint8
    """
    images = as_tensor("images", images)
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8 0…255, any shape: values outside are clamped, then rounded to the nearest level.

    Integers 0…255 are levels already, and keep their values.
    raises ValueError for other integers, and for floats that are 0…255
    """
    x = as_images("x", x)
    if x.dtype == torch.uint8:
        return x
    return ((x + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def as_images(name: str, images: Any) -> Tensor:
    """Images of any shape as uint8, for integers of any type, or as the floats that they are.

    For the door of functions that take both: it reads the values, and `in_unit_range` then only converts.
    raises ValueError for integers outside 0…255, and for floats that are 0…255: none below 0, and some above 2, which
           neither images in [-1, 1] nor noise are
    """
    images = as_tensor(name, images)
    if images.dtype == torch.uint8 or images.numel() == 0:
        return images
    if images.dtype == torch.bool or images.is_complex():
        raise ValueError(f"{name} must be uint8 0…255, or floats in [-1, 1]; got {images.dtype}")
    floats = images.is_floating_point()
    lowest, highest = torch.stack((images if floats else images.long()).aminmax()).tolist()
    if (lowest >= 0 and highest > 2) if floats else (lowest < 0 or highest > 255):
        kind = f"{images.dtype} from {lowest:g} to {highest:g}"
        raise ValueError(f"{name} must be uint8 0…255, or floats in [-1, 1] (x / 127.5 - 1); got {kind}")
    return images if floats else images.to(torch.uint8)


def in_unit_range(images: Tensor) -> Tensor:
    """Floats as they are, uint8 as `to_unit_range` makes them: for functions that take both."""
    return to_unit_range(images) if images.dtype == torch.uint8 else images
