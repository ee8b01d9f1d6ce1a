"""Reads answers that are typed as students would type them, and what the check has to say to each.

A file in tests/answers looks like this:

    let AB
        ab = schedule.alpha_bar[t].float()
        if torch.is_tensor(t):
            ab = ab.reshape(-1, *[1] * (x0.ndim - 1))

    q_sample
    right:
        AB
        return ab ** 0.5 * x0 + (1 - ab) ** 0.5 * noise
    wrong noise_variance:
        AB | .float() => .double()
        return (ab.sqrt() * x0 + (1 - ab) * noise).float()
    located values "wrong only for an int t":  x0 + noise
    not attempted:  pass

A name alone begins the answers to that exercise. `let` names some lines; its name on a line of its own stands for them,
with changes behind bars, each of which must apply. Then come the verdict (right; wrong, with the name of the mistake;
located, with the kind of problem, for what no catalogue knows), words that must be said, and the answer: one line behind
the colon, an expression or a statement, or indented lines. They are the body of the function, under the signature of
the stub, unless they define the exercise's name themselves. The other exercises and what a notebook imports are there.
"""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import einops
import numpy as np
import scipy
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from torch import nn

from ddpm_course import checks
from ddpm_course.checks.judge import Verdict

FOLDER = Path(__file__).parent / "answers"
IMPORTED = {"torch": torch, "F": F, "nn": nn, "np": np, "math": math, "random": random, "scipy": scipy}
IMPORTED |= {"einops": einops, "rearrange": rearrange, "pairwise": pairwise}
IMPORTED |= {"Image": Image, "ImageOps": ImageOps}
STATEMENTS = ("return", "raise", "pass", "...", "assert", "yield", "exit", '"""')
VERDICT = re.compile(r'(right|wrong|located|not attempted)(?: ([\w -]+))?(?: "(.*)")?:(?:  (.+))?')


@dataclass
class Answer:
    """One typed answer. `name` is the mistake's, or the kind of problem; `words` must be among what is said."""

    exercise: str
    verdict: str
    name: str | None
    words: str
    text: str
    line: int

    def __str__(self) -> str:  # what pytest calls its test
        return f"{self.exercise}-{self.name or self.verdict}-{self.line}"

    def function(self, **defined: Any) -> Callable:
        return typed(self.exercise, self.text, **defined)

    def complaint(self, verdict: Verdict) -> str | None:
        """What is not as it should be in a verdict; None if nothing is."""
        status = {"right": "solved", "located": "wrong"}.get(self.verdict, self.verdict)
        got = verdict.problem if self.verdict == "located" else verdict.mistake
        fine = verdict.status == status and (got == self.name or self.verdict == "not attempted")
        fine = fine and not (self.verdict == "located" and verdict.mistake)
        fine = fine and self.words.lower() in " ".join(verdict.text).lower()
        return None if fine else f"line {self.line}: {verdict}"


def read(path: Path) -> list[Answer]:
    """The answers in a file; raises ValueError, with the line, for what the format does not know."""
    lets: dict[str, str] = {}
    answers: list[Answer] = []
    exercise = block = None  # block: a list of lines that goes on with the next indented one
    blocks: list[tuple[Any, list[str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(" "):
            block.append(line)
        elif line.startswith("let "):
            block = []
            blocks.append((line.removeprefix("let ").strip(), block))
        elif match := VERDICT.fullmatch(line):
            block = [match[4]] if match[4] else []
            blocks.append((Answer(exercise, match[1], match[2], match[3] or "", "", number), block))
        elif hasattr(checks, line.strip()):
            exercise, block = line.strip(), None
        else:
            raise ValueError(f"{path.name}, line {number}: {line!r}")
    for owner, lines in blocks:
        text = _filled(dedent("\n".join(lines)), lets, path.name)
        if isinstance(owner, str):
            lets[owner] = text
        else:
            owner.text = text
            answers.append(owner)
    return answers


def _filled(text: str, lets: dict[str, str], place: str) -> str:
    """The text with the lines that `let` has named in the place of their names."""
    lines = []
    for line in text.split("\n"):
        name, *changes = line.strip().split(" | ")
        if name not in lets:
            lines.append(line)
            continue
        body = lets[name]
        for change in changes:
            old, new = (part.strip().replace("\\n", "\n") for part in change.split("=>", 1))
            if old not in body:
                raise ValueError(f"{place}: {name} has no {old!r}")
            body = body.replace(old, new, 1)
        lines.append(indent(body, line[: len(line) - len(line.lstrip())]))
    return "\n".join(lines)


def typed(name: str, text: str, **defined: Any) -> Callable:
    """What `name` means after a cell with this text has run; a class without arguments is instantiated.

    defined: what else the notebook has made by then, by its name
    """
    if not re.search(rf"^(def|class) {name}\b|^{name} =", text, re.MULTILINE):
        lines = text.strip("\n").splitlines()
        if len(lines) == 1 and not lines[0].startswith(STATEMENTS):
            lines = [f"return {lines[0]}"]
        arguments = getattr(checks, name).stub.split("(", 1)[1].split("):")[0]
        text = f"def {name}({arguments}):\n" + indent("\n".join(lines), "    ")
    namespace = IMPORTED | {exercise.name: exercise.reference for exercise in checks.EXERCISES} | defined
    exec(compile(text + "\n", "<cell>", "exec"), namespace)
    return checks.running.instance(namespace[name])


def judge(name: str, text: str, **defined: Any) -> Verdict:
    """The verdict on a function as `typed` makes it."""
    return getattr(checks, name).check(typed(name, text, **defined))
