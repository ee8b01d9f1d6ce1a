"""Noise schedules: against the papers' formulas and against diffusers."""

import math

import pytest
import torch
from core import F64, MAKERS, seeded
from diffusers import DDPMScheduler

from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("T", [2, 10, 20, 50, 200, 1000, 4000])
def test_tables_start_clean_and_lose_signal_at_every_step(make, T):
    schedule = make(T)
    for table in (schedule.beta, schedule.alpha, schedule.alpha_bar):
        assert table.shape == (T + 1,) and table.dtype == F64 and table.device.type == "cpu"
    assert schedule.T == T and schedule.beta[0] == 0 and schedule.alpha_bar[0] == 1
    assert bool((schedule.beta[1:] > 0).all()) and bool((schedule.beta <= 0.999).all())
    assert bool((schedule.alpha_bar.diff() < 0).all()) and schedule.alpha_bar[-1] > 0


def test_alpha_bar_is_the_product_of_alphas():
    schedule = Schedule(torch.tensor([0.1, 0.2, 0.5], dtype=F64))
    assert (schedule.alpha_bar - torch.tensor([1.0, 0.9, 0.72, 0.36], dtype=F64)).abs().max() < 1e-15
    assert (schedule.snr[1:] - torch.tensor([9, 0.72 / 0.28, 0.36 / 0.64], dtype=F64)).abs().max() < 1e-12
    assert schedule.snr[0] == math.inf


def test_schedules_follow_their_formulas():
    """Written out at single points, in ordinary floats. Rescaled betas are clipped in chains of twenty steps or fewer.
    Cosine: Nichol and Dhariwal (2021), eq. 17, where the clip touches only the last step."""
    for T, t, beta in ((20, 20, 0.999), (21, 21, 0.02 * 1000 / 21), (500, 1, 2e-4), (500, 500, 0.04)):
        assert abs(linear_schedule(T).beta[t].item() - beta) < 1e-15
    unscaled = linear_schedule(50, rescale=False)  # much is left at its end, about 0.6: why beta is rescaled with T
    assert abs(unscaled.beta[50] - 0.02) < 1e-15 and abs(unscaled.alpha_bar[-1] / 0.6 - 1) < 0.05
    assert linear_schedule(50).alpha_bar[-1] < 5e-5
    for t in (1, 2, 500, 999, 1000):
        share = (t - 1) / 999
        root = math.sqrt(1e-4) + share * (math.sqrt(0.02) - math.sqrt(1e-4))
        assert abs(quadratic_schedule().beta[t].item() - root**2) < 1e-15
        ramp = 1 / (1 + math.exp(6 - 12 * share))
        assert abs(sigmoid_schedule().beta[t].item() - (1e-4 + ramp * (0.02 - 1e-4))) < 1e-15
    for T in (10, 1000):
        schedule, squares = cosine_schedule(T), [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T)]
        assert (schedule.alpha_bar[:T] - torch.tensor(squares, dtype=F64) / squares[0]).abs().max() < 1e-12
        assert schedule.beta[T] == 0.999 and bool((schedule.beta[:T] < 0.999).all())


@pytest.mark.parametrize("ours, theirs", [(linear_schedule, "linear"), (cosine_schedule, "squaredcos_cap_v2")])
def test_tables_equal_those_of_diffusers(ours, theirs):
    """It keeps float32 tables that count from 0; 2e-7 is two units in the last place of a float32 near 1."""
    scheduler = DDPMScheduler(1000, beta_schedule=theirs)
    assert (ours().beta[1:] - scheduler.betas).abs().max() < 2e-7
    assert (ours().alpha_bar[1:] - scheduler.alphas_cumprod).abs().max() < 2e-6  # a product of 1000 rounded factors


def test_sample_t_draws_every_step_equally_often():
    """40,000 draws over 1…8, seed 0: each step 5,000 ± 5 standard deviations (66)."""
    t = linear_schedule(8).sample_t(40_000, generator=seeded())
    counts = torch.bincount(t, minlength=10)
    assert t.dtype == torch.int64 and t.shape == (40_000,) and counts[0] == counts[9] == 0
    assert (counts[1:9] - 5000).abs().max() < 5 * math.sqrt(40_000 * 1 / 8 * 7 / 8)


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1.0])
def test_sample_t_around_a_mean_is_logit_normal_but_for_a_uniform_share(uniform):
    """The distribution function of what is drawn, against the uniform and the normal one, mixed, for every t."""
    schedule, n, mean, deviation = linear_schedule(50), 100_000, -0.6, 1.2
    t = schedule.sample_t(n, around=(mean, deviation), uniform=uniform, generator=seeded())
    assert t.dtype == torch.int64 and t.min() >= 1 and t.max() <= 50
    share = torch.arange(1, 50, dtype=torch.float64) / 50
    exact = uniform * share + (1 - uniform) * torch.special.ndtr((torch.logit(share) - mean) / deviation)
    drawn = (t[:, None] <= torch.arange(1, 50)).double().mean(0)
    assert (drawn - exact).abs().max() < 1.95 / n**0.5  # Kolmogorov and Smirnov: exceeded one time in a thousand


@pytest.mark.parametrize("dtype, kept", [(torch.float32,) * 2, (F64,) * 2, (torch.bfloat16, torch.float32)], ids=str)
def test_coefficients_fit_the_data_they_multiply(dtype, kept):
    """1 - alpha_bar_1 = 1e-4 has three digits only when subtracted in float32; float64 keeps all that float32 shows."""
    schedule, like = linear_schedule(), torch.zeros(3, 1, 2, dtype=dtype)
    for signal, sigma in (schedule.q_coefficients(1, like), schedule.q_coefficients(torch.tensor([1, 0, 9]), like)):
        assert signal.dtype == sigma.dtype == kept and signal.shape == sigma.shape
        assert signal.ndim == 3 and signal.shape[1:] == (1, 1)
        assert (signal**2 + sigma**2 - 1).abs().max() < (1e-15 if dtype == F64 else 2e-7)
        assert abs(sigma[0].item() / 0.01 - 1) < 1e-7
