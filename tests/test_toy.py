"""The mixtures: against sums over fine grids that know nothing of the formulas."""

import math

import pytest
import torch
from core import F64, cdf_of_bimodal, density, distance, normal, seeded

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import Mixture, bimodal, density_1d, oracle, ring

SCHEDULE = linear_schedule(100)
GRID = torch.linspace(-6, 6, 48_001, dtype=F64)  # for x_0 or x_s: 0.00025 apart, a 40th of the narrowest peak
DX = (GRID[1] - GRID[0]).item()
POINTS = torch.tensor([-3.0, -1.5, -0.7, -0.61, -0.05, 0.0, 0.45, 0.9, 2.5], dtype=F64)  # under, between, far outside


def density_of_x0(grid):
    return 0.4 * density(grid, -0.6, 0.08**2) + 0.6 * density(grid, 0.5, 0.12**2)


@pytest.mark.parametrize("t", [1, 2, 30, 100])
def test_density_is_the_convolution_and_noise_prediction_the_integral(t):
    """p(x_t) = ∫ p(x_0) q(x_t | x_0) dx_0 and E[noise | x_t], both summed over 48,001 values of x_0, to 1e-6."""
    noised, ab = bimodal(F64).noised(SCHEDULE, t), SCHEDULE.alpha_bar[t].item()
    expected = (density_of_x0(GRID) * density(POINTS[:, None], math.sqrt(ab) * GRID, 1 - ab)).sum(1) * DX
    assert (noised.log_prob(POINTS[:, None]).exp() - expected).abs().max() < 1e-6
    noise = (POINTS[:, None] - math.sqrt(ab) * GRID) / math.sqrt(1 - ab)  # (9, 48001)
    weight = (density_of_x0(GRID).clamp(min=1e-300).log() - noise**2 / 2).softmax(1)
    got = bimodal(F64).predict_noise(SCHEDULE, POINTS[:, None], t)[:, 0]
    assert (got - (weight * noise).sum(1)).abs().max() < 1e-6


def test_densities_without_noise():
    axis = torch.linspace(-1.5, 1.5, 301, dtype=F64)  # 0.01 apart
    assert abs(ring(dtype=F64).log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * 0.01**2 - 1) < 1e-6
    assert (density_1d(bimodal(F64).noised(SCHEDULE, 0), GRID) - density_of_x0(GRID)).abs().max() < 1e-6


@pytest.mark.parametrize("t, s", [(100, 99), (100, 50), (60, 20), (30, 29), (2, 1), (30, 0)])
def test_posterior_is_bayes_rule_on_a_grid(t, s):
    """q(x_s | x_t) ∝ q(x_t | x_s) p(x_s), with p(x_s) the density checked above; largest difference 1e-5 of the peak."""
    alpha = (SCHEDULE.alpha_bar[t] / SCHEDULE.alpha_bar[s]).item()
    before = density_1d(bimodal(F64).noised(SCHEDULE, s), GRID)
    points = torch.tensor([[-1.2], [-0.3], [0.0], [0.4]], dtype=F64)
    posterior = bimodal(F64).posterior(SCHEDULE, points, t, s)
    for i, x in enumerate(points[:, 0]):
        weight = density(x, math.sqrt(alpha) * GRID, 1 - alpha) * before
        weight /= weight.sum() * DX
        assert (density_1d(posterior, GRID, i) - weight).abs().max() < 1e-5 * weight.max()


def test_samples_follow_the_density():
    """50,000 draws, seed 0: the largest distance between distribution functions stays under 2.2/sqrt(n) (p ≈ 1e-4)."""
    x = bimodal(F64).sample(50_000, generator=seeded())[:, 0]
    assert distance(x, GRID, cdf_of_bimodal(GRID)) < 2.2 / len(x) ** 0.5


def test_oracle_with_t_that_differ_within_the_batch():
    """In one call as item by item, in every parametrisation, in the plane; float64, 1e-12."""
    mixture, schedule, x = ring(dtype=F64), cosine_schedule(), normal(12, 2)
    t = torch.tensor([5, 900, 5, 1, 1000, 300, 300, 1, 7, 900, 42, 5])
    for predicts in ("noise", "x0", "v"):
        diffusion = GaussianDiffusion(schedule, predicts)
        x0, noise = diffusion.decode(oracle(mixture, diffusion)(x, t), x, t)
        for i, step in enumerate(t.tolist()):
            item, (signal, sigma) = x[i : i + 1], schedule.q_coefficients(step, x[:1])
            assert ((noise[i] - mixture.predict_noise(schedule, item, step)) * sigma).abs().max() < 1e-12
            assert ((x0[i] - mixture.expected_x0(schedule, item, step)) * signal).abs().max() < 1e-12


def test_points_as_components_are_the_training_set_oracle():
    """Images as components of width 0: E[x_0 | x_t] is their softmax-weighted mean, and at small t the nearest image."""
    images, ab = normal(7, 1, 4, 4), SCHEDULE.alpha_bar[60].item()
    points = Mixture(torch.full((7,), 1 / 7, dtype=F64), images, torch.zeros(7, dtype=F64))
    xt = q_sample(SCHEDULE, images, 60, normal(7, 1, 4, 4, seed=1))
    away = (xt[:, None] - math.sqrt(ab) * images).square().flatten(2).sum(2)
    expected = torch.einsum("bk,k...->b...", (-away / (2 * (1 - ab))).softmax(1), images)
    assert (points.expected_x0(SCHEDULE, xt, 60) - expected).abs().max() < 1e-12
    near = q_sample(SCHEDULE, images, 1, torch.zeros_like(images))
    assert (points.expected_x0(SCHEDULE, near, 1) - images).abs().max() < 1e-9
