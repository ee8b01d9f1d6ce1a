"""What the checks say to answers typed as students type them (tests/answers), and to solutions in other clothes.

None of the typed answers is made from the catalogue. Those that are `located` hold two mistakes, or one that no
catalogue knows, and must never be given a name.
"""

import functools

import pytest
import torch
import typed
from torch.utils._pytree import tree_map_only

from ddpm_course import checks
from ddpm_course.classroom.grading.unseen import unseen

FILES = sorted(typed.FOLDER.glob("*.answers"))
ANSWERS = [answer for path in FILES for answer in typed.read(path)]
EVERY_CHECK = pytest.mark.parametrize("check", checks.EXERCISES, ids=lambda check: check.name)


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_an_answer_gets_its_verdict(answer):
    verdict = getattr(checks, answer.exercise).check(answer.function())
    assert not answer.complaint(verdict)
    assert verdict.status != "solved" or verdict.passed == verdict.cases
    assert "Traceback" not in str(verdict.text) and all(len(line) < 320 for line in verdict.text)


@EVERY_CHECK
def test_every_exercise_has_right_and_wrong_answers_of_its_own(check):
    own = [answer for answer in ANSWERS if answer.exercise == check.name]
    right = [answer for answer in own if answer.verdict == "right"]
    named = {answer.name for answer in own if answer.verdict == "wrong"}
    assert len(right) >= 2 and len(named) >= min(8, len(check.mistakes))


RIGHT = [answer for answer in ANSWERS if answer.verdict == "right"]


@pytest.mark.parametrize("answer", RIGHT, ids=str)
def test_a_right_answer_is_right_on_inputs_that_nobody_has_seen(answer):
    """Which the report asks for as well, so that a table of results is no answer."""
    exercise = getattr(checks, answer.exercise).exercise
    verdict = checks.judge.check(unseen(exercise, 1), answer.function())
    assert verdict.solved, verdict


@EVERY_CHECK
def test_inputs_that_nobody_has_seen_have_other_results(check):
    seen, other = check.exercise, unseen(check.exercise, 1)
    known = [outcome.value for outcome in checks.judge.attempts(seen, seen.reference, 60)]
    table = iter(known)
    assert not checks.judge.check(other, lambda *args: next(table)).solved


# ---- the solutions in other clothes


def tensors(change, value):
    return tree_map_only(torch.Tensor, change, value)


def in_float64(f):
    def double(*args):
        given = [a.dtype for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()]
        result = f(*tensors(lambda a: a.double() if a.is_floating_point() else a, args))
        return tensors(lambda r: r.to(given[0]) if given and r.dtype == torch.float64 else r, result)

    return double


def image_by_image(f):
    def loop(*args):
        n = next(len(a) for a in args if isinstance(a, torch.Tensor) and a.ndim)
        rows = [[a[i : i + 1] if isinstance(a, torch.Tensor) and a.ndim else a for a in args] for i in range(n)]
        return torch.cat([f(*row) for row in rows])

    return loop


def through_numpy(f):
    def numpy(*args):
        return tensors(lambda r: torch.from_numpy(r.detach().numpy().copy()), f(*args))

    return numpy


def as_class(f):
    class Answer:
        def __call__(self, *args):
            return f(*args)

    return Answer()


def decorated(f):
    @functools.wraps(f)
    def run(*args):
        return f(*args)

    return run


def transposed(f):
    def turned(x):
        return x.transpose(0, -1).contiguous().transpose(0, -1) if x.ndim > 1 else x

    return lambda *args: tensors(turned, f(*tensors(turned, args)))


def copy_in_place(f):
    def change(*args):
        return tensors(lambda r: r.clone().mul_(2).div_(2) if r.is_floating_point() else r, f(*args))

    return change


# What takes a network of float32 weights, and what a gradient has to reach: there NumPy and float64 are no right answers.
NETWORKS = {"residual_forward", "unet_forward", "training_step", "training_loop", "ancestral_loop", "repaired_sampler"}
NETWORKS |= {
    "train_once",
    "draw",
    "accumulated_gradient",
    "scaled_step",
    "state_to_save",
    "encode",
    "flow_matching_loss",
}
FLOWS = {"residual_forward", "unet_forward", "attention", "space_to_depth", "transposed_convolution", "simple_loss"}
ROWS = {"to_model_range", "to_uint8", "q_step", "q_sample", "predict_x0", "sinusoidal_embedding", "attention"}
ROWS |= {"space_to_depth", "mean_from_noise", "estimate_x0", "discretised_log_likelihood"}
ROWS |= {"prepare_pixels", "time_code", "add_noise", "score_from_noise", "velocity_from_v", "ode_drift", "my_score"}
CLOTHES = {
    in_float64: lambda name: name not in NETWORKS,
    image_by_image: lambda name: name in ROWS,
    through_numpy: lambda name: name not in NETWORKS | FLOWS,
    as_class: lambda name: True,
    functools.partial: lambda name: True,
    decorated: lambda name: True,
    transposed: lambda name: True,
    copy_in_place: lambda name: True,
}
ROWS_OF_CLOTHES = [(c.name, dress) for c in checks.EXERCISES for dress, fits in CLOTHES.items() if fits(c.name)]


@pytest.mark.parametrize(("name", "dress"), ROWS_OF_CLOTHES, ids=lambda v: getattr(v, "__name__", v))
def test_a_solution_passes_however_it_is_wrapped(name, dress):
    check = getattr(checks, name)
    verdict = check.check(dress(typed.typed(name, check.exercise.cell)))
    assert verdict.solved, verdict
