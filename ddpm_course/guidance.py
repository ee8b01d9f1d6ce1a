"""Steering a network that was trained for something else: by a classifier, by known pixels, by a drawing (lesson 10).

Nothing here is trained, and any net(x, t, y) will do. Bayes' rule says what to add to a network's estimate so that it
respects what you know: the gradient of log p(what you know | x_t). `ClassifierGuided` adds just that. Guidance without
a classifier, `Guided`, needs no more than the network, and stands in nets.py. The samplers are those of samplers.py.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import as_tensor, number, whole
from .diffusion import GaussianDiffusion, q_sample
from .nets import call, halves
from .samplers import Step, ancestral_coefficients, ancestral_steps, walk
from .schedules import check_float
from .times import falling_times, spaced_timesteps


class ClassifierGuided(nn.Module):
    """Classifier guidance (Dhariwal and Nichol, 2021, algorithm 2): a network whose estimates follow a gradient.

        noise - scale * sqrt(1 - alpha_bar) * gradient of log p(y | x_t),

    said in the terms that the network predicts in, so that every sampler takes it.

    net:             any net(x, t, y) whose output means what diffusion.predicts says
    log_likelihood:  log p(y | x) as a function of x, t and y that gives (B,) numbers, differentiable in x; of a
                     classifier, each item's entry of log_softmax. Constants do not matter, and y may be None
    scale:           1 is Bayes' rule; more sharpens, as `Guided` does with the scale + 1 if the network is conditional
    through_x0:      False: log_likelihood is given x_t, so it must know noise
                     True: it is given the network's estimate of x_0, and the gradient comes back through the network,
                     at some three times the cost: any judge of clean data will do (Chung et al., 2023). It takes what
                     is likely at the mean of x_0 for what is likely on average, which is true only where t is small
    conditional:     the network is given the labels too
    raises           ValueError if alpha_bar is 0 at T, as the gradient is divided by its root; at a call, if
                     log_likelihood gives something else
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        diffusion: GaussianDiffusion,
        log_likelihood: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        scale: float = 1.0,
        *,
        through_x0: bool = False,
        conditional: bool = False,
    ):
        super().__init__()
        if bool(diffusion.schedule.alpha_bar[-1] == 0):
            raise ValueError("alpha_bar is 0 at T, where a gradient in x_t tells nothing of x_0: guide without one")
        self.net, self.diffusion, self.log_likelihood = net, diffusion, log_likelihood
        self.scale, self.through_x0, self.conditional = number("scale", scale), through_x0, conditional
        self.num_classes, self.self_condition = getattr(net, "num_classes", None), getattr(net, "self_condition", False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None) -> Tensor:
        with torch.enable_grad():
            xt = x.detach().requires_grad_()
            with torch.set_grad_enabled(self.through_x0):  # what a way back needs is kept only if there is one
                output = call(self.net, xt, t, y if self.conditional else None, x_self)
                x0, noise = self.diffusion.decode(output.to(x.dtype), xt, t)
            log_p = self.log_likelihood(x0 if self.through_x0 else xt, t, y)
            _reject_no_likelihood(log_p, len(x))
            (gradient,) = torch.autograd.grad(log_p.sum(), xt)
        signal, sigma = self.diffusion.schedule.q_coefficients(t, x)
        x0 = x0.detach() + self.scale * sigma**2 / signal * gradient
        guided = self.diffusion.target(x0, noise.detach() - self.scale * sigma * gradient, t)
        _, variance = halves(output.detach(), x)
        return guided if variance is None else torch.cat([guided, variance], 1)


def _reject_no_likelihood(log_p: Any, n: int) -> None:
    if not isinstance(log_p, Tensor) or log_p.shape != (n,):
        kind = f"shape {tuple(log_p.shape)}" if isinstance(log_p, Tensor) else type(log_p).__name__
        raise ValueError(f"log_likelihood must give one number an image, a tensor of shape ({n},); got {kind}")
    if not log_p.requires_grad:
        raise ValueError(
            "log_likelihood has no gradient: it must be computed from the x it is given, without no_grad, argmax or "
            "detach"
        )


