"""Finds what students handed in, puts their answers into the course's own notebook, and runs that.

Nothing here executes a submission, and nothing in one can make these functions fail: what cannot be read becomes a
row of the report. `supervisor` goes on from here.
"""

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..editions import is_check, is_solution, lessons, read

LARGEST = 20 << 20  # bytes of a notebook; one with every figure and animation of a lesson has under 1 MB
MOST_CELLS, MOST_CODE = 2000, 1 << 20  # cells with code, and characters in them; a lesson has 200 and 80,000
DEEPEST = 30  # folders, one inside the other
CHECK = re.compile(r"^(\w+) = checks\.\1\(\w*\)[ \t]*(#.*)?$", re.MULTILINE)


@dataclass
class Lesson:
    """A lesson as the course has it: its code cells in order, and which of them are exercises.

    cells:     (the cell's id, its source, the exercise's name or None), checks left out
    """

    name: str
    cells: list[tuple[str, str, str | None]]

    @property
    def exercises(self) -> dict[str, str]:
        """The name of each exercise, by the id of its cell."""
        return {id: exercise for id, _, exercise in self.cells if exercise}


@dataclass
class Submission:
    """A notebook that was handed in.

    answers:   the sources of each exercise's cells, by the exercise's name; those that are not there are missing
    others:    the student's own cells, and their versions of the course's, by the id of the course's cell before
    unreadable: why it cannot be used at all
    """

    path: Path
    student: str
    lesson: Lesson | None = None
    answers: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    unreadable: str | None = None


def course(root: Path) -> list[Lesson]:
    """The lessons with exercises, from the student edition.

    raises FileNotFoundError where there are no notebooks, as in an installed package
    """
    found = []
    for name in lessons(root):
        path, cells, previous = root / "notebooks" / f"{name}.ipynb", [], None
        for cell in (cell for cell in read(path).cells if cell.cell_type == "code"):
            if is_check(cell) and previous is not None and (match := CHECK.search(cell.source)):
                cells[-1] = (previous.id, previous.source, match[1])
            elif not is_check(cell):
                cells.append((cell.id, cell.source, None))
            previous = cell if is_solution(cell) else None
        found.append(Lesson(name, cells))
    if not found:
        raise FileNotFoundError("the report needs the notebooks: run it in a clone of the repository")
    return [lesson for lesson in found if lesson.exercises]


# ---- finding and reading --------------------------------------------------------------------------------------------


def find(folder: Path, known: list[Lesson]) -> list[Submission]:
    """Every notebook below a folder, in the order of the paths; JupyterLab's copies of earlier states are not meant.

    The student is the first folder whose name is not a lesson's, or the file's name where there is no such folder.
    Where two of these would have one name, or two files are of one student and lesson, their paths tell them apart.
    """
    found, origins = [], []
    for path in sorted(_notebooks(folder)):
        inside = path.relative_to(folder)
        named = next((lesson for lesson in known if lesson.name in str(inside)), None)
        parts = [part.replace(named.name, "").strip(" _-") if named else part for part in inside.with_suffix("").parts]
        steps = [i for i, part in enumerate(parts) if part and part != "submitted"]
        student = plain(parts[steps[0]] if steps else str(inside))
        too_deep = len(inside.parts) > DEEPEST
        one = Submission(path, student, named, unreadable=f"more than {DEEPEST} folders deep") if too_deep else None
        found.append(one or open_submission(path, student, named, known))
        origins.append(inside.parts[: steps[0] + 1] if steps else inside.parts)
    names = [unicodedata.normalize("NFKC", one.student).casefold().strip() for one in found]
    taken = [(name, one.lesson and one.lesson.name) for name, one in zip(names, found, strict=True)]
    for i, one in enumerate(found):
        if taken.count(taken[i]) > 1 or any(
            n == names[i] and origins[i] != o for n, o in zip(names, origins, strict=True)
        ):
            one.student = plain(one.path.relative_to(folder).as_posix())
    return found


def _notebooks(folder: Path) -> Iterator[Path]:
    """Files called .ipynb, and in place of what lies too deep the folder itself.

    What begins with a dot is an editor's or a Mac's own, as is __MACOSX in what a Mac has packed.
    """
    folders = [folder]
    while folders:
        inside = folders.pop()
        try:
            entries = list(os.scandir(inside))
        except OSError:  # not ours to read: shows as a row as well
            yield inside / "?.ipynb"
            continue
        for entry in entries:
            path = inside / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir(follow_symlinks=False):
                deep = len(path.relative_to(folder).parts) >= DEEPEST
                yield from [path / "?.ipynb"] if deep else []
                folders += [] if deep else [path]
            elif entry.name.lower().endswith(".ipynb"):
                yield path


