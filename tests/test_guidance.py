"""Guidance: exact networks on labelled mixtures against integrals, another solver and Bayes' rule."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from core import F64, every_prediction, normal, seeded
from scipy.integrate import solve_ivp
from torch import nn

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.guidance import ClassifierGuided, block_means, edit_steps, inpaint_steps
from ddpm_course.nets import Guided, device_of, evaluating
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, sample
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.solvers import heun_steps
from ddpm_course.times import spaced_timesteps
from ddpm_course.toy import bimodal

APART = 0.4, -0.6, 0.08, 0.6, 0.5, 0.12  # toy.bimodal: weight, mean and std of the left peak, and of the right one
OVERLAPPING = 0.5, -0.4, 0.3, 0.5, 0.4, 0.3
T = torch.tensor([1, 50, 500, 1000])
quiet = partial(sample, progress=False)


class Labelled(nn.Module):
    """The exact network of two peaks on a line, whose labels are the peaks: E[x_0 | x_t, y] said as `predicts` wants."""

    def __init__(self, peaks, diffusion):
        super().__init__()
        self.weights, self.means, self.stds = torch.tensor(peaks, dtype=F64).reshape(2, 3).T
        self.diffusion, self.num_classes = diffusion, 2

    def joint(self, x, t):
        """log p(x_t, y), (N, 2), up to a constant."""
        alpha_bar = self.diffusion.schedule.alpha_bar[t][:, None]
        variance = alpha_bar * self.stds**2 + 1 - alpha_bar
        return self.weights.log() - (x - alpha_bar.sqrt() * self.means) ** 2 / (2 * variance) - variance.log() / 2

    def forward(self, x, t, y=None):
        alpha_bar = self.diffusion.schedule.alpha_bar[t][:, None]  # (N, 1)
        root, variance = alpha_bar.sqrt(), alpha_bar * self.stds**2 + 1 - alpha_bar
        x0 = self.means + root * self.stds**2 / variance * (x - root * self.means)  # (N, 2), one for each label
        null = torch.full_like(t, 2) if y is None else y
        known, share = nn.functional.one_hot(null, 3)[:, :2], self.joint(x, t).softmax(1)
        x0 = (torch.where(null[:, None] == 2, share, known.double()) * x0).sum(1, keepdim=True)
        return self.diffusion.target(x0, (x - root * x0) / (1 - alpha_bar).sqrt(), t)

    def log_likelihood(self, x, t, y):
        return self.joint(x, t).log_softmax(1)[torch.arange(len(x)), y]


def exact(peaks=APART, predicts="x0", schedule=None, variance="small"):
    diffusion = GaussianDiffusion(schedule or cosine_schedule(), predicts, variance)
    return Labelled(peaks, diffusion), diffusion


def moments(x):
    return x.mean().item(), x.std().item()


def sharpened(peaks, scale):
    """Mean and std of p(x) p(y|x)^scale for the right peak, summed over a grid: what one would like guidance to be."""
    x = torch.linspace(-4, 4, 40_001, dtype=F64)
    joint = torch.stack([math.log(w / s) - (x - m) ** 2 / (2 * s**2) for w, m, s in (peaks[:3], peaks[3:])])
    p = (joint.logsumexp(0) + scale * (joint[1] - joint.logsumexp(0))).softmax(0)
    mean = (p * x).sum()
    return mean.item(), (p * (x - mean) ** 2).sum().sqrt().item()


def quantiles(n=1001):
    """The middles of n equal shares of N(0, 1): in one dimension a deterministic sampler keeps their order."""
    return torch.special.ndtri((torch.arange(n, dtype=F64) + 0.5) / n)[:, None]


def by_another_solver(peaks, scale, starts):
    """Where the guided equation ends, by scipy from the densities alone: dx/dφ = -tan φ (x + ∂ log p/∂x), p guided."""
    log_weights = [(math.log(w), m, s) for w, m, s in (peaks[:3], peaks[3:])]

    def slope(phi, x):
        root, noise = math.cos(phi), math.sin(phi) ** 2
        logs, scores = [], []
        for log_weight, m, s in log_weights:
            variance = root**2 * s**2 + noise
            gap = torch.as_tensor(x) - root * m
            logs.append(log_weight - gap**2 / (2 * variance) - math.log(variance) / 2)
            scores.append(-gap / variance)
        share, right = torch.sigmoid(logs[1] - logs[0]), scores[1]
        without = (1 - share) * scores[0] + share * right
        return (-math.tan(phi) * (torch.as_tensor(x) + without + scale * (right - without))).numpy()

    ends = math.acos(cosine_schedule().alpha_bar[-1].sqrt()), 0.0
    return torch.as_tensor(solve_ivp(slope, ends, starts[:, 0].numpy(), rtol=1e-6, atol=1e-7).y[:, -1])


# The numbers that the course states come from about 2,000 draws: the means from the equation are good to 0.003 (0.005
# where the peaks overlap), and those of the chain to 0.004 (0.006).
ODE = {(APART, 2): (0.564, 0.089), (APART, 3): (0.606, 0.080), (APART, 5): (0.662, 0.069)}
CHAIN = {(APART, 2): 0.516, (APART, 3): 0.520, (APART, 5): 0.535, (OVERLAPPING, 3): 0.596}


@pytest.mark.parametrize("scale", [1, 2, 3, 5])
def test_sharpening_peaks_that_do_not_overlap_does_nothing_and_guidance_does(scale):
    """The scale is that of `Guided`: p(x) p(y|x)^scale, and 1 is plain p(x | y)."""
    assert sharpened(APART, scale) == pytest.approx((0.5, 0.12), abs=1e-5)
    (net, diffusion), starts = exact(), quantiles()
    y = torch.ones(len(starts), dtype=torch.int64)
    steps = ddim_steps(Guided(net, scale), diffusion, starts.shape, 500, y=y, clip=False, x_T=starts)
    found, other = moments(quiet(steps)), moments(by_another_solver(APART, scale, starts))
    assert found == pytest.approx(other, abs=0.002)
    assert found == pytest.approx(ODE.get((APART, scale), (0.5, 0.12)), abs=0.003)


def test_guidance_where_the_peaks_overlap_is_not_sharpening_either():
    assert sharpened(OVERLAPPING, 3)[0] == pytest.approx(0.490, abs=5e-4)
    (net, diffusion), starts = exact(OVERLAPPING), quantiles()
    y = torch.ones(len(starts), dtype=torch.int64)
    steps = ddim_steps(Guided(net, 3), diffusion, starts.shape, 500, y=y, clip=False, x_T=starts)
    mean = quiet(steps).mean().item()
    assert mean == pytest.approx(by_another_solver(OVERLAPPING, 3, starts).mean().item(), abs=0.002)
    assert mean == pytest.approx(0.718, abs=0.005)


@pytest.mark.parametrize("peaks, scale", CHAIN)
def test_the_guided_chain_samples_from_a_third_thing(peaks, scale):
    """250 steps, 10,000 draws, seeds 0 and 1: as at 1,000 steps to a standard error, 0.0011 (0.0023 if they overlap)."""
    (net, diffusion), n = exact(peaks), 10_000
    y = torch.ones(n, dtype=torch.int64)
    x_T, generator = normal(n, 1), seeded(1)
    steps = ancestral_steps(
        Guided(net, scale), diffusion, (n, 1), 250, y=y, clip=False, x_T=x_T, generator=generator
    )  # fmt: skip
    assert quiet(steps).mean().item() == pytest.approx(CHAIN[peaks, scale], abs=0.006)


@every_prediction
def test_scales_by_every_convention(predicts):
    """Ours: u + s (c - u). Ho and Salimans: (1 + w) c - w u, so s = 1 + w. Imagen: w c + (1 - w) u, so s = w. A
    classifier's gradient on the unconditional network has our scale, and on the conditional one s - 1."""
    net, diffusion = exact(predicts=predicts)
    x, y = normal(4, 1), torch.tensor([0, 1, 1, 0])
    c, u = net(x, T, y), net(x, T)
    for scale in (-1.0, 0.0, 0.5, 1.0, 3.0, 7.5):
        w, guided = scale - 1, Guided(net, scale)(x, T, y)
        tolerance = 1e-9 * c.abs().max()
        assert (guided - ((1 + w) * c - w * u)).abs().max() < tolerance
        assert (guided - (scale * c + (1 - scale) * u)).abs().max() < tolerance
        by_classifier = partial(ClassifierGuided, net, diffusion, net.log_likelihood)
        assert (by_classifier(scale)(x, T, y) - guided).abs().max() < tolerance
        assert (by_classifier(scale - 1, conditional=True)(x, T, y) - guided).abs().max() < tolerance
    assert (Guided(net, 1)(x, T, y) - c).abs().max() < tolerance and (c - u).abs().max() > 1e-3


