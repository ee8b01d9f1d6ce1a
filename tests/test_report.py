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

from ddpm_course import editions, report
from ddpm_course.grading import attempt, figure, running, submissions

LESSON = "01_forward_process"
MEMORY = 1.5  # GB: torch alone needs nearly one
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
INTRUDER = """\
import os, signal, socket
from pathlib import Path

escaped = []

def tries(what):
    try:
        what()
        escaped.append(what)
    except OSError:
        pass

tries(lambda: socket.create_connection(("127.0.0.1", {port})))
tries(lambda: os.kill(os.getppid(), signal.SIGTERM))
tries(os.fork)
tries(lambda: Path({outside!r}, "written").write_text("x"))
tries(lambda: Path({outside!r}, "ada.ipynb").read_text())
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


def lesson() -> dict:
    """The solutions edition, as a student who solved everything hands it in."""
    path = editions.ROOT / "notebooks" / "solutions" / f"{LESSON}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return notebook


def with_answers(**answers: str) -> dict:
    notebook = lesson()
    for cell in notebook["cells"]:
        cell["source"] = answers.get(cell["id"].replace("-", "_"), cell["source"])
    return notebook


def hand_in(path: Path, notebook: dict | str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook) if isinstance(notebook, dict) else notebook
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def confined() -> dict[str, bool]:
    return report.what_is_closed() if sys.platform.startswith("linux") else {"network": False, "files": False}


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """A class has handed in, and the report has run: what it said, its rows, and whether anybody came by network."""
    closed = confined()
    if not all(closed.values()):
        pytest.skip(f"submissions cannot be confined on this system: {closed}")
    base = tmp_path_factory.mktemp("class")
    folder, outside = base / "submitted", base / "outside"
    outside.mkdir()
    (outside / "ada.ipynb").write_text("somebody else's")
    calls = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen():
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                calls.append(server.accept()[1])

    threading.Thread(target=listen, daemon=True).start()

    hand_in(folder / "ada" / LESSON / f"{LESSON}.ipynb", lesson())
    student = json.loads((editions.ROOT / "notebooks" / f"{LESSON}.ipynb").read_text(encoding="utf-8"))
    hand_in(folder / "untouched" / "renamed.ipynb", student)

    bob = with_answers(ex_1_1="def to_uint8(x):\n    return x[0]", ex_1_2=NOISE_VARIANCE, ex_1_4="def next_variance(")
    place = next(i for i, cell in enumerate(bob["cells"]) if cell["id"] == "ex-1-2")
    bob["cells"].insert(place, {"cell_type": "code", "id": "my-own", "metadata": {}, "source": [HELPER]})
    hand_in(folder / "bob_homework.ipynb", bob)

    hangs = "def q_step(schedule, x, t, noise):\n    while True:\n        pass"
    hangs = with_answers(ex_1_2=hangs, ex_1_4=EXTRA_IMPORT)
    imports = next(cell for cell in hangs["cells"] if cell["id"] == "imports")
    imports["source"] = [*imports["source"], "\nimport math as arithmetic"]
    hand_in(folder / "hangs" / "a.ipynb", hangs)
    kills = "import os\n\ndef q_step(schedule, x, t, noise):\n    os.kill(os.getpid(), 9)"
    hand_in(folder / "kills" / "a.ipynb", with_answers(ex_1_2=kills))
    greedy = "def next_variance(variance, beta):\n    return [torch.ones(1 << 26) for _ in range(12)]"  # 3 GB
    hand_in(folder / "greedy" / "a.ipynb", with_answers(ex_1_4=greedy))

    intruder = INTRUDER.format(port=server.getsockname()[1], outside=str(outside))
    hand_in(folder / "intruder" / "a.ipynb", with_answers(ex_1_1=intruder))
    hand_in(folder / "forger" / "a.ipynb", with_answers(ex_1_1=FORGER))

    deleted = lesson()
    gone = ("setup", "imports", "ex-1-2", "check-1-1", "check-1-2", "check-1-3", "check-1-4")
    deleted["cells"] = [cell for cell in deleted["cells"] if cell["id"] not in gone]
    hand_in(folder / "deleted" / "a.ipynb", deleted)

    hand_in(folder / "binary.ipynb", bytes(range(256)) * 100)
    hand_in(folder / "nested.ipynb", "[" * 1_000_000)
    hand_in(folder / "other.ipynb", {"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}})
    hand_in(folder / "list.ipynb", '{"cells": [1, {"cell_type": "code", "source": 5}]}')
    (folder / "link.ipynb").symlink_to(outside / "ada.ipynb")
    with open(folder / "large.ipynb", "wb") as file:
        file.truncate(submissions.LARGEST + 1)

    survived = []
    before = signal.signal(signal.SIGTERM, lambda *_: survived.append("a signal came"))
    out = base / "report"
    limits = ["--seconds", "20", "--memory", str(MEMORY), "--jobs", "1"]
    try:
        code = editions.main(["report", str(folder), "--out", str(out), *limits])
    finally:
        signal.signal(signal.SIGTERM, before)
        server.close()
    assert code == 0
    with open(out / "report.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {"rows": rows, "out": out, "calls": calls, "signals": survived, "outside": outside}


def of(classroom, student: str) -> dict[str, tuple[str, str, str]]:
    """Status, mistake and problem by exercise."""
    mine = [row for row in classroom["rows"] if row["student"] == student]
    return {row["exercise"]: (row["status"], row["mistake"], row["problem"]) for row in mine}


SOLVED = ("solved", "", "")
ALL_SOLVED = dict.fromkeys(("1.1", "1.2", "1.3", "1.4"), SOLVED)


def test_right_answers_and_none(classroom):
    assert of(classroom, "ada") == ALL_SOLVED
    assert of(classroom, "untouched") == dict.fromkeys(ALL_SOLVED, ("not attempted", "", ""))


def test_a_wrong_answer_is_counted_under_its_mistake(classroom):
    """Also: a helper in a cell of the student's own is there, and a wrong exercise does not spoil the next."""
    assert of(classroom, "bob_homework") == {
        "1.1": ("wrong", "", "shape"),
        "1.2": ("wrong", "noise_variance", ""),
        "1.3": SOLVED,
        "1.4": ("wrong", "", "cell fails"),
    }


