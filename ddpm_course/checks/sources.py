"""Finds the source of a function or class, wherever a notebook has it, and what else that source needs."""

import ast
import builtins
import inspect
import linecache
import re
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

from .running import home

# Where a name that a student imported from a module may come from, if the object does not say so itself.
MODULES = ("math", "torch", "torch.nn.functional", "numpy", "einops", "typing", "functools", "itertools", "operator")


def source_of(thing: Callable | type) -> str | None:
    """The source of a function or class, dedented, decorators included; None if it cannot be found.

    inspect.getsource does not know classes defined in a notebook, nor anything under %%time. Those are
    found in the cell that holds their code, or in IPython's history.
    """
    code = _code(thing)
    if thing.__name__ == "<lambda>" or (code is None and not isinstance(thing, type)):
        return None
    texts = _history()
    if code is not None:
        linecache.checkcache(code.co_filename)
        texts.insert(0, "".join(linecache.getlines(code.co_filename)))
    # IPython cuts cells where str.splitlines does, at U+2028 in a comment too: such a cell is found in the history
    for text in (re.sub(r"\r\n?", "\n", text) for text in texts):
        for node in _definitions(text, thing.__name__):
            if code is None or _has_code(text, node, code):  # a class without methods has nothing to compare
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                lines = text.split("\n")[first - 1 : node.end_lineno]  # where Python ends a line, and nowhere else
                return textwrap.dedent("\n".join(lines)) + "\n"
    return None


def assignment_of(name: str, module: str) -> str | None:
    """The statement with which a module, one with a file, gives a name its value: a constant's source."""
    text = inspect.getsource(sys.modules[module])
    for node in ast.parse(text).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.get_source_segment(text, node) + "\n"
    return None


def global_names(source: str) -> list[str]:
    """The names that source takes from outside itself, in annotations and decorators too, built-ins excluded."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    table = symtable.symtable(source, "<source>", "exec")
    own = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    names = dict.fromkeys(walk(table))
    return sorted(n for n in names if n not in own and not n.startswith("__") and n not in dir(builtins))


def import_line(name: str, value: Any) -> str | None:
    """The import statement that makes `name` mean `value`; None if it is not something an installed module has."""
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")
    made_in = getattr(value, "__module__", None) or ""
    if not isinstance(made_in, str) or made_in == "__main__":
        made_in = ""
    for module in dict.fromkeys([made_in.split(".")[0], made_in, *MODULES]):
        for attribute in dict.fromkeys([name, getattr(value, "__name__", name)]):
            if module and module in sys.modules and _is(getattr(sys.modules[module], str(attribute), None), value):
                return f"from {module} import {attribute}" + ("" if attribute == name else f" as {name}")
    return None


def imported_modules(source: str) -> set[str]:
    """The modules that source itself imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _is(candidate: Any, value: Any) -> bool:
    number = isinstance(value, float) and isinstance(candidate, float)  # math.pi, imported by name
    return candidate is not None and (candidate is value or (number and candidate == value))


def _code(thing: Callable | type) -> types.CodeType | None:
    """A code object that stands somewhere in the source of thing."""
    if isinstance(thing, type):
        for value in vars(thing).values():
            function = (
                home(getattr(value, "__func__", value)) if callable(value) or hasattr(value, "__func__") else None
            )
            if function is not None and function.__qualname__.startswith(thing.__qualname__ + "."):
                return function.__code__
        return None
    return getattr(inspect.unwrap(thing), "__code__", None)


def _history() -> list[str]:
    """The cells that were run, newest first, without cell magics and with line magics made into Python."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return []
    cells = []
    for cell in reversed(shell.history_manager.input_hist_raw):
        cell = cell.lstrip()
        while cell.startswith("%%"):
            cell = cell.partition("\n")[2].lstrip()
        cells.append(shell.transform_cell(cell))
    return cells


def _definitions(text: str, name: str) -> list[ast.stmt]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds) and node.name == name]


def _has_code(text: str, node: ast.stmt, code: types.CodeType) -> bool:
    """Does this definition in text hold this code object?

    The bytecode of a function depends a little on what is compiled with it, and IPython compiles the statements
    of a cell one by one: both ways are tried.
    """

    def inside(parent: types.CodeType) -> Iterator[types.CodeType]:
        for constant in parent.co_consts:
            if isinstance(constant, types.CodeType):
                yield constant
                yield from inside(constant)

    def key(c: types.CodeType) -> tuple:
        plain = tuple(repr(k) for k in c.co_consts if not isinstance(k, types.CodeType))
        return c.co_name, c.co_code, c.co_names, c.co_varnames, c.co_freevars, plain

    def compiled(source: str | ast.Module) -> list[types.CodeType]:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            return list(inside(compile(source, "<source>", "exec", flags, dont_inherit=True)))
        except (SyntaxError, ValueError):
            return []

    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    together = [c for c in compiled(text) if first <= c.co_firstlineno <= (node.end_lineno or first)]
    return any(key(c) == key(code) for c in compiled(ast.Module([node], [])) + together)
