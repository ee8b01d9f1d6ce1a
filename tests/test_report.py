"""The report on submitted notebooks: run on a class of strangers, some of whom mean harm."""

import asyncio
import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import lessons
import pytest
import torch
from courses import contents, run, save, with_cells

from ddpm_course.checks import EXERCISES, judge
from ddpm_course.checks.library import BY_NAME
from ddpm_course.checks.running import Outcome
from ddpm_course.classroom import report
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.editions import ROOT
from ddpm_course.classroom.grading import sandbox, submissions, supervisor
from ddpm_course.classroom.grading.plain import packed, unpacked
from ddpm_course.classroom.grading.supervisor import STATUSES
from ddpm_course.classroom.grading.unseen import unseen

LESSON = "01_forward_process"
COURSE = lessons.read("solutions", LESSON)
NAMES = "to_uint8", "q_step", "diffuse", "next_variance"

WAYS_OUT = {
    "connect": "socket.create_connection(('127.0.0.1', port))",
    "a socket of the machine": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', outside + '/socket')",
    "fork": "os.fork() or os._exit(0) or True",
    "command": "subprocess.run(['true'], check=True)",
    "signal": "os.kill(parent, 0) is None",
    "signal to all": "os.killpg(os.getpgid(parent), 0) is None",
    "signal by a file": "fcntl.fcntl(socket.socketpair()[0], fcntl.F_SETOWN, parent) == 0",
    "limits of another": "resource.prlimit(parent, resource.RLIMIT_NOFILE)",
    "environment of another": "Path(f'/proc/{parent}/environ').read_bytes()",
    "read a file": "Path(outside, 'ada.ipynb').read_text()",
    "list a folder": "list(Path(outside).iterdir())",
    "write a file": "Path(outside, 'written').write_text('x')",
    "remove a file": "Path(outside, 'old').unlink() is None",
    "permissions of a file": "os.chmod(outside + '/ada.ipynb', 0o600) is None",
    "times of a file": "os.utime(outside + '/ada.ipynb', (1, 1)) is None",
    "attributes of a file": "os.setxattr(outside + '/ada.ipynb', 'user.x', b'x') is None",
    "permissions of the package": "os.chmod(package, 0o755) is None",
    "write in the package": "Path(package, 'x').write_text('x') and Path(package, 'x').unlink() is None",
    "read the clone": "Path(clone, 'README.md').read_text()",
    "a large file": "Path('large').write_bytes(bytes(65 << 20))",
    "a file in shared memory": "Path('/dev/shm/x').write_text('x') and Path('/dev/shm/x').unlink() is None",
    "memory of no process": "os.memfd_create('x')",
    "System V memory": "system.shmget(0, 1000, 0o1600) >= 0 or refuse()",
    "System V messages": "system.msgget(0, 0o1600) >= 0 or refuse()",
    "keyrings": "system.syscall(NUMBER, 0, -3, 1) > 0 or refuse()",
    "memory in a pipe": "system.vmsplice(os.pipe()[1], None, 0, 0) == 0 or refuse()",
    "watches, of which a user has few": "system.inotify_init1(0) >= 0 or refuse()",
    "a socket of another kind": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close() is None",
    "a namespace of its own": "system.unshare(0x10000000) == 0 or refuse()",
    "a secret of its parents": "any(b'a secret' in path.read_bytes() for path in Path('/proc').glob('*/environ')) or refuse()",
}
if hasattr(os, "geteuid") and os.geteuid() == 0:
    WAYS_OUT["a setting of the machine"] = "open('/proc/sys/kernel/core_pattern', 'r+').close() is None"
