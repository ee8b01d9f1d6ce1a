"""What an exercise is, as data: its fixed inputs, the right answer, and the mistakes that are known by name.

A new exercise is a record like this one, put into `exercises.EXERCISES`:

    double = Exercise(
        "3.9",
        "double",
        answers.double,
        lambda: [Case("x of shape (4,)", (normal((4,), 0),)), Case("x of shape (2, 3)", (normal((2, 3), 1),))],
        stub="def double(x):\\n    raise NotImplementedError  # your code here",
        first="what is x + x?",
        mistakes=[Mistake("squared", "x² is not 2x (lesson 03, 'Doubling').", lambda x: x**2)],
    )
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Betas:
    """An argument of a case: becomes a new Schedule with these betas, of whichever class is being checked."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Seed:
    """An argument of a case: becomes a new CPU generator with this seed."""

    value: int


@dataclass(frozen=True)
class Case:
    """One fixed input.

    label:  how a verdict refers to it, "images (3, 2, 4, 5), t = 1"
    args:   the arguments, copied for every call; Betas and Seed are built anew. Networks and optimizers are copied
            together, so that a copied optimizer moves the weights of the copied network
    facts:  phrase -> bool, or bool tensor that broadcasts to the result: which elements the phrase is true of.
            "for an int t" is a good phrase: a verdict says "wrong only for an int t"
    gpu:    tells of the device alone; mistakes are recognised on the other cases
    may_change: names of the arguments that a right answer changes: a network that is trained, its optimizer
    result: (the arguments after the call, the value returned) -> what is compared, where that is not the value alone:
            the weights after a training step, say; {"mean": ..., "variance": ...} for results that have names
    use:    (the function, the arguments one by one) -> value, where calling it once shows too little
    """

    label: str
    args: tuple
    facts: dict[str, Any] = field(default_factory=dict)
    gpu: bool = False
    may_change: tuple[str, ...] = ()
    result: Callable[[tuple, Any], Any] | None = None
    use: Callable | None = None


class Mistake:
    """A wrong answer that is known by name.

    id:        for tests and for the lesson's list of mistakes
    says:      what the student is told, with the lesson and the section that derive the step; a sentence a line
    variants:  wrong implementations; a student whose results equal one of them on every case made this mistake
    whole:     recognised only if the function returns something on every case
    """

    def __init__(self, id: str, says: str, *variants: Callable, whole: bool = False):
        self.id, self.says, self.variants, self.whole = id, says, variants, whole


class Rounded:
    """A variant of a mistake whose result hangs on how a processor rounds: far out in the tail of a distribution, say.

    formula:  the wrong implementation
    versions: the same with its roundings pushed as far as they go, either way. A student's result may lie anywhere
              between them; where one of them is NaN float32 has no digits left, and nothing is compared
    """

    def __init__(self, formula: Callable, *versions: Callable):
        self.formula, self.versions = formula, versions

    def __call__(self, *args: Any) -> Any:
        return self.formula(*args)


@dataclass(frozen=True)
class Aim:
    """What makes an answer right where many are: not its entries, but what it does.

    fits:   (value, case) -> bool: is it the kind of thing that is asked for? If not, it is compared like any other
    fault:  (value, case) -> the id of the mistake that the value shows, None if it shows none. Where several cases
            show one, the student is told of the first of them in the catalogue
    score:  (value, case) -> a sentence on how good it is, None if there is nothing to measure yet
    """

    fits: Callable[[Any, Case], bool]
    fault: Callable[[Any, Case], str | None]
    score: Callable[[Any, Case], str | None]


@dataclass(eq=False)
class Exercise:
    """One exercise.

    number:     "2.3": lesson and place
    name:       of the function, of its check, and of the entry in my_ddpm.py
    reference:  the course's own function: the right answer, and the stand-in until the student has one
    make_cases: () -> cases; called when they are first needed, so that importing stays light
    stub:       what the student starts from
    first:      what to do first, told to who has not begun
    mistakes:   the catalogue
    linear:     names of two arguments of which the result is a weighted sum, if it is one
    tolerance:  absolute and relative, on every element
    any_float:  float32 and float64 are both fine as a result
    alternatives: answers that are right too, but not the reference's: another order of features, say. They count as
                solved, and the student is told what they say
    given:      a class that the exercise completes: goes into my_ddpm.py with it, marked "given"
    aim:        what is asked for, if not the reference's values
    """

    number: str
    name: str
    reference: Callable
    make_cases: Callable[[], list[Case]]
    stub: str
    first: str
    mistakes: list[Mistake]
    linear: tuple[str, str] | None = None
    tolerance: float = 1e-4
    any_float: bool = False
    alternatives: list[Mistake] = field(default_factory=list)
    given: type | None = None
    aim: Aim | None = None

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
