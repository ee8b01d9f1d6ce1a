"""Lesson 06: wrong answers typed as students type them, and right ones that differ in structure.

None of the wrong ones is taken from the catalogue. `WRONG` has one mistake each, by its id; `LOCATED` has two at once,
or one that no catalogue knows, and must never be given a name.
"""

import functools
import math
from itertools import pairwise

import einops
import numpy as np
import pytest
import torch
import typed

from ddpm_course import checks
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample
from ddpm_course.exercises import lesson06
from ddpm_course.samplers import ancestral_steps

NAMES = ("estimate_x0", "reverse_variance", "posterior_step", "ancestral_loop", "repaired_sampler")


KNOWN = {"pairwise": pairwise, "q_sample": q_sample} | {other: getattr(lesson06, other) for other in NAMES}
judge = functools.partial(typed.judge, **KNOWN)


AB = "ab = schedule.alpha_bar[t].float()\nif torch.is_tensor(t):\n    ab = ab.reshape(-1, *[1] * (xt.ndim - 1))\n"
CLIP = "if clip:\n    x0 = torch.clamp(x0, -1, 1)\nreturn x0"
ABS = "a, b = schedule.alpha_bar[t], schedule.alpha_bar[s]\n"
PAIR = (
    "def col(v): return torch.as_tensor(v).reshape((-1,) + (1,) * (xt.ndim - 1)).float()\n"
    "at, bt = col(schedule.alpha_bar[t]), col(schedule.beta[t])\nas_ = col(schedule.alpha_bar[s])\n"
    "alpha, beta = at / as_, 1 - at / as_\n"
    "var = beta if kind == 'large' else beta * (1 - as_) / (1 - at)\nvar = torch.where(as_ == 1, 0 * var, var)\n"
)
MEAN = "mean = as_.sqrt() * beta / (1 - at) * x0 + alpha.sqrt() * (1 - as_) / (1 - at) * xt\n"
LOOP = """x = x_T
with torch.no_grad():
    for i in range(len(times) - 1):
        t, s = times[i], times[i + 1]
        eps = net(x, torch.tensor([t] * len(x)))
        x0 = estimate_x0(schedule, x, t, eps)
        z = torch.randn(x.shape, generator=generator) if s else torch.zeros(x.shape)
        x = posterior_step(schedule, x0, x, t, s, z, kind)
return x"""
SICK = """x = torch.rand(shape, generator=generator)
with torch.no_grad():
    for t, s in pairwise(times):
        noise = net(x, torch.full((len(x),), s))
        x0 = estimate_x0(schedule, x, t, noise).clamp(0, 1)
        z = torch.randn(x.shape, generator=generator)
        mean = posterior_step(schedule, x0, x, t, s, torch.zeros_like(x))
        x = mean + reverse_variance(schedule, t, s, "large") * z
return x"""
START, TOLD, RANGE = ("torch.rand(", "torch.randn("), ("),), s)", "),), t)"), (".clamp(0, 1)", "")
ROOT, END = (
    ('"large") * z', '"large") ** 0.5 * z'),
    ("generator=generator)\n        mean", "generator=generator) * (s > 0)\n        mean"),
)


