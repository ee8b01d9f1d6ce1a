"""Fixed inputs of lesson 05: of the decoder, and of trainings: a tiny network, its optimizers, and what is compared."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .cases import EIGHT, FIVE, IMAGES, OTHER_EIGHT, normal
from .records import Betas, Case, Seed

# The paper's schedule: here 1 - ᾱ_t is so small that whatever is added to it shows.
LONG = Betas(tuple(0.0001 + 0.0199 * i / 999 for i in range(1000)))


def floats(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device="cpu")


class Tiny(nn.Module):
    """A network of four weights for data of any shape. In evaluation mode it answers differently, as dropout would."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.4, -0.3, 0.2, 0.1], device="cpu"))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) to match x's batch of {len(x)}, got {tuple(t.shape)}")
        if t.is_floating_point() or y is not None:
            raise ValueError("this network is called as net(xt, t), with whole numbers as t")
        late = (t.float() / 5).reshape(-1, *[1] * (x.ndim - 1))
        a, b, c, d = self.weights
        return (a * x + b * late * x + c * late + d) * (1.0 if self.training else 0.5)


def learner(kind: type, lr: float) -> tuple[Tiny, torch.optim.Optimizer]:
    net = Tiny()
    return net, kind(net.parameters(), lr=lr)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


def number(value: Any) -> Any:
    """A loss, whether float or tensor, on a graph or not."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def two_steps(step: Callable, net, schedule, optimizer, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
    """What two calls do: what the first one leaves behind shows in the second."""
    first = step(net, schedule, optimizer, x0, t, noise)
    after_one = weights(net)
    second = step(net, schedule, optimizer, -x0, t, noise.flip(0))
    if first is None or second is None:
        return None
    return {
        "loss": number(first),
        "set of weights after a step": after_one,
        "loss of a second step": number(second),
        "set of weights after a second step": weights(net),
    }


def training_cases() -> list[Case]:
    sgd, adam = torch.optim.SGD, torch.optim.Adam
    plan = [(sgd, 0.1, IMAGES, (8, 1, 5), EIGHT), (sgd, 0.2, (6, 2), (2, 7, 1, 4, 8, 3), OTHER_EIGHT)]
    plan += [(adam, 0.05, (4, 1, 2, 3), (3, 5, 1, 2), FIVE), (sgd, 0.1, (1, 3, 3, 2), (6,), EIGHT)]
    cases = []
    for seed, (kind, lr, shape, t, betas) in enumerate(plan):
        net, optimizer = learner(kind, lr)
        args = (
            net,
            betas,
            optimizer,
            normal(shape, 70 + seed),
            torch.tensor(t, device="cpu"),
            normal(shape, 80 + seed),
        )
        label = f"x_0 of shape {shape}, {kind.__name__}"
        facts = {
            "for images": len(shape) == 4,
            "with Adam": kind is torch.optim.Adam,
            "for a learning rate that is not 0.1": lr != 0.1,
            "for another schedule of the same T": betas is OTHER_EIGHT,
            "for a batch of one": shape[0] == 1,
        }
        cases.append(Case(label, args, facts, may_change=("net", "optimizer"), use=two_steps))
    return cases


class Stream:
    """Batches that can be iterated over, again and again, and have neither length nor index."""

    def __init__(self, *batches: Tensor):
        self.batches = batches

    def __iter__(self):
        return (batch.clone() for batch in self.batches)

    def __eq__(self, other):
        return isinstance(other, Stream) and all(map(torch.equal, self.batches, other.batches))


def losses_and_weights(args: tuple, value: Any) -> dict[str, Any]:
    if isinstance(value, Tensor) and value.ndim == 1:
        value = list(value)
    if isinstance(value, list | tuple) and all(isinstance(v, Tensor | float | int) for v in value):
        value = [float(v) if not isinstance(v, Tensor) or v.numel() == 1 else v for v in value]
    return {"list of losses": value, "set of weights afterwards": weights(args[0])}


def loop_cases() -> list[Case]:
    plan = [
        ("nine batches of images", [(4, 1, 3, 3)] * 9, EIGHT, False),
        ("four batches of shape (5, 2)", [(5, 2)] * 4, FIVE, False),
        ("three batches, the last one smaller", [(4, 2), (4, 2), (3, 2)], OTHER_EIGHT, False),
        ("a stream of five batches", [(3, 1, 2, 2)] * 5, OTHER_EIGHT, True),
        ("six batches of images, even=True", [(4, 1, 3, 3)] * 6, EIGHT, False, True),
        ("batches of more than T, even=True", [(12, 2), (12, 2), (7, 2)], FIVE, False, True),
        ("a stream of four batches, even=True", [(3, 2)] * 4, OTHER_EIGHT, True, True),
    ]
    cases = []
    for seed, (label, shapes, betas, streams, *even) in enumerate(plan):
        net, optimizer = learner(torch.optim.SGD, 0.1)
        batches = [normal(shape, 100 + 10 * seed + i) for i, shape in enumerate(shapes)]
        facts = {
            "for batches that have no length": streams,
            "where the last batch is smaller": len(set(shapes)) > 1,
            "for a schedule with another T": betas is FIVE,
            "for another schedule of the same T": betas is OTHER_EIGHT,
            "for nine batches": len(shapes) == 9,
            "for even=True": bool(even),
            "where even is not given": not even,
        }
        args = (net, betas, optimizer, Stream(*batches) if streams else batches, Seed(seed), *even)
        cases.append(Case(label, args, facts, may_change=("net", "optimizer"), result=losses_and_weights))
    return cases


def levels(shape: tuple[int, ...], seed: int) -> Tensor:
    """Image values: 256 levels from -1 to 1, both ends and their neighbours among them."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    level = torch.randint(0, 256, shape, generator=generator, device="cpu")
    level.flatten()[:4] = torch.tensor([0, 255, 1, 254])
    return level / 127.5 - 1


