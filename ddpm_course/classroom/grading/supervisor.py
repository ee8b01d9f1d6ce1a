"""Runs a submission in a process of its own, and believes it nothing but verdicts about itself."""

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import sandbox
from .submissions import Submission

START = 180  # seconds in which Python and torch must be up
STATUSES = ("solved", "wrong", "not attempted", "missing", "stopped")


def merged(submission: Submission, left_out: set[str]) -> list[dict]:
    """The cells for `attempt`: the course's own with the student's answers, each followed by what they added there."""
    cells = [{"exercise": None, "sources": submission.others.get("", [])}]
    for id, source, exercise in submission.lesson.cells:
        answer = [] if exercise in left_out else submission.answers.get(exercise, [])
        cells.append({"exercise": exercise, "sources": answer if exercise else [source]})
        cells.append({"exercise": None, "sources": submission.others.get(id, [])})
    return [cell for cell in cells if cell["sources"] or cell["exercise"]]


def verdicts(
    submission: Submission, seconds: float = 60, memory: int = 4 << 30, network: bool = False
) -> dict[str, dict]:
    """Run a submission and return {"status", "mistake", "problem"} for each exercise of its lesson.

    An exercise that takes longer than `seconds`, or ends the process, is left out in another run of the rest.
    raises RuntimeError if the course itself does not run here
    """
    found = {}
    while True:
        told, began, reason = run_once(merged(submission, set(found)), seconds, memory, network)
        found |= {name: _believed(name, verdict) for name, verdict in told.items() if name not in found}
        if began is None or began in found or began not in submission.answers:
            break
        found[began] = {"status": "stopped", "mistake": None, "problem": reason}
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
        "problem": problem if problem and re.fullmatch("[a-z ]{1,20}", problem) else None,
    }


def run_once(
    cells: list[dict], seconds: float, memory: int, network: bool
) -> tuple[dict[str, dict], str | None, str | None]:
    """Run cells once, in a process of its own that is gone afterwards.

    returns the verdicts by exercise, the exercise that was never finished if there is one, and why it was not
    """
    exercises = {cell["exercise"] for cell in cells if cell["exercise"]}
    told, began, reason, ready = {}, None, None, False
    with tempfile.TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as folder:
        Path(folder, "cells.json").write_text(json.dumps(cells), encoding="utf-8")
        options = json.dumps({"memory": memory, "network": network})
        process, lines = start(folder, "ddpm_course.classroom.grading.attempt", options), queue.Queue()
        threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
        deadline = last = time.monotonic() + START
        try:
            while reason is None:
                try:
                    message = lines.get(timeout=max(0, deadline - time.monotonic()))
                except queue.Empty:
                    message, reason = {}, "time"
                if message is None:
                    reason = "ended the process"
                elif message.get("done"):
                    break
                elif message.get("ready") and not ready:
                    ready, last = True, time.monotonic() + seconds * (len(exercises) + 2)
                elif message.get("begun") in exercises:
                    began = message["begun"]
                elif message.get("exercise") in exercises:
                    told[message["exercise"]], began = message, None
                if ready:
                    deadline = min(last, time.monotonic() + seconds)  # talking on and on gains no time
        finally:
            stop(process)
        if not ready:
            errors = Path(folder, "errors").read_text(encoding="utf-8", errors="replace").strip()
            raise RuntimeError(f"the course does not run here: {errors[-1000:] or 'no answer in time'}")
    return told, began, reason


def start(folder: str, *module: str) -> subprocess.Popen:
    """Start a module of the course in `folder`, with that as its home and nothing of this process's environment."""
    import matplotlib

    fonts = Path(folder, "matplotlib")
    fonts.mkdir()
    for cache in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):  # looking for fonts takes seconds
        shutil.copy(cache, fonts)
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT")
    own = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR"), folder)
    path = os.pathsep.join(filter(None, [str(sandbox.PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    own |= {"MPLCONFIGDIR": str(fonts), "MPLBACKEND": "Agg", "PYTHONPATH": path}
    own |= {"DDPM_COURSE_FAST": "1", "DDPM_COURSE_SAVE": "0"}  # shortened budgets; no my_ddpm.py
    own |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with open(Path(folder, "errors"), "wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=folder,
            env={name: os.environ[name] for name in kept if name in os.environ} | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


def stop(process: subprocess.Popen) -> None:
    """End the process and its group. Where it is confined it can have no other processes."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _pump(process: subprocess.Popen, lines: queue.Queue) -> None:
    """Put what the process tells into the queue, None at its end. Nothing in it may do harm here."""
    with process.stdout as stream:
        for _ in range(1000):
            line = stream.readline(10_000)
            if not line:
                break
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
                if isinstance(message, dict):
                    lines.put({key: value for key, value in message.items() if isinstance(value, str | bool | None)})
    lines.put(None)
