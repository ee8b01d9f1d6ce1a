"""Judges answers given as text, as a student would type them into the cell."""

import math
import random
from collections.abc import Callable
from typing import Any

import einops
import numpy as np
import scipy
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ddpm_course import checks
from ddpm_course.checks.judge import Verdict

IMPORTED = {"torch": torch, "F": F, "nn": nn, "np": np, "math": math, "random": random, "scipy": scipy}
IMPORTED |= {"einops": einops, "rearrange": rearrange}
STATEMENTS = ("return", "raise", "pass", "...", "assert", '"""')


def typed(name: str, body: str, **defined: Any) -> Callable:
    """The function `def name(arguments): body`, where body is lines of code or one expression.

    defined: what else the lesson has made by then, by its name in the notebook
    """
    lines = body.strip("\n").splitlines()
    if len(lines) == 1 and not lines[0].startswith(STATEMENTS):
        lines = [f"return {lines[0]}"]
    arguments = getattr(checks, name).stub.split("(", 1)[1].split("):")[0]
    source = f"def {name}({arguments}):\n" + "\n".join("    " + line for line in lines) + "\n"
    namespace = IMPORTED | defined
    exec(compile(source, "<cell>", "exec"), namespace)
    return namespace[name]


def judge(name: str, body: str, **defined: Any) -> Verdict:
    """The verdict on a function as `typed` makes it."""
    return getattr(checks, name).check(typed(name, body, **defined))