def edited(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


WRONG = [
    # 6.1
    ("estimate_x0", AB + "return (xt - (1 - ab).sqrt() * noise) / ab.sqrt()", "never_clipped"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab).sqrt() * noise) / ab.sqrt()\nreturn x0.clip(-1, 1)", "always_clipped"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab).sqrt() * noise) / ab.sqrt()\nreturn x0 if clip else x0.clamp(-1, 1)", "clip_turned_around"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab).sqrt() * noise) / ab.sqrt()\n" + CLIP.replace("-1, 1", "0, 1"), "clipped_to_0_1"),
    ("estimate_x0", "if clip: xt = xt.clamp(-1, 1)\n" + AB + "return (xt - (1 - ab).sqrt() * noise) / ab.sqrt()", "input_clipped"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab).sqrt() * noise) / ab.sqrt()\nreturn torch.tanh(x0) if clip else x0", "squashed"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab).sqrt() * noise) / ab.sqrt()\nreturn x0 / x0.abs().amax() if clip else x0", "rescaled"),
    ("estimate_x0", AB + "a = schedule.alpha[t].float()\na = a.reshape(-1, *[1] * (xt.ndim - 1)) if a.ndim else a\nx0 = (xt - (1 - ab).sqrt() * noise) / a.sqrt()\n" + CLIP, "divided_by_alpha"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab).sqrt() * noise) / ab\n" + CLIP, "division_not_rooted"),
    ("estimate_x0", AB + "x0 = (xt + (1 - ab).sqrt() * noise) / ab.sqrt()\n" + CLIP, "noise_added"),
    ("estimate_x0", AB + "x0 = (xt - (1 - ab) * noise) / ab.sqrt()\n" + CLIP, "noise_variance"),
    ("estimate_x0", AB + "x0 = xt - (1 - ab).sqrt() * noise\n" + CLIP, "not_divided"),
    ("estimate_x0", AB + "x0 = xt - (1 - ab).sqrt() * noise / ab.sqrt()\n" + CLIP, "only_noise_divided"),
    ("estimate_x0", AB.replace("[t]", "[t - 1]") + "x0 = (xt - (1 - ab).sqrt() * noise) / ab.sqrt()\n" + CLIP, "previous_entry"),
    ("estimate_x0", "ab = schedule.alpha_bar[t]\nx0 = ((xt - (1 - ab).sqrt() * noise) / ab.sqrt()).float()\n" + CLIP, "broadcast_width"),
    # 6.2
    ("reverse_variance", ABS + "beta = 1 - a / b\nreturn beta if kind == 'small' else beta * (1 - b) / (1 - a)", "kinds_swapped"),
    ("reverse_variance", ABS + "return (1 - a / b) * (1 - b) / (1 - a)", "always_small"),
    ("reverse_variance", ABS + "return 1 - a / b", "always_large"),
    ("reverse_variance", ABS + "beta = 1 - a / b\nreturn (beta if kind == 'large' else beta * (1 - b) / (1 - a)) ** 0.5", "deviation"),
    ("reverse_variance", ABS + "beta = schedule.beta[t]\nreturn beta if kind == 'large' else beta * (1 - b) / (1 - a)", "one_step_beta"),
    ("reverse_variance", ABS + "if kind == 'large': return schedule.beta[t]\nreturn (1 - a / b) * (1 - b) / (1 - a)", "one_step_large"),
    ("reverse_variance", ABS + "if kind == 'large': return 1 - a / b\nreturn (1 - a / b) * (1 - a) / (1 - b)", "ratio_inverted"),
    ("reverse_variance", ABS + "if kind == 'large': return 1 - a / b\nreturn (1 - b) / (1 - a)", "ratio_alone"),
    ("reverse_variance", ABS + "if kind == 'large': return 1 - a / b\nreturn (1 - a / b) * (1 - b)", "not_divided"),
    ("reverse_variance", ABS + "beta = a / b\nreturn beta if kind == 'large' else beta * (1 - b) / (1 - a)", "survives"),
    ("reverse_variance", ABS + "beta = b - a\nreturn beta if kind == 'large' else beta * (1 - b) / (1 - a)", "difference"),
    ("reverse_variance", ABS + "if kind == 'large': return 1 - a\nreturn (1 - a / b) * (1 - b) / (1 - a)", "all_steps"),
    ("reverse_variance", ABS + "v = 1 - a / b if kind == 'large' else (1 - a / b) * (1 - b) / (1 - a)\nreturn torch.log(v)", "logarithm"),
    ("reverse_variance", ABS.replace("[t]", "[t - 1]").replace("[s]", "[s - 1]") + "beta = 1 - a / b\nreturn beta if kind == 'large' else beta * (1 - b) / (1 - a)", "counted_from_0"),
    # 6.3
    ("posterior_step", PAIR + MEAN.replace("as_.sqrt() * beta", "(as_ * beta).sqrt()") + "return mean + var.sqrt() * z", "root_over_beta"),
    ("posterior_step", PAIR + MEAN.replace("as_.sqrt() *", "at.sqrt() *") + "return mean + var.sqrt() * z", "alpha_bar_t_for_s"),
    ("posterior_step", PAIR + MEAN.replace("x0", "X").replace("xt", "x0").replace("X", "xt") + "return mean + var.sqrt() * z", "swapped"),
    ("posterior_step", PAIR.replace("at / as_, 1 - at / as_", "1 - bt, bt") + MEAN + "return mean + var.sqrt() * z", "one_step"),
    ("posterior_step", PAIR + MEAN.replace("alpha.sqrt()", "at.sqrt()") + "return mean + var.sqrt() * z", "alpha_bar_for_alpha"),
    ("posterior_step", PAIR + MEAN.replace("alpha.sqrt()", "alpha") + "return mean + var.sqrt() * z", "not_rooted"),
    ("posterior_step", PAIR + MEAN.replace(" / (1 - at)", "") + "return mean + var.sqrt() * z", "not_divided"),
    ("posterior_step", PAIR + MEAN + "return mean + var * z", "variance_for_deviation"),
    ("posterior_step", PAIR + MEAN + "return mean", "no_noise"),
    ("posterior_step", PAIR + MEAN + "return mean + z * (as_ < 1)", "z_unscaled"),
    ("posterior_step", PAIR.replace("var = torch.where(as_ == 1, 0 * var, var)\n", "") + MEAN + "return mean + var.sqrt() * z", "noise_at_the_end"),
    ("posterior_step", PAIR.replace("'large'", "'small'") + MEAN + "return mean + var.sqrt() * z", "kinds_swapped"),
    ("posterior_step", PAIR.replace("beta if kind == 'large' else ", "") + MEAN + "return mean + var.sqrt() * z", "always_small"),
    ("posterior_step", PAIR + MEAN + "return mean + torch.sqrt(var) * torch.randn_like(xt)", "fresh_noise"),
    ("posterior_step", PAIR + MEAN + "return mean - var.sqrt() * z", "noise_subtracted"),
    ("posterior_step", "return q_sample(schedule, x0, s, z)", "renoised"),
    ("posterior_step", PAIR.replace("(-1,) + (1,) * (xt.ndim - 1)", "-1, 1, 1, 1") + MEAN + "return mean + var.sqrt() * z", "images_only"),
    # 6.4
    ("ancestral_loop", edited(LOOP, (" if s else torch.zeros(x.shape)", ""), ("posterior_step(schedule, x0, x, t, s, z, kind)", "posterior_step(schedule, x0, x, t, s, 0 * z) + reverse_variance(schedule, t, s, kind) ** 0.5 * z")), "noise_at_the_end"),
    ("ancestral_loop", edited(LOOP, (" if s else torch.zeros(x.shape)", " * 0")), "no_noise"),
    ("ancestral_loop", "z = torch.randn(x_T.shape, generator=generator)\n" + edited(LOOP, ("torch.randn(x.shape, generator=generator)", "z"), ("if s else torch.zeros(x.shape)", "")), "same_noise_every_step"),
    ("ancestral_loop", edited(LOOP, ("torch.randn(x.shape, generator=generator)", "torch.randn_like(x)")), "no_generator"),
    ("ancestral_loop", edited(LOOP, ("x = x_T", "x = torch.randn(x_T.shape, generator=generator)")), "starts_from_own_noise"),
    ("ancestral_loop", edited(LOOP, ("[t] * len(x)", "[s] * len(x)")), "told_s"),
    ("ancestral_loop", edited(LOOP, ("[t] * len(x)", "[t - 1] * len(x)")), "told_t_minus_1"),
    ("ancestral_loop", edited(LOOP, ("[t] * len(x)", "[i] * len(x)")), "told_the_number"),
    ("ancestral_loop", edited(LOOP, ("range(len(times) - 1)", "range(len(times) - 2)")), "stops_early"),
    ("ancestral_loop", edited(LOOP, ("x, t, s, z, kind", "x, t, s, z")), "always_small"),
    ("ancestral_loop", edited(LOOP, ("x, t, s, z, kind", "x, t, s, z, 'large'")), "always_large"),
    ("ancestral_loop", edited(LOOP, ("t, eps)", "t, eps, clip=False)")), "not_clipped"),
    ("ancestral_loop", edited(LOOP, ("z, kind)", "z, kind).clamp(-1, 1)")), "x_clipped"),
    ("ancestral_loop", edited(LOOP, ("torch.no_grad", "torch.enable_grad")), "gradients_on"),
    ("ancestral_loop", edited(LOOP, ("range(len(times) - 1)", "range(schedule.T)"), ("times[i], times[i + 1]", "schedule.T - i, schedule.T - i - 1")), "times_ignored"),
    ("ancestral_loop", edited(LOOP, ("t, s = times[i], times[i + 1]", "t = times[i]; s = t - 1"), ("if s else", "if times[i + 1] else"), (", kind)", ")")), "one_step_at_a_stride"),
    ("ancestral_loop", edited(LOOP, ("posterior_step(schedule, x0, x, t, s, z, kind)", "q_sample(schedule, x0, s, z)")), "renoised"),
    ("ancestral_loop", "eps = net(x_T, torch.full((len(x_T),), times[0]))\nreturn estimate_x0(schedule, x_T, times[0], eps).detach()", "first_estimate"),
    ("ancestral_loop", edited(LOOP, ("if s else", "if t > 1 else"), ("posterior_step(schedule, x0, x, t, s, z, kind)", "posterior_step(schedule, x0, x, t, s, 0 * z) + reverse_variance(schedule, t, s, kind) ** 0.5 * z")), "noise_where_t_is_above_1"),
    # 6.5
    ("repaired_sampler", SICK, "uniform_start and told_s and clipped_to_0_1 and variance_for_deviation and noise_at_the_end"),
    ("repaired_sampler", edited(SICK, TOLD, RANGE, ROOT, END), "uniform_start"),
    ("repaired_sampler", edited(SICK, START, RANGE, ROOT, END), "told_s"),
    ("repaired_sampler", edited(SICK, START, TOLD, ROOT, END), "clipped_to_0_1"),
    ("repaired_sampler", edited(SICK, START, TOLD, RANGE, END), "variance_for_deviation"),
    ("repaired_sampler", edited(SICK, START, TOLD, RANGE, ROOT), "noise_at_the_end"),
    ("repaired_sampler", edited(SICK, START, TOLD, RANGE, ROOT, ("generator=generator)\n        mean", "generator=generator) * (t > 1)\n        mean")), "noise_where_t_is_above_1"),
    ("repaired_sampler", edited(SICK, START, TOLD, RANGE), "variance_for_deviation and noise_at_the_end"),
    ("repaired_sampler", edited(SICK, TOLD, ROOT, END), "uniform_start and clipped_to_0_1"),
    ("repaired_sampler", "x_T = torch.randn(shape, generator=generator)\nreturn ancestral_loop(net, schedule, x_T, times, generator)", "small_variance"),
    ("repaired_sampler", edited(SICK, START, TOLD, RANGE, ROOT, END, ("torch.no_grad", "torch.enable_grad")), "gradients_on"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "body", "mistake"), WRONG, ids=[f"{n}-{m[:40]}-{i}" for i, (n, _, m) in enumerate(WRONG)]
)
def test_a_mistake_is_named(name, body, mistake):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict


