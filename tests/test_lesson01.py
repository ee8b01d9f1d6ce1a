"""What lesson 01 prints, held against truths from elsewhere: sums on paper, scipy, Bayes' rule on a grid."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import signal, stats

WEIGHTS, MEANS, STDS = np.array([0.4, 0.6]), np.array([-0.6, 0.5]), np.array([0.08, 0.12])  # the lesson's two peaks
BETA = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - BETA)])


def noised(alpha_bar: float):
    """Density and distribution function of the two peaks after noise."""
    means, stds = np.sqrt(alpha_bar) * MEANS, np.sqrt(alpha_bar * STDS**2 + 1 - alpha_bar)
    return (
        lambda x: (WEIGHTS * stats.norm.pdf(np.asarray(x)[..., None], means, stds)).sum(-1),
        lambda x: float((WEIGHTS * stats.norm.cdf(x, means, stds)).sum()),
    )


def way_back(x_t, x_s, t: int, s: int):
    """q(x_s | x_t) by Bayes' rule, (len(x_t), len(x_s)): q(x_s) times the step's Gaussian, normalised; and q(x_t)."""
    alpha, dx = ALPHA_BAR[t] / ALPHA_BAR[s], x_s[1] - x_s[0]
    back = noised(ALPHA_BAR[s])[0](x_s) * stats.norm.pdf(x_t[:, None], np.sqrt(alpha) * x_s, np.sqrt(1 - alpha))
    evidence = back.sum(1) * dx
    return back / evidence[:, None], evidence


def peaks(density) -> int:
    return len(signal.argrelmax(density)[0])


def test_how_long_there_are_two_peaks(lesson):
    """Of the noised data, and of where a point between the peaks came from."""
    x = np.linspace(-2, 2, 2001)
    ((last,),) = lesson.numbers("count-peaks")
    assert [peaks(noised(ALPHA_BAR[t])[0](x)) for t in (int(last), int(last) + 1)] == [2, 1]
    ((beta, first),) = lesson.numbers("back-first")
    assert beta == pytest.approx(1 - ALPHA_BAR[int(first)] / ALPHA_BAR[50], abs=5e-5)
    back = [way_back(np.array([-0.1]), x, t, 50)[0][0] for t in (int(first) - 1, int(first))]
    assert [peaks(density) for density in back] == [1, 2]


def test_how_far_the_way_back_is_from_a_gaussian(lesson):
    """Averaged over all x_t."""
    x_s, x_t = np.linspace(-4, 4, 1601), np.linspace(-4, 4, 401)
    dx = x_s[1] - x_s[0]
    rows = lesson.numbers("back-distance")[1:]
    for t, (beta, printed) in zip((51, 60, 80, 150, 300, 1000), rows, strict=True):
        assert beta == pytest.approx(1 - ALPHA_BAR[t] / ALPHA_BAR[50], abs=1e-4)
        back, evidence = way_back(x_t, x_s, t, 50)
        mean = (back * x_s).sum(1, keepdims=True) * dx
        std = np.sqrt((back * (x_s - mean) ** 2).sum(1, keepdims=True) * dx)
        wrong = 0.5 * np.abs(back - stats.norm.pdf(x_s, mean, std)).sum(1) * dx
        assert printed == pytest.approx(100 * (wrong * evidence).sum() / evidence.sum(), abs=0.1), f"t = {t}"


def test_what_giant_steps_generate(lesson):
    """One step makes a Gaussian with the data's mean and variance; the data itself has next to nothing in the gap."""
    one, ten, many, data = (line[-2] for line in lesson.numbers("undo-numbers")[:4])
    mean = (WEIGHTS * MEANS).sum()
    std = np.sqrt((WEIGHTS * (STDS**2 + (MEANS - mean) ** 2)).sum())
    assert one == pytest.approx(100 * np.diff(stats.norm.cdf([-0.35, 0.1], mean, std)).item(), abs=2)  # 10,000 draws
    truth = 100 * (noised(1.0)[1](0.1) - noised(1.0)[1](-0.35))
    assert data == pytest.approx(truth, abs=0.06)
    assert many == pytest.approx(truth, abs=0.5) and many + 5 < ten < one - 5


def test_what_steps_with_a_fixed_variance_generate(lesson):
    """The whole distribution pushed back on a grid: to each mean, then spread by the variance given x_0 and x_t."""
    x = np.linspace(-4, 4, 1601)
    printed = [line[-1] for line in lesson.numbers("undo-fixed-numbers")]
    for steps, std in zip((1, 10), printed, strict=False):
        times = [round(1000 * (steps - i) / steps) for i in range(steps + 1)]
        density = stats.norm.pdf(x)
        for t, s in pairwise(times):
            mean = way_back(x, x, t, s)[0] @ x * (x[1] - x[0])
            variance = (1 - ALPHA_BAR[t] / ALPHA_BAR[s]) * (1 - ALPHA_BAR[s]) / (1 - ALPHA_BAR[t])
            share = density / density.sum()
            if s:
                density = share @ stats.norm.pdf(x, mean[:, None], np.sqrt(variance))
        assert std == pytest.approx(np.sqrt(share @ mean**2 - (share @ mean) ** 2), abs=0.01), f"{steps} steps"
    assert printed[3] == pytest.approx(np.sqrt(WEIGHTS @ (STDS**2 + MEANS**2) - (WEIGHTS @ MEANS) ** 2), abs=0.003)


def test_where_each_diffusion_coefficient_ends(lesson):
    """Var x_t by recursion, from the variance of even numbers between -2 and 2."""
    for k, printed in lesson.numbers("coefficients-variance"):
        variance = 4 / 3
        for beta in BETA:
            variance = (1 - beta / 2) ** 2 * variance + k**2 * beta
        assert printed == pytest.approx(variance, rel=0.04)  # 20,000 paths: a standard error of one per cent
