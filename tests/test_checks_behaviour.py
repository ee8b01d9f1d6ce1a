"""What a check does besides judging: what it returns, prints, leaves alone, and does under nbgrader."""

import functools
import io
import random
import sys
import warnings

import nbformat
import numpy as np
import pytest
import torch
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from traitlets.config import Config

from ddpm_course import checks, diffusion
from ddpm_course.checks import running
from ddpm_course.checks.core import CheckFailed
from ddpm_course.schedules import linear_schedule


def right(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma * noise


def wrong(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma**2 * noise


def stub(schedule, x0, t, noise):
    raise NotImplementedError


@pytest.fixture(autouse=True)
def nothing_saved(monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_COURSE_SAVE", "0")
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.chdir(tmp_path)


# ---- what the lesson goes on with


def test_the_lesson_goes_on_with_the_students_function_if_it_passes_and_with_the_packages_if_not(capsys):
    assert checks.q_sample(right) is right
    assert "✓ Exercise 2.3, q_sample: solved." in capsys.readouterr().out
    assert checks.q_sample(wrong) is diffusion.q_sample
    assert checks.q_sample.verdict.mistake == "noise_variance"
    out = capsys.readouterr().out
    assert "✗ Exercise 2.3" in out and "variance" in out and "lesson 02, 'The closed form'" in out
    assert checks.q_sample(stub) is diffusion.q_sample
    out = capsys.readouterr().out
    assert "○ Exercise 2.3, q_sample: not attempted yet." in out and "Begin here" in out


def test_a_second_run_after_a_failure_is_not_solved(capsys):
    bound = checks.q_sample(wrong)
    again = checks.q_sample(bound)
    assert again is diffusion.q_sample and checks.q_sample.verdict.status == "package"
    assert "Run the exercise cell again" in capsys.readouterr().out
    assert checks.q_sample(functools.partial(bound)) is diffusion.q_sample
    assert checks.q_sample.verdict.status == "package"


@pytest.mark.parametrize("exercise", checks.EXERCISES, ids=lambda e: e.name)
def test_the_packages_own_function_is_never_solved(exercise, capsys):
    assert exercise(exercise.reference) is exercise.reference
    assert exercise.verdict.status == "package"
    capsys.readouterr()


def test_a_class_is_made_into_an_instance(capsys):
    class Sampler:
        def __call__(self, schedule, x0, t, noise):
            return right(schedule, x0, t, noise)

    assert isinstance(checks.q_sample(Sampler), Sampler)
    mine = Sampler()
    assert checks.q_sample(mine) is mine
    capsys.readouterr()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "not a function"),
        (3, "not a function"),
        (torch.ones(2), "not a function"),
        (lambda x0, t: x0, "yours takes (x0, t)"),
        (lambda: None, "yours takes ()"),
        (lambda schedule, x0, t, noise, *, device: x0, "yours takes"),
        (type("Sampler", (), {"__init__": lambda self, T: None, "__call__": lambda self, *a: None}), "yours takes (T)"),
    ],
)
def test_what_cannot_be_called_as_the_lesson_calls_it_gets_a_sentence(value, says, capsys):
    assert checks.q_sample(value) is diffusion.q_sample
    assert checks.q_sample.verdict.status == "wrong"
    assert says in capsys.readouterr().out


def test_optional_arguments_and_other_names_are_fine():
    assert checks.q_sample.check(lambda s, x, k, e, scale=1.0: right(s, x, k, e) * scale).solved


# ---- errors


def test_an_error_is_one_line_with_the_students_line_number_and_no_traceback(capsys):
    def crashes(schedule, x0, t, noise):
        return helper(schedule)  # the next line of the traceback is this one

    def helper(schedule):
        return schedule.alphas_bar

    checks.q_sample(crashes)
    out = capsys.readouterr()
    line = helper.__code__.co_firstlineno + 1
    assert f"Line {line} of test_checks_behaviour.py raises AttributeError: 'Schedule' object has no" in out.out
    assert "Traceback" not in out.out and not out.err


