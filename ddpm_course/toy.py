"""Gaussian mixtures: data whose diffusion is known exactly (lessons 01, 05 and 06).

Noise a Gaussian mixture and it stays one. So its density at every t, the best possible noise prediction
E[noise | x_t] and the reverse transition q(x_s | x_t) are formulas. An exact network lets you test a
schedule and a sampler with no training at all, and gives the squared-error loss a known floor.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import whole
from .diffusion import GaussianDiffusion, posterior_coefficients
from .schedules import Schedule


@dataclass(frozen=True)
class Mixture:
    """A mixture of K round Gaussians on data of any shape.

    weights:  (K,) positive, summing to 1; (B, K) for one mixture an item
    means:    (K, ...) one point of the data space each; (B, K, ...) for one mixture an item
    stds:     (K,) standard deviations, the same in every direction; 0 makes a component a point
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """(n, ...) independent draws from one mixture."""
        n = whole("n", n, 1)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, *self.means.shape[1:], dtype=self.means.dtype, generator=generator)
        return self.means[k] + self.stds[k].reshape(-1, *[1] * (noise.ndim - 1)) * noise

    def noised(self, schedule: Schedule, t: int) -> "Mixture":
        """The distribution of x_t: means times sqrt(alpha_bar), variances alpha_bar std^2 + 1 - alpha_bar."""
        alpha_bar = _alpha_bar(schedule, t)
        variances = alpha_bar * self.stds**2 + 1 - alpha_bar
        return Mixture(self.weights, math.sqrt(alpha_bar) * self.means, variances.sqrt())

    def log_prob(self, x: Tensor) -> Tensor:
        """(B,) log-density at x (B, ...)."""
        return self._joint(x).logsumexp(1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """(B, K) probability of each component given x (B, ...)."""
        return self._joint(x).softmax(1)

    def _joint(self, x: Tensor) -> Tensor:
        """(B, K) log of weight times density."""
        means = self.means.flatten(1)  # (K, D)
        distance = torch.cdist(x.flatten(1), means, compute_mode="donot_use_mm_for_euclid_dist") ** 2  # (B, K)
        variance = self.stds**2
        return self.weights.log() - distance / (2 * variance) - means.shape[1] / 2 * (2 * math.pi * variance).log()

    def expected_x0(self, schedule: Schedule, xt: Tensor, t: int) -> Tensor:
        """E[x_0 | x_t], (B, ...): in each component linear in x_t, weighted by the responsibilities."""
        mean, _ = self._x0_given(schedule, xt, t)
        r = self.noised(schedule, t).responsibilities(xt)
        return torch.einsum("bk,bk...->b...", r, mean)

    def predict_noise(self, schedule: Schedule, xt: Tensor, t: int) -> Tensor:
        """E[noise | x_t], (B, ...): what a perfect network would output. No network has a smaller squared error."""
        signal, sigma = schedule.q_coefficients(t, xt)
        return (xt - signal * self.expected_x0(schedule, xt, t)) / sigma

    def posterior(self, schedule: Schedule, xt: Tensor, t: int, s: int) -> "Mixture":
        """q(x_s | x_t) for each x_t (B, ...): a mixture again, with weights (B, K) and means (B, K, ...).

        Within a component x_0 given x_t is Gaussian, and x_s given both is q_posterior's Gaussian; x_0 is
        integrated out. Use `density_1d` to draw it.
        """
        t = whole("t", t, 1, schedule.T)
        s = whole("s", s, 0, t - 1, ", before t")  # in a table, -1 would be the last entry
        mean, variance = self._x0_given(schedule, xt, t)  # (B, K, ...), (K,)
        coefficients = posterior_coefficients(schedule.alpha_bar[t], schedule.alpha_bar[s])
        on_x0, on_xt, beta_tilde = map(float, coefficients)
        r = self.noised(schedule, t).responsibilities(xt)
        return Mixture(r, on_x0 * mean + on_xt * xt[:, None], (beta_tilde + on_x0**2 * variance).sqrt())

    def _x0_given(self, schedule: Schedule, xt: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Mean (B, K, ...) and variance (K,) of x_0 given x_t and the component."""
        alpha_bar = _alpha_bar(schedule, t)
        gain = math.sqrt(alpha_bar) * self.stds**2 / (alpha_bar * self.stds**2 + 1 - alpha_bar)  # (K,)
        gain_ = gain.reshape(-1, *[1] * (xt.ndim - 1))
        mean = self.means + gain_ * (xt[:, None] - math.sqrt(alpha_bar) * self.means)  # (B, K, ...)
        return mean, self.stds**2 * (1 - math.sqrt(alpha_bar) * gain)


def _alpha_bar(schedule: Schedule, t: int) -> float:
    return float(schedule.alpha_bar[whole("t", t, 0, schedule.T)])


def density_1d(mixture: Mixture, grid: Tensor, item: int = 0) -> Tensor:
    """The density of a 1-D mixture (means (K, 1)) on a grid (N,); of one item where there is one an item."""
    weights, means = mixture.weights, mixture.means
    if weights.ndim == 2:
        weights, means = weights[item], means[item]
    return Mixture(weights, means, mixture.stds).log_prob(grid[:, None]).exp()


def transport_1d(mixture: Mixture, schedule: Schedule, x: Tensor, t: int, s: int) -> Tensor:
    """Where the equation without noise, which DDIM solves, takes points of a 1-D mixture from x_t to x_s (lesson 09).

    The equation has the law of x_t at every t, and on a line its curves cannot cross. So the share of points below a
    curve stays the same: F_s(x_s) = F_t(x_t). The distribution functions are known, and bisection solves for x_s.

    x:       (N,) points, float64 for an exact answer
    t, s:    the level they are at and the one to go to, 0…T
    returns  (N,) points at s
    """
    share, high = _share_below(mixture, schedule, x, t), torch.full_like(x, 10.0)
    low = -high
    for _ in range(60):
        middle = (low + high) / 2
        below = _share_below(mixture, schedule, middle, s) < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _share_below(mixture: Mixture, schedule: Schedule, x: Tensor, t: int) -> Tensor:
    """(N,) the distribution function of x_t at x."""
    noised = mixture.noised(schedule, t)
    return torch.special.ndtr((x[:, None] - noised.means[:, 0]) / noised.stds) @ noised.weights


def bimodal(dtype: torch.dtype = torch.float32) -> Mixture:
    """Two unequal peaks on a line, (N, 1), within [-1, 1]: at -0.6 and 0.5."""
    weights, means, stds = torch.tensor([[0.4, 0.6], [-0.6, 0.5], [0.08, 0.12]], dtype=dtype)
    return Mixture(weights, means[:, None], stds)


def ring(dtype: torch.dtype = torch.float32) -> Mixture:
    """Eight blobs, of standard deviation 0.06, on a circle of radius 0.8 in the plane, (N, 2)."""
    angle = torch.arange(8, dtype=dtype) * (math.pi / 4)
    means = 0.8 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return Mixture(torch.full((8,), 1 / 8, dtype=dtype), means, torch.full((8,), 0.06, dtype=dtype))


def oracle(mixture: Mixture, diffusion: GaussianDiffusion):
    """The exact network for data drawn from `mixture`: net(x, t, y=None) with the outputs diffusion.predicts names.

    t may differ within the batch; a batch with one t, as in sampling, is one call.
    """

    def net(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        out = torch.empty_like(x)
        for step in t.unique().tolist():
            here = t == step
            x0 = mixture.expected_x0(diffusion.schedule, x[here], step)
            signal, sigma = diffusion.schedule.q_coefficients(step, x0)
            out[here] = diffusion.target(x0, (x[here] - signal * x0) / sigma, step)
        return out

    return net
