"""The numbers that lesson 08 states, against truths that the lesson does not compute with."""

import numpy as np
import pytest
import scipy.stats
import torch

from ddpm_course import toy
from ddpm_course.bound import bits_per_dim
from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.metrics import features, frechet_distance, gaussian_frechet
from ddpm_course.schedules import cosine_schedule, linear_schedule


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
    zero, one, sizes = torch.zeros_like(draws[0]), torch.eye(12).double(), torch.tensor([200, 400, 800, 2000]).double()
    distances = [
        np.mean([gaussian_frechet(x.mean(0), x.T.cov(), zero, one) for x in draws[: 200 * n].split(n)])
        for n in sizes.int()
    ]
    assert distances[0] > 3.2 and distances == sorted(distances, reverse=True)
    limit = lesson.run("ex-8-4")["frechet_limit"](sizes, torch.tensor(distances, dtype=torch.float64))
    assert limit == pytest.approx(3, abs=0.02)


def test_the_judge_ignores_the_mirror_and_hates_noise(held_out):
    """1,000 held-out images against another 1,000: mirrored at most 1.6 times as far; noise of 2.5 grey levels farther
    than the mirror, noise of 12.5 at least 20 times as far."""
    x = held_out[0][:1000].float() / 127.5 - 1
    target = features(held_out[0][1000:])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(8)) / 127.5
    changed = (x, x.flip(3), x + 2.5 * noise, x + 12.5 * noise)
    clean, mirrored, fine, coarse = (frechet_distance(y, target) for y in changed)
    assert mirrored < 1.6 * clean and mirrored < fine and coarse > 20 * clean


def test_the_bound_holds_for_the_average_and_not_for_every_draw():
    """2,000 points of the mixture with its exact denoiser (seed 5): the gap is 0.24 bits, as lesson 05 computes, to four
    standard errors, and a fifth of the draws at least are below the exact value."""
    mixture = toy.bimodal(torch.float64)
    chain = GaussianDiffusion(linear_schedule(100), "noise", "large")
    points = mixture.sample(2000, generator=torch.Generator().manual_seed(4))
    bound = bits_per_dim(
        toy.oracle(mixture, chain),
        chain,
        points,
        continuous=True,
        clip=False,
        generator=torch.Generator().manual_seed(5),
    )
    weights, means, stds = np.array([0.4, 0.6]), np.array([-0.6, 0.5]), np.array([0.08, 0.12])
    density = (weights * scipy.stats.norm.pdf(points.numpy().reshape(-1, 1), means, stds)).sum(1)
    gap = bound.per_image.numpy() + np.log2(density)
    assert abs(gap.mean() - 0.24) < 4 * gap.std() / len(gap) ** 0.5
    assert (gap < 0).mean() > 0.2


def test_bits_of_a_density_are_those_of_the_levels(lesson):
    """Values from N(0.1, 0.3²), 2/255 apart: the density's bits and those of each level's own bin agree to 0.001."""
    values = torch.linspace(-120, 120, 241, dtype=torch.float64) * 2 / 255
    normal = scipy.stats.norm(0.1, 0.3)
    levels = -np.log2(normal.cdf(values + 1 / 255) - normal.cdf(values - 1 / 255))
    nats = -torch.from_numpy(normal.logpdf(values))
    found = lesson.run("ex-8-1")["bits_per_dimension"](nats, (1,), 2 / 255)
    assert np.abs(found.numpy() - levels).max() < 1e-3


def test_precision_and_recall_of_sets_that_are_known(lesson):
    """In two dimensions, 1,000 points each: one distribution gives the same share both ways, to 0.05; of two clusters
    of which the samples have one, precision stays and recall is about half of it; far away both are 0."""
    inside = lesson.run("ex-8-7")["inside_balls"]
    g = torch.Generator().manual_seed(12)
    real, other, one = (torch.randn(1000, 2, generator=g, dtype=torch.float64) for _ in range(3))
    side = torch.tensor([9.0, 0.0]) * (torch.arange(1000) % 2)[:, None]

    def share(a, b):
        return inside(a, b, 3).double().mean().item()

    assert abs(share(real, other) - share(other, real)) < 0.05 and share(real, other) > 0.9
    assert share(one, real + side) > 0.9 and share(real + side, one) == pytest.approx(0.49, abs=0.05)
    assert share(one + 50, real) == share(real, one + 50) == 0


def test_scores_of_counts_that_are_chance(lesson):
    """4,000 draws of 1,000 images in ten classes: the scores have mean 0, deviation 1, and 3 is rare (seed 0)."""
    shares = np.array([0.1, 0.1, 0.12, 0.1, 0.09, 0.1, 0.08, 0.1, 0.11, 0.1])
    counts = torch.from_numpy(np.random.default_rng(0).multinomial(1000, shares, 4000))
    score = lesson.run("ex-8-6")["count_scores"]
    z = torch.stack([score(c, torch.from_numpy(shares)) for c in counts])
    assert z.mean().abs() < 0.02 and abs(z.std() - 1) < 0.02
    assert 0.001 < (z.abs() > 3).double().mean() < 0.005
