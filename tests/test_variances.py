"""The best reverse variance: against exact chains of Gaussians, brute-force minima and the samplers themselves."""

import math
from functools import partial

import pytest
import torch
from core import F64, normal, perturbed, seeded
from trainings import IMAGES, LABELS, unet

from ddpm_course.bound import bits_per_dim, variational_term
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.samplers import ancestral_coefficients, ancestral_steps, ddim_steps, sample
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.times import spaced_timesteps
from ddpm_course.toy import Mixture, bimodal, oracle
from ddpm_course.variances import best_coefficients, best_variances, respaced, squared_errors

STD = 0.3


def gaussian():
    return Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.0]], [STD])))


def exact_errors(schedule):
    """Var(x_0 | x_t) for Gaussian data: s² (1 - ᾱ) / (ᾱ s² + 1 - ᾱ)."""
    bar = schedule.alpha_bar
    return STD**2 * (1 - bar) / (bar * STD**2 + 1 - bar)


@pytest.mark.parametrize("steps", [1000, 50, 10, 3])
def test_a_gaussian_chain_with_the_best_variances_is_exact_at_any_stride(steps):
    """The variance of x_s, carried through every step, is ᾱ_s s² + 1 - ᾱ_s, to 1e-10: a linear schedule, whose x_T is
    N(0, 1) to 4e-5, started with the right variance. With beta-tilde or beta it is not."""
    schedule, times = linear_schedule(), spaced_timesteps(1000, steps)
    bar, errors = schedule.alpha_bar[times], exact_errors(schedule)
    gain = schedule.alpha_bar.sqrt() * STD**2 / (schedule.alpha_bar * STD**2 + 1 - schedule.alpha_bar)
    for coefficients in (partial(best_coefficients, errors=errors), ancestral_coefficients):
        worst = 0.0
        for variant in ("small", "large"):
            diffusion, variance = GaussianDiffusion(schedule, "x0", variant), bar[0] * STD**2 + 1 - bar[0]
            numbers = zip(*coefficients(diffusion, bar[:-1], bar[1:]), strict=True)
            for t, s, (on_x0, on_xt, sigma) in zip(times[:-2], times[1:-1], numbers, strict=False):
                variance = (on_x0 * gain[t] + on_xt) ** 2 * variance + sigma**2
                worst = max(worst, abs(variance / (schedule.alpha_bar[s] * STD**2 + 1 - schedule.alpha_bar[s]) - 1))
        assert worst > 1e-4 if coefficients is ancestral_coefficients else worst < 1e-10


def test_samples_of_five_steps_have_the_variance_of_the_data():
    """20,000 draws before the last, noiseless step: within 5 standard errors of the exact one, which the two others miss."""
    schedule, n = linear_schedule(), 20_000
    diffusion = GaussianDiffusion(schedule, "v")
    net, times = oracle(gaussian(), diffusion), [1000, 400, 150, 30, 2, 0]
    exact = (schedule.alpha_bar[2] * STD**2 + 1 - schedule.alpha_bar[2]).item()
    errors, off = exact_errors(schedule), {}
    for name in ("best", "small", "large"):
        fixed = GaussianDiffusion(schedule, "v", "large" if name == "large" else "small")
        chosen = partial(best_coefficients, errors=errors) if name == "best" else ancestral_coefficients
        options = dict(times=times, clip=False, x_T=normal(n, 1), generator=seeded(1), coefficients=chosen)
        x = list(ancestral_steps(net, fixed, (n, 1), **options))[-2].x
        off[name] = abs(x.var().item() / exact - 1)
    assert off["best"] < 5 * math.sqrt(2 / n) < min(off["small"], off["large"])


def test_no_other_variance_has_a_smaller_term():
    """Two peaks and a poor network, t = 4 of 10: the mean term at the best variance, and at it times 0.9 and 1.1; the same
    draws for all. That holds with the poor network's own errors, and not with the exact one's."""
    mixture, schedule, n, t = bimodal(F64), cosine_schedule(10), 20_000, 4
    diffusion = GaussianDiffusion(schedule, "x0")
    exact = oracle(mixture, diffusion)
    poor = lambda x, t, y=None: 0.7 * exact(x, t) + 0.1  # noqa: E731
    x0, noise, terms = mixture.sample(n, generator=seeded()), normal(n, 1, seed=1), {}
    for name, net in (("its own", poor), ("the exact", exact)):
        errors = squared_errors(net, diffusion, x0, steps=10, clip=False, generator=seeded(2))
        best = best_variances(schedule, errors)
        options = dict(noise=noise, clip=False, continuous=True)
        terms[name] = [
            variational_term(poor, diffusion, x0, t, variances=f * best, **options).mean() for f in (1, 0.9, 1.1)
        ]
    assert terms["its own"][0] < min(terms["its own"][1:]) and terms["its own"][0] < terms["the exact"][0]


def test_it_lies_between_the_two_where_the_error_is_at_most_one_minus_alpha_bar():
    """At every t and error: equal to beta where it is 1 - ᾱ_t, to beta-tilde where it is 0."""
    for schedule in (linear_schedule(), cosine_schedule(50)):
        bar = schedule.alpha_bar
        tilde = schedule.beta[1:] * (1 - bar[:-1]) / (1 - bar[1:])
        for share, expected in ((0.0, tilde), (1.0, schedule.beta[1:])):
            best = best_variances(schedule, share * (1 - bar))
            assert (best[1:] - expected).abs().max() < 1e-12 and best[0] == 0
        assert (best_variances(schedule, 0.99 * (1 - bar))[1:] < schedule.beta[1:]).all()
        assert (best_variances(schedule, 1.01 * (1 - bar))[1:] > schedule.beta[1:]).all()