ALLOWED = {
    "thread": "[one.start() or one.join() for one in [threading.Thread(target=list)]]",
    "own file": "Path('mine').write_text('x') and Path('mine').read_text()",
    "pair of sockets": "socket.socketpair()",
}
REFUSALS = {"PermissionError", "OSError", "FileNotFoundError", "ProcessLookupError", "BlockingIOError"}
REFUSALS |= {"ConnectionRefusedError", "NotADirectoryError"}
TRY = """
import ctypes, fcntl, json, os, resource, socket, subprocess, threading
from pathlib import Path
port, outside, parent, clone, package, ways = FACTS
package = package or next(iter(__import__("ddpm_course").__path__))
system = ctypes.CDLL(None, use_errno=True)

def refuse():
    raise OSError(ctypes.get_errno(), "refused")

def outcome(way):
    try:
        return str(bool(eval(way)))
    except OSError as error:
        return type(error).__name__

outcomes = {name: outcome(way) for name, way in ways.items()}
"""


def trying(server: socket.socket, outside: Path, ways: dict[str, str], package: Path | None = None) -> str:
    """A program that tries these ways to call the server, and to the files that are made in the folder outside."""
    for name in ("ada.ipynb", "old"):
        save(outside / name, "somebody else's")
    number = {"x86_64": "250", "aarch64": "219"}[os.uname().machine]
    ways = {name: way.replace("NUMBER", number) for name, way in ways.items()}
    clone = str(outside.parent / "clone")
    facts = (server.getsockname()[1], str(outside), os.getpid(), clone, package and str(package), ways)
    return TRY.replace("FACTS", repr(facts))


@pytest.fixture
def server():
    if problem := sandbox.why_not("bubblewrap"):
        assert not os.environ.get("REQUIRE_BUBBLEWRAP"), problem  # CI demands it
        pytest.skip(problem)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def outcomes(kind: str, course: Path, script: str) -> dict[str, str]:
    """What the ways of a script come to, confined in this way."""

    async def started():
        async with sandbox.program(kind, course, "-c", f"{script}\nprint(json.dumps(outcomes))") as process:
            return await process.communicate()

    told, errors = asyncio.run(started())
    return json.loads(told or errors)


def test_every_way_out_is_open_without_the_sandbox_and_closed_in_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "a secret")
    shutil.copytree(ROOT / "ddpm_course", tmp_path / "clone" / "ddpm_course")
    save(tmp_path / "clone" / "README.md", "x")
    sandbox.without_solutions(tmp_path / "course")
    found = []
    for kind, package in (("nothing", tmp_path / "clone" / "ddpm_course"), ("bubblewrap", None)):
        outside = tmp_path / kind
        script = trying(server, outside, ALLOWED | WAYS_OUT, package)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mailbox, contextlib.chdir(outside):
            mailbox.bind("socket")  # the path of a socket must be short
            found.append(outcomes(kind, tmp_path / "course", script))
    free, confined = found
    assert free == dict.fromkeys(WAYS_OUT | ALLOWED, "True")
    assert {name: outcome for name, outcome in confined.items() if outcome not in REFUSALS} == dict.fromkeys(
        ALLOWED, "True"
    )


OUTLIVES = """
import asyncio, sys
from pathlib import Path
from ddpm_course.classroom.grading import sandbox

async def start():
    async with sandbox.program("bubblewrap", Path("."), "-c", "print('up', flush=True); import time; time.sleep(600)  # MARK") as process:
        print(await process.stdout.readline(), flush=True)
        await process.wait()

asyncio.run(start())
"""


def test_no_submission_outlives_a_report_that_is_killed(server, tmp_path):
    mark = f"mark {os.getpid()}"

    def alive() -> bool:
        return any(mark in cmdline(path) for path in Path("/proc").glob("[0-9]*"))

    report = subprocess.Popen([sys.executable, "-c", OUTLIVES.replace("MARK", mark)], stdout=subprocess.PIPE, cwd=ROOT)
    assert b"up" in report.stdout.readline() and alive()
    report.kill()
    report.wait()
    for _ in range(100):
        if not alive():
            return
        time.sleep(0.1)
    pytest.fail("it lives on")


