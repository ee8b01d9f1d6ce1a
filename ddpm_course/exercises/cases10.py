"""Fixed inputs for the exercises of lesson 10, and the judge of its open one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..classifier import load_classifier
from ..data import CLASS_NAMES, load_images
from ..guidance import inpaint_steps
from ..nets import Guided
from ..pixels import to_unit_range
from ..samplers import sample
from ..training import load_pretrained
from .cases import EIGHT, FIVE, IMAGES, OTHER_EIGHT, TWELVE, normal, on_gpu, step_cases
from .records import Aim, Case

# ---- 10.1


def judge(x: Tensor, t: Tensor) -> Tensor:
    """Logits (B, 5) of a classifier that nobody trained; it wants t as (B,) integers, and gives every class its own."""
    if not isinstance(t, Tensor) or t.shape != x.shape[:1] or t.is_floating_point():
        raise ValueError(f"t must be (B,) integers for x's batch of {len(x)}")
    flat, classes = x.flatten(1), torch.arange(5, device=x.device)
    where = torch.arange(flat.shape[1], device=x.device)
    weights = torch.cos(1.7 * where[:, None] + 0.9 * classes) + 0.3 * torch.sin(classes + where[:, None] ** 2)
    return torch.sin(flat + 0.4 * t[:, None]) @ weights.to(x.dtype) / flat.shape[1] ** 0.5 + 0.2 * classes


def without_gradients(function: Callable, *args: Any) -> Tensor:
    """As samplers call: where gradients are switched off."""
    with torch.no_grad():
        return function(*args)


def gradient_cases() -> list[Case]:
    plan = [
        *((EIGHT, IMAGES, t, scale) for t, scale in (((6, 2, 5), 1.0), ((8, 1, 3), 2.5), ((4, 4, 4), 0.5))),
        *(((EIGHT, (4, 1, 3, 4), (5, 1, 8, 3), 3.0)), ((EIGHT, (4, 2), (7, 2, 6, 3), 1.5))),
        *(((FIVE, (2, 1, 3, 3), (5, 2), 2.0)), ((OTHER_EIGHT, (5, 1, 2, 3), (3, 8, 6, 1, 2), 1.2))),
        ((TWELVE, (1, 3, 2, 2), (11,), 4.0)),
    ]
    cases = []
    for i, (betas, shape, t, scale) in enumerate(plan):
        y = (torch.arange(shape[0], device="cpu") * 3 + i) % 5
        noise, xt, quiet = normal(shape, 1100 + 2 * i), normal(shape, 1101 + 2 * i), i in (1, 4)
        facts = {
            "for a batch of one": shape[0] == 1,
            "for a batch of more than one": shape[0] > 1,
            "where scale is 1": scale == 1,
            "where gradients are switched off, as in a sampler": quiet,
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        label = f"data {shape}, t = {list(t)}, scale {scale}" + ", inside torch.no_grad()" * quiet
        args = (judge, betas, noise, xt, torch.tensor(t, device="cpu"), y, scale)
        cases.append(Case(label, args, facts, use=without_gradients if quiet else None))
    return cases + on_gpu(cases[0])


# ---- 10.2


@dataclass(frozen=True)
class Labelled:
    """A network that nobody trained, particular about x, t and y. Label num_classes is its null class, as None is."""

    num_classes: int

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        y = torch.full_like(t, self.num_classes) if y is None else y
        for name, value in (("t", t), ("y", y)):
            if not isinstance(value, Tensor) or value.shape != x.shape[:1] or value.is_floating_point():
                got = tuple(value.shape) if isinstance(value, Tensor) else value
                raise ValueError(f"{name} must be (B,) integers for x's batch of {len(x)}; got {got}")
        column = (-1,) + (1,) * (x.ndim - 1)
        phase, label = t.double().reshape(column), y.double().reshape(column)
        x = x.double()
        return (0.6 * x + 0.5 * torch.sin(phase + x) + torch.cos(2.1 * label + 0.7 * x)).float()


def guided_cases() -> list[Case]:
    plan = [
        *((IMAGES, scale, 10) for scale in (3.0, 1.5, 0.0, 1.0, -1.5)),
        (IMAGES, (3.0, 0.5, 1.5), 10),
        ((4, 1, 3, 4), (2.0, 0.0, 5.0, 1.0), 10),  # as many images as columns
        ((4, 1, 4, 5), (1.5, 4.0, 0.0, 2.5), 4),  # as many images as rows
        ((3, 3, 4, 5), (2.5, 0.5, 4.0), 4),  # as many images as channels
        ((1, 2, 4, 5), 4.0, 4),
        ((4, 2), (3.0, 1.0, -1.0, 2.0), 4),
        ((5,), 2.5, 3),
        ((2, 1, 2, 3, 4), (6.0, 2.0), 3),
    ]
    cases = []
    for i, (shape, scale, classes) in enumerate(plan):
        many, images = isinstance(scale, tuple), len(shape) == 4
        t = torch.arange(len(torch.zeros(shape)), device="cpu") * 3 + 2
        y = (torch.arange(shape[0], device="cpu") * 2 + 1) % classes
        facts = {
            "for one scale": not many,
            "for a scale for each image": many,
            "where scale is 1": torch.tensor(scale, device="cpu").eq(1).reshape((-1,) + (1,) * (len(shape) - 1)),
            "where scale is 0": torch.tensor(scale, device="cpu").eq(0).reshape((-1,) + (1,) * (len(shape) - 1)),
            "for a batch of one": shape[0] == 1,
            "for data that is not images": not images,
            "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
            "where the batch has as many images as an image has channels": images and shape[0] == shape[1],
            "for another number of classes": classes != 10,
        }
        value = torch.tensor(scale, device="cpu", dtype=torch.float32) if many else scale
        label = f"data {shape}, scale {list(scale) if many else scale}, {classes} classes"
        cases.append(Case(label, (Labelled(classes), normal(shape, 1000 + i), t, y, value), facts))
    return cases + on_gpu(cases[5])


# ---- 10.3: lines of code that mix two predictions, as papers and libraries have them


def towards(c, u, w):
    return u + w * (c - u)


def beyond(c, u, w):
    return (1 + w) * c - w * u


def shares(c, u, w):
    return w * c + (1 - w) * u


def pushed(c, u, w):
    return c + w * (c - u)


def per_cent(c, u, w):
    return u + w / 100 * (c - u)


def from_the_middle(c, u, w):
    return (c + u) / 2 + w * (c - u)


def turned(c, u, w):
    return c - 2 * w * (u - c)


RULES = {
    towards: "u + w(c - u)",
    beyond: "(1 + w)c - w u",
    shares: "w c + (1 - w)u",
    pushed: "c + w(c - u)",
    per_cent: "u + w/100 (c - u)",
    from_the_middle: "(c + u)/2 + w(c - u)",
    turned: "c - 2w(u - c)",
}


def conversion_cases() -> list[Case]:
    plan = [(3.0, towards, beyond), (2.0, beyond, towards), (1.5, shares, pushed), (7.5, towards, shares)]
    plan += [(0.7, pushed, per_cent), (130.0, per_cent, beyond), (2.5, from_the_middle, towards)]
    plan += [(4.0, towards, from_the_middle), (1.25, beyond, pushed), (0.4, turned, towards), (2.2, shares, turned)]
    plan += [(0.3, per_cent, turned), (-0.5, towards, beyond), (-1.5, from_the_middle, per_cent)]
    return [
        Case(
            f"{value} in {RULES[source]}, to {RULES[target]}",
            (value, source, target),
            {
                "where the two lines of code mean the same": torch.tensor(
                    {source, target} in ({towards, shares}, {beyond, pushed}), device="cpu"
                ),
                "for a target whose plain scale is 0": target in (beyond, pushed, turned),
                "for a target that does not grow by 1 with the weight of c": target in (per_cent, turned),
                "for a negative scale": value < 0,
            },
        )
        for value, source, target in plan
    ]


# ---- 10.4, 10.5 and 10.7


def replacement_cases() -> list[Case]:
    """Every way in which s and x can come, with masks of several shapes."""
    cases = []
    for i, case in enumerate(step_cases(first=0)):
        if case.gpu:
            continue
        betas, x, s, z = case.args
        generator = torch.Generator(device="cpu").manual_seed(i)
        whole = i % 3 != 1 or x.ndim < 3
        shape = x.shape if whole else x.shape[-2:]
        mask = torch.randint(0, 2, shape, generator=generator, device="cpu").float()
        mask.view(-1)[:2] = torch.tensor([0.0, 1.0])
        facts = {re.sub(r"\bt\b", "s", phrase): true for phrase, true in case.facts.items()}
        facts |= {"where the pixel is known": mask == 1, "where the pixel is unknown": mask == 0}
        facts |= {"for one mask for all images": not whole}
        args = (betas, x, normal(tuple(x.shape), 1200 + i), mask, s, z)
        cases.append(Case(case.label.replace("t =", "s ="), args, facts))
    return cases + on_gpu(cases[0])


def up_cases() -> list[Case]:
    plan = [
        *((EIGHT, IMAGES, s, t) for s, t in ((5, 6), (2, 6), (7, 8), (0, 1), (0, 4), (1, 8))),
        *((EIGHT, IMAGES, s, t) for s, t in (((7, 1, 4), (8, 2, 5)), ((3, 2, 0), (8, 7, 4)))),
        (EIGHT, (4, 1, 3, 4), (2, 1, 7, 1), (5, 2, 8, 3)),  # as many images as columns
        (EIGHT, (4, 1, 4, 5), (1, 4, 1, 5), (3, 8, 2, 6)),  # as many images as rows
        (EIGHT, (3, 3, 4, 5), (5, 1, 2), (6, 3, 7)),  # as many images as channels
        (EIGHT, (4, 2), (6, 1, 2, 0), (7, 2, 6, 3)),
        *((EIGHT, (6,), 2, 5), (FIVE, IMAGES, 2, 4), (OTHER_EIGHT, IMAGES, 2, 6), (TWELVE, (2, 3), (0, 9), (11, 10))),
    ]
    cases = []
    for i, (betas, shape, s, t) in enumerate(plan):
        many, images = not isinstance(t, int), len(shape) == 4
        axes = (-1,) + (1,) * (len(shape) - 1)
        before, after = (torch.tensor(r, device="cpu").reshape(axes if many else ()) for r in (s, t))
        facts = {
            "where s = 0": before == 0,
            "for steps longer than one": after - before > 1,
            "for ints": not many,
            "for s and t of shape (B,)": many,
            "for data that is not images": not images,
            "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
            "where the batch has as many images as an image has channels": images and shape[0] == shape[1],
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        label = f"data {shape}, from s = {list(s) if many else s} to t = {list(t) if many else t}"
        times = (torch.tensor(s, device="cpu"), torch.tensor(t, device="cpu")) if many else (s, t)
        args = (betas, normal(shape, 1300 + 2 * i), *times, normal(shape, 1301 + 2 * i))
        cases.append(Case(label, args, facts))
    return cases + on_gpu(cases[0])


def start_cases() -> list[Case]:
    plan = [(EIGHT, IMAGES, strength) for strength in (0.5, 0.6, 0.3, 1.0, 0.0, 0.85, 0.12)]
    plan += [(FIVE, IMAGES, 0.47), (TWELVE, (2, 3), 0.4), (TWELVE, (1, 3, 2, 2), 0.9), (OTHER_EIGHT, IMAGES, 0.7)]
    plan += [(EIGHT, (6,), 0.4), (EIGHT, (4, 1, 3, 4), 0.75)]
    cases = []
    for i, (betas, shape, strength) in enumerate(plan):
        T = len(betas.values)
        facts = {
            "where strength is 0": strength == 0,
            "where strength is 1": strength == 1,
            "where strength times T is no whole number": strength * T != int(strength * T),
            "where strength times T is rounded up": round(strength * T) > strength * T + 1e-9,
            "for data that is not images": len(shape) != 4,
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        args = (betas, normal(shape, 1400 + 2 * i), strength, normal(shape, 1401 + 2 * i))
        cases.append(Case(f"data {shape}, strength {strength}, T = {T}", args, facts, result=time_and_data))
    return cases


def time_and_data(_: tuple, value: Any) -> Any:
    """The two parts of an answer by their names, where it has two."""
    return {"x": value[1], "t": value[0]} if isinstance(value, tuple) and len(value) == 2 else value


# ---- 10.6: no single right answer

BUDGETS = 100, 150  # pixels that may be made up, of 784
TROUSERS, ASKED, PICTURES = 1, 0.7, 8  # the class of the picture, what is asked for, how many fillings are judged


@cache
def trousers() -> Tensor:
    """(1, 1, 28, 28) in [-1, 1]: a pair of trousers that the network has not seen."""
    return to_unit_range(load_images(split="test", limit=4)[0][3:4])


def repaired(mask: Tensor, label: int) -> Tensor:
    """(8, 1, 28, 28): the trousers, with what the mask leaves unknown made up by the bundled network, told the label.

    On the CPU, 15 steps, scale 3, the same noise every time.
    """
    return _repaired(tuple(mask.flatten().tolist()), label)


@cache
def _repaired(mask: tuple[float, ...], label: int) -> Tensor:
    net, diffusion, _ = load_pretrained("cpu")
    known, y = trousers().expand(PICTURES, -1, -1, -1), torch.full((PICTURES,), label, device="cpu")
    steps = inpaint_steps(
        Guided(net, 3.0), diffusion, known, torch.tensor(mask, device="cpu").reshape(28, 28), 15, y=y,
        generator=torch.Generator(device="cpu").manual_seed(0),
    )  # fmt: skip
    return sample(steps, progress=False)


@torch.no_grad()
def probabilities(images: Tensor) -> Tensor:
    """(N, 10): how sure the bundled classifier is of each class."""
    return load_classifier()(images.clamp(-1, 1)).softmax(1)


def mask_and_label(_: tuple, value: Any) -> Tensor:
    """The mask's 784 entries and the label, in one tensor."""
    mask, label = value if isinstance(value, tuple) and len(value) == 2 else (None, None)
    if not isinstance(mask, Tensor) or mask.shape != (28, 28):
        got = f"a mask of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(value).__name__
        raise TypeError(f"the result must be `mask, label`, the mask a tensor of shape (28, 28); got {got}")
    label = label.item() if isinstance(label, Tensor) and label.numel() == 1 else label
    if not isinstance(label, int) or isinstance(label, bool):
        raise TypeError(f"the label must be an int, one of the ten classes; got {label!r}")
    return torch.cat([mask.detach().cpu().double().flatten(), torch.tensor([label], dtype=torch.float64, device="cpu")])