def test_each_exercise_has_eight_typed_mistakes():
    for name in NAMES:
        assert len({mistake for n, _, mistake in WRONG if n == name}) >= 8, name


LOCATED = [
    ("estimate_x0", AB + "x0 = (xt - (1 - ab) * noise) / ab\nreturn x0.clamp(0, 1) if clip else x0", "Right in 0 of|should be"),
    ("estimate_x0", "ab = float(schedule.alpha_bar[t])\nx0 = (xt - math.sqrt(1 - ab) * noise) / math.sqrt(ab)\n" + CLIP, "wrong only for t of shape"),
    ("estimate_x0", AB + "x0 = ((xt - (1 - ab).sqrt() * noise) / ab.sqrt()).double()\n" + CLIP, "float64"),
    ("reverse_variance", ABS + "return (1 - a / b) ** 2 * (1 - b)", "should be"),
    ("reverse_variance", ABS + "beta = (1 - a / b) * 1.01\nreturn beta if kind == 'large' else beta * (1 - b) / (1 - a)", "should be"),
    ("posterior_step", PAIR + MEAN.replace("as_.sqrt()", "as_") + "return mean + var * z", "should be"),
    ("posterior_step", PAIR + MEAN + "return (mean + var.sqrt() * z).double()", "float64"),
    ("posterior_step", PAIR + "x0 *= 2\n" + MEAN + "return mean", "in place|should be"),
    ("ancestral_loop", edited(LOOP, ("torch.tensor([t] * len(x))", "t")), "must have shape"),
    ("ancestral_loop", edited(LOOP, ("[t] * len(x)", "[float(t)] * len(x)")), "integers"),
    ("ancestral_loop", edited(LOOP, ("[t] * len(x)", "[s] * len(x)"), ("t, eps)", "t, eps, clip=False)")), "should be"),
    ("ancestral_loop", edited(LOOP, ("return x", "return x.numpy()")), "NumPy array"),
    ("ancestral_loop", LOOP.replace("\nreturn x", ""), "None"),
    ("repaired_sampler", edited(SICK, START, TOLD, RANGE, ROOT, END, (" * z\n", " * z * 1.1\n")), "should be"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "says"), LOCATED, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(LOCATED)])
