"""What lesson 01 prints, held against truths from elsewhere: sums on paper, scipy, Bayes' rule on a grid."""

import numpy as np
import pytest
from scipy import stats

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


def test_how_far_the_way_back_is_from_a_gaussian(lesson):
    """Bayes' rule on a grid: q(x_s | x_t) is q(x_s) times the step's Gaussian, normalised; averaged over all x_t."""
    x_s, x_t = np.linspace(-4, 4, 1601), np.linspace(-4, 4, 401)
    dx = x_s[1] - x_s[0]
    prior = noised(ALPHA_BAR[50])[0](x_s)
    rows = lesson.numbers("back-distance")[1:]
    for t, (beta, printed) in zip((51, 60, 80, 150, 300, 1000), rows, strict=True):
        alpha = ALPHA_BAR[t] / ALPHA_BAR[50]
        assert beta == pytest.approx(1 - alpha, abs=1e-4)
        back = prior * stats.norm.pdf(x_t[:, None], np.sqrt(alpha) * x_s, np.sqrt(1 - alpha))  # (401, 1601)
        evidence = back.sum(1, keepdims=True) * dx
        back = back / evidence
        mean = (back * x_s).sum(1, keepdims=True) * dx
        std = np.sqrt((back * (x_s - mean) ** 2).sum(1, keepdims=True) * dx)
        wrong = 0.5 * np.abs(back - stats.norm.pdf(x_s, mean, std)).sum(1) * dx
        average = (wrong * evidence[:, 0]).sum() / evidence.sum()
        # 300 draws of x_t; and the lesson's grid ends at 1.5, where its Gaussian has a few per cent left
        assert printed == pytest.approx(100 * average, abs=2.5), f"t = {t}"


def test_what_giant_steps_generate(lesson):
    """One step makes a Gaussian with the data's mean and variance; the data itself has next to nothing in the gap."""
    one, ten, many, data = (line[-1] for line in lesson.numbers("undo-numbers"))
    mean = (WEIGHTS * MEANS).sum()
    std = np.sqrt((WEIGHTS * (STDS**2 + (MEANS - mean) ** 2)).sum())
    assert one == pytest.approx(100 * np.diff(stats.norm.cdf([-0.35, 0.1], mean, std)).item(), abs=3)  # 3,000 draws
    truth = 100 * (noised(1.0)[1](0.1) - noised(1.0)[1](-0.35))
    assert data == pytest.approx(truth, abs=0.06)
    assert many == pytest.approx(truth, abs=0.5) and many + 5 < ten < one - 5