def test_an_error_inside_a_library_is_reported_at_the_students_line(capsys):
    def crashes(schedule, x0, t, noise):
        return torch.cat([x0, "noise"])

    checks.q_sample(crashes)
    assert f"Line {crashes.__code__.co_firstlineno + 1} of" in capsys.readouterr().out


def test_only_an_interrupt_gets_out(capsys):
    def raises(error):
        def function(schedule, x0, t, noise):
            raise error

        return function

    for error in (SystemExit(1), GeneratorExit(), MemoryError(), RecursionError("deep"), StopIteration()):
        assert checks.q_sample(raises(error)) is diffusion.q_sample
        assert f"raises {type(error).__name__}" in capsys.readouterr().out
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        checks.q_sample(raises(KeyboardInterrupt()))
    assert torch.equal(torch.get_rng_state(), before)


# ---- nothing is left behind


def test_the_process_is_as_it_was(capsys):
    def vandal(schedule, x0, t, noise):
        torch.manual_seed(1)
        torch.randn(3)
        np.random.seed(1)
        random.seed(1)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        np.seterr(all="raise")
        schedule.alpha_bar.zero_()
        x0.zero_()
        noise.zero_()
        return x0

    state = running._random_state(), torch.is_grad_enabled(), torch.get_default_dtype(), np.geterr()
    cases = [[a.clone() if isinstance(a, torch.Tensor) else a for a in case.args] for case in checks.q_sample.cases]
    checks.q_sample(vandal)
    after = running._random_state(), torch.is_grad_enabled(), torch.get_default_dtype(), np.geterr()
    assert after == state
    for case, args in zip(checks.q_sample.cases, cases, strict=True):
        for now, then in zip(case.args, args, strict=True):
            assert torch.equal(now, then) if isinstance(now, torch.Tensor) else now == then
    assert checks.q_sample.check(right).solved
    capsys.readouterr()


def test_a_check_takes_nothing_from_the_random_state(capsys):
    before = running._random_state()
    for function in (right, wrong, stub, lambda s, x, t, e: torch.randn_like(x)):
        checks.q_sample(function)
    assert running._random_state() == before
    capsys.readouterr()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_grad_mode_and_default_dtype_will_do(mode, capsys):
    with mode():
        assert checks.q_sample.check(right).solved
        assert checks.q_sample.check(wrong).mistake == "noise_variance"
    torch.set_default_dtype(torch.float64)
    try:
        assert checks.q_sample.check(right).solved
        for exercise in checks.EXERCISES:
            exercise.make_cases()
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_students_own_schedule_is_not_touched(capsys):
    schedule = linear_schedule(10)
    before = schedule.alpha_bar.clone()
    checks.q_sample(wrong)
    assert torch.equal(schedule.alpha_bar, before)
    capsys.readouterr()


# ---- what is shown


def test_nothing_goes_to_standard_error_and_prints_are_shown_once(capsys):
    def chatty(schedule, x0, t, noise):
        print("t is", t)
        print("careful", file=sys.stderr)
        warnings.warn("slow", stacklevel=1)
        return right(schedule, x0, t, noise)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.q_sample(chatty)
    out, err = capsys.readouterr()
    assert not err and out.count("t is") == 1 and "t is 6" in out and "solved" in out


def test_a_long_print_is_cut():
    def chatty(schedule, x0, t, noise):
        print("\n".join(map(str, range(1000))))
        return right(schedule, x0, t, noise)

    verdict = checks.q_sample.check(chatty)
    assert verdict.solved and len(verdict.text) < 15 and "990 lines more" in verdict.text[-1]


def test_html_only_where_a_kernel_shows_it(capsys, monkeypatch):
    from ddpm_course.checks import report

    class Shell:
        kernel = object()

    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: Shell())
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    checks.q_sample(lambda schedule, x0, t: "<b>")
    assert capsys.readouterr().out == ""
    (data,) = shown
    assert data["text/plain"].startswith("✗ Exercise 2.3") and "border-left" in data["text/html"]
    report.show("title", ["<script>"], "#000000")
    assert "<script>" not in shown[-1]["text/html"] and "&lt;script&gt;" in shown[-1]["text/html"]


