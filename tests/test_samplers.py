"""The samplers: step for step against diffusers, against each other, and in distribution with the exact oracle."""

import gc
import math
from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, sample, spaced_timesteps
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

every_prediction = pytest.mark.parametrize("predicts", list(PREDICTION_TYPES))
every_schedule = pytest.mark.parametrize("schedule", list(SCHEDULES))
with_and_without_clipping = pytest.mark.parametrize("clip", [True, False])
both_variances = pytest.mark.parametrize("variance", ["small", "large"])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def network(x, t, y=None):
    """A smooth stand-in, defined for every t: no scheduler knows that it was never trained."""
    phase = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) / 300
    return 0.8 * torch.tanh(x) + 0.3 * torch.cos(phase) * torch.sin(3 * x) - 0.1


def theirs(kind, schedule, predicts, clip, **options):
    """A scheduler of diffusers. Its tables are float32, whose 1 - alpha_bar_1 has three digits: redone, its formulas kept."""
    scheduler = kind(
        1000, beta_schedule=schedule, clip_sample=clip, prediction_type=PREDICTION_TYPES[predicts], **options
    )
    tables = SCHEDULES[schedule]
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = (
        tables.beta[1:],
        tables.alpha[1:],
        tables.alpha_bar[1:],
    )
    return scheduler


