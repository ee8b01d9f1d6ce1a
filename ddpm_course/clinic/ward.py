"""What a learner does with a patient: look, ask, diagnose, repair; and the chart that counts it (lesson 13)."""

import html
import textwrap
from collections.abc import Callable
from functools import cached_property

from .. import doctor, plots
from ..data import ASSETS, CLASS_NAMES
from ..plots.base import in_colors
from ..training.checkpoints import load_checkpoint
from .bugs import ALL, BUGS, VIEWS, Listing, reason
from .code import changes_of, pictures, text
from .patients import CARDS, SCALE, Model, ill, treated, trial

PROBES = Listing((probe.name, probe.measures) for probe in doctor.PROBES)
FOR_CODE = 5  # probes that a look at the code before the diagnosis counts for


class Patient:
    """Patient `number` of the clinic."""

    def __init__(self, number: int):
        self.number, self.card = number, CARDS[number]
        self.asked: list[str] = []  # probes that were asked and could be judged
        self.wrong: list[str] = []  # diagnoses
        self.found: list[str] = []  # of the bugs, those that were named
        self.opened = self.cured = False

    @cached_property
    def model(self) -> Model:
        return ill(self.card)

    @property
    def diagnosed(self) -> bool:
        return set(self.found) == set(self.card.bugs)

    @property
    def score(self) -> int:
        """Probes, wrong diagnoses, and the price of a look at the code."""
        return len(self.asked) + len(self.wrong) + FOR_CODE * self.opened

    def symptoms(self):
        """What everybody sees: samples, losses, the loss by t, and the values of pixels. It costs nothing."""
        model, about = self.model, self.model.about
        title = f"Patient {self.number}: {self.card.sampler} sampling in 25 steps, guidance scale {SCALE:g}"
        figure = plots.symptoms(
            model.samples, CLASS_NAMES, about["losses"], about["times"], about["by_t"], model.images, title=title,
            alt=f"Patient {self.number}: {len(model.samples)} samples, as many of each class, and three small diagrams",
        )  # fmt: skip
        return in_colors(figure, 32)

    def ask(self, *probes: str) -> None:
        """Ask one probe, or several, each of which counts once."""
        if not probes:
            print(f'Ask a probe by its name, as in .ask("the answer"); clinic.PROBES lists all {len(PROBES)}.')
        for name in probes:
            if name not in PROBES:
                print(f"There is no probe {name!r}; clinic.PROBES lists them.")
                continue
            finding = doctor.ask(self.examined, name)
            counted = ""
            if finding.state == "unknown":
                counted = " It doesn't count."
            elif name not in self.asked:
                self.asked.append(name)
            for line in finding.lines():
                print(textwrap.fill(line + counted, 96, subsequent_indent="    "))

    @cached_property
    def examined(self) -> doctor.Patient:
        """What the doctor asks, the weights before averaging included.

        At the end of a training, where the learning rate falls to 0, a short average and they are the same, so they are
        stored for the healthy network alone.
        """
        model, labels = self.model, pictures()[1]
        raw = "raw" if self.card.network in ("healthy", "unwarmed") else self.card.network
        net, *_ = load_checkpoint(ASSETS / "patients" / raw, "cpu")
        samples, losses = model.samples, model.about["losses"]
        return doctor.admit(model.net, model.diffusion, model.images, labels, samples, losses, raw=net)

    def diagnose(self, *names: str | None) -> None:
        """Name the bug, or one of them. A wrong diagnosis is answered with a reason, and counts like a probe."""
        names = [name for name in names if name is not None]
        if not names:
            print('Name what is wrong, as in .diagnose("no clamp"); clinic.BUGS lists all thirty, with "nothing".')
        for name in names:
            if name not in BUGS:
                print(f"There is no diagnosis {name!r}; clinic.BUGS lists them.")
            elif name in self.card.bugs:
                if name not in self.found:
                    self.found.append(name)
                self._right(name)
            else:
                if name not in self.wrong:
                    self.wrong.append(name)
                why = self.card.unlike.get(name) or reason(ALL[name], self.card.shows, self.card.finds)
                print(textwrap.fill(f"Not {name!r}. {why}", 96))

    def _right(self, name: str) -> None:
        bug = ALL[name]
        print(textwrap.fill(f"✓ {name!r} is right. {bug.says} (lesson {bug.lesson.removeprefix('lesson ')})", 96))
        if not self.diagnosed:
            (left,) = set(self.card.bugs) - set(self.found)
            view = next(view for view in VIEWS if ALL[left].seen[view] != ALL["nothing"].seen[view])
            subject, words = VIEWS[view]
            print(f"But it is not all: with that repaired, {subject} would still {words[ALL[left].seen[view]][0]}.")
            return
        if name == "nothing":
            print("Here is the function that worried its owner. Leave it as it is, or write it in your own way:")
        else:
            print("Here is the function that is ill. Copy it into the exercise's cell and repair it:")
        print(f"\n{self._text()}")

    def code(self) -> None:
        """The function that is ill. Free once you have the diagnosis; before it, it counts like five probes."""
        self.opened = self.opened or not self.diagnosed
        print(self._text())

    def _text(self) -> str:
        changes = changes_of(self.card.function, *self.card.mistakes) if self.card.mistakes else ""
        return text(self.card.function, changes)

    def treat(self, function: Callable):
        """The patient with your function: samples before and after. It is cleared once the diagnosis is right, too."""
        name = self.card.function
        if getattr(function, "__module__", "").startswith("ddpm_course"):
            print(f"Patient {self.number} is not repaired yet: solve its exercise first.")
            return None
        self.cured = True
        model = treated(self.card, function)
        if said := trial(self.card, function):
            print(f"With your {name}, {said}.")
        rows = [self.model.samples[:10], model.samples[:10]]
        figure = plots.show_rows(
            rows, ["before", "after"], above=CLASS_NAMES, alt=f"Patient {self.number} before and after the repair"
        )
        return plots.in_few_greys(figure)

    @property
    def state(self) -> str:
        if self.diagnosed and self.cured:
            return "cleared"
        if self.cured:
            return "repaired, not diagnosed"
        return "diagnosed" if self.diagnosed else "in the ward"


_ADMITTED: dict[int, Patient] = {}


def admit(number: int) -> Patient:
    """The patient of that number, 1 to 10: the same one, with all that was asked before, however often it is called."""
    if number not in CARDS:
        raise ValueError(f"patients have the numbers 1 to {max(CARDS)}, got {number!r}")
    return _ADMITTED.setdefault(number, Patient(number))


def ward() -> list[Patient]:
    """All patients but number 0, which the lesson treats itself."""
    return [admit(number) for number in CARDS if number]


class Chart:
    """How it stands with all patients, as a table."""

    HEADS = ("patient", "probes", "wrong diagnoses", "looked at the code", "score", "state")

    def rows(self) -> list[tuple]:
        looked = {True: "yes", False: ""}
        return [(p.number, len(p.asked), len(p.wrong), looked[p.opened], p.score, p.state) for p in ward()]

    @property
    def total(self) -> str:
        cleared = [p for p in ward() if p.state == "cleared"]
        points = sum(p.score for p in cleared)
        return f"{len(cleared)} of {len(ward())} cleared, with {points} points. Fewer points are better."

    def __str__(self) -> str:
        rows = [self.HEADS, *self.rows()]
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(self.HEADS))]
        lines = ["  ".join(f"{cell!s:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, self.total])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th scope='col'>{name}</th>" for name in self.HEADS)
        rows = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in self.rows()]
        cells = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table><p>{self.total}</p>"


def chart() -> Chart:
    """The score so far."""
    return Chart()
