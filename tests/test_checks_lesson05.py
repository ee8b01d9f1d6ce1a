"""Lesson 05: wrong answers typed as students type them, and right ones that differ in structure.

None of the wrong ones is taken from the catalogue. `WRONG` has one mistake each, by its id; `LOCATED` has two at once,
or one that no catalogue knows, and must never be given a name.
"""

import functools
import math

import einops
import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
import typed
from torch.distributions import Normal, kl_divergence

from ddpm_course import checks
from ddpm_course.checks import library
from ddpm_course.checks.running import instance
from ddpm_course.diffusion import q_sample
from ddpm_course.exercises import lesson05

NAMES = [e.name for e in checks.EXERCISES if e.lesson == "05"]

judge = functools.partial(
    typed.judge, q_sample=q_sample, simple_loss=lesson05.simple_loss, training_step=lesson05.training_step
)


def tables(x: str) -> str:
    """Lines that read b, a, ab (entry t) and prev (ᾱ at t - 1), shaped for `x`."""
    lines = [
        f"c = lambda v: v.float().reshape(-1, *[1] * ({x}.ndim - 1)) if torch.is_tensor(t) else v.float()",
        "b, a, ab = c(schedule.beta[t]), c(schedule.alpha[t]), c(schedule.alpha_bar[t])",
        "prev = c(schedule.alpha_bar[t - 1])",
    ]
    return "\n".join(lines) + "\n"


POST, XT = tables("x0"), tables("xt")
VARIANCE = "var = b * (1 - prev) / (1 - ab)\n"
MEAN = "mean = prev.sqrt() * b / (1 - ab) * x0 + a.sqrt() * (1 - prev) / (1 - ab) * xt\n"
WEIGHTS = "b, a, ab = schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t]\n"
SIGMA = WEIGHTS + "s2 = b if variance == 'large' else b * (1 - schedule.alpha_bar[t - 1]) / (1 - ab)\n"
EDGES = "hi = torch.special.ndtr((x0 + 1/255 - mean) / std)\nlo = torch.special.ndtr((x0 - 1/255 - mean) / std)\n"
OPEN = (
    "hi = torch.where(x0 > 0.999, torch.ones_like(hi), hi)\nlo = torch.where(x0 < -0.999, torch.zeros_like(lo), lo)\n"
)
STEP = "xt = q_sample(schedule, x0, t, noise)\nloss = F.mse_loss(net(xt, t), noise)\n"
UPDATE = "optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nreturn loss.item()"
LOOP = (
    "losses = []\nfor x0 in batches:\n    t = schedule.sample_t(len(x0), generator=generator)\n"
    "    noise = torch.randn(x0.shape, generator=generator)\n"
    "    losses.append(training_step(net, schedule, optimizer, x0, t, noise))\nreturn losses"
)
DRAW_T = "schedule.sample_t(len(x0), generator=generator)"

