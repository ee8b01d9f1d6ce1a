"""The mixtures: against sums over fine grids that know nothing of the formulas."""

import math

import pytest
import torch

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import Mixture, bimodal, density_1d, oracle, ring

F64 = torch.float64
SCHEDULE = linear_schedule(100)
GRID = torch.linspace(-6, 6, 48_001, dtype=F64)  # for x_0 or x_s: 0.00025 apart, a 40th of the narrowest peak
DX = (GRID[1] - GRID[0]).item()


def normal(x, mean, variance):
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def density_of_x0(grid):
    return 0.4 * normal(grid, -0.6, 0.08**2) + 0.6 * normal(grid, 0.5, 0.12**2)


@pytest.mark.parametrize("t", [0, 1, 30, 100])
def test_density_is_the_convolution_and_integrates_to_one(t):
    """p(x_t) = ∫ p(x_0) q(x_t | x_0) dx_0, summed on 48,001 points; 1e-6."""
    noised = bimodal(F64).noised(SCHEDULE, t)
    density = density_1d(noised, GRID)
    assert abs((density.sum() * DX).item() - 1) < 1e-6
    points = torch.tensor([-1.5, -0.61, -0.1, 0.0, 0.45, 0.9], dtype=F64)
    ab = SCHEDULE.alpha_bar[t].item()
    expected = density_of_x0(points)
    if t:
        kernel = normal(points[:, None], math.sqrt(ab) * GRID, 1 - ab)  # (6, 48001)
        expected = (density_of_x0(GRID) * kernel).sum(1) * DX
    assert (noised.log_prob(points[:, None]).exp() - expected).abs().max() < 1e-6


def test_density_of_the_ring_integrates_to_one_in_the_plane():
    axis = torch.linspace(-1.5, 1.5, 301, dtype=F64)
    total = ring(dtype=F64).log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(total.item() - 1) < 1e-6


@pytest.mark.parametrize("t", [1, 2, 30, 100])
def test_noise_prediction_is_the_integral(t):
    """E[noise | x_t] = ∫ noise p(noise) p(x_0(noise)) …, written over x_0; absolute error 1e-6 at points under both peaks,
    between them and far outside."""
    ab = SCHEDULE.alpha_bar[t].item()
    points = torch.tensor([-3.0, -0.7, -0.55, -0.05, 0.0, 0.4, 0.7, 2.5], dtype=F64)
    got = bimodal(F64).predict_noise(SCHEDULE, points[:, None], t)[:, 0]
    noise = (points[:, None] - math.sqrt(ab) * GRID) / math.sqrt(1 - ab)  # (8, 48001)
    weight = (density_of_x0(GRID).clamp(min=1e-300).log() - noise**2 / 2).softmax(1)
    assert (got - (weight * noise).sum(1)).abs().max() < 1e-6


@pytest.mark.parametrize("t, s", [(100, 99), (100, 50), (60, 20), (30, 29), (2, 1), (30, 0)])
def test_posterior_is_bayes_rule_on_a_grid(t, s):
    """q(x_s | x_t) ∝ q(x_t | x_s) p(x_s), with p(x_s) the density checked above; largest difference 1e-5 of the peak."""
    mixture = bimodal(F64)
    alpha = (SCHEDULE.alpha_bar[t] / SCHEDULE.alpha_bar[s]).item()
    before = density_1d(mixture.noised(SCHEDULE, s), GRID)
    points = torch.tensor([[-1.2], [-0.3], [0.0], [0.4]], dtype=F64)
    posterior = mixture.posterior(SCHEDULE, points, t, s)
    for i, x in enumerate(points[:, 0]):
        weight = normal(x, math.sqrt(alpha) * GRID, 1 - alpha) * before
        weight /= weight.sum() * DX
        got = density_1d(posterior, GRID, i)
        assert (got - weight).abs().max() < 1e-5 * weight.max()


