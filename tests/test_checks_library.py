"""my_ddpm.py: what goes in, in which form, and what stays out and why."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from ddpm_course import checks
from ddpm_course.checks import library
from ddpm_course.schedules import linear_schedule

CELLS = {
    "to_model_range": """
        import numpy as np

        def to_model_range(images):
            return torch.from_numpy(np.asarray(images, dtype="float32") / 127.5 - 1)
    """,
    "to_uint8": """
        half = lambda: 127.5

        def to_uint8(x):
            return ((x + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    """,
    "q_step": """
        from einops import rearrange
        from torch import Tensor

        def column(values, x):
            '''(B,) to (B, 1, ..., 1).'''
            return rearrange(values, "b -> b" + " 1" * (x.ndim - 1)) if values.ndim else values

        def q_step(schedule: Schedule, x: Tensor, t: "int | Tensor", noise: Tensor) -> Tensor:
            beta = column(schedule.beta[t], x).float()  # ε has the variance β
            return (1 - beta).sqrt() * x + beta.sqrt() * noise
    """,
    "diffuse": """
        def diffuse(schedule, x0, generator):
            xs = [x0]
            for t in range(1, schedule.T + 1):
                xs.append(q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator)))
            return torch.stack(xs)
    """,
    "next_variance": """
        def next_variance(variance, beta):
            return (1 - beta) * variance + beta
    """,
    "merge_noises": """
        from math import hypot

        def merge_noises(a, b):
            return torch.hypot(a, b) if torch.is_tensor(a) else hypot(a, b)
    """,
    "alpha_bars": """
        import torch.nn.functional as F

        @torch.no_grad()
        def alpha_bars(betas):
            return F.pad(torch.cumprod(1 - betas, 0), (1, 0), value=1.0)
    """,
    "q_sample": """
        class QSample:
            \"\"\"A class will do.\"\"\"

            def __call__(self, schedule, x0, t, noise):
                ab = column(schedule.alpha_bar[t], x0).to(x0)
                return ab.sqrt() * x0 + (1 - ab).sqrt() * noise

        q_sample = QSample()
    """,
    "predict_x0": """
        def predict_x0(schedule, xt, t, noise):
            signal, sigma = schedule.q_coefficients(t, xt)
            return (xt - sigma * noise) / signal
    """,
    "equal_t": """
        def equal_t(schedule):
            return int((schedule.alpha_bar > 1 / 2).sum())
    """,
}


def attempt(shell, name, cell=None, check="checks.{0}({0})"):
    """Run an exercise cell and its check; returns the verdict."""
    assert shell.run(textwrap.dedent(cell or CELLS[name]).strip()).success
    assert shell.run(f"{name} = {check.format(name)}").success
    return getattr(checks, name).verdict


def solve(shell, name, cell=None):
    """The same for a cell that solves the exercise; returns what the student is told of the file."""
    verdict = attempt(shell, name, cell)
    assert verdict.solved, verdict
    return verdict.text[-1]


def text():
    return Path("my_ddpm.py").read_text(encoding="utf-8")


def blocks():
    """(key, name, "" or " (given)") of every block, in the file's order."""
    return re.findall(r"^# >>> (\S+) (\w+)( \(given\))?$", text(), re.M)


