"""Runs a submission in a process of its own, and judges here what its functions did there.

What the process says is believed for nothing but results, and these must be right on inputs that it has not seen before
(`unseen`). Solutions and mistakes are only here.
"""

import asyncio
import contextlib
import json
import random
import re
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import sandbox
from .submissions import Submission

ATTEMPT = "ddpm_course.classroom.grading.attempt"
START = 180  # seconds in which Python and torch must be up
STATUSES = ("solved", "wrong", "not attempted", "missing", "stopped")
THREADS = 200  # that one submission may have; torch and the notebook's shell have some twenty
FILES = 5000  # in its own folder
LARGEST = 16 << 20  # bytes of what one exercise's functions did; right ones have up to 1 MB
MOST = 1000  # messages
COURSE = re.compile(r"\bddpm_course\b|\.reference\b")  # in an answer: it may be the course's own function
IMPORT = re.compile(r"^from ddpm_course[\w.]* import (.+)$", re.MULTILINE)


@dataclass
class Grader:
    """How submissions are run.

    kind:    how they are confined, see `sandbox.program`
    course:  the folder from `sandbox.without_solutions`
    seconds: for one exercise; in_all: seconds for a submission; memory: bytes. What takes more is stopped
    """

    kind: str
    course: Path
    seconds: float = 60
    in_all: float = 600
    memory: int = 4 << 30
    seed: int = field(default_factory=lambda: random.SystemRandom().randrange(2**31))
    judging: asyncio.Lock = field(default_factory=asyncio.Lock)  # one at a time: a check changes the process's settings


def merged(submission: Submission, left_out: set[str]) -> list[dict]:
    """The cells for `attempt`: the course's own with the student's answers, each followed by what they added there."""
    cells = [{"exercise": None, "sources": submission.others.get("", [])}]
    for id, source, exercise in submission.lesson.cells:
        answer = [] if exercise in left_out else submission.answers.get(exercise, [])
        cells.append({"exercise": exercise, "sources": answer if exercise else [source]})
        cells.append({"exercise": None, "sources": submission.others.get(id, [])})
    return [cell for cell in cells if cell["sources"] or cell["exercise"]]


def uses_course(submission: Submission) -> bool:
    """Does what the student wrote name the package? Do the answers call what the lesson imports from it?

    The lesson's own lines may, and so may answers where the solutions do.
    """
    lesson, answers = submission.lesson, list(submission.answers.values())
    known = {line for _, source, _ in lesson.cells for line in source.splitlines()}
    solutions = "".join(_exercise(name).source for name in lesson.exercises.values())
    imported = {name for _, source, _ in lesson.cells for names in IMPORT.findall(source) for name in names.split(", ")}
    calls = [name for name in imported if name != "checks" and not re.search(rf"\b{name}\b", solutions)]
    called = re.compile(rf"(?<![\w.])({'|'.join(calls)})[.(]")

    def lines(cells: list[list[str]]) -> list[str]:
        return [line for own in cells for source in own for line in source.splitlines() if line not in known]

    named = any(COURSE.search(line) for line in lines([*answers, *submission.others.values()]))
    return named or any(called.search(line) for line in lines(answers))


async def verdicts(submission: Submission, grader: Grader) -> dict[str, dict]:
    """Run a submission and return {"status", "mistake", "problem"} for each exercise of its lesson.

    An exercise that takes too long, or ends the process, is left out in another run of the rest.
    raises  DoesNotRun if the course itself does not run here
    """
    found, clock = {}, asyncio.get_running_loop().time
    end = clock() + grader.in_all
    while True:
        told, began, reason = await run_once(merged(submission, set(found)), grader, end)
        found |= {name: verdict for name, verdict in told.items() if name not in found}
        if began is None or began in found or began not in submission.answers:
            break
        found[began] = {"status": "stopped", "mistake": None, "problem": reason}
        if clock() > end:
            break
    for name in submission.lesson.exercises.values():
        status = "stopped" if name in submission.answers else "missing"  # stopped outside of any exercise
        found.setdefault(name, {"status": status, "mistake": None, "problem": reason if status == "stopped" else None})
    for row in found.values():
        if row["status"] == "solved" and uses_course(submission):
            row["problem"] = "uses the course"
    return {name: found[name] for name in submission.lesson.exercises.values()}


