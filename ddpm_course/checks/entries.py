"""Writes a student's function down with everything it needs to work elsewhere."""

import inspect
import types
from collections.abc import Container, Iterable
from typing import Any

from ..colab import LIBRARY
from ..schedules import Schedule
from .running import home
from .sources import assignment_of, global_names, import_line, imported_modules, source_of

PACKAGE = "ddpm_course"


class CannotSave(Exception):
    """Why a function does not go into the file; the message completes "Not saved: ..."."""


def entry(thing: Any, name: str, exercises: Container[str]) -> tuple[str, list[str]]:
    """The source that makes `name` mean `thing`: imports, helpers, and the function itself.

    exercises: names of functions that have entries of their own: a call of one of them is not followed
    returns  the source, and the names of the exercises that it calls
    raises   CannotSave if the source is not to be found, or leans on something that cannot come along
    """
    imports, definitions, visited, calls = set(), {}, set(), []
    whole = (getattr(thing, "__module__", None) or "").startswith(PACKAGE)  # then the block itself is marked "given"

    def define(thing: Any, name: str) -> None:
        visited.add(name)
        made, call = (thing, "") if _is_definition(thing) else (type(thing), "()")
        source = None if made.__module__ in ("functools", "builtins") else source_of(made)
        if hasattr(made, "exercise"):  # a solution of the course's: without its decorator
            source = made.exercise.source
        if source is None:
            raise CannotSave(_no_source(thing, name))
        ours = made.__module__.split(".")[0] == PACKAGE
        _reject_dependence(made, name, source)
        leaning = []
        for other in global_names(source):
            if other in visited or other == made.__name__ or other not in _namespace(made):
                continue
            value = _namespace(made)[other]
            origin = getattr(value, "__module__", None) or ""
            if other in exercises and callable(value):
                calls.append(other)
            elif value is Schedule and name != "Schedule":
                continue  # every file has it
            elif isinstance(value, types.ModuleType) and value.__name__.split(".")[0] == PACKAGE:
                raise CannotSave(f"{name} uses {value.__name__}, and {LIBRARY} has to work without {PACKAGE}.")
            elif _is_definition(value) and (origin == made.__module__ or origin.split(".")[0] == PACKAGE):
                define(value, other)
            elif line := import_line(other, value):
                imports.add(line)
            elif ours and (line := assignment_of(other, made.__module__)):
                definitions[other] = line
            else:
                leaning.append(other)
        if leaning:
            raise CannotSave(
                f"{name} leans on {_list(leaning)}, which your notebook has and {LIBRARY} would not: "
                "make it an argument or define it inside the function, and run both cells again."
            )
        alias = f"\n\n{name} = {made.__name__}{call}\n" if made.__name__ != name or call else ""
        definitions[name] = "# given\n" * (ours and not whole) + source + alias

    define(thing, name)
    parts = ["\n".join(sorted(imports))] if imports else []
    return "\n\n\n".join(part.strip("\n") for part in [*parts, *definitions.values()]) + "\n", calls


def _reject_dependence(made: Any, name: str, source: str) -> None:
    """Raise CannotSave if the source needs an enclosing function, or the package."""
    if free := getattr(getattr(inspect.unwrap(made), "__code__", None), "co_freevars", ()):
        raise CannotSave(f"{name} uses {_list(free)} of the function that it is defined in: pass that as an argument.")
    if any(module.split(".")[0] == PACKAGE for module in imported_modules(source)):
        raise CannotSave(f"{name} imports {PACKAGE}, and {LIBRARY} has to work without it.")


def _is_definition(thing: Any) -> bool:
    """Is it a class or a function, perhaps inside a decorator such as lru_cache?"""
    decorated = hasattr(thing, "__wrapped__") and hasattr(thing, "__name__")
    return isinstance(thing, type | types.FunctionType) or decorated


def _namespace(made: Any) -> dict[str, Any]:
    """The globals that the source of a function or class was written among."""
    functions = [made] if not isinstance(made, type) else [v for v in vars(made).values() if inspect.isfunction(v)]
    return next((f.__globals__ for f in map(home, functions) if f is not None), {})


def _no_source(thing: Any, name: str) -> str:
    if getattr(thing, "__name__", "") == "<lambda>":
        return f"the source of a lambda cannot be kept. Write it as `def {name}(...)` to have it in {LIBRARY}."
    return f"the source of {name} was not found. Define it as a plain function in a cell to have it in {LIBRARY}."


def _list(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
