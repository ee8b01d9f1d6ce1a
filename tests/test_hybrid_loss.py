"""The loss of a network that learns its variance: against improved-diffusion's formulas, written out with plain numbers."""

import math

import pytest
import scipy.stats
import torch
from core import F64, every_prediction, normal, seeded
from trainings import go, stop_at, unet, weights

from ddpm_course.bound import bits_per_dim, variational_term
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import bound_share, diffusion_loss
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import bimodal, oracle

LEVELS = torch.arange(256, dtype=F64) / 127.5 - 1
X0 = LEVELS[torch.tensor([[0, 3], [128, 200], [255, 90], [17, 131]])].reshape(4, 2)
TIMES = torch.tensor([1, 2, 40, 50])


def by_hand(schedule, t, x0, xt, estimate, half):
    """One number's term in bits: normal_kl and the decoder of improved-diffusion's _vb_terms_bpd, in Python's floats."""
    bar, beta = schedule.alpha_bar.tolist(), schedule.beta.tolist()
    tilde = [0.0] + [beta[k] * (1 - bar[k - 1]) / (1 - bar[k]) for k in range(1, schedule.T + 1)]
    clipped = [math.log(tilde[max(k, 2)]) for k in range(schedule.T + 1)]  # posterior_log_variance_clipped
    f = (half + 1) / 2
    log_variance = f * math.log(beta[t]) + (1 - f) * clipped[t]

    def mean(x):
        on_x0 = beta[t] * math.sqrt(bar[t - 1]) / (1 - bar[t])
        return on_x0 * x + (1 - bar[t - 1]) * math.sqrt(1 - beta[t]) / (1 - bar[t]) * xt

    if t == 1:
        p = scipy.stats.norm(mean(estimate), math.exp(log_variance / 2))
        above, below = 1.0 if x0 > 0.999 else p.cdf(x0 + 1 / 255), 0.0 if x0 < -0.999 else p.cdf(x0 - 1 / 255)
        return -math.log(above - below) / math.log(2)
    excess = clipped[t] - log_variance
    distance = (mean(x0) - mean(estimate)) ** 2
    return 0.5 * (-1 - excess + math.exp(excess) + distance * math.exp(-log_variance)) / math.log(2)


@every_prediction
@pytest.mark.parametrize("T", [50, 1000])
def test_the_loss_is_that_of_improved_diffusion(predicts, T):
    """mse + T / 1000 · vb, term by term, to 1e-6 of the second part: the first step, the second, the middle, the last."""
    diffusion = GaussianDiffusion(linear_schedule(T), predicts, "learned")
    times = TIMES * T // 50 if T > 50 else TIMES
    times[0], times[1] = 1, 2
    noise, halves = normal(4, 2, seed=1), torch.tensor([[-1.0, 0.3], [0.0, 1.0], [1.4, -0.2], [0.5, -1.3]], dtype=F64)
    guess = diffusion.target((X0 + 0.01).clamp(-1, 1), noise, times) + 0.001
    loss = diffusion_loss(lambda x, t, y: torch.cat([guess, halves], 1), diffusion, X0, t=times, noise=noise)
    xt, target = q_sample(diffusion.schedule, X0, times, noise), diffusion.target(X0, noise, times)
    estimates = diffusion.decode(guess, xt, times)[0].clamp(-1, 1)
    for i, t in enumerate(times.tolist()):
        mse = sum((guess[i, j] - target[i, j]).item() ** 2 for j in range(2)) / 2
        numbers = zip(*(x[i].tolist() for x in (X0, xt, estimates, halves)), strict=True)
        vb = sum(by_hand(diffusion.schedule, t, *row) for row in numbers) / 2
        assert abs((loss[i].item() - mse) / (T / 1000 * vb) - 1) < 1e-6


def test_lambda_times_the_sum_over_t_is_the_mean_of_what_is_drawn():
    """0.001 of the whole L_vlb: summed over every t, in bits, against the mean over every t of the share. T = 40."""
    diffusion, T = GaussianDiffusion(cosine_schedule(40), "v", "learned"), 40
    net = lambda x, t, y: torch.cat([0.3 * x, torch.cos(x)], 1)  # noqa: E731
    x0, noise = X0[:1].expand(T, 2), normal(T, 2)
    t = torch.arange(1, T + 1)
    xt = q_sample(diffusion.schedule, x0, t, noise)
    terms = [variational_term(net, diffusion, x0[i : i + 1], i + 1, noise=noise[i : i + 1]) for i in range(T)]
    share = bound_share(diffusion, net(xt, t, None), x0, xt, t)
    assert abs(share.mean() / (0.001 * torch.cat(terms).sum()) - 1) < 1e-12


@every_prediction
def test_the_estimate_learns_from_the_simple_part_and_the_variance_from_the_bound(predicts):
    """Gradients by each half, against those of its own part alone; without the stop the first would be another."""
    diffusion, noise = GaussianDiffusion(cosine_schedule(50), predicts, "learned"), normal(4, 2, seed=1)
    output = (0.3 * normal(4, 4, seed=2)).requires_grad_()
    net = lambda x, t, y: output  # noqa: E731
    whole = diffusion_loss(net, diffusion, X0, t=TIMES, noise=noise).sum()
    plain = (output[:, :2] - diffusion.target(X0, noise, TIMES)).square().mean(1).sum()
    term = 0.001 * 50 * variational_term(net, diffusion, X0, TIMES, noise=noise).sum()
    gradient, simple, bound = (torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in (whole, plain, term))
    assert (gradient[:, :2] - simple[:, :2]).abs().max() < 1e-12
    assert (gradient[:, 2:] - bound[:, 2:]).abs().max() < 1e-12 * bound[:, 2:].abs().max()
    assert bound[:, :2].abs().max() > 1e-6 and (bound[:, 2:].abs() > 0).all()