WRONG = [
    # 5.1
    ("gaussian_kl", "0.5 * (torch.log(variance1 / variance2) + (variance2 + (mean1 - mean2)**2) / variance1 - 1)", "reversed"),
    ("gaussian_kl", "torch.log(variance2 / variance1) + (variance1 + (mean2 - mean1)**2) / variance2 - 1", "no_half"),
    ("gaussian_kl", "0.5 * (torch.log(variance2 / variance1) + (variance1 + (mean1 - mean2)**2) / variance2)", "no_minus_one"),
    ("gaussian_kl", "0.5 * (torch.log(variance1 / variance2) + (variance1 + (mean1 - mean2)**2) / variance2 - 1)", "logarithm_inverted"),
    ("gaussian_kl", "torch.log(variance2 / variance1) + (variance1 + (mean1 - mean2)**2) / (2 * variance2) - 0.5", "logarithm_not_halved"),
    ("gaussian_kl", "s1, s2 = variance1, variance2\nreturn torch.log(s2 / s1) + (s1**2 + (mean1 - mean2)**2) / (2 * s2**2) - 0.5", "taken_for_deviations"),
    ("gaussian_kl", "0.5 * ((variance1 + (mean1 - mean2).pow(2)) / variance2 - 1)", "no_logarithm"),
    ("gaussian_kl", "0.5 * (variance2.log() - variance1.log() + variance1 / variance2 + (mean1 - mean2)**2 - 1)", "means_undivided"),
    ("gaussian_kl", "0.5 * (variance2.log() - variance1.log() + variance2 / variance1 + (mean1 - mean2)**2 / variance2 - 1)", "ratio_inverted"),
    ("gaussian_kl", "(mean1 - mean2)**2 / (2 * variance2)", "means_only"),
    ("gaussian_kl", "r = variance1 / variance2\nreturn 0.5 * (r - 1 - torch.log(r))", "variances_only"),
    ("gaussian_kl", "p = torch.distributions.Normal(mean1, variance1)\nq = torch.distributions.Normal(mean2, variance2)\nreturn torch.distributions.kl_divergence(p, q)", "taken_for_deviations"),
    ("gaussian_kl", "r = variance1 / variance2\nreturn (0.5 * (r - 1 - r.log() + (mean1 - mean2)**2 / variance2)).mean()", "mean_of_all"),
    ("gaussian_kl", "r = variance1 / variance2\nreturn (0.5 * (r - 1 - r.log() + (mean1 - mean2)**2 / variance2)).sum()", "summed"),
    # 5.2
    ("posterior", POST + VARIANCE + "return (prev * b).sqrt() / (1 - ab) * x0 + a.sqrt() * (1 - prev) / (1 - ab) * xt, var", "root_over_beta"),
    ("posterior", POST + VARIANCE + "return ab.sqrt() * b / (1 - ab) * x0 + a.sqrt() * (1 - prev) / (1 - ab) * xt, var", "alpha_bar_t_on_x0"),
    ("posterior", POST + VARIANCE + "return (prev.sqrt() * b * x0 + a.sqrt() * (1 - ab) * xt) / (1 - ab), var", "alpha_bar_t_on_xt"),
    ("posterior", POST.replace("t - 1]", "t]") + VARIANCE + MEAN + "return mean, var", "alpha_bar_for_previous"),
    ("posterior", POST + MEAN + VARIANCE + "return mean, var.flatten()", "variance_flat"),
    ("posterior", POST + VARIANCE + "return (a.sqrt() * (1 - prev) * x0 + prev.sqrt() * b * xt) / (1 - ab), var", "swapped"),
    ("posterior", POST + VARIANCE + "return (prev.sqrt() * b * x0 + ab.sqrt() * (1 - prev) * xt) / (1 - ab), var", "alpha_bar_for_alpha"),
    ("posterior", POST + VARIANCE + "return (prev * b * x0 + a * (1 - prev) * xt) / (1 - ab), var", "no_roots"),
    ("posterior", POST + VARIANCE + "return prev.sqrt() * b * x0 + a.sqrt() * (1 - prev) * xt, var", "not_normalised"),
    ("posterior", POST + VARIANCE + "return prev.sqrt() * b * x0 + a.sqrt() * (1 - prev) * xt / (1 - ab), var", "only_one_divided"),
    ("posterior", POST + MEAN + "return mean, b", "variance_beta"),
    ("posterior", POST + MEAN + "return mean, b * (1 - ab) / (1 - prev)", "variance_inverted"),
    ("posterior", POST + VARIANCE + MEAN + "return mean, var ** 0.5", "deviation"),
    ("posterior", POST + VARIANCE + MEAN + "return mean, torch.log(var)", "log_variance"),
    ("posterior", POST + MEAN + "return mean, (1 - prev) / (1 - ab)", "variance_ratio_alone"),
    ("posterior", POST + MEAN + "return mean, 1 - ab", "variance_no_ratio"),
    ("posterior", "t = t - 1\n" + POST + VARIANCE + MEAN + "return mean, var", "previous_entry"),
    ("posterior", POST.replace(".reshape(-1, *[1] * (x0.ndim - 1))", "") + VARIANCE + MEAN + "return mean, var", "broadcast_width"),
    ("posterior", POST.replace("v.float().reshape(-1, *[1] * (x0.ndim - 1)) if torch.is_tensor(t) else v.float()", "v.float().view(-1, 1, 1, 1)") + VARIANCE + MEAN + "return mean, var", "images_only"),
    ("posterior", "t = t if isinstance(t, int) else int(t[0])\n" + POST + VARIANCE + MEAN + "return mean, var", "one_t_for_all"),
    # 5.3
    ("mean_from_noise", XT + "return (xt - b / (1 - ab) * noise) / a.sqrt()", "denominator_not_rooted"),
    ("mean_from_noise", XT + "return (xt - torch.sqrt(b / (1 - ab)) * noise) / a.sqrt()", "numerator_rooted"),
    ("mean_from_noise", XT + "return xt - b / (1 - ab).sqrt() * noise", "no_division"),
    ("mean_from_noise", XT + "return (xt - (1 - a) / (1 - ab).sqrt() * noise) / ab.sqrt()", "alpha_bar_for_alpha"),
    ("mean_from_noise", XT + "return (xt - b / (1 - ab).sqrt() * noise) / a", "division_not_rooted"),
    ("mean_from_noise", XT + "return a.sqrt() * (xt - b * noise / (1 - ab).sqrt())", "multiplied"),
    ("mean_from_noise", XT + "return (xt + b / (1 - ab).sqrt() * noise) / a.sqrt()", "noise_added"),
    ("mean_from_noise", XT + "return xt - b / (1 - ab).sqrt() * noise / a.sqrt()", "only_noise_divided"),
    ("mean_from_noise", XT + "return 1 / a.sqrt() * xt - b / (1 - ab).sqrt() * noise", "only_xt_divided"),
    ("mean_from_noise", XT + "return (xt - (1 - ab).sqrt() * noise) / ab.sqrt()", "all_noise_removed"),
    ("mean_from_noise", XT + "return (xt - (1 - ab).sqrt() * noise) / a.sqrt()", "all_noise_removed_one_step"),
    ("mean_from_noise", XT + "return (xt - b.sqrt() * noise) / a.sqrt()", "one_steps_noise"),
    ("mean_from_noise", XT + "return (xt - b * noise) / a.sqrt()", "beta_alone"),
    ("mean_from_noise", "b, a, ab = schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t]\nreturn ((xt - b / (1 - ab).sqrt() * noise) / a.sqrt()).float()", "broadcast_width"),
    # 5.4
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2 * (1 - ab))", "no_alpha"),
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2 ** 2 * a * (1 - ab))", "variance_squared"),
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2.sqrt() * a * (1 - ab))", "deviation"),
    ("loss_weight", SIGMA + "return 0.5 / s2", "weight_of_means"),
    ("loss_weight", SIGMA + "return b / (2 * s2 * a * (1 - ab))", "beta_not_squared"),
    ("loss_weight", SIGMA + "return b * b / s2 / a / (1 - ab)", "no_half"),
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2 * a)", "no_one_minus_alpha_bar"),
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2 * ab * (1 - ab))", "alpha_bar_for_alpha"),
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2 * a * (1 - a))", "alpha_for_alpha_bar"),
    ("loss_weight", SIGMA + "return b ** 2 / (2 * s2 * a * torch.sqrt(1 - ab))", "root_left"),
    ("loss_weight", WEIGHTS + "return b / (2 * a * (1 - ab))", "always_large"),
    ("loss_weight", WEIGHTS + "s2 = b * (1 - schedule.alpha_bar[t - 1]) / (1 - ab)\nreturn b ** 2 / (2 * s2 * a * (1 - ab))", "always_small"),
    ("loss_weight", SIGMA.replace("'large'", "'small'") + "return b ** 2 / (2 * s2 * a * (1 - ab))", "kinds_swapped"),
    ("loss_weight", "t = t - 1\n" + SIGMA + "return b ** 2 / (2 * s2 * a * (1 - ab))", "previous_entry"),
    # 5.5
    ("simple_loss", "d = noise - predicted\nif kind == 'l2': return (d * d).sum()\nif kind == 'l1': return d.abs().sum()\nreturn F.smooth_l1_loss(predicted, noise, reduction='sum')", "summed"),
    ("simple_loss", "f = {'l2': F.mse_loss, 'l1': F.l1_loss, 'huber': F.smooth_l1_loss}[kind]\nreturn f(predicted, noise, reduction='none')", "unreduced"),
    ("simple_loss", "f = {'l2': F.mse_loss, 'l1': F.l1_loss, 'huber': F.smooth_l1_loss}[kind]\nreturn f(predicted, noise, reduction='none').flatten(1).mean(1) if noise.ndim > 1 else f(predicted, noise, reduction='none')", "per_image"),
    ("simple_loss", "d = noise - predicted\nif kind == 'l2': return d.norm() / d.numel() ** 0.5\nif kind == 'l1': return d.abs().mean()\nreturn F.huber_loss(predicted, noise)", "rooted"),
    ("simple_loss", "d = noise - predicted\nif kind == 'l2': return (d ** 2).mean() / 2\nif kind == 'l1': return d.abs().mean()\nreturn F.huber_loss(predicted, noise)", "halved"),
    ("simple_loss", "d = noise - predicted\nif kind == 'l2': return (d ** 2).mean()\nif kind == 'l1': return d.abs().mean()\nreturn torch.where(d < 1, 0.5 * d ** 2, d.abs() - 0.5).mean()", "huber_signed"),
    ("simple_loss", "d = noise - predicted\nif kind == 'l2': return (d ** 2).mean()\nif kind == 'l1': return d.mean()\nreturn F.huber_loss(predicted, noise)", "signed"),
    ("simple_loss", "f = {'l1': F.mse_loss, 'l2': F.l1_loss, 'huber': F.smooth_l1_loss}[kind]\nreturn f(predicted, noise)", "swapped"),
    ("simple_loss", "((noise - predicted) ** 2).mean()", "always_l2"),
    ("simple_loss", "d = (noise - predicted).abs()\nif kind == 'l2': return (d ** 2).mean()\nif kind == 'l1': return d.mean()\nreturn torch.where(d < 1, d ** 2, d - 0.5).mean()", "huber_not_halved"),
    ("simple_loss", "d = (noise - predicted).abs()\nif kind == 'l2': return (d ** 2).mean()\nif kind == 'l1': return d.mean()\nreturn torch.where(d < 1, d ** 2 / 2, d).mean()", "huber_not_lowered"),
    ("simple_loss", "d = predicted - noise\nif kind == 'l2': return (d ** 2).mean()\nif kind == 'l1': return d.abs().mean()\nreturn torch.where(d < 1, 0.5 * d ** 2, d - 0.5).mean()", "huber_signed"),
    ("simple_loss", "d = (noise - predicted).abs()\nif kind == 'l2': return (d ** 2).mean()\nif kind == 'l1': return d.mean()\nreturn torch.where(d >= 1, 0.5 * d ** 2, d - 0.5).mean()", "huber_inside_out"),
    # 5.6
    ("discretised_log_likelihood", "torch.distributions.Normal(mean, std).log_prob(x0)", "density"),
    ("discretised_log_likelihood", "torch.distributions.Normal(mean, std).log_prob(x0) + math.log(2 / 255)", "density_times_width"),
    ("discretised_log_likelihood", EDGES + "return (hi - lo).log()", "closed_ends"),
    ("discretised_log_likelihood", EDGES.replace("1/255", "2/255") + OPEN + "return (hi - lo).log()", "bin_twice_as_wide"),
    ("discretised_log_likelihood", EDGES.replace("1/255", "0.5/255") + OPEN + "return (hi - lo).log()", "bin_half_as_wide"),
    ("discretised_log_likelihood", EDGES.replace("/ std", "/ std**2") + OPEN + "return (hi - lo).clamp(min=1e-12).log()", "std_squared"),
    ("discretised_log_likelihood", EDGES.replace(" / std", "") + OPEN + "return (hi - lo).clamp(min=1e-12).log()", "std_forgotten"),
    ("discretised_log_likelihood", EDGES.replace("torch.special.ndtr", "(lambda z: 0.5 + 0.5 * torch.erf(z))") + OPEN + "return (hi - lo).clamp(min=1e-12).log()", "erf_without_root_two"),
    ("discretised_log_likelihood", EDGES.replace("torch.special.ndtr", "(lambda z: 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z ** 3))))") + OPEN + "return (hi - lo).clamp(min=1e-12).log()", "tanh"),
    ("discretised_log_likelihood", EDGES + OPEN + "return hi - lo", "no_logarithm"),
    ("discretised_log_likelihood", EDGES + OPEN + "return torch.log2(hi - lo)", "bits"),
    ("discretised_log_likelihood", EDGES + OPEN + "return -(hi - lo).log()", "negative"),
    ("discretised_log_likelihood", EDGES.replace(" - mean", "") + OPEN + "return (hi - lo).clamp(min=1e-12).log()", "not_centred"),
    ("discretised_log_likelihood", EDGES + OPEN + "return (hi - lo).log().sum()", "summed"),
    ("discretised_log_likelihood", EDGES + "hi = torch.where(x0 < -0.999, 1.0, hi)\nlo = torch.where(x0 > 0.999, 0.0, lo)\nreturn (hi - lo).clamp(min=1e-12).log()", "ends_swapped"),
    # 5.7
    ("training_step", STEP + UPDATE.replace("optimizer.zero_grad()\n", ""), "no_zero_grad"),
    ("training_step", STEP + "optimizer.step()\noptimizer.zero_grad()\nloss.backward()\nreturn loss.item()", "step_before_backward"),
    ("training_step", STEP + "loss.backward()\noptimizer.zero_grad()\noptimizer.step()\nreturn loss.item()", "weights_stay"),
    ("training_step", STEP + "optimizer.zero_grad()\nloss.backward()\nreturn loss.item()", "weights_stay"),
    ("training_step", STEP + "return loss.item()", "weights_stay"),
    ("training_step", "eps = torch.randn_like(x0)\n" + STEP.replace("noise", "eps") + UPDATE, "fresh_noise"),
    ("training_step", STEP.replace("net(xt, t), noise", "net(xt, t), torch.randn_like(x0)") + UPDATE, "fresh_noise"),
    ("training_step", "t = torch.randint(1, schedule.T + 1, (len(x0),))\n" + STEP + UPDATE, "own_t"),
    ("training_step", "t = torch.full_like(t, int(t[0]))\n" + STEP + UPDATE, "one_t"),
    ("training_step", STEP.replace("net(xt, t)", "net(xt, t - 1)") + UPDATE, "network_told_another_t"),
    ("training_step", "t = t - 1\n" + STEP + UPDATE, "counts_from_0"),
    ("training_step", STEP.replace("net(xt, t), noise", "net(xt, t), x0") + UPDATE, "target_x0"),
    ("training_step", STEP.replace("net(xt, t), noise", "net(xt, t), xt") + UPDATE, "target_xt"),
    ("training_step", STEP.replace("net(xt, t)", "net(x0, t)") + UPDATE, "clean_input"),
    ("training_step", STEP.replace("q_sample(schedule, x0, t, noise)", "x0 + noise") + UPDATE, "unscaled_noise"),
    ("training_step", "net.eval()\n" + STEP + UPDATE, "evaluation_mode"),
    ("training_step", STEP.replace("F.mse_loss(net(xt, t), noise)", "((net(xt, t) - noise) ** 2).sum()") + UPDATE, "summed"),
    ("training_step", STEP.replace("F.mse_loss(net(xt, t), noise)", "(net(xt, t) - noise).abs().mean()") + UPDATE, "l1"),
    ("training_step", STEP.replace("F.mse_loss", "F.huber_loss") + UPDATE, "huber"),
    ("training_step", STEP.replace("F.mse_loss(net(xt, t), noise)", "torch.sqrt(F.mse_loss(net(xt, t), noise))") + UPDATE, "rooted"),
    ("training_step", STEP + "loss = -loss\n" + UPDATE, "ascent"),
    # 5.8
    ("training_loop", LOOP.replace(DRAW_T, "torch.randint(0, schedule.T, (len(x0),), generator=generator)"), "from_0"),
    ("training_loop", LOOP.replace(DRAW_T, "torch.randint(1, schedule.T, (len(x0),), generator=generator)"), "never_T"),
    ("training_loop", LOOP.replace(DRAW_T, "torch.randint(schedule.T + 1, (len(x0),), generator=generator)"), "from_0_to_T"),
    ("training_loop", LOOP.replace(DRAW_T, "schedule.sample_t(1, generator=generator).repeat(len(x0))"), "one_t"),
    ("training_loop", LOOP.replace("generator=generator", "generator=None"), "no_generator"),
    ("training_loop", LOOP.replace("torch.randn(x0.shape, generator=generator)", "torch.randn_like(x0)"), "no_generator"),
    ("training_loop", "losses = []\nfor x0 in batches:\n    noise = torch.randn(*x0.shape, generator=generator)\n    t = schedule.sample_t(x0.shape[0], generator=generator)\n    losses.append(training_step(net, schedule, optimizer, x0, t, noise))\nreturn losses", "noise_first"),
    ("training_loop", LOOP.replace("\nreturn losses", "\n    return losses"), "first_batch_only"),
    ("training_loop", LOOP.replace("torch.randn(", "torch.rand("), "uniform_noise"),
    ("training_loop", LOOP.replace("torch.randn(x0.shape, generator=generator)", "torch.zeros_like(x0)"), "no_noise"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "mistake"), WRONG, ids=[f"{n}-{m}-{i}" for i, (n, _, m) in enumerate(WRONG)])
