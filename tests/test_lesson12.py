"""The functions of lesson 12's exercises against the package and against plain arithmetic, and the judge of 12.6."""

import math

import pytest
import scipy.optimize
import scipy.stats
import torch
from core import F64, every_prediction, normal, seeded

from ddpm_course.bound import term_of_output, variational_term
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.exercises import trade12
from ddpm_course.exercises.lesson12 import (
    best_variance,
    hybrid_loss,
    learned_log_variance,
    min_snr,
    my_weighting,
    repaired_t_probabilities,
    zero_terminal_snr,
)
from ddpm_course.losses import diffusion_loss
from ddpm_course.samplers import ddim_steps, sample
from ddpm_course.schedules import cosine_schedule, linear_schedule, rescaled, schedule_through
from ddpm_course.toy import bimodal, oracle
from ddpm_course.training.devices import Team
from ddpm_course.training.importance import ImportanceSampler
from ddpm_course.variances import best_coefficients
from ddpm_course.weighting import min_snr_weights

STRIDES = torch.tensor([1000, 700, 300, 40, 2, 1]), torch.tensor([700, 300, 40, 2, 1, 0])


def test_the_best_variance_is_the_packages():
    schedule, (t, s) = cosine_schedule(), STRIDES
    errors = torch.linspace(0, 0.3, 1001, dtype=F64)
    sigma = best_coefficients(GaussianDiffusion(schedule, "v"), schedule.alpha_bar[t], schedule.alpha_bar[s], errors)[2]
    ours = best_variance(schedule.alpha_bar[t], schedule.alpha_bar[s], errors[t])
    assert (ours - sigma**2).abs().max() < 1e-12


def test_the_learned_log_variance_is_the_packages():
    schedule, (t, s) = linear_schedule(), STRIDES
    v, xt = normal(6, 3), normal(6, 3, seed=1)
    expected = GaussianDiffusion(schedule, "v", "learned").log_variance(torch.cat([xt, v], 1), xt, t, s)
    assert (learned_log_variance(schedule, v, t, s) - expected).abs().max() < 1e-9


@every_prediction
def test_the_hybrid_loss_and_its_gradient_are_the_packages(predicts):
    """With the bound's own term, at the first t, the last and between."""
    diffusion, t = GaussianDiffusion(cosine_schedule(), predicts, "learned"), torch.tensor([1, 2, 500, 900])
    x0, noise = normal(4, 2).clamp(-1, 1), normal(4, 2, seed=1)
    xt, target = q_sample(diffusion.schedule, x0, t, noise), diffusion.target(x0, noise, t)
    output = normal(4, 4, seed=2).requires_grad_()

    def term(estimate, v):
        return term_of_output(diffusion, torch.cat([estimate, v], 1), x0, xt, t)

    ours = hybrid_loss(term, output, target, 1000)
    expected = diffusion_loss(lambda x, t, y: output, diffusion, x0, t=t, noise=noise)
    assert ((ours - expected) / expected).abs().max() < 1e-9
    one, other = (torch.autograd.grad(loss.sum(), output, retain_graph=True)[0] for loss in (ours, expected))
    assert (one - other).abs().max() < 1e-9 * other.abs().max() and other[:, 2:].abs().min() > 0


@pytest.mark.parametrize("rounds", [3, 300])
def test_the_repaired_sampler_of_t_is_the_packages(rounds):
    """Before its history is full, and afterwards."""
    sampler, generator = ImportanceSampler(60, 0.1, "cpu", F64), seeded()
    for _ in range(rounds):
        t, _ = sampler.draw(64, generator)
        sampler.update(t, 3 / t.double(), Team(torch.device("cpu")))
    assert bool((sampler.times >= 10).all()) == (rounds == 300)
    p, weights = repaired_t_probabilities(sampler.squares, sampler.times, sampler.width, 0.1)
    expected = (sampler.probabilities() / sampler.width).repeat_interleave(sampler.width)
    assert (p / expected - 1).abs().max() < 1e-6 and abs(p.sum() - 1) < 1e-6
    t, drawn = sampler.draw(1000, generator)
    assert (weights[t - 1] / drawn - 1).abs().max() < 1e-6


