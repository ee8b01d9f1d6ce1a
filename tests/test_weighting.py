"""Weights of the loss at each t: against errors of x_0 themselves, the papers' formulas in plain numbers, and draws."""

import math

import pytest
import torch
from core import F64, every_prediction, normal, seeded
from trainings import DIFFUSION, go, state_in

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import bound_share, diffusion_loss
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.weighting import implied_weights, min_snr_weights, p2_weights

TIMES = torch.tensor([1, 2, 30, 250, 500, 800, 999, 1000])
SCHEDULES = [linear_schedule(), cosine_schedule()]


def errors(diffusion, weighting=None):
    """Of a network that is off everywhere: its loss, and the squared error of the x_0 that it says, (8,) each."""
    x0, noise, output = normal(8, 5).clamp(-1, 1), normal(8, 5, seed=1), normal(8, 5, seed=2)
    xt = q_sample(diffusion.schedule, x0, TIMES, noise)
    estimate, _ = diffusion.decode(output, xt, TIMES)
    loss = diffusion_loss(lambda x, t, y: output, diffusion, x0, t=TIMES, noise=noise, weighting=weighting)
    return loss, (estimate - x0).square().mean(1)


@every_prediction
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_what_a_target_implies_is_its_loss_over_the_error_of_x0(predicts, schedule):
    """At eight t from end to end, to 1e-6: at both ends one of the two errors is a small difference."""
    diffusion = GaussianDiffusion(schedule, predicts)
    loss, error = errors(diffusion)
    weights = implied_weights(schedule, predicts)
    assert weights.shape == (1001,) and weights.dtype == F64 and weights[0] == 0
    assert (loss / error / weights[TIMES] - 1).abs().max() < 1e-6


@pytest.mark.parametrize("make", [lambda d: min_snr_weights(d, 5), lambda d: min_snr_weights(d, 0.3), p2_weights])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_one_weighting_counts_the_error_of_x0_alike_whatever_the_target(make, schedule):
    counted = []
    for predicts in ("noise", "x0", "v"):
        diffusion = GaussianDiffusion(schedule, predicts)
        loss, error = errors(diffusion, make(diffusion))
        counted.append(loss / error)
    assert all((counts / counted[0] - 1).abs().max() < 1e-6 for counts in counted)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_and_p2_by_hand(gamma):
    """Hang et al.'s three cases and Choi et al.'s one, in Python's floats; k = 1, and another."""
    schedule = cosine_schedule()
    for t in (1, 77, 500, 1000):
        bar = schedule.alpha_bar[t].item()
        snr = bar / (1 - bar)
        by_hand = {"noise": min(snr, gamma) / snr, "x0": min(snr, gamma), "v": min(snr, gamma) / (snr + 1)}
        for predicts, weight in by_hand.items():
            assert abs(min_snr_weights(GaussianDiffusion(schedule, predicts), gamma)[t] / weight - 1) < 1e-12
        for k in (1.0, 0.5):
            ours = p2_weights(GaussianDiffusion(schedule, "noise"), gamma, k)[t]
            assert abs(ours / (k + snr) ** -gamma - 1) < 1e-12
    assert min_snr_weights(DIFFUSION)[0] == p2_weights(DIFFUSION)[0] == 0


def test_drawing_t_unevenly_is_weighting():
    """200,000 draws each way, seeds 0 and 1: the mean loss over t around a middle, against uniform t with the weights
    T p_t, from the normal distribution function; within 5 standard errors, and far from the plain mean."""
    schedule, n, (mean, deviation) = cosine_schedule(100), 200_000, (-0.6, 1.0)
    loss = torch.linspace(1, 0, 101, dtype=F64) ** 2
    edges = torch.special.ndtr((torch.logit(torch.arange(101, dtype=F64) / 100) - mean) / deviation)
    weights = 100 * torch.cat([edges[:1], edges.diff()])
    drawn = loss[schedule.sample_t(n, around=(mean, deviation), generator=seeded())]
    t = schedule.sample_t(n, generator=seeded(1))
    weighted = (weights * loss)[t]
    scatter = math.sqrt((drawn.var() + weighted.var()) / n)
    assert abs(drawn.mean() - weighted.mean()) < 5 * scatter < abs(drawn.mean() - loss[t].mean()) / 5


def test_the_share_of_the_bound_has_its_own_weight():
    diffusion = GaussianDiffusion(cosine_schedule(), "v", "learned")
    x0, noise, output = normal(8, 2).clamp(-1, 1), normal(8, 2, seed=1), normal(8, 4, seed=2)
    options = dict(t=TIMES, noise=noise, weighting=torch.zeros(1001))
    loss = diffusion_loss(lambda x, t, y: output, diffusion, x0, **options)
    xt = q_sample(diffusion.schedule, x0, TIMES, noise)
    assert (loss - bound_share(diffusion, output, x0, xt, TIMES)).abs().max() < 1e-12


def test_train_multiplies_its_losses_and_tells_such_trainings_apart(tmp_path):
    """Three times the weights is three times the loss; without weight there is none, and only weights decay. Others' states
    do not mention it."""
    weighting = torch.full((1001,), 3.0)
    plain, tripled = go(5, lr=1e-9), go(5, lr=1e-9, weighting=weighting, checkpoint=tmp_path / "state")
    assert abs(tripled.losses[0][1] / plain.losses[0][1] - 3) < 1e-5
    late = torch.arange(1001) > 990  # no t of five small batches
    assert go(5, lr=1e-9, t_around=(0, 0.1), weighting=late.double()).losses == [(5, 0.0)]
    go(5, checkpoint=tmp_path / "plain")
    assert "weighting" not in state_in(tmp_path / "plain")["about"]
    with pytest.raises(ValueError, match="what differs: weighting .* then, the default now"):
        go(5, lr=1e-9, checkpoint=tmp_path / "state")
    with pytest.raises(ValueError, match="what differs: weighting"):
        go(5, lr=1e-9, weighting=2 * weighting, checkpoint=tmp_path / "state")


BAD = (
    *(torch.ones(1000), torch.zeros(1001), -torch.ones(1001), torch.ones(1001, 1)),
    *(torch.full((1001,), value) for value in (math.nan, math.inf)),
)


@pytest.mark.parametrize("weighting", BAD, ids=lambda table: str(tuple(table.shape)))
def test_what_is_no_weighting_is_named(weighting):
    with pytest.raises(ValueError, match="weighting must hold 1001 finite numbers, for t = 0…1000, none below 0"):
        go(5, weighting=weighting)


def test_numbers_out_of_range_are_named():
    for call, complaint in (
        (lambda: implied_weights(SCHEDULES[0], "epsilon"), "predicts must be one of .*got 'epsilon'"),
        (lambda: min_snr_weights(DIFFUSION, 0), "gamma must be a finite number, more than 0"),
        (lambda: p2_weights(DIFFUSION, -1), "gamma must be a finite number, 0 or more"),
        (lambda: p2_weights(DIFFUSION, 1, 0), "k must be a finite number, more than 0"),
    ):
        with pytest.raises(ValueError, match=complaint):
            call()
