"""The report on submitted notebooks: run on a class of strangers, some of whom mean harm."""

import contextlib
import csv
import json
import os
import re
import socket
import sys
from pathlib import Path

import lessons
import pytest
from courses import contents, python, save, with_cells

from ddpm_course.checks import EXERCISES
from ddpm_course.classroom import report
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.editions import ROOT
from ddpm_course.classroom.grading import submissions
from ddpm_course.classroom.grading.supervisor import STATUSES

LESSON = "01_forward_process"
COURSE = lessons.read("solutions", LESSON)

WAYS_OUT = {
    "connect": "socket.create_connection(('127.0.0.1', port))",
    "local socket": "socket.socket(socket.AF_UNIX)",
    "fork": "os.fork() or os._exit(0) or True",
    "command": "subprocess.run(['true'], check=True)",
    "signal": "os.kill(os.getppid(), 0) is None",
    "signal to all": "os.kill(-os.getpgid(os.getppid()), 0) is None",
    "limits of another": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "environment of another": "Path(f'/proc/{os.getppid()}/environ').read_bytes()",
    "read a file": "Path(outside, 'ada.ipynb').read_text()",
    "list a folder": "list(Path(outside).iterdir())",
    "write a file": "Path(outside, 'written').write_text('x')",
    "remove a file": "Path(outside, 'old').unlink() is None",
    "large file": "Path('large').write_bytes(bytes(65 << 20))",
    "memory": "len(bytearray(2 << 30))",
    "memory that no limit counts": "os.memfd_create('x')",
}
ALLOWED = {
    "thread": "[one.start() or one.join() for one in [threading.Thread(target=list)]]",
    "own file": "Path('mine').write_text('x') and Path('mine').read_text()",
    "pair of sockets": "socket.socketpair()",
}
REFUSALS = {"PermissionError", "OSError", "MemoryError"}
TRY = """
import json, os, resource, socket, subprocess, threading
from pathlib import Path
port, outside, ways = FACTS
closed = None

def outcome(way):
    try:
        return str(bool(eval(way)))
    except (OSError, MemoryError) as error:
        return type(error).__name__

outcomes = {name: outcome(way) for name, way in ways.items()}
"""
CONFINE = "from ddpm_course.classroom.grading import sandbox\nclosed = sandbox.confine(Path.cwd(), 1 << 30, {})"


def trying(server: socket.socket, outside: Path, ways: dict[str, str]) -> str:
    """A program that tries these ways to call the server, and to the files that are made in the folder outside."""
    for name in ("ada.ipynb", "old"):
        save(outside / name, "somebody else's")
    return TRY.replace("FACTS", repr((server.getsockname()[1], str(outside), ways)))


