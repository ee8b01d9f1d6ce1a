"""One answer under many names, and what the differential equations make of it (lesson 11).

At x_t = signal x_0 + sigma noise a network answers one question, E[x_0 | x_t]. Whether it says x_0, the noise, v, the
score, the velocity of a flow or what EDM asks for is a choice of coordinates: all of them are weighted sums of x_0 and
noise, and any of them together with x_t gives every other.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .arguments import whole
from .bound import wide
from .diffusion import GaussianDiffusion
from .nets import call, evaluating
from .schedules import check_float
from .times import falling_times

NAMES = ("noise", "x0", "v", "score", "velocity", "edm")
CLOCKS = ("alpha_bar", "angle", "log_snr", "sigma", "flow")


def convert(
    value: Tensor, given: str, wanted: str, xt: Tensor, alpha_bar: Tensor | float, *, sigma_data: float = 0.5
) -> Tensor:
    """What a network says about x_t, in other words.

    value:      (B, ...) what it says, and `given` what that is: "noise", "x0", "v" (Salimans and Ho, 2022),
                "score" (the gradient of log p(x_t), Song et al., 2021), "velocity" (noise - x_0, of the straight path
                of Lipman et al., 2023, and Liu et al., 2023), or "edm" (F of Karras et al., 2022, eq. 7)
    wanted:     one of the same names
    xt:         (B, ...) at the level alpha_bar, a float strictly between 0 and 1, or a tensor that broadcasts
    sigma_data: the standard deviation of the data that "edm" counts on; with 1 it is -v
    raises      ValueError for another name, another shape, or a level with nothing of the one or of the other
    """
    check_float(value), check_float(xt)
    if value.shape != xt.shape:
        raise ValueError(f"value must have the shape of xt, {tuple(xt.shape)}; got {tuple(value.shape)}")
    signal, sigma = _signal_and_sigma(alpha_bar, xt)
    on_x0, on_noise = _weights(given, signal, sigma, sigma_data)
    to_x0, to_noise = _weights(wanted, signal, sigma, sigma_data)
    determinant = signal * on_noise - sigma * on_x0  # of the two equations for x_0 and the noise
    x0 = (on_noise * xt - sigma * value) / determinant
    noise = (signal * value - on_x0 * xt) / determinant
    return to_x0 * x0 + to_noise * noise


def _weights(name: str, signal: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """What x_0 and what the noise weigh in the quantity of that name."""
    zero, one = torch.zeros_like(signal), torch.ones_like(signal)
    if name == "edm":
        root = sigma_data * (sigma**2 + sigma_data**2 * signal**2).sqrt()
        return sigma / root, -(sigma_data**2) * signal / root
    table = {
        "noise": (zero, one),
        "x0": (one, zero),
        "v": (-sigma, signal),
        "score": (zero, -1 / sigma),
        "velocity": (-one, one),
    }
    if name not in table:
        raise ValueError(f"the names are {', '.join(NAMES)}; got {name!r}")
    return table[name]


def _signal_and_sigma(alpha_bar: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
    level = wide(alpha_bar) if isinstance(alpha_bar, Tensor) else torch.tensor(alpha_bar, dtype=torch.float64)
    if level.device.type == "cpu" and not bool(((level > 0) & (level < 1)).all()):
        raise ValueError(f"alpha_bar must lie between 0 and 1, and be neither; got {alpha_bar}")
    return tuple(x.to(like.dtype).to(like.device) for x in (level.sqrt(), (1 - level).sqrt()))


def clock(alpha_bar: Tensor, name: str) -> Tensor:
    """A noise level in the time of another text, float64; all of them grow with the noise but log_snr.

    name:   "alpha_bar" itself; "angle", 0…pi/2, with cos = sqrt(alpha_bar); "log_snr"; "sigma", the noise of
            x_t / sqrt(alpha_bar), EDM's; "flow", 0…1, the share of the noise in x_t / (signal + sigma), which is
            (1 - u) x_0 + u noise
    raises  ValueError for another name
    """
    level = wide(alpha_bar)
    signal, sigma = level.sqrt(), (1 - level).sqrt()
    clocks = {
        "alpha_bar": level,
        "angle": torch.atan2(sigma, signal),
        "log_snr": level.logit(),
        "sigma": sigma / signal,
        "flow": sigma / (signal + sigma),
    }
    if name not in clocks:
        raise ValueError(f"the clocks are {', '.join(CLOCKS)}; got {name!r}")
    return clocks[name]


def level_at(time: Tensor, name: str) -> Tensor:
    """alpha_bar at a time of the clock `name`, float64: undoes `clock`."""
    time = wide(time)
    levels: dict[str, Callable[[], Tensor]] = {
        "alpha_bar": lambda: time,
        "angle": lambda: time.cos() ** 2,
        "log_snr": time.sigmoid,
        "sigma": lambda: 1 / (1 + time**2),
        "flow": lambda: (1 - time) ** 2 / ((1 - time) ** 2 + time**2),
    }
    if name not in levels:
        raise ValueError(f"the clocks are {', '.join(CLOCKS)}; got {name!r}")
    return levels[name]()


def ode_log_likelihood(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    x0: Tensor,
    steps: int | None = None,
    *,
    y: Tensor | None = None,
    times: Sequence[int] | None = None,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The log-density of x0 by the change of variables along the probability-flow ODE (Song et al., 2021, app. D.2).

    In the angle the equation is dx / dphi = v, and log p falls along a curve by the divergence of v. Heun's method
    takes both from data to noise together.

    net:       any callable net(x, t, y) whose output means what diffusion.predicts says, in one piece with autograd
    x0:        (B, ...) data
    steps:     of two network calls each, at most T (the default), evenly spaced
    y:         (B,) labels or None
    times:     as a sampler's, from the last one down to 0, instead; they are visited from the end
    probes:    None for the exact divergence, a backward pass for every number in an item; else the mean over so many
               random directions of +-1 (Hutchinson, 1989), which is right on average
    generator: of the probes, on the data's device
    returns    (B,) log-density in nats, float64
    raises     ValueError if steps or times do not fit the schedule, or x0 is not floats

    The equation starts where the slope is 0, as E[noise | x_0] is for every smooth density. It is the density of what
    the equation makes of N(0, I) at T, which is the data's as far as the network is right.
    """
    check_float(x0)
    schedule = diffusion.schedule
    times = falling_times(schedule.T, steps, times)[::-1]
    angle = clock(schedule.alpha_bar, "angle").tolist()
    directions = None
    if probes is not None:
        shape = (whole("probes", probes, 1), *x0.shape)
        directions = torch.randint(0, 2, shape, generator=generator, device=x0.device).to(x0) * 2 - 1

    def slope(x: Tensor, t: int) -> tuple[Tensor, Tensor | float]:
        if t == 0:
            return torch.zeros_like(x), 0.0
        with torch.enable_grad(), evaluating(net):
            x = x.detach().requires_grad_()
            estimate, noise = diffusion.decode(call(net, x, torch.full(x.shape[:1], t, device=x.device), y, None), x, t)
            signal, sigma = schedule.q_coefficients(t, x)
            v = signal * noise - sigma * estimate
            return v.detach(), _divergence(v, x, directions)

    x, change = x0, 0.0
    for t, later in pairwise(times):
        length = angle[later] - angle[t]
        v, divergence = slope(x, t)
        end_v, end_divergence = slope(x + length * v, later)
        x = x + length / 2 * (v + end_v)
        change = change + length / 2 * (divergence + end_divergence)
    prior = torch.distributions.Normal(0, 1).log_prob(wide(x)).flatten(1).sum(1)
    return prior + change


def _divergence(v: Tensor, x: Tensor, directions: Tensor | None) -> Tensor:
    """(B,) the trace of dv / dx of every item, float64: exactly, or along random directions."""

    def along(direction: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(v, x, direction, retain_graph=True)
        return wide((product * direction).flatten(1)).sum(1)

    if directions is not None:
        return torch.stack([along(direction) for direction in directions]).mean(0)
    size = x[0].numel()
    units = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
    return torch.stack([along(unit.expand_as(x)) for unit in units]).sum(0)
