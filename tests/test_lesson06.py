"""The claims that lesson 06 makes, against truths that the lesson does not compute with."""

import math
from functools import partial

import pytest
import torch

from ddpm_course import plots, toy
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.samplers import ancestral_steps, sample, spaced_timesteps
from ddpm_course.schedules import cosine_schedule, linear_schedule

PAPER = linear_schedule(1000)
F64 = torch.float64


@pytest.fixture(scope="module")
def solved(lesson):
    return lesson.run("ex-6-1", "ex-6-2", "ex-6-3", "ex-6-4")


def gaussian(std: float, mean: float = 0.3) -> toy.Mixture:
    return toy.Mixture(torch.ones(1, dtype=F64), torch.full((1, 1), mean, dtype=F64), torch.tensor([std], dtype=F64))


@pytest.mark.parametrize(("t", "s"), [(1000, 999), (100, 80), (40, 20), (2, 1), (700, 3)])
def test_which_variance_is_exact_for_which_data(solved, t, s):
    """Var[x_s | x_t] for Gaussian data from the joint Gaussian of (x_s, x_t): no posterior formula is used."""
    ab_t, ab_s = (PAPER.alpha_bar[r].item() for r in (t, s))
    small, large = (float(solved["reverse_variance"](PAPER, t, s, kind)) for kind in ("small", "large"))
    exact = {}
    for std in (0.0, 0.1, 0.5, 1.0):
        variance_s, variance_t = (ab * std**2 + 1 - ab for ab in (ab_s, ab_t))
        covariance = math.sqrt(ab_t / ab_s) * variance_s  # x_t is x_s, shrunk, plus independent noise
        exact[std] = variance_s - covariance**2 / variance_t
        posterior = gaussian(std).posterior(PAPER, torch.zeros(1, 1, dtype=F64), t, s)
        assert posterior.stds.item() ** 2 == pytest.approx(exact[std], abs=1e-12)
        assert small - 1e-12 <= exact[std] <= large + 1e-12
    assert exact[0.0] == pytest.approx(small, rel=1e-9)
    assert exact[1.0] == pytest.approx(large, rel=1e-9)


def test_how_wide_the_peaks_become_at_fifty_steps(lesson, solved):
    """The lesson's table and its best variance: 20,000 samples, 1.5 % standard error on a width, seed 8."""
    world = solved | {"paper": PAPER, "mixture": toy.bimodal(), "fast_mode": lambda: False}
    cells = lesson.run("best-variance", "best-run", **world)
    variances = {
        "small": partial(solved["reverse_variance"], PAPER, kind="small"),
        "best": cells["best_variance"],
        "large": partial(solved["reverse_variance"], PAPER, kind="large"),
    }
    widths = {}
    for kind, variance in variances.items():
        g = torch.Generator().manual_seed(8)
        before_and_after = cells["loop_with"](variance, spaced_timesteps(1000, 50), 20_000, g)
        widths[kind] = [peak.std().item() for x in before_and_after for peak in (x[x < -0.05], x[x >= -0.05])]
    assert widths["small"][2:] == [pytest.approx(0.060, abs=0.003), pytest.approx(0.096, abs=0.004)]
    assert widths["large"][2:] == [pytest.approx(0.085, abs=0.004), pytest.approx(0.131, abs=0.004)]
    for small, best, large in zip(*widths.values(), strict=True):
        assert small < best < large


def test_the_best_variance_is_the_average_of_the_exact_ones(lesson, solved):
    """E Var[x_s | x_t] by drawing: x_0, x_t, and the exact mixture q(x_s | x_t), whose variance is computed directly."""
    mixture = toy.bimodal(F64)
    world = solved | {"paper": PAPER, "mixture": mixture, "fast_mode": lambda: False}
    best = lesson.run("best-variance", **world)["best_variance"]
    for t, s in ((40, 20), (200, 180), (500, 480)):
        g = torch.Generator().manual_seed(1)
        x0 = mixture.sample(20_000, generator=g)
        xt = q_sample(PAPER, x0, t, torch.randn(x0.shape, generator=g, dtype=F64))
        back = mixture.posterior(PAPER, xt, t, s)
        means, weights = back.means[..., 0], back.weights
        mean = (weights * means).sum(1, keepdim=True)
        variance = (weights * (back.stds**2 + (means - mean) ** 2)).sum(1)
        assert best(t, s) == pytest.approx(variance.mean().item(), rel=0.02)
        small, large = (solved["reverse_variance"](PAPER, t, s, kind) for kind in ("small", "large"))
        assert small < best(t, s) < large


@pytest.mark.parametrize("kind", ["small", "large"])
def test_the_exercises_sample_what_the_package_samples(solved, kind):
    """Same x_T, same seed, one z a step in order: the loop of the exercises and samplers.ancestral_steps."""
    diffusion = GaussianDiffusion(cosine_schedule(1000), "noise", kind)
    net = toy.oracle(toy.ring(), diffusion)
    for steps in (1, 7, 60):
        g = torch.Generator().manual_seed(steps)
        x_T, times = torch.randn(40, 2, generator=g), spaced_timesteps(1000, steps)
        mine = solved["ancestral_loop"](net, diffusion.schedule, x_T, times, g, kind)
        g = torch.Generator().manual_seed(steps)
        theirs = sample(ancestral_steps(net, diffusion, (40, 2), steps, generator=g), progress=False)
        assert (mine - theirs).abs().max() < 2e-3  # float32: at T the cosine schedule multiplies rounding by 20,000


def test_clipping_ruins_data_that_is_not_bounded():
    diffusion = GaussianDiffusion(PAPER, "noise", "large")
    unit = toy.oracle(gaussian(1.0, 0.0), diffusion)
    found = {}
    for clip in (True, False):
        g = torch.Generator().manual_seed(3)
        x_T = torch.randn(5000, 1, generator=g, dtype=F64)
        steps = ancestral_steps(unit, diffusion, x_T.shape, 50, clip=clip, x_T=x_T, generator=g)
        found[clip] = sample(steps, progress=False).std().item()
    assert found[False] == pytest.approx(1.0, abs=0.05) and found[True] < 0.8


@pytest.mark.parametrize(
    "schedule, t, levels",
    [(PAPER, 1, 1.3), (PAPER, 20, 9.7), (cosine_schedule(), 20, 5.3), (cosine_schedule(), 100, 21.3)],
)
def test_the_last_noise_in_grey_levels(schedule, t, levels):
    kept = math.prod(1 - beta for beta in schedule.beta[1 : t + 1].tolist())
    assert 127.5 * math.sqrt(1 - kept) == pytest.approx(levels, abs=0.05)


def test_the_power_spectrum_of_white_noise_is_flat_and_one():
    noise = torch.randn(400, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert (plots.power_spectrum(noise) - 1).abs().max() < 0.1  # 400 images: 5 % on the rarest radius
    stripes = torch.cos(torch.arange(28) * 2 * math.pi * 5 / 28).expand(1, 1, 28, 28)
    assert plots.power_spectrum(stripes).argmax() == 5


def test_clothes_have_their_power_in_slow_waves():
    """The claim under the figure: at t = 900 noise is above the image in all but the slowest wave, at 50 in the fast."""
    power = plots.power_spectrum(to_unit_range(load_images(limit=500)[0]))
    alpha_bar = cosine_schedule(1000).alpha_bar
    above = [int((alpha_bar[t] * power[1:] > 1 - alpha_bar[t]).sum()) for t in (900, 700, 500, 200, 50)]
    assert above == sorted(above) and above[0] <= 1 and above[-1] >= 10
    assert power[1] > 100 * power[-1]
