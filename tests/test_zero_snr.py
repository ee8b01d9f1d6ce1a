"""Schedules that leave nothing of x_0 at T: the ceiling that they lift, what runs with them, and what says why it doesn't."""

import math
from functools import partial

import pytest
import torch
from core import F64, normal, perturbed, seeded
from torch import nn
from trainings import IMAGES, LABELS, go, small, unet

from ddpm_course.bound import bits_per_dim, prior_bits, variational_term
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.equations import ode_log_likelihood
from ddpm_course.guidance import ClassifierGuided, edit_steps, inpaint_steps
from ddpm_course.losses import diffusion_loss
from ddpm_course.nets import Guided
from ddpm_course.samplers import ancestral_steps, ddim_steps, sample
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule, rescaled, schedule_through
from ddpm_course.solvers import encode_steps, heun_steps, multistep_steps
from ddpm_course.times import spaced_timesteps
from ddpm_course.toy import Mixture, oracle
from ddpm_course.training import load_checkpoint, save_checkpoint
from ddpm_course.variances import best_coefficients, best_variances, respaced, squared_errors
from ddpm_course.weighting import min_snr_weights, p2_weights

SHORT = linear_schedule(200, rescale=False)  # ends with 13 % of the variance still the data's
GREYS = 28 / 3**0.5  # brightness, uniform on [-1, 1]: the deviation of 784 equal pixels along (1, …, 1) / 28


def stable_diffusion():
    return Schedule(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64) ** 2)


CEILINGS = {  # what lesson 12 states
    "0.09": SHORT,
    "0.16": linear_schedule(300, rescale=False),
    "0.52": stable_diffusion(),
    "5.6": linear_schedule(),
    "725": cosine_schedule(),
}


@pytest.mark.parametrize("stated", CEILINGS)
def test_the_grey_ceilings_are_those_that_the_course_states(stated):
    """sqrt((1 - ᾱ_T) / ᾱ_T) / sqrt(784), in as many digits; constant greys have a deviation of 1/sqrt(3), 0.58."""
    bar = CEILINGS[stated].alpha_bar[-1].item()
    decimals = len(stated.partition(".")[2])
    assert f"{math.sqrt((1 - bar) / bar) / 28:.{decimals}f}" == stated
    assert abs(CEILINGS[stated].snr[-1].item() ** -0.5 / math.sqrt((1 - bar) / bar) - 1) < 1e-12
    assert f"{GREYS / 28:.2f}" == "0.58"


def brightness(schedule, sampler, steps, predicts="v"):
    """The deviation of the mean brightness of samples: exact network, data of constant greys seen along (1, …, 1)."""
    diffusion = GaussianDiffusion(schedule, predicts)
    line = Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.0]], [GREYS])))
    x_T = torch.tensor([[1.0]], dtype=F64)  # one deviation of the noise; all samplers here are linear in it
    steps = sampler(oracle(line, diffusion), diffusion, (1, 1), steps, clip=False, x_T=x_T)
    return sample(steps, progress=False).item() / 28


@pytest.mark.parametrize("sampler", [ddim_steps, heun_steps, multistep_steps])
def test_the_ceiling_is_there_before_and_gone_after(sampler):
    """Gaussian greys, exact network, 200 steps. Before: s / sqrt(ᾱ s² 784 + 1 - ᾱ), which is near the ceiling, to 2 %; after:
    the data's own deviation, which every solver must reach from N(0, 1), to 2 % (DDIM to 5 %)."""
    bar, s = SHORT.alpha_bar[-1].item(), GREYS / 28
    before = s / math.sqrt(bar * s**2 * 784 + 1 - bar)
    tolerance = 0.05 if sampler is ddim_steps else 0.02
    assert abs(brightness(SHORT, sampler, 200) / before - 1) < tolerance and abs(before / 0.09 - 1) < 0.1
    for predicts in ("v", "x0"):
        assert abs(brightness(rescaled(SHORT), sampler, 200, predicts) / s - 1) < tolerance


@pytest.mark.parametrize("schedule", [linear_schedule(), SHORT, stable_diffusion(), cosine_schedule()], ids=repr)
def test_rescaling_is_algorithm_1(schedule):
    """Written out with lists of floats, as the paper has it, from betas to betas; ᾱ_1 stays, ᾱ_T is 0, β_T is 1."""
    ours = rescaled(schedule)
    alphas_bar, product = [], 1.0
    for beta in schedule.beta[1:].tolist():
        product *= 1 - beta
        alphas_bar.append(product**0.5)
    first, last = alphas_bar[0], alphas_bar[-1]
    roots = [(root - last) * first / (first - last) for root in alphas_bar]
    squares = [root**2 for root in roots]
    betas = [1 - squares[0]] + [1 - b / a for a, b in zip(squares, squares[1:], strict=False)]
    assert max(abs(a - b) for a, b in zip(ours.alpha_bar[1:].tolist(), squares, strict=True)) < 1e-12
    assert max(abs(a - b) for a, b in zip(ours.beta[1:].tolist(), betas, strict=True)) < 1e-10
    assert ours.alpha_bar[-1] == 0 and ours.beta[-1] == 1 and ours.snr[-1] == 0 and ours.T == schedule.T
    assert abs(ours.alpha_bar[1] / schedule.alpha_bar[1] - 1) < 1e-12


