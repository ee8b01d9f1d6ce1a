"""Looks back over all exercises: stubs to begin again from, and how far my_ddpm.py has come."""

from pathlib import Path

from .. import colab
from ..exercises import EXERCISES
from . import display, library


def reset(name: str) -> None:
    """Show the stub that an exercise began with.

    name:   the function's, "q_sample"
    raises  ValueError if there is no such exercise
    """
    exercise = library.BY_NAME.get(name)
    if exercise is None:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(library.BY_NAME)}")
    note = "Copy this into the exercise cell to begin again. What is saved stays until you solve it anew."
    display.show(
        f"Exercise {exercise.number}, {name}",
        [note, "", *exercise.stub.strip().splitlines()],
        display.COLOURS["package"],
    )


def progress(path: str | Path | None = None) -> bool:
    """Check every function in my_ddpm.py again, in an empty namespace, and show one line an exercise.

    path:    the file; by default where the checks save it
    returns  False if the file does not run or holds a function that does not pass
    """
    path = Path(path or colab.own_folder() / colab.LIBRARY)
    try:
        text = library.read(path) if path.exists() else ""
        namespace = library.execute(text, path.name)
    except library.CannotSave as reason:
        display.show(
            f"{display.MARKS['wrong']} {path.name}",
            [f"{str(reason)[:1].upper()}{str(reason)[1:]}"],
            display.COLOURS["wrong"],
        )
        return False
    given = library.given_names(text)
    width = max(map(len, library.BY_NAME))
    lines, solved, good = [], 0, True
    for exercise in EXERCISES:
        status, detail = "not attempted", "not here yet"
        if exercise.name in given:
            detail = "given, not yours yet"
        elif exercise.name in namespace:
            arguments = [namespace["Schedule"]] if "Schedule" in namespace else []
            verdict = library.verdict_on(exercise, namespace[exercise.name], *arguments)
            status, detail = verdict.status, "solved" if verdict.solved else " ".join(verdict.text)
            solved += verdict.solved
            good &= verdict.solved
        lines.append(f"{display.MARKS[status]} {exercise.number}  {exercise.name:<{width}} {detail}")
    title = f"{path.name}: {solved} of {len(EXERCISES)} exercises solved"
    if not path.exists():
        title = f"There is no {path.name} here yet. It appears when a check passes."
    display.show(title, lines, display.COLOURS["solved" if good else "wrong"])
    return good
