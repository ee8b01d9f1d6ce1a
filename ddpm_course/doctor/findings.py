"""What a probe says, and how an examination prints in a terminal and in a notebook (lesson 13)."""

import html
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MARKS = {"sound": "✓", "suspicious": "✗", "waiting": "…", "unknown": "–"}
COLOURS = {"sound": "#009e73", "suspicious": "#d55e00", "waiting": "#b58900", "unknown": "#777777"}


Verdict = tuple[str, str | None]  # a value in words, and what it usually means, or None where it is sound


class UnjudgedError(Exception):
    """What a probe needs and does not have, in a sentence."""


@dataclass(frozen=True)
class Probe:
    """One question to a model.

    name:     what is looked at
    measures: how
    sound:    which values are
    lesson:   where it is explained
    look:     from a patient to a Verdict; raises `UnjudgedError` where something is missing
    """

    name: str
    measures: str
    sound: str
    lesson: str
    look: Callable[..., Verdict]

    def ask(self, patient) -> "Finding":
        try:
            value, means = self.look(patient)
        except UnjudgedError as missing:
            return Finding(self, "unknown", str(missing))
        return Finding(self, "sound" if means is None else "suspicious", value, means or "")


def probe(name: str, *, measures: str, sound: str, lesson: str) -> Callable[[Callable[..., Verdict]], Probe]:
    """Above a function, makes it the `look` of a Probe."""
    return lambda look: Probe(name, measures, sound, lesson, look)


def named(name: str, things: Iterable) -> Any:
    """The probe, or the finding of the probe, that has that name."""
    found = {thing.name: thing for thing in things}
    if name not in found:
        raise KeyError(f"there is no probe {name!r}; there are: {', '.join(found)}")
    return found[name]


@dataclass(frozen=True)
class Finding:
    """What a probe found. `state` is "sound", "suspicious", "waiting" for a repair, or "unknown"."""

    probe: Probe
    state: str
    value: str
    means: str = ""

    @property
    def name(self) -> str:
        return self.probe.name

    def lines(self) -> list[str]:
        """A suspicious finding in full, another one in a line."""
        if self.state != "suspicious":
            return [f"{MARKS[self.state]} {self.name}: {self.value}"]
        probe = self.probe
        return [
            f"{MARKS[self.state]} {self.name}: {self.value}",
            f"measured: {probe.measures}",
            f"sound is: {probe.sound}",
            f"usually:  {self.means}",
            f"see:      {probe.lesson}",
        ]


@dataclass(frozen=True)
class Examination:
    """All findings, in the order of the examination. It prints what is suspicious, and what could not be judged."""

    findings: tuple[Finding, ...]

    def __getitem__(self, name: str) -> Finding:
        """The finding of the probe of that name. KeyError, with the names there are, if there is none."""
        return named(name, self.findings)

    def _in_state(self, state: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == state]

    @property
    def suspicious(self) -> list[Finding]:
        return self._in_state("suspicious")

    @property
    def unknown(self) -> list[Finding]:
        """What could not be judged, and why."""
        return self._in_state("unknown")

    @property
    def sound(self) -> bool:
        """Whether nothing suspicious was found."""
        return not self.suspicious

    @property
    def title(self) -> str:
        count, of = len(self.suspicious), len(self._in_state("sound"))
        if not count:
            return f"Nothing suspicious: {of} probes found what they should."
        waiting = self._in_state("waiting")
        rest = f"; {len(waiting)} more cannot be judged until that is repaired" if waiting else ""
        return f"{count} suspicious finding{'s' * (count > 1)}, {of} sound{rest}."

    def __str__(self) -> str:
        lines = [self.title]
        for finding in self.suspicious:
            first, *rest = finding.lines()
            lines += ["", *textwrap.wrap(first, 100, subsequent_indent="    ")]
            for line in rest:
                lines += textwrap.wrap(line, 100, initial_indent="    ", subsequent_indent=" " * 14)
        if self.unknown:
            lines += ["", "Not judged:"]
            for finding in self.unknown:
                lines += textwrap.wrap(finding.lines()[0], 100, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def table(self) -> str:
        """Every finding in a line, the sound ones too."""
        return "\n".join(finding.lines()[0] for finding in self.findings)

    def _repr_html_(self) -> str:
        colour = COLOURS["sound" if self.sound else "suspicious"]
        body = [f'<div style="color: {colour}; font-weight: bold">{html.escape(self.title)}</div>']
        if self.suspicious:
            heads = ("probe", "value", "sound is", "what it usually means", "lesson")
            rows = [(f.name, f.value, f.probe.sound, f.means, f.probe.lesson) for f in self.suspicious]
            head = "".join(f"<th scope='col' style='text-align: left'>{name}</th>" for name in heads)
            cells = "".join(
                "<tr>" + "".join(f'<td style="text-align: left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
                for row in rows
            )
            body.append(f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>")
        for state, title in (
            ("unknown", "Not judged"),
            ("waiting", "To be judged after the repair"),
            ("sound", "Sound"),
        ):
            items = "".join(f"<li>{html.escape(f'{f.name}: {f.value}')}</li>" for f in self._in_state(state))
            if items:
                body.append(f"<details><summary>{title}</summary><ul>{items}</ul></details>")
        return f'<div style="border-left: 4px solid {colour}; padding: 0.2em 0.8em">{"".join(body)}</div>'
