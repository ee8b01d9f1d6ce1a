"""The same answer in other coordinates, against the exact mixture; the likelihood of the probability-flow ODE."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from ddpm_course import toy
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.equations import CLOCKS, NAMES, clock, convert, level_at, ode_log_likelihood
from ddpm_course.samplers import ddim_steps
from ddpm_course.schedules import cosine_schedule, linear_schedule, schedule_through

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_words(name: str, x0: Tensor, noise: Tensor, alpha_bar: float, data: float) -> Tensor:
    """Each quantity as its own paper defines it."""
    a, s = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    if name == "edm":  # Karras et al. (2022), eq. 7 and table 1, solved for F
        spread = s / a
        x = x0 + spread * noise
        skip = data**2 / (spread**2 + data**2)
        out = spread * data / math.sqrt(spread**2 + data**2)
        return (x0 - skip * x) / out
    return {"noise": noise, "x0": x0, "v": a * noise - s * x0, "score": -noise / s, "velocity": noise - x0}[name]


@pytest.mark.parametrize(("given", "wanted"), list(product(NAMES, NAMES)))
def test_every_name_gives_every_other(given, wanted):
    """Against the definitions; a relative error of 1e-10 in float64 where no level is extreme."""
    x0, noise = torch.randn(2, 6, 3, dtype=F64, generator=seeded())
    for alpha_bar, data in product((0.99, 0.5, 0.02), (0.5, 1.0)):
        xt = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise
        told, right = (in_words(name, x0, noise, alpha_bar, data) for name in (given, wanted))
        found = convert(told, given, wanted, xt, alpha_bar, sigma_data=data)
        assert (found - right).abs().max() < 1e-10 * (1 + right.abs().max())
    levels = torch.tensor([0.9, 0.5, 0.1]).reshape(3, 1, 1)  # one for each item
    x0, noise = torch.randn(2, 3, 4, 5, generator=seeded())
    xt = levels.sqrt() * x0 + (1 - levels).sqrt() * noise
    told = torch.stack([in_words(given, x0[i], noise[i], float(levels[i]), 0.5) for i in range(3)])
    right = torch.stack([in_words(wanted, x0[i], noise[i], float(levels[i]), 0.5) for i in range(3)])
    found = convert(told, given, wanted, xt, levels)
    assert found.dtype == torch.float32 and (found - right).abs().max() < 1e-4


def test_the_score_is_the_gradient_of_the_log_density_and_edms_network_is_minus_v():
    """noise = -sigma grad log p, to 1e-10 (Song et al., 2021); sigma_data = 1 makes EDM's rotation the angle's."""
    mixture, schedule = toy.ring(F64), linear_schedule(1000)
    for t in (1, 30, 300, 700, 1000):
        alpha_bar = float(schedule.alpha_bar[t])
        noised = mixture.noised(schedule, t)
        xt = noised.sample(50, generator=seeded(t)).requires_grad_()
        (score,) = torch.autograd.grad(noised.log_prob(xt).sum(), xt)
        x0 = mixture.expected_x0(schedule, xt.detach(), t)
        found = convert(x0, "x0", "score", xt.detach(), alpha_bar)
        assert (math.sqrt(1 - alpha_bar) * (found - score)).abs().max() < 1e-10
        v, edm = (convert(x0, "x0", name, xt.detach(), alpha_bar, sigma_data=1.0) for name in ("v", "edm"))
        assert (v + edm).abs().max() < 1e-10


@pytest.mark.parametrize("name", CLOCKS)
def test_clocks_run_both_ways_and_mean_what_they_say(name):
    level = torch.cat([torch.linspace(0.001, 0.999, 50, dtype=F64), torch.tensor([1e-6, 1 - 1e-6], dtype=F64)])
    assert (level_at(clock(level, name), name) - level).abs().max() < 1e-10
    a, s = level.sqrt(), (1 - level).sqrt()
    right = {
        "alpha_bar": level,
        "angle": torch.arcsin(s),
        "log_snr": 2 * (a.log() - s.log()),
        "sigma": s / a,
        "flow": 1 / (1 + a / s),
    }[name]
    assert ((clock(level, name) - right) / right.abs().clamp(min=1)).abs().max() < 1e-9


def test_euler_on_the_flow_at_matched_times_is_ddim():
    """Five steps, the same network in other words, 1e-10 apart in float64 (Gao et al., 2025, among others)."""
    mixture, diffusion = toy.bimodal(F64), GaussianDiffusion(cosine_schedule(1000), "v")
    net, times = toy.oracle(mixture, diffusion), [1000, 800, 600, 400, 200, 0]
    x_T = torch.randn(200, 1, dtype=F64, generator=seeded())
    *_, last = ddim_steps(net, diffusion, x_T.shape, times=times, x_T=x_T, clip=False)
    u = clock(diffusion.schedule.alpha_bar, "flow").tolist()
    levels = diffusion.schedule.alpha_bar.tolist()
    scale = math.sqrt(levels[1000]) + math.sqrt(1 - levels[1000])
    z = x_T / scale
    for t, s in zip(times[:-1], times[1:], strict=True):
        xt = z * (math.sqrt(levels[t]) + math.sqrt(1 - levels[t]))
        v = net(xt, torch.full((len(xt),), t))
        z = z + (u[s] - u[t]) * convert(v, "v", "velocity", xt, levels[t])
    assert (z - last.x).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (dict(given="epsilon"), "the names are noise, x0, v, score, velocity, edm; got 'epsilon'"),
        (dict(wanted="flow"), "the names are"),
        (dict(alpha_bar=1.0), "alpha_bar must lie between 0 and 1, and be neither; got 1.0"),
        (dict(alpha_bar=torch.tensor([[0.5], [0.0]])), "alpha_bar must lie between 0 and 1"),
        (dict(value=torch.zeros(2, 4)), r"value must have the shape of xt, \(2, 3\); got \(2, 4\)"),
    ],
)
def test_what_cannot_be_converted(arguments, complaint):
    right = dict(value=torch.zeros(2, 3), given="noise", wanted="x0", xt=torch.zeros(2, 3), alpha_bar=0.5)
    with pytest.raises(ValueError, match=complaint):
        convert(**right | arguments)


@pytest.mark.parametrize("function", [clock, level_at])
def test_a_clock_that_nobody_has(function):
    with pytest.raises(ValueError, match="the clocks are alpha_bar, angle, log_snr, sigma, flow; got 'time'"):
        function(torch.tensor([0.5]), "time")


def even_angles(T: int) -> GaussianDiffusion:
    """A schedule in continuous time: even in the angle, up to a little before there is no signal at all."""
    angle = torch.linspace(0, math.pi / 2 - 1e-3, T + 1, dtype=F64)[1:]
    return GaussianDiffusion(schedule_through(angle.cos() ** 2), "v")


@pytest.mark.parametrize("mixture", [toy.bimodal(F64), toy.ring(F64)])
def test_the_equations_likelihood_is_the_mixtures(mixture):
    """Mean error below 1e-3 nats and the largest below 1e-2, of 300 points; and with few steps it is not."""
    diffusion = even_angles(500)
    x0 = mixture.sample(300, generator=seeded(1))
    exact = mixture.log_prob(x0)
    net = toy.oracle(mixture, diffusion)
    error = (ode_log_likelihood(net, diffusion, x0) - exact).abs()
    assert error.mean() < 1e-3 and error.max() < 1e-2
    assert (ode_log_likelihood(net, diffusion, x0, 50) - exact).abs().mean() > 10 * error.mean()


def test_hutchinsons_estimate_is_right_on_average():
    """400 probes of ten points, against the exact divergence: within five standard errors."""
    mixture, diffusion = toy.ring(F64), even_angles(80)
    x0, net = mixture.sample(10, generator=seeded(1)), toy.oracle(mixture, diffusion)
    exact = ode_log_likelihood(net, diffusion, x0, 40)
    draws = torch.stack([ode_log_likelihood(net, diffusion, x0, 40, probes=1, generator=seeded(i)) for i in range(60)])
    assert draws.std(0).max() > 1e-3  # it is random
    assert ((draws.mean(0) - exact).abs() <= 5 * draws.std(0) / 60**0.5 + 1e-9).all()
    many = ode_log_likelihood(net, diffusion, x0, 40, probes=60, generator=seeded())
    assert ((many - exact).abs() <= 6 * draws.std(0) / 60**0.5 + 1e-9).all()


def test_likelihood_of_a_gaussian_through_a_network_with_dropout_is_exact_and_leaves_it_as_it_was():
    """Data N(0, s^2) in four dimensions, image-shaped: v is linear in x, known in closed form; labels reach the net."""
    diffusion, spread = even_angles(200), 0.3

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)
            self.gain = nn.Parameter(torch.ones((), dtype=F64))
            self.seen = []

        def forward(self, x, t, y=None):
            self.seen.append(y)
            level = diffusion.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
            a, s = level.sqrt(), (1 - level).sqrt()
            x0 = a * spread**2 / (level * spread**2 + 1 - level) * self.dropout(x)
            return self.gain * (a * (x - a * x0) / s - s * x0)

    net = Linear().train()
    x0 = spread * torch.randn(5, 1, 2, 2, dtype=F64, generator=seeded())
    y = torch.tensor([0, 1, 2, 3, 4])
    found = ode_log_likelihood(net, diffusion, x0, y=y)
    exact = torch.distributions.Normal(0, spread).log_prob(x0).flatten(1).sum(1)
    assert (found - exact).abs().max() < 1e-3
    assert net.training and net.dropout.training and net.gain.grad is None
    assert all(torch.equal(seen, y) for seen in net.seen)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(dict(steps=0), "steps must be"), (dict(steps=81), "steps must be"), (dict(times=[40, 60, 0]), "times must fall")],
)
def test_steps_that_do_not_fit_the_table(arguments, complaint):
    diffusion = even_angles(80)
    with pytest.raises(ValueError, match=complaint):
        ode_log_likelihood(
            toy.oracle(toy.bimodal(F64), diffusion), diffusion, torch.zeros(2, 1, dtype=F64), **arguments
        )


def test_steps_that_are_not_even_are_taken_as_they_are():
    """Times by a table of the angle, or every other one: each step has its own length."""
    mixture, diffusion = toy.bimodal(F64), even_angles(500)
    x0, net = mixture.sample(50, generator=seeded()), toy.oracle(mixture, diffusion)
    times = [*range(500, 200, -5), *range(200, -1, -1)]
    found = ode_log_likelihood(net, diffusion, x0, times=times)
    assert (found - mixture.log_prob(x0)).abs().mean() < 2e-3
