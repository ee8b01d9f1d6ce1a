"""The judge of exercise 12.6: what a weighting of t makes of a small network, in bits and in distance, exactly.

The data are the mixture of two peaks (toy.bimodal). The network has twelve hidden units that are the same for all t, so
that it cannot be right everywhere; what it learns are the weights of its last layer, which the weighted squared error
determines. Sums over a grid stand for all draws of x_t, so nothing is random and nothing is trained.
"""

import math
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..diffusion import last_variance
from ..schedules import Schedule, cosine_schedule
from ..times import spaced_timesteps
from ..toy import bimodal, transport_1d
from .records import Aim, Case

MORE, MOST_DISTANCE = 1.2, 0.17  # times the least bits; from the data
STEPS = 20  # of DDIM
LENGTHS = 100, 60
HIDDEN = (  # of each unit: how much x, the angle and 1 count in it
    (2.41, -1.73, -0.39),
    (0.52, 0.6, 0.15),
    (0.27, 0.84, -1.18),
    (-1.84, -0.16, 0.53),
    (0.14, 1.85, -1.45),
    (-4.1, 1.63, -0.63),
    (1.01, 0.99, 0.15),
    (3.03, -0.33, -0.25),
    (-4.31, -1.36, 0.45),
    (2.93, -2.12, 0.01),
    (1.57, 1.5, 1.34),
    (3.71, 0.48, 1.46),
)


def hidden(x: Tensor, angle: Tensor | float) -> Tensor:
    """(..., 14): the twelve units, x itself and 1, at points x and at the angle whose cosine is sqrt(alpha_bar)."""
    rows = torch.tensor(HIDDEN, dtype=torch.float64, device="cpu")
    x, angle = torch.broadcast_tensors(x, torch.as_tensor(angle, dtype=torch.float64, device="cpu"))
    on_x, on_angle, shift = rows.T
    units = torch.tanh(on_x * x[..., None] + on_angle * (angle[..., None] - 0.8) + shift)
    return torch.cat([units, x[..., None], torch.ones_like(x)[..., None]], -1)


