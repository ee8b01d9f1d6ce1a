"""The forward process, its closed form and its posterior: against the chain, Bayes on a grid, and algebra."""

import math

import pytest
import torch

from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.schedules import cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule

F64 = torch.float64
SCHEDULES = [linear_schedule(), quadratic_schedule(), sigmoid_schedule(), cosine_schedule(), linear_schedule(15)]


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_closed_form_is_the_composition_of_the_steps(schedule):
    """A step is linear: feed it (x, 0) and (0, noise) to read off its factors, and compose mean and variance exactly."""
    one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    mean, variance, worst = 1.0, 0.0, 0.0
    for t in range(1, schedule.T + 1):
        keeps, adds = q_step(schedule, one, t, zero).item(), q_step(schedule, zero, t, one).item()
        mean, variance = keeps * mean, keeps**2 * variance + adds**2
        signal = q_sample(schedule, one, t, zero).item()
        sigma = q_sample(schedule, zero, t, one).item()
        worst = max(worst, abs(signal - mean), abs(sigma**2 - variance))
    assert worst < 1e-12


def test_chain_and_closed_form_have_the_same_moments():
    """100,000 paths of the 1000-step chain from x_0 = 0.7, seed 1; mean and variance within 5 standard errors."""
    n, x0, schedule = 100_000, 0.7, linear_schedule()
    generator = torch.Generator().manual_seed(1)
    x = torch.full((n,), x0)
    for t in range(1, 1001):
        x = q_step(schedule, x, t, torch.randn(n, generator=generator))
        if t in (1, 20, 200, 1000):
            direct = q_sample(schedule, torch.full((n,), x0), t, torch.randn(n, generator=generator))
            sigma2 = 1 - schedule.alpha_bar[t].item()
            mean = math.sqrt(schedule.alpha_bar[t].item()) * x0
            for sample in (x, direct):
                assert abs(sample.double().mean().item() - mean) < 5 * math.sqrt(sigma2 / n)
                assert abs(sample.double().var().item() / sigma2 - 1) < 5 * math.sqrt(2 / n)


def test_one_pixel_by_hand():
    """0.80 at beta = 0.02, as lesson 01 works it out on paper: mean 0.792, standard deviation 0.141."""
    schedule = linear_schedule()
    mean = q_step(schedule, torch.tensor([0.8], dtype=F64), 1000, torch.zeros(1, dtype=F64)).item()
    spread = q_step(schedule, torch.zeros(1, dtype=F64), 1000, torch.ones(1, dtype=F64)).item()
    assert abs(mean - 0.8 * 0.98**0.5) < 1e-15 and abs(spread - 0.02**0.5) < 1e-15


def test_clean_data_stays_as_it_is_at_t_zero():
    x0 = seeded(3, 1, 4, 4)
    assert torch.equal(q_sample(linear_schedule(), x0, 0, seeded(3, 1, 4, 4, seed=1)), x0)
    assert torch.equal(q_sample(linear_schedule(), x0, torch.zeros(3, dtype=torch.int64), seeded(3, 1, 4, 4)), x0)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_int_and_tensor_t_agree_item_by_item(shape, dtype):
    """Exactly: the same table entries multiply the same numbers. The batch of 5 equals the width of 5 on purpose."""
    schedule = cosine_schedule(100)
    x0, noise = seeded(*shape, dtype=dtype), seeded(*shape, seed=1, dtype=dtype)
    t, s = torch.tensor([1, 2, 50, 99, 100]), torch.tensor([0, 1, 20, 98, 0])
    batch = q_sample(schedule, x0, t, noise)
    step = q_step(schedule, x0, t, noise)
    mean, variance = q_posterior(schedule, x0, batch, t, s)
    assert variance.shape == (5,) + (1,) * (len(shape) - 1)
    for i in range(5):
        one = slice(i, i + 1)
        ti, si = int(t[i]), int(s[i])
        assert torch.equal(batch[one], q_sample(schedule, x0[one], ti, noise[one]))
        assert torch.equal(step[one], q_step(schedule, x0[one], ti, noise[one]))
        mean_i, variance_i = q_posterior(schedule, x0[one], batch[one], ti, si)
        assert torch.equal(mean[one], mean_i) and torch.equal(variance[one].flatten(), variance_i.flatten())
    for out in (batch, step, mean, variance):
        assert out.dtype == dtype