def test_what_no_catalogue_knows_is_located_and_not_named(name, body, says):
    verdict = judge(name, body)
    assert verdict.status == "wrong" and verdict.mistake is None, verdict
    assert any(part in " ".join(verdict.text) for part in says.split("|")), verdict


@pytest.mark.parametrize(
    "body",
    [
        edited(LOOP, ("t, eps)", "t, eps) * 0.9")),
        edited(LOOP, ("schedule, x, t, eps)", "schedule, x, max(s, 1), eps)")),
        edited(LOOP, ("torch.tensor([t] * len(x))", "t")),
    ],
)
def test_who_draws_from_the_generator_is_not_accused_of_not_doing_so(body):
    """Where the only step is the last one, the right answer draws nothing either; nor does who fails before drawing."""
    verdict = judge("ancestral_loop", body)
    assert verdict.status == "wrong" and "never draws" not in " ".join(verdict.text), verdict
    idle = edited(
        LOOP, ("torch.randn(x.shape, generator=generator)", "torch.ones(x.shape)"), ("t, eps)", "t, eps) * 0.9")
    )
    assert "never draws" in " ".join(judge("ancestral_loop", idle).text)


def test_a_mistake_made_with_gradients_on_is_named_and_the_gradients_too():
    verdict = judge(
        "ancestral_loop", edited(LOOP, ("no_grad", "enable_grad"), ("x, t, s, z, kind", "x, t, s, z, 'large'"))
    )
    assert verdict.mistake == "always_large", verdict
    assert "only for a network with weights" in verdict.text[-1] and "no_grad" in verdict.text[-1], verdict


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_not_attempted(name):
    namespace = {}
    exec(getattr(checks, name).stub, namespace)
    assert getattr(checks, name).check(namespace[name]).status == "not attempted"