def alone(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code in a process that has no ddpm_course, in that folder."""
    block = "import sys\nsys.modules['ddpm_course'] = None\nsys.path.insert(0, '.')\n"
    return subprocess.run([sys.executable, "-I", "-c", block + code], cwd=folder, capture_output=True, text=True)


# ---- what goes in


def test_all_exercises_together_are_a_file_that_works_without_the_package(shell, tmp_path, capsys):
    for i, name in enumerate(CELLS, 1):
        assert f"{i} function{'s' * (i > 1)} of yours" in solve(shell, name)
    code = """
import torch
import my_ddpm as m
schedule = m.Schedule(torch.linspace(0.01, 0.5, 20))
x = torch.randn(4, 1, 8, 8)
assert m.diffuse(schedule, x, torch.Generator().manual_seed(0)).shape == (21, 4, 1, 8, 8)
assert torch.allclose(m.alpha_bars(schedule.beta[1:]), schedule.alpha_bar)
t = schedule.sample_t(4)
e = torch.randn_like(x)
back = m.predict_x0(schedule, m.q_sample(schedule, x, t, e), t, e)
assert (back - x).abs().max() < 1e-3
assert 0 < m.equal_t(schedule) < 20 and m.merge_noises(3.0, 4.0) == 5 and m.next_variance(1.0, 0.3) == 1
assert m.to_uint8(m.to_model_range(torch.arange(256).to(torch.uint8))).tolist() == list(range(256))
print([n for n in sys.modules if "ddpm" in n and sys.modules[n]])
"""
    done = alone(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['my_ddpm']"
    assert [name for _, name, given in blocks() if not given] == list(CELLS)  # in the course's order
    assert [name for _, name, given in blocks() if given] == ["Schedule"]
    assert "# ε has the variance β" in text() and "ddpm_course" not in text().split('"""', 2)[2]
    capsys.readouterr()
    assert checks.progress()
    assert f"10 of {len(checks.EXERCISES)} exercises solved" in capsys.readouterr().out


def test_newest_wins_in_the_courses_order_and_what_stands_outside_the_blocks_stays(shell):
    for name in ("equal_t", "next_variance", "predict_x0", "to_uint8", "merge_noises"):
        solve(shell, name)
    keys = [tuple(map(int, key.split("."))) for key, _, _ in blocks()]
    assert keys == sorted(keys)
    Path("my_ddpm.py").write_text(text() + "\n\ndef mine():\n    return 42\n", encoding="utf-8")
    solve(shell, "next_variance", "def next_variance(variance, beta):\n    return variance - beta * variance + beta")
    assert text().count("def next_variance") == 1 and "variance - beta * variance" in text()
    assert "def mine():\n    return 42\n" in text()


def test_an_exercise_not_solved_yet_comes_in_as_given_and_is_replaced_later(shell, tmp_path, capsys):
    shell.run("from ddpm_course.diffusion import q_step")
    solve(shell, "diffuse")
    assert library.given_names(text()) == {"Schedule", "q_step"}
    assert alone("import my_ddpm", tmp_path).returncode == 0
    checks.progress()
    out = capsys.readouterr().out
    assert f"1 of {len(checks.EXERCISES)}" in out and re.search(r"q_step +given", out)
    solve(shell, "q_step")
    assert library.given_names(text()) == {"Schedule"} and "def column" in text()


@pytest.mark.parametrize("magic", ["%%time", "%%capture"])
def test_a_cell_magic_does_not_hide_the_source(shell, magic):
    assert "Saved" in solve(shell, "next_variance", f"{magic}\n\n{textwrap.dedent(CELLS['next_variance']).strip()}")
    assert "%%" not in text()


def test_the_source_is_the_one_that_was_run_last(shell):
    shell.run("%%time\ndef next_variance(variance, beta):\n    return 'an older cell'\n")
    solve(shell, "next_variance", "%%time\ndef next_variance(variance, beta):\n    return beta + (1 - beta) * variance")
    shell.run("def unrelated():\n    def next_variance(variance, beta):\n        return 'another'\n")
    shell.run("next_variance = checks.next_variance(next_variance)")
    assert "beta + (1 - beta) * variance" in text() and "older" not in text() and "another" not in text()


def test_other_names_helpers_and_decorators_come_along(shell, tmp_path):
    cell = """
    from functools import lru_cache
    from math import pi, sqrt as root
    import math as m

    class Half:
        value = 2

    def square(x):
        return x**Half.value

    @lru_cache
    def one():
        return m.cos(pi) ** 2

    def my_merge(a, b, *, power=one()):
        return (square(a) + square(b)) ** (power / 2) if torch.is_tensor(a) else root(square(a) + square(b))

    merge_noises = my_merge
    """
    assert "Saved" in solve(shell, "merge_noises", cell)
    assert alone("import my_ddpm\nassert my_ddpm.merge_noises(3.0, 4.0) == 5", tmp_path).returncode == 0
    assert "from math import sqrt as root" in text() and "merge_noises = my_merge" in text()


def test_the_given_schedule_is_the_packages(shell):
    solve(shell, "next_variance")
    namespace = library.execute(text())
    betas = linear_schedule(50).beta[1:]
    ours, theirs = linear_schedule(50), namespace["Schedule"](betas)
    assert type(ours) is not type(theirs)
    for name in ("beta", "alpha", "alpha_bar", "snr"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    x, t = torch.zeros(3, 1, 2, 2), torch.tensor([0, 7, 50])
    for a, b in zip(ours.q_coefficients(t, x), theirs.q_coefficients(t, x), strict=True):
        assert torch.equal(a, b)


# ---- what stays out


NOT_SAVED = {
    "a notebook variable": (
        "SCALE = torch.tensor(1.0)\ndef next_variance(variance, beta):\n    return SCALE * (1 - beta) * variance + beta",
        "leans on `SCALE`",
    ),
    "a number": (
        "ONE = 1\nTWO = 2.0\ndef next_variance(variance, beta):\n    return (ONE - beta) * variance + beta * TWO / TWO",
        "leans on `ONE` and `TWO`",
    ),
    "a helper's variable": (
        "ONE = 1\ndef keep(b):\n    return ONE - b\ndef next_variance(variance, beta):\n    return keep(beta) * variance + beta",
        "keep leans on `ONE`",
    ),
    "a lambda": ("next_variance = lambda variance, beta: (1 - beta) * variance + beta", "the source of a lambda"),
    "a partial": (
        "from functools import partial\ndef mix(one, variance, beta):\n    return (one - beta) * variance + beta\n"
        "next_variance = partial(mix, 1)",
        "not found",
    ),
    "a closure": (
        "def make(one):\n    def next_variance(variance, beta):\n        return (one - beta) * variance + beta\n    return next_variance\n"
        "next_variance = make(1)",
        "uses `one`",
    ),
    "a method": (
        "class A:\n    def f(self, variance, beta):\n        return (1 - beta) * variance + beta\nnext_variance = A().f",
        "not found",
    ),
    "state": (
        "class A:\n    def __init__(self, one):\n        self.one = one\n    def __call__(self, variance, beta):\n"
        "        return (self.one - beta) * variance + beta\nnext_variance = A(1)",
        "does not run by itself",
    ),
    "later state": (
        "class A:\n    one = 0\n    def __call__(self, variance, beta):\n        return (self.one - beta) * variance + beta\n"
        "next_variance = A()\nnext_variance.one = 1",
        "no longer passes",
    ),
    "exec": (
        "exec('def next_variance(variance, beta):\\n    return (1 - beta) * variance + beta')",
        "not found",
    ),
    "the package": (
        "from ddpm_course.exercises import answers\ndef next_variance(variance, beta):\n    return answers.next_variance(variance, beta)",
        "uses ddpm_course.exercises.answers",
    ),
    "the package, imported inside": (
        "def next_variance(variance, beta):\n    from ddpm_course.exercises.answers import next_variance as f\n    return f(variance, beta)",
        "imports ddpm_course",
    ),
}


@pytest.mark.parametrize("kind", NOT_SAVED)
def test_solved_but_not_saved_and_why(shell, kind):
    cell, says = NOT_SAVED[kind]
    sentence = solve(shell, "next_variance", cell)
    assert sentence.startswith("Not saved: ") and says in sentence
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("environment", "check"),
    [
        ({"DDPM_COURSE_SAVE": "0"}, "checks.{0}({0})"),
        ({"NBGRADER_EXECUTION": "validate"}, "checks.{0}({0})"),
        ({}, "checks.{0}({0}, save=False)"),
    ],
)
def test_saving_is_turned_off_by_the_environment_or_an_argument(shell, environment, check, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert attempt(shell, "next_variance", check=check).solved and not list(Path().iterdir())


# ---- a file that is there already


BROKEN = library.HEADER + "def broken(:\n"
CLASHES = "def column(a, b):\n    return a * b\ndef next_variance(variance, beta):\n    return column(1 - beta, variance) + beta"


def test_a_wrong_answer_or_two_helpers_of_one_name_leave_the_file_alone(shell):
    solve(shell, "q_step")
    before = text()
    attempt(shell, "next_variance", "def next_variance(variance, beta):\n    return variance + beta")
    assert "q_step has another column" in solve(shell, "next_variance", CLASHES)
    assert text() == before


@pytest.mark.parametrize(
    ("before", "says"), [("x = 1\n", "the course did not make"), (BROKEN, "line 5 raises SyntaxError")]
)
def test_a_file_that_is_not_the_courses_or_was_broken_by_hand_is_kept(shell, before, says):
    Path("my_ddpm.py").write_text(before, encoding="utf-8")
    assert says in solve(shell, "next_variance")
    assert text() == before


def test_a_file_that_does_not_run_is_no_progress(shell, capsys):
    Path("my_ddpm.py").write_text(BROKEN, encoding="utf-8")
    assert not checks.progress()
    assert "SyntaxError" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_or_written_is_a_sentence_and_writing_is_atomic(shell, monkeypatch):
    Path("my_ddpm.py").mkdir()
    assert "cannot be read or written" in solve(shell, "next_variance")
    Path("my_ddpm.py").rmdir()
    solve(shell, "equal_t")
    before = text()

    def fails(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    assert "disk full" in solve(shell, "next_variance")
    assert text() == before and [path.name for path in Path().iterdir()] == ["my_ddpm.py"]


def test_the_command_line_checks_the_file_again(shell, tmp_path, capsys):
    def command(*arguments):
        run = [sys.executable, "-m", "ddpm_course.checks", *arguments]
        return subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})

    missing = command("my_ddpm.py")
    assert missing.returncode != 0 and "There is no my_ddpm.py here" in missing.stderr
    solve(shell, "next_variance")
    solve(shell, "equal_t")
    done = command("my_ddpm.py")
    assert done.returncode == 0, done.stderr
    assert f"2 of {len(checks.EXERCISES)} exercises solved" in done.stdout and re.search(
        r"1\.4 +next_variance +solved", done.stdout
    )
    Path("my_ddpm.py").write_text(text().replace("(1 - beta) * variance", "variance"), encoding="utf-8")
    done = command()
    assert done.returncode == 1 and "without shrinking" in done.stdout and "Traceback" not in done.stdout + done.stderr