@pytest.mark.parametrize("t, s", [(1, 0), (2, 1), (3, 0), (10, 9), (10, 4), (20, 19), (20, 0)])
def test_posterior_is_bayes_rule_on_a_grid(t, s):
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), both made of single steps, summed on 40,001 points; 1e-6."""
    schedule = linear_schedule(20)
    x0, xt = 0.3, -0.5
    beta = schedule.beta.tolist()

    def transition(start, end):  # mean factor and variance of q(x_end | x_start), one step after another
        factor, variance = 1.0, 0.0
        for step in range(start + 1, end + 1):
            factor, variance = factor * math.sqrt(1 - beta[step]), (1 - beta[step]) * variance + beta[step]
        return factor, variance

    mean, variance = q_posterior(schedule, torch.tensor([x0], dtype=F64), torch.tensor([xt], dtype=F64), t, s)
    if s == 0:
        assert variance.item() == 0 and abs(mean.item() - x0) < 1e-12
        return
    factor0, variance0 = transition(0, s)
    factor1, variance1 = transition(s, t)
    # the product of both Gaussians is no wider than either: ten of the narrower one's deviations around it
    width = 10 * min(math.sqrt(variance0), math.sqrt(variance1) / factor1)
    grid = torch.linspace(-3 - width, 3 + width, 40_001, dtype=F64)
    log_density = -((grid - factor0 * x0) ** 2) / (2 * variance0) - (xt - factor1 * grid) ** 2 / (2 * variance1)
    weight = (log_density - log_density.max()).exp()
    weight /= weight.sum()
    grid_mean = (weight * grid).sum().item()
    grid_variance = (weight * (grid - grid_mean) ** 2).sum().item()
    assert abs(mean.item() - grid_mean) < 1e-6
    assert abs(variance.item() - grid_variance) < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_posterior_of_one_step_is_the_papers_formula(schedule):
    """Eq. 7 term by term, for every t from 2; float64, relative to the terms' own size."""
    for t in range(2, schedule.T + 1):
        beta, alpha, ab, ab_before = (
            table.item()
            for table in (schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1])
        )
        one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
        on_x0, variance = q_posterior(schedule, one, zero, t, t - 1)
        on_xt, _ = q_posterior(schedule, zero, one, t, t - 1)
        assert abs(on_x0.item() / (math.sqrt(ab_before) * beta / (1 - ab)) - 1) < 1e-9
        assert abs(on_xt.item() / (math.sqrt(alpha) * (1 - ab_before) / (1 - ab)) - 1) < 1e-9
        assert abs(variance.item() / ((1 - ab_before) / (1 - ab) * beta) - 1) < 1e-9


