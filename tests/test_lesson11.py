"""The numbers that lesson 11 states, against truths that the lesson does not compute with."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from ddpm_course import toy
from ddpm_course.equations import level_at
from ddpm_course.exercises import cases11
from ddpm_course.exercises.lesson11 import (
    divergence,
    flow_matching_loss,
    langevin_step,
    my_score,
    ode_drift,
    reverse_sde_step,
    score_from_noise,
    velocity_from_v,
)
from ddpm_course.exercises.records import Case
from ddpm_course.schedules import cosine_schedule, linear_schedule, schedule_through
from ddpm_course.unet import UNet

F64 = torch.float64
N = 500


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=seeded(seed))


@pytest.fixture(scope="module")
def process():
    """The variance-preserving process of Song et al. (2021) in N steps: its rates, and its levels as a table."""
    u = torch.linspace(0, 1, N + 1, dtype=F64)
    return (0.1 + 19.9 * u).tolist(), schedule_through(torch.exp(-0.1 * u - 9.95 * u**2)[1:])


def test_the_score_is_the_gradient_of_the_log_density():
    """To 1e-10, at every t that the lesson prints."""
    mixture, schedule = toy.bimodal(F64), linear_schedule(1000)
    for t in (1, 10, 100, 500, 1000):
        noised = mixture.noised(schedule, t)
        xt = noised.sample(200, generator=seeded(t)).requires_grad_()
        (score,) = torch.autograd.grad(noised.log_prob(xt).sum(), xt)
        found = score_from_noise(schedule, t, mixture.predict_noise(schedule, xt.detach(), t))
        assert ((found - score) * (1 - schedule.alpha_bar[t]).sqrt()).abs().max() < 1e-10


@pytest.mark.parametrize("h", [0.0005, 0.002, 0.005, 0.01])
def test_langevins_bias_is_what_the_lesson_derives(h):
    """20,000 walkers, 300 steps on N(0, 0.12²): the variance is s²/(1 - h/2s²), to four standard errors."""
    x, std = 0.12 * normal(20_000, 1, seed=1), 0.12
    generator = seeded(2)
    for _ in range(300):
        z = torch.randn(x.shape, dtype=F64, generator=generator)
        x = langevin_step(lambda x: -x / std**2, x, h, z)
    right = std**2 / (1 - h / (2 * std**2))
    assert abs(x.var().item() / right - 1) < 4 * math.sqrt(2 / 20_000)


def went_back(process, step, n: int, seed: int) -> dict[int, Tensor]:
    """The states at five times of n points that walk back, step(x, score, rate, z)."""
    (rates, table), mixture, generator = process, toy.bimodal(F64), seeded(seed)
    x, states = torch.randn(n, 1, dtype=F64, generator=generator), {}
    for i in range(N, 0, -1):
        score = score_from_noise(table, i, mixture.predict_noise(table, x, i))
        x = step(x, score, rates[i], torch.randn(n, 1, dtype=F64, generator=generator))
        if i - 1 in (400, 250, 150, 50, 0):
            states[i - 1] = x
    return states


WAYS = {
    "with noise": lambda x, s, b, z: reverse_sde_step(x, s, b, 1 / N, z),
    "without": lambda x, s, b, z: x - ode_drift(x, s, b) / N,
}


@pytest.mark.parametrize("name", WAYS)
def test_both_equations_have_the_marginals_of_the_chain(process, name):
    """2,000 points in 500 steps, at five times, Kolmogorov and Smirnov's test against the exact distribution function:
    at a size of 1 % for the five together no p is below 0.002."""
    mixture, table = toy.bimodal(F64), process[1]
    for i, x in went_back(process, WAYS[name], 2000, seed=3).items():
        noised = mixture.noised(table, i)
        means, stds, weights = noised.means[:, 0].numpy(), noised.stds.numpy(), noised.weights.numpy()
        cdf = lambda x, m=means, s=stds, w=weights: (w * scipy.stats.norm.cdf(x[:, None], m, s)).sum(1)  # noqa: E731
        assert scipy.stats.kstest(x[:, 0].numpy(), cdf).pvalue > 0.002


WRONG = {"score": (1, -1), "x": (-1, 1), "time": (-1, -1)}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_signs_make_what_the_lesson_says(process, name):
    """Points run away with the score's sign or time's direction; with the sign of x they stay, and fail the test."""
    on_x, on_score = WRONG[name]
    step = lambda x, s, b, z: x + (on_x * b * x / 2 + on_score * b * s) / N + (b / N) ** 0.5 * z  # noqa: E731
    x = went_back(process, step, 4000, seed=4)[0]
    if name != "x":
        assert x.std() > 1000
        return
    assert x.abs().max() < 1.2  # it looks like data
    cdf = lambda x: 0.4 * scipy.stats.norm.cdf(x, -0.6, 0.08) + 0.6 * scipy.stats.norm.cdf(x, 0.5, 0.12)  # noqa: E731
    assert scipy.stats.kstest(x[:, 0].numpy(), cdf).pvalue < 1e-6


def test_the_divergence_is_the_trace_of_the_jacobian():
    """Of a cubic field in five dimensions, by hand: sum of 3 a_i x_i² + b_ii; to 1e-10."""
    a, b, x = normal(5, seed=5), normal(5, 5, seed=6), normal(20, 5, seed=7)
    found = divergence(lambda x: a * x**3 + x @ b.T, x)
    assert (found - ((3 * a * x**2).sum(1) + b.trace())).abs().max() < 1e-10


def test_the_least_flow_matching_loss_is_the_mixtures_own():
    """One Gaussian N(m, s²): the velocity's conditional mean is linear in x_u. With it the loss is the conditional
    variance, s² / ((1 - u)² s² + u²) on average; no other line has a smaller one. 400,000 draws, 1 %."""
    m, s, n = 0.3, 0.5, 400_000
    x0, noise, u = m + s * normal(n, 1, seed=8), normal(n, 1, seed=9), torch.rand(n, dtype=F64, generator=seeded(10))

    def best(x: Tensor, u: Tensor, off: float = 0.0) -> Tensor:
        u = u[:, None]
        variance = (1 - u) ** 2 * s**2 + u**2
        return (u - (1 - u) * s**2) / variance * (x - (1 - u) * m) - m + off

    w = torch.linspace(0, 1, 10_001, dtype=F64)
    least = (s**2 / ((1 - w) ** 2 * s**2 + w**2)).mean().item()
    found = flow_matching_loss(best, x0, noise, u).item()
    assert found == pytest.approx(least, rel=0.01)
    assert flow_matching_loss(lambda x, u: best(x, u, 0.1), x0, noise, u) > found


def test_the_flows_clock_makes_the_diffusions_points_those_of_straight_lines():
    schedule, x0, eps = cosine_schedule(1000), normal(50, 3, seed=11), normal(50, 3, seed=12)
    for t in (1, 300, 999):
        signal, sigma = schedule.q_coefficients(t, x0)
        u = (sigma / (signal + sigma)).item()
        xt, v = signal * x0 + sigma * eps, signal * eps - sigma * x0
        assert (xt / (signal + sigma) - ((1 - u) * x0 + u * eps)).abs().max() < 1e-10
        assert (velocity_from_v(schedule, xt, t, v) - (eps - x0)).abs().max() < 1e-10
        assert level_at(torch.tensor(u, dtype=F64), "flow") == pytest.approx(schedule.alpha_bar[t].item(), rel=1e-9)


def grid() -> tuple[Tensor, float]:
    x = cases11.field_cases()[0].args[0]
    return x, (x[1] - x[0])[1].item()


def test_arrows_on_a_grid_add_up_to_the_density():
    """The mixture of exercise 11.3, whose formula is known: to 0.05 nats wherever it is above a thousandth of the
    highest."""
    x, spacing = grid()
    found = cases11.log_density(my_score(x).reshape(cases11.SIDE, cases11.SIDE, 2), spacing).flatten()
    peaks = torch.tensor([[-1.2, -0.8], [1.2, -0.8], [0.0, 1.2]], dtype=F64)
    third = torch.full((3,), 1 / 3, dtype=F64)
    right = toy.Mixture(third, peaks, torch.full((3,), 0.3, dtype=F64)).log_prob(x)
    seen = right > right.max() - math.log(1000)
    assert (found - right)[seen].abs().max() < 0.05


def test_a_field_is_judged_by_what_it_is_and_not_by_its_size():
    """Half a score, and twice one, are scores too; one with a whirl as small as a hundredth is none."""
    turned = lambda x: my_score(x) + 0.05 * torch.stack([-x[:, 1], x[:, 0]], 1)  # noqa: E731
    for case in cases11.field_cases():
        (x,) = case.args
        assert cases11.fault(my_score(x), case) is None
        assert cases11.fault(2 * my_score(x), case) is None and cases11.fault(0.7 * my_score(x), case) is None
        assert (cases11.fault(turned(x), case) == "turns") == ("loops" in case.label)


def test_the_condition_far_out_is_where_a_density_in_the_plane_stops_adding_up():
    """log p = -a log |x| far out: it adds up for a above 2 alone."""
    case = next(case for case in cases11.field_cases() if "far" in case.label)
    (x,) = case.args
    for a, fault in ((2.5, None), (2.1, None), (1.9, "too_short"), (0.5, "too_short"), (-0.5, "outwards")):
        assert cases11.fault(-a * x / x.square().sum(1, keepdim=True), Case(case.label, (x,))) == fault


def test_the_masked_bound_is_the_entropy_where_the_network_is_right():
    """Two bits that are always equal: hidden alone, one is known from the other; both hidden cost ln 2 for the first.
    The integral of the lesson's bound is then ln 2, the entropy; 10,000 values of u, 1e-3."""
    u = (torch.arange(10_000, dtype=F64) + 0.5) / 10_000
    cost = u**2 * 2 * math.log(2)  # both masked, with probability u²: each is guessed with 1/2
    assert (cost / u).mean().item() == pytest.approx(math.log(2), abs=1e-3)


