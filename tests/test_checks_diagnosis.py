"""Wrong answers, typed as students type them, and what the check says to each.

None of this is taken from the catalogue. `wrong` has one mistake, by its id; `located` has two at once, or one
that no catalogue knows, and must never be given a name.
"""

import functools

import pytest
import typed

from ddpm_course import diffusion

judge = functools.partial(typed.judge, q_step=diffusion.q_step, q_sample=diffusion.q_sample)

B = "b = schedule.beta[t].float().reshape(-1, *[1] * (x.ndim - 1)) if torch.is_tensor(t) else schedule.beta[t].float()\n"
AB = "ab = schedule.alpha_bar[t].float()\nif torch.is_tensor(t):\n    ab = ab.reshape(-1, *[1] * (x0.ndim - 1))\n"
ABX = AB.replace("x0", "xt")

WRONG = [
    # 0.1
    ("to_model_range", "images / 255", "range_0_1"),
    ("to_model_range", "images.float().div(255.0)", "range_0_1"),
    ("to_model_range", "images.to(torch.float32)", "range_0_255"),
    ("to_model_range", "images", "range_0_255"),
    ("to_model_range", "images // 127.5 - 1", "integer_division"),
    ("to_model_range", "(images // 127).float() - 1", "integer_division"),
    ("to_model_range", "images.float() / 255 - 0.5", "range_half"),
    ("to_model_range", "2 * (images / 255)", "range_0_2"),
    ("to_model_range", "2 * images / 255 - 1", "bytes_wrap"),
    ("to_model_range", "(images - 128) / 128.0", "bytes_wrap"),
    ("to_model_range", "images.float() / 128 - 1", "divided_by_128"),
    ("to_model_range", "images.float() / 127 - 1", "divided_by_127"),
    ("to_model_range", "1 - 2 * images.float() / 255", "upside_down"),
    ("to_model_range", "x = images.float()\nreturn 2 * x / x.max() - 1", "scaled_by_content"),
    ("to_model_range", "x = images.float()\nreturn (x - x.mean()) / x.std()", "standardised"),
    ("to_model_range", "(images.float() - 1) / 127.5", "subtracted_first"),
    ("to_model_range", "images.float() - 127.5", "range_127"),
    # 1.1
    ("to_uint8", "(127.5 * x + 127.5).round().byte()", "no_clamp"),
    ("to_uint8", "torch.round((x + 1) / 2 * 255).to(torch.uint8)", "no_clamp"),
    ("to_uint8", "((x + 1) * 127.5).round().to(torch.uint8).clamp(0, 255)", "no_clamp"),
    ("to_uint8", "((x.clamp(-1, 1) + 1) * 127.5).to(torch.uint8)", "no_rounding"),
    ("to_uint8", "((x + 1) * 127.5).clamp(0, 255).floor().byte()", "no_rounding"),
    ("to_uint8", "((x + 1) * 127.5).to(torch.uint8)", "no_clamp_no_rounding"),
    ("to_uint8", "((x + 1) * 127.5).int().to(torch.uint8)", "no_clamp_no_rounding"),
    ("to_uint8", "(x.clamp(0, 1) * 255).round().byte()", "clamped_to_0_1"),
    ("to_uint8", "(128 * (x + 1)).clamp(0, 255).round().byte()", "width_128"),
    ("to_uint8", "(x.clamp(-1, 1) * 127 + 128).round().byte()", "around_128"),
    ("to_uint8", "((x + 1) * 255).clamp(0, 255).round().byte()", "width_255"),
    # 1.2
    ("q_step", B + "return (1 - b) ** 0.5 * x + b * noise", "noise_variance"),
    ("q_step", B + "return torch.sqrt(1 - b) * x + noise * b", "noise_variance"),
    ("q_step", B + "return (1 - b) * x + torch.sqrt(b) * noise", "signal_not_rooted"),
    ("q_step", B + "return (1 - b) * x + b * noise", "no_roots"),
    ("q_step", B + "return x + b.sqrt() * noise", "no_shrinking"),
    ("q_step", B + "return x + b * noise", "no_shrinking_noise_variance"),
    ("q_step", B + "return b.sqrt() * x + (1 - b).sqrt() * noise", "swapped"),
    ("q_step", B.replace("[t]", "[t - 1]") + "return (1 - b).sqrt() * x + b.sqrt() * noise", "previous_entry"),
    ("q_step", B.replace("[t]", "[t + 1]") + "return (1 - b).sqrt() * x + b.sqrt() * noise", "next_entry"),
    ("q_step", B + "return (1 - b).sqrt() * x + b.sqrt() * torch.randn_like(x)", "fresh_noise"),
    ("q_step", B + "noise = torch.randn(x.shape)\nreturn (1 - b).sqrt() * x + b.sqrt() * noise", "fresh_noise"),
    (
        "q_step",
        B + "e = torch.tensor(np.random.randn(*x.shape))\nreturn (1 - b).sqrt() * x + b.sqrt() * e",
        "fresh_noise",
    ),
    ("q_step", "b = schedule.beta[t]\nreturn (1 - b).sqrt() * x + b.sqrt() * noise", "broadcast_width"),
    ("q_step", "b = schedule.beta[t].view(-1, 1, 1, 1)\nreturn (1 - b).sqrt() * x + b.sqrt() * noise", "images_only"),
    ("q_step", B + "return (1 - b).sqrt() * (x + b.sqrt() * noise)", "noise_before_shrinking"),
    ("q_step", B + "return (1 - b).sqrt() * x", "noise_forgotten"),
    ("q_step", B + "return (1 - b).sqrt() * x - b.sqrt() * noise", "noise_subtracted"),
    ("q_step", B + "return (1 - b.sqrt()) * x + b.sqrt() * noise", "one_minus_root"),
    ("q_step", B.replace("beta", "alpha_bar") + "return b.sqrt() * x + (1 - b).sqrt() * noise", "alpha_bar_for_alpha"),
    ("q_step", "q_sample(schedule, x, t, noise)", "alpha_bar_for_alpha"),
    # 1.3
    (
        "diffuse",
        "xs, x = [], x0\nfor t in range(1, schedule.T + 1):\n    x = q_step(schedule, x, t, torch.randn(x0.shape, generator=generator))\n"
        "    xs.append(x)\nreturn torch.stack(xs)",
        "no_x0",
    ),
    (
        "diffuse",
        "xs = [x0]\nfor t in range(1, schedule.T):\n    xs += [q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator))]\n"
        "return torch.stack(xs)",
        "no_last_step",
    ),
    (
        "diffuse",
        "xs = [x0]\nfor t in range(schedule.T):\n    xs += [q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator))]\n"
        "return torch.stack(xs)",
        "counts_from_0",
    ),
    (
        "diffuse",
        "x = x0\nfor t in range(1, schedule.T + 1):\n    x = q_step(schedule, x, t, torch.randn(x0.shape, generator=generator))\nreturn x",
        "last_alone",
    ),
    (
        "diffuse",
        "xs = [x0]\nfor t in range(1, schedule.T + 1):\n    xs.append(q_step(schedule, x0, t, torch.randn(x0.shape, generator=generator)))\n"
        "return torch.stack(xs)",
        "always_from_x0",
    ),
    (
        "diffuse",
        "xs, noise = [x0], torch.randn(x0.shape, generator=generator)\nfor t in range(1, schedule.T + 1):\n"
        "    xs.append(q_step(schedule, xs[-1], t, noise))\nreturn torch.stack(xs)",
        "same_noise_every_step",
    ),
    (
        "diffuse",
        "xs = [x0]\nfor t in range(1, schedule.T + 1):\n    xs.append(q_step(schedule, xs[-1], t, torch.randn_like(x0)))\nreturn torch.stack(xs)",
        "no_generator",
    ),
    (
        "diffuse",
        "out = torch.empty(schedule.T + 1, *x0.shape)\nout[0] = x0\nfor t in range(1, schedule.T + 1):\n"
        "    out[t] = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=generator))\nreturn out",
        "closed_form",
    ),
    (
        "diffuse",
        "x = x0.clone()\nxs = [x]\nfor t in range(1, schedule.T + 1):\n"
        "    x.copy_(q_step(schedule, x, t, torch.randn(x0.shape, generator=generator)))\n    xs.append(x)\nreturn torch.stack(xs)",
        "overwritten",
    ),
    (
        "diffuse",
        "xs = [x0]\nfor t in range(1, schedule.T + 1):\n    xs.append(q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator)))\n"
        "return torch.cat(xs)",
        "concatenated",
    ),
    (
        "diffuse",
        "z = torch.randn(schedule.T, *x0.shape, generator=generator)\nxs = [x0]\nfor t in range(1, schedule.T + 1):\n"
        "    xs.append(q_step(schedule, xs[-1], t, z[t - 1]))\nreturn torch.stack(xs)",
        "drawn_at_once",
    ),
    # 1.4
    ("next_variance", "variance + beta", "no_shrinking"),
    ("next_variance", "(1 - beta) ** 2 * variance + beta", "shrinks_twice"),
    ("next_variance", "(1 - beta) ** 0.5 * variance + beta", "factor_not_squared"),
    ("next_variance", "(1 - beta) ** 0.5 * variance + beta ** 0.5", "factors_not_squared"),
    ("next_variance", "(1 - beta) * variance + beta ** 2", "noise_squared"),
    ("next_variance", "variance - variance * beta", "no_noise"),
    ("next_variance", "((1 - beta) * variance + beta) ** 0.5", "deviations_mixed"),
    ("next_variance", "beta * variance + 1 - beta", "swapped"),
    # 2.1
    ("merge_noises", "a + b", "added_deviations"),
    ("merge_noises", "a * a + b * b", "returned_variance"),
    ("merge_noises", "(a + b) ** 0.5", "not_squared"),
    ("merge_noises", "(a + b) / 2", "averaged"),
    ("merge_noises", "((a ** 2 + b ** 2) / 2) ** 0.5", "averaged_variances"),
    # 2.2
    ("alpha_bars", "torch.cumprod(betas, 0)", "product_of_betas"),
    ("alpha_bars", "torch.cat([torch.ones(1), torch.cumprod(betas, 0)])", "product_of_betas"),
    ("alpha_bars", "torch.cat([torch.ones(1), 1 - torch.cumsum(betas, 0)])", "sum"),
    ("alpha_bars", "torch.cumsum(1 - betas, dim=0)", "sum"),
    ("alpha_bars", "torch.cumprod(1 - betas, dim=0)", "no_first_entry"),
    ("alpha_bars", "F.pad(torch.cumprod(1 - betas, 0), (0, 1), value=1.0)", "padded_at_end"),
    ("alpha_bars", "F.pad(torch.cumprod(1 - betas, 0), (1, 0))", "zero_first"),
    ("alpha_bars", "F.pad(torch.cumprod(1 - betas, 0), (1, 0), value=1.0)[:-1]", "last_entry_dropped"),
    ("alpha_bars", "torch.full((len(betas) + 1,), torch.prod(1 - betas).item())", "full_product"),
    ("alpha_bars", "torch.stack([torch.ones(()), *[torch.prod(1 - betas) for _ in betas]])", "full_product"),
    ("alpha_bars", "torch.cat([torch.ones(1), 1 - betas])", "not_cumulative"),
    ("alpha_bars", "F.pad(torch.cumprod((1 - betas).sqrt(), 0), (1, 0), value=1.0)", "rooted"),
    # 2.3
    ("q_sample", AB + "return ab.sqrt() * x0 + (1 - ab) * noise", "noise_variance"),
    ("q_sample", AB + "return x0 * torch.sqrt(ab) + noise * (1 - ab)", "noise_variance"),
    ("q_sample", AB + "return ab * x0 + (1 - ab).sqrt() * noise", "signal_not_rooted"),
    ("q_sample", AB + "return ab * x0 + (1 - ab) * noise", "no_roots"),
    (
        "q_sample",
        AB.replace("alpha_bar", "alpha") + "return ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "alpha_for_alpha_bar",
    ),
    ("q_sample", "q_step(schedule, x0, t, noise) if True else None", None),
    ("q_sample", AB.replace("[t]", "[t - 1]") + "return ab.sqrt() * x0 + (1 - ab).sqrt() * noise", "previous_entry"),
    ("q_sample", AB.replace("[t]", "[t + 1]") + "return ab.sqrt() * x0 + (1 - ab).sqrt() * noise", "next_entry"),
    (
        "q_sample",
        AB.replace("schedule.alpha_bar[t]", "torch.cumprod(1 - schedule.beta[1:], 0)[t]")
        + "return ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "next_entry",
    ),
    ("q_sample", AB + "return (1 - ab).sqrt() * x0 + ab.sqrt() * noise", "swapped"),
    ("q_sample", "ab = schedule.alpha_bar[t]\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise", "broadcast_width"),
    (
        "q_sample",
        "ab = schedule.alpha_bar[t].float().view(-1, 1, 1)\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "broadcast_channels",
    ),
    (
        "q_sample",
        "ab = schedule.alpha_bar[t].float().view(-1, 1, 1, 1)\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "images_only",
    ),
    (
        "q_sample",
        "ab = schedule.alpha_bar[t][:, None, None, None]\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "images_only",
    ),
    ("q_sample", AB + "return ab.sqrt() * x0 + (1 - ab).sqrt() * torch.randn_like(x0)", "fresh_noise"),
    ("q_sample", AB + "return ab.sqrt() * x0 + (1 - ab).sqrt() * torch.normal(0, 1, size=x0.shape)", "fresh_noise"),
    ("q_sample", AB + "return ab.sqrt() * x0 + (1 - ab.sqrt()) * noise", "one_minus_root"),
    ("q_sample", AB + "return ab.sqrt() * x0 + noise", "noise_unscaled"),
    ("q_sample", AB + "return x0 + (1 - ab).sqrt() * noise", "signal_unscaled"),
    # 2.4
    ("predict_x0", ABX + "return (xt - (1 - ab).sqrt() * noise) / (ab / 1) ** 1", "division_not_rooted"),
    (
        "predict_x0",
        ABX
        + "a = ab * 0 + (schedule.alpha[t].float().reshape(ab.shape))\nreturn (xt - (1 - ab).sqrt() * noise) / a.sqrt()",
        "divided_by_alpha",
    ),
    ("predict_x0", ABX + "return (xt + (1 - ab).sqrt() * noise) / ab.sqrt()", "noise_added"),
    ("predict_x0", ABX + "return (xt - (1 - ab) * noise) / ab.sqrt()", "noise_variance"),
    ("predict_x0", ABX + "return xt - (1 - ab).sqrt() * noise / ab.sqrt()", "only_noise_divided"),
    ("predict_x0", ABX + "return xt / ab.sqrt() - (1 - ab).sqrt() * noise", "only_xt_divided"),
    ("predict_x0", ABX + "return xt - (1 - ab).sqrt() * noise", "not_divided"),
    ("predict_x0", ABX + "return (xt - noise) / ab.sqrt()", "noise_unscaled"),
    ("predict_x0", ABX + "return ((xt - (1 - ab).sqrt() * noise) / ab.sqrt()).clip(-1, 1)", "clipped"),
    ("predict_x0", "ab = schedule.alpha_bar[t]\nreturn (xt - (1 - ab).sqrt() * noise) / ab.sqrt()", "broadcast_width"),
    (
        "predict_x0",
        ABX.replace("alpha_bar", "alpha") + "return (xt - (1 - ab).sqrt() * noise) / ab.sqrt()",
        "alpha_for_alpha_bar",
    ),
    ("predict_x0", ABX + "return ab.sqrt() * xt + (1 - ab).sqrt() * noise", "forward"),
    # 2.5
    ("equal_t", "int(torch.where(schedule.alpha_bar <= 0.5)[0][0]) - 1", "one_early"),
    ("equal_t", "int((schedule.alpha_bar > 0.5).sum()) + 1", "one_late"),
    ("equal_t", "int((schedule.alpha_bar < 1 - schedule.alpha_bar).float().argmax())", "strictly"),
    ("equal_t", "int((schedule.alpha_bar.sqrt() <= 0.5).float().argmax())", "factor_half"),
    ("equal_t", "int((schedule.alpha_bar - 0.5).abs().argmin())", "nearest"),
    ("equal_t", "schedule.T // 2", "halfway"),
]
WRONG = [row for row in WRONG if row[2]]


