"""The forward process, its closed form and its posterior: against the chain, Bayes on a grid, and algebra."""

import math

import pytest
import torch

from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule

F64 = torch.float64
ONE, ZERO = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
SCHEDULES = [linear_schedule(), quadratic_schedule(), sigmoid_schedule(), cosine_schedule(), linear_schedule(15)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
every_prediction = pytest.mark.parametrize("predicts", ["noise", "x0", "v"])


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def factors(function, schedule, *times):
    """Everything here is linear in its two inputs: feed it (1, 0) and (0, 1) to read off what multiplies them."""
    if function is q_posterior:
        (on_x0, variance), (on_xt, _) = function(schedule, ONE, ZERO, *times), function(schedule, ZERO, ONE, *times)
        return on_x0.item(), on_xt.item(), variance.item()
    return function(schedule, ONE, *times, ZERO).item(), function(schedule, ZERO, *times, ONE).item()


@every_schedule
def test_closed_form_is_the_composition_of_the_steps(schedule):
    """Mean and variance, composed exactly; at the last step of the linear schedule also as lesson 01 does it on paper."""
    mean, variance, worst = 1.0, 0.0, 0.0
    for t in range(1, schedule.T + 1):
        keeps, adds = factors(q_step, schedule, t)
        mean, variance = keeps * mean, keeps**2 * variance + adds**2
        signal, sigma = factors(q_sample, schedule, t)
        worst = max(worst, abs(signal - mean), abs(sigma**2 - variance))
    assert worst < 1e-12
    if schedule is SCHEDULES[0]:
        assert abs(keeps - 0.98**0.5) < 1e-15 and abs(adds - 0.02**0.5) < 1e-15


def test_clean_data_stays_as_it_is_at_t_zero():
    x0, noise = seeded(3, 1, 4, 4), seeded(3, 1, 4, 4, seed=1)
    for t in (0, torch.zeros(3, dtype=torch.int64)):
        assert torch.equal(q_sample(linear_schedule(), x0, t, noise), x0)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_int_and_tensor_t_agree_item_by_item(shape, dtype):
    """Exactly: the same table entries multiply the same numbers. The batch of 5 equals the width of 5 on purpose."""
    schedule, times = cosine_schedule(100), torch.tensor([[1, 0], [2, 1], [50, 20], [99, 98], [100, 0]])
    x0, noise = seeded(*shape, dtype=dtype), seeded(*shape, seed=1, dtype=dtype)

    def everything(some, t, s):
        xt, step = q_sample(schedule, x0[some], t, noise[some]), q_step(schedule, x0[some], t, noise[some])
        return xt, step, *q_posterior(schedule, x0[some], xt, t, s)

    together = everything(slice(None), *times.T)
    assert together[3].shape == (5,) + (1,) * (len(shape) - 1) and all(out.dtype == dtype for out in together)
    for i, (t, s) in enumerate(times.tolist()):
        for batch, alone in zip(together, everything(slice(i, i + 1), t, s), strict=True):
            assert torch.equal(batch[i].flatten(), alone.flatten())


@pytest.mark.parametrize("t, s", [(1, 0), (2, 1), (3, 0), (10, 9), (10, 4), (20, 19), (20, 0)])
def test_posterior_is_bayes_rule_on_a_grid(t, s):
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), both made of single steps, summed on 40,001 points; 1e-6."""
    schedule, x0, xt = linear_schedule(20), 0.3, -0.5
    mean, variance = (v.item() for v in q_posterior(schedule, x0 * ONE, xt * ONE, t, s))
    if s == 0:
        assert variance == 0 and abs(mean - x0) < 1e-12
        return

    def transition(start, end):  # mean factor and variance of q(x_end | x_start), one step after another
        factor, variance = 1.0, 0.0
        for beta in schedule.beta[start + 1 : end + 1].tolist():
            factor, variance = factor * math.sqrt(1 - beta), (1 - beta) * variance + beta
        return factor, variance

    (factor0, variance0), (factor1, variance1) = transition(0, s), transition(s, t)
    # the product of both Gaussians is no wider than either: ten of the narrower one's deviations around it
    width = 10 * min(math.sqrt(variance0), math.sqrt(variance1) / factor1)
    grid = torch.linspace(-3 - width, 3 + width, 40_001, dtype=F64)
    log_density = -((grid - factor0 * x0) ** 2) / (2 * variance0) - (xt - factor1 * grid) ** 2 / (2 * variance1)
    weight = log_density.softmax(0)
    grid_mean = (weight * grid).sum().item()
    assert abs(mean - grid_mean) < 1e-6
    assert abs(variance - (weight * (grid - grid_mean) ** 2).sum().item()) < 1e-6


@every_schedule
def test_posterior_of_one_step_is_the_papers_formula(schedule):
    """Eq. 7 term by term, for every t from 2; float64, relative to the terms' own size. At t = 1 the variance is 0."""
    for t in range(2, schedule.T + 1):
        beta, alpha, ab = (table[t].item() for table in (schedule.beta, schedule.alpha, schedule.alpha_bar))
        ab_before = schedule.alpha_bar[t - 1].item()
        on_x0, on_xt, variance = factors(q_posterior, schedule, t, t - 1)
        assert abs(on_x0 / (math.sqrt(ab_before) * beta / (1 - ab)) - 1) < 1e-9
        assert abs(on_xt / (math.sqrt(alpha) * (1 - ab_before) / (1 - ab)) - 1) < 1e-9
        assert abs(variance / ((1 - ab_before) / (1 - ab) * beta) - 1) < 1e-9
    t, x = torch.arange(1, schedule.T + 1), torch.zeros(schedule.T, 1)
    mean, variance = q_posterior(schedule, x + 1, x, t, torch.zeros_like(t))
    assert variance.abs().max() == 0 and (mean - 1).abs().max() < 1e-6


