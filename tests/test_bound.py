"""The variational bound: against scipy, torch.distributions, brute-force integrals and exact log-likelihoods."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample
from ddpm_course.losses import bits_per_dim, discretised_log_likelihood, gaussian_kl, prior_bits, variational_term
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.toy import Mixture, bimodal, oracle

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def chain(*betas):
    return Schedule(torch.tensor(betas, dtype=torch.float64))


def unit_gaussian():
    return Mixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.0]], [1.0])))


# ------------------------------------------------------------------------------ KL of two Gaussians


def test_kl_against_torch_distributions():
    """200 random pairs, to 1e-12 relative."""
    m1, m2 = normal(2, 200)
    v1, v2 = normal(2, 200, seed=1).exp()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(m1, v1.sqrt()), torch.distributions.Normal(m2, v2.sqrt())
    )
    assert ((gaussian_kl(m1, v1, m2, v2) - expected) / expected).abs().max() < 1e-12


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


def test_kl_keeps_its_digits_where_the_variances_are_nearly_equal():
    """For v1 = v2 (1 + e) it is e²/4 - e³/6 + …: at e = 1e-7, which loses every digit as log - 1 + ratio; 1e-6 relative."""
    e = 1e-7
    assert abs(gaussian_kl(0.0, 1 + e, 0.0, 1.0) / (e**2 / 4) - 1) < 1e-6


def test_kl_broadcasts_and_takes_numbers():
    kl = gaussian_kl(normal(3, 1), 1.0, normal(1, 4), torch.full((3, 4), 2.0, dtype=torch.float64))
    assert kl.shape == (3, 4) and kl.dtype == torch.float64
    assert gaussian_kl(0.0, 1.0, 0.0, 1.0) == 0


# ------------------------------------------------------------------------------ the discretised decoder


@pytest.mark.parametrize("std", [0.005, 0.05, 1.0])
def test_decoder_against_scipys_normal_distribution(std):
    """All 256 levels against the difference of scipy's cdf, with infinite outer edges, to 1e-9 where that has digits."""
    means = torch.tensor([-1.2, -0.99, -0.303, 0.0, 0.7, 1.0], dtype=torch.float64)[:, None]
    ours = discretised_log_likelihood(LEVELS.expand(6, -1), means.expand(-1, 256), std**2)
    edges = np.concatenate([[-np.inf], (np.arange(1, 256) * 2 - 1) / 255 - 1, [np.inf]])
    cdf = scipy.stats.norm.cdf(edges, means.numpy(), std)  # (6, 257)
    theirs = torch.from_numpy(np.diff(cdf))
    big = theirs > 1e-6
    assert big.any(1).all() and ours.dtype == torch.float64
    assert (ours.exp() - theirs).abs().max() < 1e-12
    assert (ours.exp()[big] / theirs[big] - 1).abs().max() < 1e-9


@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3, 5.0])
def test_the_256_probabilities_sum_to_one(std):
    """For 41 means in and outside of [-1, 1]; 1e-12."""
    means = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None].expand(-1, 256)
    total = discretised_log_likelihood(LEVELS.expand(41, -1), means, std**2).exp().sum(1)
    assert (total - 1).abs().max() < 1e-12


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


def test_decoder_takes_float32_images_as_they_come():
    """uint8 images scaled in float32 fall into the bins of their levels: equal to float64 to 1e-12 for equal means."""
    levels = torch.arange(256, dtype=torch.uint8)
    mean = torch.zeros(256, dtype=torch.float64)
    single = discretised_log_likelihood(to_unit_range(levels), mean, 0.1)
    assert (single - discretised_log_likelihood(LEVELS, mean, 0.1)).abs().max() < 1e-12


def test_decoder_passes_finite_gradients():
    """At the outermost levels and far in the tails too; equal to finite differences to 1e-5 relative."""
    x = LEVELS[[0, 0, 30, 128, 255, 255]]
    mean = torch.tensor([-1.1, 0.9, -0.7, 0.02, 1.2, -1.0], dtype=torch.float64, requires_grad=True)
    variance = torch.full((6,), 0.01**2, dtype=torch.float64, requires_grad=True)
    discretised_log_likelihood(x, mean, variance).sum().backward()
    h = 1e-7
    with torch.no_grad():
        up, down = (discretised_log_likelihood(x, mean + d, variance) for d in (h, -h))
    slope = (up - down) / (2 * h)
    assert mean.grad.isfinite().all() and variance.grad.isfinite().all()
    assert ((mean.grad - slope).abs() < 1e-5 * slope.abs() + 1e-3).all()