def inpaint_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    known: Tensor,
    mask: Tensor | Callable[[Tensor], Tensor],
    steps: int | None = None,
    *,
    repeats: int = 1,
    y: Tensor | None = None,
    clip: bool = True,
    times: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Step]:
    """Ancestral sampling around what is known: at every s, the known part of x_s is that of `known`, noised to s.

    Repeated, this is RePaint (Lugmayr et al., 2022, algorithm 1): from each s the way back up to t is taken, by adding
    noise, and the step is made again, so that what is made up has seen its surroundings more than once. What comes out
    looks right at the seams. It is not a draw from p(unknown | known), not even with many repeats and an exact network.

    known:     (B, ...) data, images in [-1, 1]; any finite numbers where it is unknown
    mask:      1 where `known` is known, 0 where it is not, of a shape that broadcasts to known's. Or a function of a
               batch that returns its known part, an orthogonal projection: with partial(block_means, size=4) the means
               of blocks are known, and pixels are made up (Choi et al., 2021, with these means as the low-pass)
    steps:     number of steps down, at most T (the default); with repeats, network calls are about `repeats` times that
    repeats:   how often each step but the last is made; 1 is plain replacement
    yields     a Step for every network call, and, with repeats, one for every way up, where t < s
    raises     ValueError, at the first step, if known, mask, repeats or the others do not fit

    The other arguments are those of `ancestral_steps`. The known part is noised with its own share of the z that the
    sampler draws, so with the same generator other masks see the same noise, and an empty one changes nothing.
    """
    known, times = as_tensor("known", known), falling_times(diffusion.schedule.T, steps, times)
    check_float(known)
    part = mask if callable(mask) else partial(torch.mul, _mask(mask, known))
    visited = times[:1]
    for t, s in pairwise(times):
        visited += [s, t] * (whole("repeats", repeats, 1) - 1 if s > 0 else 0) + [s]

    def replaced(x: Tensor, s: int, z: Tensor | float) -> Tensor:
        signal, sigma = diffusion.schedule.q_coefficients(s, x)
        return x - part(x) + part(signal * known + sigma * z)

    x_T = torch.randn(known.shape, dtype=known.dtype, device=known.device, generator=generator)
    yield from walk(net, diffusion, x_T, visited, _down_and_up, y=y, clip=clip, generator=generator, change=replaced)


def _down_and_up(diffusion: GaussianDiffusion, alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> tuple[Tensor, ...]:
    """The ancestral step where s is earlier than t; where it is later, q(x_s | x_t), which does not look at x_0."""
    keep = alpha_bar_s / alpha_bar_t
    up = torch.zeros_like(keep), keep.sqrt(), (1 - keep).sqrt()
    down = ancestral_coefficients(diffusion, alpha_bar_t, alpha_bar_s)
    return tuple(torch.where(keep < 1, *both) for both in zip(up, down, strict=True))


def _mask(mask: Any, known: Tensor) -> Tensor:
    mask = as_tensor("mask", mask).to(known.device)
    try:
        fits = torch.broadcast_shapes(mask.shape, known.shape) == known.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"mask must have known's shape, {tuple(known.shape)}, or broadcast to it; got {tuple(mask.shape)}"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask must hold 1 where the data is known and 0 where it is not, and nothing between")
    return mask.to(known.dtype)


def block_means(x: Tensor, size: int) -> Tensor:
    """(B, C, H, W) with every pixel replaced by the mean of its block of size x size: what a small picture knows.

    raises ValueError if the blocks do not tile the image
    """
    size = whole("size", size, 1)
    if x.ndim != 4 or x.shape[2] % size or x.shape[3] % size:
        raise ValueError(f"blocks of {size} x {size} must tile images (B, C, H, W); got shape {tuple(x.shape)}")
    means = nn.functional.avg_pool2d(x, size)  # (B, C, H / size, W / size)
    return means.repeat_interleave(size, 2).repeat_interleave(size, 3)


def edit_steps(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    drawing: Tensor,
    strength: float,
    steps: int | None = None,
    *,
    sampler: Callable[..., Iterator[Step]] = ancestral_steps,
    generator: torch.Generator | None = None,
    **others: Any,
) -> Iterator[Step]:
    """SDEdit (Meng et al., 2022): noise a drawing part of the way, and let the sampler make data of it from there.

    drawing:   (B, ...) in the data's range; a rough one, as only what survives the noise is kept
    strength:  how far up, as a share of T: 0 hands the drawing back in one step, 1 keeps next to nothing of it
    steps:     number of steps from there down; by default, and at most, as many as there are times
    sampler:   `ancestral_steps` or another that takes the same arguments
    others:    as the sampler takes them: y, clip and so on
    raises     ValueError, at the first step, if the drawing is not floats, strength is not from 0 to 1, or as the
               sampler does
    """
    drawing = as_tensor("drawing", drawing)
    check_float(drawing)
    first = round(number("strength", strength, 0, 1) * diffusion.schedule.T)
    if first == 0:
        yield Step(1, 1, 0, 0, drawing, drawing)
        return
    noise = torch.randn(drawing.shape, dtype=drawing.dtype, device=drawing.device, generator=generator)
    x = q_sample(diffusion.schedule, drawing, first, noise)
    times = spaced_timesteps(first, None if steps is None else min(whole("steps", steps, 1), first))
    yield from sampler(net, diffusion, tuple(x.shape), times=times, x_T=x, generator=generator, **others)
