"""Judges answers given as text, as a student would type them into the cell."""

import math

import einops
import numpy as np
import scipy.linalg
import torch

from ddpm_course import checks


def judge(name: str, body: str, **more):
    """The verdict on `def name(arguments): body`, where body is lines of code or one expression.

    more: what else the lesson has defined by then, by its name in the notebook
    """
    exercise = getattr(checks, name)
    lines = body.strip("\n").splitlines()
    if len(lines) == 1 and not lines[0].startswith(("return", "raise", "pass", "...")):
        lines = [f"return {lines[0]}"]
    arguments = exercise.stub.split("(", 1)[1].split("):")[0]
    source = f"def {name}({arguments}):\n" + "\n".join("    " + line for line in lines) + "\n"
    namespace = {"torch": torch, "np": np, "math": math, "einops": einops, "scipy": scipy} | more
    exec(compile(source, "<cell>", "exec"), namespace)
    return exercise.check(namespace[name])
