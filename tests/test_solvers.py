"""Solvers of second order and the choice of times: orders against the exact quantile map, steps against diffusers."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from core import F64, distance, normal, seeded
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from test_samplers import SCHEDULES, network, set_up, with_and_without_clipping

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.nets import Guided
from ddpm_course.samplers import ddim_steps, generate, spaced_timesteps
from ddpm_course.schedules import cosine_alpha_bar, cosine_schedule, linear_schedule, schedule_through
from ddpm_course.solvers import encode_steps, heun_steps, multistep_steps
from ddpm_course.toy import bimodal
from ddpm_course.unet import UNet

WEIGHTS, MEANS, STDS = bimodal(F64).weights, bimodal(F64).means[:, 0], bimodal(F64).stds
heun_in_sigma = partial(heun_steps, coordinate="sigma")


def cdf(x, alpha_bar):
    """The mixture's distribution function at a noise level; x (N,)."""
    scale = (alpha_bar * STDS**2 + 1 - alpha_bar).sqrt()
    return torch.special.ndtr((x[:, None] - alpha_bar**0.5 * MEANS) / scale) @ WEIGHTS


def moved(x, alpha_bar, to_alpha_bar):
    """Where the equation takes x (N,) from one level to another. In one dimension it keeps the order of the points, and
    with it the share of the mixture below each; so that is where the other distribution function is as large."""
    share, low, high = cdf(x, alpha_bar), torch.full_like(x, -6.0), torch.full_like(x, 6.0)
    for _ in range(55):
        middle = (low + high) / 2
        below = cdf(middle, to_alpha_bar) < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def estimate_of(schedule):
    """E[x_0 | x_t] of the mixture, as a network that predicts x0: few operations, as it is called thousands of times."""
    levels = schedule.alpha_bar.tolist()

    def net(x, t, y=None):
        alpha_bar = levels[int(t[0])]
        root, variance = math.sqrt(alpha_bar), alpha_bar * STDS**2 + 1 - alpha_bar
        gap = x - root * MEANS  # (N, 2)
        share = (WEIGHTS.log() - gap**2 / (2 * variance) - variance.log() / 2).softmax(1)
        return (share * (MEANS + root * STDS**2 / variance * gap)).sum(1, keepdim=True)

    return net


def rms(error):
    return error.square().mean().sqrt().item()


def points(n=401):
    """Starts from -2.5 to 2.5, in the tails too; the root mean square over them is what all errors here mean."""
    return torch.linspace(-2.5, 2.5, n, dtype=F64)


def error_at_the_last_level(sampler, n):
    """On a grid of n even steps in u, from 0.99 to 0.02 of the cosine schedule, against the exact state there."""
    schedule = schedule_through(cosine_alpha_bar(torch.linspace(0.02, 0.99, n + 1, dtype=F64)))
    start, end = points(), None
    steps = sampler(estimate_of(schedule), GaussianDiffusion(schedule, "x0"), (401, 1), clip=False, x_T=start[:, None])
    for step in steps:
        if step.s == 1:  # and the corrected one, which comes after, where there is one
            end = step.x[:, 0]
    return rms(end - moved(start, schedule.alpha_bar[-1], schedule.alpha_bar[1]))


@pytest.mark.parametrize(
    "sampler, low, high",
    [(ddim_steps, 0.97, 1.03), (heun_steps, 1.88, 2.08), (heun_in_sigma, 1.88, 2.08), (multistep_steps, 1.8, 2.0)],
    ids=["ddim", "heun in the angle", "heun in sigma", "multistep"],
)
def test_orders_of_convergence_between_two_interior_levels(sampler, low, high):
    coarse, fine, finest = (error_at_the_last_level(sampler, n) for n in (128, 256, 512))
    assert low < math.log2(coarse / fine) < high and low < math.log2(fine / finest) < high


def errors_on_the_table(steps, **samplers):
    schedule, start = cosine_schedule(), points()
    diffusion, exact = GaussianDiffusion(schedule, "x0"), moved(start, schedule.alpha_bar[-1], schedule.alpha_bar[0])
    found = {}
    for name, sampler in samplers.items():
        *_, last = sampler(estimate_of(schedule), diffusion, (401, 1), steps, clip=False, x_T=start[:, None])
        found[name] = rms(last.x[:, 0] - exact)
    return found


TO_DATA = dict(ddim=ddim_steps, sigma=heun_in_sigma, angle=partial(heun_steps, smooth_end=True))


