"""The report on submitted notebooks: run on a class of strangers, some of whom mean harm."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ddpm_course.checks import EXERCISES
from ddpm_course.classroom import editions, report
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.grading import attempt, figure, submissions
from ddpm_course.classroom.grading.supervisor import STATUSES

LESSON = "01_forward_process"
NOISE_VARIANCE = """\
def q_step(schedule, x, t, noise):
    beta = on_batch(schedule.beta[t], x)
    return (1 - beta).sqrt() * x + beta * noise"""
HELPER = """\
def on_batch(beta, x):
    return beta.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) if beta.ndim else beta.to(x.dtype)"""
EXTRA_IMPORT = """\
def next_variance(variance, beta):
    return (1 - beta) * variance + beta * arithmetic.cos(0)"""
HANGS = "def q_step(schedule, x, t, noise):\n    while True:\n        pass"
KILLS = "import os\n\ndef q_step(schedule, x, t, noise):\n    os.kill(os.getpid(), 9)"
GREEDY = "def next_variance(variance, beta):\n    return [torch.ones(1 << 26) for _ in range(12)]"  # 3 GB
INTRUDER = """\
import os, signal, socket
from pathlib import Path

escaped = []

def tries(way):
    try:
        way()
        escaped.append(way)
    except OSError:
        pass

tries(lambda: socket.create_connection(("127.0.0.1", THE PORT)))
tries(lambda: os.kill(os.getppid(), signal.SIGTERM))
tries(os.fork)
tries(lambda: Path("THE FOLDER", "written").write_text("x"))
tries(lambda: Path("THE FOLDER", "ada.ipynb").read_text())
Path("mine").write_text("its own folder is open")
assert not escaped