@pytest.mark.parametrize("t, s, r", [(1000, 500, 0), (1000, 999, 998), (700, 30, 3), (3, 2, 1), (50, 1, 0)])
def test_strides_compose(t, s, r):
    """Drawing x_s given x_t and then x_r given x_s is drawing x_r given x_t: mean and variance to 1e-12."""
    schedule = linear_schedule()
    x0, xt = seeded(6, dtype=F64), seeded(6, seed=1, dtype=F64)
    mean_s, variance_s = q_posterior(schedule, x0, xt, t, s)
    mean_r, variance_r = q_posterior(schedule, x0, mean_s, s, r)  # linear in x_s, so the mean passes through
    slope = factors(q_posterior, schedule, s, r)[1]
    direct_mean, direct_variance = q_posterior(schedule, x0, xt, t, r)
    assert (mean_r - direct_mean).abs().max() < 1e-12
    assert (slope**2 * variance_s + variance_r - direct_variance).abs().max() < 1e-12


@every_schedule
def test_posterior_averaged_over_x_t_gives_the_forward_marginal(schedule):
    """Integrating x_t out of q(x_s | x_t, x_0) leaves q(x_s | x_0), for 50 random pairs (seed 0); 1e-12."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        s, t = sorted((torch.randperm(schedule.T + 1, generator=generator)[:2]).tolist())
        ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        on_x0, on_xt, variance = factors(q_posterior, schedule, t, s)
        assert abs(on_x0 + on_xt * math.sqrt(ab_t) - math.sqrt(ab_s)) < 1e-12
        assert abs(on_xt**2 * (1 - ab_t) + variance - (1 - ab_s)) < 1e-12


@every_prediction
@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=repr)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (F64, 1e-14)], ids=["float32", "float64"])
def test_target_and_decode_are_inverses_for_every_t(predicts, schedule, dtype, tolerance):
    """All 1000 t at once. An error in x_t is amplified by 1/sqrt(alpha_bar) on the way to x_0 and by 1/sigma on the way
    to the noise, when the output is the other one: the tolerance grows by that factor, and v needs none at all."""
    diffusion, t = GaussianDiffusion(schedule, predicts), torch.arange(1, 1001)
    x0, noise = seeded(1000, 8, dtype=dtype).clamp(-1, 1), seeded(1000, 8, seed=1, dtype=dtype)
    xt = q_sample(schedule, x0, t, noise)
    got_x0, got_noise = diffusion.decode(diffusion.target(x0, noise, t), xt, t)
    assert got_x0.dtype == got_noise.dtype == dtype
    signal, sigma = schedule.q_coefficients(t, x0)
    on_x0 = 1 / signal if predicts == "noise" else 1
    on_noise = 1 / sigma if predicts == "x0" else 1
    assert ((got_x0 - x0) / on_x0).abs().max() < tolerance
    assert ((got_noise - noise) / on_noise).abs().max() < tolerance


@every_prediction
def test_decoded_pair_always_makes_x_t(predicts):
    """Whatever the network says: xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, for all t, in float64, to 1e-9."""
    schedule, t = cosine_schedule(), torch.arange(1, 1001)
    output, xt = seeded(1000, 4, dtype=F64), seeded(1000, 4, seed=1, dtype=F64)
    x0, noise = GaussianDiffusion(schedule, predicts).decode(output, xt, t)
    assert (q_sample(schedule, x0, t, noise) - xt).abs().max() < 1e-9


def test_v_is_the_rotation_of_the_pair():
    """Salimans and Ho (2022): v = cos·noise - sin·x0 with cos = sqrt(alpha_bar); checked at alpha_bar = 1/4."""
    v = GaussianDiffusion(Schedule([0.75]), "v").target(torch.tensor([[2.0]]), torch.tensor([[4.0]]), 1)
    assert abs(v.item() - (0.5 * 4 - math.sqrt(0.75) * 2)) < 1e-6
