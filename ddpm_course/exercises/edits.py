"""Wrong functions made from right ones: the changes that a catalogue of mistakes writes down as text.

A change is a line that a student could have written, in place of the solution's:

    sigma = 1 - ab              replaces the assignment to `sigma`; where there is none, it comes first
    return ab * x0              replaces the return; `return #2 ...` the second one, `h #3 = ...` the third to `h`
    (ab) => (1 - ab)            a fragment of the text, the signature included, that stands there once;
                                `old => new (all)` changes every one, `old #2 => new` the second
    drop x = x.clamp(-1, 1)     takes the statement that begins like this away
    unwrap with torch.no_grad   takes a block's first line away, and leaves what is in it
    before return: x = x / 2    puts a line before, or `after`, the statement that begins like this; several: `\n`
    return (…).sqrt()           … is what stood there, on the right of an assignment or behind a return
    in sigma_of: return ab      the change after the colon, in a helper or another exercise of the same module
    def by_largest              no change: the function of this name in the lesson's module is the answer

Changes that are made together are joined by " ; " and made one after the other.
"""

import ast
import re
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any


class CannotChange(ValueError):
    """A change that does not apply to the text; the message says why."""


@cache
def changed(source: str, change: str, first: int = 0) -> str:
    """The text of a function after one change.

    source: of one function, dedented
    first:  how many statements have been put first before: new names come in the order in which they are written
    raises  CannotChange if the change finds nothing to change, or more than it says
    """
    for pattern, apply in _KINDS:
        if match := re.fullmatch(pattern, change, re.DOTALL):
            result = apply(source, *match.groups(), *([first] if apply is _assigned else []))
            try:
                _parsed(result)
            except SyntaxError as error:
                raise CannotChange(f"{change!r} makes no Python: {error.msg}") from None
            return result
    raise CannotChange(f"{change!r} is no change that this format knows")


def wrong_function(name: str, changes: str, sources: dict[str, str], namespace: dict[str, Any]) -> Callable:
    """The function `name` after some changes, in a namespace of its own.

    changes:   one or several, joined by " ; "
    sources:   the text of every function that may be changed, by its name
    namespace: what the functions find when they run: a module's, as a rule; it is not touched
    raises     CannotChange
    """
    if match := re.fullmatch(r"def (\w+)", changes):
        if match[1] not in namespace:
            raise CannotChange(f"there is no function {match[1]}")
        return namespace[match[1]]
    touched, first = {name: _without_docstring(sources[name])}, {}
    for change in changes.split(" ; "):
        place, change = name, change.strip()
        if match := re.fullmatch(r"in (\w+): (.+)", change, re.DOTALL):
            place, change = match.groups()
            if place not in sources:
                raise CannotChange(f"there is no function {place}")
        before = touched.get(place) or _without_docstring(sources[place])
        touched[place] = changed(before, change, first.get(place, 0))
        if len(_body(touched[place])) > len(_body(before)) and not re.match(r"before |after ", change):
            first[place] = first.get(place, 0) + 1
    own = dict(namespace)
    callers = sources if set(touched) != {name} else {}  # they find a changed helper only in the same namespace
    for text in {**callers, **touched}.values():
        exec(compile(text, f"<{name}, wrong on purpose>", "exec"), own)
    return own[name]


def _fragment(source: str, old: str, n: str | None, new: str, every: str | None) -> str:
    # a fragment that begins or ends with a name means that whole name: `x` is not in `x0`
    whole = (
        (r"(?<!\w)" if re.match(r"\w", old) else "") + re.escape(old) + (r"(?!\w)" if re.search(r"\w$", old) else "")
    )
    places = [match.span() for match in re.finditer(whole, source)]
    if not places:
        raise CannotChange(f"{old!r} does not stand there")
    if n is not None and int(n) > len(places):
        raise CannotChange(f"{old!r} stands there only {len(places)} times")
    if n is None and not every and len(places) > 1:
        raise CannotChange(f"{old!r} stands there {len(places)} times: say which, as in `{old} #2 => ...`, or (all)")
    for start, end in reversed(places if every else [places[int(n or 1) - 1]]):
        source = source[:start] + new + source[end:]
    return source


def _returned(source: str, n: str | None, expression: str) -> str:
    found = [node for node in _statements(source) if isinstance(node, ast.Return)]
    node = _nth(found, n, "return")
    return _replaced(source, node, f"return {_filled(expression, source, node)}")