def test_the_variance_that_has_the_least_loss_is_the_error_of_the_mean():
    """Where x_0 is ±1 or so and the network says 0, the best σ² is beta-tilde plus on_x0² times x_0²: gradient 0 there,
    and with its sign on either side."""
    diffusion, t, n = GaussianDiffusion(linear_schedule(50), "x0", "learned"), 10, 4000
    x0, noise = 0.5 * normal(n, 1).sign(), normal(n, 1, seed=1)
    bar, beta = diffusion.schedule.alpha_bar, diffusion.schedule.beta[t]
    tilde = beta * (1 - bar[t - 1]) / (1 - bar[t])
    best = tilde + bar[t - 1] * beta**2 / (1 - bar[t]) ** 2 * 0.25
    at_best = 2 * ((best / tilde).log() / (beta / tilde).log()) - 1

    def slope(half):
        half = torch.full((n, 1), float(half), dtype=F64, requires_grad=True)
        net = lambda x, t, y: torch.cat([0 * x, half], 1)  # noqa: E731
        loss = diffusion_loss(net, diffusion, x0, t=torch.full((n,), t), noise=noise).mean()
        return torch.autograd.grad(loss, half)[0].sum().item()

    assert slope(at_best - 0.1) < -1e-7 and abs(slope(at_best)) < 1e-12 and slope(at_best + 0.1) > 1e-7


def test_gradients_stay_finite_where_everything_is_as_bad_as_it_gets():
    """Estimates at the wrong end of the range, halves far outside of [-1, 1], t = 1 and neighbours together."""
    diffusion = GaussianDiffusion(cosine_schedule(), "x0", "learned")
    x0, t = torch.tensor([[-1.0], [1.0], [-1.0], [0.3]]), torch.tensor([1, 2, 3, 1000])
    for half in (-5.0, 0.0, 5.0):
        output = torch.cat([-9 * x0, torch.full_like(x0, half)], 1).requires_grad_()
        loss = diffusion_loss(lambda x, t, y, output=output: output, diffusion, x0, t=t, noise=torch.zeros_like(x0))
        assert loss.isfinite().all() and torch.autograd.grad(loss.sum(), output)[0].isfinite().all()


@pytest.mark.parametrize("learned", [True, False])
def test_a_network_with_the_wrong_number_of_channels_is_told(learned):
    net, variance = unet(num_classes=None, learn_variance=not learned), "learned" if learned else "small"
    diffusion = GaussianDiffusion(cosine_schedule(), "v", variance)
    complaint = "it must keep it" + " and double its channels, as UNet.learn_variance=True. does" * learned + "$"
    with pytest.raises(ValueError, match=complaint):
        diffusion_loss(net, diffusion, torch.zeros(2, 1, 8, 8))


def test_train_learns_it_without_being_asked_and_goes_on_with_the_same_bits(tmp_path):
    """The loss that is reported has the share in it; stopped and resumed as any training is."""
    diffusion = GaussianDiffusion(cosine_schedule(50), "v", "learned")
    runs = []
    for name, stop in ("whole", None), ("state", 10), ("state", None):
        net = unet(learn_variance=True)
        runs.append(go(20, net=net, diffusion=diffusion, checkpoint=tmp_path / name, watch=stop and stop_at(stop)))
    assert torch.equal(weights(runs[0].net), weights(runs[2].net)) and runs[0].losses == runs[2].losses
    half = runs[0].net.out.weight[4:]  # 2 x 2 pixels of a patch for each half
    assert half.abs().max() > 0
    plain = GaussianDiffusion(diffusion.schedule, "v")
    without = go(20, net=unet(), diffusion=plain)
    assert runs[0].losses[0][1] > without.losses[0][1]
    with pytest.raises(ValueError, match="belongs to another training.*variance"):
        go(20, net=unet(learn_variance=True), diffusion=plain, checkpoint=tmp_path / "state")


def test_bits_with_the_best_second_half_are_below_those_of_both_fixed_variances():
    """The exact mean of two peaks, T = 10; the half that belongs to the mean squared error at each t. 4,000 points, the same
    draws for all, so the differences are exact to their own scatter, which is in the assertion."""
    mixture, schedule = bimodal(F64), cosine_schedule(10)
    x0, bits = mixture.sample(4000, generator=seeded()), {}
    errors = [0.0]
    exact = oracle(mixture, GaussianDiffusion(schedule, "x0"))
    for t in range(1, 11):
        xt = q_sample(schedule, x0, t, normal(4000, 1, seed=t))
        errors.append((exact(xt, torch.full((4000,), t)) - x0).square().mean().item())
    bar = schedule.alpha_bar
    halves = [0.0, -1.0]
    for t in range(2, 11):
        beta = schedule.beta[t]
        tilde = beta * (1 - bar[t - 1]) / (1 - bar[t])
        best = tilde + bar[t - 1] * beta**2 / (1 - bar[t]) ** 2 * errors[t]
        halves.append(2 * ((best / tilde).log() / (beta / tilde).log()).item() - 1)
    halves = torch.tensor(halves, dtype=F64)
    net = lambda x, t, y=None: torch.cat([exact(x, t), halves[t][:, None].expand_as(x)], 1)  # noqa: E731
    for variance in ("small", "large", "learned"):
        diffusion = GaussianDiffusion(schedule, "x0", variance)
        bits[variance] = bits_per_dim(net, diffusion, x0, continuous=True, clip=False, generator=seeded(1)).per_image
    for variance in ("small", "large"):
        gain = bits[variance] - bits["learned"]
        assert gain.mean() > 5 * gain.std() / 4000**0.5
