"""The claims that lesson 09 makes, against truths that the lesson does not compute with. Orders: see test_solvers."""

import math

import pytest
import torch
from core import F64, normal, seeded
from test_solvers import errors_on_the_table, moved, points

from ddpm_course.data import load_table
from ddpm_course.diffusion import q_posterior
from ddpm_course.exercises import cases09, lesson09
from ddpm_course.samplers import ddim_steps, spaced_timesteps
from ddpm_course.schedules import cosine_schedule
from ddpm_course.toy import bimodal, transport_1d


def test_the_quantile_map_is_what_an_independent_bisection_finds_and_returns():
    schedule, x = cosine_schedule(), points()
    for t, s in ((1000, 0), (700, 300), (100, 900)):
        x = x if t > 100 else x[x.abs() < 1]  # beyond, next to nothing is left to tell shares apart
        moved_there = transport_1d(bimodal(F64), schedule, x, t, s)
        assert (moved_there - moved(x, schedule.alpha_bar[t], schedule.alpha_bar[s])).abs().max() < 1e-9
        assert bool((moved_there.diff() > 0).all())  # order is kept
    inner = points()[points().abs() < 1.5]
    back = transport_1d(bimodal(F64), schedule, transport_1d(bimodal(F64), schedule, inner, 1000, 400), 400, 1000)
    assert (back - inner).abs().max() < 1e-9


def test_ddim_with_eta_1_is_the_ancestral_step_with_the_small_variance_and_only_with_recomputed_noise(lesson):
    schedule, (xt, z) = cosine_schedule(), (normal(4, 1, 8, 8), normal(4, 1, 8, 8, seed=1))
    x0 = (2 * normal(4, 1, 8, 8, seed=2)).clamp(-1, 1)
    for t, s in ((1000, 900), (500, 1), (2, 1), (30, 0)):
        mean, variance = q_posterior(schedule, x0, xt, t, s)
        step = lesson09.ddim_step(schedule, x0, xt, t, s, z, 1.0)
        assert (step - mean - variance.sqrt() * z).abs().max() < 1e-9
    told = lesson.printed("recomputed-check").splitlines()
    assert told == ["recomputed the ancestral step: True", "kept       the ancestral step: False"]


def test_the_designed_times_are_scored_by_the_exact_answer():
    """What the check measures, by test_solvers' own network and bisection."""
    for T in cases09.LENGTHS:
        times, even = lesson09.my_times(T), spaced_timesteps(T, 5)
        for chosen, low, high in ((times, 0.08, cases09.MOST_ERROR), (even, 0.115, 0.13)):
            assert low < cases09.ddim_error(chosen, T) < high
    mine = errors_on_the_table(5, ddim=ddim_steps)["ddim"]
    assert cases09.ddim_error(spaced_timesteps(1000, 5), 1000) == pytest.approx(mine, rel=1e-6)


def test_the_tables_of_the_lesson_are_the_stored_ones_and_its_claims_hold_in_them(lesson):
    rows = load_table("fewer_steps")
    clock = {(row["clock"], row["calls"]): row["frechet"] for row in rows if row["part"] == "times"}
    for calls, printed in zip((5, 10, 25), lesson.numbers("clocks-table")[1:], strict=True):
        names = ("leading", "linspace", "trailing", "root", "log_snr")
        assert printed == [calls, *(clock[name, calls] for name in names)]
        assert min(printed[1:]) == clock["trailing", calls]
        assert sorted(printed[1:]).index(clock["root", calls]) == 2
    assert clock["leading", 5] > 8 * clock["trailing", 5]
    found = {(row["sampler"], row["calls"]): row["frechet"] for row in rows if row["part"] == "calls"}
    for line in lesson.printed("calls-figure").splitlines()[1:6]:
        name = line[:15].strip()
        budgets = (3, 5, 9, 15, 25, 49, 99)
        assert [float(word) for word in line[15:].split()] == [found[name, calls] for calls in budgets]


def test_the_mean_of_all_pixels_is_what_leading_times_get_wrong(lesson):
    """At t = 801 the noise in the mean of 784 pixels, in units of x_0: the number that the text gives."""
    alpha_bar = cosine_schedule().alpha_bar[801]
    blurred = ((1 - alpha_bar) / alpha_bar).sqrt().item() / 28
    assert round(blurred, 2) == 0.11 and "0.11" in lesson.source("clocks-table-see")


def test_noise_lies_on_a_shell_and_the_middle_of_a_line_inside_it(lesson):
    a, b = (torch.randn(500, 784, generator=seeded(i)) for i in (1, 2))
    assert ((a + b) / 2).norm(dim=1).mean() / 28 == pytest.approx(math.sqrt(1 / 2), abs=0.01)
    middle = lesson09.slerp(a, b, 0.5)
    assert middle.norm(dim=1).mean() / 28 == pytest.approx(1, abs=0.01)
    assert torch.nn.functional.cosine_similarity(middle, a).mean() == pytest.approx(math.cos(math.pi / 4), abs=0.01)


def test_the_way_back_misses_less_with_more_steps_and_the_text_says_by_how_much(lesson):
    missed = [line[1] for line in lesson.numbers("back-run")]
    assert missed == sorted(missed, reverse=True) and missed[0] > 10 * missed[-1]


def test_the_target_of_two_steps_in_one_lands_where_the_two_steps_end():
    """The algebra of the distillation: DDIM's step with the target for x_0 goes exactly to the teacher's x_s."""
    schedule, x_t, x_s = cosine_schedule(), normal(50, 2), normal(50, 2, seed=1)
    for t, s in ((1000, 750), (500, 250), (250, 0)):
        (c, d), (e, f) = schedule.q_coefficients(t, x_t), schedule.q_coefficients(s, x_t)
        target = (x_s - f / d * x_t) / (e - f / d * c)
        landed = lesson09.ddim_step(schedule, target, x_t, t, s, 0 * x_t)
        assert (landed - x_s).abs().max() < 1e-7
