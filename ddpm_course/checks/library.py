"""my_ddpm.py: the file in which the functions that a student wrote, and that passed, come together.

It is a list of blocks, one an exercise, in the course's order. A block stands between two marker lines and
is replaced when its exercise is solved again; whatever the student writes outside the blocks is left alone.
The file works without ddpm_course: what the functions need and no exercise asks for is in blocks marked "given".
"""

import ast
import codecs
import contextlib
import io
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import colab, schedules
from ..exercises import EXERCISES
from ..exercises.written import Exercise
from ..files import write_atomically
from . import judge
from .entries import CannotSave, entry
from .traces import untouched

HEADER = '''"""My DDPM: the functions I wrote in the course's exercises, each of them checked.

Blocks marked "given" are no work of mine. Check everything again: python -m ddpm_course.checks my_ddpm.py
"""
'''
BLOCK = re.compile(
    r"^# >>> (?P<key>\S+) (?P<name>\w+)(?P<given> \(given\))?\n(?P<body>.*?)^# <<< (?P=name)\n", re.M | re.S
)
BY_NAME = {exercise.name: exercise for exercise in EXERCISES}


def save(exercise: Exercise, function: Callable, path: str | Path = colab.LIBRARY) -> str:
    """Put function into the file, if it passes the same check there. Returns one sentence for the student."""
    path = Path(path)
    try:
        text = read(path) if path.exists() else HEADER
        text = add(text, exercise, function)
        namespace = execute(text, path.name)
        verdict = verdict_on(exercise, namespace[exercise.name], namespace.get("Schedule", schedules.Schedule))
        if not verdict.solved:
            raise CannotSave(f"in an empty process it no longer passes. {' '.join(verdict.text)}")
        write_atomically(path, text)
    except CannotSave as reason:
        return f"Not saved: {reason}"
    except OSError as error:
        return f"Not saved: {path.name} cannot be read or written ({error})."
    except Exception as error:  # nothing but a sentence comes out of a check, whatever somebody wrote
        return f"Not saved: the course cannot copy this answer ({type(error).__name__}: {error})."
    mine = sum(not block["given"] for block in BLOCK.finditer(text))
    where = colab.named(path) if path.is_relative_to(colab.DRIVE) else path.name
    return f"Saved in {where}, which now holds {mine} function{'s' * (mine != 1)} of yours."


def read(path: Path) -> str:
    """The file's text, however an editor saved it: with a byte-order mark, in UTF-16, with Windows' ends of lines.

    raises  CannotSave for what is no such text; OSError
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeError as error:
        raise CannotSave(f"{path.name} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    return re.sub(r"\r\n?", "\n", text)


def verdict_on(exercise: Exercise, function: Any, schedule_class: type = schedules.Schedule) -> judge.Verdict:
    """What `judge.check` finds; whatever a function or its result does to the judge, a verdict comes out."""
    try:
        return judge.check(exercise, function, schedule_class)
    except Exception as error:
        says = f"This answer cannot be judged: looking at it raises {type(error).__name__}: {error!s:.200}"
        return judge.Verdict("wrong", [says], problem="raises")


def add(text: str, exercise: Exercise, function: Callable, *, given: bool = False) -> str:
    """The text of the file with function in it, and with everything it needs; `given` if it is no student's."""
    if HEADER.splitlines()[0] not in text:
        raise CannotSave(
            f"there is a {colab.LIBRARY} here that the course did not make. Rename it and run this cell again."
        )
    if not BLOCK.search(text):
        text = _put(text, "0", "Schedule", entry(schedules.Schedule, "Schedule", ())[0], given=True)
    body, needed = entry(function, exercise.name, BY_NAME)
    _reject_clashes(text, exercise.name, body)
    text = _put(text, exercise.number, exercise.name, body, given)
    if exercise.given:
        body, more = entry(exercise.given, exercise.given.__name__, BY_NAME)
        text = _put(text, exercise.number, exercise.given.__name__, body, given=True)
        needed += more
    present = {block["name"] for block in BLOCK.finditer(text)}
    while missing := [name for name in needed if name not in present]:
        other = BY_NAME[missing[0]]
        body, more = entry(other.reference, other.name, BY_NAME)
        text = _put(text, other.number, other.name, body, given=True)
        present.add(other.name)
        needed += more
    return text


def execute(text: str, name: str = colab.LIBRARY) -> dict[str, Any]:
    """Run the file in an empty namespace and return that.

    raises  CannotSave with the line number if it does not run
    """
    module = types.ModuleType("_my_ddpm")
    sys.modules[module.__name__] = module  # dataclasses look themselves up
    try:
        with untouched(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(text, name, "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        trace, line = error.__traceback__, getattr(error, "lineno", None)
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == name else line
            trace = trace.tb_next
        where = f"line {line} raises " * (line is not None)
        raise CannotSave(f"{name} does not run by itself: {where}{type(error).__name__}: {error}") from None
    finally:
        del sys.modules[module.__name__]
    return module.__dict__


def given_names(text: str) -> set[str]:
    """Names of the blocks that the student did not write."""
    return {block["name"] for block in BLOCK.finditer(text) if block["given"]}


def _reject_clashes(text: str, name: str, body: str) -> None:
    """A helper that another block defines differently would change that block's function."""
    for block in BLOCK.finditer(text):
        if block["name"] == name:
            continue
        theirs = _top_level(block["body"])
        for helper, source in _top_level(body).items():
            if theirs.get(helper, source) != source:
                raise CannotSave(f"{block['name']} has another {helper}. Rename one of the two.")


def _top_level(body: str) -> dict[str, str]:
    nodes = (n for n in ast.parse(body).body if isinstance(n, ast.FunctionDef | ast.ClassDef))
    return {node.name: ast.unparse(node) for node in nodes}


def _put(text: str, key: str, name: str, body: str, given: bool = False) -> str:
    """text with the block of that name replaced, or put where the course's order wants it."""
    block = f"# >>> {key} {name}{' (given)' * given}\n{body}# <<< {name}\n"
    for old in BLOCK.finditer(text):
        if old["name"] == name:
            return text[: old.start()] + block + text[old.end() :]
    later = next((b for b in BLOCK.finditer(text) if _order(b["key"]) > _order(key)), None)
    if later:
        return text[: later.start()] + block + "\n\n" + text[later.start() :]
    return text.rstrip("\n") + "\n\n\n" + block


def _order(key: str) -> tuple[int, ...]:
    return tuple(int(part) for part in key.split("."))