async def run_once(cells: list[dict], grader: Grader, end: float) -> tuple[dict[str, dict], str | None, str | None]:
    """Run cells once, in a process of its own that is gone afterwards.

    end:     when it is stopped at the latest, by the event loop's clock
    returns  the verdicts by exercise, the exercise that was never finished if there is one, and why it was not
    """
    from ...checks import judge

    asked = [cell["exercise"] for cell in cells if cell["exercise"]]  # in the order in which they have to be told of
    for cell in cells:
        if cell["exercise"]:
            cell |= {"seed": grader.seed, "seconds": judge.allowed(_exercise(cell["exercise"]))}
    told, began, reason, ready = {}, None, None, False
    clock = asyncio.get_running_loop().time
    async with (
        sandbox.program(grader.kind, grader.course, "-m", ATTEMPT) as process,
        _attended(process) as errors,
    ):
        watch = asyncio.create_task(_watch(process, grader.memory))
        give = asyncio.create_task(_give(process, {"memory": grader.memory, "cells": cells}))
        try:
            async with asyncio.timeout_at(clock() + START) as timer:
                async for message, content in _messages(process):
                    if message.get("done") is True:
                        return told, began, None
                    if message.get("ready") is True and not ready:
                        ready = True
                    elif asked and began is None and message.get("begun") == asked[0]:
                        began = asked[0]
                    elif asked and asked[0] in (message.get("exercise"), message.get("missing")):
                        name = asked.pop(0)
                        if began == name:
                            timer.reschedule(None)  # the time that judging takes is ours
                            async with grader.judging:
                                told[name] = await asyncio.to_thread(judged, name, message, content, grader.seed)
                            timer.reschedule(end)
                        solved = told.get(name, {}).get("status") == "solved"
                        await _give(process, {"source": stand_in(name), "solved": solved})
                        began = None
                    else:  # talking on and on gains no time
                        continue
                    timer.reschedule(min(end, clock() + grader.seconds))
            reason = (watch.result() if watch.done() else None) or "ended the process"
        except TimeoutError:
            reason = "time"
        finally:
            for task in (watch, give):
                task.cancel()
        if not ready:
            said = bytes(errors).decode(errors="replace")[-1000:]
            raise sandbox.DoesNotRun(f"the course does not run here: {said or reason}")
    return told, began, reason


def judged(name: str, message: dict, content: bytes, seed: int) -> dict:
    """The row's part of a verdict, by what the functions did: on the check's own cases, and on those never seen."""
    from ...checks import gradients, judge
    from .plain import refuse_shapes, unpacked
    from .unseen import unseen

    exercise = _exercise(name)
    other = unseen(exercise, seed)
    seen = len(exercise.cases) + len(gradients.cases(exercise))
    row = {"status": "wrong", "mistake": None, "problem": None}
    if (refused := message.get("refused")) is not None:
        fine = refused in (["not attempted", None], ["package", None])
        problem = next((p for p in ("cell fails", "type", "signature") if refused == ["wrong", p]), "cell fails")
        return row | ({"status": "not attempted"} if fine else {"problem": problem})
    try:
        outcomes = unpacked(content, seen + len(other.cases))
        if any("MemoryError" in repr(o.error) or "allocate memory" in str(o.error) for o in outcomes):
            return row | {"status": "stopped", "problem": "memory"}
        refuse_shapes(exercise, outcomes[len(exercise.cases) : seen])
        found = judge.verdict(exercise, outcomes[:seen], [])
        if not found.solved:
            return row | {"status": found.status, "mistake": found.mistake, "problem": found.problem}
        fresh = judge.verdict(other, outcomes[seen:], [])
        return row | ({"status": "solved"} if fresh.solved else {"problem": "other inputs"})
    except Exception:  # whatever a stranger's process made up
        return row | {"status": "stopped", "problem": "no results"}


def _exercise(name: str):
    from ...checks.library import BY_NAME

    return BY_NAME[name]


@cache
def stand_in(name: str) -> str:
    """The text of the course's function, with all that it needs."""
    from ...checks import library

    return library.add(library.HEADER, _exercise(name), _exercise(name).reference, given=True)


async def _give(process: Process, content: dict) -> None:
    """Hand a line over."""
    with contextlib.suppress(OSError):  # it ended before it had read it
        process.stdin.write(json.dumps(content).encode() + b"\n")
        await process.stdin.drain()


async def _watch(process: Process, memory: int) -> str | None:
    """End the process when it holds too much memory, or too many threads or files, and say which it was."""
    most = {"memory": memory, "threads": THREADS, "files": FILES}
    while process.returncode is None:
        await asyncio.sleep(0.05)
        held = sandbox.used(process)
        if over := [name for name in most if held[name] > most[name]]:
            process.kill()
            return over[0]


async def _messages(process: Process) -> AsyncIterator[tuple[dict, bytes]]:
    """What the process tells, and what stands behind it, to its end. Nothing in it may do harm here."""
    for _ in range(MOST):
        try:
            message = json.loads(await process.stdout.readline())
            size = message.get("size") if isinstance(message, dict) else None
            if type(size) is not int or not 0 <= size <= LARGEST:
                return
            content = await process.stdout.readexactly(size)
        except (ValueError, RecursionError, EOFError):  # the end, a line without end, or none of ours
            return
        yield message, content


@contextlib.asynccontextmanager
async def _attended(process: Process) -> AsyncIterator[bytearray]:
    """The end of what the process writes to standard error."""
    last = bytearray()

    async def read() -> None:
        while chunk := await process.stderr.read(1 << 14):
            last.extend(chunk)
            del last[: -(1 << 14)]

    task = asyncio.create_task(read())
    try:
        yield last
    finally:
        task.cancel()
