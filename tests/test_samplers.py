"""The samplers: step for step against diffusers, against each other, and in distribution with the exact oracle."""

import copy
from functools import partial

import pytest
import torch
from core import F64, both_variances, cdf_of_bimodal, density, distance, every_prediction, normal, perturbed, seeded
from diffusers import DDIMScheduler, DDPMScheduler

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.nets import Guided
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, sample, spaced_timesteps
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import bimodal, oracle
from ddpm_course.unet import UNet

SCHEDULES = {"linear": linear_schedule(), "squaredcos_cap_v2": cosine_schedule()}
PREDICTION_TYPES = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
TIMES = {  # by hand, so that both libraries visit the same ones; theirs count from 0 and end at -1
    "every step": list(range(1000, -1, -1)),
    "uneven": [1000, 991, 700, 699, 350, 34, 33, 5, 1, 0],
    "one step": [1000, 0],
    "not from T": [640, 320, 10, 0],
}
every_schedule = pytest.mark.parametrize("schedule", list(SCHEDULES))
with_and_without_clipping = pytest.mark.parametrize("clip", [True, False])


def network(x, t, y=None):
    """A smooth stand-in, defined for every t: no scheduler knows that it was never trained."""
    phase = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) / 300
    return 0.8 * torch.tanh(x) + 0.3 * torch.cos(phase) * torch.sin(3 * x) - 0.1


def set_up(kind, schedule, predicts, clip, **options):
    """A scheduler of diffusers. Its tables are float32, whose 1 - alpha_bar_1 has three digits: redone, its formulas kept."""
    options |= dict(beta_schedule=schedule, clip_sample=clip, prediction_type=PREDICTION_TYPES[predicts])
    scheduler = kind(1000, **options)
    for name, table in (("betas", "beta"), ("alphas", "alpha"), ("alphas_cumprod", "alpha_bar")):
        setattr(scheduler, name, getattr(SCHEDULES[schedule], table)[1:])
    return scheduler


def compared(steps, scheduler, **options):
    """The times that our steps reach. Same start, same noise, each library on its own path: every x_s and every x̂_0 to
    1e-8. We end with x̂_0 itself; theirs adds noise to it, of a variance that rounding leaves or, with fixed_large, more."""
    x, generator, reached = normal(3, 2), seeded(1), []
    for step in steps:
        output = network(x, torch.full((3,), step.t))
        result = scheduler.step(output, step.t - 1, x, generator=generator, **options)
        x = result.prev_sample if step.s else result.pred_original_sample
        for ours, theirs in ((step.x, x), (step.x0, result.pred_original_sample)):
            assert (ours - theirs).abs().max() < 1e-8 * theirs.abs().max().clamp(min=1)
        reached.append(step.s)
    assert step.i == step.n == len(reached)
    return reached


@pytest.mark.parametrize("name", list(TIMES))
@both_variances
@with_and_without_clipping
@every_prediction
@every_schedule
def test_ancestral_steps_equal_those_of_diffusers(schedule, predicts, clip, variance, name):
    times, diffusion = TIMES[name], GaussianDiffusion(SCHEDULES[schedule], predicts, variance)
    scheduler = set_up(DDPMScheduler, schedule, predicts, clip, variance_type=f"fixed_{variance}")
    scheduler.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    steps = ancestral_steps(network, diffusion, (3, 2), times=times, clip=clip, x_T=normal(3, 2), generator=seeded(1))
    assert compared(steps, scheduler) == times[1:]