def test_a_terminal_with_an_old_code_page_gets_the_text_all_the_same(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    checks.q_sample(wrong)
    out.flush()
    assert b"Exercise 2.3, q_sample: not right yet." in out.buffer.getvalue()


def test_reset_shows_the_stub(capsys):
    assert checks.reset("q_sample") is None
    out = capsys.readouterr().out
    assert all(line.strip() in out for line in checks.q_sample.stub.splitlines())
    with pytest.raises(ValueError, match="there are to_model_range, to_uint8"):
        checks.reset("q_simple")


def test_a_new_exercise_takes_a_record(capsys):
    double = checks.Exercise(
        "3.9",
        "double",
        lambda x: 2 * x,
        lambda: [
            running.Case("x of shape (4,)", (torch.arange(4.0),)),
            running.Case("x of shape (2,)", (torch.ones(2),)),
        ],
        stub="def double(x):\n    raise NotImplementedError",
        first="what is x + x?",
        mistakes=[checks.Mistake("squared", "x² is not 2x (lesson 03, 'Doubling').", lambda x: x**2)],
    )
    mine = functools.partial(torch.mul, 2)
    assert double(mine) is mine
    assert double(lambda x: x * x) is double.reference and double.verdict.mistake == "squared"
    assert double.check(lambda x: x + 1).problem == "values"
    assert "lesson 03" in capsys.readouterr().out


# ---- nbgrader


@pytest.mark.parametrize("value", ["autograde", "validate", ""])
def test_nbgrader_rebinds_the_name_and_then_raises(value, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NBGRADER_EXECUTION", value)
    monkeypatch.setenv("DDPM_COURSE_SAVE", "1")
    for bad in (wrong, stub, diffusion.q_sample, None):
        namespace = {"checks": checks, "q_sample": bad}
        with pytest.raises(CheckFailed, match="Exercise 2.3, q_sample"):
            exec("q_sample = checks.q_sample(q_sample)", namespace)
        assert namespace["q_sample"] is diffusion.q_sample
    namespace = {"checks": checks, "q_sample": right}
    exec("q_sample = checks.q_sample(q_sample)", namespace)
    assert namespace["q_sample"] is right
    out, err = capsys.readouterr()
    assert "solved" in out and not err
    assert not list(tmp_path.iterdir())  # nothing is saved while grading


def test_nbgraders_own_grades(tmp_path, monkeypatch):
    """A wrong q_step gets 0 and does not drag down diffuse, which calls it; nothing is saved."""
    utils = pytest.importorskip("nbgrader.utils")
    cells = {
        "setup": "import torch\nfrom ddpm_course import checks",
        "ex-1-2": "def q_step(schedule, x, t, noise):\n    return x + noise",
        "check-1-2": "q_step = checks.q_step(q_step)",
        "ex-1-3": "def diffuse(schedule, x0, generator):\n    print('x' * 10)\n    xs = [x0]\n"
        "    for t in range(1, schedule.T + 1):\n"
        "        xs.append(q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator)))\n"
        "    return torch.stack(xs)",
        "check-1-3": "diffuse = checks.diffuse(diffuse)",
    }
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells.values()])
    for cell, name in zip(notebook.cells, cells, strict=True):
        grade = name.startswith("check")
        cell.metadata["nbgrader"] = {"grade": grade, "solution": False, "points": 3, "grade_id": name}
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    monkeypatch.setenv("DDPM_COURSE_SAVE", "1")
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, allow_errors=True, resources=resources).execute()
    grades = {name: utils.determine_grade(c) for name, c in zip(cells, notebook.cells, strict=True) if "check" in name}
    assert grades == {"check-1-2": (0, 3), "check-1-3": (3, 3)}
    (error,) = notebook.cells[2].outputs
    assert error.ename == "CheckFailed" and error.traceback == [error.evalue] and "core.py" not in error.evalue
    assert not list(tmp_path.iterdir())


# ---- in a real IPython


def run(shell, cell):
    """Run a cell as a kernel does: it goes into the history."""
    return shell.run_cell(cell, store_history=True)


