"""my_ddpm.py: what goes in, in which form, and what stays out and why."""

import os
import re
import runpy
import sys
import textwrap
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from ddpm_course import checks
from ddpm_course.checks import library
from ddpm_course.schedules import linear_schedule

NEXT = "def next_variance(v, b):\n    return "
CELLS = {  # ways to write an answer; tests/test_notebooks.py takes every exercise as its lesson solves it
    "q_step": """
        from einops import rearrange
        from torch import Tensor

        def column(values, x):
            '''(B,) to (B, 1, ..., 1).'''
            return rearrange(values, "b -> b" + " 1" * (x.ndim - 1)) if values.ndim else values

        @torch.no_grad()
        def q_step(schedule: Schedule, x: Tensor, t: "int | Tensor", noise: Tensor) -> Tensor:
            beta = column(schedule.beta[t], x).float()  # ε has the variance β
            return (1 - beta).sqrt() * x + beta.sqrt() * noise
    """,
    "q_sample": """
        class QSample:
            def __call__(self, schedule, x0, t, noise):
                ab = column(schedule.alpha_bar[t], x0).to(x0)
                return ab.sqrt() * x0 + (1 - ab).sqrt() * noise

        q_sample = QSample()
    """,
    "diffuse": """
        def diffuse(schedule, x0, generator):
            xs = [x0]
            for t in range(1, schedule.T + 1):
                xs.append(q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator)))
            return torch.stack(xs)
    """,
    "next_variance": NEXT + "(1 - b) * v + b",
    "merge_noises": """
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

        def my_merge(a, b, rho=0.0, *, power=one()):
            variance = square(a) + square(b) + 2 * rho * a * b
            return variance ** (power / 2) if torch.is_tensor(a) else root(variance)

        merge_noises = my_merge
    """,
}


def solve(shell, name, cell=None):
    """Run a cell that solves the exercise, and its check; returns what the student is told of the file."""
    assert shell.run(textwrap.dedent(cell or CELLS[name]).strip()).success
    assert shell.run(f"{name} = checks.{name}({name})").success
    verdict = getattr(checks, name).verdict
    assert verdict.solved, verdict
    return verdict.text[-1]


def text():
    return Path("my_ddpm.py").read_text(encoding="utf-8")


# ---- what goes in


def test_all_together_are_a_file_in_the_courses_order_that_names_no_package(shell, capsys):
    for i, name in enumerate(CELLS, 1):
        assert f"{i} function{'s' * (i > 1)} of yours" in solve(shell, name)
    mine, x, t = library.execute(text()), torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 10, 20])
    schedule, ours = mine["Schedule"](linear_schedule(20).beta[1:]), linear_schedule(20)
    assert type(schedule) is not type(ours)  # and yet it has the same tables
    assert all(torch.equal(getattr(schedule, a), getattr(ours, a)) for a in ("beta", "alpha", "alpha_bar", "snr"))
    assert all(map(torch.equal, schedule.q_coefficients(t, x), ours.q_coefficients(t, x)))
    assert mine["diffuse"](schedule, x, torch.Generator().manual_seed(0)).shape == (21, 4, 1, 8, 8)
    signal = schedule.alpha_bar[t].sqrt().float()[:, None, None, None]
    assert torch.allclose(mine["q_sample"](schedule, x, t, 0 * x), signal * x)
    assert mine["merge_noises"](3.0, 4.0) == 5 and mine["next_variance"](1.0, 0.3) == 1
    blocks = re.findall(r"^# >>> \S+ (\w+)( \(given\))?$", text(), re.M)
    in_order = ["q_step", "diffuse", "next_variance", "merge_noises", "q_sample"]
    assert blocks == [("Schedule", " (given)"), *((name, "") for name in in_order)]
    assert "# ε has the variance β" in text() and "ddpm_course" not in text().split('"""', 2)[2]
    assert "from math import sqrt as root" in text() and "@torch.no_grad()\ndef q_step" in text()
    capsys.readouterr()
    assert checks.progress()
    assert f"5 of {len(checks.EXERCISES)} exercises solved" in capsys.readouterr().out