# ------------------------------------------------------------------------------ the prior


def test_prior_is_what_the_paper_says():
    """Section 4 of the paper: about 1e-5 bits per dimension for linear, T = 1000. By hand: ᾱ_T m / (2 ln 2), with m the
    mean square of the data, is 2e-5 for these images, to 1 % (a second-order term is left out)."""
    x0 = to_unit_range(load_images(split="test", limit=500)[0])
    bits = prior_bits(linear_schedule(), x0)
    assert bits.shape == (500,)
    by_hand = linear_schedule().alpha_bar[-1] * x0.double().square().flatten(1).mean(1) / (2 * math.log(2))
    assert (bits / by_hand - 1).abs().max() < 0.01
    assert 1.5e-5 < bits.mean() < 2.5e-5
    assert torch.equal(bits, prior_bits(GaussianDiffusion(linear_schedule()), x0))


def test_prior_of_a_short_chain_against_torch_distributions():
    """ᾱ_T of a half: far from nothing. To 1e-12."""
    schedule, x0 = chain(0.2, 0.375), normal(5, 3)
    q = torch.distributions.Normal(0.5**0.5 * x0, 0.5**0.5)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(1) / math.log(2)
    assert (prior_bits(schedule, x0) - kl).abs().max() < 1e-12


# ------------------------------------------------------------------------------ one term


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_a_term_is_the_kl_of_the_two_reverse_gaussians(predicts, variance):
    """By torch.distributions, on images with a network that returns 0.3 x_t, t that differ; 1e-6 bits relative."""
    diffusion = GaussianDiffusion(cosine_schedule(50), predicts, variance)
    schedule = diffusion.schedule
    x0, noise, t = normal(5, 1, 4, 4).clamp(-1, 1), normal(5, 1, 4, 4, seed=1), torch.tensor([2, 7, 25, 49, 50])
    term = variational_term(lambda x, t, y: 0.3 * x, diffusion, x0, t, noise=noise)
    xt = q_sample(schedule, x0, t, noise)
    guess = diffusion.decode(0.3 * xt, xt, t)[0].clamp(-1, 1)
    mean, beta_tilde = q_posterior(schedule, x0, xt, t, t - 1)
    p_mean, _ = q_posterior(schedule, guess, xt, t, t - 1)
    p_variance = beta_tilde if variance == "small" else schedule.beta[t].reshape(-1, 1, 1, 1)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, beta_tilde.sqrt()), torch.distributions.Normal(p_mean, p_variance.sqrt())
    )
    assert (term / (kl.flatten(1).mean(1) / math.log(2)) - 1).abs().max() < 1e-6


def test_a_term_with_the_small_variance_is_the_drop_in_snr_times_the_squared_error():
    """L_{t-1} = (SNR(t-1) - SNR(t)) / 2 |x_0 - x̂_0|² (Kingma et al., 2021, eq. 13), in nats; 1e-9 relative."""
    diffusion = GaussianDiffusion(linear_schedule(), "x0")
    x0, t = normal(6, 3).clamp(-1, 1), torch.tensor([2, 3, 100, 500, 999, 1000])
    term = variational_term(lambda x, t, y: 0.5 * x.tanh(), diffusion, x0, t, noise=normal(6, 3, seed=1))
    xt = q_sample(diffusion.schedule, x0, t, normal(6, 3, seed=1))
    error = (x0 - 0.5 * xt.tanh()).square().mean(1)
    snr = diffusion.schedule.snr
    expected = 0.5 * (snr[t - 1] - snr[t]) * error / math.log(2)
    assert (term / expected - 1).abs().max() < 1e-9


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_first_term_is_the_decoder_with_the_variance_of_step_two(variance):
    """β̃_2 for both, as the paper's code has it; against scipy at all 256 levels, to 1e-9."""
    schedule = linear_schedule()
    diffusion = GaussianDiffusion(schedule, "x0", variance)
    x0 = LEVELS[:, None]
    term = variational_term(lambda x, t, y: torch.full_like(x, 0.1), diffusion, x0, 1, noise=normal(256, 1))
    beta, bar = schedule.beta, schedule.alpha_bar
    std = (beta[2] * (1 - bar[1]) / (1 - bar[2])).sqrt().item()
    k = np.arange(256)
    p = scipy.stats.norm.cdf(np.where(k == 255, np.inf, (2 * k + 1) / 255 - 1), 0.1, std)
    p = p - scipy.stats.norm.cdf(np.where(k == 0, -np.inf, (2 * k - 1) / 255 - 1), 0.1, std)
    seen = p > 1e-4
    assert seen.sum() >= 5
    assert np.abs(term.numpy()[seen] + np.log2(p[seen])).max() < 1e-9
    mixed = variational_term(
        lambda x, t, y: torch.full_like(x, 0.1), diffusion, x0, torch.ones(256, dtype=torch.int64), noise=normal(256, 1)
    )
    assert torch.equal(mixed, term)


