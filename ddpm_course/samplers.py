"""From noise to images: ancestral sampling (lesson 06) and DDIM (lesson 09).

All samplers are one loop. In a step from t to an earlier s the network's output is read as an estimate
of x_0, and x_s is drawn from a Gaussian whose mean is a weighted sum of that estimate and x_t:

    x_s = on_x0 * x0 + on_xt * x_t + sigma * z

They differ in the three numbers only, which are computed in float64 before the loop starts. (The solvers
of second order, in solvers.py, have two more, for the estimate and the x of the call before. A variance that
was learned, lesson 12, is part of the network's output, so its sigma is read in the loop.) A sampler is a
generator: it hands you every step, and you decide what to keep.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from .arguments import as_labels, as_tensor, number, whole
from .diffusion import GaussianDiffusion, posterior_coefficients
from .nets import call, data_dtype, device_of, evaluating  # lesson 00 imports device_of from here
from .schedules import check_float
from .times import falling_times, spaced_timesteps  # noqa: F401, the second one for lessons 01 and 06

Coefficients = Callable[[GaussianDiffusion, Tensor, Tensor], tuple[Tensor, ...]]


class Step(NamedTuple):
    """One step: the i-th of n, from t to s. `x` is x_s after it, `x0` the estimate of x_0 it used.

    s is earlier than t, or later where data is encoded, or the same where a solver corrects the step before.
    """

    i: int
    n: int
    t: int
    s: int
    x: Tensor
    x0: Tensor


def ancestral_coefficients(
    diffusion: GaussianDiffusion, alpha_bar_t: Tensor, alpha_bar_s: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """on_x0, on_xt and sigma of q(x_s | x_t, x_0) for every step, float64 (steps,) each; nan for a learned one."""
    on_x0, on_xt, variance = posterior_coefficients(alpha_bar_t, alpha_bar_s)
    if diffusion.variance == "large":
        variance = 1 - alpha_bar_t / alpha_bar_s
    elif diffusion.variance == "learned":
        variance = torch.full_like(variance, torch.nan)
    return on_x0, on_xt, variance.sqrt()


def ancestral_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int | None = None,
    *,
    y: Tensor | None = None,
    clip: bool = True,
    x_T: Tensor | None = None,
    times: list[int] | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    coefficients: Coefficients = ancestral_coefficients,
    twice: bool = False,
) -> Iterator[Step]:
    """Algorithm 2 of Ho et al. (2020), at any stride: x_s is drawn from q(x_s | x_t, x_0) at the estimate of x_0.

    net:          any callable net(x, t, y) whose output means what diffusion.predicts says
    shape:        (B, ...) of the data to make
    steps:        number of network calls, at most T (the default)
    y:            (B,) labels in 0..net.num_classes - 1, or None, which is the null class
    clip:         clip the estimate of x_0 to [-1, 1], the range of images
    x_T:          start here instead of from standard normal noise
    times:        visit these times, from the first (T, as a rule) down to 0, instead of evenly spaced ones
    device:       where to sample; by default where x_T is, else where the network's parameters are
    generator:    of the random numbers, on the same device: x_T first, then one z a step, and none where sigma is 0
    coefficients: the numbers of every step, for another sampler
    twice:        visit the times between the ends twice, for a sampler that corrects each step with a second call
    yields        a Step for every network call
    raises        ValueError, at the first step, if shape, steps, times, y or x_T do not fit

    All but the network is computed in x_T's type, by default float32, or float64 where the weights are.
    """
    shape, times = _whole_shape(shape), falling_times(diffusion.schedule.T, steps, times)
    if x_T is None:
        device = device or device_of(net)
        x = torch.randn(shape, dtype=data_dtype(net), device=device, generator=generator)
    else:
        x = as_tensor("x_T", x_T)
        check_float(x)
        if x.shape != shape:
            raise ValueError(f"x_T must have shape {shape}, got {tuple(x.shape)}")
    if twice:
        times = times[:1] + [t for t in times[1:-1] for _ in range(2)] + times[-1:]
    yield from walk(net, diffusion, x, times, coefficients, y=y, clip=clip, device=device, generator=generator)


@torch.no_grad()
def walk(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    x: Tensor,
    times: list[int],
    coefficients: Coefficients,
    *,
    y: Tensor | None = None,
    clip: bool = True,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    change: Callable[[Tensor, int, Tensor | float], Tensor] | None = None,
) -> Iterator[Step]:
    """The loop of all samplers: from x at times[0] to times[-1], in either direction, one network call for each pair.

    coefficients: from alpha_bar at the t and at the s of all pairs, on_x0, on_xt and sigma, float64 (steps,) each,
                  with nan for a sigma that is in the network's output; and if two more follow, the weights of the
                  estimate and of the x that the call before had;
                  a step that gives the estimate no weight asks for none: it adds noise, and no network is called
    change:       what becomes of x_s, from x_s, s and the z that went into it, 0.0 where none did
    The other arguments, and what is yielded, are those of `ancestral_steps`.
    """
    device = device or x.device
    if y is not None:
        y = as_labels("y", y, len(x), getattr(net, "num_classes", None)).to(device)

    alpha_bar = diffusion.schedule.alpha_bar[times]  # float64, on the CPU
    on_x0, on_xt, sigma, *on_last = coefficients(diffusion, alpha_bar[:-1], alpha_bar[1:])
    sigma[-1] = 0  # the last step returns the mean
    on_x0, on_xt, sigma = on_x0.tolist(), on_xt.tolist(), sigma.tolist()  # plain numbers: no copies to a GPU later
    on_last = list(zip(*(numbers.tolist() for numbers in on_last), strict=True))

    itself = getattr(net, "self_condition", False)  # for networks that ask for the estimate before
    last_x0 = last_x = None
    for i, (t, s) in enumerate(pairwise(times)):
        if on_x0[i] or last_x0 is None:
            with evaluating(net):  # and not around the loop: between two steps it is whoever runs the sampler's
                output = call(net, x, torch.full(x.shape[:1], t, device=device), y, last_x0 if itself else None)
            output = output.to(x.dtype)
            x0, _ = diffusion.decode(output, x, t)
            if clip:
                x0 = x0.clamp(-1, 1)
        following, z = on_x0[i] * x0 + on_xt[i] * x, 0.0
        if on_last and any(on_last[i]):
            following = following + on_last[i][0] * last_x0 + on_last[i][1] * last_x
        if sigma[i]:
            std = (diffusion.log_variance(output, x, t, s) / 2).exp() if math.isnan(sigma[i]) else sigma[i]
            z = torch.randn(x.shape, device=device, dtype=x.dtype, generator=generator)
            following = following + std * z
        if change is not None:
            following = change(following, s, z)
        x, last_x, last_x0 = following, x, x0
        yield Step(i + 1, len(times) - 1, t, s, x, x0)


def ddim_coefficients(
    _: GaussianDiffusion, alpha_bar_t: Tensor, alpha_bar_s: Tensor, eta: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """on_x0, on_xt and sigma of Song et al. (2021), eq. 12, for every step, float64 (steps,) each."""
    variance = torch.zeros_like(alpha_bar_t)
    if eta:  # not on the way up, where alpha_bar_s may be 0
        variance = eta**2 * posterior_coefficients(alpha_bar_t, alpha_bar_s)[2]  # sigma^2 of eq. 16
    on_noise = (1 - alpha_bar_s - variance).clamp(min=0).sqrt()
    on_xt = on_noise / (1 - alpha_bar_t).sqrt()  # noise = (x_t - sqrt(alpha_bar_t) x0) / sqrt(1 - alpha_bar_t)
    return alpha_bar_s.sqrt() - on_xt * alpha_bar_t.sqrt(), on_xt, variance.sqrt()


def ddim_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int | None = None,
    *,
    eta: float = 0.0,
    y: Tensor | None = None,
    clip: bool = True,
    x_T: Tensor | None = None,
    times: list[int] | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """DDIM (Song et al., 2021, eq. 12): deterministic for eta = 0, the ancestral step with beta-tilde for eta = 1.

    The noise estimate belongs to the estimate of x_0 after clipping, so that together they still make x_t.
    eta lies between these two; the other arguments are those of `ancestral_steps`.
    """
    coefficients = partial(ddim_coefficients, eta=number("eta", eta, 0, 1))
    return ancestral_steps(
        net, diffusion, shape, steps,
        y=y, clip=clip, x_T=x_T, times=times, device=device, generator=generator, coefficients=coefficients,
    )  # fmt: skip


def sample(steps: Iterator[Step], *, progress: bool = True) -> Tensor:
    """Run a sampler to its end, with a progress bar, and return the last x, in the data's range.

    raises ValueError if the sampler has been run already: it is a generator, and runs once
    """
    step = None
    with tqdm(desc="sampling", file=sys.stdout, mininterval=0.5, disable=not progress) as bar:
        for step in steps:
            bar.total = step.n
            bar.update()
    if step is None:
        raise ValueError("this sampler is at its end: it runs once. Make a new one, as you made this one")
    return step.x


def generate(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int = 25,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk: int = 250,
    sampler: Callable[..., Iterator[Step]] = ancestral_steps,
    progress: bool = True,
) -> Tensor:
    """Any number of samples, `chunk` at a time, so that memory grows with neither their number nor the steps.

    shape:    (N, ...) of all the data to make
    steps:    network calls for each chunk
    y:        (N,) labels in 0..net.num_classes - 1, or None
    sampler:  `ancestral_steps`, `ddim_steps` or another that takes the same arguments; `functools.partial` sets eta,
              times and the others that are not here
    returns   (N, ...) on the CPU, in the data's range
    raises    ValueError if shape, chunk, y or what the sampler takes do not fit
    """
    shape, chunk = _whole_shape(shape), whole("chunk", chunk, 1)
    n = shape[0]
    if y is not None:
        y = as_labels("y", y, n, getattr(net, "num_classes", None))
    starts, made = range(0, n, chunk), []
    with tqdm(desc="sampling", file=sys.stdout, mininterval=0.5, disable=not progress) as bar:
        for start in starts:
            some_y = None if y is None else y[start : start + chunk]
            size = min(chunk, n - start)
            for step in sampler(net, diffusion, (size, *shape[1:]), steps, y=some_y, generator=generator):
                bar.total = len(starts) * step.n
                bar.update()
            made.append(step.x.cpu())
    return torch.cat(made)


def _whole_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or len(shape) == 0:
        raise ValueError(f"shape must be that of the data to make, (B, ...); got {shape!r}")
    return tuple(whole("every side of shape", side, 1) for side in shape)