def test_principal_components_keep_what_the_singular_value_decomposition_keeps(lesson, monkeypatch):
    """To 1e-3 (a level of grey is 8e-3), of 16 and of 64 numbers, on garments that the components were not made from."""
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    names = lesson.run("budget", "road-pca")
    flat, mean = names["pixels"].double().flatten(1), names["pixels"].double().mean(0).flatten()
    _, _, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    for count in (16, 64):
        few = (names["garments"].double().flatten(1) - mean) @ axes[:count].T
        right = (few @ axes[:count] + mean).clamp(-1, 1)
        assert (names["by_pca"](count).flatten(1) - right).abs().max() < 1e-3


def test_a_latent_network_costs_what_its_layers_add_up_to(lesson):
    """Multiplications of every convolution and linear layer, counted by hooks, and 2 n² c for attention between n
    places of c channels: to 1 % of what the lesson prints, which is rounded to a million."""
    printed = [line[-1] for line in lesson.numbers("latent-cost")]
    kinds = [(4, (64,), 1, 7, 49 * 49), (1, (64,), 1, 28, 784 * 784), (1, (32, 64), 2, 28, 49 * 49)]
    for found, (channels, widths, patch, side, pairs) in zip(printed, kinds, strict=True):
        net, counts = UNet(channels, widths, patch=patch, num_classes=10), []

        def count(layer, inputs, output, counts=counts):
            places = (
                output[0, 0].numel() if isinstance(layer, torch.nn.Conv2d) else output[0].numel() // len(layer.bias)
            )
            counts.append(layer.weight.numel() * places)

        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(count)
        net(torch.zeros(1, channels, side, side), torch.ones(1, dtype=torch.long))
        assert found == pytest.approx((sum(counts) + 2 * pairs * widths[-1]) / 1e6, rel=0.01, abs=0.5)


