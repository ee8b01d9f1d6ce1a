"""What a check says of wrong answers that have no name: each way to say where they go wrong, and its silence."""

import pytest
import torch
import typed

from ddpm_course import checks
from ddpm_course.checks import calls, causes, patterns, places
from ddpm_course.checks.comparing import Comparison
from ddpm_course.checks.neighbours import CHANGES
from ddpm_course.exercises import Case
from ddpm_course.exercises.catalogue import beside

WANT = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).double()


def failure(got, want=WANT, subject="It"):
    wrong = got != want if got.shape == want.shape else torch.ones(want.shape, dtype=torch.bool)
    return Comparison("values", "", wrong, subject=subject, got=got, want=want)


# ---- right values elsewhere

PLACES = [
    (WANT.reshape(12, 5), "only the shape is another"),
    (WANT[None], "only the shape is another"),
    (WANT.permute(0, 2, 1), "the axes stand in the order (0, 2, 1)"),
    (WANT.cumsum(1), "running sum (cumsum) along axis 1"),
    (WANT.mean((1, 2)), "the mean of what it should be, over axis 1 and 2"),
    (WANT.sum(), "the sum of what it should be, over all values"),
    (WANT.amax(0, keepdim=True), "the largest of what it should be, over axis 0"),
    (WANT[:, :2], "only the beginning of it"),
    (WANT[:, 1:, 1:], "a part is missing"),
    (torch.nn.functional.pad(WANT, (1, 0)), "more is around them"),
    (WANT.flip(0), "stand in other places"),
    (2 * WANT, None),
    (WANT.mean(0) + 1, None),
]


@pytest.mark.parametrize(("got", "says"), PLACES)
def test_right_values_that_stand_elsewhere(got, says):
    found = places.elsewhere([failure(got)], [{}], 1e-6)
    assert (says is None and not found) or says in found[0]


def test_what_is_said_of_places_is_true_of_every_case():
    rows = [failure(WANT.mean(2)), failure(WANT[0, 0].mean(), WANT[0, 0])]
    assert "the mean of what it should be, over its last axis" in places.elsewhere(rows, [{}, {}], 1e-6)[0]
    assert not places.elsewhere([failure(WANT.flip(0)), failure(2 * WANT)], [{}, {}], 1e-6)


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (WANT * 1.5, "values that `x` does not have"),
        (WANT[:2], "only the beginning"),
        (WANT[:1].expand(3, 4, 5), "missing"),
    ],
)
def test_what_has_become_of_values_that_should_only_move(got, says):
    moved = WANT.permute(1, 2, 0).contiguous()
    assert says in places.elsewhere([failure(got)], [{"x": moved}], 1e-6)[0]


# ---- what wrong values have to do with right ones

EXERCISE = checks.q_sample.exercise
RELATIONS = [
    ([0 * WANT + 3, 0 * WANT + 3], "It is 3 everywhere, whatever comes in"),
    ([WANT.clamp(max=0.5), WANT.clamp(max=0.5)], "It is 0.5 wherever it is wrong, and should be more there"),
    ([WANT.clamp(min=0.5), WANT.clamp(min=0.5)], "and should be less there"),
    ([WANT.floor(), WANT.floor()], "cut down to whole numbers"),
    ([WANT.round(decimals=2), WANT.round(decimals=2)], "rounded to 2 decimals"),
    ([1 - WANT, 1 - WANT], "1 minus what it should be"),
    ([3 * WANT, 5 * WANT], "times one number, another in each case"),
    ([torch.cat([3 * WANT[:, :3], WANT[:, 3:] ** 3], 1)] * 2, "3 times what it should be in 90 of the 120 places"),
    ([WANT.half().double(), WANT.half().double()], "nearly right, to 0.0002 of the largest"),
    ([WANT.sign() * 2, WANT.sign() * 2], "takes 2 different values and should take 60"),
    ([WANT**3 + 0.3, WANT**2], None),
]


