"""The variational bound: against scipy, torch.distributions, brute-force integrals and exact log-likelihoods."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from core import F64, both_variances, density, every_prediction, normal, seeded
from torch.distributions import Normal, kl_divergence

from ddpm_course.bound import bits_per_dim, discretised_log_likelihood, gaussian_kl, prior_bits, variational_term
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.toy import Mixture, bimodal, oracle

LEVELS = torch.arange(256, dtype=F64) / 127.5 - 1
EDGES = np.concatenate([[-np.inf], (np.arange(1, 256) * 2 - 1) / 255 - 1, [np.inf]])  # of the 256 bins


def last_variance(schedule):
    """β̃_2, written out."""
    beta, bar = schedule.beta, schedule.alpha_bar
    return (beta[2] * (1 - bar[1]) / (1 - bar[2])).item()


def bits(nats):
    return nats.flatten(1).mean(1) / math.log(2)


def test_kl_against_torch_distributions_and_its_integral():
    """By quadrature to 1e-9; 200 random pairs to 1e-12 relative. For v1 = v2 (1 + e) it is e²/4 - …: at e = 1e-7, which
    loses every digit as log - 1 + ratio, to 1e-6 relative."""
    m1, m2 = normal(2, 200)
    v1, v2 = normal(2, 200, seed=1).exp()
    p, q = scipy.stats.norm(0.3, 0.5**0.5), scipy.stats.norm(-0.2, 1.5**0.5)
    integral, _ = scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -9, 9)
    assert abs(gaussian_kl(0.3, 0.5, -0.2, 1.5) - integral) < 1e-9
    expected = kl_divergence(Normal(m1, v1.sqrt()), Normal(m2, v2.sqrt()))
    assert ((gaussian_kl(m1, v1, m2, v2) - expected) / expected).abs().max() < 1e-12
    assert gaussian_kl(normal(3, 1), 1.0, normal(1, 4), torch.full((3, 4), 2.0, dtype=F64)).shape == (3, 4)
    assert gaussian_kl(0.0, 1.0, 0.0, 1.0) == 0
    assert abs(gaussian_kl(0.0, 1 + 1e-7, 0.0, 1.0) / (1e-14 / 4) - 1) < 1e-6


@pytest.mark.parametrize("std", [1e-3, 0.005, 0.01, 0.05, 0.3, 1.0, 5.0])
def test_decoder_against_scipys_normal_distribution(std):
    """All 256 levels against the difference of scipy's cdf, to 1e-9 where that has digits. They sum to one, to 1e-12, for
    means in and outside of [-1, 1]; uint8 scaled in float32 falls into the same bins."""
    means = torch.cat([torch.linspace(-2, 2, 41, dtype=F64), torch.tensor([-0.99, -0.303], dtype=F64)])[:, None]
    ours = discretised_log_likelihood(LEVELS.expand(43, -1), means.expand(-1, 256), std**2)
    theirs = torch.from_numpy(np.diff(scipy.stats.norm.cdf(EDGES, means.numpy(), std)))  # (43, 256)
    big = theirs > 1e-6
    assert big.any(1).all() and ours.dtype == F64
    assert (ours.exp() - theirs).abs().max() < 1e-12
    assert (ours.exp()[big] / theirs[big] - 1).abs().max() < 1e-9
    assert (ours.exp().sum(1) - 1).abs().max() < 1e-12
    scaled = to_unit_range(torch.arange(256, dtype=torch.uint8)).expand(43, -1)
    assert torch.equal(discretised_log_likelihood(scaled, means.expand(-1, 256), std**2), ours)


def test_far_bins_have_the_log_probability_of_the_tail():
    """100 to 2,000 standard deviations away, where probabilities are 0 in float64: scipy's logcdf to 1e-6 relative."""
    mean, std, levels = 0.9, 1e-3, [0, 5, 100, 200]
    ours = discretised_log_likelihood(LEVELS[levels], torch.full((4,), mean, dtype=F64), std**2)
    theirs = scipy.stats.norm.logcdf(EDGES[1:][levels], mean, std)  # of the upper edge: the lower one adds nothing
    assert (ours / torch.from_numpy(theirs) - 1).abs().max() < 1e-6
    mirrored = discretised_log_likelihood(-LEVELS[levels], torch.full((4,), -mean, dtype=F64), std**2)
    assert (ours / mirrored - 1).abs().max() < 1e-9


