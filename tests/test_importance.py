"""Importance sampling of t: against probabilities and means by brute force, in one process and in several."""

import math
import sys
from pathlib import Path

import pytest
import torch
from core import F64, seeded
from trainings import distance, go, go_in_float64, same, state_in, stop_at, torchrun

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import step as one_step
from ddpm_course.training.devices import Team
from ddpm_course.training.importance import BINS, HISTORY, ImportanceSampler

ALONE = Team(torch.device("cpu"))
SHORT = GaussianDiffusion(cosine_schedule(8), "v")  # eight bins, soon full


def loss_at(t):
    """Four orders of magnitude, as the bound's terms have, and a scatter of its own."""
    return 3.0 / t.double() ** 1.5


def taught(T=60, uniform=0.0, rounds=400):
    sampler, generator = ImportanceSampler(T, uniform, "cpu", F64), seeded()
    for _ in range(rounds):
        t, _ = sampler.draw(64, generator)
        sampler.update(t, loss_at(t), ALONE)
    return sampler


def probability_of(sampler, T):
    """(T,) of every t, from the bins' probabilities and widths alone."""
    return (sampler.probabilities() / sampler.width).repeat_interleave(sampler.width)


@pytest.mark.parametrize("T", [1, 2, 7, 60, 1000])
def test_bins_cover_every_t_once_and_are_narrow_at_first(T):
    sampler = ImportanceSampler(T, 0.0, "cpu")
    inside = [list(range(first, first + width)) for first, width in zip(sampler.first, sampler.width, strict=True)]
    assert [t for bin in inside for t in bin] == list(range(1, T + 1)) and len(inside) == min(T, BINS)
    assert sampler.bin.tolist() == [i for i, bin in enumerate(inside) for _ in bin]
    assert T < 1000 or (inside[0] == [1] and len(inside[-1]) > 30)


@pytest.mark.parametrize("T, uniform", [(8, 0.0), (60, 0.0), (1000, 0.3)])
def test_probabilities_are_eq_18_by_hand(T, uniform):
    """From the last ten squares of each bin, kept here in lists. Before all bins have ten, each is as likely."""
    sampler, generator = ImportanceSampler(T, uniform, "cpu", F64), seeded()
    kept, bins = {i: [] for i in range(len(sampler.first))}, len(sampler.first)
    for _ in range(300):
        t, _ = sampler.draw(16, generator)
        losses = loss_at(t) * (1 + torch.rand(16, generator=generator, dtype=F64))
        by_bin = {}
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            by_bin.setdefault(sampler.bin[step - 1].item(), []).append(loss**2)
        for i, squares in by_bin.items():
            kept[i] = (kept[i] + [sum(squares) / len(squares)])[-10:]
        full = all(len(squares) == 10 for squares in kept.values())
        sampler.update(t, losses, ALONE)
        if not full:
            assert (sampler.probabilities() - 1 / bins).abs().max() < 1e-15
    assert full
    roots = torch.tensor([math.sqrt(sum(kept[sampler.bin[t - 1].item()]) / 10) for t in range(1, T + 1)], dtype=F64)
    share = max(uniform, 0.001)
    expected = (1 - share) * roots / roots.sum() + share / T
    assert (probability_of(sampler, T) / expected - 1).abs().max() < 1e-12 and HISTORY == 10


@pytest.mark.parametrize("rounds", [0, 400])
@pytest.mark.parametrize("T, uniform", [(1, 0.0), (60, 0.0), (1000, 0.2)])
def test_draws_follow_the_probabilities_and_weights_undo_them(T, uniform, rounds):
    """200,000 draws, seed 1: every t as often as it should be, to 5 standard deviations; a weight is 1 / (T p), so that the
    weighted mean of anything is its mean over 1…T: by brute force over every t, to 1e-12."""
    sampler, n = taught(T, uniform, rounds), 200_000
    t, weights = sampler.draw(n, seeded(1))
    p = probability_of(sampler, T)
    assert abs(p.sum() - 1) < 1e-12 and t.min() >= 1 and t.max() <= T and t.dtype == torch.int64
    counts = t.bincount(minlength=T + 1)[1:].double()
    assert ((counts - n * p).abs() <= 5 * (n * p * (1 - p)).sqrt() + 3).all()
    assert (weights * p[t - 1] * T - 1).abs().max() < 1e-12
    everything = torch.cos(torch.arange(1, T + 1, dtype=F64)) + 3
    weight_of = torch.zeros(T, dtype=F64).index_put((t - 1,), weights)
    assert T == 1000 or abs((p * weight_of * everything).sum() / everything.mean() - 1) < 1e-12
    drawn = weights * everything[t - 1]
    assert (drawn.mean() - everything.mean()).abs() <= 5 * drawn.std() / n**0.5 + 1e-12


def test_what_it_buys():
    """The estimated mean of such losses scatters a seventh as much as with uniform t, or less: exact variances."""
    sampler, t = taught(1000), torch.arange(1, 1001)
    p, losses = probability_of(sampler, 1000), loss_at(t)
    second = (losses**2 / (1000**2 * p)).sum()  # of weight times loss, 1 / (1000 p) each
    uniform = (losses**2).mean()
    assert (second - losses.mean() ** 2) < (uniform - losses.mean() ** 2) / 49
    assert second / losses.mean() ** 2 < 1.5  # 1 would be no scatter at all


