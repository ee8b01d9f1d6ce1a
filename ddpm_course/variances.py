"""The best variance of a reverse step, and a chain of a few steps as a chain of its own (lesson 12).

q(x_s | x_t, x_0) is a Gaussian of variance beta-tilde, whose mean moves with x_0. A network does not know x_0: it puts
its mean where the estimate of x_0 says, and misses the right one by on_x0 times the error of that estimate. So the
variance that makes the bound smallest is beta-tilde plus on_x0^2 times the mean squared error, for every network. (Bao
et al., 2022, "Analytic-DPM", take it from the score; for an exact network the two agree.)
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import as_labels, whole
from .bound import strata_of, wide
from .diffusion import GaussianDiffusion, posterior_coefficients, q_sample
from .nets import call, device_of, evaluating
from .pixels import as_images, in_unit_range
from .schedules import Schedule, schedule_through
from .times import falling_times


def best_variances(schedule: Schedule, errors: Tensor) -> Tensor:
    """(T+1,) float64, the best variance of the step from each t to t - 1; entry 0 is 0. For `bits_per_dim`.

    errors: (T+1,) the mean squared error of the estimate of x_0 at each t, per number: see `squared_errors`
    raises  ValueError if errors have another shape
    """
    diffusion, alpha_bar = GaussianDiffusion(schedule, "x0"), schedule.alpha_bar
    sigma = best_coefficients(diffusion, alpha_bar[1:], alpha_bar[:-1], errors)[2]
    return torch.cat([sigma.new_zeros(1), sigma**2])


def best_coefficients(
    diffusion: GaussianDiffusion, alpha_bar_t: Tensor, alpha_bar_s: Tensor, errors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """on_x0, on_xt and sigma of the best step, at any stride, float64 (steps,) each.

    A sampler takes partial(best_coefficients, errors=...) as its `coefficients`.
    """
    table = diffusion.schedule.alpha_bar
    if errors.shape != table.shape:
        raise ValueError(f"errors must have shape ({len(table)},), one for each t from 0, got {tuple(errors.shape)}")
    t = (table[:, None] > alpha_bar_t).sum(0)  # alpha_bar falls: as many entries are larger
    on_x0, on_xt, beta_tilde = posterior_coefficients(alpha_bar_t, alpha_bar_s)
    return on_x0, on_xt, (beta_tilde + on_x0**2 * errors.cpu().double()[t]).sqrt()


@torch.no_grad()
def squared_errors(
    net: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 50,
    clip: bool = True,
    batch_size: int = 250,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(T+1,) float64: how far the network's estimate of x_0 is from x_0, squared, on average, at each t; 0 at t = 0.

    net:       any callable net(x, t, y) whose output means what diffusion.predicts says
    images:    (N, ...) data that it was not trained on: uint8, or floats
    labels:    (N,), or None
    steps:     so many of the T are measured, most of them where t is small, with one draw of noise for each image.
               Between them the error in units of 1 - alpha_bar_t is interpolated
    clip:      clip the estimate to [-1, 1], as the samplers do
    raises     ValueError if there are no images, or labels or numbers do not fit
    """
    schedule, device = diffusion.schedule, device_of(net)
    images = as_images("images", images)
    if images.numel() == 0:
        raise ValueError("there are no images to measure")
    if labels is not None:
        labels = as_labels("labels", labels, len(images), getattr(net, "num_classes", None)).to(device)
    times = {first for first, _ in strata_of(schedule.T, whole("steps", steps, min(2, schedule.T), schedule.T))}
    times, measured = sorted(times | {schedule.T}), []
    with evaluating(net):
        for t in times:
            total = 0.0
            for rows in torch.arange(len(images)).split(whole("batch_size", batch_size, 1)):
                x0, y = in_unit_range(images[rows].to(device)), None if labels is None else labels[rows.to(device)]
                noise = torch.randn(x0.shape, device=device, dtype=x0.dtype, generator=generator)
                xt, step = q_sample(schedule, x0, t, noise), torch.full(x0.shape[:1], t, device=device)
                estimate, _ = diffusion.decode(call(net, xt, step, y).to(xt.dtype), xt, t)
                estimate = estimate.clamp(-1, 1) if clip else estimate
                total = total + wide(estimate - x0).square().sum()
            measured.append(total / images.numel())
    units = (1 - schedule.alpha_bar).numpy()
    shares = torch.stack(measured).cpu().double().numpy() / units[times]
    return torch.from_numpy(units * np.interp(np.arange(schedule.T + 1), times, shares))


class Respaced(nn.Module):
    """A network for a chain that visits a few of its times, and counts them 1, 2, …

    times: (K+1,) which of the network's times is which of the chain's, from 0 upward
    """

    def __init__(self, net: Callable[..., Tensor], times: Tensor):
        super().__init__()
        self.net, self.num_classes = net, getattr(net, "num_classes", None)
        self.self_condition = getattr(net, "self_condition", False)
        self.register_buffer("times", times.to(device_of(net)), persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None) -> Tensor:
        return call(self.net, x, self.times[t], y, x_self)


def respaced(
    net: Callable[..., Tensor], diffusion: GaussianDiffusion, times: Sequence[int]
) -> tuple[Respaced, GaussianDiffusion]:
    """A chain that visits only `times`, as a network and a diffusion of its own (Nichol and Dhariwal, 2021, section 4).

    Its first step, its bound and its variances are then those of the short chain: bits_per_dim(*respaced(...), images).

    times:  as a sampler's, falling to 0: spaced_timesteps(T, K)
    raises  ValueError if they do not
    """
    rising = torch.tensor(falling_times(diffusion.schedule.T, None, times)).flip(0)
    schedule = schedule_through(diffusion.schedule.alpha_bar[rising[1:]], zero_snr=True)
    return Respaced(net, rising), replace(diffusion, schedule=schedule)
