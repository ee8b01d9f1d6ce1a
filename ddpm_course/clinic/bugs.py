"""The thirty diagnoses: what each of them does to what is seen, and why it is not what a patient has (lesson 13).

They are written down in bugs.txt. A bug and a patient are compared by what they show: first by what everybody sees, and
where that is the same, by the probes of the doctor that find something.
"""

import html
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TEXT = Path(__file__).with_name("bugs.txt")


@dataclass(frozen=True)
class Bug:
    """One diagnosis.

    seen:     for the grid, the losses, the loss by t and the histogram, the word for what they show
    finds:    the probes of the doctor that find something
    lesson:   the lesson and, where there is one, its section
    planted:  the model of tests/patients.py that has it; "" where there is none
    """

    name: str
    says: str
    seen: dict[str, str]
    finds: tuple[str, ...]
    lesson: str
    planted: str = ""


class Listing(dict):
    """Names and what is said of each; prints as a list."""

    def __str__(self) -> str:
        width = max(map(len, self)) + 2
        lines = []
        for name, says in self.items():
            lines += textwrap.wrap(f"{name:{width}}{says}", 100, subsequent_indent=" " * width)
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align: left'><code>{html.escape(name)}</code></td>"
            f"<td style='text-align: left'>{html.escape(says)}</td></tr>"
            for name, says in self.items()
        )
        return f"<table><tbody>{rows}</tbody></table>"


def read(text: str) -> tuple[dict[str, tuple[str, dict]], dict[str, Bug]]:
    """What is looked at, by its name: what it is called, and for each word what it would do and does; and the bugs."""
    views, bugs = {}, {}
    for block in re.split(r"\n\s*\n", re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE).strip()):
        head, *lines = block.split("\n")
        name, _, says = head.partition(": ")
        if name.startswith("see "):
            words = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)
            views[name.removeprefix("see ")] = says, {w: tuple(t.split(" | ")) for w, t in words.items()}
            continue
        seen, finds, lesson, *planted = (line.strip() for line in lines)
        facts = {view: fact.removeprefix(view).strip() for fact in seen.split(", ") for view in views
                 if fact.startswith(f"{view} ")}  # fmt: skip
        found = finds.removeprefix("finds ")
        bugs[name] = Bug(
            name, says, facts, () if found == "none" else tuple(found.split(", ")), lesson,
            planted[0].removeprefix("planted ") if planted else "",
        )  # fmt: skip
    return views, bugs


VIEWS, ALL = read(TEXT.read_text(encoding="utf-8"))
BUGS = Listing((name, bug.says) for name, bug in ALL.items())


def reason(bug: Bug, seen: dict[str, str], finds: Iterable[str]) -> str:
    """Why it is not this bug: what would look the same as it does with the patient, and what would not."""
    same = [VIEWS[view][0] for view in VIEWS if bug.seen[view] == seen[view]]
    other = [view for view in VIEWS if bug.seen[view] != seen[view]]
    begins = f"{listed(same)} would look the same." if same else "Nothing that you see would look the same."
    if other:
        view = other[0]
        subject, words = VIEWS[view]
        would, does = words[bug.seen[view]][0], words[seen[view]][1]
        but = "But" if same else "For one thing,"
        return f"{begins[0].upper()}{begins[1:]} {but} {subject} would {would}, and here it {does}."
    begins = "All that you see would look the same."
    if found := [probe for probe in bug.finds if probe not in finds]:
        does = "they find" if len(found) > 1 else "it finds"
        return f"{begins} But {quoted(found)} would find something, and here {does} nothing."
    if left := [probe for probe in finds if probe not in bug.finds]:
        return f"{begins} But {quoted(left)} find{'s' * (len(left) == 1)} something here, which this would not explain."
    raise ValueError(f"nothing tells {bug.name!r} from this patient")


def listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def quoted(probes: list[str]) -> str:
    return listed([f"`{probe}`" for probe in probes])