def test_a_typed_mistake_gets_its_name(name, body, mistake):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict
    assert "lesson 0" in verdict.text[0]


LOCATED = [
    # two mistakes at once
    ("gaussian_kl", "torch.log(variance1 / variance2) + (variance1 + (mean1 - mean2) ** 2) / variance2", "values", ""),
    ("posterior", POST + "return (prev * b * x0 + a * (1 - ab) * xt) / (1 - ab), b", "values", "The mean at"),
    ("posterior", POST + MEAN + "return mean, (b * (1 - ab) / (1 - prev + 0.1)) ** 0.5", "values", "The variance at"),
    ("mean_from_noise", XT + "return (xt + b / (1 - ab) * noise) / a", "values", "Neither weight"),
    ("loss_weight", SIGMA + "return b / (2 * s2 ** 2 * (1 - ab))", "values", ""),
    ("simple_loss", "((noise - predicted) ** 2).sum().sqrt()", "values", ""),
    ("discretised_log_likelihood", EDGES.replace("/ std", "/ std**2") + "return torch.log2(hi - lo + 1e-6)", "values", ""),
    ("training_step", STEP.replace("net(xt, t)", "net(x0, t)").replace("F.mse", "F.l1") + UPDATE, "values", "The loss is"),
    ("training_loop", LOOP.replace(DRAW_T, "torch.randint(0, schedule.T, (len(x0),))"), "values", "random numbers"),
    # mistakes that no catalogue knows
    ("gaussian_kl", "0.5 * (variance1 - variance2 + (mean1 - mean2) ** 2)", "values", "should be"),
    ("posterior", POST + MEAN + VARIANCE + "return mean * 1.01, var", "values", "The mean at"),
    ("posterior", POST + MEAN + VARIANCE + "return mean, var * 1.1", "values", "The variance at"),
    ("posterior", POST + MEAN + "return mean", "type", "mean and variance"),
    ("posterior", POST + MEAN + "return mean, None", "type", "mean and variance"),
    ("posterior", POST + MEAN + VARIANCE + "return mean[:1], var", "shape", "The mean has shape"),
    ("posterior", POST.replace("v.float().reshape(-1, *[1] * (x0.ndim - 1))", "v.float()[:, None, None, None]") + VARIANCE + MEAN + "return mean, var", "shape", "not images"),
    ("mean_from_noise", XT + "return (xt - 0.9 * b / (1 - ab).sqrt() * noise) / a.sqrt()", "values", "wrong variance"),
    ("loss_weight", SIGMA + "w = b ** 2 / (2 * s2 * a * (1 - ab))\nreturn w / w.max() if torch.is_tensor(t) else w", "values", "for t of shape (B,)"),
    ("simple_loss", "return {'l2': F.mse_loss, 'l1': F.l1_loss, 'huber': F.huber_loss}[kind](predicted, noise).item()", "type", "should return a tensor"),
    ("discretised_log_likelihood", EDGES + "hi = torch.where(x0 > 0.999, 1.0, hi)\nreturn (hi - lo).log()", "values", "where x_0 = -1"),
    ("training_step", STEP + UPDATE.replace("return loss.item()", ""), "none", "None"),
    ("training_step", STEP + UPDATE.replace("return loss.item()", "return 0.0"), "values", "The loss is"),
    ("training_step", "with torch.no_grad():\n    loss = F.mse_loss(net(q_sample(schedule, x0, t, noise), t), noise)\n" + UPDATE, "raises", "RuntimeError"),
    ("training_step", "for p in net.parameters():\n    p.data.zero_()\n" + STEP + UPDATE, "values", ""),
    ("training_loop", LOOP.replace("return losses", "return losses[-1]"), "shape", ""),
    ("training_loop", LOOP.replace("return losses", "return sum(losses) / len(losses)"), "shape", ""),
    ("training_loop", LOOP.replace("in batches", "in [batches[i] for i in range(len(batches))]"), "raises", "no length"),
    ("training_loop", LOOP.replace("return losses", ""), "none", "None"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "body", "problem", "says"), LOCATED, ids=[f"{r[0]}-{i}" for i, r in enumerate(LOCATED)]
)
def test_what_no_catalogue_knows_is_located(name, body, problem, says):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake, verdict.problem) == ("wrong", None, problem), verdict
    assert says in " ".join(verdict.text), verdict