@pytest.mark.parametrize(("got", "says"), RELATIONS)
def test_what_wrong_values_have_in_common(got, says):
    found = patterns.in_common(EXERCISE, dict(enumerate(map(failure, got))))
    assert (says is None and not found) or says in found[0]


def test_indices_have_no_factor():
    want = torch.arange(1, 61).double()
    assert not patterns.in_common(EXERCISE, {0: failure(2 * want, want)})
    assert "1 too large everywhere" in patterns.in_common(EXERCISE, {0: failure(want + 1, want)})[0]


# ---- whole answers

AB = "ab = schedule.alpha_bar[t].float()\nab = ab.reshape(-1, *[1] * (xt.ndim - 1)) if torch.is_tensor(t) else ab\n"
ORDER = (
    "x = x_T\nwith torch.no_grad():\n    for t, s in pairwise(times):\n        eps = net(x, torch.full((len(x),), t))\n"
)
ORDER += "        x0 = estimate_x0(schedule, x, t, eps)\n        z = torch.randn(x.shape, generator=generator) if s else 0 * x\n"
BLOCK = "h = block.conv1(F.silu(block.norm1(x)))\nscale, shift = block.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)\n"
BLOCK += "h = block.norm2(h) * (1 + scale) + shift\nh = block.dropout(F.silu(h))\n"
LOOP = "losses = []\nfor x0 in batches:\n    n, T = len(x0), schedule.T\n    t = (\n"
LOOP += "        (T * ((torch.rand(1, generator=generator) + torch.arange(n) / n) % 1)).long() + 1 if even\n"
LOOP += "        else schedule.sample_t(n, generator=generator)\n    )\n"
LOOP += "    noise = torch.randn(x0.shape, generator=generator)\n"
LOOP += "    losses.append(training_step(net, schedule, optimizer, x0, t, noise))\n"
LOCATED = [
    ("attention", "F.scaled_dot_product_attention(q, v, k)", "what is right with `k` and `v` exchanged"),
    ("attention", "F.scaled_dot_product_attention(q, k, v, is_causal=True)", "right only for the last of the positions"),
    ("predict_x0", AB + "return ((xt.clamp(-1, 1) - (1 - ab).sqrt() * noise) / ab.sqrt())", "for `xt` clipped to [-1, 1]"),
    ("predict_x0", AB + "return (xt - (1 - ab).sqrt() * noise.tanh()) / ab.sqrt()", "`noise` put through tanh"),
    ("ancestral_loop", ORDER + "        x = posterior_step(schedule, x, x0, t, s, z, kind)\nreturn x", "Call 2 of `net` is given something else"),
    ("ancestral_loop", ORDER.replace("eps = net", "net(x, torch.full((len(x),), t))\n        eps = net")
     + "        x = posterior_step(schedule, x0, x, t, s, z, kind)\nreturn 1.1 * x", "It calls `net` 16 times there and should do so 8"),
    ("ancestral_loop", ORDER + "        x = posterior_step(schedule, x0, x, t, s, z, kind)\nreturn x + 0.01 * x.sin()", "Every call, up to that of `net`"),
    ("residual_forward", BLOCK.replace("F.silu(block.norm1(x))", "F.gelu(block.norm1(x))") + "return block.skip(x) + block.conv2(h)",
     "`block.conv1` is the first layer that is not called"),
    ("residual_forward", BLOCK + "return block.skip(x) + 0.9 * block.conv2(h) + 0.01", "Every call, up to that of `block.skip`|conv2`, is"),
    ("training_loop", LOOP + "    optimizer.step()\nreturn losses", "It calls `optimizer.step` 18 times there and should do so 9"),
    ("posterior_step", "r = checks.posterior_step.reference\nreturn r(schedule, x0, xt, t, s, z, kind) + 0.1 * xt",
     "weight of `x0` and the weight of `z` are right, but the weight of `xt`"),
    ("step_bits", "snr = schedule.alpha_bar / (1 - schedule.alpha_bar)\nreturn (snr[t - 1] - snr[t]) / 3 * error / math.log(2) + 0.1 * error",
     "What is added is right, but the weight of `error`"),
    ("step_bits", "snr = schedule.alpha_bar / (1 - schedule.alpha_bar)\nreturn (snr[1:-1] - snr[2:]).cumsum(0)[t - 2] / 2 * error / math.log(2)",
     "right only where t = 2"),
    ("to_model_range", "return (images.float() / 127.5 - 1).requires_grad_()", "requires_grad is True"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "says"), LOCATED)
