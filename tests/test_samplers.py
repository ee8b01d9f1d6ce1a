"""The samplers: step for step against diffusers, against each other, and in distribution with the exact oracle."""

import gc
import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ddpm_course.diffusion import GaussianDiffusion, q_posterior
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, guided, sample, spaced_timesteps
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import Mixture, bimodal, oracle, ring
from ddpm_course.unet import UNet

F64 = torch.float64
SCHEDULES = {"linear": linear_schedule(), "squaredcos_cap_v2": cosine_schedule()}
PREDICTION_TYPES = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
TIMES = {  # by hand, so that both libraries visit the same ones; theirs count from 0 and end at -1
    "every step": list(range(1000, -1, -1)),
    "50 even steps": list(range(1000, -1, -20)),
    "uneven": [1000, 991, 700, 699, 350, 34, 33, 5, 1, 0],
    "one step": [1000, 0],
    "not from T": [640, 320, 10, 0],
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def network(x, t, y=None):
    """A smooth stand-in, defined for every t: no scheduler knows that it was never trained."""
    phase = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) / 300
    return 0.8 * torch.tanh(x) + 0.3 * torch.cos(phase) * torch.sin(3 * x) - 0.1


def in_float64(scheduler):
    """diffusers computes its tables in float32, whose 1 - alpha_bar_1 has three digits: redo them, keep its formulas."""
    schedule = SCHEDULES[scheduler.config.beta_schedule]
    scheduler.betas, scheduler.alphas = schedule.beta[1:], schedule.alpha[1:]
    scheduler.alphas_cumprod = schedule.alpha_bar[1:]
    return scheduler