def test_every_exercise_has_a_full_catalogue_and_most_of_it_is_typed_here():
    assert len(NAMES) == 8
    for name in NAMES:
        known = {mistake.id for mistake in getattr(checks, name).mistakes if " and " not in mistake.id}
        typed = {mistake for n, _, mistake in WRONG if n == name}
        assert len(known) >= 8 and typed <= known
        assert len(typed) >= 8, (name, known - typed)


# ---- right answers, no two of one structure


def kl_formula(m1, v1, m2, v2):
    return 0.5 * (torch.log(v2 / v1) + (v1 + (m1 - m2) ** 2) / v2 - 1)


def kl_library(m1, v1, m2, v2):
    return kl_divergence(Normal(m1, v1.sqrt()), Normal(m2, v2.sqrt()))


def kl_numpy(m1, v1, m2, v2):
    m1, v1, m2, v2 = np.broadcast_arrays(*(x.numpy().astype(float) for x in (m1, v1, m2, v2)))
    return torch.from_numpy(np.log(np.sqrt(v2) / np.sqrt(v1)) + (v1 + (m1 - m2) ** 2) / (2 * v2) - 0.5)


def kl_loop(m1, v1, m2, v2):
    rows = torch.broadcast_tensors(m1, v1, m2, v2)
    flat = [
        (math.log(d / b) + b / d + (a - c) ** 2 / d - 1) / 2
        for a, b, c, d in zip(*(row.flatten().tolist() for row in rows), strict=True)
    ]
    return torch.tensor(flat).reshape(rows[0].shape)