@pytest.fixture
def shell():
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"hist_file": ":memory:"}}))
    run(shell, "import torch, math\nfrom ddpm_course import checks")
    yield shell
    InteractiveShell.clear_instance()


RIGHT_CELL = """
def q_sample(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma * noise
"""


def test_line_numbers_are_the_cells_own(shell, capsys):
    run(shell, "# a comment\n\ndef q_sample(schedule, x0, t, noise):\n    a = 1\n    return schedule.alphas[t]\n")
    result = run(shell, "q_sample = checks.q_sample(q_sample)")
    assert result.success and "Line 5 of your cell raises AttributeError" in capsys.readouterr().out
    run(shell, "%%time\ndef q_sample(schedule, x0, t, noise):\n    return schedule.alphas[t]\n")
    run(shell, "q_sample = checks.q_sample(q_sample)")
    assert "Line 3 of your cell raises AttributeError" in capsys.readouterr().out
    run(shell, "def helper(schedule, t):\n    return schedule.alphas[t]\n")
    run(shell, "def q_sample(schedule, x0, t, noise):\n    return helper(schedule, t)\n")
    run(shell, "q_sample = checks.q_sample(q_sample)")
    assert "Line 2 of the cell that defines helper raises AttributeError" in capsys.readouterr().out


def test_notebook_variables_are_named_where_they_lead_astray(shell, capsys):
    run(shell, "from ddpm_course.schedules import linear_schedule\nalpha_bar = linear_schedule(1000).alpha_bar")
    run(
        shell,
        "def q_sample(schedule, x0, t, noise):\n"
        "    ab = alpha_bar[t].reshape(-1, *[1] * (x0.ndim - 1)).float()\n"
        "    return ab.sqrt() * x0 + (1 - ab).sqrt() * noise\n",
    )
    run(shell, "q_sample = checks.q_sample(q_sample)")
    assert "It reads `alpha_bar` from the notebook" in capsys.readouterr().out


def test_under_nbgrader_a_notebook_shows_a_sentence_and_goes_on(shell, capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    run(shell, "def q_sample(schedule, x0, t, noise):\n    raise NotImplementedError")
    capsys.readouterr()
    result = run(shell, "q_sample = checks.q_sample(q_sample)")
    assert isinstance(result.error_in_exec, CheckFailed)
    out, err = capsys.readouterr()
    assert not err and "core.py" not in out and "Traceback" not in out and "not attempted" in out
    assert shell.user_ns["q_sample"] is diffusion.q_sample


def test_in_a_kernel_verdicts_are_html_with_the_same_text_beside_it_and_sources_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("DDPM_COURSE_SAVE")
    check = "q_sample = checks.q_sample(q_sample)"
    cells = [
        "import torch\nfrom ddpm_course import checks",
        "# a comment\ndef q_sample(schedule, x0, t, noise):\n    return schedule.alphas[t]",
        check,
        "%%time\nclass QSample:\n    def __call__(self, schedule, x0, t, noise):\n"
        "        a, b = schedule.q_coefficients(t, x0)\n        return a * x0 + b * noise\n\nq_sample = QSample()",
        check,
        "checks.reset('q_sample')\nchecks.progress();",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs if output.output_type == "display_data"]
    assert not [o for cell in notebook.cells for o in cell.outputs if o.get("name") == "stderr"]
    assert all("border-left" in output.data["text/html"] for output in outputs)
    wrong, solved, stub, progress = (output.data["text/plain"] for output in outputs)
    assert "Line 3 of your cell raises AttributeError" in wrong
    assert "✓ Exercise 2.3" in solved and "Saved in my_ddpm.py" in solved
    assert (
        "def q_sample(schedule, x0, t, noise):" in stub and f"1 of {len(checks.EXERCISES)} exercises solved" in progress
    )
    assert "class QSample" in (tmp_path / "my_ddpm.py").read_text(encoding="utf-8")


def test_the_check_cell_has_no_result_that_nbgrader_would_take_for_a_grade(shell, capsys):
    shell.display_pub = CapturingDisplayPublisher()
    run(shell, RIGHT_CELL)
    assert run(shell, "q_sample = checks.q_sample(q_sample)").result is None
    capsys.readouterr()