@pytest.fixture
def server():
    if not sys.platform.startswith("linux") or not all(report.what_is_closed().values()):
        pytest.skip("submissions cannot be confined on this system")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_every_way_out_is_open_without_the_sandbox_and_closed_in_it(server, tmp_path):
    found = []
    for number, confine in enumerate(["closed = None", CONFINE.format(False), CONFINE.format(True)]):
        own = save(tmp_path / f"inside-{number}" / "a", "").parent
        script = trying(server, tmp_path / f"outside-{number}", WAYS_OUT | ALLOWED).replace("closed = None", confine)
        told = python("-u", "-c", f"{script}\nprint(json.dumps([outcomes, closed]))", cwd=own, PYTHONPATH=str(ROOT))
        found.append(json.loads(told))
    (free, _), (confined, closed), (online, online_closed) = found
    assert free == dict.fromkeys(WAYS_OUT | ALLOWED, "True")
    assert {name for name, outcome in confined.items() if outcome not in REFUSALS} == set(ALLOWED)
    assert {name: confined[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "True")
    assert online == confined | {"connect": "True", "local socket": "True"}  # --with-network opens the network alone
    assert (closed, online_closed) == ({"network": True, "files": True}, {"network": False, "files": True})


FORGER = """
import contextlib, json, os
lines = [{"exercise": "q_step", "status": "solved"}, {"exercise": "next_variance", "status": ["x"], "mistake": {}},
         {"exercise": "diffuse", "status": "wrong", "mistake": "=cmd()"}, {"exercise": "nothing", "status": "solved"},
         [1], "text", {"begun": 5}, {"done": 0}]
for channel in list(range(1, 50)) * 2:
    with contextlib.suppress(OSError):
        os.write(channel, "\\n".join([*map(json.dumps, lines), "[" * 9000, ""]).encode())
print("x" * 20_000_000, flush=True)
os._exit(0)"""
INTRUDER = f"assert not set(outcomes.values()) - {REFUSALS}\n{COURSE.source('ex-1-1')}"
IMPORT = COURSE.source("imports") + "\nimport math as arithmetic"
TAKEN = "def next_variance(variance, beta): return (1 - beta) * variance + beta * arithmetic.cos(0)"
HELPER = "def root(x): return x ** 0.5"
DEVIATION = """
def q_step(schedule, x, t, noise):
    beta = schedule.beta[t].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return (root(1 - beta) * x + beta * noise).reshape(x.shape)"""
HANGS = "def q_step(schedule, x, t, noise): import time; time.sleep(1000)"
KILLS = "def q_step(schedule, x, t, noise): import os; os.kill(os.getpid(), 9)"
GREEDY = "def next_variance(variance, beta): return [torch.ones(1 << 26) for _ in range(12)]"  # 3 GB
DELETED = ["setup", "imports", "ex-1-2", "check-1-1", "check-1-2", "check-1-3", "check-1-4"]
STUBS = {cell.id: [cell.source] for cell in lessons.read("student", LESSON).code}
ALL = "1.1", "1.2", "1.3", "1.4"
STUDENTS = {  # the cells that are not the solved lesson's, and the rows that are not "solved": status, mistake, problem
    "bob": (  # a helper in a cell of its own is there, and a wrong exercise does not spoil the next
        {"ex-1-1": ["def to_uint8(x): return x[0]"], "ex-1-2": [HELPER, DEVIATION], "ex-1-4": ["def next("]},
        {"1.1": ("wrong", "", "shape"), "1.2": ("wrong", "noise_variance", ""), "1.4": ("wrong", "", "cell fails")},
    ),
    # what does not come back costs one exercise; an import added to the lesson's own is there
    "hangs": ({"ex-1-2": [HANGS], "ex-1-4": [TAKEN], "imports": [IMPORT]}, {"1.2": ("stopped", "", "time")}),
    "kills": (
        {"ex-1-2": [KILLS], "ex-1-4": [GREEDY]},
        {"1.2": ("stopped", "", "ended the process"), "1.4": ("stopped", "", "memory")},
    ),
    "intruder": ({}, {}),  # solves the first exercise only if all that it tries before is refused
    "forger": (  # writes into a row of their own, as far as it could be a verdict: the report is no exam
        {"ex-1-1": [FORGER]},
        {"1.1": ("stopped", "", "ended the process"), "1.3": ("wrong", "", ""), "1.4": ("stopped", "", "")},
    ),
    "untouched": (STUBS, dict.fromkeys(ALL, ("not attempted", "", ""))),
    "deleted": (dict.fromkeys(DELETED, []), {"1.2": ("missing", "", "")}),
}
UNREADABLE = {
    "binary.ipynb": (bytes(range(256)) * 100, "not a notebook"),
    "nested.ipynb": ("[" * 1_000_000, "not a notebook"),
    "list.ipynb": ('{"cells": [1, {"cell_type": "code", "source": 5}]}', "not a notebook"),
    "other.ipynb": ({"cells": [], "nbformat": 4, "metadata": {}}, "no exercise of the course in it"),
    "large.ipynb": (bytes(submissions.LARGEST + 1), "larger than 20 MB"),
}


def test_a_class_of_strangers_gets_its_rows_and_nothing_gets_out(server, tmp_path, capsys):
    folder, outside, out = tmp_path / "submitted", tmp_path / "outside", tmp_path / "report"
    attack = trying(server, outside, WAYS_OUT) + INTRUDER
    for student, (changes, _) in (STUDENTS | {"intruder": ({"ex-1-1": [attack]}, {})}).items():
        save(folder / student / "a.ipynb", with_cells(COURSE.notebook, changes))
    for name, (content, _) in UNREADABLE.items():
        save(folder / name, content)
    (folder / "link.ipynb").symlink_to(outside / "ada.ipynb")
    before = contents(outside)
    limits = ["--seconds", "15", "--memory", "1.5", "--jobs", "1"]  # GB, of which torch alone needs nearly one
    assert main(["report", str(folder), "--out", str(out), *limits]) == 0

    found = {}
    with open(out / "report.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            verdict = (row["status"], row["mistake"], row["problem"])
            found.setdefault(row["student"], {})[row["exercise"]] = verdict
    wanted = {student: dict.fromkeys(ALL, ("solved", "", "")) | rows for student, (_, rows) in STUDENTS.items()}
    unreadable = {name: problem for name, (_, problem) in UNREADABLE.items()} | {"link.ipynb": "not a file"}
    wanted |= {name.removesuffix(".ipynb"): {"": ("unreadable", "", why)} for name, why in unreadable.items()}
    assert found == wanted
    printed = capsys.readouterr().out
    counts = [theirs["1.2"][0] for theirs in found.values() if "1.2" in theirs]
    line = re.search(r"^1\.2 q_step +(.*)$", printed, re.MULTILINE)[1]
    assert line.split() == [str(counts.count(status) or "-") for status in STATUSES]
    assert "\n      1 x noise_variance\n" in printed and "\n      1 x other: shape\n" in printed
    assert (out / f"{LESSON}.png").read_bytes().startswith(b"\x89PNG")

    assert contents(outside) == before
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()  # nobody called
    for path in Path("/proc").glob("[0-9]*"):  # and no process of ours is left
        with contextlib.suppress(OSError):  # it ended just now
            ours = (path / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
            assert not (ours and b"classroom.grading" in (path / "cmdline").read_bytes())


@pytest.fixture(scope="module")
def known():
    known = submissions.course(ROOT)
    assert sorted(name for one in known for name in one.exercises.values()) == sorted(e.name for e in EXERCISES)
    return known


PLACES = {  # whose is a file at this place
    f"submitted/ada/{LESSON}/{LESSON}.ipynb": "ada",
    "bob/deep/down/homework.ipynb": "bob",
    f"{LESSON}/cat.ipynb": "cat",
    f"dan_{LESSON}.ipynb": "dan",
    "eve/first.ipynb": "eve/first.ipynb",
    "eve/second.ipynb": "eve/second.ipynb",
    "=1+1.ipynb": "'=1+1",
    "a\x1b[2J\n.ipynb": "a?[2J?",
}


def test_students_are_named_by_folder_or_file_and_the_path_tells_the_lesson_without_cells(tmp_path, known):
    for place in [*PLACES, "bob/.ipynb_checkpoints/homework-checkpoint.ipynb"]:
        save(tmp_path / "class" / place, {"cells": [COURSE.cells["ex-1-1"]]})
    found = submissions.find(tmp_path / "class", known)
    assert {str(one.path.relative_to(tmp_path / "class")): one.student for one in found} == PLACES
    assert {one.lesson.name for one in found} == {LESSON}
    save(tmp_path / "empty" / f"{LESSON}.ipynb", {"cells": []})
    [one] = submissions.find(tmp_path / "empty", known)
    assert (one.lesson.name, one.answers, one.unreadable) == (LESSON, {}, None)


EDITORS = {  # what each makes of a cell with its id and its place
    "nbgrader's id only": lambda cell, place: cell | {"id": f"{place:08x}"},
    "Colab": lambda cell, place: cell | {"id": None, "metadata": {"id": cell["id"], "nbgrader": {}}},
    "no ids": lambda cell, place: cell | {"id": None, "metadata": {}},
    "split in two": lambda cell, place: cell | {"id": cell["id"].removesuffix("-own-1")},
}


@pytest.mark.parametrize("editor", EDITORS)
def test_answers_are_found_whatever_saved_them(tmp_path, known, editor):
    first = ["# first half"] if editor == "split in two" else []
    answer = [*first, f"def {'q_step' if editor == 'no ids' else 'my_step'}(schedule, x, t, noise): return x"]
    notebook = with_cells(COURSE.notebook, {"ex-1-2": answer})
    cells = [EDITORS[editor](cell, place) for place, cell in enumerate(notebook.cells)]
    save(tmp_path / "a.ipynb", {"cells": cells})
    [one] = submissions.find(tmp_path, known)
    assert one.lesson.name == LESSON and set(one.answers) == set(one.lesson.exercises.values())
    assert one.answers["q_step"] == answer


def test_what_cannot_be_run_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "what_is_closed", lambda: {"network": False, "files": False})
    monkeypatch.setattr(report, "verdicts", lambda *_: pytest.fail("it ran"))
    (tmp_path / "empty").mkdir()
    save(tmp_path / "class" / "a.ipynb", COURSE.notebook)
    complaints = {"none": "there is no folder", "empty": "there is no notebook in", "class": "--with-network runs"}
    for name, complaint in complaints.items():
        assert main(["report", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        assert complaint in (told := capsys.readouterr().err) and "Traceback" not in told
