"""Reads catalogues of mistakes: what goes wrong in the exercises of a lesson, as text.

    q_sample: lesson 02, 'The closed form'
        with counting
        with broadcasting(x0 | signal, sigma)
        also together with broadcast_width, broadcast_channels

    noise_variance:  sigma = 1 - ab
        Your noise is scaled by 1 - ᾱ_t. That must be its *variance*, so scale by √(1 - ᾱ_t).
    squared:  sigma = (1 - ab**2).sqrt()
    or:  signal = ab ; sigma = (1 - ab**2).sqrt()
        You square ᾱ_t as if it were a factor of x_0. It is a variance already ('The pattern').

A section begins with the exercise's name and the place where the lesson derives it. Each mistake has a name, one or
more ways to make it (`edits` says how a change is written), and what the student is told; to that the place is added,
unless the text names one itself, in parentheses and quotes. Lines that begin with # are comments. A line that is
indented by eight goes on with the one above it.

Below the header, `with` adds the mistakes of a family, the blanks in whose text (<x>) are filled with the values in
parentheses; or those of another exercise, `with predict_x0 except clipped`: the same changes are made to this one's
solution, so the two are laid out alike. `also together with a, b except c` lets every mistake but c be made together
with a, and with b. `in any number a, b: one is left | {n} are left | all are left` makes every combination of the named
ones, and says first how many there are. `accepted id:  change` is a right answer of another kind, with a remark.

Where a result hangs on how a processor rounds, lines like these stand below the header:

    rounded p = … + 2**-21
    rounded p = … - 2**-21

Made together with a mistake, such changes push its roundings as far as they go, a line for each way. A student's result
is that mistake's if it lies between; where one of them gives NaN no digits are left, and nothing is compared.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path


class Misspelt(ValueError):
    """A catalogue that cannot be read; the message names file and line."""


@dataclass
class Entry:
    """One mistake as it is written. `accepted` ones are right answers of another kind, with a remark."""

    id: str
    ways: list[str]
    says: str
    line: int
    accepted: bool = False


@dataclass
class Section:
    """What is written about one exercise, or one family that exercises share (then `parameters` are its blanks)."""

    name: str
    place: str
    line: int
    parameters: tuple[str, ...] = ()
    uses: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)  # family, values, left out
    together: tuple[str, ...] = ()  # what every other mistake, but those in `alone`, is made together with
    alone: tuple[str, ...] = ()
    counted: tuple[tuple[str, ...], list[str]] | None = None  # names, and what is said of 1, of n, and of all of them
    rounded: list[str] = field(default_factory=list)  # changes that push a result's roundings, one way each
    entries: list[Entry] = field(default_factory=list)


HEADER = re.compile(r"(?:(family) )?(\w+)(?:\(([\w, ]*)\))?: (\S.+)")
ENTRY = re.compile(r"(accepted )?([\w-]+):  (.+)")


def read(path: Path, exercises: set[str] = frozenset()) -> dict[str, Section]:
    """The sections of a catalogue by their names.

    exercises: the names of the lesson's exercises, which begin sections; families begin with the word family
    raises     Misspelt for a line that is none of what the format knows
    """
    sections: dict[str, Section] = {}
    section = entry = None
    for number, line in _lines(path.read_text(encoding="utf-8")):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith((" ", "\t")):
            text = line.strip()
            if entry is not None:
                entry.says = f"{entry.says} {text}".strip()
            elif section is None or not _directive(section, text):
                raise Misspelt(f"{path.name}, line {number}: this line belongs to no mistake, and is no directive")
        elif (match := HEADER.fullmatch(line)) and (match[1] or match[2] in exercises):
            blanks = tuple(re.findall(r"\w+", match[3] or ""))
            section, entry = Section(match[2], match[4], number, blanks), None
            if match[2] in sections:
                raise Misspelt(f"{path.name}, line {number}: {match[2]} has a section already")
            sections[match[2]] = section
        elif section is not None and entry is not None and line.startswith("or:  "):
            if entry.says:
                raise Misspelt(f"{path.name}, line {number}: `or:` stands above what the student is told")
            entry.ways.append(line.removeprefix("or:  ").strip())
        elif section is not None and (match := ENTRY.fullmatch(line)):
            entry = Entry(match[2], [match[3].strip()], "", number, bool(match[1]))
            section.entries.append(entry)
        else:
            raise Misspelt(f"{path.name}, line {number}: neither a section, nor a mistake `name:  change`: {line!r}")
    for section in sections.values():
        if silent := [entry for entry in section.entries if not entry.says]:
            raise Misspelt(f"{path.name}, line {silent[0].line}: nothing is said to who makes {silent[0].id}")
    return sections


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with their numbers, those that go on with the one above joined to it."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if lines and line.startswith(" " * 8) and line.strip():
            lines[-1] = (lines[-1][0], f"{lines[-1][1].rstrip()} {line.strip()}")
        else:
            lines.append((number, line))
    return lines


def _directive(section: Section, text: str) -> bool:
    """Take in a line below a section's header; False if it is none that the format knows."""
    if match := re.fullmatch(r"with (\w+)(?:\((.*)\))?(?: except ([\w, ]+))?", text):
        values = tuple(value.strip() for value in match[2].split(" | ")) if match[2] else ()
        section.uses.append((match[1], values, _names(match[3])))
    elif match := re.fullmatch(r"also together with ([\w, ]+?)(?: except ([\w, ]+))?", text):
        section.together, section.alone = _names(match[1]), _names(match[2])
    elif match := re.fullmatch(r"in any number ([\w, ]+): (.+)", text):
        section.counted = (_names(match[1]), [phrase.strip() for phrase in match[2].split(" | ")])
    elif match := re.fullmatch(r"rounded (.+)", text):
        section.rounded.append(match[1])
    else:
        return False
    return True


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text or ""))
