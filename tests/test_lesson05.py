"""The numbers that lesson 05 states, against truths that the lesson does not compute with."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import torch

from ddpm_course import toy
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.losses import diffusion_loss
from ddpm_course.samplers import generate
from ddpm_course.schedules import linear_schedule

PEAKS = [(0.4, -0.6, 0.08), (0.6, 0.5, 0.12)]  # weight, mean, standard deviation of toy.bimodal


@pytest.fixture(scope="module")
def line(lesson) -> dict:
    """The lesson's one-dimensional world, with all solved exercises that it leans on."""
    exercises = ("ex-5-1", "kl-nats", "ex-5-2", "ex-5-3", "ex-5-4", "ex-5-5", "ex-5-6")
    return lesson.run("divergence", "reverse", "bound", "jensen", "bound-table", "backwards", *exercises, "by-terms")


def density(x):
    return sum(w * scipy.stats.norm.pdf(x, m, s) for w, m, s in PEAKS)


def test_the_entropy_of_the_data_and_the_chain_backwards(line):
    entropy, _ = scipy.integrate.quad(
        lambda x: -density(x) * math.log(density(x)), -1.6, 1.6, points=[-0.6, 0.5], limit=400, epsabs=1e-10
    )
    assert entropy == pytest.approx(-0.190, abs=5e-4)
    assert "difference -0.190" in line["printed"]
    assert line["forwards"] == pytest.approx(line["backwards"], abs=1e-8)  # the chain read backwards is the chain


def test_the_lessons_likelihood_is_the_samplers(line):
    """Paths counted on the grid against paths that are drawn: 20,000 samples of the exact denoiser."""
    p = line["model_density"](line["exact"])
    spacing = (line["grid"][1] - line["grid"][0]).item()
    assert (p.sum() * spacing).item() == pytest.approx(1, abs=1e-6)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=g, dtype=torch.float64)
    for t in range(100, 0, -1):
        mean, std = line["reverse"](line["exact"], x, t)
        x = mean + std * torch.randn(x.shape, generator=g, dtype=torch.float64)
    grid, cdf = line["grid"].numpy(), (p.cumsum(0) * spacing).numpy()
    test = scipy.stats.kstest(x[:, 0].numpy(), lambda v: np.interp(v - spacing / 2, grid, cdf))
    assert test.statistic < 1.63 / math.sqrt(20_000)  # 1 % of right programs fail this; the seed is fixed


def test_the_bound_lies_above_the_likelihood_and_shrinks_with_a_better_denoiser(line):
    entropy, x0, g = -0.190, line["x0"], torch.Generator().manual_seed(5)
    bounds = []
    for net in line["denoisers"].values():
        cost = line["average"](-line["model_density"](net).log())
        for by in ("bound_by_paths", "bound_by_terms"):
            values = line[by](net, x0, g)
            L, error = values.mean().item(), values.std().item() / math.sqrt(len(values))
            assert entropy < cost < L + 3 * error
            bounds.append(L)
        assert abs(bounds[-1] - bounds[-2]) < 0.1  # eqs. 3 and 5; each is known to about 0.02
    exact, shrunk, single = bounds[1::2]
    assert exact == pytest.approx(0.0, abs=0.06)
    assert exact + 0.15 < shrunk < single - 0.4
    assert exact - entropy < 0.26 and single - entropy > 0.9


def test_the_gap_of_the_exact_denoiser_shrinks_with_smaller_steps(lesson):
    """Jensen's gap, at 25, 50 and 100 steps: steps of the true way back become Gaussian."""
    gaps = []
    for T in (25, 50, 100):
        line = lesson.run("divergence", "reverse", "bound", linear_schedule=lambda _, T=T: linear_schedule(T))
        x0 = line["mixture"].sample(4000, generator=torch.Generator().manual_seed(1))
        L = line["bound_by_paths"](line["exact"], x0, torch.Generator().manual_seed(2)).mean().item()
        gaps.append(L - line["average"](-line["model_density"](line["exact"]).log()))
    assert gaps[0] > gaps[1] + 0.05 > gaps[2] + 0.1 > 0.1


def test_what_the_fixed_variance_costs_the_exact_denoiser(lesson):
    """Entropy to bound, by brute force: Bayes' rule on a grid, and the divergence to the model's step at every x_t."""
    line = lesson.run("divergence", "reverse", "gap-parts")
    x = np.linspace(-5, 5, 801)  # 0.0125 apart; the narrowest step is 0.03 wide
    beta = np.linspace(0.001, 0.2, 100)
    bars = np.concatenate([[1], np.cumprod(1 - beta)])

    def noised(ab):
        return sum(w * scipy.stats.norm.pdf(x, math.sqrt(ab) * m, math.sqrt(ab * s * s + 1 - ab)) for w, m, s in PEAKS)

    gap = 0.0
    for t in range(1, 101):
        std = math.sqrt(beta[t - 1])
        step = scipy.stats.norm.pdf(x[:, None], math.sqrt(1 - beta[t - 1]) * x, std)  # (x_t, x_{t-1})
        joint = step * noised(bars[t - 1]) * 0.0125**2
        here = joint.sum(1)
        back = joint[here > 1e-12] / here[here > 1e-12, None]  # q(x_{t-1} | x_t)
        mean = back @ x
        model = scipy.stats.norm.logpdf(x, mean[:, None], std) + math.log(0.0125)
        gap += here[here > 1e-12] @ (scipy.special.xlogy(back, back) - back * model).sum(1)
    assert line["fixed"] == pytest.approx(0.113, abs=1e-3)
    assert line["single_width"] == pytest.approx(0.046, abs=1e-3)
    assert gap - line["fixed"] - line["single_width"] == pytest.approx(0.0105, abs=1e-3)  # the shape


