"""The numbers that lesson 03 states, against truths that the lesson does not compute with."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from ddpm_course import losses, toy
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import q_sample
from ddpm_course.samplers import ancestral_steps, sample
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule

FOUR = {
    "linear": linear_schedule(),
    "quadratic": quadratic_schedule(),
    "sigmoid": sigmoid_schedule(),
    "cosine": cosine_schedule(),
}


@pytest.fixture(scope="module")
def solved(lesson):
    """What the lesson's functions are, and its bundled network."""
    exercises = [f"ex-3-{i}" for i in range(1, 8)]
    cells = ("unevenness", "oracle-loss", "oracle-samples", "decode")
    return lesson.run(*exercises, *cells, schedules={}, paper=FOUR["linear"])


def exact_alpha_bar(T: int, t: int) -> float:
    """A product in Python's numbers, for betas from 1e-4 to 0.02 that are not rescaled."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * k / (T - 1)) for k in range(t))


@pytest.mark.parametrize(("T", "stated"), [(50, 0.60), (100, 0.36), (200, 0.13), (300, 0.048), (1000, 4.0e-5)])
def test_what_is_left_at_T(solved, T, stated):
    left = (1 - solved["linear_betas"](T)).prod().item()
    assert left == pytest.approx(exact_alpha_bar(T, T), rel=1e-9)
    assert left == pytest.approx(stated, rel=0.05)
    assert math.exp(-0.01005 * T) == pytest.approx(left, rel=0.09)  # the envelope


def test_a_third_of_the_linear_steps_has_less_than_a_hundredth_of_the_signal():
    assert exact_alpha_bar(1000, 1000 - 327) >= 0.01 > exact_alpha_bar(1000, 1000 - 326)


def test_the_constant_schedule_ends_like_the_linear_one_and_starts_with_thirteen_grey_levels():
    assert math.exp(1000 * math.log(0.99)) == pytest.approx(4.3e-5, rel=0.01)
    assert math.sqrt(0.01) * 127.5 == pytest.approx(12.75)
    assert math.sqrt(1e-4) * 127.5 == pytest.approx(1.3, abs=0.03)


def test_the_cosines_offset_and_its_clip(solved):
    for s, levels in ((0.008, 0.82), (0.0, 0.20)):
        beta = 1 - solved["cosine_alpha_bars"](1000, s)[1].item()
        by_hand = math.cos((0.001 + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2
        assert beta == pytest.approx(1 - by_hand, abs=1e-15)
        assert math.sqrt(beta) * 127.5 == pytest.approx(levels, abs=0.005)
    table = solved["cosine_alpha_bars"](1000)
    bare, clipped = (solved["betas_from_alpha_bars"](table, largest) for largest in (1.0, 0.999))
    assert bare[-1] == 1.0 and clipped[-1] == 0.999 and torch.equal(bare[:-1], clipped[:-1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        Schedule(bare)
    assert (1 - bare.float()).prod() == 0
    ab = Schedule(clipped).alpha_bar[-1].item()
    assert math.sqrt((1 - ab) / ab) == pytest.approx(20_291, rel=0.01)


@pytest.mark.parametrize(("alpha_bar", "square"), [(0.6, 0.7), (0.13, 0.25), (0.048, 1.0), (0.9, 2.0)])
def test_prior_bits_is_an_integral(solved, alpha_bar, square):
    mean, std = math.sqrt(alpha_bar * square), math.sqrt(1 - alpha_bar)
    q, p = scipy.stats.norm(mean, std), scipy.stats.norm(0, 1)
    nats, _ = scipy.integrate.quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -12, 12)
    bits = solved["prior_bits"](torch.tensor(alpha_bar, dtype=torch.float64), square)
    assert float(bits) == pytest.approx(nats / math.log(2), abs=1e-9)


def test_the_papers_prior_term_is_two_hundred_thousandths_for_the_garments(solved):
    """And its own "about 1e-5" for CIFAR-10, whose mean square is 0.26. The package agrees, image by image."""
    prior_bits, images = solved["prior_bits"], to_unit_range(load_images("bundled", limit=1000)[0])
    end, m = FOUR["linear"].alpha_bar[-1], images.double().square().mean().item()
    assert float(prior_bits(end, m)) == pytest.approx(2.0e-5, rel=0.05)
    assert float(prior_bits(end, 0.256)) == pytest.approx(7.5e-6, rel=0.01)
    for schedule in (FOUR["linear"], linear_schedule(300, rescale=False)):
        mine = float(prior_bits(schedule.alpha_bar[-1], m))
        assert losses.prior_bits(schedule, images).double().mean().item() == pytest.approx(mine, rel=2e-3)
        assert mine > float(schedule.alpha_bar[-1]) * m / (2 * math.log(2))  # the short formula leaves something out


def test_a_short_chain_keeps_enough_bits_to_name_its_image(solved):
    ends = {T: linear_schedule(T, rescale=False).alpha_bar[-1] for T in (300, 400, 1000)}
    bits = {T: 784 * float(solved["prior_bits"](end, 0.686)) for T, end in ends.items()}
    assert bits[300] > math.log2(24_000) > bits[400] and bits[1000] < 0.02


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


def test_samples_of_a_short_chain_are_too_bright(solved):
    """32 samples a schedule in 10 steps; the standard error of a mean brightness is about 0.05."""
    brightness = {}
    for T in (200, 1000):
        start = solved["same_noise"](Schedule(solved["linear_betas"](T)).alpha_bar[-1])
        times, g = [round(start * (10 - i) / 10) for i in range(11)], torch.Generator().manual_seed(0)
        steps = ancestral_steps(solved["net"], solved["diffusion"], (32, 1, 28, 28), times=times, generator=g)
        brightness[T] = sample(steps, progress=False).mean().item()
    data = to_unit_range(load_images("bundled", limit=4000)[0]).mean().item()
    assert brightness[200] > data + 0.2 and abs(brightness[1000] - data) < 0.12, (brightness, data)


def test_unevenness_is_a_kolmogorov_smirnov_statistic(solved):
    for schedule, stated in zip(FOUR.values(), (0.293, 0.224, 0.212, 0.224), strict=True):
        d = solved["unevenness"](schedule.alpha_bar)
        within = schedule.snr[1:].log().clamp(-10, 10).numpy()  # scipy's statistic is the same for what is not clamped
        assert d == pytest.approx(scipy.stats.kstest(within, scipy.stats.uniform(-10, 20).cdf).statistic, abs=1e-6)
        assert d == pytest.approx(stated, abs=5e-4)


@pytest.mark.parametrize("t", [20, 130, 400])
def test_the_oracles_loss_by_brute_force(solved, t):
    """E[Var(noise | x_t)] with the posterior of x_0 on a grid, in numpy, with no formula of the package."""
    ab = exact_alpha_bar(1000, t)
    x0 = np.linspace(-1.2, 1.2, 1201)
    prior = 0.4 * scipy.stats.norm.pdf(x0, -0.6, 0.08) + 0.6 * scipy.stats.norm.pdf(x0, 0.5, 0.12)
    xt = np.linspace(-4, 4, 2001)
    noise = (xt[:, None] - math.sqrt(ab) * x0) / math.sqrt(1 - ab)
    joint = prior * np.exp(-(noise**2) / 2)  # (x_t, x_0), up to a constant
    density = joint.sum(1) + 1e-300
    mean, square = (joint * noise).sum(1) / density, (joint * noise**2).sum(1) / density
    brute = (density * (square - mean**2)).sum() / density.sum()
    assert solved["oracle_loss"](FOUR["linear"], t).item() == pytest.approx(brute, abs=2e-3)


def test_the_least_loss_depends_on_log_snr_alone_and_lies_below_the_straight_line(solved):
    mixture = toy.bimodal(torch.float64)
    second = (mixture.weights * (mixture.stds**2 + mixture.means[:, 0] ** 2)).sum()
    v = (second - (mixture.weights * mixture.means[:, 0]).sum() ** 2).item()
    linear, cosine = FOUR["linear"], FOUR["cosine"]
    for t in (40, 260, 600):
        here = int((cosine.snr.log() - linear.snr[t].log()).abs().argmin())
        ab = float(linear.alpha_bar[t])
        loss, same = (solved["oracle_loss"](*step).item() for step in ((linear, t), (cosine, here)))
        assert loss == pytest.approx(same, abs=0.01)
        assert loss < ab * v / (ab * v + 1 - ab) + 1e-6
    g = torch.Generator().manual_seed(0)
    x0 = mixture.sample(100_000, generator=g)[:, 0]
    noise = torch.randn(100_000, generator=g, dtype=torch.float64)
    xt = math.sqrt(0.5) * x0 + math.sqrt(0.5) * noise
    regression = scipy.stats.linregress(xt.numpy(), noise.numpy())
    assert 1 - regression.rvalue**2 == pytest.approx(v / (v + 1), abs=0.01)  # the formula of the fold, at SNR 1


def test_twenty_exact_steps_are_worst_under_the_linear_schedule(solved):
    even = Schedule(solved["betas_from_alpha_bars"](solved["my_alpha_bars"](1000)))
    gaps = {name: solved["sample_gap"](schedule, n=8000) for name, schedule in {**FOUR, "even": even}.items()}
    assert gaps.pop("linear") > 0.09 and gaps.pop("even") < 0.07 and max(gaps.values()) < 0.08, gaps