def relative(a, b):
    """Largest absolute difference, as a share of the largest value where that exceeds 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("name", list(TIMES))
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("predicts", list(PREDICTION_TYPES))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_ancestral_steps_equal_those_of_diffusers(schedule, predicts, clip, variance, name):
    """Same start, same noise, each library on its own path: every x_s and every x̂_0 to 1e-8, relative, in float64.

    In a last step longer than one, diffusers adds noise to fixed_large; we return the mean, so its noise is taken off.
    """
    times = TIMES[name]
    scheduler = in_float64(
        DDPMScheduler(
            1000,
            beta_schedule=schedule,
            variance_type=f"fixed_{variance}",
            clip_sample=clip,
            prediction_type=PREDICTION_TYPES[predicts],
        )  # fmt: skip
    )
    scheduler.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    x_T = torch.randn(3, 2, dtype=F64, generator=seeded(0))
    ours = ancestral_steps(
        network, GaussianDiffusion(SCHEDULES[schedule], predicts, variance), (3, 2), times=times, clip=clip, x_T=x_T,
        generator=seeded(1),
    )  # fmt: skip
    x, generator, visited = x_T, seeded(1), [times[0]]
    for step in ours:
        t = step.t
        state = generator.get_state()
        output = network(x, torch.full((3,), t))
        theirs = scheduler.step(output, t - 1, x, generator=generator)
        x = theirs.prev_sample
        if step.s == 0 and t > 1 and variance == "large":
            z = torch.randn(3, 2, dtype=F64, generator=seeded(0).set_state(state))
            x = x - (1 - SCHEDULES[schedule].alpha_bar[t]).sqrt() * z
        assert relative(step.x0, theirs.pred_original_sample) < 1e-8
        assert relative(step.x, x) < 1e-8
        visited.append(step.s)
    assert visited == times


@pytest.mark.parametrize("n", [1000, 50, 4, 1])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("predicts", list(PREDICTION_TYPES))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_ddim_steps_equal_those_of_diffusers(schedule, predicts, clip, eta, n):
    """As above; with the noise recomputed from the clipped x̂_0, which diffusers does on request only. Last step: 1e-8
    plus the 1e-10 that rounding leaves of its variance."""
    scheduler = in_float64(
        DDIMScheduler(1000, beta_schedule=schedule, clip_sample=clip, prediction_type=PREDICTION_TYPES[predicts])
    )
    scheduler.set_timesteps(n)
    x_T = torch.randn(3, 2, dtype=F64, generator=seeded(0))
    diffusion = GaussianDiffusion(SCHEDULES[schedule], predicts)
    x, generator = x_T, seeded(1)
    times = list(range(1000, -1, -1000 // n))
    assert times == spaced_timesteps(1000, n)
    ours = ddim_steps(network, diffusion, (3, 2), n, eta=eta, clip=clip, x_T=x_T, generator=seeded(1))
    for step in ours:
        output = network(x, torch.full((3,), step.t))
        theirs = scheduler.step(output, step.t - 1, x, eta, use_clipped_model_output=True, generator=generator)
        x = theirs.prev_sample
        assert relative(step.x0, theirs.pred_original_sample) < 1e-8
        assert relative(step.x, x) < 1e-8
    assert step.s == 0 and step.i == step.n == n


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_untouched_diffusers_in_float32(schedule):
    """Its own float32 tables and arithmetic, 1000 steps, clipped: 5e-3 at the end, the share of 1 - alpha_bar_1 it loses."""
    scheduler = DDPMScheduler(1000, beta_schedule=schedule)
    x = x_T = torch.randn(3, 2, generator=seeded(0))
    generator = seeded(1)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, torch.full((3,), int(t) + 1)), int(t), x, generator=generator).prev_sample
    diffusion = GaussianDiffusion(SCHEDULES[schedule])
    ours = sample(ancestral_steps(network, diffusion, (3, 2), x_T=x_T, generator=seeded(1)), progress=False)
    assert ours.dtype == torch.float32
    assert (ours - x).abs().max() < 5e-3


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("predicts", list(PREDICTION_TYPES))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("steps", [1000, 37])
def test_ddim_with_eta_one_is_the_ancestral_step(steps, schedule, predicts, clip):
    """With the small variance and the same generator, in float32: every step of both paths to 1e-5, relative."""
    diffusion = GaussianDiffusion(SCHEDULES[schedule], predicts, "small")
    how = dict(clip=clip, steps=steps)
    one = ancestral_steps(network, diffusion, (4, 1, 2, 2), generator=seeded(3), **how)
    other = ddim_steps(network, diffusion, (4, 1, 2, 2), eta=1.0, generator=seeded(3), **how)
    for a, b in zip(one, other, strict=True):
        assert (a.t, a.s) == (b.t, b.s)
        assert relative(a.x, b.x) < 1e-5


def test_a_step_draws_from_the_posterior_of_its_own_estimate():
    """Mean from q_posterior at the x̂_0 that the step reports, z drawn in order after x_T; float64, 1e-12."""
    schedule = cosine_schedule()
    diffusion = GaussianDiffusion(schedule, "v", "small")
    generator = seeded(7)
    x = torch.randn(2, 3, generator=generator)
    x64 = x.double()
    for step in ancestral_steps(network, diffusion, (2, 3), 12, generator=seeded(7)):
        mean, variance = q_posterior(schedule, step.x0.double(), x64, step.t, step.s)
        z = torch.randn(2, 3, generator=generator) if step.s else torch.zeros(2, 3)
        assert (step.x - (mean + variance.sqrt() * z)).abs().max() < 1e-5
        assert step.x0.abs().max() <= 1
        x64 = step.x.double()


@pytest.mark.parametrize("T", [1, 2, 7, 100, 1000])
def test_spaced_timesteps_visit_both_ends_evenly(T):
    for steps in range(1, T + 1):
        times = spaced_timesteps(T, steps)
        gaps = [a - b for a, b in zip(times, times[1:], strict=False)]
        assert times[0] == T and times[-1] == 0 and len(times) == steps + 1
        assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 2
    assert spaced_timesteps(T) == list(range(T, -1, -1))


# ---- in distribution, with the exact network ----


def cdf_of_bimodal(x):
    return sum(w * torch.special.ndtr((x - m) / s) for w, m, s in ((0.4, -0.6, 0.08), (0.6, 0.5, 0.12)))


def distance(samples, grid, cdf):
    """Kolmogorov–Smirnov: the largest gap between the samples' distribution function and one known on a grid."""
    x = samples.double().sort().values
    empirical = torch.searchsorted(x, grid, right=True).double() / len(x)
    return (empirical - cdf).abs().max().item()