def kl_log_variances(m1, v1, m2, v2):
    l1, l2 = v1.log(), v2.log()
    return 0.5 * (-1.0 + l2 - l1 + torch.exp(l1 - l2) + (m1 - m2) ** 2 * torch.exp(-l2))


def kl_cross_entropy(m1, v1, m2, v2):
    cross = 0.5 * (2 * math.pi * v2).log() + (v1 + (m1 - m2) ** 2) / (2 * v2)
    return cross - 0.5 * (2 * math.pi * math.e * v1).log()


def column(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def posterior_eq7(schedule, x0, xt, t):
    b, a, ab, prev = (
        column(v, x0) for v in (schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1])
    )
    return (prev.sqrt() * b * x0 + a.sqrt() * (1 - prev) * xt) / (1 - ab), b * (1 - prev) / (1 - ab)


def posterior_loop(schedule, x0, xt, t):
    ts = [t] * len(x0) if isinstance(t, int) else t.tolist()
    means, variances = [], []
    for x, y, s in zip(x0, xt, ts, strict=True):
        b, ab, prev = (float(v) for v in (schedule.beta[s], schedule.alpha_bar[s], schedule.alpha_bar[s - 1]))
        means.append(prev**0.5 * b / (1 - ab) * x + (1 - b) ** 0.5 * (1 - prev) / (1 - ab) * y)
        variances.append(torch.full_like(x, b * (1 - prev) / (1 - ab)))
    return torch.stack(means), torch.stack(variances)


