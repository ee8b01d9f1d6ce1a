"""Shows verdicts on standard output, in colour where a notebook shows HTML."""

import html
import sys

from ..exercises.written import Exercise
from .judge import Verdict

MARKS = {"solved": "✓", "not attempted": "○", "wrong": "✗", "package": "↻"}
COLOURS = {"solved": "#009e73", "not attempted": "#b58900", "wrong": "#d55e00", "package": "#b58900"}
TITLES = {
    "solved": "solved",
    "not attempted": "not attempted yet",
    "wrong": "not right yet",
    "package": "not yours yet",
}
FALLBACK = "The lesson goes on with the course's version."


def heading(exercise: Exercise, verdict: Verdict) -> str:
    """The first line: mark, exercise, status."""
    name = "" if exercise.secret and verdict.status == "not attempted" else f", {exercise.name}"
    return f"{MARKS[verdict.status]} Exercise {exercise.number}{name}: {TITLES[verdict.status]}."


def show_verdict(exercise: Exercise, verdict: Verdict) -> None:
    """Print a verdict."""
    stand_in = [FALLBACK] if verdict.status in ("wrong", "not attempted") else []
    show(heading(exercise, verdict), [*verdict.text, *stand_in], COLOURS[verdict.status])


def show(title: str, lines: list[str], colour: str) -> None:
    """Print a title and lines, or display them as HTML in a notebook, with the same text for other readers."""
    text = "\n".join([title, *("  " + line for line in lines)])
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        _print(text)
        return
    from IPython.display import display

    body = "".join(f'<div style="white-space: pre-wrap">{html.escape(line)}</div>' for line in lines)
    bold = f'<div style="color: {colour}; font-weight: bold">{html.escape(title)}</div>'
    box = f'<div style="border-left: 4px solid {colour}; padding: 0.2em 0.8em">{bold}{body}</div>'
    display({"text/plain": text, "text/html": box}, raw=True)


def _print(text: str) -> None:
    try:
        print(text)
    except UnicodeEncodeError:  # a terminal with an old code page
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "replace").decode(encoding))