def relative(a, b):
    """Largest absolute difference, as a share of the largest value where that exceeds 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("name", list(TIMES))
@both_variances
@with_and_without_clipping
@every_prediction
@every_schedule
def test_ancestral_steps_equal_those_of_diffusers(schedule, predicts, clip, variance, name):
    """Same start, same noise, each library on its own path: every x_s and every x̂_0 to 1e-8, relative, in float64.

    In a last step longer than one, diffusers adds noise to fixed_large; we return the mean, so its noise is taken off.
    """
    times = TIMES[name]
    scheduler = theirs(DDPMScheduler, schedule, predicts, clip, variance_type=f"fixed_{variance}")
    scheduler.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    x = x_T = torch.randn(3, 2, dtype=F64, generator=seeded(0))
    generator, visited = seeded(1), [times[0]]
    diffusion = GaussianDiffusion(SCHEDULES[schedule], predicts, variance)
    for step in ancestral_steps(network, diffusion, (3, 2), times=times, clip=clip, x_T=x_T, generator=seeded(1)):
        t, state = step.t, generator.get_state()
        result = scheduler.step(network(x, torch.full((3,), t)), t - 1, x, generator=generator)
        x = result.prev_sample
        if step.s == 0 and t > 1 and variance == "large":
            z = torch.randn(3, 2, dtype=F64, generator=seeded(0).set_state(state))
            x = x - (1 - SCHEDULES[schedule].alpha_bar[t]).sqrt() * z
        assert relative(step.x0, result.pred_original_sample) < 1e-8
        assert relative(step.x, x) < 1e-8
        visited.append(step.s)
    assert visited == times


@pytest.mark.parametrize("n", [1000, 50, 4, 1])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@with_and_without_clipping
@every_prediction
@every_schedule
def test_ddim_steps_equal_those_of_diffusers(schedule, predicts, clip, eta, n):
    """As above; with the noise recomputed from the clipped x̂_0, which diffusers does on request only. Last step: 1e-8
    plus the 1e-10 that rounding leaves of its variance."""
    scheduler = theirs(DDIMScheduler, schedule, predicts, clip)
    scheduler.set_timesteps(n)
    x = x_T = torch.randn(3, 2, dtype=F64, generator=seeded(0))
    generator, diffusion = seeded(1), GaussianDiffusion(SCHEDULES[schedule], predicts)
    assert spaced_timesteps(1000, n) == list(range(1000, -1, -1000 // n))
    for step in ddim_steps(network, diffusion, (3, 2), n, eta=eta, clip=clip, x_T=x_T, generator=seeded(1)):
        output = network(x, torch.full((3,), step.t))
        result = scheduler.step(output, step.t - 1, x, eta, use_clipped_model_output=True, generator=generator)
        x = result.prev_sample
        assert relative(step.x0, result.pred_original_sample) < 1e-8
        assert relative(step.x, x) < 1e-8
    assert step.s == 0 and step.i == step.n == n


@every_schedule
def test_untouched_diffusers_in_float32(schedule):
    """Its own float32 tables and arithmetic, 1000 steps, clipped: 5e-3 at the end, the share of 1 - alpha_bar_1 it loses.
    One generator hands out x_T first and then a z for each step."""
    scheduler, generator = DDPMScheduler(1000, beta_schedule=schedule), seeded(1)
    x = torch.randn(3, 2, generator=generator)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, torch.full((3,), int(t) + 1)), int(t), x, generator=generator).prev_sample
    steps = ancestral_steps(network, GaussianDiffusion(SCHEDULES[schedule]), (3, 2), generator=seeded(1))
    ours = sample(steps, progress=False)
    assert ours.dtype == torch.float32
    assert (ours - x).abs().max() < 5e-3


@with_and_without_clipping
@every_prediction
@every_schedule
@pytest.mark.parametrize("steps", [1000, 37])
def test_ddim_with_eta_one_is_the_ancestral_step(steps, schedule, predicts, clip):
    """With the small variance and the same generator, in float32: every step of both paths to 1e-5, relative."""
    diffusion, shape = GaussianDiffusion(SCHEDULES[schedule], predicts, "small"), (4, 1, 2, 2)
    one = ancestral_steps(network, diffusion, shape, steps, clip=clip, generator=seeded(3))
    other = ddim_steps(network, diffusion, shape, steps, eta=1.0, clip=clip, generator=seeded(3))
    for a, b in zip(one, other, strict=True):
        assert (a.t, a.s) == (b.t, b.s)
        assert relative(a.x, b.x) < 1e-5


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
    agrees (2.2/sqrt(n), p ≈ 1e-4), and lies this Wasserstein distance, ∫ |F1 - F2|, from the data: 5 % (small) and 1.4 %
    (large) of the data's standard deviation, 0.55. Neither variance is exact for a mixture; large is the better one here."""
    schedule, mixture, n = linear_schedule(), bimodal(F64), 40_000
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    net, start = oracle(mixture, diffusion), torch.randn(n, 1, dtype=F64, generator=seeded(0))
    steps = ancestral_steps(net, diffusion, (n, 1), 50, clip=False, x_T=start, generator=seeded(1))
    x = sample(steps, progress=False)[:, 0]
    points, cdf = exact_outcome(schedule, spaced_timesteps(1000, 50), variance, mixture)
    assert bool((points.diff() >= -1e-9).all())  # x̂_0 rises with x_t, so the distribution function moves along with it
    assert distance(x, points, cdf) < 2.2 / n**0.5
    assert distance(x, points, cdf_of_bimodal(points)) > 2.2 / n**0.5  # biased, and visibly so at this size
    wasserstein = torch.trapezoid((cdf - cdf_of_bimodal(points)).abs(), points).item()
    assert abs(wasserstein / bias - 1) < 0.02


@pytest.mark.parametrize(
    "sampler, predicts, variance, steps, own_error",
    [
        (ancestral_steps, "v", "small", 1000, 0),
        (ancestral_steps, "v", "large", 1000, 0),
        (ddim_steps, "x0", "small", 200, 0.01),
    ],
)
def test_many_steps_reproduce_the_mixture(sampler, predicts, variance, steps, own_error):
    """5,000 samples, seed 0, of the cosine schedule: distance to the data's own distribution function under
    2.2/sqrt(n) = 0.031; deterministic DDIM in 200 steps is given 0.01 for their own error."""
    diffusion = GaussianDiffusion(cosine_schedule(), predicts, variance)
    net = oracle(bimodal(), diffusion)
    x = sample(sampler(net, diffusion, (5000, 1), steps, clip=False, generator=seeded(0)), progress=False)[:, 0]
    grid = torch.linspace(-2, 2, 4001, dtype=F64)
    assert distance(x, grid, cdf_of_bimodal(grid)) < 2.2 / 5000**0.5 + own_error