def pixel_cases() -> list[Case]:
    plan = [(IMAGES, 0.05), (IMAGES, 0.15), ((3, 1, 4, 4), (0.004, 0.05, 0.2))]
    plan += [((12,), 0.2), ((4, 3), 0.1), ((5, 2), 1.0), ((3, 4), 0.02)]
    cases = []
    for seed, (shape, std) in enumerate(plan):
        x0 = levels(shape, seed)
        many, far, beyond = not isinstance(std, float), shape == (4, 3), shape == (3, 4)
        value = floats(*std).reshape(-1, *[1] * (len(shape) - 1)) if many else std
        distance = normal(shape, 30 + seed).clamp(-2, 2)  # no bin so unlikely that float32 loses its digits
        if far or std == 1:  # such bins, then, in float64
            x0, distance = x0.double(), (5 * distance.sign() if far else distance).double()
        if beyond:
            distance = 20 * distance.sign()
        inside, next_to_end = x0.abs() < 0.999, (x0.abs() - 253 / 255).abs() < 0.001
        narrow = inside & (torch.as_tensor(value, device="cpu") < 2 / 255)
        facts = {
            "where x_0 = -1": x0 < -0.999,
            "where x_0 = 1": x0 > 0.999,
            "where x_0 is -1 or 1": ~inside,
            "where x_0 is next to -1 or 1": next_to_end,
            "where std is less than a bin's width and x_0 neither -1 nor 1": narrow,
            "for std of shape (B, 1, 1, 1)": many,
            "where std is not 1": std != 1,
            "where x_0 is five standard deviations or more from the mean": far or beyond,
            "where the probability is below 1e-12": beyond,
        }
        label = f"x_0 of shape {shape}, std = {'of shape (3, 1, 1, 1)' if many else std}"
        cases.append(Case(label, (x0, x0 + value * distance, value), facts))
    return cases
