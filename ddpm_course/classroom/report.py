"""`report`: runs what students handed in and counts who solved what; `grading` confines strangers' code.

    python -m ddpm_course.classroom report SUBMISSIONS/

prints a table for each lesson and writes `report.csv` and a figure for each lesson. The page for instructors,
notebooks/INSTRUCTORS.md, says how to read them.
"""

import argparse
import asyncio
import csv
import io
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ..files import write_atomically
from .grading import sandbox
from .grading.submissions import Lesson, Submission, course, find, plain
from .grading.supervisor import STATUSES, Grader, verdicts

COLUMNS = ("student", "lesson", "exercise", "name", "status", "mistake", "problem", "confined", "file")
HELP = f"""\
columns of report.csv, one row for each student and exercise:
  student    the first folder below SUBMISSIONS whose name is not a lesson's, else the file's name
  lesson     the notebook's name in the course, 01_forward_process; empty if nothing of the course is in the file
  exercise   the number, 1.2
  name       of the exercise and its check, q_step
  status     {", ".join(STATUSES)}; or unreadable (the whole file)
  mistake    the name of the mistake that the check recognised, if the status is wrong
  problem    of other wrong answers what goes wrong first (shape, values, time, cell fails ...; other inputs: right
             on the check's own inputs alone); of solved ones "uses the course" if a cell of theirs names the package,
             or an answer calls what the lesson imports from it; of stopped ones why (time, memory, threads, files,
             no results, ended the process); of unreadable files why
  confined   what kept the student's code from this machine: bubblewrap, docker, podman, or nothing
  file       its path below SUBMISSIONS
"""


class Table:
    """The rows as they come, written to report.csv each time, in the order of the submissions."""

    def __init__(self, path: Path, handed_in: list[Submission]):
        self.path, self.found = path, dict.fromkeys(range(len(handed_in)), ())

    def add(self, place: int, rows: list[dict]) -> None:
        self.found[place] = rows
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, quoting=csv.QUOTE_ALL)  # where ; divides columns, ;=1+1 is a formula
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())

    @property
    def rows(self) -> list[dict]:
        return [row for rows in self.found.values() for row in rows]


async def run_all(handed_in: list[Submission], options: argparse.Namespace, table: Table) -> None:
    """Fill the table, some submissions at a time; one line of progress each."""
    turns, done = asyncio.Semaphore(max(1, options.jobs)), 0
    stderr = sys.stderr  # another while a check runs, in another thread

    async def one(place: int, submission: Submission) -> None:
        nonlocal done
        async with turns:
            theirs = await rows_of(submission, options)
            table.add(place, theirs)
        done += 1
        solved = f"{sum(row['status'] == 'solved' for row in theirs)} of {len(theirs)} solved"
        says = f"{done} of {len(handed_in)}  {submission.student}: {submission.unreadable or solved}"
        print(says, file=stderr, flush=True)

    async with asyncio.TaskGroup() as group:
        for place, submission in enumerate(handed_in):
            group.create_task(one(place, submission))


async def rows_of(submission: Submission, options: argparse.Namespace) -> list[dict]:
    """Run one submission: a row for each exercise of its lesson, or a single one if it cannot be used."""
    row = dict.fromkeys(COLUMNS, "")
    row |= {"student": submission.student, "lesson": submission.lesson.name if submission.lesson else ""}
    row |= {"file": plain(submission.path.relative_to(options.submissions).as_posix()), "confined": options.kind}
    if submission.unreadable:
        return [row | {"status": "unreadable", "problem": submission.unreadable, "confined": ""}]
    try:
        found = await verdicts(submission, options.grader)
    except sandbox.DoesNotRun:  # the course, for nobody: not this student's fault
        raise
    except Exception as error:  # whatever it was, it is one student's row
        problem = f"not judged: {plain(repr(error))[:200]}"
        found = dict.fromkeys(submission.lesson.exercises.values(), {"status": "stopped", "problem": problem})
    return [row | {"exercise": number(name), "name": name} | verdict for name, verdict in found.items()]


def number(name: str) -> str:
    """The exercise's number, "1.2", by its name."""
    from .. import checks  # takes seconds: torch comes with it

    return getattr(checks, name).number