@pytest.mark.parametrize(
    ("student", "exercise", "why"),
    [("hangs", "1.2", "time"), ("kills", "1.2", "ended the process"), ("greedy", "1.4", "memory")],
)
def test_what_does_not_come_back_costs_one_exercise(classroom, student, exercise, why):
    assert of(classroom, student) == ALL_SOLVED | {exercise: ("stopped", "", why)}


def test_deleted_cells_are_missing_and_nothing_else(classroom):
    assert of(classroom, "deleted") == ALL_SOLVED | {"1.2": ("missing", "", "")}


def test_nothing_gets_out(classroom):
    """The intruder's first answer counts as solved only if all that it tried was refused."""
    assert of(classroom, "intruder") == ALL_SOLVED
    assert classroom["calls"] == [] and classroom["signals"] == []
    assert [path.name for path in classroom["outside"].iterdir()] == ["ada.ipynb"]


def test_who_forges_writes_into_a_row_of_their_own(classroom):
    """As long as it could be a verdict: no other exercise, no other status, no mistake that there is not."""
    mine = of(classroom, "forger")
    assert mine == {
        "1.1": ("stopped", "", "ended the process"),
        "1.2": SOLVED,  # the report is no exam
        "1.3": ("wrong", "", ""),
        "1.4": ("stopped", "", ""),
    }
    assert "nothing" not in {row["name"] for row in classroom["rows"]}


def test_what_is_no_notebook_is_one_row(classroom):
    bad = {row["file"]: row["problem"] for row in classroom["rows"] if row["status"] == "unreadable"}
    assert bad == {
        "binary.ipynb": "not a notebook",
        "nested.ipynb": "not a notebook",
        "other.ipynb": "no exercise of the course in it",
        "list.ipynb": "not a notebook",
        "link.ipynb": "not a file",
        "large.ipynb": "larger than 20 MB",
    }


def test_no_process_is_left(classroom):
    children = []
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it ended just now
            lines = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
            children += [path.parent.name] if lines["PPid"].strip() == str(os.getpid()) else []
    commands = [Path("/proc", child, "cmdline").read_bytes() for child in children]
    assert not any(b"ddpm_course.grading" in command for command in commands)


def test_table_and_figure(classroom, capsys):
    known = {one.name: one for one in submissions.course(editions.ROOT)}[LESSON]
    rows = [row for row in classroom["rows"] if row["exercise"]]
    text = "\n".join(report.as_text(known, rows))
    students = len({row["student"] for row in rows})
    assert text.startswith(f"{LESSON}: {students} submissions")
    line = next(line for line in text.splitlines() if line.startswith("1.2 q_step"))
    counts = [row["status"] for row in rows if row["exercise"] == "1.2"]
    assert line.split()[2:] == [str(counts.count(status) or "-") for status in running.STATUSES]
    assert "1 x noise_variance" in text and "1 x other: shape" in text
    picture = figure.draw(known.name, report.summary(known, rows))
    labels = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert labels[:3] == ["1.1 to_uint8", "other: shape", "1.2 q_step"] and "noise_variance" in labels
    assert (classroom["out"] / f"{LESSON}.png").read_bytes().startswith(b"\x89PNG")


# ---- the sandbox, one way out at a time -------------------------------------------------------------------------------


