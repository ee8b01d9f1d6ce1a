"""Fixed inputs and typical mistakes for the exercises that take `schedule`, x, t and noise."""

import torch
from torch import Tensor

from .records import Betas, Case

# Large and uneven, so that every wrong formula and every wrong index shows in every step.
EIGHT = Betas((0.12, 0.35, 0.08, 0.5, 0.22, 0.41, 0.17, 0.3))
FIVE = Betas((0.3, 0.1, 0.45, 0.2, 0.15))
IMAGES = (3, 2, 4, 5)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal numbers, always the same."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)


def step_cases(*, first: int) -> list[Case]:
    """Cases (schedule, x, t, noise) for t from `first` (0 or 1) to T: every way in which t and x can come."""
    plan = [
        (EIGHT, IMAGES, 6),
        (EIGHT, IMAGES, 1),
        (EIGHT, IMAGES, 8),
        (EIGHT, IMAGES, (8, 2, 5)),
        (EIGHT, IMAGES, (4, 4, 4)),
        (EIGHT, IMAGES, (1, 7, 1)),
        (EIGHT, (4, 1, 3, 4), (5, 1, 8, 3)),  # as many images as columns
        (EIGHT, (4, 1, 4, 5), (3, 8, 2, 6)),  # as many images as rows
        (EIGHT, (3, 3, 4, 5), (6, 2, 7)),  # as many images as channels
        (EIGHT, (1, 2, 4, 5), (3,)),
        (EIGHT, (6,), 3),
        (EIGHT, (6,), (2, 7, 1, 4, 8, 5)),
        (EIGHT, (4, 2), (7, 2, 6, 3)),
        (FIVE, IMAGES, 4),
        (FIVE, IMAGES, (5, 1, 3)),
    ]
    if first == 0:
        plan += [(EIGHT, IMAGES, 0), (EIGHT, IMAGES, (0, 5, 8))]
    cases = [_step_case(betas, shape, t, seed) for seed, (betas, shape, t) in enumerate(plan)]
    return cases + on_gpu(cases[3])


def _step_case(betas: Betas, shape: tuple[int, ...], t: int | tuple[int, ...], seed: int) -> Case:
    many = not isinstance(t, int)
    each = (
        torch.tensor(t, device="cpu").reshape((-1,) + (1,) * (len(shape) - 1))
        if many
        else torch.tensor(t, device="cpu")
    )
    images = len(shape) == 4
    facts = {
        "where t = 0": each == 0,
        "where t = 1": each == 1,
        "where t = T": each == len(betas.values),
        "where t is 0 or 1": each <= 1,
        "where t is more than 1": each > 1,
        "for an int t": not many,
        "for t of shape (B,)": many,
        "where the t in a batch differ": many and len(set(t)) > 1,
        "for a batch of one": shape[0] == 1,
        "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
        "where the batch has as many images as an image has channels": images and shape[0] == shape[1],
        "for images": images,
        "for data that is not images, of shape (B,) or (B, D)": not images,
        "for data of shape (B,)": len(shape) == 1,
        "for data of shape (B,) with t of shape (B,)": len(shape) == 1 and many,
        "for a schedule with another T": betas is FIVE,
    }
    kind = "images" if images else "data"
    label = f"{kind} {shape}, t = {t if not many else list(t)}, T = {len(betas.values)}"
    value = torch.tensor(t, device="cpu") if many else t
    return Case(label, (betas, normal(shape, 2 * seed), value, normal(shape, 2 * seed + 1)), facts)


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