def summary(lesson: Lesson, rows: list[dict]) -> list[tuple[str, Counter, Counter]]:
    """For each exercise its number and name, how many have which status, and how many made which mistake.

    A wrong answer that holds no mistake the check knows counts as "other: " and what goes wrong first.
    """
    found = []
    for name in lesson.exercises.values():
        answers = [row for row in rows if row["name"] == name]
        statuses = Counter(row["status"] for row in answers)
        wrong = [row for row in answers if row["status"] == "wrong"]
        wrong = [row["mistake"] or f"other: {row['problem'] or 'unknown'}" for row in wrong]
        found.append((f"{number(name)} {name}", statuses, Counter(sorted(wrong))))
    return found


def as_text(lesson: Lesson, rows: list[dict]) -> list[str]:
    """The table of a lesson, line by line."""
    students = len({row["file"] for row in rows})
    counted = summary(lesson, rows)
    width = max(len(title) for title, _, _ in counted)
    lines = [f"{lesson.name}: {students} submission{'s' * (students != 1)}"]
    lines.append(" ".join([" " * width, *(f"{status:>13}" for status in STATUSES)]))
    for title, statuses, mistakes in counted:
        lines.append(" ".join([f"{title:<{width}}", *(f"{statuses[status] or '-':>13}" for status in STATUSES)]))
        lines += [f"    {count:>3} x {mistake}" for mistake, count in mistakes.most_common()]
    return lines


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, HELP
    parser.add_argument("submissions", type=Path, help="a folder of notebooks, at any depth, under any names")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder for the CSV and the figures (report)")
    parser.add_argument("--seconds", type=float, default=60, help="for one exercise, then it is stopped (60)")
    parser.add_argument("--in-all", type=float, default=600, help="seconds for a submission, then it is stopped (600)")
    parser.add_argument("--memory", type=float, default=4, help="GB that one submission may hold (4)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="submissions at a time")
    walls = parser.add_mutually_exclusive_group()
    walls.add_argument("--container", choices=("docker", "podman"), help="run each in a container of its own")
    walls.add_argument("--trust", action="store_true", help="run them without walls: after reading every one of them")


def run(options: argparse.Namespace) -> int:
    """Run the submissions, print the tables, write the CSV and the figures.

    raises FileNotFoundError for a folder that is not there or has no notebook, ValueError for places in which a
    submission could do harm, RuntimeError where nothing can be run
    """
    if not options.submissions.is_dir():
        raise FileNotFoundError(f"there is no folder {options.submissions}")
    refuse_places(options.submissions.resolve(), options.out)
    known = course(options.root)
    handed_in = find(options.submissions, known)
    if not handed_in:
        raise FileNotFoundError(f"there is no notebook in {options.submissions}")
    options.kind = "nothing" if options.trust else options.container or "bubblewrap"
    if not options.trust and (problem := sandbox.why_not(options.kind)):
        raise RuntimeError(problem)
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(options.out / "report.csv", handed_in)
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        course_alone = sandbox.without_solutions(Path(folder))
        memory = int(options.memory * 2**30)
        options.grader = Grader(options.kind, course_alone, options.seconds, options.in_all, memory)
        try:
            asyncio.run(run_all(handed_in, options, table))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
    rows = table.rows
    import matplotlib.pyplot as plt  # takes a second

    from .grading.figure import draw

    for lesson in known:
        if theirs := [row for row in rows if row["lesson"] == lesson.name and row["exercise"]]:
            print("\n".join(as_text(lesson, theirs)), end="\n\n")
            picture = io.BytesIO()
            with plt.style.context("default"):
                draw(lesson.name, summary(lesson, theirs)).savefig(picture)
            write_atomically(options.out / f"{lesson.name}.png", picture.getvalue())
    if unreadable := [row for row in rows if row["status"] == "unreadable"]:
        lines = [f"    {row['student']}: {row['problem']}" for row in unreadable]
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # of Windows', which lacks most letters
        lines = [line.encode(encoding, "backslashreplace").decode(encoding) for line in lines]
        print("\n".join(["cannot be used:", *lines]), end="\n\n")
    print(f"{options.out}: report.csv, and a figure for each lesson")
    return 0


def refuse_places(submissions: Path, out: Path) -> None:
    """Raise ValueError where Python would load a student's csv.py, or the report would follow a student's link."""
    if Path.cwd().is_relative_to(submissions):
        raise ValueError(
            "run it from outside the submissions' folder: from inside, Python loads what students left there"
        )
    if out.resolve().is_relative_to(submissions) or out.is_symlink():
        raise ValueError(f"--out {out} is a link or lies among the submissions: choose a folder of your own")
