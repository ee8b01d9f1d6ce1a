"""What exercises are made of: fixed inputs, mistakes, and what makes an answer right where many are."""

from collections.abc import Callable
from dataclasses import dataclass, field
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