# ---- right answers


def column(values, x):
    return torch.as_tensor(values).reshape(-1, *[1] * (x.ndim - 1)).to(x)


def x0_by_predicting(schedule, xt, t, noise, clip=True):
    signal, sigma = schedule.q_coefficients(t, xt)
    x0 = xt / signal - noise * (sigma / signal)
    return x0.clamp(min=-1).clamp(max=1) if clip else x0


def x0_by_loop(schedule, xt, t, noise, clip=True):
    out = []
    for i, (x, e) in enumerate(zip(xt, noise, strict=True)):
        ab = float(schedule.alpha_bar[t if isinstance(t, int) else t[i]])
        x0 = (x - math.sqrt(1 - ab) * e) / math.sqrt(ab)
        out.append(
            torch.where(x0 > 1, torch.ones_like(x0), torch.where(x0 < -1, -torch.ones_like(x0), x0)) if clip else x0
        )
    return torch.stack(out)


def x0_by_numpy(schedule, xt, t, noise, clip=True):
    ab = np.asarray(schedule.alpha_bar)[np.asarray(t)].reshape(-1, *[1] * (xt.ndim - 1))
    x0 = (xt.numpy() - np.sqrt(1 - ab) * noise.numpy()) / np.sqrt(ab)
    return torch.from_numpy(np.clip(x0, -1, 1) if clip else x0).float()


