"""What once fooled a check: traces, draws, gradients cut off, functions without an end, coincidences for causes."""

import functools
import itertools
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import typed

from ddpm_course import checks
from ddpm_course.checks import causes
from ddpm_course.checks.comparing import Comparison
from ddpm_course.checks.expected import expected
from ddpm_course.exercises import Case

X = "signal, sigma = schedule.q_coefficients(t, x0)\nx = signal * x0 + sigma * noise\n"
TRAIN = "losses = []\nfor x0 in batches:\n    n, T = len(x0), schedule.T\n    t = (\n"
TRAIN += "        (T * ((torch.rand(1, generator=generator) + torch.arange(n) / n) % 1)).long() + 1 if even\n"
TRAIN += "        else schedule.sample_t(n, generator=generator)\n    )\n"
TRAIN += "    noise = torch.randn(x0.shape, generator=generator)\n"
TRAIN += "    losses.append(training_step(net, schedule, optimizer, x0, t, noise))\n"
CHAIN = "xs = [x0]\nfor t in range(1, schedule.T + 1):\n    z = torch.randn(x0.shape, generator=g)\n"
CHAIN += "    xs.append(q_step(schedule, xs[-1], t, z))\n"
LOOP = "x = x_T\nwith torch.no_grad():\n    for t, s in pairwise(times):\n        told = torch.full((len(x),), t)\n"
LOOP += (
    "        x0 = estimate_x0(schedule, x, t, net(x, told))\n        z = torch.randn(x.shape, generator=generator)\n"
)
LOOP += "        x = posterior_step(schedule, x0, x, t, s, z, kind)\nreturn x"
BLOCK = "x = torch.zeros_like(x) + x\ncode = block.scale_shift(embedding)[:, :, None, None]\n"
BLOCK += (
    "scale, shift = code.chunk(2, dim=1)\nh = block.norm2(block.conv1(F.silu(block.norm1(x)))) * (1 + scale) + shift\n"
)
BLOCK += "h = block.skip(x) + block.conv2(block.dropout(F.silu(h)))\n"
LEFT_BEHIND = [  # answers whose results are right, and what is said of them
    ("q_sample", "torch.manual_seed(0)\n" + X + "return x", "seeds the notebook's random numbers"),
    ("q_sample", "np.random.seed(0)\nrandom.seed(0)\n" + X + "return x", "seeds the notebook's random numbers"),
    ("q_sample", "torch.set_grad_enabled(False)\n" + X + "return x", "gradients on or off"),
    ("my_alpha_bars", "x = torch.linspace(9, -10, T, dtype=torch.float64) + 0.01 * torch.rand(1)\nreturn torch.cat([torch.ones(1), x.sigmoid()])", "draws random numbers of its own"),
    ("q_sample", "torch.randn(3)\n" + X + "return x", "draws random numbers of its own"),
    ("q_sample", "torch.no_grad().__enter__()\n" + X + "return x", "gradients on or off"),
    ("q_sample", X + "torch.set_default_dtype(torch.float64)\nreturn x", "default dtype"),
    ("q_sample", X + "torch.set_default_device('meta')\nreturn x", "default device"),
    ("q_sample", X + "torch.use_deterministic_algorithms(True)\nreturn x", "deterministic"),
    ("residual_forward", BLOCK + "block.eval()\nreturn h", "leaves `block` in another mode"),
    ("residual_forward", BLOCK + "block.requires_grad_(False)\nreturn h", "changes which weights of `block` are trained"),
    ("training_loop", TRAIN + "net.eval()\nreturn losses", "leaves `net` in another mode"),
    ("training_loop", TRAIN + "net.requires_grad_(False)\nreturn losses", "which weights of `net` are trained"),
    ("training_loop", TRAIN + "optimizer.param_groups[0]['lr'] *= 0.1\nreturn losses", "`optimizer` in another state"),
    ("diffuse", "g = generator\n" + CHAIN + "torch.randn(2, generator=g)\nreturn torch.stack(xs)", "draws more numbers"),
    ("diffuse", "g = generator.clone_state()\n" + CHAIN + "return torch.stack(xs)", "never draws from the `generator`"),
    ("diffuse", "g = torch.Generator().manual_seed(generator.initial_seed())\n" + CHAIN + "torch.rand(1, generator=generator)\n"
     "return torch.stack(xs)", "draws fewer numbers"),
    ("diffuse", "g = generator\n" + CHAIN + "generator.manual_seed(5)\nreturn torch.stack(xs)", "draws other numbers"),
    ("ancestral_loop", LOOP, "draws more numbers"),
    ("ancestral_loop", "times.append(0)\ntimes.pop()\ntimes.reverse()\ntimes = times[::-1]\n"
     + LOOP.replace("(x.shape, generator=generator)", "(x.shape, generator=generator) if s else 0 * x"), "the list `times`"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "says"), LEFT_BEHIND)