def wasserstein(grid, cdf1, cdf2):
    """∫ |F1 - F2|, the mean distance that mass has to travel."""
    return torch.trapezoid((cdf1 - cdf2).abs(), grid).item()


def exact_outcome(schedule, times, variance, mixture):
    """What the sampler's law must be, without drawing: the density is pushed through every reverse step on a grid.

    Returns the points x̂_0(grid) of the last, noiseless step with the distribution function at them.
    """
    grid = torch.linspace(-5.5, 5.5, 2201, dtype=F64)
    dx = grid[1] - grid[0]
    ab = schedule.alpha_bar
    density = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    for t, s in zip(times, times[1:], strict=False):
        x0 = mixture.expected_x0(schedule, grid[:, None], t)[:, 0]
        if s == 0:
            return x0, (density.cumsum(0) - density / 2) * dx
        alpha = ab[t] / ab[s]
        small = (1 - ab[s]) / (1 - ab[t]) * (1 - alpha)
        sigma2 = small if variance == "small" else 1 - alpha
        mean = (ab[s].sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - ab[s]) * grid) / (1 - ab[t])
        kernel = torch.exp(-((grid[:, None] - mean) ** 2) / (2 * sigma2)) / torch.sqrt(2 * math.pi * sigma2)
        density = kernel @ density * dx


@pytest.mark.parametrize("variance, bias", [("small", 0.0270), ("large", 0.0079)])
def test_fifty_steps_have_exactly_the_known_bias(variance, bias):
    """The two-peaked mixture, linear schedule, 50 steps, 40,000 samples, seed 0. The law of the samples computed on a grid
    agrees (2.2/sqrt(n), p ≈ 1e-4), and lies this Wasserstein distance from the data: 5 % (small) and 1.4 % (large) of the
    data's standard deviation, 0.55. Neither variance is exact for a mixture; large is the better one here."""
    schedule, mixture, n = linear_schedule(), bimodal(F64), 40_000
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    x = sample(
        ancestral_steps(oracle(mixture, diffusion), diffusion, (n, 1), 50, clip=False,
                        x_T=torch.randn(n, 1, dtype=F64, generator=seeded(0)), generator=seeded(1)),
        progress=False,
    )[:, 0]  # fmt: skip
    points, cdf = exact_outcome(schedule, spaced_timesteps(1000, 50), variance, mixture)
    assert bool((points.diff() >= -1e-9).all())  # x̂_0 rises with x_t, so the distribution function moves along with it
    assert distance(x, points, cdf) < 2.2 / n**0.5
    assert distance(x, points, cdf_of_bimodal(points)) > 2.2 / n**0.5  # biased, and visibly so at this size
    assert abs(wasserstein(points, cdf, cdf_of_bimodal(points)) / bias - 1) < 0.02


@pytest.mark.parametrize("variance", ["small", "large"])
def test_a_thousand_steps_reproduce_the_mixture(variance):
    """5,000 samples, seed 0, by the oracle in three parametrisations' worth of rounding (v here): distance to the data's
    own distribution function under 2.2/sqrt(n) = 0.031."""
    diffusion = GaussianDiffusion(cosine_schedule(), "v", variance)
    steps = ancestral_steps(oracle(bimodal(), diffusion), diffusion, (5000, 1), clip=False, generator=seeded(0))
    x = sample(steps, progress=False)[:, 0]
    grid = torch.linspace(-2, 2, 4001, dtype=F64)
    assert distance(x, grid, cdf_of_bimodal(grid)) < 2.2 / 5000**0.5


def test_deterministic_ddim_reproduces_the_mixture_in_few_steps():
    """5,000 samples, seed 0, 200 steps of the cosine schedule: 0.031 + 0.01 for the steps' own error."""
    diffusion = GaussianDiffusion(cosine_schedule(), "x0")
    steps = ddim_steps(oracle(bimodal(), diffusion), diffusion, (5000, 1), 200, clip=False, generator=seeded(0))
    grid = torch.linspace(-2, 2, 4001, dtype=F64)
    assert distance(sample(steps, progress=False)[:, 0], grid, cdf_of_bimodal(grid)) < 2.2 / 5000**0.5 + 0.01