def test_ring_in_the_plane():
    """4,000 samples, 100 steps, seed 0: each of 8 blobs gets 500 ± 5 standard deviations (105), and nearly all samples lie
    within 4 of its standard deviations, 0.06."""
    mixture, diffusion = ring(), GaussianDiffusion(cosine_schedule(), "noise", "large")
    steps = ancestral_steps(oracle(mixture, diffusion), diffusion, (4000, 2), 100, generator=seeded(0))
    apart, nearest = torch.cdist(sample(steps, progress=False), mixture.means).min(1)
    assert (torch.bincount(nearest, minlength=8) - 500).abs().max() < 5 * math.sqrt(4000 / 8 * 7 / 8)
    assert (apart < 0.24).float().mean() > 0.995


@pytest.mark.parametrize("steps", [50, 5])
@both_variances
@pytest.mark.parametrize(
    "mean, std, exact, wrong_by",
    [(0.0, 1.0, "large", {50: 0.05, 5: 0.4}), (0.3, 0.0, "small", {50: 0.3, 5: 0.3})],
    ids=["N(0, 1)", "all data at 0.3"],
)
def test_each_variance_is_exact_for_its_own_kind_of_data(mean, std, exact, wrong_by, variance, steps):
    """For N(0, 1) data q(x_s | x_t) has variance β exactly; for a single point it is q(x_s | x_t, x_0), with β̃.

    The steps are linear in x_t, so the mean and variance of x_s obey a recursion, written out here: 40,000 samples (seeds 0
    and 1) follow it within 5 standard errors at every step. With the right variance it gives the forward marginal, to
    1e-12; with the other, the variance is wrong by this share or more."""
    schedule, n = linear_schedule(), 40_000
    data = Mixture(*(torch.full(shape, value, dtype=F64) for shape, value in (((1,), 1), ((1, 1), mean), ((1,), std))))
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    ab_T = schedule.alpha_bar[-1].item()
    m, v, errors = ab_T**0.5 * mean, ab_T * std**2 + 1 - ab_T, []
    net, x_T = oracle(data, diffusion), m + v**0.5 * torch.randn(n, 1, dtype=F64, generator=seeded(0))
    for step in ancestral_steps(net, diffusion, (n, 1), steps, clip=False, x_T=x_T, generator=seeded(1)):
        ab_t, ab_s = schedule.alpha_bar[step.t].item(), schedule.alpha_bar[step.s].item()
        alpha = ab_t / ab_s
        gain = ab_t**0.5 * std**2 / (ab_t * std**2 + 1 - ab_t)  # E[x_0 | x_t] = mean + gain (x_t - E[x_t])
        on_x0, on_xt = ab_s**0.5 * (1 - alpha) / (1 - ab_t), alpha**0.5 * (1 - ab_s) / (1 - ab_t)
        m = on_x0 * (mean + gain * (m - ab_t**0.5 * mean)) + on_xt * m
        v = (on_x0 * gain + on_xt) ** 2 * v
        if step.s:  # the last step returns the mean
            v += (1 - alpha) * (1 if variance == "large" else (1 - ab_s) / (1 - ab_t))
        assert (step.x.mean() - m).abs() < 5 * math.sqrt(v / n) + 1e-9
        assert (step.x.var() - v).abs() < 5 * math.sqrt(2 / n) * v + 1e-9
        if step.s or (std and variance != exact):
            errors.append(abs(v / (ab_s * std**2 + 1 - ab_s) - 1))
    assert max(errors) < 1e-12 if variance == exact else max(errors) > wrong_by[steps]


# ---- what a sampler promises beside its numbers ----