def test_an_int_and_a_batch_of_t_agree():
    diffusion = GaussianDiffusion(cosine_schedule(20), "v")
    x0, noise = normal(4, 2), normal(4, 2, seed=1)
    net = lambda x, t, y: 0.2 * x  # noqa: E731
    together = variational_term(net, diffusion, x0, torch.tensor([1, 2, 11, 20]), noise=noise)
    alone = [
        variational_term(net, diffusion, x0[i : i + 1], t, noise=noise[i : i + 1]) for i, t in enumerate((1, 2, 11, 20))
    ]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-12, atol=0)


def test_gradients_reach_the_network():
    weight = torch.tensor(0.1, requires_grad=True)
    diffusion = GaussianDiffusion(cosine_schedule(20), "v", "large")
    x0 = LEVELS[torch.randint(0, 256, (6, 4), generator=torch.Generator().manual_seed(0))].float()
    t = torch.tensor([1, 1, 2, 10, 19, 20])
    variational_term(lambda x, t, y: weight * x, diffusion, x0, t, noise=normal(6, 4).float()).sum().backward()
    assert weight.grad.isfinite() and weight.grad != 0


def test_clipping_helps_where_the_estimate_is_out_of_range():
    diffusion = GaussianDiffusion(linear_schedule(), "x0")
    net, x0 = lambda x, t, y: torch.full_like(x, 3.0), torch.ones(2, 4)  # noqa: E731
    terms = [variational_term(net, diffusion, x0, 500, noise=normal(2, 4).float(), clip=clip) for clip in (True, False)]
    assert (terms[0] == 0).all() and (terms[1] > 0).all()


# ------------------------------------------------------------------------------ the whole bound


