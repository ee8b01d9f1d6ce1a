"""A variance that the network tells: against the papers' formulas by hand, sums on a grid, and what was not to change."""

import copy
import math

import pytest
import torch
from core import F64, distance, every_prediction, normal, perturbed, seeded

from ddpm_course.diffusion import GaussianDiffusion, last_variance, q_posterior
from ddpm_course.guidance import ClassifierGuided, inpaint_steps
from ddpm_course.nets import Guided
from ddpm_course.samplers import ancestral_steps, ddim_steps, sample
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.solvers import heun_steps, multistep_steps
from ddpm_course.training import load_checkpoint, save_checkpoint
from ddpm_course.unet import UNet

LEARNED = GaussianDiffusion(cosine_schedule(), "v", "learned")


def unet(**options):
    torch.manual_seed(0)
    return perturbed(UNet(**dict(widths=(8,), heads=2, num_classes=3, learn_variance=True) | options)).eval()


@pytest.mark.parametrize("patch, channels", [(1, 1), (2, 1), (2, 3)])
def test_the_network_starts_as_zero_and_its_halves_have_weights_of_their_own(patch, channels):
    """A loss of one half moves the last layer's weights of that half alone."""
    torch.manual_seed(0)
    net = UNet(channels, (8,), patch=patch, heads=2, learn_variance=True)
    x, t = normal(2, channels, 8, 8, dtype=torch.float32), torch.tensor([1, 900])
    out = net(x, t)
    assert out.shape == (2, 2 * channels, 8, 8) and bool((out == 0).all())
    (out - 1).chunk(2, 1)[0].square().sum().backward()
    moved = net.out.weight.grad.abs().flatten(1).amax(1) > 0
    assert moved.tolist() == [True] * channels * patch**2 + [False] * channels * patch**2


def test_a_checkpoint_comes_back_with_its_learned_variance_and_others_do_not_mention_it(tmp_path):
    net, (x, t) = unet(), (normal(2, 1, 8, 8, dtype=torch.float32), torch.tensor([1, 900]))
    save_checkpoint(tmp_path / "net", net, LEARNED)
    again, diffusion, about = load_checkpoint(tmp_path / "net", "cpu")
    assert diffusion.variance == "learned" and about["network"]["learn_variance"] is True
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), net.parameters(), strict=True))
    assert (again(x, t) - net(x, t)).abs().max() < 1e-5  # it computes channels-last
    assert "learn_variance" not in UNet().arguments


@pytest.mark.parametrize("t, s", [(1000, 999), (500, 499), (2, 1), (1, 0), (1000, 960), (50, 10), (40, 0)])
def test_log_variance_by_hand(t, s):
    """Python's floats, for -1, 0, 1 and beyond; 1e-12. beta-tilde_2 stands for the last step's, which is 0. One t for the
    batch, or one an item: the same."""
    schedule, halves = LEARNED.schedule, torch.tensor([-1.0, -0.5, 0.0, 1.0, 1.5], dtype=F64)
    bar_t, bar_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    beta = 1 - bar_t / bar_s
    bar_1, bar_2 = schedule.alpha_bar[1].item(), schedule.alpha_bar[2].item()
    tilde = beta * (1 - bar_s) / (1 - bar_t) if s else (1 - bar_2 / bar_1) * (1 - bar_1) / (1 - bar_2)
    output = torch.stack([normal(5, 3), halves[:, None].expand(5, 3)], 1).flatten(1)  # (5, 6)
    for times in ((t, s), (torch.full((5,), t), torch.full((5,), s))):
        got = LEARNED.log_variance(output, normal(5, 3), *times)
        assert got.shape == (5, 3) and got.dtype == F64
        for row, half in zip(got, halves.tolist(), strict=True):
            by_hand = (half + 1) / 2 * math.log(beta) + (1 - half) / 2 * math.log(tilde)
            assert (row - by_hand).abs().max() < 1e-12 * abs(by_hand)
    if s:
        assert abs(got[0, 0].exp() / q_posterior(schedule, halves[:1], halves[:1], t, s)[1].item() - 1) < 1e-12


def test_the_last_variance_is_that_of_step_two():
    schedule = linear_schedule()
    expected = schedule.beta[2] * (1 - schedule.alpha_bar[1]) / (1 - schedule.alpha_bar[2])
    assert abs(last_variance(schedule) / expected - 1) < 1e-12 and last_variance(Schedule([0.3])) == 0.3


@every_prediction
def test_only_the_first_half_is_read_as_an_estimate(predicts):
    diffusion, output, xt = (
        GaussianDiffusion(cosine_schedule(), predicts, "learned"),
        normal(4, 6),
        normal(4, 3, seed=1),
    )
    t = torch.tensor([1, 5, 500, 1000])
    for both, alone in zip(diffusion.decode(output, xt, t), diffusion.decode(output[:, :3], xt, t), strict=True):
        assert torch.equal(both, alone)
    for wrong in (normal(4, 1), normal(4, 9), normal(8, 3), normal(4, 3, 1)):
        with pytest.raises(ValueError, match="an output must have the shape of xt, .* or twice its channels"):
            diffusion.decode(wrong, xt, t)
    with pytest.raises(ValueError, match=r"needs an output of twice the channels of \(4, 3\).*learn_variance=True"):
        diffusion.log_variance(output[:, :3], xt, t, t - 1)


def with_variance(net, half):
    """The same network with a second half that says the same everywhere."""
    return lambda x, t, y=None: torch.cat([net(x, t, y), torch.full_like(x, half)], 1)