def test_ten_steps_on_the_clipped_cosine_table_where_the_second_order_method_loses_in_sigma():
    sigma = (1 / cosine_schedule().snr).sqrt()
    assert sigma[1000].item() == pytest.approx(20_291, abs=0.5) and sigma[999].item() == pytest.approx(642, abs=0.5)
    errors = errors_on_the_table(10, **TO_DATA)
    assert errors == pytest.approx(dict(ddim=0.072, sigma=0.93, angle=0.032), rel=0.02)


def test_a_thousand_steps_on_the_table_end_with_a_step_of_first_order_or_second():
    errors = errors_on_the_table(1000, **TO_DATA)
    assert errors == pytest.approx(dict(ddim=1.0e-3, sigma=2.6e-4, angle=4.9e-6), rel=0.05)


def test_the_last_step_alone_makes_that_difference_whatever_the_coordinate():
    """From 50 steps to 1,000 Heun's error in the angle falls by 300 with its own last step, and by 34 with x̂_0."""
    few, many = (errors_on_the_table(n, angle=heun_steps)["angle"] for n in (50, 1000))
    assert few == pytest.approx(8.8e-3, rel=0.02) and many == pytest.approx(2.6e-4, rel=0.05)


@pytest.mark.parametrize("u", [(1e-4, 1 - 1e-6), (1e-9, 1 - 1e-9)])
def test_neither_end_of_continuous_time_divides_by_zero(u):
    assert cosine_alpha_bar(torch.zeros(1, dtype=F64)).item() == 1
    schedule = schedule_through(cosine_alpha_bar(torch.linspace(*u, 11, dtype=F64)))
    start, net = points(21)[:, None], estimate_of(schedule)
    for sampler in (ddim_steps, heun_steps, partial(heun_steps, smooth_end=True), multistep_steps):
        for step in sampler(net, GaussianDiffusion(schedule, "x0"), (21, 1), clip=False, x_T=start):
            assert step.x.abs().max() < 4, (sampler, step.t, step.s)
    for solver in ("ddim", "heun", "multistep"):
        for step in encode_steps(net, GaussianDiffusion(schedule, "x0"), start / 4, solver=solver, clip=False):
            assert step.x.abs().max() < 40, (solver, step.t, step.s)


def test_a_schedule_through_given_levels_has_them():
    table = linear_schedule(50)
    assert torch.equal(schedule_through(table.alpha_bar[1:]).alpha_bar, table.alpha_bar)
    steep = torch.tensor([0.9, 1e-12, 1e-24], dtype=F64)  # 1 - beta would have four digits of alpha
    assert torch.equal(schedule_through(steep).alpha_bar[1:], steep)
    u = torch.arange(1001, dtype=F64) / 1000
    assert (
        cosine_alpha_bar(u)[:999] - cosine_schedule().alpha_bar[:999]
    ).abs().max() < 1e-12  # not clipped up to there
    for levels in ([0.5, 0.5], [0.2, 0.4], [1.0, 0.5], [0.5, 0.0], [[0.5]], [0.5, math.nan]):
        with pytest.raises(ValueError, match="alpha_bar must be"):
            schedule_through(torch.tensor(levels))


def test_eulers_step_in_sigma_is_ddim_and_the_last_step_returns_the_estimate():
    diffusion, start = GaussianDiffusion(cosine_schedule(), "v"), normal(3, 2)
    heun, ddim = (next(s(network, diffusion, (3, 2), 7, x_T=start)) for s in (heun_in_sigma, ddim_steps))
    assert (heun.x - ddim.x).abs().max() < 1e-12
    for sampler in (heun_steps, heun_in_sigma, multistep_steps):
        *_, last = sampler(network, diffusion, (3, 2), 7, x_T=start)
        assert torch.equal(last.x, last.x0)


def test_a_point_of_data_is_reached_by_the_estimate_and_missed_by_half_the_last_noise_otherwise():
    """What an image is across the directions in which images do not vary."""
    diffusion, start = GaussianDiffusion(cosine_schedule(), "x0"), normal(500, 1)
    for smooth_end in (False, True):
        *_, last = heun_steps(lambda x, *_: 0 * x + 0.3, diffusion, (500, 1), 10, x_T=start, smooth_end=smooth_end)
        error = rms(last.x - 0.3)
        assert error < 1e-12 if not smooth_end else 0.07 < error < 0.09  # the angle at t = 100 is 0.165


TIMES = {"even": None, "uneven": [1000, 700, 699, 350, 33, 5, 1, 0]}