def test_a_classifier_and_no_classifier_make_the_same_samples():
    net, diffusion = exact(OVERLAPPING, "v", variance="large")
    nets, y = (Guided(net, 2.0), ClassifierGuided(net, diffusion, net.log_likelihood, 2.0)), torch.arange(100) % 2
    for sampler in (ancestral_steps, ddim_steps, heun_steps):
        first, second = (
            quiet(sampler(n, diffusion, (100, 1), 20, y=y, x_T=normal(100, 1), generator=seeded(1))) for n in nets
        )
        assert (first - second).abs().max() < 1e-9 and not second.requires_grad
        assert ((first[:, 0] > 0) == (y == 1)).double().mean() > 0.9


@every_prediction
def test_through_the_estimate_with_the_right_variance_is_exact_for_a_gaussian(predicts):
    """x_0 of N(0, 0.5²), seen with an error of std 0.3 as 0.8: then it is of N(mean, std²) by Bayes' rule, and so the
    guided network is that one's oracle. Var(x_0 | x_t) adds to the error's variance, which only a Gaussian tells."""
    diffusion = GaussianDiffusion(cosine_schedule(), predicts)
    same, seen = Labelled((0.5, 0.0, 0.5, 0.5, 0.0, 0.5), diffusion), 0.8
    std2 = 1 / (1 / 0.5**2 + 1 / 0.3**2)
    mean = std2 * seen / 0.3**2
    after = Labelled((0.5, mean, std2**0.5) * 2, diffusion)

    def log_likelihood(x0, t, _):
        alpha_bar = diffusion.schedule.alpha_bar[t][:, None]
        left = 0.5**2 * (1 - alpha_bar) / (alpha_bar * 0.5**2 + 1 - alpha_bar)
        return -((seen - x0) ** 2 / (2 * (0.3**2 + left)))[:, 0]

    x = normal(4, 1)
    guided = ClassifierGuided(same, diffusion, log_likelihood, through_x0=True)(x, T)
    assert (guided - after(x, T)).abs().max() < 1e-9 * guided.abs().max().clamp(min=1) and not guided.requires_grad
    assert (guided - same(x, T)).abs().max() > 1e-2


