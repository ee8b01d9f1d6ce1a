"""Fixed inputs and typical mistakes for the exercises that take `schedule`, x, t and noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..schedules import Schedule
from .records import Betas, Case, Mistake

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


class Entries(NamedTuple):
    """Row t of a schedule's tables, shaped to multiply the data."""

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor
    index: Tensor  # t itself
    beta_bar: Tensor  # the product of the betas, which nothing should use


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(B,) to (B, 1, ..., 1): right for data of any shape."""
    return values.reshape((-1,) + (1,) * (x.ndim - 1)) if values.ndim else values


def weighted(
    weights: Callable[[Entries], tuple[Any, Any]],
    *,
    shift: int = 0,
    column: Callable[[Tensor, Tensor], Tensor] = per_sample,
    pick: Callable[[Any], Any] = lambda t: t,
    draw: Callable[[Tensor], Tensor] | None = None,
) -> Callable:
    """A function of (schedule, x, t, noise) that returns a x + b noise: right or wrong, as the arguments say.

    weights:  entries -> (a, b)
    shift:    read row t + shift of the tables; before the first row the index wraps, as Python's does
    column:   how (B,) is made to multiply the data
    pick:     t -> the t that is used
    draw:     x -> the noise that is used in place of the one given
    """

    def function(schedule: Schedule, x: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        t = pick(t)
        tables = (
            schedule.beta,
            schedule.alpha,
            schedule.alpha_bar,
            torch.arange(schedule.T + 1),
            schedule.beta.cumprod(0),
        )
        a, b = weights(Entries(*(column(table[t + shift], x) for table in tables)))
        return a * x + b * (draw(x) if draw else noise)

    function.broadcast_by = lambda other: weighted(weights, shift=shift, column=other, pick=pick, draw=draw)
    return function


def raw(values: Tensor, x: Tensor) -> Tensor:
    """(B,) left as it is: broadcasting lines it up with the last axis."""
    return values


def four_axes(values: Tensor, x: Tensor) -> Tensor:
    """(B, 1, 1, 1) whatever the data."""
    return values.reshape(-1, 1, 1, 1)


def four_axes_by_index(values: Tensor, x: Tensor) -> Tensor:
    """(B, 1, 1, 1) whatever the data; an int t has no axis to index and raises."""
    return values[:, None, None, None]


def four_axes_by_einops(values: Tensor, x: Tensor) -> Tensor:
    """The same with einops, which raises an error of its own."""
    return rearrange(values, "b -> b 1 1 1")


def three_axes(values: Tensor, x: Tensor) -> Tensor:
    """(B, 1, 1): lined up with the channels of images (B, C, H, W)."""
    return values.reshape(-1, 1, 1)


def two_axes(values: Tensor, x: Tensor) -> Tensor:
    """(B, 1): lined up with the rows of images (B, C, H, W)."""
    return values.reshape(-1, 1)


def first_of_batch(t: int | Tensor) -> int | Tensor:
    """One t for everybody."""
    return t if isinstance(t, int) else t[0]


def and_broadcasting(mistakes: list[Mistake]) -> list[Mistake]:
    """The mistakes, and each mistake in the weights together with each way to broadcast them wrongly.

    A student who has not met t of shape (B,) yet makes both at once, and hears of both.
    """
    named = {mistake.id: mistake for mistake in mistakes}
    shapes = {"broadcast_width": raw, "broadcast_channels": three_axes}
    alone = {"broadcast_width", "broadcast_rows", "broadcast_channels", "images_only", "one_t_for_all"}
    pairs = [
        Mistake(
            f"{mistake.id} and {shape}",
            f"{mistake.says}\n{named[shape].says}",
            *(variant.broadcast_by(column) for variant in mistake.variants if hasattr(variant, "broadcast_by")),
            whole=True,
        )
        for mistake in mistakes
        if mistake.id not in alone
        for shape, column in shapes.items()
    ]
    return mistakes + [pair for pair in pairs if pair.variants]


FRESH = (
    lambda x: torch.randn_like(x),
    lambda x: torch.from_numpy(np.random.randn(*x.shape)),
    lambda x: torch.rand_like(x),
)


def step_mistakes(right: Callable[[Entries], tuple[Any, Any]], x: str, section: str) -> list[Mistake]:
    """The mistakes that can be made with any weights: a wrong index, wrong broadcasting, the wrong noise.

    right:    the weights of the right answer
    x:        the name of the data among the exercise's arguments
    section:  where the weights are derived
    """
    along = (
        "(B,) lines up with the {} of (B, C, H, W): reshape the weights to (B, 1, ..., 1) (lesson 02, 'Broadcasting')."
    )
    count = "t runs over 1...T and entry t of a table belongs to step t, because entry 0 stands for clean data"
    return [
        Mistake(
            "previous_entry",
            f"You read the entry before t. {count} (lesson 02, 'Counting from 1').",
            weighted(right, shift=-1),
        ),
        Mistake(
            "next_entry",
            f"You read the entry after t. {count} (lesson 02, 'Counting from 1').",
            weighted(right, shift=1),
        ),
        Mistake(
            "broadcast_width",
            f"The weights run along the width of the images, one a column, not one an image: {along.format('columns')}",
            weighted(right, column=raw),
        ),
        Mistake(
            "broadcast_rows",
            f"The weights run along the height of the images, one a row, not one an image: {along.format('rows')}",
            weighted(right, column=two_axes),
        ),
        Mistake(
            "broadcast_channels",
            f"The weights run over the channels, one a channel, not one an image: {along.format('channels')}",
            weighted(right, column=three_axes),
        ),
        Mistake(
            "images_only",
            f"Right for images. Other data has fewer axes: reshape the weights to as many axes as `{x}` has, "
            "(B, 1, ..., 1), and let an int t through (lesson 02, 'Broadcasting').",
            weighted(right, column=four_axes),
            weighted(right, column=four_axes_by_index),
            weighted(right, column=four_axes_by_einops),
        ),
        Mistake(
            "one_t_for_all",
            "You use the first t of the batch for every image. Each has its own (lesson 02, 'Broadcasting').",
            weighted(right, pick=first_of_batch),
        ),
        Mistake(
            "fresh_noise",
            "You draw noise of your own. Use the `noise` you are given: the loss will need to know it, "
            f"and so does this check ({section}).",
            *(weighted(right, draw=draw) for draw in FRESH),
        ),
    ]