CONFINE = """\
import ctypes, json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from ddpm_course.grading import sandbox
confined, port, outside = json.loads(sys.argv[1])
if confined is not None:
    assert all(sandbox.confine(Path.cwd(), memory=1 << 30, network=confined["network"]).values()) or confined["network"]
try:
    print(bool({tried}))
except (OSError, MemoryError) as error:
    print(type(error).__name__)
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


@pytest.fixture
def outcome(tmp_path):
    """(what to try, None or confine's options) -> what came of it, in a process of its own."""
    if not all((closed := confined()).values()):
        pytest.skip(f"a process cannot be confined on this system: {closed}")
    outside, folder = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    folder.mkdir()
    for name in ("ada.ipynb", "old"):
        (outside / name).write_text("somebody else's")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run(tried: str, confined: dict | None) -> str:
            done = subprocess.run(
                [sys.executable, "-u", "-c", CONFINE.replace("{tried}", tried)]
                + [json.dumps([confined, server.getsockname()[1], str(outside)])],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(editions.ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            return (done.stdout.split() or [done.stderr])[-1]

        yield run


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_way_out_is_open_without_the_sandbox_and_closed_in_it(outcome, way):
    assert outcome(WAYS_OUT[way], None) == "True"
    if way == "remove a file":
        return_it = "Path(outside, 'old').write_text('x')"
        assert outcome(return_it, None) == "True"
    assert outcome(WAYS_OUT[way], {"network": False}) in ("PermissionError", "OSError", "MemoryError")


@pytest.mark.parametrize("way", ALLOWED)
def test_what_an_answer_may_need_works_in_the_sandbox(outcome, way):
    assert outcome(ALLOWED[way], {"network": False}) == "True"


def test_with_network_opens_the_network_alone(outcome):
    assert outcome(WAYS_OUT["connect"], {"network": True}) == "True"
    assert outcome(WAYS_OUT["read a file"], {"network": True}) == "PermissionError"
    assert outcome(WAYS_OUT["fork"], {"network": True}) == "PermissionError"


# ---- without running anything ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    return submissions.course(editions.ROOT)


def test_every_exercise_of_every_lesson_is_known(known):
    from ddpm_course.checks import EXERCISES

    assert sorted(name for one in known for name in one.exercises.values()) == sorted(e.name for e in EXERCISES)


def test_students_are_named_by_folder_or_file(tmp_path, known):
    places = {
        f"submitted/ada/{LESSON}/{LESSON}.ipynb": "ada",
        "bob/deep/down/homework.ipynb": "bob",
        f"{LESSON}/cat.ipynb": "cat",
        f"dan_{LESSON}.ipynb": "dan",
        "eve/first.ipynb": "eve/first.ipynb",
        "eve/second.ipynb": "eve/second.ipynb",
        "=1+1.ipynb": "'=1+1",
        "a\x1b[2J\n.ipynb": "a?[2J?",
    }
    for place in places:
        hand_in(tmp_path / place, {"cells": [cell for cell in lesson()["cells"] if cell["id"] == "ex-1-1"]})
    hand_in(tmp_path / "bob" / ".ipynb_checkpoints" / "homework-checkpoint.ipynb", lesson())
    found = submissions.find(tmp_path, known)
    assert {str(one.path.relative_to(tmp_path)): one.student for one in found} == places
    assert {one.lesson.name for one in found} == {LESSON}


def test_the_path_tells_the_lesson_of_a_notebook_without_cells(tmp_path, known):
    hand_in(tmp_path / "ada" / f"{LESSON}.ipynb", {"cells": []})
    [one] = submissions.find(tmp_path, known)
    assert (one.lesson.name, one.answers, one.unreadable) == (LESSON, {}, None)


@pytest.mark.parametrize("editor", ["nbgrader's id only", "Colab", "no ids", "split in two"])
def test_answers_are_found_whatever_saved_them(tmp_path, known, editor):
    notebook = with_answers(ex_1_2="def q_step(schedule, x, t, noise):\n    return x")
    for i, cell in enumerate(notebook["cells"]):
        if editor == "nbgrader's id only":
            cell["id"] = f"{i:08x}"
        elif editor == "Colab":
            cell["metadata"] = {"id": cell.pop("id"), "nbgrader": {}}
        elif editor == "no ids":
            cell.pop("id")
            cell["metadata"] = {}
    answer = ["def q_step(schedule, x, t, noise):\n    return x"]
    if editor == "split in two":
        place = next(i for i, cell in enumerate(notebook["cells"]) if cell["id"] == "ex-1-2")
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


def test_where_nothing_can_be_cut_off_it_says_so_and_asks(tmp_path, monkeypatch, capsys):
    hand_in(tmp_path / "a.ipynb", lesson())
    monkeypatch.setattr(report, "what_is_closed", lambda: {"network": False, "files": False})
    monkeypatch.setattr(report, "judge", lambda *_: pytest.fail("it ran"))
    assert editions.main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "network cannot be cut off" in said and "--with-network" in said and "Traceback" not in said


def test_an_empty_or_missing_folder_is_a_sentence(tmp_path, capsys):
    assert editions.main(["report", str(tmp_path / "none")]) == 1
    assert editions.main(["report", str(tmp_path)]) == 1
    assert "there is no folder" in (said := capsys.readouterr().err) and "there is no notebook in" in said


def test_the_columns_are_explained(capsys):
    with pytest.raises(SystemExit):
        editions.main(["report", "--help"])
    said = capsys.readouterr().out
    assert all(f"\n  {column} " in said for column in report.COLUMNS)