def test_ring_in_the_plane():
    """4,000 samples, 100 steps, seed 0: each of 8 blobs gets 500 ± 5 standard deviations (105), and nearly all samples lie
    within 4 of its standard deviations, 0.06."""
    mixture = ring()
    diffusion = GaussianDiffusion(cosine_schedule(), "noise", "large")
    x = sample(
        ancestral_steps(oracle(mixture, diffusion), diffusion, (4000, 2), 100, generator=seeded(0)), progress=False
    )
    apart, nearest = torch.cdist(x, mixture.means).min(1)
    assert (torch.bincount(nearest, minlength=8) - 500).abs().max() < 5 * math.sqrt(4000 / 8 * 7 / 8)
    assert (apart < 0.24).float().mean() > 0.995


@pytest.mark.parametrize("steps", [50, 5])
def test_large_variance_is_exact_for_unit_gaussian_data_and_small_is_not(steps):
    """For N(0, 1) data x_t is N(0, 1) at every t and q(x_s | x_t) has variance β exactly. 40,000 samples, seed 0: the
    variance of every x_s is 1 within 5 standard errors; with β̃ it obeys its own recursion, and falls short."""
    schedule, n = linear_schedule(), 40_000
    data = Mixture(torch.ones(1, dtype=F64), torch.zeros(1, 1, dtype=F64), torch.ones(1, dtype=F64))
    for variance in ("large", "small"):
        diffusion = GaussianDiffusion(schedule, "noise", variance)
        expected = 1.0
        net, start = oracle(data, diffusion), torch.randn(n, 1, dtype=F64, generator=seeded(0))
        for step in ancestral_steps(net, diffusion, (n, 1), steps, clip=False, x_T=start, generator=seeded(1)):
            ab_t, ab_s = schedule.alpha_bar[step.t].item(), schedule.alpha_bar[step.s].item()
            noise = 0 if step.s == 0 else 1 - ab_t / ab_s  # the last step returns the mean
            if variance == "small":
                noise *= (1 - ab_s) / (1 - ab_t)
            expected = ab_t / ab_s * expected + noise
            assert abs(step.x.var().item() / expected - 1) < 5 * math.sqrt(2 / n)
            if variance == "large" and step.s:
                assert abs(expected - 1) < 1e-12
    assert expected < (0.95 if steps == 50 else 0.6)


@pytest.mark.parametrize("steps", [50, 5])
def test_small_variance_is_exact_for_a_point_and_large_is_not(steps):
    """All data at 0.3: q(x_s | x_t) is q(x_s | x_t, x_0), variance β̃ exactly, so x_s is N(0.3 sqrt(ab_s), 1 - ab_s).
    40,000 samples, seed 0, 5 standard errors. With β the x_s spread too far; the last step hides it here."""
    schedule, n = linear_schedule(), 40_000
    data = Mixture(torch.ones(1, dtype=F64), torch.full((1, 1), 0.3, dtype=F64), torch.zeros(1, dtype=F64))
    for variance in ("small", "large"):
        diffusion = GaussianDiffusion(schedule, "noise", variance)
        start = torch.randn(n, 1, dtype=F64, generator=seeded(0))
        excess = []
        net = oracle(data, diffusion)
        for step in ancestral_steps(net, diffusion, (n, 1), steps, clip=False, x_T=start, generator=seeded(1)):
            if step.s:
                ab = schedule.alpha_bar[step.s].item()
                excess.append(step.x.var().item() / (1 - ab) - 1)
                if variance == "small":
                    assert abs(step.x.mean().item() - 0.3 * math.sqrt(ab)) < 5 * math.sqrt((1 - ab) / n) + 0.3 * 0.0065
                    assert abs(excess[-1]) < 5 * math.sqrt(2 / n)
        assert (step.x - 0.3).abs().max() < 1e-9
    assert max(excess) > 0.3


# ---- what a sampler promises beside its numbers ----