def test_the_weight_is_half_the_fall_of_the_signal_to_noise_ratio(line):
    """For the small variance it is (SNR(t-1)/SNR(t) - 1)/2. The first fifty steps have 31 % of the large variance's."""
    weight, schedule = line["loss_weight"], linear_schedule(1000)
    beta = np.linspace(1e-4, 0.02, 1000)
    bars = np.cumprod(1 - beta)
    snr, large = bars / (1 - bars), beta / (2 * (1 - beta) * (1 - bars))
    for t in (2, 3, 20, 60, 1000):
        assert float(weight(schedule, t)) == pytest.approx((snr[t - 2] / snr[t - 1] - 1) / 2, rel=1e-9)
        assert float(weight(schedule, t, "large")) == pytest.approx(large[t - 1], rel=1e-9)
    assert math.isinf(weight(schedule, 1)) and math.isfinite(weight(schedule, 1, "large"))
    assert large[:50].sum() / large.sum() == pytest.approx(0.31, abs=0.005)
    assert large[0] / large.min() == pytest.approx(100, rel=0.02)
    too_large = 1 / (2 * beta**2) / large  # the weight on the squared distance of means, put on the noise
    assert too_large[[0, -1]] == pytest.approx([1e8, 1.22e5], rel=0.01)


def test_the_bounds_behind_simple_losses(lesson):
    """Which variances make the weights of eq. 12 those of a target, and their constant C, by densities on a grid."""
    beta = np.linspace(1e-4, 0.02, 1000)
    bars = np.cumprod(1 - beta)
    tilde = beta[1:] * (1 - bars[:-1]) / (1 - bars[1:])
    made = lesson.run(
        "ex-5-1", "ex-5-2", "ex-5-4", "ex-5-9", "weighting-figure", "guess-times", "design-figure", "design-cost",
        paper=linear_schedule(1000),
    )  # fmt: skip
    wanted = {"ε": np.ones(1000), "x₀": 1 / bars - 1, "v": 1 / bars}
    costs = {"ε": 99.1, "x₀": 4444.3, "v": 3956.1}
    z = np.linspace(-12, 12, 4001)
    p = scipy.stats.norm.pdf(z) * (z[1] - z[0])
    for (name, weights), sigma2 in zip(wanted.items(), made["variances"].values(), strict=True):
        sigma2 = sigma2.numpy()
        bound = beta**2 / (2 * sigma2 * (1 - beta) * (1 - bars))
        assert np.ptp(bound / weights) < 1e-9 * (bound / weights).mean()  # one common factor
        assert (sigma2 / beta).min() == pytest.approx(1, rel=1e-12)
        ratio = sigma2[1:] / tilde  # x = std of the posterior * z
        C = p @ (-(z[:, None] ** 2) / 2 + z[:, None] ** 2 / (2 * ratio) + np.log(ratio) / 2) / math.log(2)
        assert C.sum() == pytest.approx(costs[name], abs=0.06)
        assert f"costs {costs[name]:7.1f} bits per pixel" in made["printed"]
    assert "costs     0.5 bits" in made["printed"] and "L_simple: 101 times" in made["printed"]
    assert "score" not in made["printed"]  # with no guess
    assert "score: 1 of 1" in lesson.run("design-figure", **(made | {"guess_times": 60}))["printed"]


@pytest.mark.parametrize(("xt", "t"), [(0.0, 15), (-0.1, 15), (0.3, 30)])
def test_which_guess_each_loss_wants(line, xt, t):
    """The losses minimised over the exact distribution of the noise given x_t, with Bayes' rule by hand."""
    ab = line["schedule"].alpha_bar[t].item()
    eps = np.linspace(-6, 6, 24_001)
    p = density((xt - math.sqrt(1 - ab) * eps) / math.sqrt(ab)) * scipy.stats.norm.pdf(eps)
    p /= p.sum()

    def best(loss):
        return scipy.optimize.minimize_scalar(lambda g: p @ loss(eps - g), bounds=(-2, 2), method="bounded").x

    oracle = toy.bimodal(torch.float64).predict_noise(line["schedule"], torch.tensor([[xt]]).double(), t).item()
    assert best(np.square) == pytest.approx(oracle, abs=1e-4)
    median = best(np.abs)
    assert median == pytest.approx(eps[(p.cumsum() >= 0.5).argmax()], abs=2e-3)
    assert abs(median - oracle) > 0.2
    huber = best(lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5))
    assert min(median, oracle) <= huber <= max(median, oracle)


def test_the_exact_minimiser_reproduces_training_images():
    """The oracle of 100 images: every sample is one of them, and its loss on them is 0, on others higher than ours."""
    memory, others = to_unit_range(load_images(limit=120)[0]).split([100, 20])
    paper = GaussianDiffusion(linear_schedule(1000))
    net = toy.oracle(toy.Mixture(torch.full((100,), 0.01), memory, torch.zeros(100)), paper)
    made = generate(net, paper, (6, 1, 28, 28), 15, generator=torch.Generator().manual_seed(0), progress=False)
    distance = torch.cdist(made.flatten(1), memory.flatten(1)) / 28
    assert distance.min(1).values.max() < 2e-3 and torch.pdist(memory.flatten(1)).mean() / 28 > 0.5
    given = dict(t=torch.full((20,), 50), noise=torch.randn(others.shape, generator=torch.Generator().manual_seed(1)))
    own, other = (diffusion_loss(net, paper, x0, **given).mean() for x0 in (memory[:20], others))
    assert own < 1e-6 and other > 1