def posterior_precisions(schedule, x0, xt, t):
    """As a product of two Gaussians; x_0's own precision is infinite at t = 1, so its inverse is used."""
    b, a = column(schedule.beta[t], x0), column(schedule.alpha[t], x0)
    spread, start = column(1 - schedule.alpha_bar[t - 1], x0), column(schedule.alpha_bar[t - 1].sqrt(), x0)
    gain = spread * a.sqrt() / (a * spread + b)  # a Kalman filter's
    return start * x0 + gain * (xt - a.sqrt() * start * x0), (1 - gain * a.sqrt()) * spread


def posterior_from_noise(schedule, x0, xt, t):
    b, a, ab = column(schedule.beta[t], x0), column(schedule.alpha[t], x0), column(schedule.alpha_bar[t], x0)
    noise = (xt - ab.sqrt() * x0) / (1 - ab).sqrt()
    mean = (xt - b / (1 - ab).sqrt() * noise) / a.sqrt()
    return mean, ((1 - ab / a) / (1 - ab) * b).expand_as(mean)


def posterior_tables(schedule, x0, xt, t):
    before = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar[:-1]])
    on_x0 = before.sqrt() * schedule.beta / (1 - schedule.alpha_bar).clamp(min=1e-30)
    on_xt = schedule.alpha.sqrt() * (1 - before) / (1 - schedule.alpha_bar).clamp(min=1e-30)
    variance = schedule.beta * (1 - before) / (1 - schedule.alpha_bar).clamp(min=1e-30)
    rows = [einops.repeat(table[t].reshape(-1), "b -> b" + " 1" * (x0.ndim - 1)) for table in (on_x0, on_xt, variance)]
    return (rows[0] * x0 + rows[1] * xt).float(), rows[2]


class Posterior:
    def __call__(self, schedule, x0, xt, t):
        mean, variance = posterior_eq7(schedule, x0, xt, t)
        return [mean, variance.squeeze() if isinstance(t, int) else variance]


def mean_formula(schedule, xt, t, noise):
    b, a, ab = column(schedule.beta[t], xt), column(schedule.alpha[t], xt), column(schedule.alpha_bar[t], xt)
    return (xt - b / (1 - ab).sqrt() * noise) / a.sqrt()


def mean_through_x0(schedule, xt, t, noise):
    ab = column(schedule.alpha_bar[t].double(), xt.double())
    x0 = (xt.double() - (1 - ab).sqrt() * noise.double()) / ab.sqrt()
    return posterior_eq7(schedule, x0, xt.double(), t)[0].float()


def mean_loop(schedule, xt, t, noise):
    out = torch.empty_like(xt)
    for i in range(len(xt)):
        s = t if isinstance(t, int) else int(t[i])
        factor = float((1 - schedule.alpha[s]) / (1 - schedule.alpha_bar[s]) ** 0.5)
        out[i] = (xt[i] - factor * noise[i]) / math.sqrt(schedule.alpha[s])
    return out


def mean_numpy(schedule, xt, t, noise):
    shape = (-1,) + (1,) * (xt.ndim - 1)
    b, ab = (v.numpy()[np.asarray(t)].reshape(shape) for v in (schedule.beta, schedule.alpha_bar))
    return torch.from_numpy((1 - b) ** -0.5 * (xt.numpy() - b * (1 - ab) ** -0.5 * noise.numpy())).float()


def mean_transposed(schedule, xt, t, noise):
    scale = schedule.alpha[t].rsqrt().float()
    weight = (schedule.beta[t] / (1 - schedule.alpha_bar[t]).sqrt()).float()
    return (scale * (xt.movedim(0, -1) - weight * noise.movedim(0, -1))).movedim(-1, 0)


def mean_at(schedule, xt, t, noise):
    sigma = schedule.at("sqrt_one_minus_alpha_bar", t, xt)
    return torch.addcmul(xt, schedule.at("beta", t, xt) / sigma, noise, value=-1) / schedule.at("sqrt_alpha", t, xt)


def weight_formula(schedule, t, variance="small"):
    b, a, ab = schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t]
    sigma2 = {"small": b * (1 - schedule.alpha_bar[t - 1]) / (1 - ab), "large": b}[variance]
    return b**2 / (2 * sigma2 * a * (1 - ab))


def weight_loop(schedule, t, variance="small"):
    if torch.is_tensor(t):
        return torch.tensor([weight_loop(schedule, int(s), variance) for s in t])
    b, ab, prev = float(schedule.beta[t]), float(schedule.alpha_bar[t]), float(schedule.alpha_bar[t - 1])
    weight = b / (2 * (1 - b) * (1 - ab))
    return weight if variance == "large" else weight * (1 - ab) / (1 - prev)


def weight_snr(schedule, t, variance="small"):
    """In terms of the signal-to-noise ratio: (SNR(t-1)/SNR(t) - 1)/2 for the small variance."""
    if variance == "small":
        return (schedule.snr[t - 1] / schedule.snr[t] - 1) / 2
    return schedule.beta[t] / (2 * schedule.alpha[t] * (1 - schedule.alpha_bar[t]))


