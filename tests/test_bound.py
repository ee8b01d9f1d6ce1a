"""The variational bound: against scipy, torch.distributions, brute-force integrals and exact log-likelihoods."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch.distributions import Normal, kl_divergence

from ddpm_course.bound import bits_per_dim, discretised_log_likelihood, gaussian_kl, prior_bits, variational_term
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.toy import Mixture, bimodal, oracle

F64 = torch.float64
LEVELS = torch.arange(256, dtype=F64) / 127.5 - 1
EDGES = np.concatenate([[-np.inf], (np.arange(1, 256) * 2 - 1) / 255 - 1, [np.inf]])  # of the 256 bins
both_variances = pytest.mark.parametrize("variance", ["small", "large"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def chain(*betas):
    return Schedule(torch.tensor(betas, dtype=F64))


def last_variance(schedule):
    """β̃_2, written out."""
    beta, bar = schedule.beta, schedule.alpha_bar
    return (beta[2] * (1 - bar[1]) / (1 - bar[2])).item()


def bits(nats):
    return nats.flatten(1).mean(1) / math.log(2)


# ---- KL of two Gaussians ----


def test_kl_against_torch_distributions():
    """200 random pairs, to 1e-12 relative; shapes that broadcast, and plain numbers. For v1 = v2 (1 + e) it is e²/4 -
    e³/6 + …: at e = 1e-7, which loses every digit as log - 1 + ratio, to 1e-6 relative."""
    m1, m2 = normal(2, 200)
    v1, v2 = normal(2, 200, seed=1).exp()
    expected = kl_divergence(Normal(m1, v1.sqrt()), Normal(m2, v2.sqrt()))
    assert ((gaussian_kl(m1, v1, m2, v2) - expected) / expected).abs().max() < 1e-12
    kl = gaussian_kl(normal(3, 1), 1.0, normal(1, 4), torch.full((3, 4), 2.0, dtype=F64))
    assert kl.shape == (3, 4) and kl.dtype == F64
    assert gaussian_kl(0.0, 1.0, 0.0, 1.0) == 0
    assert abs(gaussian_kl(0.0, 1 + 1e-7, 0.0, 1.0) / (1e-14 / 4) - 1) < 1e-6


@pytest.mark.parametrize("m1, v1, m2, v2", [(0.3, 0.5, -0.2, 1.5), (0.0, 2.0, 0.0, 0.7), (1.0, 0.1, 1.1, 0.1)])
def test_kl_against_its_integral_and_against_sampling(m1, v1, m2, v2):
    """∫ p log(p/q) by quadrature to 1e-9, and the mean of log(p/q) over 100,000 draws of p within 5 standard errors."""
    p, q = scipy.stats.norm(m1, v1**0.5), scipy.stats.norm(m2, v2**0.5)
    kl = gaussian_kl(m1, v1, m2, v2).item()
    edge = 12 * v1**0.5
    integral, _ = scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), m1 - edge, m1 + edge)
    assert abs(kl - integral) < 1e-9
    x = p.rvs(100_000, random_state=0)
    ratio = p.logpdf(x) - q.logpdf(x)
    assert abs(ratio.mean() - kl) < 5 * ratio.std() / len(x) ** 0.5


# ---- the discretised decoder ----


@pytest.mark.parametrize("std", [1e-3, 0.005, 0.01, 0.05, 0.3, 1.0, 5.0])
def test_decoder_against_scipys_normal_distribution(std):
    """All 256 levels against the difference of scipy's cdf, with infinite outer edges, to 1e-9 where that has digits. They
    sum to one, to 1e-12, for means in and outside of [-1, 1]; uint8 scaled in float32 falls into the same bins."""
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
    mean, std = 0.9, 1e-3
    x = LEVELS[[0, 5, 100, 200]]
    above = (((x + 1) * 127.5).round() * 2 + 1) / 255 - 1
    ours = discretised_log_likelihood(x, torch.full_like(x, mean), std**2)
    theirs = torch.from_numpy(scipy.stats.norm.logcdf(above.numpy(), mean, std))  # the lower edge adds nothing
    assert (ours / theirs - 1).abs().max() < 1e-6
    mirrored = discretised_log_likelihood(-x, torch.full_like(x, -mean), std**2)
    assert (ours / mirrored - 1).abs().max() < 1e-9


def test_decoder_passes_finite_gradients():
    """At the outermost levels and far in the tails too; equal to finite differences to 1e-5 relative."""
    x = LEVELS[[0, 0, 30, 128, 255, 255]]
    mean = torch.tensor([-1.1, 0.9, -0.7, 0.02, 1.2, -1.0], dtype=F64, requires_grad=True)
    variance = torch.full((6,), 0.01**2, dtype=F64, requires_grad=True)
    discretised_log_likelihood(x, mean, variance).sum().backward()
    h = 1e-7
    with torch.no_grad():
        up, down = (discretised_log_likelihood(x, mean + d, variance) for d in (h, -h))
    slope = (up - down) / (2 * h)
    assert mean.grad.isfinite().all() and variance.grad.isfinite().all()
    assert ((mean.grad - slope).abs() < 1e-5 * slope.abs() + 1e-3).all()


# ---- the prior ----


def test_prior_is_what_the_paper_says():
    """Section 4 of the paper: about 1e-5 bits per dimension for linear, T = 1000. By hand: ᾱ_T m / (2 ln 2), with m the
    mean square of the data, is 2e-5 for these images, to 1 % (a second-order term is left out)."""
    x0 = to_unit_range(load_images(split="test", limit=500)[0])
    prior = prior_bits(linear_schedule(), x0)
    assert prior.shape == (500,)
    by_hand = linear_schedule().alpha_bar[-1] * x0.double().square().flatten(1).mean(1) / (2 * math.log(2))
    assert (prior / by_hand - 1).abs().max() < 0.01
    assert 1.5e-5 < prior.mean() < 2.5e-5
    assert torch.equal(prior, prior_bits(GaussianDiffusion(linear_schedule()), x0))


def test_prior_of_a_short_chain_against_torch_distributions():
    """ᾱ_T of a half: far from nothing. To 1e-12."""
    x0 = normal(5, 3)
    kl = bits(kl_divergence(Normal(0.5**0.5 * x0, 0.5**0.5), Normal(0.0, 1.0)))
    assert (prior_bits(chain(0.2, 0.375), x0) - kl).abs().max() < 1e-12


# ---- one term ----


@both_variances
@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
@pytest.mark.parametrize(
    "schedule, times", [(cosine_schedule(50), [2, 7, 25, 49, 50]), (linear_schedule(), [2, 3, 99, 999, 1000])]
)
def test_a_term_is_the_kl_of_the_two_reverse_gaussians(schedule, times, predicts, variance):
    """By torch.distributions, on images with a network that returns 0.3 x_t, t that differ; 1e-6 bits relative. With an
    int t an image alone gives the same, to 1e-12. With the small variance it is the drop in SNR times the squared error,
    (SNR(t-1) - SNR(t)) / 2 |x_0 - x̂_0|² (Kingma et al., 2021, eq. 13), to 1e-9."""
    diffusion, t = GaussianDiffusion(schedule, predicts, variance), torch.tensor(times)
    x0, noise = normal(5, 1, 4, 4).clamp(-1, 1), normal(5, 1, 4, 4, seed=1)
    term = variational_term(lambda x, t, y: 0.3 * x, diffusion, x0, t, noise=noise)
    xt = q_sample(schedule, x0, t, noise)
    guess = diffusion.decode(0.3 * xt, xt, t)[0].clamp(-1, 1)
    mean, beta_tilde = q_posterior(schedule, x0, xt, t, t - 1)
    p_mean, _ = q_posterior(schedule, guess, xt, t, t - 1)
    p_variance = beta_tilde if variance == "small" else schedule.beta[t].reshape(-1, 1, 1, 1)
    kl = kl_divergence(Normal(mean, beta_tilde.sqrt()), Normal(p_mean, p_variance.sqrt()))
    assert (term / bits(kl) - 1).abs().max() < 1e-6
    for i, step in enumerate(t.tolist()):
        alone = variational_term(lambda x, t, y: 0.3 * x, diffusion, x0[i : i + 1], step, noise=noise[i : i + 1])
        assert abs(alone.item() / term[i].item() - 1) < 1e-12
    if variance == "small":
        drop = schedule.snr[t - 1] - schedule.snr[t]
        assert (term / (0.5 * drop * bits((x0 - guess).square())) - 1).abs().max() < 1e-9


@both_variances
def test_the_first_term_is_the_decoder_with_the_variance_of_step_two(variance):
    """β̃_2 for both, as the paper's code has it; against scipy at all 256 levels, to 1e-9."""
    diffusion = GaussianDiffusion(linear_schedule(), "x0", variance)
    int_t, batch_of_t = (
        variational_term(lambda x, t, y: torch.full_like(x, 0.1), diffusion, LEVELS[:, None], t, noise=normal(256, 1))
        for t in (1, torch.ones(256, dtype=torch.int64))
    )
    p = np.diff(scipy.stats.norm.cdf(EDGES, 0.1, last_variance(diffusion.schedule) ** 0.5))
    seen = p > 1e-4
    assert seen.sum() >= 5
    assert np.abs(int_t.numpy()[seen] + np.log2(p[seen])).max() < 1e-9
    assert torch.equal(int_t, batch_of_t)