def test_the_bound_with_the_best_variances_is_the_entropy_of_gaussian_data():
    """ln(2πe s²)/2 nats, at T = 8 and in respaced chains: 20,000 points, within 4 standard errors. The fixed variances
    cost more, in pairs on the same draws."""
    diffusion = GaussianDiffusion(Schedule(torch.linspace(0.05, 0.9, 8, dtype=F64)), "noise")
    x0, net = gaussian().sample(20_000, generator=seeded()), oracle(gaussian(), diffusion)
    entropy = 0.5 * math.log(2 * math.pi * math.e * STD**2)
    options = dict(clip=False, continuous=True, batch_size=20_000)
    for times in (list(range(8, -1, -1)), [8, 5, 3, 0], [8, 1, 0]):
        some_net, some = respaced(net, diffusion, times)
        variances = best_variances(some.schedule, exact_errors(some.schedule))
        bound = bits_per_dim(some_net, some, x0, variances=variances, generator=seeded(1), **options)
        rest = bound.prior * math.log(2)  # which is no more than 0.001 here
        assert abs(bound.bits * math.log(2) - rest - entropy) < 4 * bound.error * math.log(2) + rest
        for variance in ("small", "large"):
            fixed = GaussianDiffusion(some.schedule, "noise", variance)
            gap = bits_per_dim(some_net, fixed, x0, generator=seeded(1), **options).per_image - bound.per_image
            assert gap.mean() > 5 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize("steps", [12, 100])
def test_measured_errors_are_the_exact_ones(steps):
    """Gaussian data and its exact network, 20,000 points, T = 100: at every t, measured or between, to 6 %."""
    diffusion = GaussianDiffusion(cosine_schedule(100), "v")
    net, x0 = oracle(gaussian(), diffusion), gaussian().sample(20_000, generator=seeded())
    found = squared_errors(net, diffusion, x0, steps=steps, clip=False, batch_size=20_000, generator=seeded(1))
    assert found.shape == (101,) and found.dtype == F64 and found[0] == 0
    assert (found[1:] / exact_errors(diffusion.schedule)[1:] - 1).abs().max() < 0.06


def test_images_labels_and_modes_are_those_of_the_bound():
    """uint8 as floats, labels beside their images whatever the batch, dropout off and on again, the estimate clipped."""
    seen, diffusion = [], GaussianDiffusion(cosine_schedule(20), "x0")

    class Net(torch.nn.Module):
        def forward(self, x, t, y):
            assert not self.training
            seen.append((t, y))
            return torch.full_like(x, 5.0)

    net = Net()
    floats = IMAGES.float() / 127.5 - 1
    found = squared_errors(net, diffusion, IMAGES, LABELS, steps=4, batch_size=31)
    assert torch.equal(squared_errors(net, diffusion, floats, LABELS, steps=4, batch_size=40), found) and net.training
    assert torch.equal(torch.cat([y for _, y in seen[:2]]), LABELS) and {t.unique().item() for t, _ in seen} >= {1, 20}
    assert abs(found[20] / (1 - floats).double().square().mean() - 1) < 1e-6
    unclipped = squared_errors(net, diffusion, floats, LABELS, clip=False, steps=4)
    assert abs(unclipped[20] / (5 - floats).double().square().mean() - 1) < 1e-6


@pytest.mark.parametrize("sampler", [ancestral_steps, ddim_steps])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_a_respaced_chain_is_the_strided_sampler(sampler, variance):
    """Step for step, to 1e-5 in float32: labels, self-conditioning and a learned variance go along."""
    net = perturbed(unet(self_condition=True, learn_variance=variance == "learned")).eval()
    diffusion, times = GaussianDiffusion(cosine_schedule(), "v", variance), [1000, 700, 650, 90, 2, 0]
    some_net, some = respaced(net, diffusion, times)
    options = dict(y=[0, 1, 2], x_T=normal(3, 1, 8, 8, dtype=torch.float32))
    ours = sampler(some_net, some, (3, 1, 8, 8), generator=seeded(1), **options)
    theirs = sampler(net, diffusion, (3, 1, 8, 8), times=times, generator=seeded(1), **options)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert (a.t, a.s, b.t) == (5 - i, 4 - i, times[i]) and (a.x - b.x).abs().max() < 1e-5
    assert sample(sampler(some_net, some, (3, 1, 8, 8), 2, **options), progress=False).isfinite().all()


def test_what_does_not_fit_is_named():
    diffusion, net = GaussianDiffusion(cosine_schedule(10), "v"), lambda x, t, y: x
    for call, complaint in (
        (lambda: best_variances(diffusion.schedule, torch.zeros(10)), r"errors must have shape \(11,\).*got \(10,\)"),
        (lambda: squared_errors(net, diffusion, IMAGES[:0]), "no images"),
        (lambda: squared_errors(net, diffusion, IMAGES, steps=11), "steps must be a whole number from 2 to 10"),
        (lambda: squared_errors(net, diffusion, IMAGES, steps=5, batch_size=0), "batch_size must be a whole number"),
        (lambda: squared_errors(net, diffusion, IMAGES, LABELS[:9], steps=5), "labels must have shape"),
        (lambda: respaced(net, diffusion, [10, 5]), "times must fall"),
        (lambda: bits_per_dim(net, diffusion, IMAGES, variances=torch.ones(10)), r"variances must have shape \(11,\)"),
    ):
        with pytest.raises(ValueError, match=complaint):
            call()
