"""Noise schedules: how much noise each step of the forward process adds (lesson 03).

A schedule is data. `beta[t]` is the variance of the noise that step t adds, for t = 1…T. Everything
else follows from it: `alpha[t] = 1 - beta[t]` is the share of the variance that survives the step, and
`alpha_bar[t]` the share that is left of x_0 after t steps. Entry 0 of every table stands for clean data.
"""

import math

import torch
from torch import Tensor

from .arguments import as_tensor, number, whole

ROOTS = {
    "sqrt_beta": lambda schedule: schedule.beta,
    "sqrt_alpha": lambda schedule: schedule.alpha,
    "sqrt_alpha_bar": lambda schedule: schedule.alpha_bar,
    "sqrt_one_minus_alpha_bar": lambda schedule: 1 - schedule.alpha_bar,
}


class Schedule:
    """The forward process of Ho et al. (2020), section 2, as tables over t = 0…T.

    betas:    (T,) variances in (0, 1), the first one for t = 1
    zero_snr: the last beta may be 1 too (lesson 12): nothing of x_0 is left at T, as in the N(0, I) that sampling
              starts from. It has to be asked for: by accident, such a beta is a division by 0 later on
    raises    ValueError if betas is not a 1-D tensor of numbers strictly between 0 and 1

    The tables `beta`, `alpha`, `alpha_bar` are (T+1,) float64 on the CPU, with beta[0] = 0 and
    alpha_bar[0] = 1. What is computed from them is cast to float32 only at the end.
    """

    def __init__(self, betas: Tensor, *, zero_snr: bool = False):
        betas = as_tensor("betas", betas, torch.float64).cpu()
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"betas must have shape (T,) with T >= 1, got {tuple(betas.shape)}")
        inside = (betas > 0) & (betas < 1)
        if zero_snr:
            inside[-1] |= betas[-1] == 1
        if not bool(inside.all()):
            raise ValueError("every beta must lie strictly between 0 and 1: it is the variance one step adds")
        self.T = len(betas)
        self.beta = torch.cat([betas.new_zeros(1), betas])
        self.alpha = 1 - self.beta
        self.alpha_bar = self.alpha.cumprod(0)
        self._on_device: dict[tuple, Tensor] = {}

    def __repr__(self) -> str:
        first, last, left = self.beta[1], self.beta[-1], self.alpha_bar[-1]
        return f"Schedule(T={self.T}, beta {first:.3g} to {last:.3g}, alpha_bar_T={left:.3g})"

    @property
    def snr(self) -> Tensor:
        """(T+1,) signal-to-noise ratio alpha_bar / (1 - alpha_bar); infinite at t = 0, and 0 at T with zero_snr."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def sample_t(
        self,
        n: int,
        *,
        around: tuple[float, float] | None = None,
        uniform: float = 0.0,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(n,) training steps in 1…T, the only place where the course draws t.

        around:  None draws them uniformly (Ho et al., Algorithm 1); a mean and a deviation make log(t / (T - t)) normal
                 with these, so that most t come from the middle (the logit-normal of Esser et al., 2024, section 3.1)
        uniform: the share that is drawn uniformly all the same, in [0, 1]: the normal hardly ever goes to the ends
        """
        n = whole("n", n, 0)
        if around is None:
            return torch.randint(1, self.T + 1, (n,), device=device, generator=generator)
        mean, deviation = around
        share = torch.sigmoid(mean + deviation * torch.randn(n, device=device, generator=generator))  # of T, in (0, 1)
        if uniform:
            drawn = torch.rand(n, device=device, generator=generator)
            share = torch.where(drawn < uniform, drawn / uniform, share)
        return (self.T * share).ceil().long().clamp(1, self.T)

    def q_coefficients(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), shaped to multiply `like` (Ho et al., eq. 4).

        t:       (B,) integers in 0…T, or one int for the whole batch
        like:    (B, ...) the batch they will multiply
        returns  two tensors of shape (B, 1, ..., 1), or (1, ..., 1) for an int
        """
        return self.at("sqrt_alpha_bar", t, like), self.at("sqrt_one_minus_alpha_bar", t, like)

    def at(self, name: str, t: Tensor | int, like: Tensor) -> Tensor:
        """Entry t of a table, shaped and typed to multiply `like`.

        name:    "beta", "alpha", "alpha_bar", or one of the roots in ROOTS
        returns  (B, 1, ..., 1), or (1, ..., 1) for an int; float32 (float64 where `like` is), on like's device
        raises   ValueError if `like` holds integers, t is an int outside 0…T, or a tensor that does not fit `like`
        """
        check_float(like)
        table = self.table(name, torch.float64 if like.dtype == torch.float64 else torch.float32, like.device)
        check_t(t, like, self.T)
        if isinstance(t, int):
            return table[t].reshape((1,) * like.ndim)
        return table[t].reshape((-1,) + (1,) * (like.ndim - 1))

    def table(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(T+1,) one whole table, computed in float64, then cast, moved and kept there."""
        key = (name, dtype, device)
        if key not in self._on_device:
            table = ROOTS[name](self).sqrt() if name in ROOTS else getattr(self, name)
            self._on_device[key] = table.to(dtype).to(device)  # cast first: Apple's GPU has no float64
        return self._on_device[key]