@pytest.mark.parametrize("n", [1000, 50, 4, 1])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@with_and_without_clipping
@every_prediction
@every_schedule
def test_ddim_steps_equal_those_of_diffusers(schedule, predicts, clip, eta, n):
    """With the noise recomputed from the clipped x̂_0, which diffusers does on request only."""
    scheduler = set_up(DDIMScheduler, schedule, predicts, clip)
    scheduler.set_timesteps(n)
    diffusion = GaussianDiffusion(SCHEDULES[schedule], predicts)
    steps = ddim_steps(network, diffusion, (3, 2), n, eta=eta, clip=clip, x_T=normal(3, 2), generator=seeded(1))
    reached = compared(steps, scheduler, eta=eta, use_clipped_model_output=True)
    assert reached == list(range(1000, -1, -1000 // n))[1:]


@pytest.mark.parametrize("T", [1, 2, 7, 100, 1000])
def test_spaced_timesteps_visit_both_ends_evenly(T):
    for steps in range(1, T + 1):
        times = torch.tensor(spaced_timesteps(T, steps))
        gaps = -times.diff()
        assert times[0] == T and times[-1] == 0 and len(times) == steps + 1
        assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 2
    assert spaced_timesteps(T) == list(range(T, -1, -1))


def exact_outcome(schedule, times, variance, mixture):
    """What the sampler's law must be, without drawing: the density is pushed through every reverse step on a grid. The
    points x̂_0(grid) of the last, noiseless step and the distribution function at them."""
    grid = torch.linspace(-5.5, 5.5, 1401, dtype=F64)
    dx, ab, law = grid[1] - grid[0], schedule.alpha_bar, density(grid, 0, 1)
    for t, s in zip(times, times[1:], strict=False):
        x0 = mixture.expected_x0(schedule, grid[:, None], t)[:, 0]
        if s == 0:
            return x0, (law.cumsum(0) - law / 2) * dx
        alpha = ab[t] / ab[s]
        sigma2 = (1 - alpha) * ((1 - ab[s]) / (1 - ab[t]) if variance == "small" else 1)
        mean = (ab[s].sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - ab[s]) * grid) / (1 - ab[t])
        law = density(grid[:, None], mean, sigma2) @ law * dx


@both_variances
def test_fifty_steps_have_the_law_computed_on_a_grid(variance):
    """40,000 samples, seeds 0 and 1: 2.2/sqrt(n), p ≈ 1e-4. With neither variance is it the law of the data."""
    schedule, mixture, n = linear_schedule(), bimodal(F64), 40_000
    diffusion = GaussianDiffusion(schedule, "noise", variance)
    net = oracle(mixture, diffusion)
    steps = ancestral_steps(net, diffusion, (n, 1), 50, clip=False, x_T=normal(n, 1), generator=seeded(1))
    x = sample(steps, progress=False)[:, 0]
    points, cdf = exact_outcome(schedule, spaced_timesteps(1000, 50), variance, mixture)
    assert bool((points.diff() >= -1e-9).all())  # x̂_0 rises with x_t, so the distribution function moves along with it
    assert distance(x, points, cdf) < 2.2 / n**0.5 < distance(x, points, cdf_of_bimodal(points))


@both_variances
@pytest.mark.parametrize("sampler", [ancestral_steps, ddim_steps])
def test_many_steps_reproduce_the_mixture(sampler, variance):
    """5,000 samples, seed 0, in float32: under 2.2/sqrt(n) = 0.031; deterministic DDIM may add 0.01 of its own."""
    diffusion, grid = GaussianDiffusion(cosine_schedule(), "v", variance), torch.linspace(-2, 2, 4001, dtype=F64)
    net = oracle(bimodal(), diffusion)
    x = sample(sampler(net, diffusion, (5000, 1), clip=False, generator=seeded(0)), progress=False)[:, 0]
    assert distance(x, grid, cdf_of_bimodal(grid)) < 2.2 / 5000**0.5 + 0.01 * (sampler is ddim_steps)


@pytest.mark.parametrize("dtype", [F64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sampler", [ancestral_steps, ddim_steps])
@pytest.mark.parametrize("self_condition", [False, True])
def test_networks_of_every_precision_are_rounded_alone(dtype, sampler, self_condition):
    """Each output is the float32 network's to one rounding a layer, all of them in one direction; what is made of the
    outputs is, bit for bit, what a sampler in float32 makes of them. Whole paths differ more: their errors grow."""
    options = dict(widths=(8,), heads=2, num_classes=3, self_condition=self_condition)
    plain, diffusion, calls = perturbed(UNet(**options)).eval(), GaussianDiffusion(cosine_schedule()), []
    with torch.no_grad():
        plain.time[0].weight *= 4  # so that a rounded t shows: 750 is none of bfloat16's numbers
    net = copy.deepcopy(plain).to(dtype)
    net.register_forward_hook(lambda _, *call: calls.append(call), with_kwargs=True)
    given = diffusion, (2, 1, 8, 8), 4
    start = dict(x_T=normal(2, 1, 8, 8, dtype=torch.float32), y=[0, 2])
    steps = list(sampler(net, *given, **start, generator=seeded(1)))
    outputs = iter([output.float() for *_, output in calls])
    for step, again in zip(steps, sampler(lambda *_: next(outputs), *given, **start, generator=seeded(1)), strict=True):
        assert step.x.dtype == torch.float32 and torch.equal(step.x, again.x)

    layers = sum(not list(module.children()) for module in net.modules())
    rounding = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) / 2
    for (x, t, y), extra, output in calls:
        with torch.no_grad():
            exact = plain(x.float(), t, y, **{name: value.float() for name, value in extra.items()})
        assert 0 < (output - exact).abs().max() < layers * rounding * exact.abs().max()
    drawn = generate(Guided(net, 2.0), *given, y=[0, 2], sampler=sampler, progress=False)
    assert drawn.isfinite().all() and drawn.dtype == (F64 if dtype == F64 else torch.float32)


def test_dropout_stays_off_and_no_other_random_number_is_drawn():
    net, diffusion = perturbed(UNet(widths=(8,), heads=2, dropout=0.5)), GaussianDiffusion(cosine_schedule())
    before, made = torch.get_rng_state(), []
    for training in (True, False):
        steps = ancestral_steps(net.train(training), diffusion, (2, 1, 8, 8), 5, generator=seeded(0))
        made.append(sample(steps, progress=False))
    assert torch.equal(*made) and not made[0].requires_grad
    assert torch.equal(before, torch.get_rng_state())


def test_the_network_is_given_t_as_int64_and_the_labels_and_the_caller_keeps_its_gradient_mode():
    seen = []

    def net(x, t, y=None):
        seen.append((t.tolist(), t.dtype, y.tolist(), torch.is_grad_enabled()))
        return x

    for _ in ddim_steps(net, GaussianDiffusion(linear_schedule()), (2, 1), 2, y=torch.tensor([4, 2])):
        assert torch.is_grad_enabled()
    assert seen == [([t, t], torch.int64, [4, 2], False) for t in (1000, 500)]


def test_a_sampler_runs_once_with_a_bar_that_stays_off_standard_error(capsys):
    for progress in (True, False):
        steps = ddim_steps(network, GaussianDiffusion(linear_schedule()), (2, 1), 4)
        sample(steps, progress=progress)
        out, err = capsys.readouterr()
        assert ("4/4" in out) == bool(out) == progress and err == ""
    with pytest.raises(ValueError, match="runs once"):
        sample(steps, progress=False)


@pytest.mark.parametrize("options, calls", [(dict(clip=False), 5), (dict(times=[10, 4, 1, 0]), 3)])
def test_chunks_hold_the_same_samples_as_one_batch(options, calls, capsys):
    """7 samples, 3 at a time: the same generator hands out the same noise, whatever the chunk; labels go with them."""
    seen = []

    def net(x, t, y):
        seen.append(y.tolist())
        return network(x, t) + 0.1 * y[:, None, None, None]

    arguments = net, GaussianDiffusion(cosine_schedule(100)), (7, 1, 4, 4), 5
    sampler, y = partial(ddim_steps, **options), torch.arange(7)
    chunked = generate(*arguments, y=y, sampler=sampler, chunk=3, generator=seeded(0))
    assert seen == [[0, 1, 2]] * calls + [[3, 4, 5]] * calls + [[6]] * calls
    assert f"{3 * calls}/{3 * calls}" in capsys.readouterr().out
    x_T = normal(7, 1, 4, 4, dtype=torch.float32)  # as the generator draws it, first of all
    whole = sample(sampler(*arguments, y=y, x_T=x_T), progress=False)
    assert (chunked - whole).abs().max() < 1e-6  # eta = 0: x_T is all the noise there is
    noisy = generate(*arguments, y=y, sampler=partial(sampler, eta=1.0), generator=seeded(0), progress=False)
    assert (noisy - whole).abs().max() > 0.01