def test_it_does_next_to_nothing_to_the_bundled_networks_schedule():
    moved = (rescaled(cosine_schedule()).alpha_bar.sqrt() - cosine_schedule().alpha_bar.sqrt()).abs().max()
    assert moved < 5e-5


def test_a_beta_of_one_has_to_be_asked_for_and_can_only_be_the_last():
    betas = torch.tensor([0.1, 0.2, 1.0], dtype=F64)
    asked = Schedule(betas, zero_snr=True)
    assert torch.equal(asked.alpha_bar, torch.tensor([1.0, 0.9, 0.9 * 0.8, 0.0], dtype=F64))
    assert Schedule(betas[:2], zero_snr=True).alpha_bar[-1] > 0  # it may, and need not
    for refused in (betas, [1.0]):
        with pytest.raises(ValueError, match="every beta must lie strictly between 0 and 1"):
            Schedule(refused)
    for refused in ([1.0, 0.1], [0.1, 1.1], [0.1, 1.0, 1.0], [0.0, 1.0], [0.1, math.nan]):
        with pytest.raises(ValueError, match="every beta must lie strictly between 0 and 1"):
            Schedule(refused, zero_snr=True)
    levels = torch.tensor([0.9, 0.5, 0.0], dtype=F64)
    assert torch.equal(schedule_through(levels, zero_snr=True).alpha_bar[1:], levels)
    for refused in (dict(), dict(zero_snr=True)):
        with pytest.raises(ValueError, match="alpha_bar must be"):
            schedule_through(levels - 0.1 * bool(refused), **refused)


def test_one_step_of_the_chain_and_the_posterior_at_T():
    """q_step to T and q_sample at T are the noise; q(x_s | x_T, x_0) is q(x_s | x_0), which has forgotten x_T."""
    schedule, x0, noise, s = rescaled(SHORT), normal(3, 2), normal(3, 2, seed=1), 120
    for t in (200, torch.full((3,), 200)):
        assert torch.equal(q_step(schedule, x0, t, noise), noise) and torch.equal(
            q_sample(schedule, x0, t, noise), noise
        )
        mean, variance = q_posterior(schedule, x0, noise, t, s if isinstance(t, int) else torch.full((3,), s))
        assert (mean - schedule.alpha_bar[s].sqrt() * x0).abs().max() < 1e-12
        assert (variance - (1 - schedule.alpha_bar[s])).abs().max() < 1e-12


ZERO = rescaled(linear_schedule(100))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("predicts", ["v", "x0"])
def test_every_sampler_and_loss_is_finite(predicts, variance):
    """All of them with one network, at T among the others: no 0/0, no infinity, in float32."""
    diffusion, shape = GaussianDiffusion(ZERO, predicts, variance), (3, 1, 8, 8)
    net = perturbed(unet(learn_variance=variance == "learned")).eval()
    x0, y = (IMAGES[:3].float() / 127.5 - 1), LABELS[:3]
    t = torch.tensor([100, 1, 100])
    assert diffusion_loss(net, diffusion, x0, y, t=t).isfinite().all()
    for weights in (min_snr_weights(diffusion), p2_weights(diffusion)):
        assert weights.isfinite().all() and weights[-1] == 0  # at T nothing can be learned of x_0 but its mean
    for term in (variational_term(net, diffusion, x0, t, y), variational_term(net, diffusion, x0, 100, y)):
        assert term.isfinite().all()
    assert bits_per_dim(net, diffusion, IMAGES, LABELS, steps=10).bits < math.inf
    assert (prior_bits(diffusion, x0) == 0).all()
    errors = squared_errors(net, diffusion, IMAGES, LABELS, steps=4)
    assert errors.isfinite().all() and best_variances(ZERO, errors).isfinite().all()
    best = partial(best_coefficients, errors=errors)
    some_net, some = respaced(net, diffusion, [100, 50, 2, 0])
    assert some.schedule.alpha_bar[-1] == 0
    mask = torch.zeros(1, 1, 8, 8).index_fill(3, torch.tensor([0, 1]), 1.0)
    made = [
        *(make(net, diffusion, shape, 7, y=y) for make in (ancestral_steps, ddim_steps, heun_steps, multistep_steps)),
        ddim_steps(net, diffusion, shape, 7, y=y, eta=0.5), ddim_steps(Guided(net, 3.0, rescale=0.7), diffusion, shape, 7, y=y),
        ancestral_steps(net, diffusion, shape, 7, y=y, coefficients=best), ancestral_steps(net, diffusion, shape, 1, y=y),
        multistep_steps(net, diffusion, shape, 2), heun_steps(net, diffusion, shape, 2, smooth_end=True),
        *(encode_steps(net, diffusion, x0, 7, y=y, solver=solver) for solver in ("ddim", "heun", "multistep")),
        inpaint_steps(net, diffusion, x0, mask, 7, repeats=2, y=y), edit_steps(net, diffusion, x0, 1.0, 7, y=y),
        ancestral_steps(some_net, some, shape, y=y),
    ]  # fmt: skip
    for steps in made:
        assert all(bool(step.x.isfinite().all()) for step in steps)


