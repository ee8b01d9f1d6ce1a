"""The exercises' records: mistakes can be told apart and get their names, stubs are not attempted."""

import inspect
import itertools
import re

import lessons
import pytest
import torch

from ddpm_course import checks
from ddpm_course.checks.expected import expected
from ddpm_course.checks.traces import same_argument
from ddpm_course.exercises import EXERCISES

ALL = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
EVERY_CHECK = pytest.mark.parametrize("check", checks.EXERCISES, ids=lambda check: check.name)


def alike(exercise, one, other, tolerance):
    """Does one function do on every case what the other does?"""
    known, tolerance = expected(exercise), tolerance * exercise.tolerance
    return all(known.agrees(known.outcome(one, i), other, i, tolerance) for i in range(len(exercise.cases)))


@ALL
def test_mistakes_differ_from_each_other_and_from_the_right_answer(exercise):
    """By 50 tolerances on some element of some case, or by shape, or by raising. Variants of one mistake by one."""
    made = [(mistake, variant) for mistake in exercise.mistakes for variant in mistake.variants]
    known, n = expected(exercise), len(exercise.cases)
    for mistake, variant in made:
        assert not alike(exercise, exercise.reference, variant, 50), f"{mistake.id} is right"
        assert not all(known.outcome(variant, i).error for i in range(n)), f"{mistake.id} raises everywhere"
    for (mistake, variant), (other, another) in itertools.permutations(made, 2):
        tolerances = 1 if mistake is other else 50
        assert not alike(exercise, variant, another, tolerances), (mistake.id, other.id)


@EVERY_CHECK
def test_every_variant_gets_the_name_of_its_mistake_and_other_right_answers_are_solved(check):
    catalogue = [(mistake, "wrong", mistake.id) for mistake in check.mistakes]
    for entry, status, name in catalogue + [(other, "solved", None) for other in check.exercise.alternatives]:
        for variant in entry.variants:
            verdict = check.check(lambda *args, variant=variant: variant(*args))
            assert (verdict.status, verdict.mistake) == (status, name)
            assert status == "wrong" or verdict.passed == verdict.cases == len(check.cases)


@ALL
def test_messages_name_a_heading_of_a_lesson_and_are_short(exercise):
    assert len({mistake.id for mistake in exercise.mistakes}) == len(exercise.mistakes)
    for mistake in exercise.mistakes:
        sources = re.findall(r"lesson (\d\d), '([^']+)'", mistake.says)
        assert sources, mistake.says
        for number, section in sources:
            cells = lessons.by_number(number).markdown
            headings = [h for cell in cells for h in re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)]
            assert any(h == section or h.startswith(section + ":") for h in headings), (number, section)
        assert all(len(line) < 260 for line in mistake.says.splitlines()), mistake.says


@ALL
def test_cases_are_the_same_every_time(exercise):
    for case, again in zip(exercise.cases, exercise.make_cases(), strict=True):
        for x, y in zip(case.args, again.args, strict=True):
            known = isinstance(x, torch.Tensor | torch.nn.Module | torch.optim.Optimizer | list)
            assert same_argument(x, y) and (known or x == y)


@EVERY_CHECK
def test_the_stub_is_not_attempted_and_the_packages_own_function_is_never_solved(check):
    namespace = {}
    exec(check.stub, namespace)
    stub = namespace[check.name]
    assert tuple(inspect.signature(stub).parameters)[-1] == check.exercise.arguments[-1]
    assert inspect.getdoc(stub) and check.check(stub).status == "not attempted"
    assert check.check(check.reference).status == "package"