def to_uint8(x):
    return ((x + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)"""
FORGER = """\
import json, os
lines = [{"exercise": "q_step", "status": "solved"}, {"exercise": "next_variance", "status": ["x"], "mistake": {}},
         {"exercise": "diffuse", "status": "wrong", "mistake": "=cmd()"}, {"exercise": "nothing", "status": "solved"},
         [1], "text", {"begun": 5}, {"done": 0}]
text = "".join(json.dumps(line) + "\\n" for line in lines) + "[" * 9000 + "\\n"
for channel in range(1, 50):
    try:
        os.write(channel, text.encode())
        os.write(channel, text.encode())
    except OSError:
        pass
print("x" * 20_000_000, flush=True)
os._exit(0)"""

SOLVED = ("solved", "", "")
ALL_SOLVED = dict.fromkeys(("1.1", "1.2", "1.3", "1.4"), SOLVED)
STUDENTS = {  # what they made of which cells of the solved lesson, and their rows: status, mistake, problem
    "ada": ({}, ALL_SOLVED),
    "untouched": (None, dict.fromkeys(ALL_SOLVED, ("not attempted", "", ""))),  # the student edition, as it is
    # a helper in a cell of its own is there, and a wrong exercise does not spoil the next
    "bob": (
        {"ex-1-1": ["def to_uint8(x):\n    return x[0]"], "ex-1-2": [HELPER, NOISE_VARIANCE], "ex-1-4": ["def next("]},
        {"1.1": ("wrong", "", "shape"), "1.2": ("wrong", "noise_variance", ""), "1.4": ("wrong", "", "cell fails")},
    ),
    # what does not come back costs one exercise; an import added to the lesson's own is there
    "hangs": (
        {"ex-1-2": [HANGS], "ex-1-4": [EXTRA_IMPORT], "imports": ["THE COURSE'S\nimport math as arithmetic"]},
        {"1.2": ("stopped", "", "time")},
    ),
    "kills": ({"ex-1-2": [KILLS]}, {"1.2": ("stopped", "", "ended the process")}),
    "greedy": ({"ex-1-4": [GREEDY]}, {"1.4": ("stopped", "", "memory")}),
    # the first answer counts as solved only if all that it tried was refused
    "intruder": ({"ex-1-1": [INTRUDER]}, {}),
    # who forges writes into a row of their own, as far as it could be a verdict: the report is no exam
    "forger": (
        {"ex-1-1": [FORGER]},
        {"1.1": ("stopped", "", "ended the process"), "1.3": ("wrong", "", ""), "1.4": ("stopped", "", "")},
    ),
    # deleted cells are missing, and nothing else
    "deleted": (
        dict.fromkeys(["setup", "imports", "ex-1-2", "check-1-1", "check-1-2", "check-1-3", "check-1-4"], []),
        {"1.2": ("missing", "", "")},
    ),
}
UNREADABLE = {
    "binary.ipynb": "not a notebook",
    "nested.ipynb": "not a notebook",
    "other.ipynb": "no exercise of the course in it",
    "list.ipynb": "not a notebook",
    "link.ipynb": "not a file",
    "large.ipynb": "larger than 20 MB",
}


def lesson(changes: dict[str, list[str]] | None = None, edition: str = "notebooks/solutions") -> dict:
    """The lesson with other cells in place of some; the last of them has the id."""
    notebook, cells = json.loads((editions.ROOT / edition / f"{LESSON}.ipynb").read_text(encoding="utf-8")), []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        new = [text.replace("THE COURSE'S", source) for text in (changes or {}).get(cell["id"], [source])]
        cells += [cell | {"source": text, "id": "my-own", "metadata": {}} for text in new[:-1]]
        cells += [cell | {"source": text} for text in new[-1:]]
    return notebook | {"cells": cells}


def hand_in(path: Path, notebook: dict | str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook) if isinstance(notebook, dict) else notebook
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder in which a submission has no business; skips where submissions cannot be confined."""
    closed = report.what_is_closed() if sys.platform.startswith("linux") else {"network": False, "files": False}
    if not all(closed.values()):
        pytest.skip(f"submissions cannot be confined on this system: {closed}")
    folder = tmp_path_factory.mktemp("outside")
    (folder / "ada.ipynb").write_text("somebody else's")
    return folder


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, outside):
    """A class has handed in, and the report has run: its rows, its folder, and what came by network or as a signal."""
    folder, out = tmp_path_factory.mktemp("submitted"), tmp_path_factory.mktemp("report")
    calls, signals = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    calls.append(server.accept()[1])

        threading.Thread(target=listen, daemon=True).start()
        for student, (changes, _) in STUDENTS.items():
            text = json.dumps(lesson(edition="notebooks") if changes is None else lesson(changes))
            text = text.replace("THE PORT", str(server.getsockname()[1])).replace("THE FOLDER", str(outside))
            hand_in(folder / student / "a.ipynb", text)
        hand_in(folder / "binary.ipynb", bytes(range(256)) * 100)
        hand_in(folder / "nested.ipynb", "[" * 1_000_000)
        hand_in(folder / "other.ipynb", {"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}})
        hand_in(folder / "list.ipynb", '{"cells": [1, {"cell_type": "code", "source": 5}]}')
        hand_in(folder / "large.ipynb", bytes(submissions.LARGEST + 1))
        (folder / "link.ipynb").symlink_to(outside / "ada.ipynb")
        before = signal.signal(signal.SIGTERM, lambda *_: signals.append("a signal came"))
        try:  # memory in GB: torch alone needs nearly one
            limits = ["--seconds", "15", "--memory", "1.5", "--jobs", "1"]
            assert main(["report", str(folder), "--out", str(out), *limits]) == 0
        finally:
            signal.signal(signal.SIGTERM, before)
    with open(out / "report.csv", encoding="utf-8", newline="") as file:
        return {"rows": list(csv.DictReader(file)), "out": out, "calls": calls, "signals": signals}


@pytest.mark.parametrize("student", STUDENTS)
def test_everybody_gets_their_rows(classroom, student):
    rows = [row for row in classroom["rows"] if row["student"] == student]
    found = {row["exercise"]: (row["status"], row["mistake"], row["problem"]) for row in rows}
    assert found == ALL_SOLVED | STUDENTS[student][1]


def test_what_is_no_notebook_is_one_row_and_nothing_else_is_in_the_report(classroom):
    rows = classroom["rows"]
    assert {row["file"]: row["problem"] for row in rows if row["status"] == "unreadable"} == UNREADABLE
    assert len(rows) == len(UNREADABLE) + 4 * len(STUDENTS)


def test_nothing_gets_out_and_no_process_is_left(classroom, outside):
    assert classroom["calls"] == [] and classroom["signals"] == []
    assert [path.name for path in outside.iterdir()] == ["ada.ipynb"]
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended just now
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            ours = parent == str(os.getpid())
            assert not (ours and b"classroom.grading" in (path / "cmdline").read_bytes())


def test_table_and_figure(classroom):
    known = {one.name: one for one in submissions.course(editions.ROOT)}[LESSON]
    rows = [row for row in classroom["rows"] if row["exercise"]]
    text = "\n".join(report.as_text(known, rows))
    assert text.startswith(f"{LESSON}: {len({row['student'] for row in rows})} submissions")
    line = next(line for line in text.splitlines() if line.startswith("1.2 q_step"))
    counts = [row["status"] for row in rows if row["exercise"] == "1.2"]
    assert line.split()[2:] == [str(counts.count(status) or "-") for status in STATUSES]
    assert "1 x noise_variance" in text and "1 x other: shape" in text
    picture = figure.draw(known.name, report.summary(known, rows))
    labels = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert labels[:3] == ["1.1 to_uint8", "other: shape", "1.2 q_step"] and "noise_variance" in labels
    assert (classroom["out"] / f"{LESSON}.png").read_bytes().startswith(b"\x89PNG")


# ---- the sandbox, one way out at a time -----------------------------------------------------------------------------

CONFINE = """\
import json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from ddpm_course.classroom.grading import sandbox
confined, network, port, outside, ways = json.loads(sys.argv[1])
if confined:
    closed = sandbox.confine(Path.cwd(), memory=1 << 30, network=network)
    assert closed == {"network": not network, "files": True}, closed
for name, way in ways.items():
    try:
        outcome = bool(eval(way))
    except (OSError, MemoryError) as error:
        outcome = type(error).__name__
    print(name, outcome, sep=": ", flush=True)
os._exit(0)
"""
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
    "large file": "Path('large').write_bytes(bytes(100 << 20))",
    "memory": "len(bytearray(2 << 30))",
    "memory that no limit counts": "os.memfd_create('x')",
}
ALLOWED = {
    "thread": "[one.start() or one.join() for one in [threading.Thread(target=print)]]",
    "own file": "Path('mine').write_text('x') and Path('mine').read_text()",
    "own limits": "resource.getrlimit(resource.RLIMIT_DATA)",
    "signal to oneself": "os.kill(os.getpid(), 0) is None",
    "pair of sockets": "socket.socketpair()",
    "another module": "__import__('torchvision.version')",
}


@pytest.fixture(scope="module")
def tried(outside, tmp_path_factory):
    """What came of each way, in a process that is not confined, in one that is, and in one with the network open."""
    found = {}
    for confined, network in ((False, False), (True, False), (True, True)):
        folder, private = tmp_path_factory.mktemp("inside"), tmp_path_factory.mktemp("private")
        for name in ("ada.ipynb", "old"):
            (private / name).write_text("somebody else's")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            facts = json.dumps([confined, network, port, str(private), WAYS_OUT | ALLOWED])
            environment = {**os.environ, "PYTHONPATH": str(editions.ROOT)}
            command = [sys.executable, "-u", "-c", CONFINE, facts]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        lines = [line.split(": ") for line in done.stdout.splitlines() if ": " in line]
        assert len(lines) == len(WAYS_OUT) + len(ALLOWED), done.stdout + done.stderr
        found[confined, network] = dict(lines)
    return found


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_way_out_is_open_without_the_sandbox_and_closed_in_it(tried, way):
    assert tried[False, False][way] == "True"
    assert tried[True, False][way] in ("PermissionError", "OSError", "MemoryError")
    opened = ("connect", "local socket")  # --with-network opens the network alone
    assert tried[True, True][way] == ("True" if way in opened else tried[True, False][way])


@pytest.mark.parametrize("way", ALLOWED)
def test_what_an_answer_may_need_works_in_the_sandbox(tried, way):
    assert tried[True, False][way] == "True"


# ---- without running anything ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    return submissions.course(editions.ROOT)


def test_every_exercise_of_every_lesson_is_known(known):
    assert sorted(name for one in known for name in one.exercises.values()) == sorted(e.name for e in EXERCISES)


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


def test_students_are_named_by_folder_or_file(tmp_path, known):
    notebook = {"cells": [cell for cell in lesson()["cells"] if cell["id"] == "ex-1-1"]}
    for place in [*PLACES, "bob/.ipynb_checkpoints/homework-checkpoint.ipynb"]:
        hand_in(tmp_path / place, notebook)
    found = submissions.find(tmp_path, known)
    assert {str(one.path.relative_to(tmp_path)): one.student for one in found} == PLACES
    assert {one.lesson.name for one in found} == {LESSON}


def test_the_path_tells_the_lesson_of_a_notebook_without_cells(tmp_path, known):
    hand_in(tmp_path / "ada" / f"{LESSON}.ipynb", {"cells": []})
    [one] = submissions.find(tmp_path, known)
    assert (one.lesson.name, one.answers, one.unreadable) == (LESSON, {}, None)


EDITORS = {  # what each makes of a cell with its id and its place
    "nbgrader's id only": lambda cell, place: cell | {"id": f"{place:08x}"},
    "Colab": lambda cell, place: cell | {"id": None, "metadata": {"id": cell["id"], "nbgrader": {}}},
    "no ids": lambda cell, place: cell | {"id": None, "metadata": {}},
    "split in two": lambda cell, place: cell,
}


@pytest.mark.parametrize("editor", EDITORS)
def test_answers_are_found_whatever_saved_them(tmp_path, known, editor):
    by_name = "def q_step(schedule, x, t, noise):\n    return x"
    answer = [by_name if editor == "no ids" else by_name.replace("q_step", "my_step")]
    notebook = lesson({"ex-1-2": answer})
    notebook["cells"] = [EDITORS[editor](cell, place) for place, cell in enumerate(notebook["cells"])]
    if editor == "split in two":
        place = next(place for place, cell in enumerate(notebook["cells"]) if cell["id"] == "ex-1-2")
        notebook["cells"].insert(place, notebook["cells"][place] | {"id": "0", "source": "# first half"})
        answer.insert(0, "# first half")
    hand_in(tmp_path / "a.ipynb", notebook)
    [one] = submissions.find(tmp_path, known)
    assert one.lesson.name == LESSON and set(one.answers) == set(one.lesson.exercises.values())
    assert one.answers["q_step"] == answer


def test_of_the_other_cells_those_run_that_an_answer_needs():
    def cell(source, exercise=None):
        return {"exercise": exercise, "sources": [source]}

    cells = [
        cell("import torch\nimport math"),
        cell("scale = 2"),
        cell("train(minutes=4)"),
        cell("def helper(x):\n    t = 1\n    return math.sqrt(x) * scale"),
        cell("scale = 'of a later figure'"),
        cell("t = 5"),
        cell("%%time\ndef double(x):\n    t = helper(x)\n    return t", "double"),
        cell("def broken(", "broken"),
        cell("helper = None"),
        cell("from math import *"),
    ]
    assert attempt.needed(cells) == [cells[i] for i in (0, 1, 3, 4, 6, 7, 9)]  # 4: it is what `scale` last was


def test_what_cannot_be_run_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "what_is_closed", lambda: {"network": False, "files": False})
    monkeypatch.setattr(report, "verdicts", lambda *_: pytest.fail("it ran"))
    (tmp_path / "empty").mkdir()
    hand_in(tmp_path / "handed in" / "a.ipynb", lesson())
    for name, complaint in (
        ("none", "there is no folder"),
        ("empty", "there is no notebook in"),
        ("handed in", "network cannot be cut off"),
    ):
        assert main(["report", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        told = capsys.readouterr().err
        assert complaint in told and "Traceback" not in told
    assert "--with-network" in told  # which would run it all the same


def test_the_columns_are_explained(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    told = capsys.readouterr().out
    assert all(f"\n  {column} " in told for column in report.COLUMNS)