def test_the_source_that_was_run_last_wins_and_what_stands_outside_the_blocks_stays(shell):
    shell.run(f"%%time\n{NEXT}'an older cell'")
    solve(shell, "next_variance", f"%%time\n{NEXT}b + (1 - b) * v")
    Path("my_ddpm.py").write_text(text() + "\n\ndef mine():\n    return 42\n", encoding="utf-8")
    shell.run("def unrelated():\n    def next_variance(v, b):\n        return 'another'")
    shell.run("next_variance = checks.next_variance(next_variance)")
    assert "b + (1 - b) * v" in text() and "older" not in text() and "another" not in text()
    solve(shell, "next_variance", f"%%capture\n\n{NEXT}v - b * v + b")
    assert text().count("def next_variance") == 1 and "v - b * v" in text() and "%%" not in text()
    assert "def mine():\n    return 42\n" in text()


def test_an_exercise_not_solved_yet_comes_in_as_given_and_is_replaced_later(shell, capsys):
    shell.run("from ddpm_course.diffusion import q_step")
    solve(shell, "diffuse")
    assert library.given_names(text()) == {"Schedule", "q_step"}
    assert "ddpm_course" not in text().split('"""', 2)[2]
    checks.progress()
    out = capsys.readouterr().out
    assert f"1 of {len(checks.EXERCISES)}" in out and re.search(r"q_step +given", out)
    solve(shell, "q_step")
    assert library.given_names(text()) == {"Schedule"} and "def column" in text()


@pytest.mark.parametrize("sign", "\u2028\u2029\x85\x0b\x0c\x1c")
def test_signs_at_which_python_ends_no_line_are_kept(shell, sign):
    """str.splitlines cuts there, and so does what IPython remembers of a cell."""
    answer = f"def next_variance(v, b):\n    'One{sign}two.'\n    # a{sign}b\n    return (1 - b) * v + b"
    assert solve(shell, "next_variance", answer).startswith("Saved in") and f"# a{sign}b\n" in text()
    assert checks.progress()


# ---- what stays out


CLASS = "class A:\n    def __call__(self, v, b):\n        return (self.one - b) * v + b\n"
NOT_SAVED = {
    f"SCALE = torch.tensor(1.0)\n{NEXT}SCALE * (1 - b) * v + b": "next_variance leans on `SCALE`",
    f"ONE = 1\nTWO = 2.0\n{NEXT}(ONE - b) * v + b * TWO / TWO": "next_variance leans on `ONE` and `TWO`",
    f"ONE = 1\ndef keep(b):\n    return ONE - b\n{NEXT}keep(b) * v + b": "keep leans on `ONE`",
    "next_variance = lambda v, b: (1 - b) * v + b": "the source of a lambda",
    "import functools\ndef f(one, v, b):\n    return (one - b) * v + b\nnext_variance = functools.partial(f, 1)": "not found",
    "class A:\n    def f(self, v, b):\n        return (1 - b) * v + b\nnext_variance = A().f": "not found",
    f"exec({NEXT + '(1 - b) * v + b'!r})": "not found",
    f"def make(one):\n{textwrap.indent(NEXT, '    ')}(one - b) * v + b\n    return next_variance\nnext_variance = make(1)": "uses `one`",
    CLASS + "    def __init__(self, one):\n        self.one = one\nnext_variance = A(1)": "does not run by itself",
    CLASS + "    one = 0\nnext_variance = A()\nnext_variance.one = 1": "no longer passes",
    f"from ddpm_course.exercises import lesson01 as e\n{NEXT}e.next_variance(v, b)": "uses ddpm_course.exercises.lesson01",
    "def next_variance(v, b):\n    import ddpm_course.nets\n    return (1 - b) * v + b": "imports ddpm_course",
}


@pytest.mark.parametrize(("cell", "says"), NOT_SAVED.items(), ids=NOT_SAVED.values())
def test_solved_but_not_saved_and_why(shell, cell, says):
    sentence = solve(shell, "next_variance", cell)
    assert sentence.startswith("Not saved: ") and says in sentence
    assert not list(Path().iterdir())


def test_saving_is_turned_off_by_an_argument_or_the_environment(shell, monkeypatch):
    shell.run(f"{CELLS['next_variance']}\nchecks.next_variance(next_variance, save=False)")
    monkeypatch.setenv("DDPM_COURSE_SAVE", "0")
    solve(shell, "next_variance")
    assert not list(Path().iterdir())


# ---- a file that is there already


