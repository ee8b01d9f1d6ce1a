"""Every formula in every notebook is TeX: KaTeX, run by QuickJS, parses it. And it stands where Markdown leaves it alone.

KaTeX knows less than MathJax, which JupyterLab, Colab and GitHub use: what it accepts renders there too. It comes with
sphinxcontrib-katex, QuickJS with quickjs-ng; neither needs Node or a network.
"""

import re
from importlib import metadata

import lessons
import pytest
import quickjs

PARSE = """(tex, display) => {
    try { katex.renderToString(tex, {displayMode: display, throwOnError: true, strict: "error"}); return "" }
    catch (error) { return error.message }
}"""
FORMULA = re.compile(r"(?<!\\)\$\$(?P<display>.+?)(?<!\\)\$\$|(?<![\\$])\$(?P<inline>[^$]+?)(?<!\\)\$(?!\$)", re.S)
CODE = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.S | re.M)


@pytest.fixture(scope="module")
def parse():
    """(TeX, is it a display?) to KaTeX's complaint, "" if there is none."""
    (source,) = (f for f in metadata.files("sphinxcontrib-katex") if f.name == "katex.min.js")
    context = quickjs.Context()
    context.eval(source.locate().read_text(encoding="utf-8"))
    return context.eval(PARSE)


def formulas(markdown: str) -> list[tuple[str, bool]]:
    """The formulas of a Markdown cell, code left out: their TeX, and whether they stand alone."""
    found = FORMULA.finditer(CODE.sub("code", markdown))
    return [(m["display"] or m["inline"], m["display"] is not None) for m in found]


def complaints(markdown: str, parse) -> list[str]:
    """What is wrong with the formulas of a Markdown cell."""
    text = CODE.sub("code", markdown)
    found = [f"{complaint}: {tex}" for tex, display in formulas(markdown) if (complaint := parse(tex, display))]
    if re.search(r"(?<!\\)\$", FORMULA.sub("formula", text)):
        found.append("a $ without a partner")
    for match in FORMULA.finditer(text):
        before, after, inline = text[: match.start()], text[match.end() :], match["inline"]
        line = before.rpartition("\n")[2] + match[0] + after.partition("\n")[0]
        if inline and (inline != inline.strip() or "\n" in inline):
            found.append(f"GitHub sees no formula where $ has a space beside it, or a line ends inside: ${inline}$")
        elif inline and line.lstrip().startswith("|") and "|" in inline.replace(r"\|", ""):
            found.append(f"| ends a table's cell, inside a formula too; write \\mid or \\vert: ${inline}$")
        elif not inline and not (re.search(r"(^|\n[ >]*\n)[ >]*$", before) and re.match(r" *(\n[ >]*(\n|$)|$)", after)):
            found.append(f"a display formula is a paragraph of its own: {match[0]}")
    return found


@lessons.every_edition
def test_every_formula_parses(lesson, parse):
    assert sum(len(formulas(cell.source)) for cell in lesson.markdown) > 5
    faults = [f"{cell.id}: {complaint}" for cell in lesson.markdown for complaint in complaints(cell.source, parse)]
    assert not faults, "\n" + "\n".join(faults)


BROKEN = [
    (r"the root $\sqrt{\bar\alpha_t$ of it", "end of input"),
    ("\n\n$$\\begin{aligned} a &= b \\end{align}$$\n\n", "end"),
    ("$ᾱ_t$", "ᾱ"),
    ("it costs 5$ a month", "without a partner"),
    ("$ a$ is a number", "space beside it"),
    ("text $$a = b$$ text", "paragraph of its own"),
    ("text\n$$a = b$$\n\ntext", "paragraph of its own"),
    ("| symbol |\n|---|\n| $q(x|y)$ |", "table's cell"),
]


@pytest.mark.parametrize(("markdown", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_a_broken_formula_is_found(markdown, says, parse):
    (complaint,) = complaints(markdown, parse)
    assert says in complaint


def test_what_is_no_formula_is_left_alone(parse):
    text = "`echo $HOME $x`, \\$5 and ``a `$` b``\n\n```sh\ncd $x\n```\n\n$x_t$, $y$ and\n\n$$\n\\beta\n$$\n\n> $$a$$\n\n<details>\n\n$$b$$\n\n</details>"
    assert formulas(text) == [("x_t", False), ("y", False), ("\n\\beta\n", True), ("a", True), ("b", True)]
    assert complaints(text, parse) == []