def test_an_interval_guides_inside_and_nowhere_else():
    """t may differ within a batch; both ends are inside. Sampled, the last part is that of the plain network."""
    net, diffusion = exact(OVERLAPPING)
    x = torch.linspace(-0.5, 0.5, 4, dtype=F64)[:, None]
    y, times = torch.ones(4, dtype=torch.int64), torch.tensor([299, 300, 600, 601])
    plain, guided = net(x, times, y), Guided(net, 3)(x, times, y)
    between = Guided(net, 3, interval=(300, 600))(x, times, y)
    for i, inside in enumerate((False, True, True, False)):
        assert (between[i] - (guided if inside else plain)[i]).abs() < 1e-12 < 1e-2 < (guided - plain)[i].abs()
    every = Guided(net, torch.tensor([[3.0], [1.0], [2.0], [0.0]], dtype=F64), interval=(300, 600))(x, times, y)
    assert (every[1] - plain[1]).abs() < 1e-12 and (every[2] - (plain + guided)[2] / 2).abs() < 1e-12
    y, x_T = torch.ones(50, dtype=torch.int64), normal(50, 1)
    given = dict(y=y, clip=False, times=[1000, 800, 500, 200, 0])
    early, late = (
        list(ddim_steps(Guided(net, 3, interval=i), diffusion, (50, 1), x_T=x_T, **given))
        for i in ((501, 1000), (1, 500))
    )
    rest = quiet(ddim_steps(net, diffusion, (50, 1), x_T=early[1].x, **given | dict(times=[500, 200, 0])))
    assert (early[-1].x - rest).abs().max() < 1e-12 < 0.01 < (early[-1].x - late[-1].x).abs().max()
    assert (late[1].x - list(ddim_steps(net, diffusion, (50, 1), x_T=x_T, **given))[1].x).abs().max() < 1e-12


