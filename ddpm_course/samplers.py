"""From noise to images: ancestral sampling (lesson 06) and DDIM (lesson 09).

Both samplers are one loop. In a step from t to an earlier s the network's output is read as an estimate
of x_0, and x_s is drawn from a Gaussian whose mean is a weighted sum of that estimate and x_t:

    x_s = on_x0 * x0 + on_xt * x_t + sigma * z

They differ in the three numbers only, which are computed in float64 before the loop starts. A sampler is
a generator: it hands you every step, and you decide what to keep.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .diffusion import GaussianDiffusion, posterior_coefficients


class Step(NamedTuple):
    """One reverse step: the i-th of n, from t to s. `x` is x_s after it, `x0` the estimate of x_0 it used."""

    i: int
    n: int
    t: int
    s: int
    x: Tensor
    x0: Tensor


def spaced_timesteps(T: int, steps: int | None = None) -> list[int]:
    """`steps` + 1 times from T down to 0, as even as integers allow; both ends are visited.

    raises ValueError unless 1 <= steps <= T
    """
    steps = T if steps is None else steps
    if not 1 <= steps <= T:
        raise ValueError(f"steps must lie in 1..{T}: the schedule has no more steps than that; got {steps}")
    return [round(T * (steps - i) / steps) for i in range(steps + 1)]


def ancestral_steps(
    net: Callable[..., Tensor], diffusion: GaussianDiffusion, shape: tuple[int, ...], steps: int | None = None, **how
) -> Iterator[Step]:
    """Algorithm 2 of Ho et al. (2020), at any stride: x_s is drawn from q(x_s | x_t, x_0) at the estimate of x_0.

    net:      any callable net(x, t, y) whose output means what diffusion.predicts says
    shape:    (B, ...) of the data to make
    steps:    number of network calls, at most T (the default)
    how:      the keywords of `reverse_steps`: y, clip, x_T, times, device, generator
    yields    a Step for every network call
    raises    ValueError if steps or times do not fit the schedule
    """

    def coefficients(alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        on_x0, on_xt, variance = posterior_coefficients(alpha_bar_t, alpha_bar_s)
        if diffusion.variance == "large":
            variance = 1 - alpha_bar_t / alpha_bar_s
        return on_x0, on_xt, variance.sqrt()

    return reverse_steps(net, diffusion, shape, steps, coefficients, **how)


def ddim_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int | None = None,
    *,
    eta: float = 0.0,
    **how,
) -> Iterator[Step]:
    """DDIM (Song et al., 2021, eq. 12): deterministic for eta = 0, the ancestral step with beta-tilde for eta = 1.

    The noise estimate belongs to the estimate of x_0 after clipping, so that together they still make x_t.
    Arguments as for `ancestral_steps`.
    """

    def coefficients(alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variance = eta**2 * posterior_coefficients(alpha_bar_t, alpha_bar_s)[2]  # sigma^2 of eq. 16
        on_noise = (1 - alpha_bar_s - variance).clamp(min=0).sqrt()
        on_xt = on_noise / (1 - alpha_bar_t).sqrt()  # noise = (x_t - sqrt(alpha_bar_t) x0) / sqrt(1 - alpha_bar_t)
        return alpha_bar_s.sqrt() - on_xt * alpha_bar_t.sqrt(), on_xt, variance.sqrt()

    return reverse_steps(net, diffusion, shape, steps, coefficients, **how)


@torch.no_grad()
def reverse_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: tuple[int, ...],
    steps: int | None,
    coefficients: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    *,
    y: Tensor | None = None,
    clip: bool = True,
    x_T: Tensor | None = None,
    times: list[int] | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """The loop both samplers share. Draws x_T first, then one z a step, and none where sigma is 0.

    y:         (B,) labels, or None
    clip:      clip the estimate of x_0 to [-1, 1], the range of images
    x_T:       start here instead of from standard normal noise
    times:     visit these times, from the first (T, as a rule) down to 0, instead of evenly spaced ones
    device:    where to sample; by default where the network's parameters are
    generator: of the random numbers, on the same device
    """
    times = spaced_timesteps(diffusion.schedule.T, steps) if times is None else list(times)
    falling = all(t > s for t, s in zip(times, times[1:], strict=False))
    if not falling or len(times) < 2 or times[-1] != 0 or times[0] > diffusion.schedule.T:
        raise ValueError(f"times must fall from at most {diffusion.schedule.T} to 0, got {times}")
    if x_T is not None and x_T.shape != tuple(shape):
        raise ValueError(f"x_T must have shape {tuple(shape)}, got {tuple(x_T.shape)}")
    device = device or (x_T.device if x_T is not None else device_of(net))
    x = torch.randn(shape, device=device, generator=generator) if x_T is None else x_T

    alpha_bar = diffusion.schedule.alpha_bar[times]  # float64, on the CPU
    on_x0, on_xt, sigma = coefficients(alpha_bar[:-1], alpha_bar[1:])
    sigma[-1] = 0  # the last step returns the mean
    on_x0, on_xt, sigma = on_x0.tolist(), on_xt.tolist(), sigma.tolist()  # plain numbers: no copies to a GPU later

    n = len(times) - 1
    before = {"x_self": None} if getattr(net, "self_condition", False) else {}  # the estimate of the step before
    for i, (t, s) in enumerate(zip(times, times[1:], strict=False)):
        with evaluating(net):
            output = net(x, torch.full(shape[:1], t, device=device), y, **before)
        x0, _ = diffusion.decode(output.to(x.dtype), x, t)
        if clip:
            x0 = x0.clamp(-1, 1)
        if before:
            before["x_self"] = x0
        x = on_x0[i] * x0 + on_xt[i] * x
        if sigma[i] > 0:
            x = x + sigma[i] * torch.randn(shape, device=device, dtype=x.dtype, generator=generator)
        yield Step(i + 1, n, t, s, x, x0)


def sample(steps: Iterator[Step], *, progress: bool = True) -> Tensor:
    """Run a sampler to its end, with a progress bar, and return the last x, in the data's range.

    raises ValueError if the sampler has been run already: it is a generator, and runs once
    """
    bar = step = None
    for step in steps:
        if progress and bar is None:
            bar = tqdm(total=step.n, desc="sampling", file=sys.stdout, mininterval=0.5)
        if bar is not None:
            bar.update()
    if bar is not None:
        bar.close()
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
    x_T: Tensor | None = None,
    times: list[int] | None = None,
    chunk: int = 250,
    sampler: Callable[..., Iterator[Step]] = ddim_steps,
    progress: bool = True,
    **how,
) -> Tensor:
    """Any number of samples, `chunk` at a time, so that memory grows with neither their number nor the steps.

    shape:    (N, ...) of all the data to make
    steps:    network calls a chunk
    y:        (N,) labels, or None
    x_T:      (N, ...) to start from instead of standard normal noise, or None
    times:    to visit instead of `steps` evenly spaced ones, see `reverse_steps`
    sampler:  ddim_steps or ancestral_steps; `how` holds its other keywords
    returns   (N, ...) on the CPU, in the data's range
    raises    ValueError if y or x_T is not for N samples, or if N or chunk is less than 1
    """
    if chunk < 1 or shape[0] < 1:
        raise ValueError(f"chunk and the number of samples must be at least 1, got {chunk} and {shape[0]}")
    if y is not None and len(y) != shape[0]:
        raise ValueError(f"y must hold one label for each of the {shape[0]} samples, got {len(y)}")
    if x_T is not None and x_T.shape != tuple(shape):
        raise ValueError(f"x_T must have shape {tuple(shape)}, got {tuple(x_T.shape)}")
    sizes = [min(chunk, shape[0] - start) for start in range(0, shape[0], chunk)]
    labels, starts = (part.split(chunk) if part is not None else [None] * len(sizes) for part in (y, x_T))
    total = len(sizes) * (steps if times is None else len(times) - 1)
    made = []
    with tqdm(total=total, desc="sampling", file=sys.stdout, mininterval=0.5, disable=not progress) as bar:
        for size, some, start in zip(sizes, labels, starts, strict=True):
            how |= dict(y=some, x_T=start, times=times)
            for step in sampler(net, diffusion, (size, *shape[1:]), steps, **how):
                x = step.x
                bar.update()
            made.append(x.cpu())
    return torch.cat(made)


def guided(net: Callable[..., Tensor], scale: float) -> Callable[..., Tensor]:
    """Classifier-free guidance (Ho and Salimans, 2021): a network that exaggerates what the label changes.

    scale:   1 is the plain conditional network, 0 the unconditional one; the output is u + scale (c - u)
    returns  a network that calls `net` once on a doubled batch, labels first, null class (y=None) second
    raises   ValueError if the network has no classes, or is then called without labels
    """
    if getattr(net, "num_classes", None) is None:
        raise ValueError("guidance needs a network that was trained with classes: one built with num_classes=...")

    def guided_net(x: Tensor, t: Tensor, y: Tensor | None = None, **before: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError("guidance needs labels y: the classes to guide towards")
        null = torch.full_like(y, net.num_classes)
        before = {name: None if value is None else torch.cat([value, value]) for name, value in before.items()}
        both = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]), **before)
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    guided_net.inner, guided_net.self_condition = net, getattr(net, "self_condition", False)
    return guided_net


@contextmanager
def evaluating(net: Callable[..., Tensor]):
    """Dropout off while this lasts, wherever `net` is a module in training mode."""
    module = net if isinstance(net, nn.Module) else getattr(net, "inner", None)
    was_training = isinstance(module, nn.Module) and module.training
    if was_training:
        module.eval()
    try:
        yield
    finally:
        if was_training:
            module.train()


def device_of(net: Callable[..., Tensor]) -> torch.device:
    """Where the network's parameters are; the CPU for a network without any."""
    module = net if isinstance(net, nn.Module) else getattr(net, "inner", None)
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return parameter.device if parameter is not None else torch.device("cpu")
