"""Fixed inputs of lesson 13's exercises, where they are not those of the lesson that the exercise comes from."""

from dataclasses import replace

import torch

from .lesson06 import posterior_cases
from .records import Case


def byte_cases() -> list[Case]:
    generator = torch.Generator(device="cpu").manual_seed(1300)
    plan = [
        ("all 256 values", torch.arange(256, device="cpu")),
        ("images (2, 3, 4, 5)", torch.randint(0, 256, (2, 3, 4, 5), generator=generator, device="cpu")),
        ("a dark image (1, 1, 4, 4)", torch.randint(20, 90, (1, 1, 4, 4), generator=generator, device="cpu")),
        ("bytes of shape (8,)", torch.tensor([0, 255, 127, 128, 1, 254, 60, 200], device="cpu")),
    ]
    cases = []
    for label, values in plan:
        facts = {
            "for dark pixels": values < 128,
            "for bright pixels": values >= 128,
            "where the pixel is 0": values == 0,
            "where the pixel is 255": values == 255,
            "for pictures without black or white": "dark" in label,
        }
        cases.append(Case(label, (values.to(torch.uint8),), facts))
    return cases


def move_cases() -> list[Case]:
    """The steps of lesson 06 with the small variance, which is this step's only one."""
    cases = []
    for case in posterior_cases():
        if len(case.args) > 6 and case.args[6] == "large":
            continue
        facts = {phrase: true for phrase, true in case.facts.items() if "kind" not in phrase}
        label = case.label.split(", kind")[0]
        cases.append(replace(case, label=label, args=case.args[:6], facts=facts))
    return cases[1:]  # the first two differed in the kind alone


def chain_cases() -> list[Case]:
    plan = [(100,), (1000,), (400,), (50, 2e-4, 0.01), (12,), (7, 1e-3, 4e-3), (2, 1e-4, 3e-4), (37, 1e-4), (300, 1e-3)]
    cases = []
    for args in plan:
        share = torch.linspace(1, 0, args[0], device="cpu")
        top = torch.linspace(*(*args[1:], *(1e-4, 0.02)[len(args) - 1 :]), args[0], device="cpu") * 1000 / args[0]
        facts = {
            "at t = 1": share == 1,
            "at t = T": share == 0,
            "for T = 1000": args[0] == 1000,
            "for T other than 1000": args[0] != 1000,
            "where β is cut to 0.999": top > 0.999,
            "where T does not divide 1000": 1000 % args[0] > 0,
            "where `first` is given": len(args) > 1,
            "where `last` is given": len(args) > 2,
        }
        label = f"T = {args[0]}"
        for name, value in zip(("first", "last"), args[1:], strict=False):
            label += f", {name} = {value:g}"
        cases.append(Case(label, args, facts))
    return cases