def test_negative_labels_and_a_weak_network():
    """b is the network with the label to avoid, or another network with the same labels, or both."""
    (net, _), (weak, _) = exact(), exact((0.5, -0.5, 0.3, 0.5, 0.4, 0.4))
    x, y = normal(4, 1), torch.tensor([1, 1, 0, 1])
    c, u, avoided = net(x, T, y), net(x, T), net(x, T, torch.zeros_like(y))
    pairs = {
        Guided(net, 2.5, negative=0): (c, avoided),
        Guided(net, 2.5, weak=weak): (c, weak(x, T, y)),
        Guided(net, 2.5, weak=weak, negative=0): (c, weak(x, T, torch.zeros_like(y))),
    }
    for guide, (better, worse) in pairs.items():
        assert (guide(x, T, y) - (worse + 2.5 * (better - worse))).abs().max() < 1e-12
    anything_but = Guided(net, 2.5, negative=0)(x, T)
    assert (anything_but - (avoided + 2.5 * (u - avoided))).abs().max() < 1e-12
    assert (anything_but - Guided(net, -1.5)(x, T, torch.zeros_like(y))).abs().max() < 1e-12  # the same, said otherwise
    bare = Guided(lambda x, t, y=None: 2 * x, 3.0, weak=lambda x, t, y=None: x)  # without classes
    assert torch.equal(bare(x, T), 4 * x)


def test_wrappers_are_modules_that_find_both_networks():
    from test_nets import conditional

    net, weak = conditional(self_condition=True), conditional()
    guide = Guided(net.train(), 2.0, weak=weak.train())
    x, y = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    assert guide.self_condition and guide(x, T, y, x_self=x).shape == x.shape
    classifier = ClassifierGuided(guide, GaussianDiffusion(cosine_schedule()), lambda x, t, y: x.flatten(1).sum(1))
    assert device_of(classifier) == torch.device("cpu") and classifier.self_condition and classifier.num_classes == 3
    with evaluating(classifier):
        assert not (net.training or weak.training)
    assert net.training and weak.training


def test_a_classifiers_gradient_leaves_the_weights_alone():
    from test_nets import conditional

    net, y = conditional(), torch.tensor([0, 1])
    diffusion = GaussianDiffusion(cosine_schedule(), "v")
    guide = ClassifierGuided(net, diffusion, lambda x0, t, y: -x0.square().flatten(1).sum(1), through_x0=True)
    made = generate(guide, diffusion, (2, 1, 8, 8), 3, y=y, generator=seeded(), progress=False)
    assert made.isfinite().all() and all(parameter.grad is None for parameter in net.parameters())


# Two peaks in the plane, at (0.3, -0.6) and (-0.3, 0.6), std 0.12; the first coordinate is 0.1.
PLACES, STD, GIVEN = torch.tensor([[0.3, -0.6], [-0.3, 0.6]], dtype=F64), 0.12, torch.tensor([0.1, 0.0], dtype=F64)
FIRST = torch.tensor([1, 0])


def in_the_plane(schedule=None, variance="small"):
    diffusion = GaussianDiffusion(schedule or linear_schedule(), "x0", variance)

    def net(x, t, y=None):
        alpha_bar = diffusion.schedule.alpha_bar[int(t[0])].item()
        spread = alpha_bar * STD**2 + 1 - alpha_bar
        share = torch.sigmoid(2 * math.sqrt(alpha_bar) * x @ PLACES[0] / spread)[:, None]
        mean = (2 * share - 1) * PLACES[0]  # the places are each other's negatives
        return mean + math.sqrt(alpha_bar) * STD**2 / spread * (x - math.sqrt(alpha_bar) * mean)

    return net, diffusion