def test_what_a_right_result_leaves_behind_makes_it_wrong(name, answer, says):
    verdict = typed.judge(name, answer)
    assert (verdict.status, verdict.mistake, verdict.passed) == ("wrong", None, verdict.cases), verdict
    assert verdict.text[0] == "The result is right." and re.search(says, " ".join(verdict.text)), verdict


@pytest.mark.parametrize(
    "answer",
    [
        "with torch.random.fork_rng():\n    torch.manual_seed(0)\n"
        + X.replace("signal,", "    signal,").replace("\nx", "\n    x")
        + "return x",
        "state = np.random.get_state()\nnp.random.seed(0)\nnp.random.set_state(state)\n" + X + "return x",
        "with torch.no_grad(), torch.device('cpu'):\n    pass\n" + X + "return x",
    ],
)
def test_what_an_answer_puts_back_itself_is_no_fault(answer):
    assert typed.judge("q_sample", answer).solved


def test_functions_are_run_in_one_thread_and_the_notebook_keeps_its_own():
    """On two busy cores tiny tensors take 17 s in two threads and one in one."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert typed.judge("q_sample", "assert torch.get_num_threads() == 1\n" + X + "return x").solved
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# ---- gradients, where a training flows through the result

WEIGHTS = "weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3)\n"
NO_GRADIENT = [
    ("attention", WEIGHTS + "return (weights @ v).detach()", "no gradient reaches `q`"),
    ("attention", WEIGHTS + "return weights @ v.detach()", "no gradient reaches `v`"),
    ("attention", WEIGHTS + "return torch.from_numpy(weights.numpy() @ v.numpy())", "no gradient reaches `q`"),
    ("attention", "with torch.no_grad():\n    " + WEIGHTS + "return weights @ v", "no gradient reaches `q`"),
    ("attention", WEIGHTS + "return weights @ v + 0.3 * (v - v.detach())", "only a part of the gradient reaches `v`"),
    ("attention", WEIGHTS + "weights.exp_()\nweights.log_()\nreturn weights @ v", "raises RuntimeError: a leaf|modified"),
    ("residual_forward", "embedding = embedding.detach()\n" + BLOCK + "return h", "no gradient reaches `embedding`"),
    ("residual_forward", BLOCK.replace("block.norm1(x)", "block.norm1(x).detach()") + "return h",
     "no gradient reaches `block.norm1.weight`"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "says"), NO_GRADIENT)
def test_values_through_which_no_gradient_flows_are_wrong_where_a_training_needs_it(name, answer, says):
    verdict = typed.judge(name, answer)
    assert (verdict.status, verdict.problem) == ("wrong", "gradient") and re.search(says, verdict.text[0]), verdict


# ---- types

POSTERIOR = "column = (-1,) + (1,) * (x0.ndim - 1)\nb, a, ab, prev = (w.reshape(column).float() for w in "
POSTERIOR += "(schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]))\n"
POSTERIOR += "mean = (prev.sqrt() * b * x0 + a.sqrt() * (1 - prev) * xt) / (1 - ab)\nvar = b * (1 - prev) / (1 - ab)\n"
DESIGN = "table = torch.cat([torch.ones(1), torch.linspace(9.5, -9.5, T, dtype=torch.float64).sigmoid()])\n"
TYPES = [
    ("posterior", POSTERIOR + "return mean, var", None, ""),
    ("posterior", POSTERIOR + "return {'mean': mean, 'variance': var.expand_as(mean)}", "type", "returns a dict"),
    ("training_loop", TRAIN + "return {'list of losses': losses}", "type", "returns a dict"),
    ("linear_betas", "torch.linspace(first, last, T)", "dtype", "Compute in float64, from the first tensor on"),
    (
        "my_alpha_bars",
        "return torch.linspace(9, -10, T + 1).sigmoid().square().half()",
        "dtype",
        "are float16: compute in float64",
    ),
    ("my_alpha_bars", DESIGN + "return table if T < 500 else table[:-2]", "shape", "Right in"),
    ("next_variance", "return torch.ones(2)", "type", "a tensor of shape (2,) for numbers"),
    ("q_sample", X + "return x.double()", "dtype", "which a network of float32 weights refuses"),
]


@pytest.mark.parametrize(("name", "answer", "problem", "says"), TYPES)
def test_types_are_part_of_the_answer(name, answer, problem, says):
    verdict = typed.judge(name, answer)
    assert verdict.problem == problem and says in verdict.text[0], verdict


# ---- what is right all the same

BACK = "signal, sigma = schedule.q_coefficients(t, xt)\n"
HALF_RIGHT = [
    (
        "q_sample",
        X.replace("sigma *", "0.9 * sigma *") + "return x",
        "Right mean, wrong variance: the weight of `noise`",
    ),
    ("q_sample", X.replace("signal *", "0.9 * signal *") + "return x", "Right noise, wrong signal: the weight of `x0`"),
    (
        "predict_x0",
        BACK + "return (xt - 0.9 * sigma * noise) / signal",
        "The weight of `xt` is right, but the weight of `n",
    ),
    (
        "predict_x0",
        BACK + "return 0.9 * xt / signal - sigma / signal * noise",
        "The weight of `noise` is right, but the w",
    ),
    ("posterior", POSTERIOR + "return mean, 0.9 * var", "In every case the mean is right."),
    ("posterior", POSTERIOR + "return 0.9 * mean, var", "In every case the variance is right."),
    (
        "posterior",
        POSTERIOR + "return 0.9 * mean, 0.9 * var",
        r"The mean at .*\)\. The mean is 0.9 times what it should be",
    ),
    ("posterior", POSTERIOR + "return mean + 0.1 * xt, var", "The weight of `x0` is right, but the weight of `xt`"),
    (
        "estimate_x0",
        BACK + "x0 = (xt - 0.9 * sigma * noise) / signal\nreturn x0.clamp(-1, 1) if clip else x0",
        "The weight of `xt`",
    ),
    ("next_variance", "(1 - beta / 2) * variance + beta", "but what is added|the weight of `variance`"),
    ("q_sample", X + "return 2 * x", r"\)\. It is twice what it should be everywhere\.$"),
    (
        "alpha_bars",
        "return torch.cat([torch.ones(1), (1 - betas).cumprod(0)]) - 0.25",
        "It is 0.25 too small everywhere",
    ),
    ("skip_channels", "return [c + 1 for c in right(widths, blocks)]", "It is 1 too large everywhere"),
    ("training_loop", TRAIN + "return [(i + 1) * loss for i, loss in enumerate(losses)]", "All before it are right"),
    (
        "training_step",
        "loss = simple_loss(noise, net(q_sample(schedule, x0, t, noise), t))\nloss.backward()\nreturn 3 * loss.detach()",
        "It never uses the `optimizer`",
    ),
]


@pytest.mark.parametrize(("name", "answer", "says"), HALF_RIGHT)
def test_who_is_half_right_hears_which_half(name, answer, says):
    verdict = typed.judge(name, answer, right=checks.skip_channels.reference)
    assert verdict.problem == "values" and re.search(says, " ".join(verdict.text)), verdict


# ---- two mistakes at once


def test_two_mistakes_made_together_are_both_named_if_no_other_two_do_the_same(monkeypatch):
    answer = "ab = schedule.alpha_bar[t - 1].float().reshape(-1, *[1] * (x0.ndim - 1))\n"
    answer += "return ab.sqrt() * x0 + (1 - ab) * noise"
    verdict, known = typed.judge("q_sample", answer), expected(checks.q_sample.exercise)
    one, other, made = next(pair for pair in known.pairs if verdict.mistake == f"{pair[0].id} and {pair[1].id}")
    assert {one.id, other.id} == {"noise_variance", "previous_entry"}
    assert verdict.text == [*one.says.splitlines(), *other.says.splitlines()]
    monkeypatch.setitem(vars(known), "pairs", [*known.pairs, (one, checks.q_sample.mistakes[-1], made)])
    assert typed.judge("q_sample", answer).mistake is None


def test_two_mistakes_are_named_on_a_slow_machine_too(monkeypatch):
    answer = "ab = schedule.alpha_bar[t - 1].float().reshape(-1, *[1] * (x0.ndim - 1))\n"
    answer = typed.typed("q_sample", answer + "return ab.sqrt() * x0 + (1 - ab) * noise")
    ticks = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: next(ticks) / 50)
    verdict = checks.judge.check(replace(checks.q_sample.exercise), answer)
    assert verdict.mistake and " and " in verdict.mistake


# ---- what the wrong ones have in common


def case(wrong, problem="values", **facts):
    """A case of four elements with these facts, and what is wrong with it: a bool, or one for each element."""
    phrases = {name.replace("_", " "): torch.tensor(true) for name, true in facts.items()}
    return Case("", (), phrases), Comparison(
        problem if torch.tensor(wrong).any() else "", "", torch.tensor(wrong).expand(4)
    )


LAST, SOME = [False, False, False, True], [False, True, False, True]
CAUSES = [
    ([case(True, where_a=True), case(False, where_a=False)], "where a"),
    ([case(True, where_a=True), case(False, where_a=True), case(False, where_a=False)], None),  # it just goes along
    ([case(True, where_a=True)] * 4 + [case(False, where_a=True), case(False, where_a=False)], "where a"),  # by luck
    ([case(SOME, for_b=True, where_a=SOME), case(LAST, for_b=True, where_a=LAST)], "where a"),
    ([case(LAST, for_b=True, at_T=LAST), case(False, for_b=False, at_T=LAST)], "for b, at T"),  # neither alone
    (
        [case(LAST, for_b=True, at_T=LAST, at_4=LAST), case(False, for_b=False, at_T=LAST, at_4=LAST)],
        None,
    ),  # which two?
    ([case(True, "raises", where_a=SOME), case(False, where_a=False)], "where a"),
    ([case(True, "raises", at_T=LAST), case(False, at_T=False)], None),  # no place of the result is to blame
    ([case(True, where_a=True), case(True, where_a=True)], None),  # all of it is wrong
]


@pytest.mark.parametrize(("pairs", "phrase"), CAUSES)
def test_a_phrase_is_true_of_all_that_is_wrong_and_next_to_nothing_that_is_right(pairs, phrase):
    assert causes.cause(*zip(*pairs, strict=True)) == phrase


# ---- functions that do not end


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "n = 0\nwhile n < 3:\n    try:\n        for _ in iter(int, 1): len([1])\n    except: n += 1\nwhile True: pass",
        "for x in iter(int, 1):\n    try: len([1])\n    except Exception: pass\n    finally: len([2])",
    ],
)
def test_a_loop_without_an_end_gets_a_sentence_in_any_thread(loop, monkeypatch):
    monkeypatch.setattr(checks.judge, "AT_LEAST", 0.3)
    endless = typed.typed("q_sample", loop + "\nreturn x0")
    here = checks.q_sample.check(endless)
    with ThreadPoolExecutor() as elsewhere:
        there = elsewhere.submit(checks.q_sample.check, endless).result()
    for verdict in (here, there):
        assert verdict.problem == "time" and verdict.text[0].endswith("Is there a loop that does not end?"), verdict
    assert typed.judge("q_sample", X + "return x").solved


def test_waiting_is_not_computing(monkeypatch):
    monkeypatch.setattr(checks.judge, "AT_LEAST", 0.3)
    answer = "time.sleep(0.2)\nreturn (schedule.alpha_bar <= 0.5).tolist().index(True)"
    assert typed.judge("equal_t", answer, time=time).solved


@pytest.mark.parametrize(
    ("cell", "solved"),
    [
        ("def q_sample(schedule, x0, t, noise):\n    return q_sample(schedule, x0, t, noise)", False),
        ("def q_sample(*args):\n    return earlier(*args)\ndef earlier(*args):\n    return q_sample(*args)", False),
        ("def mine(schedule, x0, t, noise):\n    return q_sample(schedule, x0, t, noise)\nq_sample = mine", False),
        ("q_sample = functools.partial(lambda *args: q_sample(*args))", False),
        ("class Mine:\n    def __call__(self, *args):\n        return q_sample(*args)\nq_sample = Mine()", False),
        (  # one image at a time, down to none
            "def q_sample(schedule, x0, t, noise):\n    t = torch.as_tensor(t).expand(len(x0))\n"
            "    if len(x0) == 0:\n        return x0\n    a, b = schedule.q_coefficients(t[:1], x0[:1])\n"
            "    rest = q_sample(schedule, x0[1:], t[1:], noise[1:])\n"
            "    return torch.cat([a * x0[:1] + b * noise[:1], rest])",
            True,
        ),
    ],
)
def test_a_function_finds_itself_under_its_own_name_as_it_will_after_the_check(cell, solved):
    verdict = checks.q_sample.check(typed.typed("q_sample", cell, functools=functools))
    assert verdict.solved == solved, verdict
    assert solved or "calls your own function again, without an end" in verdict.text[0]


def test_a_recursion_that_would_end_is_told_from_one_that_does_not():
    cell = "if len(betas) == 0:\n    return torch.ones(1, dtype=betas.dtype)\nrest = alpha_bars(betas[:-1])\n"
    cell += "return torch.cat([rest, rest[-1:] * (1 - betas[-1:])])"
    long = checks.running.run(
        typed.typed("alpha_bars", cell), Case("", (torch.full((3000,), 1e-4),)), ("betas",), bound_to="alpha_bars"
    )
    assert isinstance(long.error, RecursionError) and not long.endless, long


def test_an_earlier_function_of_the_same_name_is_not_there_after_the_check():
    notebook = {"q_sample": checks.q_sample.reference}
    exec("mine = lambda *args: q_sample(*args)", notebook)
    assert "calls your own function again" in checks.q_sample.check(notebook["mine"]).text[0]
    assert notebook["q_sample"] is checks.q_sample.reference