@pytest.mark.parametrize("name", list(TIMES))
@pytest.mark.parametrize("predicts", ["noise", "v"])
@with_and_without_clipping
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_heun_in_sigma_equals_diffusers_heun(schedule, predicts, clip, name):
    """Theirs holds x / sqrt(alpha_bar) in float32 sigmas: given float64 ones here. Twice as many calls but one."""
    times = TIMES[name] or spaced_timesteps(1000, 12)
    scheduler = set_up(HeunDiscreteScheduler, schedule, predicts, clip)
    scheduler.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    sigma = (1 / SCHEDULES[schedule].snr).sqrt()[times]
    scheduler.sigmas = torch.cat([sigma[:1], sigma[1:-1].repeat_interleave(2), sigma[-1:]])
    x, diffusion = normal(3, 2), GaussianDiffusion(SCHEDULES[schedule], predicts)
    state = x * (1 + sigma[0] ** 2).sqrt()
    steps = list(heun_in_sigma(network, diffusion, (3, 2), times=times, clip=clip, x_T=x))
    assert len(steps) == len(scheduler.timesteps) == 2 * len(times) - 3
    for step, at in zip(steps, scheduler.timesteps, strict=True):
        seen = scheduler.scale_model_input(state, at)
        output = network(seen, torch.full((3,), step.t))
        assert step.t == at + 1
        result = scheduler.step(output, at, state)
        state, root = result.prev_sample, SCHEDULES[schedule].alpha_bar[step.s].sqrt()
        assert (step.x - root * state).abs().max() < 1e-8 * step.x.abs().max().clamp(min=1)


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
@pytest.mark.parametrize("name", [*TIMES, "linspace", "clipped"])
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_multistep_steps_equal_those_of_diffusers(schedule, predicts, name):
    """Its sums are float32, ours here float64. Its times are its own: n + 1 even ones down to t = 1, without the last. For
    cosine it advises a log-SNR clipped at -5.1, so it starts lower; from the same start it does the same."""
    options = dict(lambda_min_clipped=-5.1) if name == "clipped" else {}
    scheduler = set_up_multistep(schedule, predicts, **options)
    if name in TIMES:
        scheduler.set_timesteps(timesteps=[t - 1 for t in (TIMES[name] or spaced_timesteps(1000, 20))[:-1]])
    else:
        scheduler.set_timesteps(9)
    times = [int(t) + 1 for t in scheduler.timesteps] + [0]
    assert (times[0] < 1000) == (name == "clipped" and schedule != "linear") and (times[-2] > 1 or name == "uneven")
    scheduler.sigmas = (1 / SCHEDULES[schedule].snr).sqrt()[times]
    x, diffusion = normal(3, 2), GaussianDiffusion(SCHEDULES[schedule], predicts)
    for step in multistep_steps(network, diffusion, (3, 2), times=times, clip=False, x_T=x):
        x = scheduler.step(network(x, torch.full((3,), step.t)), step.t - 1, x).prev_sample
        assert (step.x - x).abs().max() < 2e-5 * step.x.abs().max().clamp(min=1)