def check_t(t: Tensor | int, like: Tensor, T: int, name: str = "t") -> None:
    """Raise a ValueError in the student's terms unless t fits the batch `like`.

    The values of a tensor are checked on the CPU alone: reading them would make the host wait for a GPU.
    """
    if isinstance(t, int) and not isinstance(t, bool):
        if not 0 <= t <= T:
            raise ValueError(f"{name} must lie in 0..{T}, got {t}")
        return
    if not isinstance(t, Tensor):
        raise ValueError(f"{name} must be an int or a tensor of integers, got {type(t).__name__}")
    if t.shape != like.shape[:1]:
        raise ValueError(
            f"{name} must have shape ({len(like)},) to match the batch of {len(like)}, got {tuple(t.shape)}"
        )
    if t.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must hold integers (torch.int64), got {t.dtype}")
    if t.device != like.device:
        raise ValueError(f"{name} is on {t.device} but the data is on {like.device}: move one of them with .to(...)")
    if t.device.type == "cpu" and len(t):
        lowest, highest = min(values := t.tolist()), max(values)  # in a table, -1 would be the last entry
        if lowest < 0 or highest > T:
            raise ValueError(f"{name} must lie in 0..{T}, got values from {lowest} to {highest}")


def check_float(x: Tensor) -> None:
    """Raise a ValueError for what is no tensor, and for images that are still 0…255."""
    if not isinstance(x, Tensor):
        raise ValueError(f"the data must be a tensor, got {type(x).__name__}: see torch.as_tensor")
    if not x.is_floating_point():
        raise ValueError(f"the data must be floats (images in [-1, 1], see to_unit_range), got {x.dtype}")


def linear_schedule(T: int = 1000, *, rescale: bool = True) -> Schedule:
    """The schedule of Ho et al. (2020), section 4: beta from 1e-4 to 0.02, evenly spaced, for T = 1000.

    rescale: multiply beta by 1000/T, so that a chain of another length destroys as much signal;
             beta is then clipped at 0.999, which only chains of 20 steps or fewer reach
    """
    betas = torch.linspace(1e-4, 0.02, whole("T", T, 1), dtype=torch.float64)
    return Schedule(_for_length(betas) if rescale else betas)


def quadratic_schedule(T: int = 1000) -> Schedule:
    """sqrt(beta) evenly spaced between sqrt(1e-4) and sqrt(0.02), then rescaled as in `linear_schedule`."""
    return Schedule(_for_length(torch.linspace(1e-4**0.5, 0.02**0.5, whole("T", T, 1), dtype=torch.float64) ** 2))


def sigmoid_schedule(T: int = 1000) -> Schedule:
    """beta follows a sigmoid from about 1e-4 to about 0.02, then rescaled as in `linear_schedule`."""
    ramp = torch.sigmoid(torch.linspace(-6, 6, whole("T", T, 1), dtype=torch.float64))
    return Schedule(_for_length(1e-4 + ramp * (0.02 - 1e-4)))


def cosine_schedule(T: int = 1000, *, s: float = 0.008) -> Schedule:
    """alpha_bar falls like a squared cosine (Nichol and Dhariwal, 2021, eq. 17); beta is clipped at 0.999.

    s: a small offset that keeps the first steps from being vanishingly small
    """
    f = _squared_cosine(torch.arange(whole("T", T, 1) + 1, dtype=torch.float64) / T, number("s", s, 0))  # (T+1,)
    return Schedule((1 - f[1:] / f[:-1]).clamp(max=0.999))


def cosine_alpha_bar(u: Tensor, *, s: float = 0.008) -> Tensor:
    """alpha_bar of the cosine schedule in continuous time, not clipped: 1 at u = 0, and next to 0 at u = 1.

    u:       float64 times in [0, 1], of any shape
    returns  the shape of u
    """
    s = number("s", s, 0)
    return _squared_cosine(u, s) / _squared_cosine(torch.zeros_like(u), s)


def schedule_through(alpha_bar: Tensor, *, zero_snr: bool = False) -> Schedule:
    """The schedule that has these levels of noise, from the first at t = 1 to the last at t = T: a grid of your own.

    alpha_bar: (T,) falling, strictly between 0 and 1
    zero_snr:  the last one may be 0 too, as for `Schedule`
    raises     ValueError if it does not fall, leaves that range, or falls so far in one step that beta rounds to 1
    """
    levels = as_tensor("alpha_bar", alpha_bar, torch.float64).cpu()
    zero_snr = zero_snr and levels.ndim == 1 and bool((levels[-1:] == 0).all())
    ends = levels.new_ones(1), levels.new_zeros(0 if zero_snr else 1)
    if levels.ndim != 1 or not bool((torch.cat([ends[0], levels, ends[1]]).diff() < 0).all()):
        raise ValueError("alpha_bar must be a list of numbers that fall, all strictly between 1 and 0")
    alpha_bar = torch.cat([ends[0], levels])
    alpha = alpha_bar[1:] / alpha_bar[:-1]
    schedule = Schedule(1 - alpha, zero_snr=zero_snr)
    schedule.alpha[1:], schedule.alpha_bar = alpha, alpha_bar  # as they are: 1 - beta has lost what is next to nothing
    return schedule


def rescaled(schedule: Schedule) -> Schedule:
    """The schedule with nothing left of x_0 at T: Lin et al. (2024), algorithm 1.

    sqrt(alpha_bar) is shifted to 0 at T, and stretched to what it was at t = 1. T must be 2 or more.
    """
    root = schedule.alpha_bar[1:].sqrt()
    return schedule_through(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2, zero_snr=True)


def _squared_cosine(u: Tensor, s: float) -> Tensor:
    return torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2


def _for_length(betas: Tensor) -> Tensor:
    return (betas * (1000 / len(betas))).clamp(max=0.999)
