"""The claims that lesson 06 makes, against truths that the lesson does not compute with."""

import math
from functools import partial

import pytest
import torch

from ddpm_course import plots, toy
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import q_sample
from ddpm_course.samplers import spaced_timesteps
from ddpm_course.schedules import cosine_schedule, linear_schedule

PAPER = linear_schedule(1000)
F64 = torch.float64


@pytest.fixture(scope="module")
def solved(lesson):
    given = {"paper": PAPER, "mixture": toy.bimodal(), "fast_mode": lambda: False}
    return lesson.run("ex-6-1", "ex-6-2", "ex-6-3", "ex-6-4", "best-variance", "best-run", **given)


def test_the_best_variance_is_the_average_of_the_exact_ones(solved):
    """E Var[x_s | x_t] by drawing: x_0, x_t, and the exact mixture q(x_s | x_t), whose variance is computed directly."""
    mixture = toy.bimodal(F64)
    for t, s in ((40, 20), (200, 180), (500, 480)):
        g = torch.Generator().manual_seed(1)
        x0 = mixture.sample(20_000, generator=g)
        xt = q_sample(PAPER, x0, t, torch.randn(x0.shape, generator=g, dtype=F64))
        back = mixture.posterior(PAPER, xt, t, s)
        means, weights = back.means[..., 0], back.weights
        mean = (weights * means).sum(1, keepdim=True)
        variance = (weights * (back.stds**2 + (means - mean) ** 2)).sum(1)
        small, large = (solved["reverse_variance"](PAPER, t, s, kind) for kind in ("small", "large"))
        assert solved["best_variance"](t, s) == pytest.approx(variance.mean().item(), rel=0.02)
        assert small < solved["best_variance"](t, s) < large


def test_how_wide_the_peaks_become_at_fifty_steps(solved):
    """Which are 0.08 and 0.12 wide: 20,000 samples, 1.5 % standard error on a width, seed 8."""
    small, large = (partial(solved["reverse_variance"], PAPER, kind=kind) for kind in ("small", "large"))
    widths = []
    for variance in (small, solved["best_variance"], large):
        given = (variance, spaced_timesteps(1000, 50), 20_000, torch.Generator().manual_seed(8))
        _, x = solved["loop_with"](*given)
        widths.append([x[x < -0.05].std().item(), x[x >= -0.05].std().item()])
    assert widths[0] == pytest.approx([0.060, 0.096], abs=0.004)
    assert widths[2] == pytest.approx([0.085, 0.131], abs=0.004)
    assert all(small < best < large for small, best, large in zip(*widths, strict=True))


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


def test_when_it_is_decided_where_a_path_ends(lesson):
    """The shares that the lesson prints of 600 samples, against 200,000 pairs (x_0, x_t) of the forward process."""
    mixture, g = toy.bimodal(), torch.Generator().manual_seed(3)
    x0 = mixture.sample(200_000, generator=g)
    for t, share, *_ in lesson.numbers("ways"):
        xt = q_sample(PAPER, x0, int(t), torch.randn(x0.shape, generator=g))
        exact = ((xt > 0) == (x0 > 0)).double().mean().item()
        assert share / 100 == pytest.approx(exact, abs=0.06)  # three standard errors of 600


def test_a_single_fault_of_the_copied_estimate_is_enough_to_spoil_it(lesson):
    """Mended one by one: images come back only when none of the three is left."""
    solved = lesson.run("ex-6-1")["estimate_x0"]
    x0 = to_unit_range(load_images(limit=4)[0])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    xt = q_sample(PAPER, x0, 300, noise)
    source = lesson.source("copied").split("\n\n\n")[0]
    mends = ("    if clip:\n        xt = xt.clamp(-1, 1)\n", ""), ("(1 - alpha_bar)", "(1 - alpha_bar).sqrt()")
    mends += (("/ alpha.sqrt()", "/ alpha_bar.sqrt()"),)

    def off(*chosen):
        text, namespace = source, {}
        for old, new in chosen:
            assert text.count(old) == 1
            text = text.replace(old, new)
        exec(text, namespace)
        return (namespace["copied_estimate"](PAPER, xt, 300, noise) - x0).abs().max()

    assert off(*mends) < 1e-4 and (solved(PAPER, xt, 300, noise) - x0).abs().max() < 1e-4
    assert all(off(*(mend for mend in mends if mend is not left)) > 0.1 for left in mends)


def test_everything_fits_on_one_page(lesson):
    """At most 45 lines, in which nothing of the package is used but the learner's file, pictures and a list of times."""
    page = lesson.source("page")
    assert len(page.splitlines()) <= 45
    assert "train(" not in page and "generate(" not in page and "_steps(" not in page
