"""Fixed inputs of lesson 07: pictures of every mode, in flat squares, where all good filters agree."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .records import Case


def colours(rows: int, columns: int, seed: int) -> Tensor:
    """(rows, columns, 3) uint8: dark and bright values, no two neighbours alike."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    levels = torch.tensor([8, 14, 232, 240, 248], dtype=torch.uint8, device="cpu")
    made = levels[torch.randint(0, 5, (rows, columns, 3), generator=generator, device="cpu")]
    checks = (torch.arange(rows, device="cpu")[:, None] + torch.arange(columns, device="cpu")) % 2 == 0
    made[..., 0] = torch.where(checks, 232 + made[..., 0] % 16, 8 + made[..., 0] % 8)
    return made


def painted(squares: Tensor, mode: str, side: int, turn: int) -> Image.Image:
    """A picture of squares, `side` pixels wide each, as Pillow opens a file of that mode and orientation."""
    pixels = squares.numpy().repeat(side, 0).repeat(side, 1)
    rows, columns = squares.shape[:2]
    grey = np.ascontiguousarray(pixels[..., 0])
    if mode == "I;16":  # the low byte says nothing, where there is room for that
        return Image.fromarray(grey.astype(np.uint16) * 256 + np.where(grey < 128, grey, grey - 120).astype(np.uint16))
    places = np.arange(rows)[:, None] + 2 * np.arange(columns)
    alpha = np.array([255, 0, 128], np.uint8)[places % 3].repeat(side, 0).repeat(side, 1)
    if mode.startswith("P"):
        numbers = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
        image = Image.fromarray(numbers.repeat(side, 0).repeat(side, 1))
        image.putpalette(squares.flatten().tolist())
    elif mode == "1":
        image = Image.fromarray(grey).point(lambda level: 255 * (level > 127), "1")
    elif mode in ("L", "RGB"):
        image = Image.fromarray(grey if mode == "L" else pixels)
    else:
        image = Image.fromarray(np.dstack([grey if mode == "LA" else pixels, alpha]))
    file, exif = io.BytesIO(), Image.Exif()
    more = {"transparency": 1} if mode == "P, transparent" else {}
    if turn > 1:
        exif[274] = turn
        more["exif"] = exif
    image.save(file, "PNG", **more)
    return Image.open(io.BytesIO(file.getvalue()))


def striped(pair: Tensor, side: int = 96) -> Image.Image:
    """Columns one pixel wide, in two colours that alternate."""
    row = pair.numpy()[0][np.arange(side) % 2]
    return Image.fromarray(np.broadcast_to(row, (side, side, 3)).copy())


def inside(rows: int, columns: int, side: int, size: int) -> Tensor:
    """(size, size) bool: which pixels of the result lie so far inside a square that every good filter leaves them flat.

    side: of a square, in pixels of the picture
    """
    scale = size / (min(rows, columns) * side)
    margin = 3 * max(1.0, scale) + 1

    def far(squares: int) -> Tensor:
        skipped = (squares * side * scale - size) / 2
        place = (torch.arange(size, device="cpu") + 0.5 + skipped) / (side * scale)
        return (place - place.round()).abs() * side * scale >= margin

    return far(rows)[:, None] & far(columns)


def where_flat(args: tuple, value: Any, mask: Tensor) -> Any:
    """The result, with 0 in the place of pixels that hang on the filter."""
    if not isinstance(value, Tensor) or value.shape[-2:] != mask.shape:
        return value
    return torch.where(mask.to(value.device), value, torch.zeros_like(value))


def opened(function: Callable, squares: Tensor, size: int, paint: Callable) -> Any:
    """What a function makes of a picture, which is a new one for every call."""
    return function(paint(squares), size)


def square_cases() -> list[Case]:
    plan = [("RGB", 3, 5, 1, 24, 36), ("RGB", 5, 3, 1, 18, 39), ("RGB", 2, 6, 1, 40, 30), ("RGB", 2, 2, 1, 10, 48)]
    plan += [("L", 3, 5, 1, 26, 36), ("LA", 3, 3, 1, 20, 36), ("RGBA", 3, 5, 1, 22, 36), ("RGBA", 5, 3, 8, 30, 42)]
    plan += [("P", 3, 5, 1, 24, 36), ("P, transparent", 3, 3, 1, 24, 36), ("1", 5, 3, 1, 24, 36)]
    plan += [("I;16", 3, 5, 1, 24, 36), ("RGB", 3, 5, 6, 24, 36), ("RGB", 3, 3, 2, 30, 36), ("L", 5, 3, 3, 24, 36)]
    plan += [("RGB", 4, 2, 5, 24, 26)]
    cases = []
    for seed, (mode, rows, columns, turn, side, size) in enumerate(plan):
        upright = (columns, rows) if turn > 4 else (rows, columns)
        facts = {
            "for landscapes": upright[0] < upright[1],
            "for portraits": upright[0] > upright[1],
            "for squares": rows == columns,
            "for pictures that are turned or mirrored by EXIF": turn > 1,
            "for transparent pictures": mode in ("LA", "RGBA", "P, transparent"),
            "for grey pictures": mode in ("L", "LA", "1", "I;16"),
            "for pictures with a palette": mode.startswith("P"),
            "for black and white": mode == "1",
            "for 16 bits": mode == "I;16",
            "for pictures that are smaller than the result": min(rows, columns) * side < size,
        }
        wide, high = columns * side, rows * side
        label = f"mode {mode}, {wide}×{high} pixels, size {size}" + (f", EXIF orientation {turn}" if turn > 1 else "")

        use = partial(opened, paint=partial(painted, mode=mode, side=side, turn=turn))
        result = partial(where_flat, mask=inside(*upright, side, size))
        cases.append(Case(label, (colours(rows, columns, 820 + seed), size), facts, use=use, result=result))
    pair = torch.tensor([[[0, 250, 10], [250, 0, 240]]], dtype=torch.uint8, device="cpu")
    use, result = partial(opened, paint=striped), partial(where_flat, mask=inside(1, 1, 96, 16))
    label = "mode RGB, 96×96 pixels, size 16, fine stripes"
    return [*cases, Case(label, (pair, 16), {"for fine patterns": True, "for squares": True}, use=use, result=result)]