def test_gradients_are_finite_and_those_of_finite_differences():
    """Of the decoder, at the outermost levels and far in the tails too, and of a network's weight through both terms."""
    x, means = LEVELS[[0, 0, 30, 128, 255, 255]], torch.tensor([-1.1, 0.9, -0.7, 0.02, 1.2, -1.0], dtype=F64)
    diffusion, t = GaussianDiffusion(cosine_schedule(20), "v", "large"), torch.tensor([1, 1, 2, 10, 19, 20])
    given = dict(noise=normal(6, 4), x0=LEVELS[torch.arange(24) * 11].reshape(6, 4), t=t)
    for function, at in (
        (lambda mean: discretised_log_likelihood(x, mean, torch.tensor(1e-4, dtype=F64)), means),
        (lambda scale: discretised_log_likelihood(x, means, 1e-4 * scale), torch.ones(6, dtype=F64)),
        (lambda weight: variational_term(lambda x, t, y: weight * x, diffusion, **given), normal(4)),
    ):
        assert torch.autograd.gradcheck(function, at.clone().requires_grad_(), eps=1e-7, atol=1e-3, rtol=1e-5)


def test_prior_against_torch_distributions_and_the_paper():
    """A chain that ends at ᾱ_T = 1/2, to 1e-12; and section 4 of the paper: about 1e-5 bits per dimension, and to first
    order ᾱ_T m / (2 ln 2), with m the images' mean square."""
    x0, short = normal(5, 3), Schedule(torch.tensor([0.2, 0.375], dtype=F64))
    kl = bits(kl_divergence(Normal(0.5**0.5 * x0, 0.5**0.5), Normal(0.0, 1.0)))
    assert (prior_bits(short, x0) - kl).abs().max() < 1e-12
    images, schedule = to_unit_range(load_images(split="test", limit=500)[0]), linear_schedule()
    prior = prior_bits(GaussianDiffusion(schedule), images)
    by_hand = schedule.alpha_bar[-1] * images.double().square().flatten(1).mean(1) / (2 * math.log(2))
    assert prior.shape == (500,) and (prior / by_hand - 1).abs().max() < 0.01 and 1.5e-5 < prior.mean() < 2.5e-5


@both_variances
@every_prediction
@pytest.mark.parametrize(
    "schedule, times", [(cosine_schedule(50), [2, 7, 25, 49, 50]), (linear_schedule(), [2, 3, 99, 999, 1000])]
)
def test_a_term_is_the_kl_of_the_two_reverse_gaussians(schedule, times, predicts, variance):
    """By torch.distributions, with a network that returns 0.3 x_t, to 1e-6 relative. An int t and an image alone give the
    same. With the small variance it is (SNR(t-1) - SNR(t)) / 2 |x_0 - x̂_0|² (Kingma et al., 2021, eq. 13), to 1e-9."""
    diffusion, t = GaussianDiffusion(schedule, predicts, variance), torch.tensor(times)
    x0, noise = normal(5, 1, 4, 4).clamp(-1, 1), normal(5, 1, 4, 4, seed=1)
    net = lambda x, t, y: 0.3 * x  # noqa: E731
    term = variational_term(net, diffusion, x0, t, noise=noise)
    xt = q_sample(schedule, x0, t, noise)
    guess = diffusion.decode(0.3 * xt, xt, t)[0].clamp(-1, 1)
    mean, beta_tilde = q_posterior(schedule, x0, xt, t, t - 1)
    p_mean, _ = q_posterior(schedule, guess, xt, t, t - 1)
    p_variance = beta_tilde if variance == "small" else schedule.beta[t].reshape(-1, 1, 1, 1)
    kl = kl_divergence(Normal(mean, beta_tilde.sqrt()), Normal(p_mean, p_variance.sqrt()))
    assert (term / bits(kl) - 1).abs().max() < 1e-6
    for i, step in enumerate(times):
        alone = variational_term(net, diffusion, x0[i : i + 1], step, noise=noise[i : i + 1])
        assert abs(alone / term[i] - 1) < 1e-12
    if variance == "small":
        drop = schedule.snr[t - 1] - schedule.snr[t]
        assert (term / (0.5 * drop * bits((x0 - guess).square())) - 1).abs().max() < 1e-9