def _assigned(source: str, target: str, n: str | None, operator: str, expression: str, first: int) -> str:
    wanted = ast.unparse(ast.parse(f"{target} = 0").body[0].targets[0])
    found = [node for node in _statements(source) if wanted in _targets(node)]
    line = f"{target} {operator} {expression}"
    if not found and n is None:
        node = _body(source)[first]
        return _inserted(source, node.lineno - 1, node.col_offset, line)
    node = _nth(found, n, target)
    return _replaced(source, node, f"{target} {operator} {_filled(expression, source, node)}")


def _filled(expression: str, source: str, node: ast.stmt) -> str:
    return expression.replace("…", ast.get_source_segment(source, node.value) or "None") if node.value else expression


def _dropped(source: str, beginning: str, n: str | None) -> str:
    node = _beginning(source, beginning, n)
    lines = source.splitlines(keepends=True)
    del lines[node.lineno - 1 : node.end_lineno]
    return "".join(lines)


def _unwrapped(source: str, beginning: str, n: str | None) -> str:
    node = _beginning(source, beginning, n)
    if not getattr(node, "body", None):
        raise CannotChange(f"{beginning!r} begins no block")
    lines = source.splitlines(keepends=True)
    first, last = node.body[0].lineno - 1, node.body[-1].end_lineno
    inside = textwrap.indent(textwrap.dedent("".join(lines[first:last])), " " * node.col_offset)
    return "".join([*lines[: node.lineno - 1], inside, *lines[node.end_lineno :]])


def _put(source: str, where: str, beginning: str, n: str | None, line: str) -> str:
    node = _beginning(source, beginning, n)
    place = node.lineno - 1 if where == "before" else node.end_lineno
    return _inserted(source, place, node.col_offset, line)


_N = r"(?: #(\d+))?"
_KINDS = [
    (rf"(before|after) (.+?){_N}: (.+)", _put),
    (rf"drop (?!=)(.+?){_N}", _dropped),
    (rf"unwrap (.+?){_N}", _unwrapped),
    (rf"(.+?){_N} => (.*?)( \(all\))?", _fragment),
    (rf"return{_N} (.+)", _returned),
    (rf"([\w.,\s\[\]()*:-]+?){_N} ([-+*/@]?=) (.+)", _assigned),
]


@cache
def _parsed(source: str) -> ast.Module:
    """Its tree, which nobody changes: a thousand wrong functions have few texts between them."""
    return ast.parse(source)


def _statements(source: str) -> list[ast.stmt]:
    """Every statement of the function, in the order of the text."""
    nodes = [node for node in ast.walk(_parsed(source).body[0]) if isinstance(node, ast.stmt)][1:]
    return sorted(nodes, key=lambda node: (node.lineno, node.col_offset))


@cache
def _without_docstring(source: str) -> str:
    """The text without it: what it says of `x` is nothing to change."""
    function = _parsed(source).body[0]
    if not isinstance(function, ast.FunctionDef) or ast.get_docstring(function) is None or len(function.body) == 1:
        return source
    lines, text = source.splitlines(keepends=True), function.body[0]
    return "".join([*lines[: text.lineno - 1], *lines[text.end_lineno :]])


def _body(source: str) -> list[ast.stmt]:
    body = _parsed(source).body[0].body
    return body[1:] if ast.get_docstring(_parsed(source).body[0]) is not None and len(body) > 1 else body


def _targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [ast.unparse(node.target)] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def _beginning(source: str, beginning: str, n: str | None) -> ast.stmt:
    """The statement whose text begins like this."""
    lines = source.splitlines()
    found = [node for node in _statements(source) if lines[node.lineno - 1][node.col_offset :].startswith(beginning)]
    return _nth(found, n, beginning)


def _nth(found: list[ast.stmt], n: str | None, what: str) -> ast.stmt:
    if not found:
        raise CannotChange(f"there is no statement {what!r}")
    if n is None and len(found) > 1:
        raise CannotChange(f"there are {len(found)} statements {what!r}: say which, as in `{what} #2`")
    if n is not None and int(n) > len(found):
        raise CannotChange(f"there are only {len(found)} statements {what!r}")
    return found[int(n or 1) - 1]


def _replaced(source: str, node: ast.stmt, line: str) -> str:
    lines = source.splitlines(keepends=True)
    indented = textwrap.indent(line.replace("\\n", "\n"), " " * node.col_offset) + "\n"
    return "".join([*lines[: node.lineno - 1], indented, *lines[node.end_lineno :]])


def _inserted(source: str, place: int, indent: int, line: str) -> str:
    lines = source.splitlines(keepends=True)
    return "".join([*lines[:place], textwrap.indent(line.replace("\\n", "\n"), " " * indent) + "\n", *lines[place:]])