def set_up_multistep(schedule, predicts, **options):
    types = dict(noise="epsilon", x0="sample", v="v_prediction")
    betas = SCHEDULES[schedule].beta[1:].numpy()
    return DPMSolverMultistepScheduler(1000, trained_betas=betas, prediction_type=types[predicts], **options)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 25, 30, 50, 333, 999, 1000])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_the_three_conventions_are_those_of_diffusers(spacing, n):
    scheduler = DDIMScheduler(1000, timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    times = spaced_timesteps(1000, n, spacing)
    assert times == [t + 1 for t in scheduler.timesteps.tolist()] + [0]
    assert (times[0] == 1000) == (spacing != "leading" or n == 1000)
    assert (times[-2] == 1) == (spacing != "trailing" or n > 900)
    assert spaced_timesteps(1000, 1, spacing)[0] == (1000 if spacing == "trailing" else 1)  # as theirs


@pytest.mark.parametrize("n, spacing, same", [(30, "leading", True), (30, "linspace", False), (30, "trailing", False)])
def test_diffusers_ddim_goes_to_t_minus_a_stride_and_ours_to_the_next_time_visited(n, spacing, same):
    """With 30 steps the stride is 1000 // 30 = 33, whatever the times are. Only `leading` visits what that reaches. Every
    single step is the same formula, from the same t to the same s."""
    scheduler = set_up(DDIMScheduler, "linear", "v", True, timestep_spacing=spacing)
    scheduler.set_timesteps(n)
    times, diffusion, x = spaced_timesteps(1000, n, spacing), GaussianDiffusion(linear_schedule(), "v"), normal(3, 2)
    agree = []
    for t, s in zip(times, times[1:], strict=False):
        output = network(x, torch.full((3,), t))
        theirs = scheduler.step(output, t - 1, x, use_clipped_model_output=True).prev_sample
        reached = max(t - 33, 0)
        ours = next(ddim_steps(network, diffusion, (3, 2), times=[t, reached, 0][: 2 + (reached > 0)], x_T=x))
        assert ours.s == reached and (ours.x - theirs).abs().max() < 1e-8
        agree.append(reached == s)
        x = theirs
    assert all(agree) == same


def test_the_other_end_of_ddim_is_the_first_level_and_not_data():
    """set_alpha_to_one=False, as in Stable Diffusion, ends at alpha_bar_1: our step to t = 1, with its noise left in."""
    scheduler = set_up(DDIMScheduler, "linear", "v", True, set_alpha_to_one=False)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(10)
    x = normal(3, 2)
    theirs = scheduler.step(network(x, torch.full((3,), 100)), 99, x, use_clipped_model_output=True).prev_sample
    ours = next(ddim_steps(network, GaussianDiffusion(linear_schedule(), "v"), (3, 2), times=[100, 1, 0], x_T=x))
    assert (ours.x - theirs).abs().max() < 1e-8 and 1e-3 < (theirs - ours.x0).abs().max() < 0.1


@pytest.mark.parametrize("schedule", [linear_schedule(), cosine_schedule(), linear_schedule(20)], ids=str)
def test_times_that_are_even_in_a_table(schedule):
    T, log_snr = schedule.T, schedule.snr.log()
    for steps in {1, 2, 5, T // 2, T}:
        for table in (log_snr, torch.arange(T + 1).sqrt()):
            times = torch.tensor(spaced_timesteps(T, steps, table))
            assert times[0] == T and times[-1] == 0 and len(times) == steps + 1 and bool((times.diff() < 0).all())
    few = spaced_timesteps(T, 5, torch.arange(T + 1).sqrt())
    assert np.allclose(few, T * (1 - np.arange(6) / 5) ** 2, atol=0.51)
    inner = log_snr[spaced_timesteps(1000, 5, linear_schedule().snr.log())[:-1]] if T == 1000 else log_snr[:0]
    if len(inner) and schedule.beta[-1] < 0.1:
        assert (
            inner.diff() - inner.diff().mean()
        ).abs().max() < 0.3  # where log-SNR is steep, an integer is a long way
    for wrong in (log_snr[1:], torch.zeros(T + 1), torch.arange(T + 1).sin(), "quadratic", None):
        with pytest.raises(ValueError, match="spacing"):
            spaced_timesteps(T, 2, wrong)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_marginals_of_the_process_behind_ddim_do_not_depend_on_sigma(eta):
    """Song et al. (2021), lemma 1, by Monte Carlo: with x_0 itself in the place of the estimate, x_T from q(x_T | x_0) and
    each step from q_sigma(x_s | x_t, x_0), every x_s has the law of the forward process. 40,000 draws: Kolmogorov–Smirnov
    below 2.2/sqrt(n), p ≈ 1e-4; mean and variance within 4.5 standard errors. What depends on sigma is how x_s and x_t go
    together: the noise in them is the same for eta = 0, and for eta = 1 as alike as in the forward chain."""
    n, schedule, times = 40_000, linear_schedule(), [1000, 600, 300, 100, 20, 0]
    mixture, grid = bimodal(F64), torch.linspace(-6, 6, 6001, dtype=F64)
    x0, before = mixture.sample(n, generator=seeded(3)), normal(n, 1, seed=4)
    x_T = q_sample(schedule, x0, 1000, before)
    steps = ddim_steps(
        lambda *_: x0,
        GaussianDiffusion(schedule, "x0"),
        (n, 1),
        times=times,
        eta=eta,
        clip=False,
        x_T=x_T,
        generator=seeded(5),
    )
    for step in steps:
        if step.s == 0:
            assert torch.equal(step.x, x0)
            continue
        alpha_bar, x = schedule.alpha_bar[step.s], step.x[:, 0]
        assert distance(x, grid, cdf(grid, alpha_bar)) < 2.2 / n**0.5
        noise = (step.x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
        assert abs(noise.mean()) < 4.5 / n**0.5 and abs(noise.var() - 1) < 4.5 * (2 / n) ** 0.5
        assert abs((noise * x0).mean() / x0.square().mean().sqrt()) < 4.5 / n**0.5
        alpha = schedule.alpha_bar[step.t] / alpha_bar
        chain = (alpha * (1 - alpha_bar) / (1 - schedule.alpha_bar[step.t])).sqrt()  # correlation of the two noises
        kept = (1 - eta**2 * (1 - chain**2)).sqrt()
        assert abs((noise * before).mean() - kept) < 4.5 / n**0.5 * (1 + kept)
        before = noise


def test_encoding_arrives_where_the_quantile_map_says_and_decoding_returns():
    """From 200 even shares of the data to x_T and back, on the linear table."""
    schedule, shares = linear_schedule(), (torch.arange(200, dtype=F64) + 0.5) / 200
    data = moved(torch.special.ndtri(shares), schedule.alpha_bar[-1] * 0, schedule.alpha_bar[0])
    diffusion, net = GaussianDiffusion(schedule, "x0"), estimate_of(schedule)
    exact = moved(data, schedule.alpha_bar[0], schedule.alpha_bar[-1])
    codes, returned = {}, {}
    for name, sampler in dict(ddim=ddim_steps, heun=heun_steps, multistep=multistep_steps).items():
        for n in (10, 50, 250):
            *_, last = encode_steps(net, diffusion, data[:, None], n, solver=name, clip=False)
            codes[name, n] = rms(last.x[:, 0] - exact)
            *_, back = sampler(net, diffusion, (200, 1), n, clip=False, x_T=last.x)
            returned[name, n] = rms(back.x[:, 0] - data)
            assert last.s == 1000 and (last.t == 1000) == (name == "heun")
    for found in (codes, returned):
        assert all(
            found[name, 10] > 1.5 * found[name, 50] > 4 * found[name, 250] for name in ("ddim", "heun", "multistep")
        )
        assert max(found["heun", 250], found["multistep", 250]) < found["ddim", 250] / 2
    assert codes["heun", 250] < 0.006 < codes["ddim", 250] and max(returned.values()) < 0.15


@pytest.mark.parametrize("sampler", [heun_steps, heun_in_sigma, multistep_steps])
def test_labels_guidance_self_conditioning_and_chunks_go_through_the_same_loop(sampler):
    net = UNet(widths=(8,), heads=2, num_classes=3, self_condition=True).eval()
    diffusion, calls = GaussianDiffusion(cosine_schedule(), "v"), []
    net.register_forward_hook(lambda _, inputs, extra, __: calls.append((inputs, extra)), with_kwargs=True)
    y, given = torch.tensor([0, 2, 1]), (Guided(net, 2.0), diffusion, (3, 1, 8, 8), 3)
    made = generate(*given, y=y, sampler=sampler, generator=seeded(0), progress=False)
    visited = [1000, 667, 333] if sampler is multistep_steps else [1000, 667, 667, 333, 333]
    assert [int(t[0]) for (_, t, _), _ in calls] == visited
    assert [extra != {} for _, extra in calls] == [False] + [True] * (len(visited) - 1)
    assert all(labels.tolist() == [0, 2, 1, 3, 3, 3] for (_, _, labels), _ in calls)
    chunked = generate(*given, y=y, sampler=sampler, generator=seeded(0), progress=False, chunk=2)
    assert made.abs().max() <= 1 and made.dtype == torch.float32 and (made - chunked).abs().max() < 1e-5


def test_arguments_are_checked():
    diffusion, x = GaussianDiffusion(cosine_schedule(10), "v"), torch.zeros(2, 1)
    for make, message in (
        (lambda: heun_steps(network, diffusion, (2, 1), coordinate="time"), "coordinate must be one of angle, sigma"),
        (lambda: next(heun_steps(network, diffusion, (2, 1), 11)), "steps must be"),
        (lambda: next(heun_steps(network, diffusion, (2, 1), times=[5, 5, 0])), "times must fall"),
        (lambda: next(multistep_steps(network, diffusion, (2, 1), x_T=x[:1])), "x_T must have shape"),
        (lambda: next(encode_steps(network, diffusion, x, 5, solver="euler")), "solver must be one of ddim"),
        (lambda: next(encode_steps(network, diffusion, x, times=[0, 5])), "times must fall"),
        (lambda: next(encode_steps(network, diffusion, x, times=[1, 0])), "times must go beyond 1"),
        (lambda: next(encode_steps(network, diffusion, x.long(), 5)), "floats"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
