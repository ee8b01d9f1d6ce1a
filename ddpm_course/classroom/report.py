"""`report`: runs what students handed in and counts who solved what; `grading` confines strangers' code.

    python -m ddpm_course.classroom report SUBMISSIONS/

prints a table for each lesson and writes `report.csv` and a figure for each lesson. The page for instructors,
notebooks/INSTRUCTORS.md, says how to read them.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .grading.submissions import Lesson, Submission, course, find
from .grading.supervisor import STATUSES, start, verdicts

COLUMNS = ("student", "lesson", "exercise", "name", "status", "mistake", "problem", "file")
HELP = f"""\
columns of report.csv, one row for each student and exercise:
  student    the first folder below SUBMISSIONS whose name is not a lesson's, else the file's name
  lesson     the notebook's name in the course, 01_forward_process; empty if nothing of the course is in the file
  exercise   the number, 1.2
  name       of the exercise and its check, q_step
  status     {", ".join(STATUSES)}; or unreadable (the whole file)
  mistake    the name of the mistake that the check recognised, if the status is wrong
  problem    of other wrong answers what goes wrong first (shape, values, raises, cell fails ...);
             of stopped ones why (time, memory, ended the process); of unreadable files why
  file       its path below SUBMISSIONS
"""
NOT_HERE = """\
On this system the network cannot be cut off for a process, nor its files and memory limited. --with-network runs the
submissions all the same: do that with notebooks you trust, or in a virtual machine. Linux can confine them, \
in WSL and in containers too."""
FILES_OPEN = "Note: this kernel has no Landlock, so submissions can read and write whatever you can."


def what_is_closed() -> dict[str, bool]:
    """Whether network and files can be closed off for a process here; tried in one."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(folder, "ddpm_course.classroom.grading.sandbox")
        answer = process.communicate(timeout=60)[0]
        if process.returncode:
            raise RuntimeError(Path(folder, "errors").read_text(encoding="utf-8", errors="replace")[-1000:])
    return json.loads(answer)


def run_all(handed_in: list[Submission], options: argparse.Namespace) -> list[dict]:
    """The rows of the CSV, in the order of the submissions; one line of progress each."""
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            every = pool.map(lambda submission: rows_of(submission, options), handed_in)
            for submission, theirs in zip(handed_in, every, strict=True):
                rows += theirs
                solved = f"{sum(row['status'] == 'solved' for row in theirs)} of {len(theirs)} solved"
                print(f"{submission.student}: {submission.unreadable or solved}", file=sys.stderr, flush=True)
        except BaseException:  # Ctrl-C too: what has not begun is not begun
            pool.shutdown(cancel_futures=True)
            raise
    return rows


def rows_of(submission: Submission, options: argparse.Namespace) -> list[dict]:
    """Run one submission: a row for each exercise of its lesson, or a single one if it cannot be used."""
    row = dict.fromkeys(COLUMNS, "")
    row |= {"student": submission.student, "lesson": submission.lesson.name if submission.lesson else ""}
    row["file"] = str(submission.path.relative_to(options.submissions)).encode("utf-8", "replace").decode()
    if submission.unreadable:
        return [row | {"status": "unreadable", "problem": submission.unreadable}]
    memory = int(options.memory * 2**30)
    found = verdicts(submission, options.seconds, memory, options.with_network)
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
    parser.add_argument("--memory", type=float, default=4, help="GB that one submission may hold (4)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="submissions at a time")
    parser.add_argument("--with-network", action="store_true", help="leave the network open: for systems that must")


def run(options: argparse.Namespace) -> int:
    """Run the submissions, print the tables, write the CSV and the figures.

    raises FileNotFoundError for a folder that is not there or has no notebook, RuntimeError where nothing can be run
    """
    if not options.submissions.is_dir():
        raise FileNotFoundError(f"there is no folder {options.submissions}")
    known = course(options.root)
    handed_in = find(options.submissions, known)
    if not handed_in:
        raise FileNotFoundError(f"there is no notebook in {options.submissions}")
    closed = what_is_closed()
    if not closed["network"] and not options.with_network:
        raise RuntimeError(NOT_HERE)
    if not closed["files"]:
        print(FILES_OPEN, file=sys.stderr)
    rows = run_all(handed_in, options)
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "report.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    from .grading.figure import draw  # takes a second: matplotlib

    for lesson in known:
        if theirs := [row for row in rows if row["lesson"] == lesson.name and row["exercise"]]:
            print("\n".join(as_text(lesson, theirs)), end="\n\n")
            draw(lesson.name, summary(lesson, theirs)).savefig(options.out / f"{lesson.name}.png")
    if unreadable := [row for row in rows if row["status"] == "unreadable"]:
        lines = [f"    {row['student']}: {row['problem']}" for row in unreadable]
        print("\n".join(["cannot be used:", *lines]), end="\n\n")
    print(f"{options.out}: report.csv, and a figure for each lesson")
    return 0