@pytest.mark.parametrize("t, s, r", [(1000, 500, 0), (1000, 999, 998), (700, 30, 3), (3, 2, 1), (50, 1, 0)])
def test_strides_compose(t, s, r):
    """Drawing x_s given x_t and then x_r given x_s is drawing x_r given x_t: mean and variance to 1e-12."""
    schedule = linear_schedule()
    x0, xt = seeded(6, dtype=F64), seeded(6, seed=1, dtype=F64)
    mean_s, variance_s = q_posterior(schedule, x0, xt, t, s)
    mean_r, variance_r = q_posterior(schedule, x0, mean_s, s, r)  # linear in x_s, so the mean passes through
    slope = q_posterior(schedule, torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64), s, r)[0]
    direct_mean, direct_variance = q_posterior(schedule, x0, xt, t, r)
    assert (mean_r - direct_mean).abs().max() < 1e-12
    assert (slope**2 * variance_s + variance_r - direct_variance).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_posterior_averaged_over_x_t_gives_the_forward_marginal(schedule):
    """Integrating x_t out of q(x_s | x_t, x_0) leaves q(x_s | x_0), for random pairs; 1e-12."""
    generator = torch.Generator().manual_seed(0)
    one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    for _ in range(50):
        s, t = sorted((torch.randperm(schedule.T + 1, generator=generator)[:2]).tolist())
        ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        on_x0, variance = (v.item() for v in q_posterior(schedule, one, zero, t, s))
        on_xt = q_posterior(schedule, zero, one, t, s)[0].item()
        assert abs(on_x0 + on_xt * math.sqrt(ab_t) - math.sqrt(ab_s)) < 1e-12
        assert abs(on_xt**2 * (1 - ab_t) + variance - (1 - ab_s)) < 1e-12


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_posterior_variance_is_exactly_zero_at_the_end(schedule):
    t = torch.arange(1, schedule.T + 1)
    x = torch.zeros(schedule.T, 1)
    mean, variance = q_posterior(schedule, x + 1, x, t, torch.zeros_like(t))
    assert variance.abs().max() == 0
    assert (mean - 1).abs().max() < 1e-6


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=repr)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (F64, 1e-14)], ids=["float32", "float64"])
def test_target_and_decode_are_inverses_for_every_t(predicts, schedule, dtype, tolerance):
    """All 1000 t at once. An error in x_t is amplified by 1/sqrt(alpha_bar) on the way to x_0 and by 1/sigma on the way
    to the noise, when the output is the other one: the tolerance grows by that factor, and v needs none at all."""
    diffusion = GaussianDiffusion(schedule, predicts)
    t = torch.arange(1, 1001)
    x0, noise = seeded(1000, 8, dtype=dtype).clamp(-1, 1), seeded(1000, 8, seed=1, dtype=dtype)
    xt = q_sample(schedule, x0, t, noise)
    got_x0, got_noise = diffusion.decode(diffusion.target(x0, noise, t), xt, t)
    assert got_x0.dtype == got_noise.dtype == dtype
    signal, sigma = schedule.q_coefficients(t, x0)
    on_x0 = 1 / signal if predicts == "noise" else 1
    on_noise = 1 / sigma if predicts == "x0" else 1
    assert ((got_x0 - x0) / on_x0).abs().max() < tolerance
    assert ((got_noise - noise) / on_noise).abs().max() < tolerance


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_decoded_pair_always_makes_x_t(predicts):
    """Whatever the network says: xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, for all t, in float64, to 1e-9."""
    schedule = cosine_schedule()
    t = torch.arange(1, 1001)
    output, xt = seeded(1000, 4, dtype=F64), seeded(1000, 4, seed=1, dtype=F64)
    x0, noise = GaussianDiffusion(schedule, predicts).decode(output, xt, t)
    assert (q_sample(schedule, x0, t, noise) - xt).abs().max() < 1e-9


def test_v_is_the_rotation_of_the_pair():
    """Salimans and Ho (2022): v = cos·noise - sin·x0 with cos = sqrt(alpha_bar); checked at alpha_bar = 1/4."""
    from ddpm_course.schedules import Schedule

    diffusion = GaussianDiffusion(Schedule([0.75]), "v")
    v = diffusion.target(torch.tensor([[2.0]]), torch.tensor([[4.0]]), 1)
    assert abs(v.item() - (0.5 * 4 - math.sqrt(0.75) * 2)) < 1e-6


@pytest.mark.parametrize("kind", ["predicts", "variance"])
def test_unknown_names_are_refused(kind):
    with pytest.raises(ValueError, match=f"{kind} must be one of .*got 'epsilon'"):
        GaussianDiffusion(linear_schedule(10), **{kind: "epsilon"})


def test_shapes_that_do_not_agree_are_named():
    schedule, x = linear_schedule(10), torch.zeros(4, 1, 2, 2)
    with pytest.raises(ValueError, match=r"noise must have the shape of x0, \(4, 1, 2, 2\); got \(4, 1, 2\)"):
        q_sample(schedule, x, 1, x[..., 0])
    with pytest.raises(ValueError, match="noise must have the shape of x,"):
        q_step(schedule, x, 1, x[:1])
    with pytest.raises(ValueError, match="xt must have the shape of x0"):
        q_posterior(schedule, x, x[:1], 2, 1)
    for t, s in ((1, 1), (1, 2), (11, 0), (2, -1)):
        with pytest.raises(ValueError, match=f"0 <= s < t <= 10; got t={t}, s={s}"):
            q_posterior(schedule, x, x, t, s)


@pytest.mark.parametrize(
    "t, s, complaint",
    [
        (torch.full((4, 1), 3), 1, r"t must have shape \(4,\)"),
        (torch.full((1,), 3), 1, r"t must have shape \(4,\)"),
        (3, torch.full((3,), 1), r"must have shape \(4,\)"),
        (torch.full((4,), 3.0), 1, "integers"),
        (torch.full((4,), 3), -1, "-1"),
        (11, torch.full((4,), 3), "11"),
    ],
    ids=str,
)
def test_posterior_names_a_wrong_t_or_s(t, s, complaint):
    x = torch.zeros(4, 1, 2, 2)
    with pytest.raises(ValueError, match=complaint):
        q_posterior(linear_schedule(10), x, x, t, s)
