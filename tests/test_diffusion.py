"""The forward process, its closed form and its posterior: against the chain, Bayes on a grid, and algebra."""

import math

import pytest
import torch
from core import F64, MAKERS, density, every_prediction, normal, seeded

from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule

ONE, ZERO = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
SCHEDULES = [*(make() for make in MAKERS), linear_schedule(15)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def factors(function, schedule, *times):
    """Everything here is linear in its two inputs: feed it (1, 0) and (0, 1) to read off what multiplies them."""
    if function is q_posterior:
        (on_x0, variance), (on_xt, _) = function(schedule, ONE, ZERO, *times), function(schedule, ZERO, ONE, *times)
        return on_x0.item(), on_xt.item(), variance.item()
    return function(schedule, ONE, *times, ZERO).item(), function(schedule, ZERO, *times, ONE).item()


@every_schedule
def test_closed_form_is_the_composition_of_the_steps(schedule):
    """Mean and variance, composed exactly; at the last step of the linear schedule also as lesson 01 does it on paper."""
    mean, variance = 1.0, 0.0
    assert factors(q_sample, schedule, 0) == (1, 0)
    for t in range(1, schedule.T + 1):
        keeps, adds = factors(q_step, schedule, t)
        mean, variance = keeps * mean, keeps**2 * variance + adds**2
        signal, sigma = factors(q_sample, schedule, t)
        assert abs(signal - mean) < 1e-12 and abs(sigma**2 - variance) < 1e-12
    if schedule is SCHEDULES[0]:
        assert abs(keeps - 0.98**0.5) < 1e-15 and abs(adds - 0.02**0.5) < 1e-15


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_int_and_tensor_t_agree_item_by_item(shape, dtype):
    """Exactly: the same table entries multiply the same numbers. The batch of 5 equals the width of 5 on purpose."""
    schedule, times = cosine_schedule(100), torch.tensor([[1, 0], [2, 1], [50, 20], [99, 98], [100, 0]])
    x0, noise = normal(*shape, dtype=dtype), normal(*shape, seed=1, dtype=dtype)

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
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), with the products of single steps' α, summed on 40,001 points; 1e-6."""
    schedule, x0, xt = linear_schedule(20), 0.3, -0.5
    mean, variance = (v.item() for v in q_posterior(schedule, x0 * ONE, xt * ONE, t, s))
    if s == 0:
        assert variance == 0 and abs(mean - x0) < 1e-12
        return
    kept0, kept1 = schedule.alpha[1 : s + 1].prod().item(), schedule.alpha[s + 1 : t + 1].prod().item()
    # the product of both Gaussians is no wider than either: ten of the narrower one's deviations around it
    width = 10 * min(1 - kept0, (1 - kept1) / kept1) ** 0.5
    grid = torch.linspace(-3 - width, 3 + width, 40_001, dtype=F64)
    weight = density(grid, kept0**0.5 * x0, 1 - kept0) * density(xt, kept1**0.5 * grid, 1 - kept1)
    weight /= weight.sum()
    grid_mean = (weight * grid).sum().item()
    assert abs(mean - grid_mean) < 1e-6
    assert abs(variance - (weight * (grid - grid_mean) ** 2).sum().item()) < 1e-6


@every_schedule
def test_posterior_of_one_step_is_the_papers_formula(schedule):
    """Eq. 7 term by term, for every t from 2; relative to the terms' own size. At t = 1 the variance is 0."""
    for t in range(2, schedule.T + 1):
        beta, alpha, ab = (table[t].item() for table in (schedule.beta, schedule.alpha, schedule.alpha_bar))
        before = schedule.alpha_bar[t - 1].item()
        paper = before**0.5 * beta, alpha**0.5 * (1 - before), (1 - before) * beta  # each over 1 - ab
        for ours, theirs in zip(factors(q_posterior, schedule, t, t - 1), paper, strict=True):
            assert abs(ours * (1 - ab) / theirs - 1) < 1e-9
    assert factors(q_posterior, schedule, 1, 0) == pytest.approx((1, 0, 0), abs=1e-12)


@every_schedule
def test_posterior_averaged_over_x_t_gives_the_forward_marginal(schedule):
    """Integrating x_t out of q(x_s | x_t, x_0) leaves q(x_s | x_0), for 50 random pairs (seed 0); 1e-12."""
    generator = seeded()
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
    """An error in x_t is amplified by 1/sqrt(alpha_bar) on the way to x_0 and by 1/sigma on that to the noise, when the
    output is the other one: so grows the tolerance. And whatever the network says, the pair read from it makes x_t."""
    diffusion, t = GaussianDiffusion(schedule, predicts), torch.arange(1, 1001)
    x0, noise = normal(1000, 8, dtype=dtype).clamp(-1, 1), normal(1000, 8, seed=1, dtype=dtype)
    xt = q_sample(schedule, x0, t, noise)
    got_x0, got_noise = diffusion.decode(diffusion.target(x0, noise, t), xt, t)
    assert got_x0.dtype == got_noise.dtype == dtype
    signal, sigma = schedule.q_coefficients(t, x0)
    on_x0 = 1 / signal if predicts == "noise" else 1
    on_noise = 1 / sigma if predicts == "x0" else 1
    assert ((got_x0 - x0) / on_x0).abs().max() < tolerance
    assert ((got_noise - noise) / on_noise).abs().max() < tolerance
    if dtype == F64:
        any_x0, any_noise = diffusion.decode(normal(1000, 8, seed=2), xt, t)
        assert (q_sample(schedule, any_x0, t, any_noise) - xt).abs().max() < 1e-9


def test_v_is_the_rotation_of_the_pair():
    """Salimans and Ho (2022): v = cos·noise - sin·x0 with cos = sqrt(alpha_bar); checked at alpha_bar = 1/4."""
    v = GaussianDiffusion(Schedule([0.75]), "v").target(torch.tensor([[2.0]]), torch.tensor([[4.0]]), 1)
    assert abs(v.item() - (0.5 * 4 - math.sqrt(0.75) * 2)) < 1e-6