def x0_by_snr(schedule, xt, t, noise, clip=True):
    ab = column(schedule.alpha_bar[t], xt.double())
    x0 = xt * ab.rsqrt() - (1 / ab - 1).sqrt() * noise
    return (x0.clamp(-1, 1) if clip else x0).to(xt.dtype)


def x0_by_decoding(schedule, xt, t, noise, clip=True):
    x0, _ = GaussianDiffusion(schedule).decode(noise, xt, t)
    low, high = (-1.0, 1.0) if clip else (-float("inf"), float("inf"))
    return torch.nn.functional.hardtanh(x0) if clip else x0.clamp(low, high)


class X0AsAClass:
    def __call__(self, schedule, xt, t, noise, clip=True):
        ab = einops.rearrange(schedule.alpha_bar[torch.as_tensor(t).expand(len(xt))], "b -> b" + " 1" * (xt.ndim - 1))
        x0 = ((xt - (1 - ab).sqrt() * noise) / ab.sqrt()).float()
        return x0.clip(-1, 1) if clip else x0


def variance_by_logs(schedule, t, s, kind="small"):
    log = torch.log(schedule.alpha_bar)
    beta = -torch.expm1(log[t] - log[s])
    return beta if kind == "large" else beta * torch.expm1(log[s]) / torch.expm1(log[t])


def variance_by_products(schedule, t, s, kind="small"):
    if not isinstance(t, int):
        return torch.stack(
            [torch.as_tensor(variance_by_products(schedule, int(a), int(b), kind)) for a, b in zip(t, s, strict=True)]
        )
    kept = math.prod(1 - float(b) for b in schedule.beta[s + 1 : t + 1])
    return (1 - kept) * (1 if kind == "large" else float((1 - schedule.alpha_bar[s]) / (1 - schedule.alpha_bar[t])))


def variance_by_dictionary(schedule, t, s, kind="small"):
    a, b = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return {"large": (b - a) / b, "small": (b - a) * (1 - b) / (b * (1 - a))}[kind]


def variance_by_precisions(schedule, t, s, kind="small"):
    """Of a product of two Gaussians the precisions add; where s = 0 the second is infinite."""
    a, b = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return 1 - a / b if kind == "large" else 1 / ((a / b) / (1 - a / b) + 1 / (1 - b))


def variance_by_numpy(schedule, t, s, kind="small"):
    ab = schedule.alpha_bar.numpy()
    a, b = ab[np.asarray(t)], ab[np.asarray(s)]
    v = 1 - a / b
    if kind != "large":
        v = v * (1 - b) / (1 - a)
    return float(v) if isinstance(t, int) else torch.from_numpy(v).float()


def variance_by_posterior(schedule, t, s, kind="small"):
    if kind == "large":
        return 1 - schedule.alpha_bar[t] / schedule.alpha_bar[s]
    x = torch.zeros(1 if isinstance(t, int) else len(t), dtype=torch.float64)
    variance = q_posterior(schedule, x, x, t, s)[1]
    return variance.item() if isinstance(t, int) else variance