def weight_of_squares(schedule, t, variance="small"):
    factor = schedule.beta[t] / (schedule.alpha[t].sqrt() * (1 - schedule.alpha_bar[t]).sqrt())
    ratio = 1.0 if variance != "small" else (1 - schedule.alpha_bar[t - 1]) / (1 - schedule.alpha_bar[t])
    return factor**2 / (2 * schedule.beta[t] * ratio)


def weight_tables(schedule, t, variance="small"):
    ab = schedule.alpha_bar.numpy()
    beta = np.append(0.0, 1 - ab[1:] / ab[:-1])
    with np.errstate(all="ignore"):
        tilde = np.append(np.nan, (1 - ab[:-1]) / (1 - ab[1:])) * beta
        table = beta**2 / (2 * (tilde if variance == "small" else beta) * (1 - beta) * (1 - ab))
    return torch.from_numpy(np.atleast_1d(table[np.asarray(t)])).reshape(np.asarray(t).shape).float()


def loss_branches(noise, predicted, kind="l2"):
    d = predicted - noise
    if kind == "l2":
        return d.square().mean()
    return d.abs().mean() if kind == "l1" else torch.where(d.abs() < 1, d * d / 2, d.abs() - 0.5).mean()


def loss_library(noise, predicted, kind="l2"):
    return {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}[kind](predicted, noise)


def loss_modules(noise, predicted, kind="l2"):
    return {"l2": torch.nn.MSELoss(), "l1": torch.nn.L1Loss(), "huber": torch.nn.SmoothL1Loss()}[kind](noise, predicted)


def loss_einops(noise, predicted, kind="l2"):
    d = einops.rearrange((noise - predicted).abs(), "b ... -> (b ...)")
    small = d.clamp(max=1)
    return {"l2": d @ d, "l1": d.sum(), "huber": (small * (d - small / 2)).sum()}[kind] / len(d)


def loss_norms(noise, predicted, kind="l2"):
    d = (noise - predicted).flatten()
    if kind == "huber":
        inside = d[d.abs() <= 1]
        outside = d[d.abs() > 1].abs() - 0.5
        return (0.5 * inside.pow(2).sum() + outside.sum()) / d.numel()
    return torch.linalg.vector_norm(d, ord=int(kind[1])) ** int(kind[1]) / d.numel()


def pixels_where(x0, mean, std):
    upper = torch.special.ndtr((x0 + 1 / 255 - mean) / std)
    lower = torch.special.ndtr((x0 - 1 / 255 - mean) / std)
    upper = torch.where(x0 > 0.999, 1.0, upper)
    return torch.log((upper - torch.where(x0 < -0.999, 0.0, lower)).clamp(min=1e-12))


def pixels_library(x0, mean, std):
    normal = Normal(mean.double(), torch.as_tensor(std).double().expand_as(mean))
    upper, lower = normal.cdf(x0.double() + 1 / 255), normal.cdf(x0.double() - 1 / 255)
    upper[x0 == 1] = 1
    lower[x0 == -1] = 0
    return (upper - lower).log()


def pixels_infinite(x0, mean, std):
    level = torch.round((x0.double() + 1) * 127.5)
    upper = torch.where(level == 255, math.inf, (level + 0.5) / 127.5 - 1)
    lower = torch.where(level == 0, -math.inf, (level - 0.5) / 127.5 - 1)
    return (torch.special.ndtr((upper - mean) / std) - torch.special.ndtr((lower - mean) / std)).log()


def pixels_scipy(x0, mean, std):
    x, m, s = x0.double().numpy(), mean.numpy(), np.asarray(std)
    upper, lower = scipy.special.ndtr((x + 1 / 255 - m) / s), scipy.special.ndtr((x - 1 / 255 - m) / s)
    p = np.where(x <= -0.999, upper, np.where(x >= 0.999, 1 - lower, upper - lower))
    return torch.from_numpy(np.log(p)).float()


def pixels_erf(x0, mean, std):
    def cdf(x):
        return 0.5 * (1 + torch.erf((x - mean) / (std * 2**0.5)))

    inside = cdf(x0.double() + 1 / 255) - cdf(x0.double() - 1 / 255)
    ends = torch.where(x0 < 0, cdf(x0.double() + 1 / 255), 1 - cdf(x0.double() - 1 / 255))
    return torch.where(x0.abs() > 0.999, ends, inside).log()