@pytest.mark.parametrize(("name", "body", "mistake"), WRONG, ids=[f"{n}-{m}-{i}" for i, (n, _, m) in enumerate(WRONG)])
def test_a_mistake_gets_its_name(name, body, mistake):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict
    assert "lesson 0" in verdict.text[0]


LOCATED = [
    # two mistakes at once
    ("to_model_range", "(images / 128).round() - 0.5", "values", "Right in 0"),
    ("to_uint8", "(x.clamp(0, 1) * 128).byte()", "values", "should be"),
    ("q_step", B + "return b * x + (1 - b) * noise", "values", "Neither weight is right"),
    (
        "q_step",
        B.replace("[t]", "[t - 1]") + "return (1 - b) * x + b.sqrt() * noise",
        "values",
        "Neither weight is right",
    ),
    ("next_variance", "(1 - beta) ** 2 * variance + beta ** 0.5", "values", "should be"),
    ("merge_noises", "(a + b) ** 2 / 2", "values", "should be"),
    ("alpha_bars", "torch.cat([torch.zeros(1), torch.cumsum(betas, 0)])", "values", "should be"),
    ("q_sample", AB + "return ab * x0 - (1 - ab) * noise", "values", "Neither weight is right"),
    (
        "q_sample",
        AB.replace("[t]", "[t - 1]") + "return ab.sqrt() * x0 + (1 - ab) * noise",
        "values",
        "Neither weight is right",
    ),
    (
        "q_sample",
        AB.replace("alpha_bar", "alpha") + "return ab.sqrt() * x0 + (1 - ab) * noise",
        "values",
        "Neither weight is right",
    ),
    ("predict_x0", ABX + "return (xt + (1 - ab) * noise) / ab", "values", "Neither weight is right"),
    # mistakes that no catalogue knows
    ("q_sample", AB + "return ab.sqrt() * x0 + 0.9 * (1 - ab).sqrt() * noise", "values", "Right mean, wrong variance"),
    ("q_sample", AB + "return 1.1 * ab.sqrt() * x0 + (1 - ab).sqrt() * noise", "values", "Right noise, wrong signal"),
    ("q_sample", AB + "return ab.sqrt() * x0 + (1 - ab).sqrt() * noise ** 2", "values", "not a weighted sum"),
    (
        "q_sample",
        AB + "return ab.sqrt() * x0 + (1 - ab).sqrt() * torch.randn_like(x0).abs()",
        "values",
        "random numbers of its own",
    ),
    (
        "q_sample",
        AB + "out = ab.sqrt() * x0 + (1 - ab).sqrt() * noise\nreturn out * 1.5 if not torch.is_tensor(t) else out",
        "values",
        "wrong only for an int t",
    ),
    (
        "q_sample",
        AB + "t1 = torch.as_tensor(t).reshape(ab.shape) == 1\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise + t1",
        "values",
        "wrong only where t = 1",
    ),
    (
        "q_sample",
        AB
        + "tT = torch.as_tensor(t).reshape(ab.shape) == schedule.T\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise * ~tT",
        "values",
        "wrong only where t = T",
    ),
    (
        "q_sample",
        "t = t if isinstance(t, int) else t.max()\nab = schedule.alpha_bar[t]\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "values",
        "wrong only where the t in a batch differ",
    ),
    (
        "q_sample",
        "ab = schedule.alpha_bar[t] if isinstance(t, int) else schedule.alpha_bar[t].item()\nreturn ab**0.5 * x0 + (1 - ab)**0.5 * noise",
        "raises",
        "Line 2 of your cell raises RuntimeError",
    ),
    (
        "q_sample",
        "b = torch.tensor([0.12, 0.35, 0.08, 0.5, 0.22, 0.41, 0.17, 0.3])\nab = torch.cat([torch.ones(1), (1 - b).cumprod(0)])[t]\n"
        "ab = ab.reshape(ab.shape + (1,) * (x0.ndim - ab.ndim)) if ab.ndim else ab\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "values",
        "wrong only for a schedule with another T",
    ),
    ("q_sample", AB + "return (ab.sqrt() * x0 + (1 - ab).sqrt() * noise) / (ab - ab[...])", "nan", "inf"),
    ("next_variance", "(1 - beta) * variance + beta + 0.001", "values", "should be"),
    ("next_variance", "math.sqrt((1 - beta) * variance + beta) ** 2", "raises", "only for tensors"),
    ("merge_noises", "torch.hypot(a, b)", "raises", "only for numbers"),
    ("equal_t", "3", "values", "should be"),
    ("equal_t", "int(schedule.alpha_bar.argmin()) - 2", "values", "should be"),
]