@both_variances
def test_the_first_term_is_the_decoder_with_the_variance_of_step_two(variance):
    """β̃_2 for both, as the paper's code has it; against scipy at all 256 levels, to 1e-9."""
    diffusion, net = GaussianDiffusion(linear_schedule(), "x0", variance), lambda x, t, y: torch.full_like(x, 0.1)
    p = np.diff(scipy.stats.norm.cdf(EDGES, 0.1, last_variance(diffusion.schedule) ** 0.5))
    seen = p > 1e-4
    for t in (1, torch.ones(256, dtype=torch.int64)):
        term = variational_term(net, diffusion, LEVELS[:, None], t, noise=normal(256, 1)).numpy()
        assert seen.sum() >= 5 and np.abs(term[seen] + np.log2(p[seen])).max() < 1e-9


def test_the_bound_is_tight_where_the_reverse_steps_are_gaussian():
    """Unit Gaussian data: q(x_{t-1} | x_t) is N(√α_t x_t, β_t), so with the large variance and the exact network every
    step but the last is exact. That has v = β̃_2 in place of β_1, which costs (β_1/v - 1 - ln(β_1/v))/2 nats beyond the
    entropy ln(2πe)/2: 20,000 points, T = 8, within 4 standard errors (seed 0)."""
    diffusion = GaussianDiffusion(Schedule(torch.linspace(0.05, 0.7, 8, dtype=F64)), "noise", "large")
    data = Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.0]], [1.0])))
    x0, net = data.sample(20_000, generator=seeded()), oracle(data, diffusion)
    bound = bits_per_dim(net, diffusion, x0, clip=False, continuous=True, batch_size=20_000, generator=seeded(1))
    ratio = diffusion.schedule.beta[1] / last_variance(diffusion.schedule)
    expected = 0.5 * math.log(2 * math.pi * math.e) + 0.5 * (ratio - 1 - ratio.log())
    assert bound.error < 0.02
    assert abs(bound.bits * math.log(2) - expected) < 4 * bound.error * math.log(2)


@both_variances
def test_the_bound_holds_point_by_point_against_the_models_exact_likelihood(variance):
    """A poor network, T = 12, 8 values of x_0: over 4,000 draws the bound is nowhere below -log2 p(x_0), to 3 standard
    errors. That by brute force: the density of x_T is carried through every reverse step on a grid."""
    schedule = Schedule(torch.linspace(0.02, 0.6, 12, dtype=F64))
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    exact = oracle(bimodal(F64), diffusion)
    net = lambda x, t, y=None: 0.8 * exact(x, t)  # noqa: E731
    x0 = torch.tensor([-0.8, -0.6, -0.5, -0.2, 0.0, 0.3, 0.5, 0.9], dtype=F64)
    grid = torch.linspace(-5, 5, 2001, dtype=F64)
    law, x = density(grid, 0, 1), grid[:, None]
    for t in range(12, 0, -1):
        guess, _ = diffusion.decode(net(x, torch.full((len(x),), t)), x, t)
        mean, small = q_posterior(schedule, guess, x, t, t - 1)  # (2001, 1)
        step_variance = last_variance(schedule) if t == 1 else small if variance == "small" else schedule.beta[t]
        step = density(x0 if t == 1 else grid, mean, step_variance)  # of the new points, a row for every old one
        law = torch.trapezoid(law[:, None] * step, grid, dim=0)
    repeated = x0.repeat_interleave(4000)[:, None]
    bound = bits_per_dim(net, diffusion, repeated, clip=False, continuous=True, batch_size=32_000, generator=seeded())
    each = bound.per_image.reshape(8, 4000)
    gap, error = each.mean(1) + law.log2(), each.std(1) / 4000**0.5
    assert (gap > -3 * error).all() and (gap > 5 * error).any()  # it is a bound, and not the thing itself
    assert 0 < gap.mean() < 3


