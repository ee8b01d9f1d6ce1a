"""The checks and the notebooks agree: the same stubs, and every solution passes."""

import math
import subprocess
import sys
from itertools import pairwise

import lessons
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ddpm_course import checks
from ddpm_course.classroom import editions

EVERY_CHECK = pytest.mark.parametrize("check", checks.EXERCISES, ids=lambda check: check.name)


def cell(check: checks.Check, kind: str) -> str:
    [name] = [name for name in lessons.NAMES if name.startswith(check.lesson)]
    return lessons.read("solutions", name).source(f"{kind}-{check.number.replace('.', '-')}")


@EVERY_CHECK
def test_the_stub_is_the_notebooks(check):
    notebook = cell(check, "ex").split("    ### BEGIN SOLUTION")[0]
    assert check.stub.strip().rpartition("    raise NotImplementedError")[0] == notebook
    assert cell(check, "check") == f"{check.name} = checks.{check.name}({check.name})"


def solution(check: checks.Check):
    """The function that the lesson's solution defines."""
    namespace = {"math": math, "torch": torch, "F": F, "nn": nn, "rearrange": rearrange, "pairwise": pairwise}
    namespace |= {other.name: other.reference for other in checks.EXERCISES}
    exec(cell(check, "ex"), namespace)
    return namespace[check.name]


@EVERY_CHECK
def test_the_solution_passes(check):
    assert check.check(solution(check)).solved


def test_importing_the_checks_stays_light():
    heavy = ("datasets", "torchvision", "IPython", "matplotlib")
    code = f"import sys, ddpm_course.checks; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=editions.ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