def share_of_the_lower(x):
    return (x[:, 1] < 0).double().mean().item()


def test_the_lower_peaks_true_share():
    p = [math.exp(-((GIVEN[0] - place[0]) ** 2) / (2 * STD**2)) for place in PLACES]
    assert p[0] / sum(p) == pytest.approx(0.985, abs=5e-4)


@pytest.mark.parametrize("repeats, share, n", [(1, 0.557, 20_000), (5, 0.62, 6000), (10, 0.64, 3000), (40, 0.72, 1000)])
def test_replacement_and_resampling_have_the_share_that_the_course_states(repeats, share, n):
    """Linear table, 50 steps, small variance: the share to 3 of its standard errors, and 0.02 for what the course's own
    2,000 draws may be off. None comes near 0.985; the place of the lower peak, -0.6, is right once steps are repeated,
    and its width, in 50 steps, is not 0.12 but the 0.084 that these steps give the peak with nothing known at all."""
    (net, diffusion), known = in_the_plane(), GIVEN.expand(n, 2)
    steps = inpaint_steps(net, diffusion, known, FIRST, 50, repeats=repeats, clip=False, generator=seeded(1))
    x = quiet(steps)
    off = 3 * (share * (1 - share) / n) ** 0.5 + (0.0 if repeats == 1 else 0.02)
    assert torch.equal(x[:, 0], known[:, 0]) and share_of_the_lower(x) == pytest.approx(share, abs=off)
    lower = x[x[:, 1] < 0, 1]
    assert lower.mean().item() == pytest.approx(-0.6 if repeats > 1 else -0.58, abs=0.01)
    if repeats > 1:
        assert lower.std().item() == pytest.approx(0.084, abs=0.006)


def test_the_width_of_a_peak_is_right_with_the_large_variance_and_repeats():
    net, diffusion = in_the_plane(variance="large")
    for repeats, low, high in ((1, 0.13, 0.14), (5, 0.117, 0.127)):
        steps = inpaint_steps(
            net, diffusion, GIVEN.expand(8000, 2), FIRST, 50, repeats=repeats, clip=False, generator=seeded(1)
        )
        x = quiet(steps)
        assert low < x[x[:, 1] < 0, 1].std() < high


def particles(net, diffusion, steps, runs, k, generator, best=False):
    """SMCDiff (Trippe et al., 2023), `runs` times with k particles: (runs, k, 2). Draw how the known coordinate was
    noised; of the particles that a step proposes keep those that agree with it, by weight. The step's variance is
    beta-tilde, or, `best`, with that of x_0 within a peak (lesson 06)."""
    schedule, x = diffusion.schedule, torch.randn(runs, k, 2, dtype=F64, generator=generator)
    known = x[:, :1, 0].clone()  # (runs, 1), at T as good as noise
    x[..., 0] = known
    for t, s in pairwise(spaced_timesteps(schedule.T, steps)):
        alpha_bar_t, alpha_bar_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        alpha = alpha_bar_t / alpha_bar_s
        on_x0 = math.sqrt(alpha_bar_s) * (1 - alpha) / (1 - alpha_bar_t)
        on_xt = math.sqrt(alpha) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
        tilde = (1 - alpha) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
        of_x0 = STD**2 * (1 - alpha_bar_t) / (alpha_bar_t * STD**2 + 1 - alpha_bar_t) if best else 0.0
        variance = tilde + on_x0**2 * of_x0
        x = on_x0 * net(x.flatten(0, 1), torch.full((runs * k,), t)).reshape(x.shape) + on_xt * x
        z = torch.randn(runs, 1, dtype=F64, generator=generator)
        known = on_x0 * GIVEN[0] + on_xt * known + math.sqrt(tilde) * z
        if s > 0:
            gap = known - x[..., 0]  # from the means, before noise is added: the second coordinate is free
            weight = (-(gap**2) / (2 * variance)).softmax(1)
            x = x + math.sqrt(variance) * torch.randn(x.shape, dtype=F64, generator=generator)
            places = (torch.arange(k) + torch.rand(runs, 1, dtype=F64, generator=generator)) / k
            kept = torch.searchsorted(weight.cumsum(1), places).clamp(max=k - 1)  # evenly spaced along the weights' sum
            x = x.gather(1, kept[..., None].expand(-1, -1, 2))
        x[..., 0] = known
    return x