def test_the_likelihood_by_the_equation_is_that_of_gaussian_data():
    """From data to T in the angle, which ends at pi/2: 0.01 nats with 100 steps of Heun's method."""
    line = Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.1]], [0.5])))
    diffusion, x = GaussianDiffusion(rescaled(cosine_schedule()), "v"), torch.linspace(-1, 1, 5, dtype=F64)[:, None]
    found = ode_log_likelihood(oracle(line, diffusion), diffusion, x, 100)
    assert (found - line.log_prob(x)).abs().max() < 0.01


def test_ancestral_steps_with_all_steps_reproduce_the_data():
    """Gaussian data far wider than the noise: the deviation of 20,000 samples within 5 standard errors and 1 %."""
    line = Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.0]], [3.0])))
    diffusion, n = GaussianDiffusion(rescaled(linear_schedule()), "v"), 20_000
    steps = ancestral_steps(
        oracle(line, diffusion), diffusion, (n, 1), clip=False, x_T=normal(n, 1), generator=seeded(1)
    )
    assert abs(sample(steps, progress=False).std().item() / 3 - 1) < 5 / math.sqrt(2 * n) + 0.01


def test_what_cannot_be_says_why():
    v = GaussianDiffusion(ZERO, "v")
    net = lambda x, t, y=None: x  # noqa: E731
    for call, complaint in (
        (lambda: GaussianDiffusion(ZERO), "at T, x_t is the noise, and tells nothing of x_0.*0/0.*Predict v or x0"),
        (lambda: heun_steps(net, v, (2, 1), 5, coordinate="sigma"), "sigma is infinite there: use the angle"),
        (lambda: ClassifierGuided(net, v, lambda x, t, y: x[:, 0]), "alpha_bar is 0 at T"),
        (lambda: spaced_timesteps(100, 5, ZERO.snr.log()), "finite at T: log-SNR is not, where SNR is 0"),
        (lambda: rescaled(linear_schedule(1)), "alpha_bar must be"),
        (lambda: Guided(net, 2.0, weak=net, rescale=1.5), "rescale must be .* from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=complaint):
            call()


def test_it_trains_and_a_checkpoint_brings_it_back(tmp_path):
    diffusion = GaussianDiffusion(rescaled(cosine_schedule(100)), "v")
    run = go(10, net=unet(), diffusion=diffusion, t_around=None)
    save_checkpoint(tmp_path / "net", run.ema.net, diffusion)
    again = load_checkpoint(tmp_path / "net", "cpu")[1].schedule
    assert again.alpha_bar[-1] == 0 and (again.alpha_bar - diffusion.schedule.alpha_bar).abs().max() < 1e-12
    assert go(10, diffusion=diffusion, net=small(), weighting=min_snr_weights(diffusion), t_importance=True).step == 10


class Says(nn.Module):
    """Class 0 has one answer, none another; both halves of a learned variance."""

    num_classes = 1

    def forward(self, x, t, y=None):
        return torch.where((y == 0)[:, None, None, None], 0.5 * x + 0.1, 0.2 * x.flip(-1))


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_guidance_is_rescaled_as_in_the_papers_equations(rescale):
    """Eq. 15 and 16 for each image, with Python's own deviations; a second half of the output is left as it was."""
    x, t, y = normal(3, 2, 4, 4), torch.tensor([1, 500, 1000]), torch.zeros(3, dtype=torch.int64)
    net = Says()
    positive, plain = net(x, t, y), net(x, t, y + 1)
    guided = plain + 5 * (positive - plain)
    out = Guided(net, 5.0, rescale=rescale)(x, t, y)

    def deviation(image):
        values = image.flatten().tolist()
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))

    for i in range(3):
        image = guided[i] * deviation(positive[i]) / deviation(guided[i])
        assert (out[i] - (rescale * image + (1 - rescale) * guided[i])).abs().max() < 1e-12

    class Both(Says):
        def forward(self, x, t, y=None):
            return torch.cat([super().forward(x, t, y), 3 * x], 1)

    both = Guided(Both(), 5.0, rescale=rescale)(x, t, y)
    assert (both[:, :2] - out).abs().max() < 1e-12 and (both[:, 2:] - 3 * x).abs().max() < 1e-12