@pytest.mark.parametrize("sampler", [ddim_steps, heun_steps, multistep_steps])
@pytest.mark.parametrize("variance", ["small", "learned"])
def test_samplers_without_noise_ignore_the_second_half(sampler, variance):
    diffusion, x_T = GaussianDiffusion(cosine_schedule(), "v", variance), normal(3, 2)
    net = lambda x, t, y=None: 0.5 * x  # noqa: E731
    plain = sample(sampler(net, diffusion, (3, 2), 6, x_T=x_T), progress=False)
    assert torch.equal(sample(sampler(with_variance(net, 9.0), diffusion, (3, 2), 6, x_T=x_T), progress=False), plain)


@pytest.mark.parametrize("half, variance", [(-1.0, "small"), (1.0, "large")])
@pytest.mark.parametrize("steps", [1000, 7])
def test_a_network_that_says_one_of_the_two_samples_as_that_one_does(half, variance, steps):
    """With the same noise, at any stride, to 1e-9; replacement walks up and down the same way."""
    net = lambda x, t, y=None: 0.5 * torch.tanh(x)  # noqa: E731
    fixed, x_T, known = GaussianDiffusion(LEARNED.schedule, "v", variance), normal(3, 2), torch.tensor([1.0, 0.0])

    def both_ways(net, diffusion):
        plain = ancestral_steps(net, diffusion, (3, 2), steps, x_T=x_T, generator=seeded(1))
        repeated = inpaint_steps(net, diffusion, x_T, known, 7, repeats=2, generator=seeded(1))
        return torch.stack([sample(plain, progress=False), sample(repeated, progress=False)])

    assert (both_ways(with_variance(net, half), LEARNED) - both_ways(net, fixed)).abs().max() < 1e-9


def test_the_law_of_samples_has_the_variance_that_was_told():
    """20,000 draws of a chain whose second half differs from step to step and from point to point, seeds 0 and 1: the law
    is computed on a grid, and without drawing; 2.2/sqrt(n), p ≈ 1e-4. With beta-tilde or beta it is another one."""
    schedule, n, times = linear_schedule(), 20_000, [1000, 500, 200, 60, 0]
    diffusion = GaussianDiffusion(schedule, "x0", "learned")
    net = lambda x, t, y=None: torch.cat([0.6 * torch.tanh(x), torch.cos(2 * x + t[:, None] / 100)], 1)  # noqa: E731
    x_T = normal(n, 1)
    steps = ancestral_steps(net, diffusion, (n, 1), times=times, clip=False, x_T=x_T, generator=seeded(1))
    x = sample(steps, progress=False)[:, 0]
    grid = torch.linspace(-6, 6, 2401, dtype=F64)
    bar, law = schedule.alpha_bar, torch.exp(-(grid**2) / 2)
    for t, s in zip(times[:-2], times[1:], strict=False):
        estimate, half = net(grid[:, None], torch.full((2401,), t)).T
        alpha = bar[t] / bar[s]
        f = (half + 1) / 2
        variance = (1 - alpha) * ((1 - bar[s]) / (1 - bar[t])) ** (1 - f)  # beta^f beta-tilde^(1 - f)
        mean = (bar[s].sqrt() * (1 - alpha) * estimate + alpha.sqrt() * (1 - bar[s]) * grid) / (1 - bar[t])
        step = torch.exp(-((grid - mean[:, None]) ** 2) / (2 * variance[:, None])) / variance[:, None].sqrt()
        law = law @ step
        law = law / law.sum()
    cdf, points = law.cumsum(0) - law / 2, 0.6 * torch.tanh(grid)
    assert distance(x, points, cdf) < 2.2 / n**0.5
    for other in ("small", "large"):
        fixed = GaussianDiffusion(schedule, "x0", other)
        steps = ancestral_steps(net, fixed, (n, 1), times=times, clip=False, x_T=x_T, generator=seeded(1))
        assert distance(sample(steps, progress=False)[:, 0], points, cdf) > 3 * 2.2 / n**0.5


@torch.no_grad()
def test_guidance_leaves_the_second_half_to_the_network_with_labels():
    """As in Dhariwal and Nichol's and in GLIDE's code; the first half is guided as ever."""
    net, x, t = unet(), normal(3, 1, 8, 8, dtype=torch.float32), torch.tensor([5, 500, 1000])
    y = torch.tensor([0, 1, 2])
    with_labels, without = net(x, t, y), net(x, t)
    guided = Guided(net, 3.0)(x, t, y)
    assert (guided[:, 1:] - with_labels[:, 1:]).abs().max() < 1e-5
    assert (guided[:, :1] - (without + 3 * (with_labels - without))[:, :1]).abs().max() < 1e-4
    by_gradient = ClassifierGuided(net, LEARNED, lambda x, t, y: -x.square().flatten(1).sum(1), 0.5)
    out = by_gradient(x, t, y)
    assert torch.equal(out[:, 1:], without[:, 1:]) and (out[:, :1] - without[:, :1]).abs().min() > 0


def test_networks_in_half_precision_and_with_self_conditioning_sample_too():
    net = unet(self_condition=True)
    for made in (net, copy.deepcopy(net).to(torch.bfloat16), copy.deepcopy(net).double()):
        x = sample(ancestral_steps(made, LEARNED, (2, 1, 8, 8), 5, y=[0, 2], generator=seeded()), progress=False)
        assert x.shape == (2, 1, 8, 8) and bool(x.isfinite().all())