def test_a_loss_that_overflowed_is_not_remembered_and_all_zeros_are_no_problem():
    sampler = taught(8)
    before = sampler.state_dict()
    sampler.update(torch.tensor([3, 3]), torch.tensor([math.inf, 1.0], dtype=F64), ALONE)
    sampler.update(torch.tensor([4]), torch.tensor([math.nan], dtype=F64), ALONE)
    assert same(before, sampler.state_dict())
    for _ in range(10):
        sampler.update(torch.arange(1, 9), torch.zeros(8, dtype=F64), ALONE)
    assert (sampler.probabilities() - 1 / 8).abs().max() < 1e-12


def test_train_draws_by_it_weights_by_it_and_reports_the_uniform_mean(monkeypatch, tmp_path):
    """Losses that depend on t alone: the reports' mean is the mean over 1…T, within 5 standard errors; without weights it
    would be twice that. What is remembered has no weights. t_around, which says otherwise, is not asked."""
    seen = []

    def watched(net, diffusion, x0, y, *args, t, **kwargs):
        seen.append(t)
        return loss_at(t).float() + 0 * net.net.out.bias.sum()

    monkeypatch.setattr(one_step, "diffusion_loss", watched)
    options = dict(batch_size=20, t_importance=True, t_around=(9.0, 0.0), save_minutes=9)
    run = go(400, diffusion=SHORT, checkpoint=tmp_path / "state", **options)
    squares = state_in(tmp_path / "state")["t_sampler"]["squares"]
    assert (squares / loss_at(torch.arange(1, 9))[:, None] ** 2 - 1).abs().max() < 1e-6
    t, wanted = torch.cat(seen), loss_at(torch.arange(1, 9)).mean()
    reported = torch.tensor([loss for step, loss in run.losses if step > 60], dtype=F64)
    assert abs(reported.mean() / wanted - 1) < 5 * reported.std() / len(reported) ** 0.5 / wanted + 1e-6
    assert reported.std() / wanted < 0.1 and loss_at(t[1200:]).mean() > 1.5 * wanted


def test_a_batch_in_parts_draws_the_same_t(monkeypatch):
    """In float64, where the sums of losses differ in their last digits only."""
    drawn, real = {}, ImportanceSampler.draw

    def watched(sampler, n, generator):
        t, weights = real(sampler, n, generator)
        drawn.setdefault(parts, []).append(t)
        return t, weights

    monkeypatch.setattr(ImportanceSampler, "draw", watched)
    for parts in (1, 3):
        go_in_float64(diffusion=SHORT, accumulate=parts, t_importance=True)
    assert torch.equal(torch.stack(drawn[1]), torch.stack(drawn[3]))


def test_stopped_and_resumed_it_ends_with_the_same_bits(tmp_path):
    """The history is in the state; the states of other trainings do not mention it, and belong to them alone."""
    options = dict(diffusion=SHORT, t_importance=True)
    for name, stop in ("whole", None), ("state", 35), ("state", None):
        go(checkpoint=tmp_path / name, watch=stop and stop_at(stop), **options)
    state = state_in(tmp_path / "state")
    assert same(state, state_in(tmp_path / "whole")) and bool((state["t_sampler"]["times"] > HISTORY).all())
    with pytest.raises(ValueError, match=r"what differs: t_importance \(True then, the default now\)\."):
        go(checkpoint=tmp_path / "state", diffusion=SHORT)
    go(5, checkpoint=tmp_path / "plain")
    assert "t_sampler" not in (plain := state_in(tmp_path / "plain")) and "t_importance" not in plain["about"]


PULLS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal")


def test_drawing_and_remembering_wait_for_nobody():
    sampler, generator, losses = taught(), seeded(), torch.rand(64, dtype=F64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        t, _ = sampler.draw(64, generator)
        sampler.update(t, losses, ALONE)
    assert [event.name for event in profile.events() if event.name in PULLS] == []


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_draw_the_same_t_and_train_the_network_that_one_would(tmp_path, processes):
    """20 steps in float64, of which the last six or so draw by the history: to 1e-9, the history too."""
    path = tmp_path / "state"
    alone = go_in_float64(diffusion=SHORT, t_importance=True, checkpoint=tmp_path / "alone")
    torchrun(processes, __file__, path)
    state, by_one = state_in(path), state_in(tmp_path / "alone")
    assert state["run"]["step"] == 20 and distance(alone.net, state["net"]) < 1e-9
    assert (state["t_sampler"]["squares"] / by_one["t_sampler"]["squares"] - 1).abs().max() < 1e-9
    assert torch.equal(state["t_sampler"]["times"], by_one["t_sampler"]["times"])
    assert by_one["t_sampler"]["times"].min() >= HISTORY and by_one["t_sampler"]["times"].max() < 20


def main():
    """One of the processes."""
    go_in_float64(diffusion=SHORT, t_importance=True, checkpoint=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
