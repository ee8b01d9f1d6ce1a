"""The numbers that lesson 02 states, against truths that the lesson does not compute with."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from ddpm_course.diffusion import q_step
from ddpm_course.schedules import Schedule, linear_schedule

SCHEDULE = linear_schedule(1000)
PEAKS = [(0.4, -0.6, 0.08), (0.6, 0.5, 0.12)]  # weight, mean, standard deviation of toy.bimodal


@pytest.mark.parametrize(
    ("n", "m", "shift"), [(500, 500, 0.0), (500, 2000, 0.1), (3000, 3000, 0.05), (50_000, 50_000, 0.01), (900, 900, 99)]
)
def test_the_lessons_kolmogorov_smirnov_test_is_scipys(lesson, n, m, shift):
    ks_test = lesson.run("ks-test", walked={})["ks_test"]
    rng = np.random.default_rng(n + m)
    x, y = rng.normal(size=n), rng.normal(size=m) + shift
    d, p = ks_test(torch.from_numpy(x), torch.from_numpy(y))
    assert d == pytest.approx(scipy.stats.ks_2samp(x, y).statistic, abs=1e-12)
    # the limit for large samples; scipy's "asymp" corrects it for finite ones, so it agrees within O(1/sqrt(n))
    assert p == pytest.approx(scipy.stats.kstwobign.sf(d * math.sqrt(n * m / (n + m))), abs=1e-9)
    assert p == pytest.approx(scipy.stats.ks_2samp(x, y, method="asymp").pvalue, abs=0.03)
    assert ks_test(torch.from_numpy(x), torch.from_numpy(x)) == (0.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.8), (0.3, 2.0)])
def test_merged_noises_have_the_density_of_the_sum(lesson, a, b):
    merged = lesson.run("ex-2-1")["merge_noises"](a, b)
    first, second = scipy.stats.norm(scale=a), scipy.stats.norm(scale=b)
    for z in (0.0, 0.7, 2.5):
        both = lambda u, z=z: first.pdf(u) * second.pdf(z - u)  # noqa: E731
        density, _ = scipy.integrate.quad(both, -20, 20, points=[0, z])
        assert density == pytest.approx(scipy.stats.norm.pdf(z, scale=merged), abs=1e-9)


def test_alpha_bars_are_exact_products(lesson):
    betas = [Fraction(k, 37) for k in (1, 5, 2, 11, 30)]
    expected = [Fraction(1)]
    for beta in betas:
        expected.append(expected[-1] * (1 - beta))
    table = lesson.run("ex-2-2")["alpha_bars"](torch.tensor([float(b) for b in betas], dtype=torch.float64))
    assert table.tolist() == pytest.approx([float(e) for e in expected], abs=1e-15)


def test_the_chain_with_the_same_noise_in_every_step_grows_to_fifteen():
    x = fresh = 0.0  # the factor of the one noise; the variance of many
    for beta in SCHEDULE.beta[1:].tolist():
        x, fresh = math.sqrt(1 - beta) * x + math.sqrt(beta), (1 - beta) * fresh + beta
    assert x == pytest.approx(15.0, abs=0.05)
    assert math.sqrt(fresh) == pytest.approx(1.0, abs=1e-4)


def test_the_closed_form_with_the_chains_own_noise_is_the_chain(lesson):
    q_sample = lesson.run("ex-2-3")["q_sample"]
    T, g = 40, torch.Generator().manual_seed(2)
    schedule = Schedule(torch.rand(T, generator=g, dtype=torch.float64) * 0.5 + 0.01)
    x0 = torch.randn(3, 2, generator=g, dtype=torch.float64)
    noises = torch.randn(T, 3, 2, generator=g, dtype=torch.float64)
    x = x0
    for t in range(1, T + 1):
        x = q_step(schedule, x, t, noises[t - 1])
        weights = (schedule.beta[1 : t + 1] * schedule.alpha_bar[t] / schedule.alpha_bar[1 : t + 1]).sqrt()
        assert (weights**2).sum().item() == pytest.approx(1 - schedule.alpha_bar[t].item(), abs=1e-12)
        merged = torch.einsum("s,s...->...", weights, noises[:t]) / (1 - schedule.alpha_bar[t]).sqrt()
        assert (q_sample(schedule, x0, t, merged) - x).abs().max() < 1e-9


def test_solutions_take_one_t_or_one_each(lesson):
    solutions = lesson.run("ex-2-3", "ex-2-4")
    x0, noise = torch.randn(2, 5, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([1, 40, 250, 251, 700])
    xt = solutions["q_sample"](SCHEDULE, x0, t, noise)
    for i, step in enumerate(t.tolist()):
        ab = SCHEDULE.alpha_bar[step].item()
        assert (xt[i] - (math.sqrt(ab) * x0[i] + math.sqrt(1 - ab) * noise[i])).abs().max() < 1e-6
        one = solutions["q_sample"](SCHEDULE, x0, step, noise)
        assert (one[i] - xt[i]).abs().max() < 1e-6
    back = solutions["predict_x0"](SCHEDULE, xt, t, noise)
    assert (back - x0).abs().max() < 1e-4  # float32, and sqrt(alpha_bar) is 0.08 at t = 700
    assert xt.dtype == back.dtype == torch.float32


def test_an_error_in_the_noise_reaches_x0_amplified(lesson):
    solutions = lesson.run("ex-2-3", "ex-2-4")
    x0, noise, error = torch.randn(3, 200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for t, factor in ((100, 0.34), (1000, 157)):
        xt = solutions["q_sample"](SCHEDULE, x0, t, noise)
        amplified = (solutions["predict_x0"](SCHEDULE, xt, t, noise + error) - x0) / error
        assert (amplified.abs() - factor).abs().max() < 0.01 * factor


def test_correlation_of_the_chain_between_two_steps():
    """The joint Gaussian of x_1 … x_t given x_0, from the chain's own linear algebra."""
    s, t = 200, 400
    covariance = variance = at_s = 0.0
    for step in range(1, t + 1):
        beta = SCHEDULE.beta[step].item()
        variance = (1 - beta) * variance + beta
        covariance = variance if step <= s else math.sqrt(1 - beta) * covariance
        at_s = variance if step == s else at_s
    ab = SCHEDULE.alpha_bar
    formula = math.sqrt(ab[t] / ab[s] * (1 - ab[s]) / (1 - ab[t]))
    assert covariance / math.sqrt(at_s * variance) == pytest.approx(formula, abs=1e-9)
    assert formula == pytest.approx(0.35, abs=0.005)