def step_by_package(schedule, x0, xt, t, s, z, kind="small"):
    mean, variance = q_posterior(schedule, x0, xt, t, s)
    if kind == "large":
        variance = column(1 - schedule.alpha_bar[t] / schedule.alpha_bar[s], xt) * (variance > 0)
    return mean + variance.sqrt() * z


def step_by_loop(schedule, x0, xt, t, s, z, kind="small"):
    out = torch.empty_like(xt)
    for i in range(len(xt)):
        u, v = (t, s) if isinstance(t, int) else (int(t[i]), int(s[i]))
        a, b = float(schedule.alpha_bar[u]), float(schedule.alpha_bar[v])
        beta = 1 - a / b
        mean = (math.sqrt(b) * beta * x0[i] + math.sqrt(a / b) * (1 - b) * xt[i]) / (1 - a)
        variance = 0 if v == 0 else beta if kind == "large" else beta * (1 - b) / (1 - a)
        out[i] = mean + math.sqrt(variance) * z[i]
    return out


def step_by_noise(schedule, x0, xt, t, s, z, kind="small"):
    """Line 4 of Algorithm 2, with alpha-bar_t / alpha-bar_s for alpha_t, from the noise that x0 implies."""
    a, b = (column(schedule.alpha_bar[r], xt.double()) for r in (t, s))
    noise = (xt - a.sqrt() * x0) / (1 - a).sqrt()
    mean = (xt - (1 - a / b) / (1 - a).sqrt() * noise) / (a / b).sqrt()
    std = column(lesson06.reverse_variance(schedule, t, s, kind), xt.double()).sqrt()
    return torch.where(b == 1, mean, mean + std * z).float()


def step_by_ddim(schedule, x0, xt, t, s, z, kind="small"):
    """DDIM with eta = 1 for the small variance, and the same mean for the large one."""
    a, b = (column(schedule.alpha_bar[r], xt.double()) for r in (t, s))
    small = (1 - a / b) * (1 - b) / (1 - a)
    noise = (xt - a.sqrt() * x0) / (1 - a).sqrt()
    mean = b.sqrt() * x0 + (1 - b - small).clamp(min=0).sqrt() * noise
    variance = small if kind == "small" else 1 - a / b
    return (mean + variance.sqrt() * z * (b != 1)).to(xt)


def step_by_precisions(schedule, x0, xt, t, s, z, kind="small"):
    """The product of q(x_t | x_s) and q(x_s | x_0), precisions and weighted means added."""
    a, b = (column(schedule.alpha_bar[r], xt.double()) for r in (t, s))
    alpha, prior = a / b, (1 - b).clamp(min=1e-14)
    precision = alpha / (1 - alpha) + 1 / prior
    mean = (alpha.sqrt() / (1 - alpha) * xt + b.sqrt() / prior * x0) / precision
    variance = 1 - alpha if kind == "large" else 1 / precision
    return (mean + variance.sqrt() * z * (b < 1)).float()


def step_in_place(*args, **kwargs):
    schedule, x0, xt, t, s, z, kind = (*args, "small")[:7]
    out = lesson06.posterior_step(schedule, x0, xt, t, s, torch.zeros_like(z))
    out += (
        column(torch.as_tensor(lesson06.reverse_variance(schedule, t, s, kind)).sqrt() * (torch.as_tensor(s) > 0), xt)
        * z
    )
    return out


def loop_detached(net, schedule, x_T, times, generator, kind="small"):
    x = x_T
    for t, s in zip(times[:-1], times[1:], strict=True):
        eps = net(x, torch.zeros(len(x), dtype=torch.int64) + t).detach()
        z = 0 * x if s == 0 else torch.randn(x.shape, generator=generator)
        x = lesson06.posterior_step(schedule, lesson06.estimate_x0(schedule, x, t, eps), x, t, s, z, kind)
    return x


