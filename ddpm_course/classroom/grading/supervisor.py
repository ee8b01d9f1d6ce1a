"""Runs a submission in a process of its own, and believes it nothing but verdicts about itself."""

import asyncio
import contextlib
import json
import re
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass

from . import sandbox
from .submissions import Submission

ATTEMPT = "ddpm_course.classroom.grading.attempt"
START = 180  # seconds in which Python and torch must be up
STATUSES = ("solved", "wrong", "not attempted", "missing", "stopped")
THREADS = 200  # that one submission may have; torch and the notebook's shell have some twenty
LONGEST, MOST = 1 << 14, 1000  # bytes in a line of what it tells, and lines


@dataclass(frozen=True)
class Limits:
    """seconds: for one exercise; in_all: seconds for a submission; memory: bytes. What takes more is stopped."""

    seconds: float = 60
    in_all: float = 600
    memory: int = 4 << 30


def merged(submission: Submission, left_out: set[str]) -> list[dict]:
    """The cells for `attempt`: the course's own with the student's answers, each followed by what they added there."""
    cells = [{"exercise": None, "sources": submission.others.get("", [])}]
    for id, source, exercise in submission.lesson.cells:
        answer = [] if exercise in left_out else submission.answers.get(exercise, [])
        cells.append({"exercise": exercise, "sources": answer if exercise else [source]})
        cells.append({"exercise": None, "sources": submission.others.get(id, [])})
    return [cell for cell in cells if cell["sources"] or cell["exercise"]]


async def verdicts(submission: Submission, kind: str, limits: Limits) -> dict[str, dict]:
    """Run a submission and return {"status", "mistake", "problem"} for each exercise of its lesson.

    An exercise that takes too long, or ends the process, is left out in another run of the rest.
    kind:   how it is confined, see `sandbox.program`
    raises  DoesNotRun if the course itself does not run here
    """
    found, clock = {}, asyncio.get_running_loop().time
    end = clock() + limits.in_all
    while True:
        told, began, reason = await run_once(merged(submission, set(found)), kind, limits, end)
        found |= {name: _believed(name, verdict) for name, verdict in told.items() if name not in found}
        if began is None or began in found or began not in submission.answers:
            break
        found[began] = {"status": "stopped", "mistake": None, "problem": reason}
        if clock() > end:
            break
    for name in submission.lesson.exercises.values():
        status = "stopped" if name in submission.answers else "missing"  # stopped outside of any exercise
        found.setdefault(name, {"status": status, "mistake": None, "problem": reason if status == "stopped" else None})
    return {name: found[name] for name in submission.lesson.exercises.values()}


def _believed(name: str, verdict: dict) -> dict:
    """A verdict as far as it can be one: a submission can write what it likes into its own row, but nothing else."""
    from ... import checks

    mistakes = {mistake.id for mistake in getattr(checks, name).mistakes}
    status, mistake, problem = (verdict.get(key) for key in ("status", "mistake", "problem"))
    status = "not attempted" if status == "package" else status
    return {
        "status": status if status in STATUSES else "stopped",
        "mistake": mistake if status == "wrong" and mistake in mistakes else None,
        "problem": problem if isinstance(problem, str) and re.fullmatch("[a-z ]{1,20}", problem) else None,
    }


async def run_once(
    cells: list[dict], kind: str, limits: Limits, end: float
) -> tuple[dict[str, dict], str | None, str | None]:
    """Run cells once, in a process of its own that is gone afterwards.

    end:     when it is stopped at the latest, by the event loop's clock
    returns  the verdicts by exercise, the exercise that was never finished if there is one, and why it was not
    """
    exercises = {cell["exercise"] for cell in cells if cell["exercise"]}
    told, begun, began, reason, ready = {}, set(), None, None, False
    clock = asyncio.get_running_loop().time
    async with sandbox.program(kind, "-m", ATTEMPT) as process, _attended(process) as errors:
        tasks = [asyncio.create_task(_watch(process, limits.memory))]
        tasks.append(asyncio.create_task(_give(process, {"memory": limits.memory, "cells": cells})))
        deadline = clock() + START
        try:
            async with asyncio.timeout_at(deadline) as timer:
                async for message in _messages(process):
                    if message.get("done") is True:
                        return told, began, None
                    if message.get("ready") is True and not ready:
                        ready = True
                    elif message.get("begun") in exercises - begun:
                        began = message["begun"]
                        begun.add(began)
                    elif message.get("exercise") in exercises - set(told):
                        told[message["exercise"]], began = message, None
                    else:  # talking on and on gains no time
                        continue
                    timer.reschedule(min(end, clock() + limits.seconds))
            reason = tasks[0].result() if tasks[0].done() else None
            reason = reason or "ended the process"
        except TimeoutError:
            reason = "time"
        finally:
            for task in tasks:
                task.cancel()
        if not ready:
            raise sandbox.DoesNotRun(
                f"the course does not run here: {bytes(errors).decode(errors='replace')[-1000:] or reason}"
            )
    return told, began, reason


async def _give(process: Process, content: dict) -> None:
    """Hand the cells over."""
    with contextlib.suppress(OSError):  # it ended before it had read them
        process.stdin.write(json.dumps(content).encode())
        await process.stdin.drain()
        process.stdin.close()


async def _watch(process: Process, memory: int) -> str | None:
    """End the process when all its memory or its threads are too many, and say which it was."""
    while process.returncode is None:
        await asyncio.sleep(0.05)
        held, threads = sandbox.used(process)
        if held > memory or threads > THREADS:
            process.kill()
            return "memory" if held > memory else "threads"


async def _messages(process: Process) -> AsyncIterator[dict]:
    """What the process tells, to its end. Nothing in it may do harm here."""
    for _ in range(MOST):
        try:
            line = await process.stdout.readline()
        except ValueError:  # a line without end
            return
        if not line:
            return
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(line) if len(line) < LONGEST else None
            if isinstance(message, dict):
                yield {key: value for key, value in message.items() if isinstance(value, str | bool | None)}


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
