"""Runs one submission and tells what its functions do: the process that `supervisor` starts, and believes nothing more.

It runs in IPython, as a kernel does, but without a kernel, which would need a network. The lesson with the student's
answers in it comes in by standard input, and once an exercise is judged, what the lesson goes on with. What the
process has to tell goes out as JSON, a line each, with outcomes behind it; what the cells print goes nowhere.
"""

import builtins
import json
import os
import re
import symtable
import sys


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell binds, and those that it takes from elsewhere; none if it does not compile."""
    from IPython.core.inputtransformer2 import TransformerManager

    if source.lstrip().startswith("%%"):  # %%time and the like; what stands below is Python
        source = source.lstrip().partition("\n")[2]
    try:
        source = re.sub(r"\bawait\s+", "", TransformerManager().transform_cell(source))  # a cell may, a module may not
        tables = [symtable.symtable(source, "cell", "exec")]
    except Exception:  # whatever Python or IPython makes of text that is none
        return set(), set()
    bound = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used = set()
    for table in tables:  # which grows: functions in functions
        tables += table.get_children()
        top = table is tables[0]
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return bound, used - set(dir(builtins))


def needed(cells: list[dict]) -> list[dict]:
    """The exercises, and of the other cells only those that define what an exercise or one of them uses.

    A lesson's trainings and figures take minutes; no answer depends on them. A name means what the last cell before
    says that it is: before the one that uses it and, as a function looks it up when it is called, before the exercise.
    What `import *` brings nobody knows, so that always runs.
    """
    known = [names("\n".join(cell["sources"])) for cell in cells]
    stars = {i for i, cell in enumerate(cells) if any("import *" in source for source in cell["sources"])}
    kept = stars | {i for i, cell in enumerate(cells) if cell["exercise"]}
    wanted, seen = [(name, i) for i in kept for name in known[i][1]], set()
    while wanted:
        name, before = wanted.pop()
        binds = next((i for i in range(before - 1, -1, -1) if name in known[i][0]), None)
        if binds is not None and (binds, before) not in seen:
            seen.add((binds, before))
            kept.add(binds)
            wanted += [(used, place) for used in known[binds][1] for place in (binds, before)]
    return [cells[i] for i in sorted(kept)]


def tried(shell, exercise, asked: dict) -> tuple[dict, bytes]:
    """Run an exercise's cells, and what they define on the exercise's cases and on others.

    returns  what is to be told: "refused", a status and a problem, if there is nothing to run; and the outcomes
    """
    from ddpm_course.checks import judge
    from ddpm_course.checks.running import instance

    from .plain import packed
    from .unseen import unseen

    shell.user_ns.pop(exercise.name, None)
    results = [shell.run_cell(source) for source in asked["sources"]]
    if exercise.name not in shell.user_ns:
        defined = ["not attempted", None] if all(result.success for result in results) else ["wrong", "cell fails"]
        return {"refused": defined}, b""
    function = instance(shell.user_ns[exercise.name])
    if refused := judge.refusal(exercise, function):
        return {"refused": [refused.status, refused.problem]}, b""
    outcomes = judge.attempts(exercise, function, asked["seconds"])
    outcomes += judge.attempts(unseen(exercise, asked["seed"]), function, asked["seconds"])
    return {}, packed(outcomes)


def limit(memory: int) -> None:
    """What the kernel limits in a process: memory that is written to, and the size and number of files."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in {"DATA": memory, "CORE": 0, "FSIZE": 64 << 20, "NOFILE": 256}.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def main() -> None:
    given = json.loads(sys.stdin.buffer.readline())
    limit(given["memory"])
    from IPython.core.interactiveshell import InteractiveShell

    from ddpm_course import checks, exercises

    # A line of a check in an answer would put the course's function, or a refusal, in the place of the student's.
    checks.Check.__call__ = lambda check, function, **options: function
    lessons = {f"{n:02d}": getattr(exercises, f"lesson{n:02d}", None) for n in range(14)}
    replies, channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)

    def tell(content: bytes = b"", **message) -> None:
        channel.write(json.dumps(message | {"size": len(content)}).encode() + b"\n" + content)
        channel.flush()

    tell(ready=True)
    shell = InteractiveShell.instance()
    for cell in needed(given["cells"]):
        name = cell["exercise"]
        if name is None:
            for source in cell["sources"]:
                shell.run_cell(source)
            continue
        if cell["sources"]:
            tell(begun=name)
            message, content = tried(shell, getattr(checks, name).exercise, cell)
            tell(content, exercise=name, **message)
        else:  # not handed in, or left out because it never came back
            tell(missing=name)
        reply = json.loads(replies.readline())  # the exercise is judged: here is the course's function
        exec(reply["source"], namespace := {"__name__": "stand_in"})
        setattr(lessons[getattr(checks, name).lesson], name, namespace[name])  # cases of later exercises may call it
        if not reply["solved"]:
            shell.user_ns[name] = namespace[name]
    tell(done=True)
    os._exit(0)  # whatever threads the cells have left


if __name__ == "__main__":
    main()
