"""Fixed inputs of lesson 07: weights to average, batches in parts, half precision, trainings that stop."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .cases import normal
from .cases05 import floats, number, weights
from .records import Case


def decay_cases() -> list[Case]:
    plan = [(1, 100.0), (2, 100.0), (9, 100.0), (40, 100.0), (500, 100.0), (3000, 100.0), (1, 3.0), (60, 3.0)]
    plan += [(7, 12.5), (200, 1.5), (500, 6931.0), (100_000, 6931.0), (1000,), (200_000,), (30, 25.0), (900, 25.0)]
    cases = []
    for n, *half_life in plan:
        warming = (1 + n) / (10 + n) < 0.5 ** (1 / (half_life or [6931])[0])
        facts = {
            "for the first update": n == 1,
            "early, while the average is still short": warming,
            "later on, when the half-life counts": not warming,
            "for a half-life below 20": half_life != [] and half_life[0] < 20,
            "where no half-life is named": not half_life,
        }
        label = f"n = {n:,}" + (f", half_life = {half_life[0]:g}" if half_life else "")
        cases.append(Case(label, (n, *half_life), facts))
    return cases


def kind_of(tensor: Tensor) -> str:
    if not tensor.is_floating_point():
        return "counter"
    return "averaged matrix" if tensor.ndim == 2 else "averaged vector"


def by_kind(args: tuple, value: Any) -> Any:
    """The tensors of a list by what they are; a whole number may come back in any integer type."""
    if not isinstance(value, list | tuple) or len(value) != len(args[0]):
        return value
    return {kind_of(old): new for old, new in zip(args[0], value, strict=True)}


def of_parameters(function: Callable, average: list, weights: list, decay: float) -> Any:
    """The weights as a network has them, which ask for gradients."""
    return function(average, [nn.Parameter(w) if w.is_floating_point() else w for w in weights], decay)


def update_cases() -> list[Case]:
    plan = [("float32", 0.9, False), ("float32", 0.35, False), ("float32", 0.0, False), ("float32", 0.6, True)]
    plan += [("float64", 0.8, False), ("bfloat16", 0.998, False)]
    cases = []
    for seed, (dtype, decay, trained) in enumerate(plan):
        kind = getattr(torch, dtype)
        matrix, vector = normal((3, 4), 700 + 4 * seed), normal((5,), 701 + 4 * seed)
        average = [matrix, torch.tensor(40 + seed, device="cpu"), vector]
        now = [normal((3, 4), 702 + 4 * seed), torch.tensor(91 + 2 * seed, device="cpu"), normal((5,), 703 + 4 * seed)]
        now = [w.to(kind) if w.is_floating_point() else w for w in now]
        if kind is torch.float64:
            average = [a.double() if a.is_floating_point() else a for a in average]
        facts = {
            "for a decay of 0": decay == 0,
            "for the parameters of a network": trained,
            "for weights in bfloat16": kind is torch.bfloat16,
            "for an average in float64": kind is torch.float64,
        }
        label = f"decay = {decay:g}, weights in {dtype}" + ", parameters" * trained
        cases.append(Case(label, (average, now, decay), facts, result=by_kind, use=of_parameters if trained else None))
    return cases


def rate_cases() -> list[Case]:
    plan = [(0, 400, 0.5), (1, 400, 0.5), (25, 400, 0.8), (49, 400, 0.5), (50, 400, 0.5), (51, 400, 0.5)]
    plan += [(137, 400, 0.8), (225, 400, 0.5), (313, 400, 0.5), (399, 400, 0.5), (400, 400, 0.8), (450, 400, 0.5)]
    plan += [(790, 400, 0.5), (0, 90, 2.0, 10), (9, 90, 0.5, 10), (10, 90, 2.0, 10), (30, 90, 0.5, 10)]
    plan += [(89, 90, 2.0, 10), (3, 8, 1.5, 20), (8, 8, 1.5, 20), (9, 8, 1.5, 20)]
    plan += [(19, 20, 1.5, 20), (0, 5, 1.5, 1), (3, 5, 1.5, 1)]
    cases = []
    for step, steps, peak, *warmup in plan:
        rise = (warmup or [50])[0]
        facts = {
            "while the rate rises": step < rise,
            "at step 0": step == 0,
            "after the rise": rise <= step < steps,
            "at the end of the plan and beyond": step >= steps > rise,
            "beyond the end of the plan": step > steps,
            "for plans that end before the rise does": steps <= rise,
            "for a peak that is not 1/2": peak != 0.5,
            "where a warmup is named": warmup != [],
        }
        label = f"step {step} of {steps}, peak {peak:g}" + (f", warmup {rise}" if warmup else "")
        cases.append(Case(label, (step, steps, peak, *warmup), facts))
    return cases


class Roomy(nn.Module):
    """A network with two layers of weights, and room for a few items at a time."""

    def __init__(self, room: int, size: float):
        super().__init__()
        self.room = room
        self.scale = nn.Parameter(size * torch.tensor([0.9, -0.7, 0.4], device="cpu"))
        self.shift = nn.Parameter(size * torch.tensor([0.3, -0.2], device="cpu"))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if len(x) > self.room:
            raise MemoryError(f"this network has room for {self.room} items at a time, and is given {len(x)}")
        if len(x) != len(t):
            raise ValueError(f"{len(x)} items and {len(t)} steps t")
        late = (t.to(x.dtype) / 5).reshape(-1, *[1] * (x.ndim - 1))
        a, b, c = self.scale
        d, e = self.shift
        return (a * x + b * late * x + c * x.abs() + d + e * late) * (1.0 if self.training else 0.5)


def second_batch(function: Callable, net: nn.Module, xt: Tensor, t: Tensor, noise: Tensor, *more: Any) -> Any:
    """What a call leaves behind when the network has had another batch before."""
    if function(net, xt.flip(0) + 1, t, noise, *more) is None or (value := function(net, xt, t, noise, *more)) is None:
        return None
    gradient = torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()])
    return {"loss": number(value), "gradient": gradient.clone()}


def part_cases() -> list[Case]:
    plan = [((10, 1, 2, 3), 4, ()), ((7, 3), 3, ()), ((8, 1, 2, 2), 4, ()), ((5, 4), 8, ()), ((9, 2), 2, (0.2,))]
    plan += [((11, 1, 3, 2), 5, (50.0,)), ((4, 2), 3, (50.0,)), ((6, 3), 4, (1000.0,))]
    cases = []
    for seed, (shape, size, most) in enumerate(plan):
        generator = torch.Generator(device="cpu").manual_seed(seed)
        t = torch.randint(1, 9, shape[:1], generator=generator, device="cpu")
        # items that grow along the batch: each part has another mean
        growing = torch.linspace(0.3, 2.5, shape[0], device="cpu").reshape(-1, *[1] * (len(shape) - 1))
        xt, noise = growing * normal(shape, 720 + seed), growing * normal(shape, 740 + seed)
        facts = {
            "where the last part is smaller": shape[0] % size > 0 and shape[0] > size,
            "where all parts are equal": shape[0] % size == 0,
            "where one part holds the whole batch": shape[0] <= size,
            "where nothing has to be clipped": most in ((50.0,), (1000.0,)),
            "where a largest norm is named": most != (),
        }
        label = f"a batch of shape {shape} in parts of {size}" + (f", most = {most[0]:g}" if most else "")
        args = (Roomy(size, 0.3 + 0.2 * seed), xt, t, noise, size, *most)
        cases.append(Case(label, args, facts, use=second_batch))
    return cases


class InHalf(nn.Module):
    """A network of five weights whose products are taken in float16, which ends at 65,504."""

    def __init__(self):
        super().__init__()
        self.left = nn.Parameter(torch.tensor([0.5, -0.25], device="cpu"))
        self.right = nn.Parameter(torch.tensor([0.125, 0.75], device="cpu"))
        self.shift = nn.Parameter(torch.tensor(0.25, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        left = x[:, :1].half() * self.left.half()  # (B, 2)
        right = x[:, 1:].half() * self.right.half()
        return left.float() + right.float() + self.shift


BEYOND = 1e9  # stands for NaN in a batch: a NaN there would differ from itself, and look as if it had been changed


def scaled_steps(
    function: Callable, net: nn.Module, optimizer: Any, batches: list, scale: float, good: int, *interval: int
) -> Any:
    """Several steps one after the other, each with the scale that the one before returned."""
    scales, counts, states = [], [], []
    for x in batches:
        x = torch.where(x.abs() < BEYOND, x, torch.nan)
        loss = (net(x) - 1).square().mean()
        value = function(net, optimizer, loss, scale, good, *interval)
        if not isinstance(value, tuple | list) or len(value) != 2:
            return value
        scale, good = (number(v) for v in value)
        scales.append(scale)
        counts.append(good)
        states.append(weights(net))
    return {"list of scales": scales, "list of counts": counts, "row of weights after each step": torch.stack(states)}


def scaled_cases() -> list[Case]:
    """Batches of small numbers have small gradients; where one side is large, its gradient overflows.

    A huge one makes the loss itself inf, and one holds NaN.
    """
    sgd, adam = torch.optim.SGD, torch.optim.Adam
    small, left, right, huge, broken = (0.5, 0.5), (40.0, 0.5), (0.5, 40.0), (0.5, 1e6), (0.5, 1e13)
    plan = [
        (sgd, [small] * 4, 256.0, 0, ()),
        (sgd, [small, (4.0, 2.0), small, (3.0, 6.0)], 1024.0, 0, (3,)),
        (sgd, [small, small, left, small, small, small], 2.0**15, 0, (3,)),
        (sgd, [right, huge, small], 2.0**12, 5, (9,)),
        (adam, [small, small, small, right, small, small], 2.0**14, 0, (2,)),
        (adam, [small, broken, small, small], 512.0, 1, (3,)),
        (sgd, [small] * 7, 8.0, 1, (2,)),
        (sgd, [small, small], 128.0, 1999, ()),
    ]
    cases = []
    for seed, (kind, sizes, scale, good, interval) in enumerate(plan):
        net = InHalf()
        optimizer = kind(net.parameters(), lr=0.1)
        batches = [floats(*size) * normal((6, 2), 760 + 10 * seed + i) for i, size in enumerate(sizes)]
        if seed == 3:  # of one sign, so that what overflows adds up to inf; of two it may be inf - inf, a NaN
            batches = [x.abs() for x in batches]
        facts = {
            "where a gradient overflows": seed in (2, 3, 4),
            "where a gradient is NaN": seed == 5,
            "where every gradient is finite": seed not in (2, 3, 4, 5),
            "with Adam": kind is adam,
            "where the scale grows": seed in (1, 4, 6, 7),
            "where no interval is named": not interval,
        }
        label = f"{len(sizes)} steps from a scale of {scale:g}, {kind.__name__}"
        label += f", interval = {interval[0]}" if interval else ""
        args = (net, optimizer, batches, scale, good, *interval)
        cases.append(Case(label, args, facts, may_change=("net", "optimizer"), use=scaled_steps))
    return cases


PLAIN = (bool, int, float, str, type(None))


def refuse_objects(name: str, value: Any) -> None:
    """Raise TypeError for what a file could not hold, or not without running code when it is read."""
    if isinstance(value, dict):
        for inside in value.values():
            refuse_objects(name, inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            refuse_objects(name, inside)
    elif not isinstance(value, (Tensor, *PLAIN)):
        kind = type(value).__name__
        raise TypeError(
            f"under `{name}` there is a {kind}, an object. Reading it from a file would run code: save its state"
        )


def resumed(function: Callable, images: Tensor, begin: Callable, before: int, after: int) -> Any:
    """What a training does that ends, and goes on elsewhere from the file that held its state."""
    run = begin(images, 12)
    for _ in range(before):
        run.take_step()
    if (state := function(run)) is None:
        return None
    if not isinstance(state, dict):
        raise TypeError(f"a {type(state).__name__} has no names: return a dict, {{name of an attribute: its state}}")
    for name, value in state.items():
        refuse_objects(name, value)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    torch.rand(11, device="cpu")  # another process: its random numbers are not where these were
    other = begin(images, 20)  # a slower or faster machine, which would plan anew
    other.load(torch.load(file, weights_only=True))
    losses = [other.take_step() for _ in range(after)]

    def is_images(value: Any) -> bool:
        return isinstance(value, Tensor) and value.shape == images.shape and torch.equal(value, images)

    return {
        "list of losses": losses,
        "set of weights": weights(other.net),
        "set of averaged weights": weights(other.average),
        "learning rate": other.optimizer.param_groups[0]["lr"],
        "number of steps": other.step,
        "number of pictures in the file": len(images) * any(is_images(value) for value in state.values()),
    }


def resume_cases(begin: Callable) -> list[Case]:
    cases = []
    for seed, (before, after) in enumerate([(2, 2), (5, 2)]):
        images = normal((10, 3), 800 + seed).clamp(-1, 1)
        use = partial(resumed, begin=begin, before=before, after=after)
        cases.append(Case(f"stopped after {before} steps, resumed for {after}", (images,), use=use))
    return cases