class Trade:
    """What weightings of one schedule share: what is to be learned at each t, what it counts, where DDIM should end."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.mixture, T = schedule, bimodal(torch.float64), schedule.T
        alpha_bar, snr = schedule.alpha_bar, schedule.snr
        self.angle = torch.acos(alpha_bar.sqrt())
        x = torch.linspace(-4.5, 4.5, 301, dtype=torch.float64, device="cpu")
        squares, products, sizes = [], [], []
        for t in range(1, T + 1):
            share = self.mixture.noised(schedule, t).log_prob(x[:, None]).softmax(0)  # of the draws of x_t
            v, units = self.exact_v(x, t), hidden(x, self.angle[t])
            squares.append(units.T @ (share[:, None] * units))
            products.append(units.T @ (share * v))
            sizes.append((share * v**2).sum())
        self.squares, self.products, self.sizes = map(torch.stack, (squares, products, sizes))
        on_x0 = torch.cat([snr.new_tensor([1 / (2 * last_variance(schedule))]), (snr[1:-1] - snr[2:]) / 2])
        self.counts = on_x0 * (1 - alpha_bar[1:]) / math.log(2)  # of an error of v, in bits
        self.times = spaced_timesteps(T, STEPS)
        ranks = (torch.arange(200, dtype=torch.float64, device="cpu") + 0.5) / 200
        self.start = torch.special.ndtri(ranks)
        self.ends = transport_1d(self.mixture, schedule, self.start, T, 0)

    def exact_v(self, x: Tensor, t: int) -> Tensor:
        """The expected v at points x (N,)."""
        signal, sigma = self.schedule.alpha_bar[t].sqrt(), (1 - self.schedule.alpha_bar[t]).sqrt()
        return (signal * x - self.mixture.expected_x0(self.schedule, x[:, None], t)[:, 0]) / sigma

    def trained(self, weighting: Tensor) -> Tensor:
        """(14,) the weights of the last layer with which the weighted squared error is least."""
        shares = weighting[1:] / weighting[1:].max()
        squares = torch.einsum("t,tij->ij", shares, self.squares)
        little = 1e-8 * squares.diagonal().mean() * torch.eye(len(squares), dtype=torch.float64, device="cpu")
        return torch.linalg.solve(squares + little, shares @ self.products)

    def bits(self, last: Tensor) -> Tensor:
        """(T,) what each term of the bound costs more than with the exact network."""
        errors = torch.einsum("tij,i,j->t", self.squares, last, last) - 2 * self.products @ last + self.sizes
        return self.counts * errors

    def distance(self, last: Tensor, exact: tuple[int, int] = (0, 0)) -> float:
        """How far the samples of DDIM end from the data: the root of the mean square over 200 starts, both sorted.

        exact: the first and last t of those where the exact network stands in
        """
        alpha_bar, x = self.schedule.alpha_bar, self.start
        for t, s in pairwise(self.times):
            v = self.exact_v(x, t) if exact[0] <= t <= exact[1] else hidden(x, self.angle[t]) @ last
            signal, sigma = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
            x0, noise = signal * x - sigma * v, sigma * x + signal * v
            x = alpha_bar[s].sqrt() * x0 + (1 - alpha_bar[s]).sqrt() * noise
        return (x.sort().values - self.ends).square().mean().sqrt().item()


@cache
def trade(T: int) -> Trade:
    return Trade(cosine_schedule(T))


@cache
def _measured(T: int, weighting: tuple[float, ...]) -> tuple[Tensor, float, float]:
    judge = trade(T)
    last = judge.trained(torch.tensor(weighting, dtype=torch.float64, device="cpu"))
    return last, judge.bits(last).sum().item(), judge.distance(last)


def measured(weighting: Tensor, T: int) -> tuple[Tensor, float, float]:
    """The trained last layer, what it costs in bits more than the exact network, and its distance."""
    return _measured(T, tuple(weighting.detach().cpu().tolist()))


def allowed(T: int) -> float:
    """So many bits, a fifth more than the least: an error weighted as the bound weighs it is the bound."""
    counts = trade(T).counts
    return MORE * measured(torch.cat([counts.new_zeros(1), counts]), T)[1]


def trade_cases() -> list[Case]:
    return [Case(f"T = {T}", (cosine_schedule, T)) for T in LENGTHS]


def is_weighting(value: Any, case: Case) -> bool:
    """Is it a table of float64, one finite number for each t from 0?"""
    kind = isinstance(value, Tensor) and value.dtype == torch.float64
    return kind and value.shape == (case.args[1] + 1,) and bool(value.isfinite().all())


def fault(value: Tensor, case: Case) -> str | None:
    """The id of the first thing that is wrong with a weighting, None if nothing is."""
    _, T = case.args
    if bool((value < 0).any()):
        return "below_zero"
    if not value[1:].any():
        return "nothing_counts"
    _, bits, distance = measured(value, T)
    missed = (not bits <= allowed(T), not distance <= MOST_DISTANCE)
    return {(True, True): "both_missed", (True, False): "bits_missed", (False, True): "distance_missed"}.get(missed)


def score(value: Tensor, case: Case) -> str | None:
    """Bits and distance, and which t most of what is missed comes from."""
    if fault(value, case) in ("below_zero", "nothing_counts"):
        return None
    _, T = case.args
    judge, (last, bits, distance) = trade(T), measured(value, T)
    text = [
        f"For T = {T} your network costs {bits:.3f} bits more than the exact one ({allowed(T):.3f} are allowed), and "
        f"{STEPS} steps of DDIM end {distance:.3f} from the data ({MOST_DISTANCE:.3f} is allowed)."
    ]
    if not bits <= allowed(T):
        early = judge.bits(last)[: T // 5].sum().item()
        lost, where = (early, f"up to {T // 5}") if early > bits / 2 else (bits - early, f"above {T // 5}")
        text.append(f"{lost:.2f} of the bits are lost at t {where}: count those more.")
    if not distance <= MOST_DISTANCE:
        halves = {f"up to {T // 2}": (1, T // 2), f"above {T // 2}": (T // 2 + 1, T)}
        left = {where: judge.distance(last, exact) for where, exact in halves.items()}
        where = min(left, key=left.get)
        text.append(f"With the exact network at t {where} it would be {left[where]:.3f}: count those more.")
    return " ".join(text)


TRADE = Aim(is_weighting, fault, score)