def hole_cases() -> list[Case]:
    return [Case(f"budget = {budget}", (budget,), result=mask_and_label) for budget in BUDGETS]


def _is_design(value: Any, case: Case) -> bool:
    return isinstance(value, Tensor) and value.shape == (785,) and bool(value.isfinite().all())


def _fault(value: Tensor, case: Case) -> str | None:
    """The id of the first thing that is wrong with a design, None if nothing is."""
    mask, label, (budget,) = value[:-1], int(value[-1]), case.args
    unknown = int((mask == 0).sum())
    if not bool(((mask == 0) | (mask == 1)).all()):
        return "not_a_mask"
    if not 0 <= label < len(CLASS_NAMES):
        return "no_class"
    if label == TROUSERS:
        return "same_garment"
    if unknown != budget:
        return "turned_around" if 784 - unknown == budget else "too_many" if unknown > budget else "too_few"
    seen = probabilities(repaired(mask, label)).mean(0)
    if seen[label] >= ASKED:
        return None
    return "still_trousers" if seen[TROUSERS] > 0.5 else "unclear"


def _score(value: Tensor, case: Case) -> str | None:
    if _fault(value, case) not in ("still_trousers", "unclear", None):
        return None
    label = int(value[-1])
    seen = probabilities(repaired(value[:-1], label))
    hits, average = int((seen.argmax(1) == label).sum()), seen[:, label].mean().item()
    return (
        f"With {case.args[0]} pixels made up, the classifier's answer is {CLASS_NAMES[label]!r} for {hits} of "
        f"{PICTURES} pictures, and its average probability is {average:.2f} ({ASKED} is asked)."
    )


HOLE = Aim(_is_design, _fault, _score)