def test_the_bound_is_tight_where_the_reverse_steps_are_gaussian():
    """Unit Gaussian data: q(x_{t-1} | x_t) is N(√α_t x_t, β_t), so with the large variance and the exact network every
    step but the last is exact. There the variance is β̃_2 = v in place of β_1, which costs (β_1/v - 1 - ln(β_1/v))/2
    nats. So the bound is the entropy ln(2πe)/2 and that: 20,000 points, T = 8, within 4 standard errors (seed 0)."""
    diffusion = GaussianDiffusion(Schedule(torch.linspace(0.05, 0.7, 8, dtype=torch.float64)), "noise", "large")
    data = unit_gaussian()
    x0 = data.sample(20_000, generator=torch.Generator().manual_seed(0))
    bound = bits_per_dim(
        oracle(data, diffusion), diffusion, x0, clip=False, continuous=True, batch_size=20_000,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    beta, bar = diffusion.schedule.beta, diffusion.schedule.alpha_bar
    ratio = beta[1] / (beta[2] * (1 - bar[1]) / (1 - bar[2]))
    expected = 0.5 * math.log(2 * math.pi * math.e) + 0.5 * (ratio - 1 - ratio.log())
    assert bound.error < 0.02
    assert abs(bound.bits * math.log(2) - expected) < 4 * bound.error * math.log(2)


def exact_negative_log_likelihood(net, diffusion, x0, variance_of):
    """-log2 p_θ(x_0) by brute force: the density of x_T = N(0, 1) carried through every reverse step on a grid."""
    grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    density = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    for t in range(diffusion.schedule.T, 0, -1):
        x = grid[:, None]
        guess, _ = diffusion.decode(net(x, torch.full((len(x),), t)), x, t)
        mean, _ = q_posterior(diffusion.schedule, guess, x, t, t - 1)  # (2001, 1)
        to = x0 if t == 1 else grid
        step = torch.distributions.Normal(mean, variance_of(t) ** 0.5).log_prob(to[None, :]).exp()
        density = torch.trapezoid(density[:, None] * step, grid, dim=0)
    return -density.log2()


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_bound_holds_point_by_point_against_the_models_exact_likelihood(variance):
    """A poor network (0.8 times the exact noise) on the two-peaked mixture, T = 12. For 8 values of x_0, the bound over
    4,000 draws of the noise is nowhere below the model's exact -log2 p(x_0) on a grid, to 3 standard errors, and on
    average above it by less than 3 bits."""
    schedule = Schedule(torch.linspace(0.02, 0.6, 12, dtype=torch.float64))
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    exact = oracle(bimodal(torch.float64), diffusion)
    net = lambda x, t, y=None: 0.8 * exact(x, t)  # noqa: E731
    x0 = torch.tensor([-0.8, -0.6, -0.5, -0.2, 0.0, 0.3, 0.5, 0.9], dtype=torch.float64)
    beta, bar = schedule.beta, schedule.alpha_bar

    def variance_of(t):
        small = (beta[max(t, 2)] * (1 - bar[max(t, 2) - 1]) / (1 - bar[max(t, 2)])).item()
        return beta[t].item() if variance == "large" and t > 1 else small

    likelihood = exact_negative_log_likelihood(net, diffusion, x0, variance_of)
    repeated = x0.repeat_interleave(4000)[:, None]
    bound = bits_per_dim(
        net, diffusion, repeated, clip=False, continuous=True, batch_size=len(repeated),
        generator=torch.Generator().manual_seed(0),
    ).per_image.reshape(8, 4000)  # fmt: skip
    gap, error = bound.mean(1) - likelihood, bound.std(1) / 4000**0.5
    assert (gap > -3 * error).all()
    assert (gap > 5 * error).any()  # and it is a bound, not the thing itself
    assert 0 < gap.mean() < 3


def test_the_gap_to_the_entropy_shrinks_with_a_better_network():
    """The mixture's exact -log2 q(x_0) on 4,000 points (seed 0) against the bound of four networks, from exact to none,
    T = 200: above it all four, in order of the error of the network; the exact one within 0.25 bits."""
    mixture = bimodal(torch.float64)
    diffusion = GaussianDiffusion(linear_schedule(200), "noise", "large")
    exact = oracle(mixture, diffusion)
    x0 = mixture.sample(4000, generator=torch.Generator().manual_seed(0))
    entropy = -(mixture.log_prob(x0) / math.log(2)).mean().item()
    gaps = []
    for share in (1.0, 0.95, 0.8, 0.0):
        bound = bits_per_dim(
            lambda x, t, y, share=share: share * exact(x, t), diffusion, x0, clip=False, continuous=True,
            batch_size=4000, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        gaps.append(bound.bits - entropy)
    assert 0 < gaps[0] < 0.25
    assert gaps == sorted(gaps) and gaps[3] > gaps[2] + 0.5


def test_a_subset_of_t_is_unbiased_and_its_error_honest():
    """200 points of the mixture: 60 estimates of 8 strata (T = 64) scatter about the average over all t. Their mean is
    within 4 standard errors of it, and their spread is the reported error to 35 %, once the points are drawn anew."""
    mixture = bimodal(torch.float64)
    diffusion = GaussianDiffusion(linear_schedule(64), "v")
    exact = oracle(mixture, diffusion)
    net = lambda x, t, y: exact(x, t) + 0.2 * x  # noqa: E731

    def estimate(seed, steps):
        generator = torch.Generator().manual_seed(seed)
        x0 = mixture.sample(200, generator=generator)
        return bits_per_dim(net, diffusion, x0, steps=steps, continuous=True, generator=generator)

    few = [estimate(seed, 8) for seed in range(60)]
    bits = torch.tensor([bound.bits for bound in few])
    whole = torch.tensor([estimate(1000 + seed, None).bits for seed in range(10)])
    spread = (bits.var() / len(bits) + whole.var() / len(whole)).sqrt()
    assert (bits.mean() - whole.mean()).abs() < 4 * spread
    reported = torch.tensor([bound.error for bound in few]).mean()
    assert abs(bits.std() / reported - 1) < 0.35


@pytest.mark.parametrize("steps", [2, 7, 50, None])
def test_terms_and_prior_add_up_and_every_t_is_counted_once(steps):
    diffusion = GaussianDiffusion(cosine_schedule(50), "v")
    seen = []

    def net(x, t, y):
        seen.append(t)
        return 0.3 * x

    x0 = to_unit_range(load_images(split="test", limit=30)[0])
    bound = bits_per_dim(net, diffusion, x0, steps=steps, batch_size=20, generator=torch.Generator().manual_seed(0))
    assert abs(bound.prior + bound.terms.sum().item() - bound.bits) < 1e-9 * bound.bits
    assert abs(bound.per_image.mean().item() - bound.bits) < 1e-9 * bound.bits
    assert bound.terms.shape == (51,) and bound.terms[0] == 0 and (bound.terms[1:] > 0).all()
    assert len(seen) == 2 * (steps or 50)
    drawn = torch.cat(seen)
    assert drawn.min() == 1 and drawn.max() <= 50 and (drawn == 1).sum() == 30
    if steps is None:
        assert (drawn.bincount()[1:] == 30).all()


def test_uint8_images_labels_and_evaluation_mode():
    """uint8 and floats give the same; labels follow their images through the chunks; dropout is off and then on again."""
    images, labels = load_images(split="test", limit=50)
    diffusion = GaussianDiffusion(cosine_schedule(10), "v")
    seen = []

    class Net(torch.nn.Module):
        def forward(self, x, t, y):
            assert not self.training and not torch.is_grad_enabled()
            seen.append(y)
            return 0.3 * x

    net = Net()
    a, b = (
        bits_per_dim(net, diffusion, x, labels, batch_size=20, generator=torch.Generator().manual_seed(0))
        for x in (images, to_unit_range(images))
    )
    assert net.training and a.bits == b.bits
    assert torch.equal(torch.cat([seen[0], seen[10], seen[20]]), labels)
    assert str(a) == f"{a.bits:.3f} ± {a.error:.3f} bits per dimension"


def test_eight_bits_are_the_cost_of_knowing_nothing():
    """A decoder that spreads evenly over the levels costs 8 bits; this one is a wide Gaussian, so a little more or less.
    With x̂_0 always 0 and T = 2 steps of heavy noise: L_0 in closed form by scipy; 1e-6."""
    diffusion = GaussianDiffusion(chain(0.9, 0.9), "x0")
    x0 = to_unit_range(
        torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    )
    bound = bits_per_dim(lambda x, t, y: torch.zeros_like(x), diffusion, x0)
    std = (0.9 * 0.9 / 0.99) ** 0.5
    k = ((x0 + 1) * 127.5).round().numpy()
    upper, lower = np.where(k == 255, np.inf, (2 * k + 1) / 255 - 1), np.where(k == 0, -np.inf, (2 * k - 1) / 255 - 1)
    expected = -np.log2(scipy.stats.norm.cdf(upper, 0, std) - scipy.stats.norm.cdf(lower, 0, std)).mean()
    assert abs(bound.terms[1].item() - expected) < 1e-6
    assert 6 < expected < 10


def test_a_chain_of_one_step():
    """T = 1: L_T and L_0 with β_1 are all there is."""
    diffusion = GaussianDiffusion(chain(0.5), "x0")
    x0 = normal(20, 1)
    bound = bits_per_dim(lambda x, t, y: torch.zeros_like(x), diffusion, x0, continuous=True, clip=False)
    density = -torch.from_numpy(scipy.stats.norm.logpdf(x0.numpy(), 0, 0.5**0.5)).mean() / math.log(2)
    assert abs(bound.terms[1] - density) < 1e-12


def test_the_host_never_waits_inside_the_loop():
    """Nothing on the way reads a value: the terms, and the whole bound, run on the meta device, which has none. The bound
    gets as far as its last step, which brings the numbers to the host: after two batches at four t each."""
    diffusion = GaussianDiffusion(cosine_schedule(10), "v")
    x0 = torch.empty(4, 1, 8, 8, device="meta")
    t = torch.full((4,), 3, device="meta")
    assert variational_term(lambda x, t, y: x, diffusion, x0, t).shape == (4,)
    assert variational_term(lambda x, t, y: x, diffusion, x0, 1).device.type == "meta"
    assert prior_bits(diffusion, x0).shape == (4,)
    calls = []
    with pytest.raises(NotImplementedError, match="meta"):
        bits_per_dim(lambda x, t, y: calls.append(t) or x, diffusion, x0, steps=4, batch_size=2, device="meta")
    assert len(calls) == 8


def test_mistakes_are_named():
    diffusion, x0 = GaussianDiffusion(cosine_schedule(10)), torch.zeros(4, 1, 8, 8)
    net = lambda x, t, y: x  # noqa: E731
    with pytest.raises(ValueError, match=r"steps must lie in 2..10: .* got 11"):
        bits_per_dim(net, diffusion, x0, steps=11)
    with pytest.raises(ValueError, match=r"steps must lie in 2..10: .* got 1"):
        bits_per_dim(net, diffusion, x0, steps=1)
    with pytest.raises(ValueError, match="no images"):
        bits_per_dim(net, diffusion, x0[:0])
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\), one an image; got \(3,\)"):
        bits_per_dim(net, diffusion, x0, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="floats"):
        variational_term(net, diffusion, x0.to(torch.uint8), 3)
    with pytest.raises(ValueError, match=r"t must have shape \(4,\)"):
        variational_term(net, diffusion, x0, torch.ones(3, dtype=torch.int64))