def test_particles_have_the_true_share_and_how_much_it_scatters_depends_on_the_steps():
    """500 particles, 40 runs. In 50 steps with beta-tilde they give 0.93 on the average, as the course says, and its 0.04
    is the error of such an average: a single run is off by 0.2, as most have only the right peak left and a few only the
    wrong one. In 200 steps with the best variance it is off by 0.03."""
    net, diffusion = in_the_plane(cosine_schedule())
    shares = {}
    for n, best in ((50, False), (200, True)):
        x = particles(net, diffusion, n, 40, 500, seeded(), best)
        assert (x[..., 0] - 0.1).abs().max() < 1e-12
        shares[n] = (x[..., 1] < 0).double().mean(1)
    assert shares[50].mean().item() == pytest.approx(0.93, abs=0.09) and shares[50].std() > 0.1
    assert shares[200].mean().item() == pytest.approx(0.98, abs=0.015) and shares[200].std() < 0.05


def test_all_known_is_returned_and_nothing_known_is_the_plain_sampler():
    net, diffusion = in_the_plane(variance="large")
    known = normal(30, 2, seed=7)
    steps = partial(inpaint_steps, net, diffusion, known, steps=9, clip=False)
    assert torch.equal(quiet(steps(mask=torch.ones(30, 2), generator=seeded(3))), known)
    made, generator = list(steps(mask=torch.zeros(1, 1), generator=seeded(3))), seeded(3)
    x_T = torch.randn(30, 2, dtype=F64, generator=generator)
    plain = ancestral_steps(net, diffusion, (30, 2), 9, clip=False, x_T=x_T, generator=generator)
    for step, other in zip(made, plain, strict=True):
        assert torch.equal(step.x, other.x) and step[:4] == other[:4]


def test_repeats_visit_each_step_again_and_the_way_up_calls_no_network():
    asked, (net, diffusion) = [], in_the_plane()

    def counted(x, t, y=None):
        asked.append(int(t[0]))
        return net(x, t)

    known, mask = GIVEN.expand(5, 2), FIRST.bool()
    made = list(inpaint_steps(counted, diffusion, known, mask, 3, repeats=2, clip=False, generator=seeded(2)))
    times = [1000, 667, 1000, 667, 333, 667, 333, 0]
    assert [(step.t, step.s) for step in made] == list(pairwise(times)) and asked == [1000, 1000, 667, 667, 333]
    generator, schedule = seeded(2), diffusion.schedule
    x = torch.randn(5, 2, dtype=F64, generator=generator)
    for step, (t, s) in zip(made, pairwise(times), strict=True):  # the same, written out
        alpha_bar_t, alpha_bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
        z = torch.randn(5, 2, dtype=F64, generator=generator) if s > 0 else torch.zeros(5, 2, dtype=F64)
        if s > t:
            x = (alpha_bar_s / alpha_bar_t).sqrt() * x + (1 - alpha_bar_s / alpha_bar_t).sqrt() * z
        else:
            alpha, rest = alpha_bar_t / alpha_bar_s, 1 - alpha_bar_t
            x0 = net(x, torch.full((5,), t))
            x = (alpha_bar_s.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - alpha_bar_s) * x) / rest
            x = x + ((1 - alpha) * (1 - alpha_bar_s) / rest).sqrt() * z
        x = torch.stack([alpha_bar_s.sqrt() * 0.1 + (1 - alpha_bar_s).sqrt() * z[:, 0], x[:, 1]], 1)
        assert (step.x - x).abs().max() < 1e-12