def test_a_wrong_answer_or_two_helpers_of_one_name_leave_the_file_alone(shell):
    solve(shell, "q_step")
    before = text()
    shell.run(f"{NEXT}v + b\nchecks.next_variance(next_variance)")
    clashing = f"def column(a, b):\n    return a * b\n{NEXT}column(1 - b, v) + b"
    assert "q_step has another column" in solve(shell, "next_variance", clashing)
    assert text() == before


@pytest.mark.parametrize(
    ("before", "says", "shown"),
    [
        ("x = 1\n", "the course did not make", "0 of"),
        (library.HEADER + "def broken(:\n", "line 5 raises SyntaxError", "SyntaxError"),
    ],
)
def test_a_file_that_is_not_the_courses_or_was_broken_by_hand_is_kept(shell, before, says, shown, capsys):
    Path("my_ddpm.py").write_text(before, encoding="utf-8")
    assert says in solve(shell, "next_variance")
    assert text() == before
    capsys.readouterr()
    assert checks.progress() == (shown == "0 of") and shown in capsys.readouterr().out


def test_a_file_that_cannot_be_read_or_written_is_a_sentence_and_writing_is_atomic(shell, monkeypatch):
    Path("my_ddpm.py").mkdir()
    assert "cannot be read or written" in solve(shell, "next_variance")
    Path("my_ddpm.py").rmdir()
    solve(shell, "q_step")
    before = text()
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError("disk full")))
    assert "disk full" in solve(shell, "next_variance")
    assert text() == before and [path.name for path in Path().iterdir()] == ["my_ddpm.py"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_file_is_read_however_an_editor_saved_it(shell, encoding, capsys):
    solve(shell, "q_step")
    saved = text().replace("ε", "µ").replace("\n", "\r\n").encode(encoding, "replace")
    Path("my_ddpm.py").write_bytes(saved)
    readable = encoding != "cp1252"  # which nobody can tell from UTF-8 that is broken
    capsys.readouterr()
    assert checks.progress() == readable and ("Save it as UTF-8" in capsys.readouterr().out) != readable
    assert solve(shell, "next_variance").startswith("Saved in" if readable else "Not saved: my_ddpm.py is not UTF-8")
    assert not readable or "# µ has the variance β" in text()


def test_nothing_but_a_verdict_comes_out_of_a_check(shell, monkeypatch, capsys):
    shell.run("class Odd:\n    def __repr__(self):\n        raise OSError('me')\nchecks.next_variance(Odd())")
    assert checks.next_variance.verdict.status == "wrong" and "raises OSError: me" in capsys.readouterr().out
    monkeypatch.setattr(library, "entry", Mock(side_effect=IndentationError("me")))
    assert solve(shell, "next_variance").startswith("Not saved: the course cannot copy this answer (IndentationError")
    Path("my_ddpm.py").write_text(library.HEADER + "\0", encoding="utf-8")
    assert not checks.progress() and "line None" not in capsys.readouterr().out


def test_the_command_line_checks_the_file_again(shell, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["checks", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("ddpm_course.checks", run_name="__main__")
        return ended.value.code, capsys.readouterr().out

    assert command("my_ddpm.py") == ("There is no my_ddpm.py here.", "")
    solve(shell, "next_variance")
    code, out = command("my_ddpm.py")
    assert code == 0 and f"1 of {len(checks.EXERCISES)} exercises solved" in out
    assert re.search(r"1\.4 +next_variance +solved", out)
    Path("my_ddpm.py").write_text(text().replace("(1 - b) * v", "v"), encoding="utf-8")
    code, out = command()
    assert code == 1 and "without shrinking" in out


OLD = """
# >>> 3.1 linear_betas
import torch


def linear_betas(T, first=1e-4, last=0.02):
    return torch.linspace(first, last, T)
# <<< linear_betas
"""


def test_a_file_with_an_answer_that_passed_once_runs_and_the_report_says_what_is_wrong_with_it(shell, capsys):
    """Checks have grown stricter: in float32 tables lose digits."""
    Path("my_ddpm.py").write_text(library.HEADER + OLD, encoding="utf-8")
    assert len(library.execute(text())["linear_betas"](5)) == 5
    assert not checks.progress()
    out = capsys.readouterr().out
    assert re.search("linear_betas +.*Compute in float64", out)
    assert f"0 of {len(checks.EXERCISES)} exercises solved" in out
    assert solve(shell, "next_variance").startswith("Saved in my_ddpm.py")
    assert "torch.linspace(first, last, T)" in text()