def test_how_many_points_an_index_off_by_one_takes():
    def cdf(x, t):
        ab = SCHEDULE.alpha_bar[t].item()
        return sum(w * scipy.stats.norm.cdf(x, math.sqrt(ab) * m, math.sqrt(ab * s**2 + 1 - ab)) for w, m, s in PEAKS)

    x = np.linspace(-3, 3, 6001)
    gap = np.abs(cdf(x, 99) - cdf(x, 100)).max()
    assert gap == pytest.approx(0.0011, abs=5e-5)
    assert 2 * (scipy.stats.kstwobign.isf(0.05) / gap) ** 2 == pytest.approx(2.8e6, rel=0.03)
    assert scipy.stats.kstwobign.isf(0.05) == pytest.approx(1.36, abs=0.005)


def test_where_the_signal_to_noise_ratio_falls(lesson):
    """With the paper's betas multiplied out in Python's numbers, independent of the package's tables."""
    snr, product = [math.inf], 1.0
    for k in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * k / 999)
        snr.append(product / (1 - product))
    for ratio, t in ((100, 28), (10, 94), (1, 260), (0.1, 486), (0.01, 675)):
        assert snr[t] <= ratio < snr[t - 1]
    assert lesson.run("ex-2-5")["equal_t"](SCHEDULE) == 260