def test_gradients_reach_the_network():
    weight = torch.tensor(0.1, requires_grad=True)
    diffusion = GaussianDiffusion(cosine_schedule(20), "v", "large")
    x0, t = LEVELS[torch.randint(0, 256, (6, 4), generator=seeded())].float(), torch.tensor([1, 1, 2, 10, 19, 20])
    variational_term(lambda x, t, y: weight * x, diffusion, x0, t, noise=normal(6, 4).float()).sum().backward()
    assert weight.grad.isfinite() and weight.grad != 0


# ---- the whole bound ----


def test_the_bound_is_tight_where_the_reverse_steps_are_gaussian():
    """Unit Gaussian data: q(x_{t-1} | x_t) is N(√α_t x_t, β_t), so with the large variance and the exact network every
    step but the last is exact. There the variance is β̃_2 = v in place of β_1, which costs (β_1/v - 1 - ln(β_1/v))/2
    nats. So the bound is the entropy ln(2πe)/2 and that: 20,000 points, T = 8, within 4 standard errors (seed 0)."""
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
    """A poor network (0.8 times the exact noise) on the two-peaked mixture, T = 12. For 8 values of x_0, the bound over
    4,000 draws of the noise is nowhere below the model's exact -log2 p(x_0), to 3 standard errors, and on average above it
    by less than 3 bits. The likelihood by brute force: the density of x_T is carried through every reverse step on a grid."""
    schedule = Schedule(torch.linspace(0.02, 0.6, 12, dtype=F64))
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    exact = oracle(bimodal(F64), diffusion)
    net = lambda x, t, y=None: 0.8 * exact(x, t)  # noqa: E731
    x0 = torch.tensor([-0.8, -0.6, -0.5, -0.2, 0.0, 0.3, 0.5, 0.9], dtype=F64)
    grid = torch.linspace(-5, 5, 2001, dtype=F64)
    density = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    for t in range(12, 0, -1):
        x = grid[:, None]
        guess, _ = diffusion.decode(net(x, torch.full((len(x),), t)), x, t)
        mean, small = q_posterior(schedule, guess, x, t, t - 1)  # (2001, 1)
        step_variance = last_variance(schedule) if t == 1 else small if variance == "small" else schedule.beta[t]
        to = x0 if t == 1 else grid
        step = Normal(mean, torch.as_tensor(step_variance) ** 0.5).log_prob(to[None, :]).exp()
        density = torch.trapezoid(density[:, None] * step, grid, dim=0)
    repeated = x0.repeat_interleave(4000)[:, None]
    bound = bits_per_dim(net, diffusion, repeated, clip=False, continuous=True, batch_size=32_000, generator=seeded())
    each = bound.per_image.reshape(8, 4000)
    gap, error = each.mean(1) + density.log2(), each.std(1) / 4000**0.5
    assert (gap > -3 * error).all()
    assert (gap > 5 * error).any()  # and it is a bound, not the thing itself
    assert 0 < gap.mean() < 3