@pytest.mark.parametrize(
    ("name", "body", "problem", "says"), LOCATED, ids=[f"{r[0]}-{i}" for i, r in enumerate(LOCATED)]
)
def test_what_the_catalogue_does_not_know_is_located_and_not_named(name, body, problem, says):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", None), verdict
    assert verdict.problem == problem
    assert says in " ".join(verdict.text) or (says == "Right in 0" and verdict.passed == 0), verdict


RIGHT_AB = "ab = schedule.alpha_bar[t].float().reshape(-1, *[1] * (x0.ndim - 1))\n"
GOOD = "ab.sqrt() * x0 + (1 - ab).sqrt() * noise"
AND_MORE = [
    # a mistake in the formula, and a function that knows images, or ints, or one kind of t alone
    (
        "q_step",
        "b = schedule.beta[t - 1].view(-1, 1, 1, 1)\nreturn (1 - b).sqrt() * x + b.sqrt() * noise",
        "previous_entry",
        "shape",
    ),
    (
        "q_step",
        "b = schedule.beta[t].view(-1, 1, 1, 1)\nreturn (1 - b).sqrt() * x + b * noise",
        "noise_variance",
        "not images",
    ),
    (
        "q_step",
        "b = schedule.beta[t]\nreturn (1 - b).sqrt() * x + b * noise",
        "noise_variance and broadcast_width",
        "Broadcasting",
    ),
    (
        "q_step",
        "b = float(schedule.beta[t])\nreturn (1 - b) ** 0.5 * x + b * noise",
        "noise_variance",
        "for t of shape (B,)",
    ),
    (
        "q_sample",
        "ab = schedule.alpha_bar[t].reshape(len(x0), *[1] * (x0.ndim - 1)).float()\nreturn ab.sqrt() * x0 + (1 - ab) * noise",
        "noise_variance",
        "for an int t",
    ),
    (
        "q_sample",
        "ab = schedule.alpha_bar.gather(-1, t).reshape(-1, 1, 1, 1)\nreturn (1 - ab).sqrt() * x0 + ab.sqrt() * noise",
        "swapped",
        "raises TypeError",
    ),
    (
        "q_sample",
        "ab = schedule.alpha[t].view(-1, 1, 1)\nreturn ab.sqrt() * x0 + (1 - ab).sqrt() * noise",
        "alpha_for_alpha_bar and broadcast_channels",
        "over the channels",
    ),
    (
        "predict_x0",
        "ab = schedule.alpha_bar[t][:, None, None, None]\nreturn (xt - (1 - ab).sqrt() * noise) / ab",
        "division_not_rooted",
        "IndexError",
    ),
    ("merge_noises", "math.sqrt(a + b)", "not_squared", "for tensors"),
    ("merge_noises", "torch.sqrt(a ** 2 + b ** 2) / 2", "averaged_variances", "for numbers"),
    ("next_variance", "math.sqrt(1 - beta) * variance + beta", "factor_not_squared", "line 2 of your cell raises"),
]


