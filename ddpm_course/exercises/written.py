"""An exercise as it is written down: a solution under a decorator. What else is needed of it is made from that text.

    @exercise("3.9", cases, first="what is x + x?")
    def double(x):
        '''Twice x.'''
        return x + x

The signature and the docstring are the stub that a student starts from; with the body between marks they are the cell
of the solutions edition; the function is the right answer and the lesson's stand-in. What goes wrong stands in a file
beside the module, lesson03.mistakes (`reading` has the format).
"""

import ast
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType, ModuleType

import einops
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .catalogue import Catalogue
from .records import Aim, Case, Mistake

STUB = "raise NotImplementedError  # your code here"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
FAMILIES = Path(__file__).parent / "families.mistakes"
# What a student's line may use, whatever the lesson's module imports.
USUAL = {"torch": torch, "F": F, "nn": nn, "np": np, "math": math, "einops": einops, "rearrange": einops.rearrange}


@dataclass(eq=False)
class Exercise:
    """One exercise.

    number:     "2.3": lesson and place; for ever, as is the name
    name:       of the function, of its check, and of the entry in my_ddpm.py
    reference:  the course's own function: the right answer, and the stand-in until the student has one
    make_cases: () -> cases; called when they are first needed, so that importing stays light
    first:      what to do first, told to who has not begun
    linear:     names of the arguments of which the result is a weighted sum, if it is one; or of one, of which it is
                a multiple plus a number; of a mean and a variance, the mean
    sampled:    that sum is a sample: the second weight is its standard deviation
    tolerance:  absolute and relative, on every element
    any_float:  float32 and float64 are both fine as a result
    given:      a class that the exercise completes: goes into my_ddpm.py with it, marked "given"
    aim:        what is asked for, if not the reference's values
    flows:      the arguments that gradients must reach through the result, because a training depends on it
    free:       the arguments whose whole numbers could as well be others; grading asks for results on such
    secret:     its name would say too much to somebody who has not begun
    repeats:    the exercise whose solution this one's is too, if there is one
    """

    number: str
    name: str
    reference: Callable
    make_cases: Callable[[], list[Case]]
    first: str
    linear: tuple[str, ...] | None = None
    sampled: bool = False
    tolerance: float = 1e-4
    any_float: bool = False
    given: type | None = None
    aim: Aim | None = None
    flows: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    secret: bool = False
    repeats: "Exercise | None" = None

    @cached_property
    def cases(self) -> list[Case]:
        return self.make_cases()

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.reference).parameters)

    @property
    def lesson(self) -> str:
        """Two digits: "02"."""
        return f"{int(self.number.split('.')[0]):02d}"

    @property
    def source(self) -> str:
        """The text of the solution."""
        return sources(self.reference.__module__)[self.name]

    @property
    def stub(self) -> str:
        """What a student starts from: signature and docstring, and a line that says that it is not done."""
        return f"{self._parts[0]}    {STUB}\n"

    @property
    def cell(self) -> str:
        """The cell of the solutions edition."""
        head, body = self._parts
        return f"{head}    {BEGIN}\n{body}    {END}"

    @property
    def mistakes(self) -> list[Mistake]:
        """The wrong answers that are known by name."""
        return self._written[0]

    @property
    def alternatives(self) -> list[Mistake]:
        """Answers that are right too, but not the reference's. They count as solved, and the student is told why."""
        return self._written[1]

    @cached_property
    def _written(self) -> tuple[list[Mistake], list[Mistake]]:
        return catalogue(self.reference.__module__).mistakes(self.name)

    @cached_property
    def _parts(self) -> tuple[str, str]:
        """Signature and docstring of the solution, and its body."""
        lines, docstring = self.source.splitlines(keepends=True), ast.parse(self.source).body[0].body[0]
        return "".join(lines[: docstring.end_lineno]), "".join(lines[docstring.end_lineno :])


def exercise(
    number: str,
    cases: Callable[[], list[Case]],
    *,
    first: str,
    linear: tuple[str, ...] | None = None,
    sampled: bool = False,
    tolerance: float = 1e-4,
    any_float: bool = False,
    given: type | None = None,
    aim: Aim | None = None,
    flows: tuple[str, ...] = (),
    free: tuple[str, ...] = (),
    secret: bool = False,
) -> Callable[[Callable], Callable]:
    """Make a function the right answer of an exercise of its name: its attribute `exercise` is the record then."""

    def write(function: Callable) -> Callable:
        function.exercise = Exercise(
            number, function.__name__, function, cases, first, linear, sampled, tolerance, any_float, given, aim, flows,
            free, secret,
        )  # fmt: skip
        return function

    return write


def again(solution: Callable, number: str, name: str, **other) -> Callable:
    """A solution as the right answer of one more exercise, which needs a name of its own and belongs to its lesson.

    other: what else differs in the record
    It finds what that lesson's module has. Its mistakes are written down there, or inherited (`with` in a catalogue).
    """
    record = replace(solution.exercise, number=number, name=name, repeats=solution.exercise, **other)
    module = sys.modules[f"{__package__}.lesson{record.lesson}"]
    record.reference = FunctionType(solution.__code__, vars(module), name, solution.__defaults__)
    record.reference.exercise = record
    return record.reference


@cache
def sources(module: str) -> dict[str, str]:
    """The text of every function of a module, by its name, decorators left out."""
    text = inspect.getsource(sys.modules[module])
    lines = text.splitlines(keepends=True)
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    texts = {node.name: "".join(lines[node.lineno - 1 : node.end_lineno]) for node in functions}
    for record in exercises_of(sys.modules[module]):
        if earlier := record.repeats:
            texts[record.name] = earlier.source.replace(earlier.name, record.name, 1)
    return texts


@cache
def catalogue(module: str) -> Catalogue:
    """The mistakes that stand beside a lesson's module."""
    path = Path(sys.modules[module].__file__).with_suffix(".mistakes")
    return Catalogue(path, FAMILIES, sources(module), USUAL | vars(sys.modules[module]))


def exercises_of(module: ModuleType) -> list[Exercise]:
    """The records of a lesson's own functions, in the order of the text."""
    records = [value.exercise for value in vars(module).values() if hasattr(value, "exercise")]
    return [record for record in records if record.reference.__module__ == module.__name__]
