"""The numbers that lesson 03 states, against truths that the lesson does not compute with."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import scipy.stats
import torch
from core import MAKERS

from ddpm_course import checks
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import q_sample
from ddpm_course.schedules import Schedule

FOUR = linear, quadratic, sigmoid, cosine = [make() for make in MAKERS]


@pytest.fixture(scope="module")
def solved(lesson):
    """What the lesson's functions are, and its bundled network."""
    exercises = [f"ex-3-{i}" for i in range(1, 8)]
    cells = ("unevenness", "oracle-loss", "decode")
    return lesson.run(*exercises, *cells, schedules={}, paper=linear)


def test_the_function_that_is_to_be_repaired_is_told_that_it_is_as_it_was(lesson):
    found = lesson.run("found")["found_betas"]
    assert checks.linear_betas.check(found).mistake == "as_found"
    lengths = {T: len(found(T)) for T in range(2, 2001)}
    assert all(n in (T, T + 1) for T, n in lengths.items()) and lengths[27] == 28 and lengths[5] == 5


@pytest.mark.parametrize(("alpha_bar", "square"), [(1e-18, 0.25), (3e-12, 0.69), (4e-5, 2.5), (0.6, 0.3)])
def test_the_prior_term_in_sixty_digits(solved, alpha_bar, square):
    with localcontext(prec=60):
        a, m = Decimal(alpha_bar), Decimal(square)
        bits = (a * m - a - (1 - a).ln()) / (2 * Decimal(2).ln())
    mine = solved["prior_bits"](torch.tensor(alpha_bar, dtype=torch.float64), square)
    assert mine == pytest.approx(float(bits), rel=1e-6, abs=0)


def test_the_end_of_a_short_chain_can_be_decoded(solved):
    """The bundled network's guess from x_T lies nearest to its own image, among 64 that it never saw."""
    images = to_unit_range(load_images("bundled", "test", limit=64)[0])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for T in (200, 300, 1000):
        chain = Schedule(solved["linear_betas"](T))
        guess = solved["decode"](q_sample(chain, images, T, noise), chain.alpha_bar[-1])[0]
        nearest = torch.cdist(guess.flatten(1), images.flatten(1)).argmin(1)
        found[T] = (nearest == torch.arange(64)).float().mean().item()
    assert found[200] > 0.5 and found[300] > 0.2 and found[1000] < 0.1, found  # by chance: 1 in 64


def test_the_stored_samples_of_a_short_chain_are_too_bright_and_adapted_betas_bring_them_closer(lesson):
    """Of two seeds each, by more than three standard errors of the difference; the distances agree."""
    (data,), *drawn = lesson.numbers("train-two-numbers")
    (_, as_it_was, error), (_, same, _), (_, adapted, _), (_, also, _) = drawn
    assert min(as_it_was, same) - max(adapted, also) > 3 * 2**0.5 * error and min(adapted, also) > data
    distances = [numbers[-1] for numbers in lesson.numbers("train-cosine") if len(numbers) == 2]
    assert len(distances) == 6 and min(distances[:2]) > max(distances[2:])


def test_the_linear_filter_is_what_linear_algebra_says_and_the_network_beats_it(lesson):
    """The best linear guess is Cov(noise, x_t) Cov(x_t)^-1 (x_t - E x_t), solved here with no eigenvectors."""
    made = lesson.run("filter", "decode")
    x0 = made["to_unit_range"](load_images("bundled", "test", limit=32)[0])
    noise, ab = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    xt = ab.sqrt() * x0 + (1 - ab).sqrt() * noise
    clothes = load_images()[0].flatten(1).double() / 127.5 - 1
    covariance = 0.5 * np.cov(clothes.numpy().T) + 0.5 * np.eye(784)
    centred = xt.flatten(1).double() - 0.5**0.5 * clothes.mean(0)
    solved = 0.5**0.5 * np.linalg.solve(covariance, centred.numpy().T).T
    guess = made["linear_guess"](xt, ab.double(), made["variances"], made["directions"])
    assert np.abs(guess.flatten(1).numpy() - solved).max() < 1e-6

    def error(guess):
        return (guess - noise).square().mean()

    by_pixel = made["linear_guess"](xt, ab.double(), *made["by_pixel"])
    assert error(made["decode"](xt, 0.5)[1]) < 0.8 * error(guess) < 0.8 * error(by_pixel)


def test_unevenness_is_a_kolmogorov_smirnov_statistic(solved):
    for schedule, stated in zip(FOUR, (0.293, 0.224, 0.212, 0.224), strict=True):
        d = solved["unevenness"](schedule.alpha_bar)
        within = schedule.snr[1:].log().clamp(-10, 10).numpy()  # scipy's statistic is the same for what is not clamped
        assert d == pytest.approx(scipy.stats.kstest(within, scipy.stats.uniform(-10, 20).cdf).statistic, abs=1e-6)
        assert d == pytest.approx(stated, abs=5e-4)


@pytest.mark.parametrize("t", [20, 130, 400])
def test_the_oracles_loss_by_brute_force(solved, t):
    """E[Var(noise | x_t)] with the posterior of x_0 on a grid, in numpy, with no formula of the package."""
    ab = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t - 1]
    x0 = np.linspace(-1.2, 1.2, 1201)
    prior = 0.4 * scipy.stats.norm.pdf(x0, -0.6, 0.08) + 0.6 * scipy.stats.norm.pdf(x0, 0.5, 0.12)
    xt = np.linspace(-4, 4, 2001)
    noise = (xt[:, None] - math.sqrt(ab) * x0) / math.sqrt(1 - ab)
    joint = prior * np.exp(-(noise**2) / 2)  # (x_t, x_0), up to a constant
    density = joint.sum(1) + 1e-300
    mean, square = (joint * noise).sum(1) / density, (joint * noise**2).sum(1) / density
    brute = (density * (square - mean**2)).sum() / density.sum()
    assert solved["oracle_loss"](linear, t).item() == pytest.approx(brute, abs=2e-3)


def test_the_least_loss_depends_on_log_snr_alone_and_lies_below_the_straight_line(solved):
    v = 0.4 * (0.6**2 + 0.08**2) + 0.6 * (0.5**2 + 0.12**2) - (0.6 * 0.5 - 0.4 * 0.6) ** 2  # of the two peaks
    for t in (40, 260, 600):
        here = int((cosine.snr.log() - linear.snr[t].log()).abs().argmin())
        ab = float(linear.alpha_bar[t])
        loss, same = (solved["oracle_loss"](*step).item() for step in ((linear, t), (cosine, here)))
        assert loss == pytest.approx(same, abs=0.01)
        assert loss < ab * v / (ab * v + 1 - ab) + 1e-6
