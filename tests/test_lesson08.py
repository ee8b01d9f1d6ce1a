"""The numbers that lesson 08 states, against truths that the lesson does not compute with."""

import numpy as np
import pytest
import torch

from ddpm_course import toy
from ddpm_course.bound import bits_per_dim
from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.metrics import features, frechet_distance, gaussian_frechet
from ddpm_course.schedules import cosine_schedule


@pytest.fixture(scope="module")
def held_out():
    return load_images(split="test", limit=2000)


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


def test_the_line_against_one_over_n_finds_the_distance_of_infinitely_many(lesson):
    """12 dimensions, N(0.5, I) against N(0, I) itself, so d² = 3. Averages of 200 sets of 200 to 2,000 samples are too
    large by 51/n, 0.26 to 0.03; the lesson's fit ends within 0.02 of 3."""
    draws = torch.randn(400_000, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    zero, one, sizes = torch.zeros_like(draws[0]), torch.eye(12).double(), torch.tensor([200, 400, 800, 2000])
    distances = [
        np.mean([gaussian_frechet(x.mean(0), x.T.cov(), zero, one) for x in draws[: 200 * n].split(n)]) for n in sizes
    ]
    assert distances[0] > 3.2 and distances == sorted(distances, reverse=True)
    limit = lesson.run("ex-8-4")["frechet_limit"](sizes, torch.tensor(distances, dtype=torch.float64))
    assert limit == pytest.approx(3, abs=0.02)


def test_the_judge_ignores_the_mirror_and_hates_grain(held_out):
    """1,000 held-out images against another 1,000: mirrored at most 1.6 times as far, grain at least 20 times."""
    x = held_out[0][:1000].float() / 127.5 - 1
    target = features(held_out[0][1000:])
    clean, mirrored = frechet_distance(x, target), frechet_distance(x.flip(3), target)
    grain = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    assert mirrored < 1.6 * clean
    assert frechet_distance(x + grain, target) > 20 * clean


def test_scores_of_counts_that_are_chance(lesson):
    """4,000 draws of 1,000 images in ten classes: the scores have mean 0, deviation 1, and 3 is rare (seed 0)."""
    shares = np.array([0.1, 0.1, 0.12, 0.1, 0.09, 0.1, 0.08, 0.1, 0.11, 0.1])
    counts = torch.from_numpy(np.random.default_rng(0).multinomial(1000, shares, 4000))
    score = lesson.run("ex-8-6")["count_scores"]
    z = torch.stack([score(c, torch.from_numpy(shares)) for c in counts])
    assert z.mean().abs() < 0.02 and abs(z.std() - 1) < 0.02
    assert 0.001 < (z.abs() > 3).double().mean() < 0.005