def test_the_gap_to_the_entropy_shrinks_with_a_better_network():
    """The mixture's exact -log2 q(x_0) on 4,000 points (seed 0) against the bound of four networks, from exact to none,
    T = 200: above it all four, in order of the error of the network; the exact one within 0.25 bits."""
    mixture, diffusion = bimodal(F64), GaussianDiffusion(linear_schedule(200), "noise", "large")
    exact, x0 = oracle(mixture, diffusion), mixture.sample(4000, generator=seeded())
    entropy = -(mixture.log_prob(x0) / math.log(2)).mean().item()
    gaps = []
    for share in (1.0, 0.95, 0.8, 0.0):
        net = lambda x, t, y, share=share: share * exact(x, t)  # noqa: E731
        bound = bits_per_dim(net, diffusion, x0, clip=False, continuous=True, batch_size=4000, generator=seeded(1))
        gaps.append(bound.bits - entropy)
    assert 0 < gaps[0] < 0.25
    assert gaps == sorted(gaps) and gaps[3] > gaps[2] + 0.5


def test_a_subset_of_t_is_unbiased_and_its_error_honest():
    """200 points of the mixture: 60 estimates of 8 strata (T = 64) scatter about the average over all t. Their mean is
    within 4 standard errors of it, and their spread is the reported error to 35 %, once the points are drawn anew."""
    mixture, diffusion = bimodal(F64), GaussianDiffusion(linear_schedule(64), "v")
    exact = oracle(mixture, diffusion)

    def estimate(seed, steps):
        generator = seeded(seed)
        x0 = mixture.sample(200, generator=generator)
        net = lambda x, t, y: exact(x, t) + 0.2 * x  # noqa: E731
        return bits_per_dim(net, diffusion, x0, steps=steps, continuous=True, generator=generator)

    few = [estimate(seed, 8) for seed in range(60)]
    estimates = torch.tensor([bound.bits for bound in few])
    whole = torch.tensor([estimate(1000 + seed, None).bits for seed in range(10)])
    spread = (estimates.var() / len(estimates) + whole.var() / len(whole)).sqrt()
    assert (estimates.mean() - whole.mean()).abs() < 4 * spread
    reported = torch.tensor([bound.error for bound in few]).mean()
    assert abs(estimates.std() / reported - 1) < 0.35


