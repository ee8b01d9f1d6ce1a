"""Fixed inputs for the exercises of lesson 11, and what makes a field of arrows a score (11.3)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import IMAGES, normal, on_gpu, step_cases
from .records import Aim, Case

# ---- 11.1 and 11.7


def noise_cases() -> list[Case]:
    """Those of a step of the closed form, without x_t."""
    return [replace(case, args=(case.args[0], case.args[2], case.args[3])) for case in step_cases(first=1)]


def difference_cases() -> list[Case]:
    return step_cases(first=1)


# ---- 11.2


def bell(x: Tensor) -> Tensor:
    """The score of N(0.2, 0.7)."""
    return (0.2 - x) / 0.7


def two_bells(x: Tensor) -> Tensor:
    """The score of two Gaussians of variance 1/4, around -1 and 1 in every coordinate."""
    return 4 * (torch.tanh(4 * x) - x)


def well(x: Tensor) -> Tensor:
    """The score of a density with flanks that are steeper than a Gaussian's."""
    return 0.3 - x**3


def shape_facts(shape: tuple[int, ...]) -> dict[str, bool]:
    images = len(shape) == 4
    return {
        "for images": images,
        "for data that is not images": not images,
        "for data of shape (B,)": len(shape) == 1,
        "for a batch of one": shape[0] == 1,
        "where the batch has as many images as an image has columns": images and shape[0] == shape[3],
    }


def langevin_cases() -> list[Case]:
    plan = [
        *((bell, IMAGES, 0.1), (two_bells, (7, 2), 0.02), (well, (6,), 0.05), (two_bells, IMAGES, 0.3)),
        *((bell, (5, 1), 0.4), (well, (1, 3, 2, 2), 0.01), (two_bells, (4, 1, 3, 4), 0.15), (bell, (2, 3, 4), 0.7)),
    ]
    cases = []
    for seed, (score, shape, step) in enumerate(plan):
        facts = shape_facts(shape) | {
            "for a density with two peaks": score is two_bells,
            "for steps above 0.2": step > 0.2,
            "for steps below 0.1": step < 0.1,
        }
        args = (score, normal(shape, 500 + 2 * seed), step, normal(shape, 501 + 2 * seed))
        cases.append(Case(f"{score.__name__}, x {shape}, step {step}", args, facts))
    return cases


# ---- 11.4 and 11.5


def reverse_cases() -> list[Case]:
    plan = [
        (IMAGES, 0.7, 0.05),
        (IMAGES, 12.5, 0.01),
        ((6,), 3.0, 0.1),
        ((4, 2), 0.2, 0.3),
        ((1, 3, 2, 2), 19.0, 0.002),
    ]
    plan += [((3, 2, 4, 5), (0.4, 6.0, 17.0), 0.02), ((4, 1, 3, 4), (9.0, 0.3, 2.0, 5.0), 0.04)]
    plan += [((2, 3), (8.0, 1.5), 0.06), ((5,), (0.2, 4.0, 11.0, 0.6, 2.5), 0.01)]
    cases = []
    for seed, (shape, beta, dt) in enumerate(plan):
        many = isinstance(beta, tuple)
        rate = torch.tensor(beta, device="cpu").reshape((-1,) + (1,) * (len(shape) - 1)) if many else beta
        facts = shape_facts(shape) | {
            "for a number beta": not many,
            "where beta differs from item to item": many,
            "where beta is below 1": rate < 1,
            "where beta is above 1": rate > 1,
        }
        x, score, z = (normal(shape, 600 + 3 * seed + i) for i in range(3))
        label = f"x {shape}, beta {list(beta) if many else beta}, dt {dt}"
        cases.append(Case(label, (x, score, rate, dt, z), facts))
    return cases + on_gpu(cases[0])


def drift_cases() -> list[Case]:
    cases = [replace(case, args=case.args[:3], label=case.label.partition(", dt")[0]) for case in reverse_cases()]
    return [replace(case, label=f"{case.label}, on a GPU") if case.gpu else case for case in cases]


# ---- 11.6


def turning(x: Tensor) -> Tensor:
    """A map in which every number depends on its neighbour, and on itself."""
    return torch.sin(2 * x) + 0.5 * x.roll(1, -1) * x + 0.3 * x.roll(-1, -1)


def spreading(x: Tensor) -> Tensor:
    """A map in which every number depends on all others of the same item."""
    total = x.square().reshape(len(x), -1).sum(1).reshape((-1,) + (1,) * (x.ndim - 1))
    return x * (1 + 0.4 * total)


def doubling(x: Tensor) -> Tensor:
    return 2 * x + 0.5