def test_a_module_samples_without_dropout_and_is_left_as_it_was():
    torch.manual_seed(0)
    net = UNet(widths=(8,), heads=2, dropout=0.5)
    for weight in (net.out.weight, net.middle1.conv2.weight, net.middle2.conv2.weight):
        torch.nn.init.normal_(weight)
    diffusion, before = GaussianDiffusion(cosine_schedule()), torch.get_rng_state()
    made = []
    for training in (True, False):
        net.train(training)
        steps = ancestral_steps(net, diffusion, (2, 1, 8, 8), 5, generator=seeded(0))
        made.append(sample(steps, progress=False))
        assert net.training == training and not made[-1].requires_grad
    assert torch.equal(*made)
    assert torch.equal(before, torch.get_rng_state())  # dropout would have drawn from it, and so would a stray randn


def test_the_network_is_given_t_as_int64_and_the_labels_and_the_caller_keeps_its_gradient_mode():
    seen = []

    def net(x, t, y=None):
        seen.append((t.tolist(), t.dtype, y.tolist(), torch.is_grad_enabled()))
        return x

    for _ in ddim_steps(net, GaussianDiffusion(linear_schedule()), (2, 1), 2, y=torch.tensor([4, 2])):
        assert torch.is_grad_enabled()
    assert seen == [([t, t], torch.int64, [4, 2], False) for t in (1000, 500)]


def test_a_sampler_runs_once_with_a_bar_that_stays_off_standard_error(capsys):
    diffusion = GaussianDiffusion(linear_schedule())
    sample(ddim_steps(network, diffusion, (2, 1), 4))
    out, err = capsys.readouterr()
    assert "4/4" in out and err == ""
    steps = ddim_steps(network, diffusion, (2, 1), 4)
    sample(steps, progress=False)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="runs once"):
        sample(steps, progress=False)


def test_memory_does_not_grow_with_the_number_of_steps():
    """As many tensors of the data's shape are alive after 40 steps as after 3: no step keeps those before it."""
    diffusion = GaussianDiffusion(cosine_schedule(100), "v")
    alive = {}
    for step in ddim_steps(network, diffusion, (4, 1, 8, 8), 40, generator=seeded(0)):
        if step.i in (3, 40):
            gc.collect()
            alive[step.i] = sum(type(o) is torch.Tensor and o.shape == step.x.shape for o in gc.get_objects())
    assert 0 < alive[40] <= alive[3]


@pytest.mark.parametrize(
    "arguments, calls",
    [
        (dict(steps=5), 5),
        (dict(steps=5, clip=False), 5),
        (dict(x_T=torch.randn(7, 1, 4, 4, generator=seeded(3)), times=[10, 4, 1, 0]), 3),
    ],
)
def test_chunks_hold_the_same_samples_as_one_batch(arguments, calls, capsys):
    """7 samples, 3 at a time: the same generator hands out the same noise, whatever the chunk; labels go with them."""
    seen = []

    def net(x, t, y):
        seen.append(y.tolist())
        return network(x, t) + 0.1 * y[:, None, None, None]

    arguments = dict(net=net, diffusion=GaussianDiffusion(cosine_schedule(100)), shape=(7, 1, 4, 4), **arguments)
    y = torch.arange(7)
    chunked = generate(**arguments, y=y, chunk=3, generator=seeded(0))
    assert seen == [[0, 1, 2]] * calls + [[3, 4, 5]] * calls + [[6]] * calls
    assert f"{3 * calls}/{3 * calls}" in capsys.readouterr().out
    whole = sample(ddim_steps(**arguments, y=y, generator=seeded(0)), progress=False)
    assert (chunked - whole).abs().max() < 1e-6  # eta = 0: x_T is all the noise there is, drawn in order
    noisy = generate(**arguments, y=y, sampler=partial(ddim_steps, eta=1.0), generator=seeded(0), progress=False)
    assert (noisy - whole).abs().max() > 0.01
