"""The numbers that lesson 02 states, against truths that the lesson does not compute with."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from ddpm_course.schedules import Schedule, linear_schedule

SCHEDULE = linear_schedule(1000)
PEAKS = [(0.4, -0.6, 0.08), (0.6, 0.5, 0.12)]  # weight, mean, standard deviation of toy.bimodal


@pytest.mark.parametrize(
    ("n", "m", "shift"), [(500, 500, 0.0), (500, 2000, 0.1), (3000, 3000, 0.05), (50_000, 50_000, 0.01), (900, 900, 99)]
)
def test_the_lessons_kolmogorov_smirnov_test_is_scipys(lesson, n, m, shift):
    ks_test = lesson.run("ks-distance", "ks-test", walked={})["ks_test"]
    rng = np.random.default_rng(n + m)
    x, y = rng.normal(size=n), rng.normal(size=m) + shift
    d, p = ks_test(torch.from_numpy(x), torch.from_numpy(y))
    assert d == pytest.approx(scipy.stats.ks_2samp(x, y).statistic, abs=1e-12)
    # the limit for large samples; scipy's "asymp" corrects it for finite ones, so it agrees within O(1/sqrt(n))
    assert p == pytest.approx(scipy.stats.kstwobign.sf(d * math.sqrt(n * m / (n + m))), abs=1e-9)
    assert p == pytest.approx(scipy.stats.ks_2samp(x, y, method="asymp").pvalue, abs=0.03)
    assert ks_test(torch.from_numpy(x), torch.from_numpy(x)) == (0.0, 1.0)


def test_the_chain_step_by_step():
    """The factor of one noise in every step, and the correlation of x_200 and x_400, from the chain's linear algebra."""
    same = variance = covariance = at_200 = 0.0
    for t, beta in enumerate(SCHEDULE.beta[1:].tolist(), start=1):
        same, variance = math.sqrt(1 - beta) * same + math.sqrt(beta), (1 - beta) * variance + beta
        covariance = variance if t <= 200 else math.sqrt(1 - beta) * covariance
        at_200 = variance if t == 200 else at_200
        if t == 400:
            assert covariance / math.sqrt(at_200 * variance) == pytest.approx(0.35, abs=0.005)
    assert (same, variance) == (pytest.approx(15.0, abs=0.05), pytest.approx(1.0, abs=1e-4))


def test_uniform_noise_has_become_gaussian_after_many_steps_and_has_not_before(lesson):
    """Fourth cumulants of independent summands add, as variances do: carried through the chain, and as measured."""
    variance = fourth = 0.0
    measured = dict(lesson.numbers("uniform"))
    for t, beta in enumerate(SCHEDULE.beta[1:].tolist(), start=1):
        variance, fourth = (1 - beta) * variance + beta, (1 - beta) ** 2 * fourth - 1.2 * beta**2
        if t in measured:
            assert measured.pop(t) == pytest.approx(fourth / variance**2, abs=0.03)
    assert not measured


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
    equal_t = lesson.run("ex-2-5")["equal_t"]
    assert equal_t(SCHEDULE) == 260
    few = [1e-4 + (0.02 - 1e-4) * k / 49 for k in range(50)]  # of which the statement of 2.5 says that 0.60 is left
    assert math.prod(1 - beta for beta in few) == pytest.approx(0.60, abs=0.005)
    with pytest.raises(ValueError):
        equal_t(Schedule(torch.tensor(few)))
    turned = {t: math.degrees(math.atan(snr[t] ** -0.5)) for t in (100, 700, 1000)}  # along the circle
    assert turned[100] == pytest.approx(90 / 5, abs=1) and 4 < turned[1000] - turned[700] < 5
    for t, factor in ((100, 0.34), (1000, 157)):  # by which an error in the noise reaches x_0
        assert snr[t] ** -0.5 == pytest.approx(factor, rel=0.01)