def test_blocks_are_known_by_their_means():
    """A projection: twice is once, and what is known and what is not are orthogonal. Its means come out as given."""
    x, known = normal(3, 2, 8, 8), normal(3, 2, 8, 8, seed=1)
    means = block_means(x, 4)
    assert (means[:, :, 4:, :4] - x[:, :, 4:, :4].mean((2, 3), keepdim=True)).abs().max() < 1e-12
    assert (block_means(means, 4) - means).abs().max() < 1e-12 and abs((means * (x - means)).sum()) < 1e-9
    diffusion = GaussianDiffusion(cosine_schedule())
    part = partial(block_means, size=4)
    steps = list(inpaint_steps(lambda x, t, y: 0.9 * x, diffusion, known, part, 5, repeats=2, generator=seeded()))
    assert (block_means(steps[-1].x - known, 4)).abs().max() < 1e-12 < 0.1 < (steps[-1].x - known).abs().max()
    pixels = list(inpaint_steps(lambda x, t, y: 0.9 * x, diffusion, known, torch.ones(1), 5, generator=seeded()))
    assert (pixels[0].x - q_sample(diffusion.schedule, known, 800, normal_after(known))).abs().max() < 1e-12
    assert (block_means(x, 1) - x).abs().max() == 0


def normal_after(known):
    """The second tensor that seeded() draws."""
    generator = seeded()
    torch.randn(known.shape, dtype=F64, generator=generator)
    return torch.randn(known.shape, dtype=F64, generator=generator)


def test_editing_starts_from_the_noised_drawing():
    net, diffusion = exact()
    drawing = torch.linspace(-0.9, 0.9, 41, dtype=F64)[:, None]
    edit = partial(edit_steps, net, diffusion, drawing, clip=False)
    [step] = edit(0)
    assert torch.equal(step.x, drawing)
    noise = normal(41, 1)
    for strength, steps, times in (
        (1, None, list(range(1000, -1, -1))),
        (0.4, 5, [400, 320, 240, 160, 80, 0]),
        (0.002, 9, [2, 1, 0]),
    ):
        made = list(edit(strength, steps, sampler=ddim_steps, generator=seeded()))
        start = q_sample(diffusion.schedule, drawing, times[0], noise)
        plain = list(ddim_steps(net, diffusion, (41, 1), times=times, x_T=start, clip=False))
        assert [s.t for s in made] == times[:-1] and torch.equal(made[-1].x, plain[-1].x)
    y = torch.zeros(41, dtype=torch.int64)
    left = quiet(edit(0.9, 20, y=y, generator=seeded()))
    assert left.max() < 0 < quiet(edit(0.05, 20, generator=seeded())).max()


def test_an_edit_keeps_its_place_as_long_as_the_noise_leaves_it():
    """Strength against faithfulness, exactly: from t the chain ends in the peak that x_t belongs to, drawn by Bayes' rule.
    20,000 drawings of 0.2, right of the middle: the share that ends in the right peak, to 0.015."""
    net, diffusion = exact()
    drawing = torch.full((20_000, 1), 0.2, dtype=F64)
    shares = []
    for strength in (0.2, 0.5, 1.0):
        t = round(1000 * strength)
        steps = edit_steps(net, diffusion, drawing, strength, 100, clip=False, generator=seeded())
        shares.append((quiet(steps) > 0).double().mean().item())
        x = (
            math.sqrt(diffusion.schedule.alpha_bar[t]) * 0.2
            + math.sqrt(1 - diffusion.schedule.alpha_bar[t]) * quantiles()
        )
        expected = bimodal(F64).noised(diffusion.schedule, t).responsibilities(x)[:, 1].mean().item()
        assert shares[-1] == pytest.approx(expected, abs=0.015)
    assert shares[0] > 0.75 and shares[-1] == pytest.approx(0.6, abs=0.015)


def wrong(**given):
    net, diffusion = lambda x, t, y: x, GaussianDiffusion(linear_schedule(10), "x0")
    return next(
        inpaint_steps(net, diffusion, **dict(known=torch.zeros(2, 1, 4, 4), mask=torch.ones(4, 4), steps=2) | given)
    )