def test_posterior_has_two_peaks_after_a_long_stride_and_one_after_a_short_one():
    """Why the reverse steps must be many: lesson 01's figure, as a count of local maxima."""
    xt = torch.zeros(1, 1, dtype=F64)

    def peaks(s):
        density = density_1d(bimodal(F64).posterior(SCHEDULE, xt, 60, s), GRID)
        left, inner, right = density[:-2], density[1:-1], density[2:]
        return int(((inner > left) & (inner >= right) & (inner > 1e-3 * density.max())).sum())

    assert peaks(59) == 1 and peaks(1) == 2


def test_samples_follow_the_density():
    """50,000 draws, seed 0: the largest distance between distribution functions stays under 2.2/sqrt(n) (p ≈ 1e-4)."""
    x = bimodal(F64).sample(50_000, generator=torch.Generator().manual_seed(0))[:, 0].sort().values
    cdf = sum(w * torch.special.ndtr((x - m) / s) for w, m, s in ((0.4, -0.6, 0.08), (0.6, 0.5, 0.12)))
    empirical = torch.arange(1, len(x) + 1, dtype=F64) / len(x)
    assert (cdf - empirical).abs().max() < 2.2 / len(x) ** 0.5


def test_oracle_with_t_that_differ_within_the_batch():
    """In one call as item by item, in every parametrisation, in the plane; float64, 1e-12."""
    mixture, schedule = ring(dtype=F64), cosine_schedule()
    x = torch.randn(12, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([5, 900, 5, 1, 1000, 300, 300, 1, 7, 900, 42, 5])
    for predicts in ("noise", "x0", "v"):
        diffusion = GaussianDiffusion(schedule, predicts)
        x0, noise = diffusion.decode(oracle(mixture, diffusion)(x, t), x, t)
        for i, step in enumerate(t.tolist()):
            item, (signal, sigma) = x[i : i + 1], schedule.q_coefficients(step, x[:1])
            assert ((noise[i] - mixture.predict_noise(schedule, item, step)) * sigma).abs().max() < 1e-12
            assert ((x0[i] - mixture.expected_x0(schedule, item, step)) * signal).abs().max() < 1e-12


def test_float32_is_close_to_float64():
    """At every t of the 1000-step schedules, at points drawn from x_t: 2e-3 at worst, where noise is 0.6 % of the data."""
    for schedule in (linear_schedule(), cosine_schedule()):
        x0 = bimodal(F64).sample(50, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(50, 1, dtype=F64, generator=torch.Generator().manual_seed(1))
        for t in (1, 2, 10, 100, 500, 999, 1000):
            xt = q_sample(schedule, x0, t, noise)
            low = bimodal().predict_noise(schedule, xt.float(), t)
            assert low.dtype == torch.float32
            assert (low - bimodal(F64).predict_noise(schedule, xt, t)).abs().max() < 2e-3


def test_points_as_components_are_the_training_set_oracle():
    """Images as components of width 0: E[x_0 | x_t] is their softmax-weighted mean, and at small t the nearest image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(7, 1, 4, 4, dtype=F64, generator=generator)
    points = Mixture(torch.full((7,), 1 / 7, dtype=F64), images, torch.zeros(7, dtype=F64))
    xt = q_sample(SCHEDULE, images, 60, torch.randn(7, 1, 4, 4, dtype=F64, generator=generator))
    ab = SCHEDULE.alpha_bar[60].item()
    distance = (xt[:, None] - math.sqrt(ab) * images).square().flatten(2).sum(2)
    weights = (-distance / (2 * (1 - ab))).softmax(1)
    expected = torch.stack([sum(w * image for w, image in zip(row, images, strict=True)) for row in weights])
    assert (points.expected_x0(SCHEDULE, xt, 60) - expected).abs().max() < 1e-12
    near = q_sample(SCHEDULE, images, 1, torch.zeros_like(images))
    assert (points.expected_x0(SCHEDULE, near, 1) - images).abs().max() < 1e-9
