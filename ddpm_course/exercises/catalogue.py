"""From the text of a catalogue to the mistakes that a check recognises: changes applied, sentences completed."""

import itertools
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from .edits import CannotChange, wrong_function
from .reading import Entry, Misspelt, Section, read
from .records import Mistake


class Variant:
    """A wrong answer, made when it is first called: there are a thousand, and most are never asked for.

    versions: where its result hangs on roundings, the same with these pushed either way (see reading, `rounded`)
    """

    def __init__(
        self, exercise: str, change: str, sources: dict, namespace: dict, place: str, rounded: Iterable[str] = ()
    ):
        self.exercise, self.change, self.place = exercise, change, place
        self._sources, self._namespace, self._rounded = sources, namespace, rounded
        self.versions = [Variant(exercise, f"{change} ; {push}", sources, namespace, place) for push in rounded]

    @cached_property
    def function(self) -> Callable:
        """Raises CannotChange, with file and line, for a change that does not apply."""
        try:
            return wrong_function(self.exercise, self.change, self._sources, self._namespace)
        except CannotChange as problem:
            raise CannotChange(f"{self.place}: {problem}") from None

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def together_with(self, other: "Variant") -> "Variant":
        """Both changes, this one first."""
        change = f"{self.change} ; {other.change}"
        return Variant(self.exercise, change, self._sources, self._namespace, self.place, self._rounded)


class Catalogue:
    """The mistakes of one lesson.

    path:      its text
    families:  the text that all lessons share
    sources:   the text of each of the lesson's functions, by name
    namespace: what these functions find when they run
    """

    def __init__(self, path: Path, families: Path, sources: dict[str, str], namespace: dict[str, Any]):
        self.path, self.sources, self.namespace = path, sources, namespace
        self.sections = read(families) | read(path, set(sources))

    def mistakes(self, exercise: str) -> tuple[list[Mistake], list[Mistake]]:
        """The mistakes of an exercise, and the right answers of another kind that are accepted with a remark."""
        section = self.sections.get(exercise)
        if section is None:
            return [], []
        entries = self._entries(section)
        single = {entry.id: self._mistake(exercise, [entry]) for entry in entries}
        accepted = [single.pop(entry.id) for entry in entries if entry.accepted]
        mistakes, named = list(single.values()), {entry.id: entry for entry in entries}
        for name, other in itertools.product(list(single), section.together):
            if name not in (*section.together, *section.alone):
                mistakes.append(self._mistake(exercise, [named[name], named[other]]))
        if section.counted:
            names, phrases = section.counted
            mistakes = [mistake for mistake in mistakes if mistake.id not in names]
            for n in range(1, len(names) + 1):
                for some in itertools.combinations(names, n):
                    mistakes.append(self._counted(exercise, [named[name] for name in some], phrases, len(names)))
        return [mistake for mistake in mistakes if mistake.variants], accepted

    def _mistake(self, exercise: str, entries: list[Entry]) -> Mistake:
        """The entries made together. Of several, those ways that exclude each other are left out."""
        changes = [" ; ".join(ways) for ways in itertools.product(*(entry.ways for entry in entries))]
        place, rounded = f"{self.path.name}, line {entries[0].line}", self.sections[exercise].rounded
        variants = [
            Variant(exercise, change, self.sources, self.namespace, place, () if change.startswith("def ") else rounded)
            for change in changes
        ]
        if len(entries) > 1:
            variants = [variant for variant in variants if _applies(variant)]
        says = "\n".join(beside(entry.says) if len(entries) > 1 else entry.says for entry in entries)
        return Mistake(" and ".join(entry.id for entry in entries), says, *variants, whole=len(entries) > 1)

    def _counted(self, exercise: str, entries: list[Entry], phrases: list[str], most: int) -> Mistake:
        """Faults of which some are left: how many is said, and of the first what it is."""
        mistake, n = self._mistake(exercise, entries), len(entries)
        phrase = phrases[0] if n == 1 else phrases[-1] if n == most else phrases[1].format(n=n)
        mistake.says, mistake.whole = f"{phrase}\n{entries[0].says}", True
        return mistake

    def _entries(self, section: Section) -> list[Entry]:
        """A section's own mistakes, and behind them those of the families and exercises that it names."""
        entries = [self._placed(entry, section.place, {}) for entry in section.entries]
        for name, values, left_out in section.uses:
            other = self.sections.get(name) or self._elsewhere(name)
            if other is None:
                raise Misspelt(f"{self.path.name}, line {section.line}: there is no family or exercise {name}")
            if len(values) != len(other.parameters):
                raise Misspelt(f"{self.path.name}, line {section.line}: {name} takes {len(other.parameters)} values")
            own, blanks = {entry.id for entry in section.entries}, dict(zip(other.parameters, values, strict=True))
            inherited = (
                self._entries(other)
                if not other.parameters
                else [self._placed(entry, other.place, blanks) for entry in other.entries]
            )
            entries += [entry for entry in inherited if entry.id not in {*left_out, *own}]
        return entries

    def _elsewhere(self, exercise: str) -> Section | None:
        """The section of another lesson's exercise, in the catalogue that lies beside this one."""
        for path in sorted(self.path.parent.glob("lesson*.mistakes")):
            names = set(re.findall(r"^(\w+): lesson \d\d", path.read_text(encoding="utf-8"), re.MULTILINE))
            if exercise in names and path != self.path:
                self.sections = read(path, names) | self.sections
                return self.sections[exercise]
        return None

    def _placed(self, entry: Entry, place: str, blanks: dict[str, str]) -> Entry:
        """The entry with its blanks filled in, and the place of the derivation behind what is said."""

        def filled(text: str) -> str:
            for name, value in blanks.items():
                text = text.replace(f"<{name}>", value)
            return text

        says, place = filled(entry.says), filled(place)
        lesson = place.partition(",")[0]  # "lesson 02"
        says = re.sub(r"\(('[^']+')\)", rf"({lesson}, \1)", says)
        if not re.search(r"\(lesson \d\d, '[^']+'", says):
            says = f"{says.removesuffix('.')} ({place})."
        return Entry(entry.id, [filled(way) for way in entry.ways], says, entry.line, entry.accepted)


PRAISE = re.compile(r"^(?:Right, but|Right(?:, in| for)[^.:]*\.|[^.:,]* (?:is|are) right(?:, but|\.)) ")


def beside(says: str) -> str:
    """What is said of a mistake where there is another one: not that the rest is right."""
    left = PRAISE.sub("", says)
    return left[:1].upper() + left[1:] if left[:1].isascii() and left[1:2] != "_" else left


def _applies(variant: Variant) -> bool:
    try:
        return variant.function is not None
    except CannotChange:
        return False