def gradient(log_likelihood):
    net, diffusion = exact()
    return ClassifierGuided(net, diffusion, log_likelihood)(normal(4, 1), T, torch.ones(4, dtype=torch.int64))


def edited(strength=0.5, **given):
    net, diffusion = exact()
    return next(edit_steps(net, diffusion, given.pop("drawing", normal(4, 1)), strength, **given))


NET, PIXEL = exact()[0], torch.zeros(2, 1, 4, 4)
ROWS = [
    (lambda: wrong(mask=torch.ones(3, 4)), r"mask must have known's shape, \(2, 1, 4, 4\), or broadcast to it; got \(3, 4\)"),
    (lambda: wrong(mask=torch.ones(5, 2, 1, 4, 4)), "mask must have known's shape"),
    (lambda: wrong(mask=torch.full((4, 4), 0.5)), "mask must hold 1 where the data is known and 0 where it is not"),
    (lambda: wrong(mask="hole"), "mask must be a tensor.*got str"),
    (lambda: wrong(known=PIXEL.to(torch.uint8)), "the data must be floats"),
    *((lambda r=r: wrong(repeats=r), "repeats must be a whole number, 1 or more") for r in (0, 2.5, None)),
    (lambda: wrong(steps=11), "steps must be a whole number from 1 to 10"),
    (lambda: wrong(times=[10, 5]), "times must fall from at most 10 to 0"),
    (lambda: wrong(mask=partial(block_means, size=3)), r"blocks of 3 x 3 must tile images \(B, C, H, W\); got shape"),
    (lambda: block_means(PIXEL[..., :3], 2), r"blocks of 2 x 2 must tile images"),
    (lambda: block_means(PIXEL, 0), "size must be a whole number, 1 or more"),
    *((lambda s=s: edited(s), "strength must be a finite number from 0 to 1") for s in (-0.1, 1.1, math.nan, "half")),
    (lambda: edited(drawing=torch.ones(4, 1, dtype=torch.uint8)), "the data must be floats"),
    (lambda: edited(steps=0), "steps must be a whole number, 1 or more"),
    (lambda: gradient(lambda x, t, y: x), r"log_likelihood must give one number an image, .* \(4,\); got shape \(4, 1\)"),
    (lambda: gradient(lambda x, t, y: 1.0), "log_likelihood must give one number an image, .*got float"),
    (lambda: gradient(lambda x, t, y: x.detach()[:, 0]), "log_likelihood has no gradient"),
    *((lambda s=s: ClassifierGuided(NET, NET.diffusion, print, s), "scale must be") for s in (math.nan, None)),
    *((lambda i=i: Guided(NET, 2, interval=i), "interval") for i in (5, (5, 4), (-1, 4), (1, 2, 3), (0.5, 1), (1, math.nan))),
    *((lambda n=n: Guided(NET, 2, negative=n), "negative must be a whole number from 0 to 1, a class to avoid") for n in (2, -1, 0.5)),
    (lambda: Guided(lambda x, t, y: x, 2, negative=0), "num_classes"),
    (lambda: Guided(lambda x, t, y: x, 2, weak=NET, negative=0), "num_classes"),
    (lambda: Guided(NET, 2)(normal(4, 1), T), "guidance needs labels y"),
]  # fmt: skip


@pytest.mark.parametrize("call, complaint", ROWS)
def test_what_does_not_fit_is_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_data_without_channels_is_guided_too():
    """(B,) numbers: nothing looks for a second half of the channels there."""
    diffusion, x, t = GaussianDiffusion(cosine_schedule(10), "x0"), torch.ones(3), torch.tensor([3, 4, 5])
    guide = ClassifierGuided(lambda x, t, y=None: 0 * x, diffusion, lambda x, t, y: -(x**2))
    signal, sigma = diffusion.schedule.q_coefficients(t, x)
    assert (guide(x, t) + 2 * sigma**2 / signal).abs().max() < 1e-6
    weaker = Guided(lambda x, t, y=None: 2 * x, 1.5, weak=lambda x, t, y=None: x)
    assert torch.equal(weaker(x, t), 2.5 * x)