@torch.inference_mode()
def loop_inference(net, schedule, x_T, times, generator, kind="small"):
    x, times = x_T.clone(), list(times)
    while len(times) > 1:
        t, s = times.pop(0), times[0]
        x0 = x0_by_decoding(schedule, x, t, net(x, torch.full(x.shape[:1], t)))
        z = torch.empty_like(x).normal_(generator=generator) if s else torch.zeros_like(x)
        x = step_by_package(schedule, x0, x, t, s, z, kind)
    return x


@torch.no_grad()
def loop_recursive(net, schedule, x_T, times, generator, kind="small"):
    if len(times) == 1:
        return x_T
    t, s = times[:2]
    x0 = lesson06.estimate_x0(schedule, x_T, t, net(x_T, torch.LongTensor([t]).repeat(len(x_T))))
    z = torch.randn(x_T.shape, generator=generator) if s else torch.zeros(x_T.shape)
    x_s = step_by_noise(schedule, x0, x_T, t, s, z, kind)
    return loop_recursive(net, schedule, x_s, times[1:], generator, kind)


def loop_with_the_package(net, schedule, x_T, times, generator, kind="small"):
    diffusion = GaussianDiffusion(schedule, "noise", kind)
    steps = ancestral_steps(lambda x, t, y: net(x, t), diffusion, x_T.shape, x_T=x_T, times=times, generator=generator)
    return list(steps)[-1].x


def loop_keeping_all(net, schedule, x_T, times, generator, kind="small"):
    xs = [x_T]
    with torch.no_grad():
        for i in range(1, len(times)):
            t, s = times[i - 1], times[i]
            x0 = x0_by_snr(schedule, xs[-1], t, net(xs[-1], t * torch.ones(len(x_T), dtype=torch.long)))
            z = torch.randn(x_T.shape, generator=generator)  # in the last step it goes unused
            xs.append(lesson06.posterior_step(schedule, x0, xs[-1], t, s, z, kind))
    return xs[-1]


class LoopAsAClass:
    @torch.no_grad()
    def __call__(self, net, schedule, x_T, times, generator, kind="small"):
        self.x = x_T
        for t, s in pairwise(times):
            self.step(net, schedule, t, s, generator, kind)
        return self.x

    def step(self, net, schedule, t, s, generator, kind):
        x0 = lesson06.estimate_x0(schedule, self.x, t, net(self.x, torch.full((len(self.x),), t)))
        z = torch.randn(self.x.shape, generator=generator) if s > 0 else torch.zeros_like(self.x)
        self.x = step_by_loop(schedule, x0, self.x, t, s, z, kind)


def repaired_by(loop):
    def repaired(net, schedule, shape, times, generator):
        return loop(net, schedule, torch.randn(shape, generator=generator), times, generator, "large")

    return repaired


RIGHT = {
    "estimate_x0": [x0_by_predicting, x0_by_loop, x0_by_numpy, x0_by_snr, x0_by_decoding, X0AsAClass()],
    "reverse_variance": [
        *(variance_by_logs, variance_by_products, variance_by_dictionary, variance_by_precisions),
        *(variance_by_numpy, variance_by_posterior),
    ],
    "posterior_step": [step_by_package, step_by_loop, step_by_noise, step_by_ddim, step_by_precisions, step_in_place],
    "ancestral_loop": [
        *(loop_detached, loop_inference, loop_recursive, loop_with_the_package, loop_keeping_all, LoopAsAClass()),
    ],
    "repaired_sampler": [
        *map(repaired_by, (loop_detached, loop_inference, loop_recursive, loop_with_the_package, LoopAsAClass())),
    ],
}
ROWS = [(name, function) for name, functions in RIGHT.items() for function in functions]


@pytest.mark.parametrize(("name", "function"), ROWS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(ROWS)])
def test_a_right_answer_is_accepted(name, function):
    verdict = getattr(checks, name).check(function)
    assert verdict.solved and verdict.passed == verdict.cases, verdict


def test_the_broken_sampler_repaired_line_by_line_passes():
    verdict = judge("repaired_sampler", edited(SICK, START, TOLD, RANGE, ROOT, END))
    assert verdict.solved, verdict
