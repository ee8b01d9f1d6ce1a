"""The numbers that lesson 08 states, against truths that the lesson does not compute with."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
import torch

from ddpm_course import toy
from ddpm_course.bound import bits_per_dim
from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.metrics import features, frechet_distance, gaussian_frechet, memorised, nearest_neighbours
from ddpm_course.schedules import cosine_schedule, linear_schedule


@pytest.fixture(scope="module")
def held_out():
    return load_images(split="test", limit=2000)


@pytest.mark.parametrize(("schedule", "stated"), [(linear_schedule(), 0.89), (cosine_schedule(), 0.52)])
def test_the_floor_of_the_last_step(held_out, schedule, stated):
    """With scipy's normal distribution, level by level over the histogram of the same 100 images."""
    a1, a2 = schedule.alpha_bar[1:3]
    std = ((1 - a2 / a1) * (1 - a1) / (1 - a2)).sqrt().item()
    share = np.bincount(held_out[0][:100].numpy().ravel(), minlength=256) / (100 * 784)
    inner = scipy.stats.norm.cdf(1 / 255, 0, std) - scipy.stats.norm.cdf(-1 / 255, 0, std)
    outer = scipy.stats.norm.cdf(1 / 255, 0, std)
    ends = share[0] + share[255]
    assert -(ends * math.log2(outer) + (1 - ends) * math.log2(inner)) == pytest.approx(stated, abs=0.005)


def test_the_weight_of_a_step_is_half_the_drop_in_snr(lesson):
    cell = lesson.run("step-identity")
    assert "the same at all 999 steps: True" in cell["printed"]
    a = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert cell["by_snr"][0].item() == pytest.approx((a[0] / (1 - a[0]) - a[1] / (1 - a[1])) / 2, rel=1e-9)


def test_the_exact_value_that_the_bound_is_held_against():
    """-0.26 bits: the entropy of the mixture by quadrature, to 3 standard errors of 1,000 points, 0.1 bits."""
    p = lambda x: 0.4 * scipy.stats.norm.pdf(x, -0.6, 0.08) + 0.6 * scipy.stats.norm.pdf(x, 0.5, 0.12)  # noqa: E731
    entropy, _ = scipy.integrate.quad(lambda x: -p(x) * math.log2(p(x)), -1.2, 1.2, points=[-0.6, 0.5], limit=200)
    assert entropy == pytest.approx(-0.26, abs=0.1)


def test_what_gambling_costs(lesson):
    """Two models of one pixel, exactly: 1 % of a sharp one and 99 % uniform costs log2(100) bits at the very most."""
    sharp = np.exp(-((np.arange(256) - 90) ** 2) / 50)
    sharp /= sharp.sum()
    gamble = 0.01 * sharp + 0.99 / 256
    worse = (sharp * np.log2(sharp / gamble)).sum()
    assert 0 < worse < math.log2(100)
    bits = lesson.run("ex-8-1")["bits_per_dimension"]
    assert bits(math.log(100), (1, 28, 28)) == pytest.approx(math.log2(100) / 784)
    assert bits(math.log(100), (1, 28, 28)) == pytest.approx(0.0085, abs=5e-5)


def test_the_copier_pays_the_floor_at_home_and_thousands_of_bits_abroad(held_out):
    training = load_images(limit=100)[0]
    memory = toy.Mixture(torch.full((100,), 0.01), training.float() / 127.5 - 1, torch.zeros(100))
    diffusion = GaussianDiffusion(cosine_schedule(), "x0")
    home, abroad = (
        bits_per_dim(toy.oracle(memory, diffusion), diffusion, x, steps=12, generator=torch.Generator().manual_seed(0))
        for x in (training[::20], held_out[0][:5])
    )
    assert 0.4 < home.terms[1] < 0.6 and home.terms[2:].sum() < 0.05  # the floor is 0.52 on average
    assert abroad.bits > 1000


def test_the_three_pairs_of_gaussians(lesson):
    """2.25, 2 and 1.6: by hand for the first two, by scipy's matrix root for the third."""
    cell = lesson.run("ex-8-3", "frechet-pairs")
    assert cell["printed"].strip() == "{'moved': 2.25, 'stretched': 2.0, 'turned': 1.6}"
    a, b = np.array([[1, 0.8], [0.8, 1]]), np.array([[1, -0.8], [-0.8, 1]])
    assert np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b)).real == pytest.approx(1.6)


def test_the_line_against_one_over_n_finds_the_distance_of_infinitely_many(lesson):
    """12 dimensions, N(0.5, I) against N(0, I) itself, so d² = 3. Averages of 200 sets of 200 to 2,000 samples are too
    large by 51/n, 0.26 to 0.03; the lesson's fit ends within 0.02 of 3."""
    draws = torch.randn(400_000, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    sizes = torch.tensor([200, 400, 800, 2000])
    zero, one = torch.zeros(12, dtype=torch.float64), torch.eye(12, dtype=torch.float64)
    sets = [draws[: 200 * n].split(n) for n in sizes.tolist()]
    distances = torch.tensor(
        [np.mean([gaussian_frechet(x.mean(0), x.T.cov(), zero, one) for x in some]) for some in sets],
        dtype=torch.float64,
    )
    limit = lesson.run("ex-8-4")["frechet_limit"](sizes, distances)
    assert limit == pytest.approx(3, abs=0.02)
    assert distances[0] > 3.2 and (distances.diff() < 0).all()


def test_the_judge_ignores_the_mirror_and_hates_grain(held_out):
    """1,000 held-out images against another 1,000: mirrored at most 1.6 times as far, grain at least 20 times."""
    x = held_out[0][:1000].float() / 127.5 - 1
    target = features(held_out[0][1000:])
    clean, mirrored = frechet_distance(x, target), frechet_distance(x.flip(3), target)
    grain = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    assert mirrored < 1.6 * clean
    assert frechet_distance(x + grain, target) > 20 * clean


def test_copies_in_other_clothes_slip_past_pixels():
    training = load_images(limit=3000)[0]
    own = training[::60]
    rows = torch.arange(0, 3000, 60)
    by_pixels = nearest_neighbours(own.flip(3), training)[1][:, 0] == rows
    by_features = nearest_neighbours(features(own.flip(3)), features(training))[1][:, 0] == rows
    assert by_pixels.float().mean() < 0.6 < by_features.float().mean()
    assert memorised(nearest_neighbours(own, training, 2)[0]).all()


def test_scores_of_counts_that_are_chance(lesson):
    """4,000 draws of 1,000 images in ten classes: the scores have mean 0, deviation 1, and 3 is rare (seed 0)."""
    shares = np.array([0.1, 0.1, 0.12, 0.1, 0.09, 0.1, 0.08, 0.1, 0.11, 0.1])
    counts = torch.from_numpy(np.random.default_rng(0).multinomial(1000, shares, 4000))
    score = lesson.run("ex-8-6")["count_scores"]
    z = torch.stack([score(c, torch.from_numpy(shares)) for c in counts])
    assert z.mean().abs() < 0.02 and abs(z.std() - 1) < 0.02
    assert 0.001 < (z.abs() > 3).double().mean() < 0.005


def test_the_answers_of_the_quiz():
    assert 3.5 * 784 / 8 == 343
    assert math.log2(10) / 784 == pytest.approx(0.0042, abs=5e-5)
    assert scipy.stats.binomtest(0, 1000).proportion_ci(0.90).high == pytest.approx(0.003, abs=2e-4)
