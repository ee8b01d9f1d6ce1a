"""The check of lesson 00: bytes to the range that the network works in."""

import torch
from torch import Tensor

from .. import pixels
from .cases import normal, on_gpu
from .records import Case, Exercise, Mistake

HERE = "lesson 00, 'Exercise 0.1'"


def _cases() -> list[Case]:
    every = torch.arange(256, device="cpu").to(torch.uint8)
    plan = [
        ("all 256 values", every),
        ("images (4, 1, 2, 32)", every.reshape(4, 1, 2, 32).flip(0)),
        (
            "dark images (2, 3, 4, 5), nothing above 120",
            (normal((2, 3, 4, 5), 0).abs() * 40).clamp(3, 120).to(torch.uint8),
        ),
        ("one image (1, 4, 4)", (normal((1, 4, 4), 1) * 50 + 128).clamp(20, 230).to(torch.uint8)),
        ("one black image (1, 3, 3)", torch.zeros((1, 3, 3), dtype=torch.uint8, device="cpu")),
    ]
    cases = [
        Case(label, (x,), {"for values above 127": x > 127, "for values below 128": x < 128, "for value 0": x == 0})
        for label, x in plan
    ]
    return cases + on_gpu(cases[1])


def _by_range(images: Tensor) -> Tensor:
    low, high = images.min(), images.max()
    return (images.float() - low) / (high - low) * 2 - 1


to_model_range = Exercise(
    "0.1",
    "to_model_range",
    pixels.to_unit_range,
    _cases,
    stub='''
def to_model_range(images):
    """Map pixels to the range of the network.

    images:  uint8, any shape, 0...255
    returns  float32, the same shape, -1 for 0 and +1 for 255
    """
    raise NotImplementedError  # your code here
''',
    first="which value must 0 become, and which 255? Find the straight line through the two.",
    tolerance=1e-5,
    mistakes=[
        Mistake(
            "range_0_1",
            f"Your values lie in [0, 1]. The network works in [-1, 1]: stretch to width 2 and move down by 1 ({HERE}).",
            lambda images: images / 255,
        ),
        Mistake(
            "range_0_2",
            f"Your values lie in [0, 2]: the width is right, now move them down by 1 ({HERE}).",
            lambda images: images / 127.5,
        ),
        Mistake(
            "range_half",
            f"Your values lie in [-0.5, 0.5]: the middle is right, the width must be 2 ({HERE}).",
            lambda images: images / 255 - 0.5,
        ),
        Mistake(
            "range_0_255",
            f"Your values still run from 0 to 255. Only the type has changed: divide by 127.5 and subtract 1 ({HERE}).",
            lambda images: images.float(),
        ),
        Mistake(
            "range_127",
            f"Your values are centred but run to 127.5. Divide by 127.5 as well ({HERE}).",
            lambda images: images - 127.5,
        ),
        Mistake(
            "integer_division",
            f"Integer division keeps two or three grey levels and throws the rest away: divide with / ({HERE}).",
            lambda images: images // 127.5 - 1,
            lambda images: images // 127 - 1,
            lambda images: images // 128 - 1,
            lambda images: images // 128 * 2 - 1.0,
            lambda images: images // 127 - 1.0,
            lambda images: images // 255 * 2 - 1.0,
            lambda images: images // 255 * 2 - 1,
        ),
        Mistake(
            "bytes_wrap",
            "You calculate with bytes, and a byte above 255 or below 0 wraps around: turn the images into floats "
            f"first, images.float() ({HERE}).",
            lambda images: images * 2 / 255 - 1,
            lambda images: (images - 128) / 127.5,
            lambda images: (images - 128) / 128,
            lambda images: (images - 127) / 127.5,
            lambda images: (images - 127) / 128,
            lambda images: (images * 2 - 255) / 255,
        ),
        Mistake(
            "divided_by_128",
            f"255 becomes 0.992, not 1. Divide by 127.5, half of 255: not by 128, half of 256 ({HERE}).",
            lambda images: images / 128 - 1,
        ),
        Mistake(
            "divided_by_127",
            f"255 becomes 1.008, not 1. Half of 255 is 127.5, not 127 ({HERE}).",
            lambda images: images / 127 - 1,
        ),
        Mistake(
            "divided_by_256",
            f"0 and 255 become -0.996 and 0.996, not -1 and 1: half of 255 is 127.5, not 128 ({HERE}).",
            lambda images: (images.float() + 0.5) / 128 - 1,
        ),
        Mistake(
            "subtracted_first",
            f"The 1 must come off after the division, not before: images / 127.5 - 1 ({HERE}).",
            lambda images: (images.float() - 1) / 127.5,
            lambda images: images / (127.5 - 1),
        ),
        Mistake(
            "upside_down",
            f"Black has become white: 0 must go to -1 and 255 to 1 ({HERE}).",
            lambda images: 1 - images / 127.5,
        ),
        Mistake(
            "scaled_by_content",
            "You scale by the brightest or the darkest pixel there is, so the same grey means something else in "
            f"every batch. Scale by 255, always ({HERE}).",
            lambda images: images / images.max() * 2 - 1,
            _by_range,
        ),
        Mistake(
            "standardised",
            "You subtract the mean and divide by the standard deviation, which differ from batch to batch. The range "
            f"[-1, 1] needs neither ({HERE}).",
            lambda images: (images.float() - images.float().mean()) / images.float().std(),
            lambda images: (images.float() - images.float().mean()) / images.float().std(correction=0),
        ),
        Mistake(
            "divided_by_255_missing",
            "2x - 1, or (x - 0.5) / 0.5, is right for values in [0, 1]. Yours run from 0 to 255: divide by "
            f"255 first ({HERE}).",
            lambda images: (images - 0.5) / 0.5,
        ),
    ],
)
