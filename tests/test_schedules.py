"""Noise schedules: against the papers' formulas, against diffusers, and against what a student may pass by mistake."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from ddpm_course.schedules import (
    Schedule,
    cosine_schedule,
    linear_schedule,
    quadratic_schedule,
    sigmoid_schedule,
)

ALL = [linear_schedule, quadratic_schedule, sigmoid_schedule, cosine_schedule]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("T", [2, 10, 20, 50, 200, 1000, 4000])
def test_tables_start_clean_and_lose_signal_at_every_step(make, T):
    schedule = make(T)
    for table in (schedule.beta, schedule.alpha, schedule.alpha_bar):
        assert table.shape == (T + 1,) and table.dtype == torch.float64 and table.device.type == "cpu"
    assert schedule.T == T and schedule.beta[0] == 0 and schedule.alpha_bar[0] == 1
    assert bool((schedule.beta[1:] > 0).all()) and bool((schedule.beta <= 0.999).all())
    assert bool((schedule.alpha_bar.diff() < 0).all()) and schedule.alpha_bar[-1] > 0


def test_alpha_bar_is_the_product_of_alphas():
    betas = [0.1, 0.2, 0.5]
    schedule = Schedule(torch.tensor(betas, dtype=torch.float64))
    by_hand = [1.0, 0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.5]
    assert max(abs(a - b) for a, b in zip(schedule.alpha_bar.tolist(), by_hand, strict=True)) < 1e-15
    assert (
        max(abs(a - b) for a, b in zip(schedule.snr[1:].tolist(), [9, 0.72 / 0.28, 0.36 / 0.64], strict=True)) < 1e-12
    )
    assert schedule.snr[0] == math.inf


@pytest.mark.parametrize("T, remains", [(50, 0.60), (100, 0.36), (200, 0.13), (300, 0.048), (1000, 4.0e-5)])
def test_unscaled_linear_betas_leave_visible_signal_in_short_chains(T, remains):
    """The figures of lesson 03, to the digits it prints: the reason why beta is rescaled with T."""
    alpha_bar = linear_schedule(T, rescale=False).alpha_bar[-1].item()
    assert abs(alpha_bar / remains - 1) < 0.05
    assert linear_schedule(T).alpha_bar[-1].item() < 5e-5


def test_rescaled_betas_are_clipped_below_one_in_chains_of_twenty_steps_or_fewer():
    assert linear_schedule(20).beta[-1] == 0.999
    assert abs(linear_schedule(21).beta[-1].item() - 0.02 * 1000 / 21) < 1e-15
    assert (
        abs(linear_schedule(500).beta[1].item() - 2e-4) < 1e-15
        and abs(linear_schedule(500).beta[-1].item() - 0.04) < 1e-15
    )


def test_quadratic_and_sigmoid_follow_their_formulas():
    for t in (1, 2, 500, 999, 1000):  # written out at single points, in ordinary floats
        share = (t - 1) / 999
        root = math.sqrt(1e-4) + share * (math.sqrt(0.02) - math.sqrt(1e-4))
        assert abs(quadratic_schedule().beta[t].item() - root**2) < 1e-15
        ramp = 1 / (1 + math.exp(6 - 12 * share))
        assert abs(sigmoid_schedule().beta[t].item() - (1e-4 + ramp * (0.02 - 1e-4))) < 1e-15


@pytest.mark.parametrize("T", [10, 100, 1000])
def test_cosine_alpha_bar_is_the_squared_cosine(T):
    """Nichol and Dhariwal (2021), eq. 17. The clip touches only the last step."""

    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = cosine_schedule(T)
    for t in range(T):
        assert abs(schedule.alpha_bar[t].item() - f(t) / f(0)) < 1e-12
    assert schedule.beta[T] == 0.999 and bool((schedule.beta[:T] < 0.999).all())


@pytest.mark.parametrize("ours, theirs", [(linear_schedule, "linear"), (cosine_schedule, "squaredcos_cap_v2")])
def test_tables_equal_those_of_diffusers(ours, theirs):
    """It keeps float32 tables that count from 0; 2e-7 is two units in the last place of a float32 near 1."""
    scheduler = DDPMScheduler(1000, beta_schedule=theirs)
    assert (ours().beta[1:] - scheduler.betas).abs().max() < 2e-7
    assert (ours().alpha_bar[1:] - scheduler.alphas_cumprod).abs().max() < 2e-6  # a product of 1000 rounded factors


def test_sample_t_draws_every_step_equally_often():
    """40,000 draws over 1…8, seed 0: each step 5,000 ± 5 standard deviations (66)."""
    t = linear_schedule(8).sample_t(40_000, generator=torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64 and t.shape == (40_000,)
    counts = torch.bincount(t, minlength=10)
    assert counts[0] == 0 and counts[9] == 0
    assert (counts[1:9] - 5000).abs().max() < 5 * math.sqrt(40_000 * 1 / 8 * 7 / 8)


def test_coefficients_fit_the_data_they_multiply():
    schedule = linear_schedule(10)
    t = torch.tensor([0, 3, 10])
    for dtype in (torch.float32, torch.float64):
        like = torch.zeros(3, 1, 2, 2, dtype=dtype)
        for signal, sigma in (schedule.q_coefficients(t, like), schedule.q_coefficients(3, like)):
            assert signal.dtype == sigma.dtype == dtype
            assert (signal**2 + sigma**2 - 1).abs().max() < (2e-7 if dtype == torch.float32 else 1e-15)
        assert schedule.q_coefficients(t, like)[0].shape == (3, 1, 1, 1)
        assert schedule.q_coefficients(3, like)[0].shape == (1, 1, 1, 1)
        for i, step in enumerate(t.tolist()):
            assert schedule.q_coefficients(t, like)[1][i].item() == schedule.q_coefficients(step, like)[1].item()
    half = torch.zeros(3, 1, dtype=torch.bfloat16)
    assert schedule.q_coefficients(3, half)[0].dtype == torch.float32


def test_noise_of_the_first_step_survives_float32():
    """1 - alpha_bar_1 = 1e-4 has three digits only when subtracted in float32; float64 keeps all that float32 shows."""
    _, sigma = linear_schedule().q_coefficients(1, torch.zeros(1, 1))
    assert abs(sigma.item() / 0.01 - 1) < 1e-7


@pytest.mark.parametrize("betas", [[], [[0.1, 0.2]], 0.1, [0.0, 0.1], [0.1, 1.0], [-0.1], [0.1, float("nan")]], ids=str)
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="beta"):
        Schedule(torch.tensor(betas))


@pytest.mark.parametrize("make", [linear_schedule, quadratic_schedule, sigmoid_schedule, cosine_schedule])
def test_a_chain_without_steps_is_refused(make):
    with pytest.raises(ValueError, match="T >= 1"):
        make(0)


@pytest.mark.parametrize(
    "t, complaint",
    [
        (11, r"t must lie in 0\.\.10, got 11"),
        (-1, r"t must lie in 0\.\.10, got -1"),
        (torch.tensor([0, 1, 2, -1]), r"t must lie in 0\.\.10, got values from -1 to 2"),
        (torch.tensor([11, 1, 2, 3]), r"t must lie in 0\.\.10, got values from 1 to 11"),
        (torch.ones(4, 1, dtype=torch.int64), r"t must have shape \(4,\).*got \(4, 1\)"),
        (torch.ones(1, dtype=torch.int64), r"t must have shape \(4,\).*got \(1,\)"),
        (torch.tensor(3), r"t must have shape \(4,\).*got \(\)"),
        (torch.ones(4), "t must hold integers.*float32"),
        (0.5, "t must be an int or a tensor of integers, got float"),
        ([1, 2, 3, 4], "t must be an int or a tensor of integers, got list"),
    ],
    ids=str,
)
def test_a_wrong_t_is_named(t, complaint):
    with pytest.raises(ValueError, match=complaint):
        linear_schedule(10).q_coefficients(t, torch.zeros(4, 1, 2, 2))


def test_data_that_is_still_uint8_is_named():
    with pytest.raises(ValueError, match="uint8"):
        linear_schedule(10).q_coefficients(3, torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
