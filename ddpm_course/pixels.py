"""Pixels: the bytes of a picture, 0…255, the floats in [-1, 1] that a network works with (lessons 00 and 01), and
labels that are made from them (lesson 07)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import as_tensor, whole


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


def clusters(images: Tensor, count: int, *, rounds: int = 40, generator: torch.Generator | None = None) -> Tensor:
    """Labels for pictures that have none, by k-means (Lloyd, 1982) on their pixels: alike pictures get the same one.

    images:    (N, C, H, W), uint8 or floats in [-1, 1]; compared at half their size, where there is less noise
    count:     labels to give, at most N; the first centres are as many of the pictures
    rounds:    each one moves every centre to the mean of the pictures that are nearest to it
    generator: of the choice of the first centres, on the CPU
    returns    (N,) int64 in 0…count-1, on the images' device
    raises     ValueError for images of another shape, or more labels than pictures
    """
    images = as_images("images", images)
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(images.shape)}")
    count, rounds = whole("count", count, 1, len(images), ", one for each picture"), whole("rounds", rounds, 0)
    x = F.avg_pool2d(in_unit_range(images), 2, ceil_mode=True).flatten(1)  # (N, D)
    centres = x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]  # (count, D)
    for _ in range(rounds):
        nearest = torch.cdist(x, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        sizes = nearest.bincount(minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)  # one that nobody is nearest to stays
    return torch.cdist(x, centres).argmin(1)
