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
from nbclient import NotebookClient

from ddpm_course import checks, diffusion, exercises
from ddpm_course.checks import display, running

CHECK = "q_sample = checks.q_sample(q_sample)"


def right(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma * noise


def wrong(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma**2 * noise


def stub(schedule, x0, t, noise):
    raise NotImplementedError


def raising(error):
    def function(schedule, x0, t, noise):
        raise error

    return function


class Sampler:
    def __call__(self, schedule, x0, t, noise):
        return right(schedule, x0, t, noise)


# ---- what the lesson goes on with


def test_the_lesson_goes_on_with_the_students_function_if_it_passes_and_with_the_packages_if_not(capsys):
    for function, bound, says in [
        (right, right, ["✓ Exercise 2.3, q_sample: solved."]),
        (wrong, diffusion.q_sample, ["✗ Exercise 2.3", "variance", "lesson 02, 'The closed form'"]),
        (stub, diffusion.q_sample, ["○ Exercise 2.3, q_sample: not attempted yet.", "Begin here"]),
        (diffusion.q_sample, diffusion.q_sample, ["↻ Exercise 2.3", "Run the exercise cell again"]),  # run twice
        (functools.partial(diffusion.q_sample), diffusion.q_sample, ["↻ Exercise 2.3"]),
    ]:
        assert checks.q_sample(function) is bound
        out = capsys.readouterr().out
        assert all(words in out for words in says), out


@pytest.mark.parametrize("check", checks.EXERCISES, ids=lambda check: check.name)
def test_the_packages_own_function_is_never_solved(check, capsys):
    assert check(check.reference) is check.reference
    assert check.verdict.status == "package"


def test_a_class_is_made_into_an_instance():
    mine = Sampler()
    assert isinstance(checks.q_sample(Sampler), Sampler) and checks.q_sample(mine) is mine


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


def test_a_name_that_is_no_exercise_is_an_error_like_any_other():
    assert "q_sample" in dir(checks) and not hasattr(checks, "q_simple")
    with pytest.raises(ValueError, match="there are to_model_range, to_uint8"):
        checks.reset("q_simple")


# ---- errors


def test_an_error_is_one_line_with_the_students_line_number_and_no_traceback(capsys):
    def calls(schedule, x0, t, noise):
        return helper(schedule)

    def helper(schedule):
        return schedule.alphas_bar

    def inside_a_library(schedule, x0, t, noise):
        return torch.cat([x0, "noise"])

    for function, deepest, says in [(calls, helper, "'Schedule' object has no"), (inside_a_library,) * 2 + ("",)]:
        checks.q_sample(function)
        out, err = capsys.readouterr()
        line = deepest.__code__.co_firstlineno + 1
        assert f"Line {line} of test_checks_behaviour.py raises" in out and says in out
        assert "Traceback" not in out and not err


def test_only_an_interrupt_gets_out(capsys):
    for error in (SystemExit(1), GeneratorExit(), MemoryError(), RecursionError("deep"), StopIteration()):
        assert checks.q_sample(raising(error)) is diffusion.q_sample
        assert f"raises {type(error).__name__}" in capsys.readouterr().out
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        checks.q_sample(raising(KeyboardInterrupt()))
    assert torch.equal(torch.get_rng_state(), before)


# ---- nothing is left behind


def test_the_process_and_the_cases_are_as_they_were():
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

    def state():
        return running._random_state(), torch.is_grad_enabled(), torch.get_default_dtype(), np.geterr()

    before = state()
    cases = [[a.clone() if isinstance(a, torch.Tensor) else a for a in case.args] for case in checks.q_sample.cases]
    for function in (vandal, right, wrong, stub, lambda s, x, t, e: torch.randn_like(x)):
        checks.q_sample(function)
        assert state() == before
    for case, args in zip(checks.q_sample.cases, cases, strict=True):
        for now, then in zip(case.args, args, strict=True):
            assert torch.equal(now, then) if isinstance(now, torch.Tensor) else now == then
    assert checks.q_sample.check(right).solved


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_grad_mode_and_default_dtype_will_do(mode):
    with mode():
        assert checks.q_sample.check(right).solved
        assert checks.q_sample.check(wrong).mistake == "noise_variance"
    torch.set_default_dtype(torch.float64)
    try:
        assert checks.q_sample.check(right).solved
        for exercise in exercises.EXERCISES:
            exercise.make_cases()
    finally:
        torch.set_default_dtype(torch.float32)


# ---- what is shown


def test_nothing_goes_to_standard_error_and_prints_are_shown_once_and_cut(capsys):
    def chatty(schedule, x0, t, noise):
        print("t is", t, *range(1000), sep="\n")
        print("careful", file=sys.stderr)
        warnings.warn("slow", stacklevel=1)
        return right(schedule, x0, t, noise)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.q_sample(chatty)
    out, err = capsys.readouterr()
    assert not err and out.count("t is\n") == 1 and "solved" in out
    assert len(out.splitlines()) < 16 and "992 lines more" in out


def test_html_only_where_a_kernel_shows_it(capsys, monkeypatch):
    class Shell:
        kernel = object()

    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: Shell())
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    checks.q_sample(lambda schedule, x0, t: "<b>")
    display.show("title", ["<script>"], "#000000")
    assert capsys.readouterr().out == ""
    verdict, escaped = shown
    assert verdict["text/plain"].startswith("✗ Exercise 2.3") and "border-left" in verdict["text/html"]
    assert "<script>" not in escaped["text/html"] and "&lt;script&gt;" in escaped["text/html"]


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


# ---- nbgrader


@pytest.mark.parametrize("value", ["autograde", "validate", ""])
def test_nbgrader_rebinds_the_name_and_then_raises(value, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NBGRADER_EXECUTION", value)
    monkeypatch.setenv("DDPM_COURSE_SAVE", "1")
    monkeypatch.chdir(tmp_path)
    for bad in (wrong, stub, diffusion.q_sample, None):
        namespace = {"checks": checks, "q_sample": bad}
        with pytest.raises(checks.CheckFailed, match="Exercise 2.3, q_sample"):
            exec(CHECK, namespace)
        assert namespace["q_sample"] is diffusion.q_sample
    namespace = {"checks": checks, "q_sample": right}
    exec(CHECK, namespace)
    assert namespace["q_sample"] is right
    out, err = capsys.readouterr()
    assert "solved" in out and not err
    assert not list(tmp_path.iterdir())  # nothing is saved while grading


def execute(cells: list[nbformat.NotebookNode], folder, **options) -> list[nbformat.NotebookNode]:
    """Run cells in a kernel of their own, in that folder."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}, **options).execute()
    return notebook.cells


def test_nbgraders_own_grades(tmp_path, monkeypatch):
    """A wrong q_step gets 0 and does not drag down diffuse, which calls it; nothing is saved."""
    utils = pytest.importorskip("nbgrader.utils")
    sources = {
        "setup": "import torch\nfrom ddpm_course import checks",
        "ex-1-2": "def q_step(schedule, x, t, noise):\n    return x + noise",
        "check-1-2": "q_step = checks.q_step(q_step)",
        "ex-1-3": "def diffuse(schedule, x0, generator):\n    print('x' * 10)\n    xs = [x0]\n"
        "    for t in range(1, schedule.T + 1):\n"
        "        xs.append(q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator)))\n"
        "    return torch.stack(xs)",
        "check-1-3": "diffuse = checks.diffuse(diffuse)",
    }
    graded = {
        name: {"grade": name.startswith("check"), "solution": False, "points": 3, "grade_id": name} for name in sources
    }
    cells = [nbformat.v4.new_code_cell(source, metadata={"nbgrader": graded[name]}) for name, source in sources.items()]
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    monkeypatch.setenv("DDPM_COURSE_SAVE", "1")
    _, _, check_step, _, check_chain = execute(cells, tmp_path, allow_errors=True)
    assert [utils.determine_grade(cell) for cell in (check_step, check_chain)] == [(0, 3), (3, 3)]
    (error,) = check_step.outputs
    assert error.ename == "CheckFailed" and error.traceback == [error.evalue] and ".py" not in error.evalue
    assert not list(tmp_path.iterdir())


# ---- in a real IPython


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (
            ["# a comment\n\ndef q_sample(schedule, x0, t, noise):\n    a = 1\n    return schedule.alphas[t]\n"],
            "Line 5 of your cell raises AttributeError",
        ),
        (
            ["%%time\ndef q_sample(schedule, x0, t, noise):\n    return schedule.alphas[t]\n"],
            "Line 3 of your cell raises AttributeError",
        ),
        (
            [
                "def helper(schedule, t):\n    return schedule.alphas[t]\n",
                "def q_sample(schedule, x0, t, noise):\n    return helper(schedule, t)\n",
            ],
            "Line 2 of the cell that defines helper raises AttributeError",
        ),
        (
            [
                "from ddpm_course.schedules import linear_schedule\nalpha_bar = linear_schedule(1000).alpha_bar",
                "def q_sample(schedule, x0, t, noise):\n"
                "    ab = alpha_bar[t].reshape(-1, *[1] * (x0.ndim - 1)).float()\n"
                "    return ab.sqrt() * x0 + (1 - ab).sqrt() * noise\n",
            ],
            "It reads `alpha_bar` from the notebook",
        ),
    ],
)
def test_line_numbers_and_variables_are_the_notebooks(shell, cells, says, capsys):
    assert all(shell.run(cell).success for cell in [*cells, CHECK])
    assert says in capsys.readouterr().out


def test_under_nbgrader_a_notebook_shows_a_sentence_and_goes_on(shell, capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    shell.run("def q_sample(schedule, x0, t, noise):\n    raise NotImplementedError")
    capsys.readouterr()
    assert isinstance(shell.run(CHECK).error_in_exec, checks.CheckFailed)
    out, err = capsys.readouterr()
    assert not err and ".py" not in out and "Traceback" not in out and "not attempted" in out
    assert shell.user_ns["q_sample"] is diffusion.q_sample


def test_in_a_kernel_verdicts_are_html_with_the_same_text_beside_it_and_sources_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("DDPM_COURSE_SAVE")
    sources = [
        "import torch\nfrom ddpm_course import checks",
        "# a comment\ndef q_sample(schedule, x0, t, noise):\n    return schedule.alphas[t]",
        CHECK,
        "%%time\nclass QSample:\n    def __call__(self, schedule, x0, t, noise):\n"
        "        a, b = schedule.q_coefficients(t, x0)\n        return a * x0 + b * noise\n\nq_sample = QSample()",
        CHECK,
        "checks.reset('q_sample')\nchecks.progress();",
    ]
    cells = execute([nbformat.v4.new_code_cell(source) for source in sources], tmp_path)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    shown = [output.data for output in outputs if output.output_type == "display_data"]
    assert all("border-left" in data["text/html"] for data in shown)
    wrong, solved, stub, progress = (data["text/plain"] for data in shown)
    assert "Line 3 of your cell raises AttributeError" in wrong
    assert "✓ Exercise 2.3" in solved and "Saved in my_ddpm.py" in solved
    assert "def q_sample(schedule, x0, t, noise):" in stub
    assert f"1 of {len(checks.EXERCISES)} exercises solved" in progress
    assert "class QSample" in (tmp_path / "my_ddpm.py").read_text(encoding="utf-8")


def test_the_check_cell_has_no_result_that_nbgrader_would_take_for_a_grade(shell):
    shell.display_pub = CapturingDisplayPublisher()
    shell.user_ns["q_sample"] = right
    assert shell.run(CHECK).result is None