def test_what_is_said_of_three_trainings_is_what_they_show(lesson):
    """Where the lesson says that one of the two is ahead its worst training is better than the other's best one; where
    it says that you cannot tell, they overlap."""
    rows = {int(row[0]): row[1:] for row in lesson.numbers("both-scores") if len(row) == 9}
    assert list(rows) == [1, 2, 3, 5, 10, 50]
    for steps, (*scores, ahead, of) in rows.items():
        flow, diffusion = scores[:3], scores[3:]
        assert of == 3
        if steps in (1, 3, 5):
            assert ahead == 3 and max(flow) < min(diffusion)
        elif steps == 2:
            assert ahead == 0 and max(diffusion) < min(flow)
        else:
            assert max(flow) >= min(diffusion) and max(diffusion) >= min(flow)


def test_latents_are_said_to_keep_what_they_keep(lesson):
    """The stored numbers: neither way to 196 numbers is far ahead, and no sample is closer than the garments that went
    through the same decoder. The text gives them as they are printed."""
    (spread,), *kept = lesson.numbers("latent-keeps")
    (_, itself), (share, far), (our_share, our_far) = kept
    assert 0.3 < spread < 1 and itself < 0.5
    assert 90 <= our_share <= share and abs(far - our_far) < 1.5
    (floor, _), (drawn, count) = lesson.numbers("latent-samples")[-2:]
    assert count == 300 and floor < drawn < 10
    said = lesson.source("latent-keeps-see") + lesson.source("latent-grid-see")
    assert all(f"{number:g}" in said for number in (share, our_share, far, our_far, floor, drawn))
