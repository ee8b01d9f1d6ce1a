"""What a check does besides judging: what it returns, prints, leaves alone, and does under nbgrader."""

import contextlib
import functools
import io
import random
import re
import sys
import warnings
from unittest.mock import Mock

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from ddpm_course import checks, diffusion
from ddpm_course.checks import traces

CHECK = "q_sample = checks.q_sample(q_sample)"
Q_SAMPLE = "def q_sample(schedule, x0, t, noise):\n    "


def right(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma * noise


def wrong(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma**2 * noise


def broken(schedule, x0, t, noise):
    return schedule.alphas_bar


def chatty(schedule, x0, t, noise):
    print("t is", t, *range(1000), sep="\n")
    print("careful", file=sys.stderr)
    warnings.warn("slow", stacklevel=1)
    return right(schedule, x0, t, noise)


class Sampler:
    def __call__(self, schedule, x0, t, noise):
        return right(schedule, x0, t, noise)


STUB = Mock(side_effect=NotImplementedError())
ERRORS = [SystemExit(1), GeneratorExit(), MemoryError(), RecursionError("deep"), StopIteration()]
LINE = f"Line {broken.__code__.co_firstlineno + 1} of test_checks_behaviour.py"
GIVEN = [  # to the check; the verdict's status; a pattern in what is shown
    (right, "solved", "✓ Exercise 2.3, q_sample: solved"),
    (Sampler(), "solved", "✓ Exercise 2.3"),
    (Sampler, "solved", "✓ Exercise 2.3"),  # becomes an instance
    (lambda s, x, k, e, scale=1.0: right(s, x, k, e) * scale, "solved", "✓ Exercise 2.3"),
    (chatty, "solved", "solved.*t is.*992 lines more"),
    (wrong, "wrong", "✗ Exercise 2.3.*variance.*lesson 02, 'The closed form'"),
    (STUB, "not attempted", "○ Exercise 2.3, q_sample: not attempted yet.*Begin here"),
    (diffusion.q_sample, "package", "↻ Exercise 2.3.*Run the exercise cell again"),  # the check cell, run twice
    (functools.partial(diffusion.q_sample), "package", "↻ Exercise 2.3"),
    (None, "wrong", "not a function"),
    (torch.ones(2), "wrong", "not a function"),
    (lambda x0, t: x0, "wrong", r"yours takes \(x0, t\)"),
    (lambda schedule, x0, t, noise, *, device: x0, "wrong", "yours takes"),
    (type("Sampler", (Sampler,), {"__init__": lambda self, T: None}), "wrong", r"yours takes \(T\)"),
    (broken, "wrong", f"{LINE} raises AttributeError: 'Schedule' object has no"),
    *((Mock(side_effect=error), "wrong", f"raises {type(error).__name__}") for error in ERRORS),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("given", "status", "says"), GIVEN)
def test_the_lesson_goes_on_with_a_function_that_passes_or_the_packages(given, status, says, capsys):
    bound, expected = checks.q_sample(given), given if status == "solved" else checks.q_sample.reference
    assert bound is expected or type(bound) is expected
    out, err = capsys.readouterr()
    assert checks.q_sample.verdict.status == status and re.search(says, out, re.DOTALL), out
    assert "Traceback" not in out and len(out.splitlines()) < 16 and not err


def test_a_name_that_is_no_exercise_is_an_error_like_any_other():
    assert "q_sample" in dir(checks) and not hasattr(checks, "q_simple")
    with pytest.raises(ValueError, match="there are to_model_range, to_uint8"):
        checks.reset("q_simple")


# ---- nothing is left behind


def test_the_process_and_the_cases_are_as_they_were():
    def vandal(schedule, x0, t, noise):
        torch.randn(3)
        np.random.seed(1)
        random.seed(1)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        np.seterr(all="raise")
        torch.set_num_threads(torch.get_num_threads() + 2)
        for tensor in (schedule.alpha_bar, x0, noise):
            tensor.zero_()
        return x0

    def state():
        modes = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
        return traces.random_state(), np.geterr(), *modes

    before = state()
    for function in (vandal, right, wrong):
        checks.q_sample(function)
        assert state() == before
    with pytest.raises(KeyboardInterrupt):  # it alone gets out
        checks.q_sample(Mock(side_effect=KeyboardInterrupt()))
    assert state() == before
    for case, made_anew in zip(checks.q_sample.cases, checks.q_sample.exercise.make_cases(), strict=True):
        assert traces.same_argument(case.args, made_anew.args)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_grad_mode_and_default_dtype_will_do(mode):
    torch.set_default_dtype(torch.float64)
    try:
        with mode():
            assert checks.q_sample.check(right).solved
            assert checks.q_sample.check(wrong).mistake == "noise_variance"
        for check in checks.EXERCISES:
            check.exercise.make_cases()
    finally:
        torch.set_default_dtype(torch.float32)


# ---- what is shown


def test_a_terminal_with_an_old_code_page_gets_the_text_all_the_same(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    checks.q_sample(wrong)
    out.flush()
    assert b"Exercise 2.3, q_sample: not right yet." in out.buffer.getvalue()


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([f"# a comment\n\n{Q_SAMPLE}a = 1\n    return schedule.alphas[t]"], "Line 5 of your cell raises AttributeE"),
        ([f"%%time\n{Q_SAMPLE}return schedule.alphas[t]"], "Line 3 of your cell raises AttributeError"),
        ([f"{Q_SAMPLE}return torch.nn.functional.group_norm(x0, 'two')"], "Line 2 of your cell raises TypeError"),
        (["def helper(s):\n    s.a", f"{Q_SAMPLE}helper(schedule)"], "Line 2 of the cell that defines helper raises"),
        (["a = torch.tensor(0.3)", f"{Q_SAMPLE}return a * x0 + noise"], "It reads `a` from the notebook"),
    ],
)
def test_line_numbers_and_variables_are_the_notebooks(shell, cells, says, capsys):
    assert all(shell.run(cell).success for cell in [*cells, CHECK])
    assert says in capsys.readouterr().out


# ---- nbgrader


@pytest.mark.parametrize("value", ["autograde", "validate", ""])
def test_nbgrader_rebinds_the_name_and_then_raises(value, monkeypatch, capsys):
    """So it does for an earlier exercise whose cell did not run, and when the time is up: nbgrader then interrupts."""
    monkeypatch.setenv("NBGRADER_EXECUTION", value)
    too_slow = Mock(side_effect=KeyboardInterrupt())
    for given in (wrong, STUB, diffusion.q_sample, None, too_slow, right):
        namespace = {"checks": checks, "q_sample": given}
        fails = pytest.raises(checks.CheckFailed, match="Exercise 2.3, q_sample")
        with contextlib.nullcontext() if given is right else fails:
            exec(CHECK, namespace)
        assert namespace["q_sample"] is (right if given is right else checks.q_sample.reference)
        assert namespace["merge_noises"] is checks.merge_noises.reference
    out, err = capsys.readouterr()
    assert "solved" in out and not err


SESSION = [
    "import os\nimport torch\nfrom ddpm_course import checks\ndel os.environ['DDPM_COURSE_SAVE']",
    f"# a comment\n{Q_SAMPLE}return schedule.alphas[t]",
    CHECK,
    "%%time\nclass QSample:\n    def __call__(self, schedule, x0, t, noise):\n"
    "        a, b = schedule.q_coefficients(t, x0)\n        return a * x0 + b * noise\n\nq_sample = QSample()",
    CHECK,
    "q_sample = checks.q_sample('<script>')",
    "checks.reset('q_sample')\nchecks.progress();",
]


def test_in_a_kernel_verdicts_are_html_with_the_same_text_beside_it_and_sources_are_found(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in SESSION])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    shown = [output.data for output in outputs if output.output_type == "display_data"]
    assert all("border-left" in data["text/html"] for data in shown)
    wrong, solved, escaped, stub, progress = (data["text/plain"] for data in shown)
    assert "Line 3 of your cell raises AttributeError" in wrong
    assert "✓ Exercise 2.3" in solved and "Saved in my_ddpm.py" in solved
    assert "<script>" in escaped and "<script>" not in shown[2]["text/html"]
    assert all(line in stub for line in checks.q_sample.stub.strip().splitlines())
    assert f"1 of {len(checks.EXERCISES)} exercises solved" in progress
    assert "class QSample" in (tmp_path / "my_ddpm.py").read_text(encoding="utf-8")
