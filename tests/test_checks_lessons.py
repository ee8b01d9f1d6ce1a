"""The checks and the notebooks agree: the same stubs, and every solution passes."""

import json
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ddpm_course import checks, diffusion

SOURCES = Path(__file__).parent.parent / "notebooks" / "solutions"


def cell(exercise: checks.Exercise, kind: str) -> str:
    (path,) = SOURCES.glob(f"{exercise.lesson}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (found,) = (c for c in cells if c["id"] == f"{kind}-{exercise.number.replace('.', '-')}")
    return "".join(found["source"])


@pytest.mark.parametrize("exercise", checks.EXERCISES, ids=lambda e: e.name)
def test_the_stub_is_the_notebooks(exercise):
    notebook = cell(exercise, "ex").split("    ### BEGIN SOLUTION")[0]
    assert exercise.stub.strip().rpartition("    raise NotImplementedError")[0] == notebook
    assert cell(exercise, "check") == f"{exercise.name} = checks.{exercise.name}({exercise.name})"


def solution(exercise: checks.Exercise):
    """The function that the lesson's solution defines."""
    namespace = {
        "math": math,
        "torch": torch,
        "F": F,
        "nn": nn,
        "rearrange": rearrange,
        "pairwise": pairwise,
        "q_step": diffusion.q_step,
    }
    namespace |= {other.name: other.reference for other in checks.EXERCISES if other is not exercise}
    exec(cell(exercise, "ex"), namespace)
    return namespace[exercise.name]


@pytest.mark.parametrize("exercise", checks.EXERCISES, ids=lambda e: e.name)
def test_the_solution_passes(exercise):
    assert exercise.check(solution(exercise)).solved


def test_sections_that_messages_name_are_headings_of_the_lessons():
    for exercise in checks.EXERCISES:
        for mistake in exercise.mistakes:
            for lesson, section in re.findall(r"lesson (\d\d), '([^']+)'", mistake.says):
                (path,) = SOURCES.glob(f"{lesson}_*.ipynb")
                cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
                lines = [line.strip() for c in cells if c["cell_type"] == "markdown" for line in c["source"]]
                headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
                assert any(h == section or h.startswith(section + ":") for h in headings), (lesson, section)


def test_importing_the_checks_stays_light():
    code = "import sys, ddpm_course.checks; print([m for m in ('datasets', 'torchvision', 'IPython', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCES.parent.parent)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