@every_prediction
def test_min_snr_is_the_packages(predicts):
    schedule = cosine_schedule()
    for gamma in (5.0, 1.0):
        expected = min_snr_weights(GaussianDiffusion(schedule, predicts), gamma)[1:]
        assert (min_snr(schedule.snr[1:], predicts, gamma) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", [linear_schedule(200, rescale=False), cosine_schedule()], ids=repr)
def test_the_rescaled_table_is_a_schedules(schedule):
    table = zero_terminal_snr(schedule.alpha_bar)
    assert (table - rescaled(schedule).alpha_bar).abs().max() < 1e-12 and table[0] == 1 and table[-1] == 0
    assert schedule_through(table[1:], zero_snr=True).beta[-1] == 1


# ---- 12.6

T = 60


class Judged:
    """The judge's network, trained with 1 everywhere, as any other code calls a network."""

    def __init__(self):
        self.judge = trade12.trade(T)
        self.last, self.bits, self.distance = trade12.measured(torch.ones(T + 1, dtype=F64), T)

    def __call__(self, x, t, y=None):
        return trade12.hidden(x[:, 0], self.judge.angle[t]) @ self.last[:, None]


def test_bits_are_those_of_the_bound_above_the_exact_networks():
    """40,000 draws at every t, in pairs: within 4 standard errors of the sum over a grid, which are 4 % of it."""
    net, diffusion = Judged(), GaussianDiffusion(cosine_schedule(T), "v")
    exact, n, gaps = oracle(bimodal(F64), diffusion), 40_000, []
    options = dict(clip=False, continuous=True)
    for t in range(1, T + 1):
        x0, noise = bimodal(F64).sample(n, generator=seeded(t)), normal(n, 1, seed=100 + t)
        terms = [variational_term(some, diffusion, x0, t, noise=noise, **options) for some in (net, exact)]
        gaps.append(terms[0] - terms[1])
    gaps = torch.stack(gaps)
    error = (gaps.var(1) / n).sum().sqrt()
    assert abs(gaps.mean(1).sum() - net.bits) < 4 * error < 0.04 * net.bits


def test_the_distance_is_that_of_ddim_to_the_quantiles_of_the_data():
    """The package's sampler, and quantiles by scipy's root finder. To 1e-3: x_T is N(0, 1) nearly, as the judge knows."""
    net, ranks = Judged(), [(i + 0.5) / 200 for i in range(200)]
    start = torch.tensor(scipy.stats.norm.ppf(ranks), dtype=F64)[:, None]
    diffusion = GaussianDiffusion(cosine_schedule(T), "v")
    steps = ddim_steps(net, diffusion, (200, 1), trade12.STEPS, clip=False, x_T=start)
    ends = sample(steps, progress=False)[:, 0].sort().values

    def below(x):
        return 0.4 * scipy.stats.norm.cdf(x, -0.6, 0.08) + 0.6 * scipy.stats.norm.cdf(x, 0.5, 0.12)

    exact = [scipy.optimize.brentq(lambda x, r=r: below(x) - r, -3, 3, xtol=1e-12) for r in ranks]
    squares = [(end - right) ** 2 for end, right in zip(ends.tolist(), exact, strict=True)]
    assert abs(math.sqrt(sum(squares) / 200) - net.distance) < 1e-3


def test_no_weighting_costs_fewer_bits_than_the_bounds_own():
    """Fifty drawn ones, some nearly even and some of a few t."""
    least = trade12.allowed(T) / trade12.MORE
    for seed in range(50):
        weighting = torch.exp(3 * torch.rand((), generator=seeded(seed), dtype=F64) * normal(T + 1, seed=seed))
        assert trade12.measured(weighting, T)[1] >= least * (1 - 1e-6)


PLAIN = {  # bits and distance at T = 100, as the lesson states them
    "1 everywhere": (0.534, 0.137, lambda s: torch.ones_like(s.snr)),
    "noise": (0.456, 0.179, lambda s: s.alpha_bar),
    "x0": (1.049, 0.188, lambda s: 1 - s.alpha_bar),
    "Min-SNR-5": (0.673, 0.126, lambda s: min_snr_weights(GaussianDiffusion(s, "v"))),
    "P2": (0.729, 0.134, lambda s: s.alpha_bar * (1 - s.alpha_bar)),
    "the bound's": (0.361, 0.696, lambda s: torch.cat([s.snr.new_zeros(1), trade12.trade(s.T).counts])),
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_plain_choices_miss_bits_or_distance_at_every_length_and_a_mixture_meets_both(name):
    bits, distance, weights = PLAIN[name]
    case = trade12.trade_cases()[0]
    assert trade12.measured(weights(cosine_schedule(100)), 100)[1:] == pytest.approx((bits, distance), abs=6e-4)
    for length in (60, 100, 164):
        table = weights(cosine_schedule(length))
        found = trade12.measured(table, length)
        assert found[1] > 1.005 * trade12.allowed(length) or found[2] > 1.005 * trade12.MOST_DISTANCE
        mixed = trade12.measured(my_weighting(cosine_schedule, length), length)
        assert mixed[1] < 0.97 * trade12.allowed(length) and mixed[2] < 0.95 * trade12.MOST_DISTANCE
    assert "count those more" in trade12.score(weights(cosine_schedule(100)), case)
