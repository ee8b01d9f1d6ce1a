"""The catalogues themselves: every mistake can be told from every other, and from the right answer."""

import ast
import inspect
import itertools
import re

import pytest
import torch

from ddpm_course import checks
from ddpm_course.checks.comparing import same
from ddpm_course.checks.running import same_argument

SECTIONS = {
    "lesson 00": {"Exercise 0.1"},
    "lesson 01": {
        "Scaling the noise",
        "One pixel by hand",
        "The whole chain",
        "The variance of the chain",
        "To and from [−1, 1]",
    },
    "lesson 02": {
        "The sum of two Gaussians",
        "The pattern",
        "The closed form",
        "Broadcasting",
        "Counting from 1",
        "Back to the image",
        "Signal and noise",
    },
    "lesson 03": {
        "Linear and quadratic",
        "The cosine schedule",
        "The prior term",
        "Rescaling with T",
        "The spread of log-SNR",
        "Design your own",
    },
    "lesson 04": {
        "Telling the network t",
        "The wrong axis",
        "Attention",
        "Halving the resolution",
        "Doubling the resolution",
        "Counting the channels",
        "The residual block",
        "The assembly",
    },
    "lesson 08": {
        "Nats and bits",
        "The bound, term by term",
        "The Fréchet distance",
        "The number of samples",
        "The nearest training image",
        "Counting classes",
    },
    "lesson 05": {
        "The divergence of two Gaussians",
        "The posterior",
        "From means to noise",
        "The weight",
        "The simple loss",
        "L1, L2 and Huber",
        "The last step",
        "Algorithm 1",
        "Three targets",
    },
    "lesson 06": {
        "Algorithm 2, line by line",
        "Through the estimate of x_0",
        "Clipping",
        "Any step from t to s",
        "Which variance",
        "The last step",
        "A gallery of broken samplers",
    },
}
ALL = pytest.mark.parametrize("exercise", checks.EXERCISES, ids=lambda e: e.name)


def outcomes(exercise, function):
    return [exercise.of_variant(function, i) for i in range(len(exercise.cases))]


@ALL
def test_mistakes_differ_from_each_other_and_from_the_right_answer(exercise):
    """By 50 tolerances on some element of some case, or by shape, or by raising."""
    tolerance = 50 * exercise.tolerance
    right = outcomes(exercise, exercise.reference)
    made = [(m.id, i, outcomes(exercise, v)) for m in exercise.mistakes for i, v in enumerate(m.variants)]
    for id, i, results in made:
        assert not all(same(a, b, tolerance) for a, b in zip(right, results, strict=True)), f"{id}[{i}] is right"
    alike = [
        (one, i, other, j)
        for (one, i, a), (other, j, b) in itertools.combinations(made, 2)
        if one != other and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    ]
    assert not alike


@ALL
def test_every_variant_gets_the_name_of_its_mistake(exercise):
    for mistake in exercise.mistakes:
        for variant in mistake.variants:
            verdict = exercise.check(lambda *args, variant=variant: variant(*args))
            assert (verdict.status, verdict.mistake) == ("wrong", mistake.id)


@ALL
def test_right_answers_of_another_form_count_as_solved(exercise):
    for other in exercise.alternatives:
        for variant in other.variants:
            verdict = exercise.check(lambda *args, variant=variant: variant(*args))
            assert verdict.solved and (verdict.passed, verdict.cases) == (len(exercise.cases),) * 2


@ALL
def test_no_variant_is_there_twice_or_raises_everywhere(exercise):
    for mistake in exercise.mistakes:
        made = [outcomes(exercise, v) for v in mistake.variants]
        assert not any(all(o.error for o in results) for results in made), mistake.id
        for a, b in itertools.combinations(made, 2):
            assert not all(same(x, y, exercise.tolerance) for x, y in zip(a, b, strict=True)), mistake.id


@ALL
def test_messages_name_a_section_of_the_lesson_and_are_short(exercise):
    ids = [mistake.id for mistake in exercise.mistakes]
    assert len(set(ids)) == len(ids)
    for mistake in exercise.mistakes:
        sources = re.findall(r"(lesson \d\d), '([^']+)'", mistake.says)
        assert sources and all(section in SECTIONS[lesson] for lesson, section in sources), mistake.says
        assert all(len(line) < 260 for line in mistake.says.splitlines()), mistake.says


@ALL
def test_stub_has_the_arguments_and_is_not_attempted(exercise):
    namespace = {}
    exec(exercise.stub, namespace)
    stub = namespace[exercise.name]
    assert tuple(inspect.signature(stub).parameters)[-1] == exercise.arguments[-1]
    assert ast.get_docstring(ast.parse(exercise.stub).body[0])
    assert exercise.check(stub).status == "not attempted"


def test_cases_are_the_same_every_time():
    for exercise in checks.EXERCISES:
        again = exercise.make_cases()
        for a, b in zip(exercise.cases, again, strict=True):
            for x, y in zip(a.args, b.args, strict=True):
                assert same_argument(x, y) and (
                    isinstance(x, torch.Tensor | torch.nn.Module | torch.optim.Optimizer | list) or x == y
                )
