"""The exercise of lesson 00: bytes to the range that the network works in; lesson00.mistakes says what goes wrong."""

import torch

from .cases import normal, on_gpu
from .records import Case
from .written import exercise


def pixel_cases() -> list[Case]:
    every = torch.arange(256, device="cpu").to(torch.uint8)
    dark = (normal((2, 3, 4, 5), 0).abs() * 40).clamp(3, 120).to(torch.uint8)
    plan = [
        ("all 256 values", every),
        ("images (4, 1, 2, 32)", every.reshape(4, 1, 2, 32).flip(0)),
        ("dark images (2, 3, 4, 5), nothing above 120", dark),
        ("one image (1, 4, 4)", (normal((1, 4, 4), 1) * 50 + 128).clamp(20, 230).to(torch.uint8)),
        ("one flat image (1, 3, 3) of ones", torch.ones((1, 3, 3), dtype=torch.uint8, device="cpu")),
    ]
    cases = []
    for label, x in plan:
        facts = {
            "for values above 127": x > 127,
            "for value 0": x == 0,
            "for shapes other than (B, C, H, W)": x.ndim != 4,
            "where no value is above 1": bool(x.max() <= 1),
        }
        cases.append(Case(label, (x,), facts))
    return cases + on_gpu(cases[1])


@exercise(
    "0.1",
    pixel_cases,
    first="which value must 0 become, and which 255? Find the straight line through the two.",
    linear=("images",),
    tolerance=1e-5,
)
def to_model_range(images):
    """Map pixels to the range of the network.

    images:  uint8, any shape, 0...255
    returns  float32, the same shape, -1 for 0 and +1 for 255
    """
    return images.float() / 127.5 - 1