def test_where_an_answer_goes_wrong(name, answer, says):
    verdict = typed.judge(name, answer, checks=checks)
    assert verdict.status == "wrong" and not verdict.mistake
    assert any(part in " ".join(verdict.text) for part in says.split("|")), verdict


# ---- what must not be said


def test_weights_are_told_only_where_a_case_determines_them_and_the_first_wrong_row_is_such_a_sum():
    flat = typed.judge("to_model_range", "x = images.float()\nreturn (x / 255 if x.max() > 1 else x) * 2 - 1")
    assert "weight" not in " ".join(flat.text)  # one image of ones leaves them open
    signed = typed.judge("to_model_range", "images.to(torch.int8).float() / 128")
    assert "It is no sum of `images` and a number" in " ".join(signed.text)
    posterior = "c = (-1,) + (1,) * (x0.ndim - 1)\nb, a, ab, p = (w.reshape(c).float() for w in (schedule.beta[t], "
    posterior += "schedule.alpha[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]))\nmean = (p.sqrt() * b * x0 + "
    posterior += "a.sqrt() * (1 - p) * xt) / (1 - ab)\n"
    variance = typed.judge("posterior", posterior + "return mean, b * (1 - ab) / (1 - p).clamp(min=1e-20)")
    assert "mean is right" in variance.text[-1] and "sum of" not in " ".join(variance.text)


def test_what_is_right_only_somewhere_is_said_if_one_phrase_alone_separates():
    def case(wrong, **facts):
        return Case("", (), facts), Comparison("values", "", torch.tensor([wrong]))

    separated = [case(True, a=False, b=True), case(False, a=True, b=True)]
    assert causes.only_right(*zip(*separated, strict=True)) == "a"
    assert causes.only_right(*zip(*separated, case(True, a=True, b=False), strict=True)) is None
    assert causes.only_right(*zip(case(True, a=False, c=False), case(False, a=True, c=True), strict=True)) is None
    assert causes.only_right(*zip(case(True, a=False), case(True, a=False), strict=True)) is None


def test_of_two_mistakes_neither_is_praised():
    assert beside("The mean is right. β_t is too large.") == "β_t is too large."
    assert beside("Right, but never clipped: do it.") == "Never clipped: do it."
    assert beside("The noise is right, but x_0 is scaled.") == "x_0 is scaled."
    kept = "That is right only for equal variances. Theirs may differ: two more terms."
    assert beside(kept) == kept


def test_two_mistakes_that_each_change_the_shape_are_not_named_where_the_shape_is_right():
    skipped = "T = len(alpha_bars) - 1\nout = torch.zeros(T, dtype=alpha_bars.dtype)\nfor t in range(1, T):\n"
    skipped += "    out[t] = 1 - alpha_bars[t + 1] / alpha_bars[t]\nreturn out.clamp(max=largest)"
    verdict = typed.judge("betas_from_alpha_bars", skipped)
    assert not verdict.mistake and "wrong only at t = 1" in verdict.text[0], verdict


def test_calls_are_compared_in_order_and_by_what_is_given():
    one, two = torch.ones(2), torch.zeros(2)
    right = [("net", (one,)), ("net", (two,))]
    assert "Call 2" in calls.first_wrong([right[0], right[0]], right, 1e-4)[0]
    assert not calls.first_wrong([], [], 1e-4)
    assert "Every call" in calls.first_wrong([("net.0", (one,))] * 2, [("net.0", (one,))], 1e-4)[0]


def test_every_change_of_an_argument_is_another_argument():
    x = torch.tensor([[0.3, -1.7], [2.2, 0.4]])
    for phrase, change in CHANGES.items():
        assert not torch.equal(change(x), x), phrase