def cmdline(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it ended just now
        return ""


def test_a_submission_has_a_time_in_all(server, tmp_path, monkeypatch):
    """Every exercise hangs: after two of the four the time is up, and the rest is not tried."""
    runs, run_once = [], supervisor.run_once
    monkeypatch.setattr(supervisor, "run_once", lambda *args: runs.append(args) or run_once(*args))
    answers = {f"ex-1-{n}": [f"def {name}(*args): import time; time.sleep(7)"] for n, name in enumerate(NAMES, 1)}
    save(tmp_path / "class" / "a.ipynb", with_cells(COURSE.notebook, answers))
    limits = ["--seconds", "5", "--in-all", "9"]
    assert main(["report", str(tmp_path / "class"), "--out", str(tmp_path / "out"), *limits]) == 0
    assert len(runs) in (1, 2)
    with open(tmp_path / "out" / "report.csv", encoding="utf-8", newline="") as file:
        assert {row["problem"] for row in csv.DictReader(file)} == {"time"}


FORGER = """
import contextlib, json, os
lines = [{"begun": "to_uint8", "size": 0}, {"exercise": "to_uint8", "status": "solved", "size": 0}, {"done": True},
         {"exercise": "q_step", "status": "solved", "size": 0}, {"exercise": "nothing", "size": 0}, {"problem": True},
         [1], "text", {"begun": 5, "size": -1}, {"size": 1 << 60}, {"size": 1e400}]
for channel in list(range(1, 50)) * 2:
    with contextlib.suppress(OSError):
        os.write(channel, "\\n".join([*map(json.dumps, lines), "[" * 9000, ""]).encode() + bytes(1 << 20))
print("x" * 20_000_000, flush=True)
os._exit(0)"""
PATCHER = """
def q_step(schedule, x, t, noise):
    from ddpm_course.checks import comparing, gradients, judge, notebook
    right = judge.Verdict("solved", passed=9, cases=9)
    judge.check = judge.verdict = notebook.Check.check = lambda *args, **more: right
    judge.Verdict.solved = property(lambda self: True)
    comparing.compare = lambda *args: comparing.Comparison("", "", torch.zeros(1))
    gradients.cases = lambda exercise: []
    return x"""
SUBCLASS = """
class Right(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True if "close" in function.__name__ else torch.zeros((), dtype=torch.bool)

def to_uint8(x):
    return torch.zeros(3).as_subclass(Right)"""
READER = """
import inspect
from pathlib import Path
from ddpm_course import exercises
assert "NotImplementedError" in inspect.getsource(exercises.lesson01.diffuse)
assert not list(Path("/course").rglob("*.mistakes")) + list(Path("/course").rglob("solutions"))
"""
INTRUDER = f"assert not set(outcomes.values()) - {REFUSALS}\n{COURSE.source('ex-1-1')}"
VARIANCE = BY_NAME["next_variance"]
RESULTS = [
    o.value.tolist() if hasattr(o.value, "tolist") else o.value
    for o in judge.attempts(VARIANCE, VARIANCE.reference, 60)
]
TABLE = f"""  # what the check's own inputs, which everybody can have, come to
results = iter({RESULTS})
def next_variance(variance, beta):
    return torch.tensor(r) if isinstance(r := next(results, 0.0), list) else r"""
SHARES = """
def q_step(schedule, x, t, noise):
    import mmap
    held = [mmap.mmap(-1, 1 << 28) for _ in range(12)]  # 3 GB that count as nobody's
    for one in held:
        one.write(bytes(1 << 28))"""
CROWD = """
def next_variance(variance, beta):
    import threading, time
    threading.stack_size(1 << 16)
    for _ in range(6000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"""
NESTS = """
import os
for _ in range(3000):
    os.mkdir("a")
    os.chdir("a")
"""
FILES = """
def diffuse(schedule, x0, *rest):
    for i in range(100_000):  # without content, so that they take no room in the folder
        open(str(i), "w").close()"""
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
ALL = "1.1", "1.2", "1.3", "1.4", "1.5", "1.6"
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
    "intruder": (
        {},
        dict.fromkeys(ALL, ("solved", "", "uses the course")),
    ),  # solves the first exercise only if all that it tries before is refused
    "forger": (  # who ends the process outside of an exercise has nothing after it run
        {"ex-1-1": [FORGER]},
        {"1.1": ("stopped", "", "no results")} | dict.fromkeys(ALL[1:], ("stopped", "", "ended the process")),
    ),
    "shares": (
        {"ex-1-1": [NESTS + COURSE.source("ex-1-1")], "ex-1-2": [SHARES], "ex-1-3": [FILES], "ex-1-4": [CROWD]},
        {"1.2": ("stopped", "", "memory"), "1.3": ("stopped", "", "files"), "1.4": ("stopped", "", "threads")},
    ),
    "patcher": (
        {"ex-1-1": [SUBCLASS], "ex-1-2": [PATCHER], "ex-1-3": [READER + COURSE.source("ex-1-3")], "ex-1-4": [TABLE]},
        {"1.1": ("wrong", "", "shape"), "1.2": ("wrong", "", "values"), "1.4": ("wrong", "", "other inputs")}
        | dict.fromkeys(["1.3", "1.5", "1.6"], ("solved", "", "uses the course")),  # all that runs below its import
    ),
    # what a student saw solved is: a stub that was copied below; a check's line in the cell; two answers in one cell
    "merged": (
        {
            "ex-1-1": [COURSE.source("ex-1-1"), *STUBS["ex-1-1"]],
            "ex-1-2": [f"{DEVIATION}\n\nq_step = checks.q_step(q_step)\n\n{HELPER}"],
            "ex-1-3": [],
            "ex-1-4": [COURSE.source("ex-1-3") + "\n\n" + COURSE.source("ex-1-4")],
        },
        {"1.2": ("wrong", "noise_variance", "")},
    ),
    "below": (  # an answer in a cell of its own below the stub that the course gave
        {"check-1-2": [COURSE.source("check-1-2"), COURSE.source("ex-1-2")], "ex-1-2": STUBS["ex-1-2"]},
        {},
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
    "long.ipynb": ({"cells": [{"cell_type": "code"}] * 2001}, "more than 2000 cells, or 1 MB of code"),
    "talks.ipynb": ({"cells": [{"cell_type": "code", "source": "#" * 2**21}]}, "more than 2000 cells, or 1 MB of code"),
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
    limits = ["--seconds", "20", "--memory", "1.5", "--jobs", "1"]  # GB, of which torch alone needs nearly one
    assert main(["report", str(folder), "--out", str(out), *limits]) == 0

    found = {}
    with open(out / "report.csv", encoding="utf-8", newline="") as file:
        for row in (rows := list(csv.DictReader(file))):
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
    assert "\n      2 x noise_variance\n" in printed and "\n      2 x other: shape\n" in printed
    assert (out / f"{LESSON}.png").read_bytes().startswith(b"\x89PNG")

    assert contents(outside) == before
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()  # nobody called
    for path in Path("/proc").glob("[0-9]*"):  # and no process of ours is left
        with contextlib.suppress(OSError):  # it ended just now
            ours = (path / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
            assert not (ours and b"classroom.grading" in (path / "cmdline").read_bytes())
    assert not list(out.glob("*.partial")) and {row["confined"] for row in rows if row["exercise"]} == {"bubblewrap"}


@pytest.fixture(scope="module")
def known():
    known = submissions.course(ROOT)
    assert sorted(name for one in known for name in one.exercises.values()) == sorted(e.name for e in EXERCISES)
    return known


PLACES = {  # whose is a file at this place
    f"submitted/ada/{LESSON}/{LESSON}.ipynb": "ada",
    "bob/deep/down/homework.ipynb": "bob",
    f"{LESSON}/cat.ipynb": "cat",
    f"dan_{LESSON}.IPYNB": "dan",
    "eve/first.ipynb": "eve/first.ipynb",
    "eve/second.ipynb": "eve/second.ipynb",
    "fay/02_closed_form.ipynb": "fay/02_closed_form.ipynb",  # one of these two is not hers
    "Fay.ipynb": "Fay.ipynb",
    "=1+1.ipynb": "'=1+1",
    "'=1+1.ipynb": "''=1+1",  # and not hers
    "\uff1dx.ipynb": "'\uff1dx",  # to some sheets a formula as well
    "a\x1b[2J\n.ipynb": r"a\x1b[2J\n",
}


def test_students_are_named_by_folder_or_file_and_the_path_tells_the_lesson_without_cells(tmp_path, known):
    others = ["bob/.ipynb_checkpoints/homework-checkpoint.ipynb", f"__MACOSX/ada/._{LESSON}.ipynb", "ada/._a.ipynb"]
    for place in [*PLACES, *others]:
        save(tmp_path / "class" / place, {"cells": [] if "02" in place else [COURSE.cells["ex-1-1"]]})
    found = submissions.find(tmp_path / "class", known)
    assert {str(one.path.relative_to(tmp_path / "class")): one.student for one in found} == PLACES
    assert {one.lesson.name for one in found} == {LESSON, "02_closed_form"}
    save(tmp_path / "empty" / f"{LESSON}.ipynb", {"cells": []})
    [one] = submissions.find(tmp_path / "empty", known)
    assert (one.lesson.name, one.answers, one.unreadable) == (LESSON, {}, None)


def test_a_thousand_files_of_any_content_are_a_thousand_rows(tmp_path, known):
    """Bytes and JSON of a real notebook, spoilt at random; beside them folders in folders, deeper than a path can be."""
    whole = json.dumps({"cells": [{"cell_type": "code", "source": ["x"], "id": "ex-1-1", "metadata": {}}]}).encode()
    dice = random.Random(0)
    for i in range(1000):
        spoilt = bytearray(whole)
        for _ in range(dice.randrange(1, 9)):
            where = dice.randrange(len(spoilt))
            spoilt[where : where + dice.randrange(4)] = dice.choice([b"[", b"{", b'"', b"1e999", b"null", b"\xff", b""])
        save(tmp_path / "class" / f"{i}.ipynb", bytes(spoilt))
    with contextlib.chdir(tmp_path / "class"):
        for _ in range(1200):
            os.mkdir("deep")
            os.chdir("deep")
        Path("a.ipynb").write_bytes(whole)
    found = submissions.find(tmp_path / "class", known)
    assert len(found) == 1001 and len({one.student for one in found}) == 1001
    assert [one.unreadable for one in found if one.student == "deep"] == ["more than 30 folders deep"]
    subprocess.run(["rm", "-rf", tmp_path / "class"], check=True)  # pytest's own way does not get that deep


def test_a_file_that_changes_while_it_is_read_is_read_no_further(tmp_path, known, monkeypatch):
    """It was a notebook a moment ago; now it is a link to another's, a pipe that never ends, or larger than allowed."""
    whole = save(tmp_path / "ada.ipynb", {"cells": [COURSE.cells["ex-1-1"]]})
    (tmp_path / "link.ipynb").symlink_to(whole)
    os.mkfifo(tmp_path / "pipe.ipynb")
    about = whole.lstat()
    monkeypatch.setattr(Path, "lstat", lambda self: about)
    for name, complaint in {"ada": None, "link": "Too many levels of symbolic links", "pipe": "not a file"}.items():
        found = submissions.open_submission(tmp_path / f"{name}.ipynb", name, None, known)
        assert (found.unreadable, bool(found.answers)) == (complaint, not complaint)
    save(whole, bytes(submissions.LARGEST + 1))
    assert submissions.open_submission(whole, "ada", None, known).unreadable == "larger than 20 MB"


MEASURING = lessons.read("solutions", "08_measuring_quality")
SHORTCUT = "def frechet_of_gaussians(*moments): return metrics.frechet_of_gaussians(*moments)"


@pytest.mark.parametrize(
    ("answer", "uses"),
    [
        (SHORTCUT, True),
        (MEASURING.source("ex-8-3") + "\n# see ddpm_course.metrics", True),
        (MEASURING.source("ex-8-3") + "\nsample = 'not metrics'", False),
    ],
)
def test_an_answer_that_calls_what_the_lesson_imports_is_flagged(tmp_path, known, answer, uses):
    save(tmp_path / "a.ipynb", with_cells(MEASURING.notebook, {"ex-8-3": [answer]}))
    [one] = submissions.find(tmp_path, known)
    assert supervisor.uses_course(one) == uses


def made_up(content: bytes, exercise: str = "next_variance") -> tuple:
    """The verdict on what a process told."""
    verdict = supervisor.judged(exercise, {}, content, 0)
    return verdict["status"], verdict["problem"]


def safetensors(about: str, tensors: bytes = b"") -> bytes:
    """A file with one tensor of bytes."""
    entry = {"dtype": "U8", "shape": [len(tensors)], "data_offsets": [0, len(tensors)]}
    head = json.dumps({"__metadata__": {"about": about}} | ({"a": entry} if tensors else {})).encode()
    return len(head).to_bytes(8, "little") + head + tensors


def test_what_a_process_makes_up_is_no_result_and_cannot_fill_the_memory():
    def outcomes(exercise):
        return [
            *judge.attempts(exercise, exercise.reference, 60),
            *judge.attempts(unseen(exercise, 0), exercise.reference, 60),
        ]

    refused = ("stopped", "no results")
    assert made_up(packed(outcomes(VARIANCE))) == ("solved", None)
    assert made_up(packed(outcomes(VARIANCE)[:3])) == refused
    with pytest.raises(ValueError, match="a header of 1200"):
        unpacked(safetensors("[" + "[]," * 400_000 + "[]]"), 50)  # fifty times as much in memory
    again = json.dumps([vars(Outcome()) | {"value": {"list": [{"bytes": {"tensor": "a"}}] * 100}}] * 50)
    with pytest.raises(ValueError, match="KeyError"):
        unpacked(safetensors(again, b"x"), 50)

    state = bytearray(torch.Generator().manual_seed(0).get_state().numpy().tobytes())
    struct.pack_into("<iiQ", state, 8, 624, 1, 624)  # its next number is the 625th of 624
    diffuse = BY_NAME["diffuse"]
    drawn = outcomes(diffuse)
    assert made_up(packed(drawn), "diffuse") == ("solved", None)
    drawn[0].states["generator"] = bytes(state)
    assert made_up(packed(drawn), "diffuse") == refused

    loss = BY_NAME["simple_loss"]
    flows = outcomes(loss)
    assert made_up(packed(flows), "simple_loss") == ("solved", None)
    [name] = flows[len(loss.cases)].value  # a gradient; against the right one it would be a thousand times as large
    flows[len(loss.cases)].value[name] = torch.zeros(1000, *[1] * 9)
    assert made_up(packed(flows), "simple_loss") == refused


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


def fails(folder: Path, *more: str) -> int:
    return main(["report", str(folder), "--out", str(folder.parent / "out"), *more])


def test_what_cannot_be_run_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "verdicts", lambda *_: pytest.fail("it ran"))
    (tmp_path / "empty").mkdir()
    save(tmp_path / "class" / "a.ipynb", COURSE.notebook)
    monkeypatch.setenv("PATH", str(tmp_path))  # no bubblewrap, no docker
    complaints = [
        ("none", (), "there is no folder"),
        ("empty", (), "there is no notebook in"),
        ("class", (), "there is no bubblewrap here"),
        ("class", ("--container", "docker"), "there is no docker here"),
        ("class", ("--trust", "--out", str(tmp_path / "class" / "report")), "lies among the submissions"),
    ]
    for name, more, complaint in complaints:
        assert fails(tmp_path / name, *more) == 1
        assert complaint in (told := capsys.readouterr().err) and "Traceback" not in told
    for program, complaint in {
        "bwrap": "may not confine submissions here (no userns",
        "docker": "does not run the image",
    }.items():
        save(tmp_path / program, "#!/bin/sh\necho no userns >&2\nexit 1").chmod(0o755)
        assert fails(tmp_path / "class", *(["--container", "docker"] if program == "docker" else [])) == 1
        assert complaint in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "class")
    for name in ("argparse", "csv", "pathlib"):  # in the current folder Python looks first
        save(Path(f"{name}.py"), "import os\nos.mkdir('ran')")
    done = run(sys.executable, "-m", "ddpm_course.classroom", "report", ".", cwd=Path.cwd())
    assert done.returncode == 1 and "from outside the submissions' folder" in done.stderr and not Path("ran").exists()
    assert (
        fails(tmp_path / "class", "--trust") == 1 and "from outside the submissions' folder" in capsys.readouterr().err
    )


def test_whatever_happens_costs_one_row_and_what_was_judged_stays(tmp_path, monkeypatch, capsys):
    for student in ("ada", "bob", "cat", "dan;=1+1"):
        save(tmp_path / "class" / student / "a.ipynb", COURSE.notebook)
    save(tmp_path / "class" / "\u540d.ipynb", "x")
    judged = dict.fromkeys(
        submissions.course(ROOT)[1].exercises.values(), {"status": "solved", "mistake": None, "problem": None}
    )

    async def verdicts(submission, grader):
        monkeypatch.setattr(sys, "stderr", io.StringIO())  # as it is while a check runs beside it
        if submission.student == "bob":
            raise OSError("no space left")
        if submission.student == "cat" and interrupted:
            raise KeyboardInterrupt
        return judged

    monkeypatch.setattr(report, "verdicts", verdicts)
    printed, told = io.TextIOWrapper(io.BytesIO(), encoding="ascii"), io.StringIO()
    for interrupted in (True, False):
        monkeypatch.setattr(sys, "stdout", printed)
        monkeypatch.setattr(sys, "stderr", told)
        with pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext():
            assert fails(tmp_path / "class", "--trust", "--jobs", "1") == 0
        with open(tmp_path / "out" / "report.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        later = {"cat", "dan;=1+1", "\u540d"} if not interrupted else set()
        assert {row["student"] for row in rows} == {"ada", "bob"} | later
        assert {row["problem"] for row in rows if row["student"] == "bob"} == {"not judged: OSError('no space left')"}
        assert {row["confined"] for row in rows if row["exercise"]} == {"nothing"}
    printed.flush()
    assert rb"\u540d: not a notebook" in printed.buffer.getvalue()  # where this letter cannot be printed
    assert told.getvalue().splitlines()[-2:] == ["4 of 5  dan;=1+1: 6 of 6 solved", "5 of 5  \u540d: not a notebook"]
    assert '"dan;=1+1"' in (tmp_path / "out" / "report.csv").read_text(encoding="utf-8")  # one column in every sheet


def test_a_container_is_given_no_network_and_nothing_of_the_machine_and_is_ended(tmp_path, monkeypatch):
    """With a stand-in for docker that notes its command and does what it says after the image's name."""
    script = (
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nwhile [ $# -gt 0 ] && [ "$1" != {sandbox.IMAGE} ]; do shift; done\n'
    )
    save(tmp_path / "docker", f'{script}[ $# -gt 2 ] && shift 2 && exec {sys.executable} "$@"\n').chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "uname", lambda: pytest.fail("Windows has none, and a Mac's processor another name"))
    assert sandbox.why_not("docker") is None

    async def started():
        async with sandbox.program("docker", ROOT, "-c", "print(input())") as process:
            return await process.communicate(b"handed in")

    assert asyncio.run(started())[0] == b"handed in\n"
    tried, asked, killed = (tmp_path / "asked").read_text().splitlines()
    name = re.search(r"--name=(\S+)", asked)[1]
    assert killed == f"kill {name}" and name not in tried
    for wall in ("--network=none", "--read-only", "--cap-drop=ALL", "--rm", "--memory=", "--pids-limit="):
        assert wall in asked and wall in tried
    assert "--volume" not in asked and "-v " not in asked