def test_a_module_samples_without_dropout_and_is_left_as_it_was():
    torch.manual_seed(0)
    net = UNet(widths=(8,), heads=2, dropout=0.5)
    torch.nn.init.normal_(net.out.weight)
    for block in (net.middle1, net.middle2):
        torch.nn.init.normal_(block.conv2.weight)
    diffusion = GaussianDiffusion(cosine_schedule())
    net.train()
    before = torch.get_rng_state()
    a = sample(ancestral_steps(net, diffusion, (2, 1, 8, 8), 5, generator=seeded(0)), progress=False)
    assert net.training and not a.requires_grad
    assert torch.equal(before, torch.get_rng_state())  # dropout would have drawn from it, and so would a stray randn
    b = sample(ancestral_steps(net.eval(), diffusion, (2, 1, 8, 8), 5, generator=seeded(0)), progress=False)
    assert not net.training and torch.equal(a, b)


def test_the_caller_keeps_its_gradient_mode_between_steps():
    for _ in ancestral_steps(network, GaussianDiffusion(linear_schedule()), (2, 1), 3):
        assert torch.is_grad_enabled()


def test_labels_reach_the_network_with_t_as_int64():
    seen = []

    def net(x, t, y=None):
        seen.append((t.tolist(), t.dtype, y.tolist()))
        return x

    y = torch.tensor([4, 2])
    sample(ddim_steps(net, GaussianDiffusion(linear_schedule()), (2, 1), 2, y=y), progress=False)
    assert seen == [([1000, 1000], torch.int64, [4, 2]), ([500, 500], torch.int64, [4, 2])]


def test_the_progress_bar_stays_off_standard_error(capsys):
    steps = ddim_steps(network, GaussianDiffusion(linear_schedule()), (2, 1), 4)
    sample(steps)
    out, err = capsys.readouterr()
    assert "4/4" in out and err == ""
    sample(ddim_steps(network, GaussianDiffusion(linear_schedule()), (2, 1), 4), progress=False)
    assert capsys.readouterr() == ("", "")


def test_what_does_not_fit_is_named():
    diffusion = GaussianDiffusion(linear_schedule(100))
    for steps in (0, 101, -3):
        with pytest.raises(ValueError, match=rf"steps must lie in 1\.\.100.*got {steps}"):
            next(ancestral_steps(network, diffusion, (2, 1), steps))
    for times in ([101, 0], [100, 1], [100, 100, 0], [1, 2, 0], [0], []):
        with pytest.raises(ValueError, match="times must fall from at most 100 to 0"):
            next(ddim_steps(network, diffusion, (2, 1), times=times))
    with pytest.raises(ValueError, match=r"x_T must have shape \(2, 1\), got \(1, 1\)"):
        next(ddim_steps(network, diffusion, (2, 1), 5, x_T=torch.zeros(1, 1)))


# ---- guidance ----


def test_chunks_hold_the_same_samples_as_one_batch():
    """7 samples, 3 at a time: the same generator hands out the same noise, whatever the chunk; labels go with them."""
    diffusion = GaussianDiffusion(cosine_schedule(100), "v")
    seen = []

    def net(x, t, y):
        seen.append((len(x), y.tolist()))
        return network(x, t) + 0.1 * y[:, None, None, None]

    y, shape = torch.arange(7), (7, 1, 4, 4)
    chunked = generate(net, diffusion, shape, 5, y=y, chunk=3, generator=seeded(0), progress=False)
    assert [size for size, _ in seen] == [3] * 5 + [3] * 5 + [1] * 5
    assert [labels for _, labels in seen][::5] == [[0, 1, 2], [3, 4, 5], [6]]
    whole = sample(ddim_steps(net, diffusion, shape, 5, y=y, generator=seeded(0)), progress=False)
    assert (chunked - whole).abs().max() < 1e-6  # eta = 0: x_T is all the noise there is, drawn in order
    noisy = generate(net, diffusion, shape, 5, y=y, sampler=ddim_steps, eta=1.0, generator=seeded(0), progress=False)
    assert (noisy - whole).abs().max() > 0.01


