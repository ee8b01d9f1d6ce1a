"""Fixed inputs and typical mistakes for the exercises that take `schedule`, x, t and noise."""

import torch
from torch import Tensor

from .records import Betas, Case

# Large and uneven, so that every wrong formula and every wrong index shows in every step; ᾱ_1 is no round number.
EIGHT = Betas((0.1213, 0.35, 0.08, 0.5, 0.22, 0.41, 0.17, 0.3))
FIVE = Betas((0.3041, 0.1, 0.45, 0.2, 0.15))
OTHER_EIGHT = Betas((0.4067, 0.15, 0.75, 0.6, 0.3, 0.85, 0.55, 0.97))  # a cache keyed by T takes it for EIGHT
TWELVE = Betas((0.0619, 0.21, 0.11, 0.3, 0.02, 0.24, 0.17, 0.05, 0.27, 0.13, 0.33, 0.09))  # longer than all the others
IMAGES = (3, 2, 4, 5)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal numbers, always the same."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)


def step_cases(*, first: int) -> list[Case]:
    """Cases (schedule, x, t, noise) for t from `first` (0 or 1) to T: every way in which t and x can come."""
    plan = [(EIGHT, IMAGES, t) for t in (6, 1, 8, (8, 2, 5), (4, 4, 4), (1, 7, 1))]
    # as many images as columns, as rows, and as channels
    plan += [(EIGHT, (4, 1, 3, 4), (5, 1, 8, 3)), (EIGHT, (4, 1, 4, 5), (3, 8, 2, 6)), (EIGHT, (3, 3, 4, 5), (6, 2, 7))]
    plan += [(EIGHT, (1, 2, 4, 5), (3,)), (EIGHT, (6,), 3), (EIGHT, (6,), (2, 7, 1, 4, 8, 5))]
    plan += [(EIGHT, (4, 2), (7, 2, 6, 3)), (FIVE, IMAGES, 4), (FIVE, IMAGES, (5, 1, 3))]
    plan += [(OTHER_EIGHT, IMAGES, (3, 8, 6)), (TWELVE, IMAGES, (12, 5, 10)), (TWELVE, (2, 3, 4), (9, 4))]
    plan += [(EIGHT, (2, 1, 2, 3, 4), (7, 2))]
    if first == 0:
        plan += [(EIGHT, IMAGES, 0), (EIGHT, IMAGES, (0, 5, 8))]
    cases = [_step_case(betas, shape, t, seed) for seed, (betas, shape, t) in enumerate(plan)]
    return cases + on_gpu(cases[3])


def _step_case(betas: Betas, shape: tuple[int, ...], t: int | tuple[int, ...], seed: int) -> Case:
    many = not isinstance(t, int)
    each = torch.tensor(t, device="cpu").reshape((-1,) + (1,) * (len(shape) - 1))
    images = len(shape) == 4
    alpha_bar = (1 - torch.tensor((0.0, *betas.values), device="cpu")).cumprod(0)[each]
    facts = {
        "where t = 0": each == 0,
        "where t = 1": each == 1,
        "where t = T": each == len(betas.values),
        "where t is more than 1": each > 1,
        "where t is more than 8": each > 8,
        "where ᾱ_t is below 0.01": alpha_bar < 0.01,
        "for an int t": not many,
        "for t of shape (B,)": many,
        "where the t in a batch differ": many and len(set(t)) > 1,
        "for a batch of one": shape[0] == 1,
        "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
        "where the batch has as many images as an image has channels": images and shape[0] == shape[1],
        "for images": images,
        "for data that is not images": not images,
        "for data of shape (B,)": len(shape) == 1,
        "for data of three or five axes": len(shape) in (3, 5),
        "for another schedule": betas is not EIGHT,
        "for a schedule with another T": betas in (FIVE, TWELVE),
        "for another schedule of the same T": betas is OTHER_EIGHT,
    }
    kind = "images" if images else "data"
    label = f"{kind} {shape}, t = {t if not many else list(t)}, T = {len(betas.values)}"
    value = torch.tensor(t, device="cpu") if many else t
    return Case(label, (betas, normal(shape, 2 * seed), value, normal(shape, 2 * seed + 1)), facts)


# Steps from t to an earlier s, of one and of several, for ints and for batches of every shape.
STRIDES = [
    *((EIGHT, IMAGES, t, s) for t, s in ((6, 5), (6, 2), (8, 7), (1, 0), (4, 0))),
    (EIGHT, IMAGES, (8, 2, 5), (7, 1, 4)),
    (EIGHT, IMAGES, (8, 7, 4), (3, 2, 0)),
    (EIGHT, (4, 1, 3, 4), (5, 2, 8, 3), (2, 1, 7, 1)),  # as many images as columns
    (EIGHT, (4, 1, 4, 5), (3, 8, 2, 6), (1, 4, 1, 5)),  # as many images as rows
    (EIGHT, (3, 3, 4, 5), (6, 3, 7), (5, 1, 2)),  # as many images as channels
    (EIGHT, (4, 2), (7, 2, 6, 3), (6, 1, 2, 0)),
    (EIGHT, (6,), 5, 2),
    (FIVE, IMAGES, 4, 2),
    (OTHER_EIGHT, IMAGES, 6, 2),
    (TWELVE, (1, 3, 2, 2), (12,), (4,)),
    (TWELVE, (2, 3), (11, 10), (0, 9)),
]


def stride(shape: tuple[int, ...], t: int | tuple[int, ...], s: int | tuple[int, ...]) -> tuple:
    """Of a row of STRIDES: t and s with axes that broadcast to the data, as arguments, in a label, and its facts."""
    many = not isinstance(t, int)
    axes = (-1,) + (1,) * (len(shape) - 1)
    given = [torch.tensor(r, device="cpu") for r in (t, s)]
    rows, before = (r.reshape(axes if many else ()) for r in given)
    facts = {
        "where the batch has as many images as an image has columns": len(shape) == 4 and shape[0] == shape[3],
        "where the batch has as many images as an image has channels": len(shape) == 4 and shape[0] == shape[1],
        "for images": len(shape) == 4,
    }
    label = f"data {shape}, t = {list(t) if many else t}, s = {list(s) if many else s}"
    return rows, before, given if many else [t, s], label, facts


def on_gpu(case: Case) -> list[Case]:
    """The same case where this machine's GPU holds the data; nothing if it has none that answers."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if device is None:
        return []
    try:
        args = tuple(a.to(device) if isinstance(a, Tensor) else a for a in case.args)
    except RuntimeError:
        return []
    return [Case(f"{case.label}, on {device}", args, {**case.facts, f"for data on {device}": True}, gpu=True)]