def squaring(x: Tensor) -> Tensor:
    """A map with a diagonal Jacobian, whose entries are negative too."""
    return 0.7 * x * x - x.mean(tuple(range(1, x.ndim)), keepdim=True)


def map_cases() -> list[Case]:
    plan = [
        *(
            (turning, (7, 3)),
            (spreading, (5, 2)),
            (squaring, (4, 1, 2, 3)),
            (doubling, (3, 3)),
            (turning, (2, 2, 3, 3)),
        ),
        *((spreading, (1, 4)), (squaring, (6, 5)), (spreading, (4, 1, 2, 2)), (doubling, (6, 1))),
    ]
    cases = []
    for seed, (f, shape) in enumerate(plan):
        facts = shape_facts(shape) | {
            "where f_i depends on other x_j": f in (turning, spreading),
            "where f_i depends on x_i alone": f is doubling,
            "where the divergence is the same everywhere": f is doubling,
            "in one dimension": len(shape) == 2 and shape[1] == 1,
            "in more than four dimensions": normal(shape, 0)[0].numel() > 4,
        }
        cases.append(Case(f"{f.__name__}, x {shape}", (f, normal(shape, 700 + seed)), facts))
    return cases


# ---- 11.8


class Breeze(nn.Module):
    """A network of three weights, smooth in x and particular about u."""

    def __init__(self):
        super().__init__()
        weights = torch.tensor([0.6, -0.4, 0.3], device="cpu", dtype=torch.float32)
        self.on_x, self.on_wave, self.bias = (nn.Parameter(w.clone()) for w in weights)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        if not isinstance(u, Tensor) or u.shape != x.shape[:1]:
            got = tuple(u.shape) if isinstance(u, Tensor) else f"the {type(u).__name__} {u}"
            raise ValueError(f"u must have shape ({len(x)},) to match x's batch of {len(x)}, got {got}")
        phase = (3 * u).reshape((-1,) + (1,) * (x.ndim - 1))
        return self.on_x * x + self.on_wave * torch.sin(phase + 2 * x) + self.bias * phase


def flow_cases() -> list[Case]:
    plan = [(IMAGES, (0.2, 0.7, 0.5)), ((6, 2), (0.1, 0.9, 0.35, 0.6, 0.02, 0.8)), ((5,), (0.3, 0.8, 0.55, 0.1, 0.97))]
    plan += [((4, 1, 3, 4), (0.15, 0.4, 0.85, 0.65)), ((3, 3, 4, 5), (0.75, 0.25, 0.45)), ((1, 2, 3), (0.3,))]
    plan += [((2, 2), (0.05, 0.95)), ((4, 1, 4, 2), (0.33, 0.12, 0.71, 0.9))]
    cases = []
    for seed, (shape, times) in enumerate(plan):
        facts = shape_facts(shape) | {
            "for more than one item": shape[0] > 1,
            "where the batch has as many images as an image has rows": len(shape) == 4 and shape[0] == shape[2],
            "where the batch has as many images as an image has channels": len(shape) == 4 and shape[0] == shape[1],
        }
        u = torch.tensor(times, device="cpu", dtype=torch.float32)
        args = (Breeze(), normal(shape, 800 + 2 * seed), normal(shape, 801 + 2 * seed), u)
        cases.append(Case(f"x0 {shape}, u {list(times)}", args, facts))
    return cases


# ---- 11.3: no single right answer

SIDE, REACH = 121, 3.0  # of the grid, in points and from the middle
WITHIN, MOST_OUTSIDE, FEWEST = 2.0, 0.1, 3  # the square, the share of the mass outside, the number of peaks
TINY, STEEPEST = 1e-4, 200.0  # of the loops; of the arrows' change over a unit of length, that the grid can follow


def field_cases() -> list[Case]:
    """A grid, on which arrows are added up; corners of small loops; and points far out. All are scaled together."""
    line = torch.linspace(-REACH, REACH, SIDE, dtype=torch.float64, device="cpu")
    grid = torch.cartesian_prod(line, line)
    middles = 2.2 * torch.tanh(normal((900, 2), 900).double())
    shifts = TINY * torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64, device="cpu")
    loops = (middles + shifts[:, None]).reshape(-1, 2)
    angle = torch.linspace(0, 2 * torch.pi, 97, dtype=torch.float64, device="cpu")[:-1]
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    points = {"on a grid": grid, "around small loops": loops, "far out": torch.cat([6 * ring, 12 * ring])}
    return [Case(f"points {where}", (x,), use=each_by_itself) for where, x in points.items()]