def plain(name: str) -> str:
    """A name that came with a submission, without what would move a terminal's cursor or start a sheet's formula.

    Different names stay different, so that none becomes somebody else's.
    """
    name = "".join(c if c.isprintable() and c != "\\" else ascii(c)[1:-1] for c in name)
    return f"'{name}" if unicodedata.normalize("NFKC", name[:1]) in ("=", "+", "-", "@", "|", "'") else name


def open_submission(path: Path, student: str, named: Lesson | None, known: list[Lesson]) -> Submission:
    """Read a notebook; `named` is the lesson that its path names, used where the cells tell of none."""
    found = Submission(path, student, named)
    try:
        content = _content(path)
        if content is None:
            found.unreadable = "not a file"
        elif len(content) > LARGEST:
            found.unreadable = f"larger than {LARGEST >> 20} MB"
        else:
            cells = [cell for cell in _cells(json.loads(content)) if cell["kind"] == "code"]
            if len(cells) > MOST_CELLS or sum(len(cell["source"]) for cell in cells) > MOST_CODE:
                found.unreadable = f"more than {MOST_CELLS} cells, or {MOST_CODE >> 20} MB of code"
            else:
                _fill(found, cells, known)
    except OSError as error:
        found.unreadable = error.strerror or "cannot be read"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        found.unreadable = "not a notebook"
    return found


def _content(path: Path) -> bytes | None:
    """Up to one byte more of a file than is allowed, whatever becomes of it meanwhile; None if it is no file.

    A link could lead to somebody else's answers, and a pipe would never end.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | careful)) as file:
        return file.read(LARGEST + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


def _cells(notebook: dict) -> list[dict]:
    """Kind, source and possible ids of each cell. Colab keeps nbgrader's and its own id in the metadata."""
    cells = []
    for cell in notebook["cells"]:
        metadata, source = cell.get("metadata", {}), cell.get("source", "")
        ids = (metadata.get("nbgrader", {}).get("grade_id"), cell.get("id"), metadata.get("id"))
        source = source if isinstance(source, str) else "".join(source)
        cells.append({"kind": cell["cell_type"], "source": source, "ids": [i for i in ids if isinstance(i, str)]})
    return cells


def _fill(found: Submission, cells: list[dict], known: list[Lesson]) -> None:
    """Recognise the lesson, then the answers, then what else the student wrote or changed."""

    def by_id(cell: dict, lesson: Lesson) -> str | None:
        return next((lesson.exercises[i] for i in cell["ids"] if i in lesson.exercises), None)

    def by_name(cell: dict, lesson: Lesson) -> str | None:
        return next((name for name in defined(cell["source"]) if name in lesson.exercises.values()), None)

    def how_many(lesson: Lesson) -> tuple[int, int]:
        return tuple(len({by(cell, lesson) for cell in cells} - {None}) for by in (by_id, by_name))

    likely = max(known, key=how_many)
    if any(how_many(likely)):
        found.lesson = likely
    if found.lesson is None:
        found.unreadable = "no exercise of the course in it"
        return
    lesson, place = found.lesson, ""
    course = {id: source for id, source, _ in lesson.cells}
    stubs = {essence(source): exercise for _, source, exercise in lesson.cells if exercise}
    for cell in cells:
        place = next((i for i in cell["ids"] if i in course), place)
        exercise, stub = by_id(cell, lesson), stubs.get(essence(cell["source"]))
        if exercise is None and stub is None and cell["source"] not in course.values():
            exercise = by_name(cell, lesson)
        if stub:  # also a copy of it below an answer, which does not take back what the student saw solved
            found.answers.setdefault(stub, [])
        elif exercise:
            found.answers.setdefault(exercise, []).append(cell["source"])
        elif cell["source"] not in course.values() and not any(i.startswith("check-") for i in cell["ids"]):
            found.others.setdefault(place, []).append(cell["source"])
    for id, exercise in lesson.exercises.items():
        if not found.answers.get(exercise):  # perhaps its answer was merged with another one's
            merged = [one for own in found.answers.values() for one in own if exercise in defined(one)]
            if merged or exercise in found.answers:
                found.answers[exercise] = merged or [course[id]]


def defined(source: str) -> list[str]:
    """The functions and classes that a cell defines at the left margin."""
    return re.findall(r"^(?:def|class) (\w+)", source, flags=re.MULTILINE)


def essence(source: str) -> str:
    """A cell without comments, space, and lines that call a check: the same for every untouched copy of a stub."""
    return re.sub(r"^\w+ = checks\.\w+\(.*|#.*|\s", "", source, flags=re.MULTILINE)