@pytest.mark.parametrize(("name", "body", "mistake", "says"), AND_MORE, ids=[str(i) for i in range(len(AND_MORE))])
def test_a_mistake_is_named_where_the_function_returns_something_and_the_rest_is_said_too(name, body, mistake, says):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict
    assert says in " ".join(verdict.text) and len(verdict.text) > 1, verdict


ODD = [
    ("x = x0.clone()\nreturn None", "none", "None"),
    (AB + f"result = {GOOD}", "none", "`return`"),
    (AB + f"return ({GOOD},)", "type", "tuple"),
    (AB + f"return ({GOOD}).numpy()", "type", "NumPy array"),
    (AB + f"return ({GOOD}).tolist()", "type", "list"),
    ("return 0.5", "type", "float"),
    ("return 'x'", "type", "string"),
    (AB + f"yield {GOOD}", "type", "generator"),
    (AB + f"return ({GOOD})[:1]", "shape", "has shape"),
    (AB + f"return ({GOOD}).sum()", "shape", "()"),
    (AB + f"return ({GOOD}).double()", "dtype", "float64"),
    (AB + f"return ({GOOD}).half()", "dtype", "float16"),
    (AB + f"return ({GOOD}).to('meta')", "device", "meta"),
    (AB + f"return ({GOOD}) / 0", "nan", "inf"),
    (AB + f"return ({GOOD}) * float('nan')", "nan", "nan"),
    (AB + "x0 *= ab.sqrt()\nx0 += (1 - ab).sqrt() * noise\nreturn x0", "changed", "`x0`"),
    (AB + f"out = {GOOD}\nnoise.zero_()\nreturn out", "changed", "`noise`"),
    (AB + f"out = {GOOD}\nschedule.alpha_bar[1:] *= 0.5\nreturn out", "changed", "tables"),
    (AB + f"out = {GOOD}\nschedule.beta = None\nreturn out", "changed", "tables"),
    (AB + f"out = {GOOD}\nif torch.is_tensor(t): t += 1\nreturn out", "changed", "`t`"),
    ("return alpha_bar[t] * x0", "raises", "Line 2 of your cell raises NameError: name 'alpha_bar' is not defined"),
    ("return q_sample(schedule, x0, t, noise)", "raises", "RecursionError"),
    ("exit()", "raises", "SystemExit"),
    ("assert False, 'first line\\nsecond line'", "raises", "AssertionError: first line ("),
    ("return schedule.alpha_bars[t]", "raises", "AttributeError"),
]


@pytest.mark.parametrize(("body", "problem", "says"), ODD, ids=[str(i) for i in range(len(ODD))])
def test_odd_results_get_a_sentence(body, problem, says):
    verdict = judge("q_sample", body)
    assert verdict.status == "wrong" and verdict.mistake is None, verdict
    assert verdict.problem == problem, verdict
    text = " ".join(verdict.text)
    assert says in text and "Traceback" not in text, verdict
    assert all(len(line) < 320 for line in verdict.text)


@pytest.mark.parametrize("body", ["raise NotImplementedError", "pass", "...", '"""Words."""', "return None"])
def test_a_stub_is_not_attempted(body):
    assert judge("q_sample", body).status == "not attempted"