def each_by_itself(function: Callable, x: Tensor) -> Any:
    """The arrows at x; two answers one above the other, where half of the points alone have other arrows."""
    half = x[::2].flip(0)
    arrows = function(x)
    if not isinstance(arrows, Tensor) or arrows.shape != x.shape:
        return arrows
    again = function(half).flip(0)
    alone = torch.zeros_like(arrows)
    alone[::2] = again
    same = torch.isclose(again.double(), arrows[::2].double(), rtol=1e-3, atol=1e-6, equal_nan=True).all(1)
    # but for a few points: the direction of an arrow that is 0 up to rounding may be any
    return arrows if same.double().mean() > 0.98 else torch.stack([arrows, alone])


def is_field(arrows: Any, case: Case) -> bool:
    (x,) = case.args
    shapes = (x.shape, (2, *x.shape))
    kind = isinstance(arrows, Tensor) and arrows.dtype == torch.float64 and arrows.shape in shapes
    return kind and bool(arrows.isfinite().all())


def log_density(arrows: Tensor, spacing: float) -> Tensor:
    """(n, n) what arrows (n, n, 2) on a grid add up to from its middle outwards, once along each of two ways.

    spacing: of the grid; the result is the log of a density that adds up to 1 on it
    """
    across, up = arrows.unbind(2)

    def along(values: Tensor, axis: int) -> Tensor:
        values = values.movedim(axis, 0)
        steps = (values[1:] + values[:-1]) * spacing / 2
        sums = torch.cat([torch.zeros_like(values[:1]), steps.cumsum(0)])
        return (sums - sums[len(sums) // 2]).movedim(0, axis)

    middle = len(arrows) // 2
    first_across = along(across, 0)[:, middle : middle + 1] + along(up, 1)
    first_up = along(up, 1)[middle : middle + 1] + along(across, 0)
    total = (first_across + first_up) / 2
    return total - total.flatten().logsumexp(0) - 2 * torch.log(torch.tensor(spacing, dtype=torch.float64))


def measures(arrows: Tensor, x: Tensor) -> tuple[int, float]:
    """How many peaks the density has that are at least a twentieth of the highest, and its share outside the square."""
    spacing = (x[1] - x[0])[1].item()
    density = log_density(arrows.detach().reshape(SIDE, SIDE, 2), spacing).exp()
    around = F.max_pool2d(density[None, None], 3, 1, 1)[0, 0]
    peaks = (density == around) & (density > density.max() / 20)
    peaks[[0, -1]], peaks[:, [0, -1]] = False, False
    outside = (x.abs().amax(1) > WITHIN).reshape(SIDE, SIDE)
    return int(peaks.sum()), (density[outside].sum() * spacing**2).item()


def fault(arrows: Tensor, case: Case) -> str | None:
    """The id of the first thing that is wrong with a field, None if nothing is."""
    (x,) = case.args
    if arrows.ndim == 3:
        return "depends_on_the_others"
    arrows = arrows.detach()
    if "loops" in case.label:
        right, left, above, below = arrows.reshape(4, -1, 2)
        points = x.reshape(4, -1, 2)
        twice = (points[0] - points[1])[:, :1]
        by_x, by_y = (right - left) / twice, (above - below) / twice
        curl, size = by_x[:, 1] - by_y[:, 0], by_x.abs().amax(1) + by_y.abs().amax(1)
        if (curl.abs() > 1e-3 * (1 + size)).double().mean() > 0.01:
            return "turns"
        return "too_narrow" if by_x[:, 0].abs().median() > STEEPEST else None
    if "far" in case.label:
        outwards = (arrows * x).sum(1)  # the component away from the middle, times the distance
        if (outwards > 1e-3).double().mean() > 0.55:
            return "outwards"
        return "too_short" if outwards.max() > -2 else None
    peaks, outside = measures(arrows, x)
    return "off_the_map" if outside > MOST_OUTSIDE else "too_few_peaks" if peaks < FEWEST else None


def score(arrows: Tensor, case: Case) -> str | None:
    """What the density of a field is like, for one that is a score as far as the grid tells."""
    if "grid" not in case.label or fault(arrows, case) not in ("off_the_map", "too_few_peaks", None):
        return None
    peaks, outside = measures(arrows, case.args[0])
    number = f"{peaks} peak{'s' * (peaks != 1)}"
    return (
        f"The arrows on the grid add up to a density with {number} ({FEWEST} at least are asked) and "
        f"{1 - outside:.0%} of it in the square from -2 to 2 ({1 - MOST_OUTSIDE:.0%} are asked)."
    )


FIELD = Aim(is_field, fault, score)