def test_generate_splits_x_T_and_counts_the_given_times(capsys):
    x_T, y = torch.randn(5, 1, 4, 4, generator=seeded(3)), torch.arange(5) % 3
    times = [10, 4, 1, 0]
    how = dict(y=y, x_T=x_T, times=times)
    diffusion = GaussianDiffusion(linear_schedule(10), "noise")
    whole = sample(ddim_steps(network, diffusion, (5, 1, 4, 4), **how), progress=False)
    made = generate(network, diffusion, (5, 1, 4, 4), chunk=2, **how)
    assert (made - whole).abs().max() < 1e-6
    assert "9/9" in capsys.readouterr().out  # three chunks of three steps
    with pytest.raises(ValueError, match=r"x_T must have shape \(4, 1, 4, 4\)"):
        generate(network, diffusion, (4, 1, 4, 4), x_T=x_T)


def test_a_sampler_runs_once_and_says_so():
    steps = ddim_steps(network, GaussianDiffusion(linear_schedule(10), "noise"), (1, 1, 4, 4), 2)
    sample(steps, progress=False)
    with pytest.raises(ValueError, match="runs once"):
        sample(steps, progress=False)


def test_generate_names_what_does_not_fit():
    diffusion = GaussianDiffusion(cosine_schedule(100), "v")
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 2"):
        generate(network, diffusion, (2, 1, 4, 4), 5, chunk=0)
    with pytest.raises(ValueError, match="one label for each of the 2 samples, got 3"):
        generate(network, diffusion, (2, 1, 4, 4), 5, y=torch.arange(3))


def test_memory_does_not_grow_with_the_number_of_steps():
    """As many tensors of the data's shape are alive after 40 steps as after 3: no step keeps those before it."""
    diffusion = GaussianDiffusion(cosine_schedule(100), "v")
    alive = {}
    for step in ddim_steps(network, diffusion, (4, 1, 8, 8), 40, generator=seeded(0)):
        if step.i in (3, 40):
            gc.collect()
            alive[step.i] = sum(type(o) is torch.Tensor and o.shape == step.x.shape for o in gc.get_objects())
    assert 0 < alive[40] <= alive[3]


def conditional_net():
    torch.manual_seed(0)
    net = UNet(widths=(8, 16), num_classes=3)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape)
    return net.eval()


def test_guidance_interpolates_and_extrapolates():
    """Scale 1 is the conditional network, 0 the unconditional one, 3 lies on their line; 1e-5 of outputs of size 1."""
    net = conditional_net()
    x, t, y = torch.randn(4, 1, 8, 8, generator=seeded(0)), torch.tensor([1, 50, 500, 1000]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        c, u = net(x, t, y), net(x, t)
        tolerance = 1e-5 * c.abs().max()
        assert (guided(net, 1)(x, t, y) - c).abs().max() < tolerance
        assert (guided(net, 0)(x, t, y) - u).abs().max() < tolerance
        assert (guided(net, 3)(x, t, y) - (3 * c - 2 * u)).abs().max() < 3 * tolerance
        assert (c - u)[:3].abs().amax((1, 2, 3)).min() > 100 * tolerance  # else the lines above would show nothing


def test_guidance_works_on_data_of_any_shape_and_samples():
    def net(x, t, y):
        return x + y[:, None]

    net.num_classes = 5
    out = guided(net, 2.0)(torch.zeros(2, 3), torch.ones(2, dtype=torch.int64), torch.tensor([1, 4]))
    assert torch.equal(out, torch.tensor([[-3.0], [3.0]]).expand(2, 3))  # 5 + 2 (y - 5)
    net = conditional_net().train()
    steps = ancestral_steps(
        guided(net, 2.0), GaussianDiffusion(cosine_schedule()), (2, 1, 8, 8), 3, y=torch.tensor([0, 1])
    )
    assert torch.isfinite(sample(steps, progress=False)).all() and net.training


def test_guidance_without_classes_or_labels_is_named():
    with pytest.raises(ValueError, match="num_classes"):
        guided(UNet(widths=(8,), heads=2), 2.0)
    net = conditional_net()
    with pytest.raises(ValueError, match="labels y"):
        guided(net, 2.0)(torch.zeros(2, 1, 8, 8), torch.ones(2, dtype=torch.int64), None)