@pytest.mark.parametrize("steps", [2, 7, 50, None])
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
    assert net.training and same.bits == bound.bits
    assert abs(bound.prior + bound.terms.sum().item() - bound.bits) < 1e-9 * bound.bits
    assert abs(bound.per_image.mean().item() - bound.bits) < 1e-9 * bound.bits
    assert bound.terms.shape == (51,) and bound.terms[0] == 0 and (bound.terms[1:] > 0).all()
    assert str(bound) == f"{bound.bits:.3f} ± {bound.error:.3f} bits per dimension"
    assert len(seen) == 2 * 2 * calls
    assert torch.equal(torch.cat([seen[0][1], seen[calls][1]]), labels)
    drawn = torch.cat([t for t, _ in seen[: 2 * calls]])
    assert drawn.min() == 1 and drawn.max() <= 50 and (drawn == 1).sum() == 30
    if steps is None:
        assert (drawn.bincount()[1:] == 30).all()


def test_a_chain_of_one_step():
    """T = 1: L_T and L_0 with β_1 are all there is."""
    x0, diffusion = normal(20, 1), GaussianDiffusion(chain(0.5), "x0")
    bound = bits_per_dim(lambda x, t, y: torch.zeros_like(x), diffusion, x0, continuous=True, clip=False)
    density = -torch.from_numpy(scipy.stats.norm.logpdf(x0.numpy(), 0, 0.5**0.5)).mean() / math.log(2)
    assert abs(bound.terms[1] - density) < 1e-12


def test_the_host_never_waits_inside_the_loop():
    """Nothing on the way reads a value: the terms, and the whole bound, run on the meta device, which has none. The bound
    gets as far as its last step, which brings the numbers to the host: after two batches at four t each."""
    diffusion, x0 = GaussianDiffusion(cosine_schedule(10), "v"), torch.empty(4, 1, 8, 8, device="meta")
    for t in (torch.full((4,), 3, device="meta"), 1):
        assert variational_term(lambda x, t, y: x, diffusion, x0, t).device.type == "meta"
    assert prior_bits(diffusion, x0).shape == (4,)
    calls = []
    with pytest.raises(NotImplementedError, match="meta"):
        bits_per_dim(lambda x, t, y: calls.append(t) or x, diffusion, x0, steps=4, batch_size=2, device="meta")
    assert len(calls) == 8