def test_a_subset_of_t_is_unbiased_and_its_error_honest():
    """60 estimates of 8 strata (T = 64), each with its 200 points: their mean is that over all t, within 4 standard errors,
    and their spread the reported error, to 35 %."""
    mixture, diffusion = bimodal(F64), GaussianDiffusion(linear_schedule(64), "v")
    exact = oracle(mixture, diffusion)

    def estimates(seeds, steps):
        net, draws = lambda x, t, y: exact(x, t) + 0.2 * x, [seeded(seed) for seed in seeds]
        points = [(mixture.sample(200, generator=draw), draw) for draw in draws]
        bounds = [bits_per_dim(net, diffusion, x0, steps=steps, continuous=True, generator=g) for x0, g in points]
        return torch.tensor([(bound.bits, bound.error) for bound in bounds]).T

    (few, errors), (whole, _) = estimates(range(60), 8), estimates(range(1000, 1010), None)
    assert (few.mean() - whole.mean()).abs() < 4 * (few.var() / 60 + whole.var() / 10).sqrt()
    assert abs(few.std() / errors.mean() - 1) < 0.35


@pytest.mark.parametrize("steps", [2, 7, None])
def test_terms_and_prior_add_up_and_every_t_and_every_image_is_counted_once(steps):
    """Labels follow their images through the chunks, uint8 and floats give the same, and dropout is off, then on again."""
    images, labels = load_images(split="test", limit=30)
    diffusion, seen = GaussianDiffusion(cosine_schedule(50), "v"), []

    class Net(torch.nn.Module):
        def forward(self, x, t, y):
            assert not self.training and not torch.is_grad_enabled()
            seen.append((t, y))
            return 0.3 * x

    net, calls = Net(), steps or 50
    bound, same = (
        bits_per_dim(net, diffusion, x0, labels, steps=steps, batch_size=20, generator=seeded())
        for x0 in (to_unit_range(images), images)
    )
    assert net.training and same.bits == bound.bits and str(bound).startswith(f"{bound.bits:.3f} ± {bound.error:.3f} ")
    assert abs(bound.prior + bound.terms.sum().item() - bound.bits) < 1e-9 * bound.bits
    assert abs(bound.per_image.mean().item() - bound.bits) < 1e-9 * bound.bits
    assert bound.terms.shape == (51,) and bound.terms[0] == 0 and (bound.terms[1:] > 0).all()
    assert len(seen) == 2 * 2 * calls and torch.equal(torch.cat([seen[0][1], seen[calls][1]]), labels)
    drawn = torch.cat([t for t, _ in seen[: 2 * calls]])
    assert drawn.min() == 1 and drawn.max() <= 50 and (drawn == 1).sum() == 30
    assert steps or (drawn.bincount()[1:] == 30).all()


def test_a_chain_of_one_step():
    """T = 1: L_T and L_0 with β_1 are all there is."""
    x0, diffusion = normal(20, 1), GaussianDiffusion(Schedule(torch.tensor([0.5], dtype=F64)), "x0")
    bound = bits_per_dim(lambda x, t, y: torch.zeros_like(x), diffusion, x0, continuous=True, clip=False)
    nats = -scipy.stats.norm.logpdf(x0.numpy(), 0, 0.5**0.5).mean()
    assert abs(bound.terms[1] - nats / math.log(2)) < 1e-12