def pixels_integral(x0, mean, std):
    """Simpson's rule in each bin; in the open ones, far enough out."""
    h = torch.linspace(0, 1, 401, dtype=torch.float64)
    std = torch.as_tensor(std).double().expand_as(mean)[..., None]
    lower = torch.where(x0 < -0.999, mean - 12.0 * std[..., 0], x0.double() - 1 / 255).minimum(x0.double() - 1 / 255)
    upper = torch.where(x0 > 0.999, mean + 12.0 * std[..., 0], x0.double() + 1 / 255).maximum(x0.double() + 1 / 255)
    x = lower[..., None] + (upper - lower)[..., None] * h
    density = torch.exp(-0.5 * ((x - mean[..., None]) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    weights = torch.tensor([1.0, *[4.0, 2.0] * 199, 4.0, 1.0], dtype=torch.float64) / 1200
    return ((density * weights).sum(-1) * (upper - lower)).log()


def step_plain(net, schedule, optimizer, x0, t, noise):
    loss = F.mse_loss(net(q_sample(schedule, x0, t, noise), t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def step_clears_at_the_end(net, schedule, optimizer, x0, t, noise):
    ab = column(schedule.alpha_bar[t], x0)
    predicted = net(ab.sqrt() * x0 + (1 - ab).sqrt() * noise, t)
    loss = torch.mean((noise - predicted) ** 2)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def step_closure(net, schedule, optimizer, x0, t, noise):
    def closure():
        optimizer.zero_grad()
        loss = lesson05.simple_loss(noise, net(q_sample(schedule, x0, t, noise), t))
        loss.backward()
        return loss

    return float(optimizer.step(closure))


def step_by_gradients(net, schedule, optimizer, x0, t, noise):
    net.train()
    loss = (net(q_sample(schedule, x0, t, noise), t) - noise).square().mean()
    for parameter, gradient in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return loss.detach().cpu().numpy().item()


def step_one_image_at_a_time(net, schedule, optimizer, x0, t, noise):
    for parameter in net.parameters():
        parameter.grad = None
    total = 0.0
    for i in range(len(x0)):
        part = slice(i, i + 1)
        xt = q_sample(schedule, x0[part], t[part], noise[part])
        loss = F.mse_loss(net(xt, t[part]), noise[part]) / len(x0)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


class Step(torch.nn.Module):
    def forward(self, net, schedule, optimizer, x0, t, noise):
        with torch.enable_grad():
            return step_plain(net, schedule, optimizer, x0, t, noise)


def loop_plain(net, schedule, optimizer, batches, generator):
    losses = []
    for x0 in batches:
        t = schedule.sample_t(len(x0), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(lesson05.training_step(net, schedule, optimizer, x0, t, noise))
    return losses


def loop_randint(net, schedule, optimizer, batches, generator):
    def once(x0):
        t = torch.randint(1, schedule.T + 1, (x0.shape[0],), generator=generator)
        return lesson05.training_step(
            net, schedule, optimizer, x0, t, torch.empty_like(x0).normal_(generator=generator)
        )

    return [once(x0) for x0 in batches]


def loop_tensor(net, schedule, optimizer, batches, generator):
    losses = torch.zeros(0)
    for x0 in batches:
        t = torch.randint(schedule.T, (len(x0),), generator=generator) + 1
        loss = step_by_gradients(net, schedule, optimizer, x0, t, torch.randn(*x0.shape, generator=generator))
        losses = torch.cat([losses, torch.tensor([loss])])
    return losses


def loop_iterator(net, schedule, optimizer, batches, generator):
    source, losses = iter(batches), ()
    while (x0 := next(source, None)) is not None:
        t = schedule.sample_t(x0.size(0), device=x0.device, generator=generator)
        noise = torch.randn(x0.shape, device=x0.device, generator=generator)
        losses += (torch.tensor(step_plain(net, schedule, optimizer, x0, t, noise)),)
    return losses


def loop_map(net, schedule, optimizer, batches, generator):
    def draws():
        for x0 in batches:
            t = schedule.sample_t(len(x0), generator=generator)
            yield x0, t, torch.randn(x0.shape, generator=generator)

    return [lesson05.training_step(net, schedule, optimizer, *drawn) for drawn in draws()]


def loop_with_graphs(net, schedule, optimizer, batches, generator):
    """Keeps the losses attached: wasteful, and right."""
    losses = []
    for x0 in batches:
        t = schedule.sample_t(len(x0), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        loss = F.mse_loss(net(q_sample(schedule, x0, t, noise), t), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses


RIGHT = {
    "gaussian_kl": [kl_formula, kl_library, kl_numpy, kl_loop, kl_log_variances, kl_cross_entropy],
    "posterior": [
        *(posterior_eq7, posterior_loop, posterior_precisions, posterior_from_noise, posterior_tables, Posterior),
    ],
    "mean_from_noise": [mean_formula, mean_through_x0, mean_loop, mean_numpy, mean_transposed, mean_at],
    "loss_weight": [weight_formula, weight_loop, weight_snr, weight_of_squares, weight_tables],
    "simple_loss": [loss_branches, loss_library, loss_modules, loss_einops, loss_norms],
    "discretised_log_likelihood": [
        *(pixels_where, pixels_library, pixels_infinite, pixels_scipy, pixels_erf, pixels_integral),
    ],
    "training_step": [
        *(step_plain, step_clears_at_the_end, step_closure, step_by_gradients, step_one_image_at_a_time, Step),
        functools.partial(step_plain),
    ],
    "training_loop": [loop_plain, loop_randint, loop_tensor, loop_iterator, loop_map, loop_with_graphs],
}
ROWS = [(name, function) for name, functions in RIGHT.items() for function in functions]


@pytest.mark.parametrize(("name", "function"), ROWS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(ROWS)])
def test_right_answers_are_accepted(name, function):
    verdict = getattr(checks, name).check(instance(function))
    assert verdict.solved and verdict.passed == verdict.cases, verdict


def test_every_exercise_has_five_right_answers():
    assert set(RIGHT) == set(NAMES) and all(len(functions) >= 5 for functions in RIGHT.values())


def test_a_check_of_training_leaves_the_cases_networks_as_they_were():
    for name in ("training_step", "training_loop"):
        exercise = getattr(checks, name)
        before = [case.args[0].weights.detach().clone() for case in exercise.cases]
        assert exercise.check(RIGHT[name][0]).solved
        for case, weights in zip(exercise.cases, before, strict=True):
            assert torch.equal(case.args[0].weights, weights) and case.args[0].weights.grad is None
            assert not case.args[2].state


def test_functions_that_call_each_other_are_saved_together(tmp_path, monkeypatch):
    """training_loop calls training_step, which calls simple_loss and q_sample: the file brings them along."""
    monkeypatch.chdir(tmp_path)
    assert "Saved" in library.save(library.BY_NAME["training_loop"], lesson05.training_loop)
    text = (tmp_path / "my_ddpm.py").read_text()
    for name in ("training_step", "simple_loss", "q_sample"):
        assert f"def {name}(" in text
    assert "ddpm_course" not in text.split('"""', 2)[2].replace("python -m ddpm_course.checks", "")
