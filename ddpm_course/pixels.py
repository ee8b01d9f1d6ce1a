"""Pixels: the bytes of a picture, 0…255, and the floats in [-1, 1] that a network works with (lessons 00 and 01)."""

import torch
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0…255 to float32 in [-1, 1], any shape: the range the network works in.

    raises ValueError if the images are not uint8
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8 0…255, any shape: values outside are clamped, then rounded to the nearest level."""
    return ((x + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def in_unit_range(images: Tensor) -> Tensor:
    """Floats as they are, uint8 as `to_unit_range` makes them: for functions that take both."""
    return to_unit_range(images) if images.dtype == torch.uint8 else images
