"""Lesson 05's checks: what tests more than a verdict. The typed answers are in answers/lesson05.answers."""

import torch
import typed

from ddpm_course import checks
from ddpm_course.checks import library
from ddpm_course.exercises import lesson05


def test_a_check_of_training_leaves_the_cases_networks_as_they_were():
    for name in ("training_step", "training_loop"):
        exercise = getattr(checks, name)
        before = [case.args[0].weights.detach().clone() for case in exercise.cases]
        assert exercise.check(typed.typed(name, exercise.exercise.cell)).solved
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
