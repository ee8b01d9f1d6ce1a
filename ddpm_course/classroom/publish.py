"""`publish`: gives the course another address, a fork's or a release's tag.

    python -m ddpm_course.classroom publish OWNER/NAME@TAG

Badges, setup cells, links and the README then name that repository at that branch or tag, and so does the package
(`ddpm_course.REPOSITORY` and `REF`): a badge opens the very notebooks that install the package beside them. The
command only exchanges text. Nothing is run, outputs stay, and publishing under the old address restores every byte.

For a class publish a tag: it stays what it is, while a branch moves on and installs another package beside notebooks
that students have copied already.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from ..files import write_atomically

DEFAULT_REF = "main"
PLACES = (
    "ddpm_course/__init__.py", "README.md", "CITATION.cff", "assets/README.md",
    "notebooks/**/*.ipynb", "notebooks/**/*.md",
)  # fmt: skip


class Address(NamedTuple):
    """Where a course lies on GitHub."""

    repository: str  # OWNER/NAME
    ref: str  # a branch or a tag

    def __str__(self) -> str:
        return f"{self.repository}@{self.ref}"


def publish(name: str, root: Path) -> tuple[Address, list[Path]]:
    """Give the course in `root` the address `name`, OWNER/NAME or OWNER/NAME@REF; without REF it is "main".

    returns  the address, and the files that changed
    raises   ValueError, before anything is written, for a name that GitHub would not take, or that occurs in the course
             already, so that the way back would be lost; FileNotFoundError where there is no checkout
    """
    new, old = parsed(name), current(root)
    changed = {}
    for path in sorted({path for place in PLACES for path in root.glob(place) if path.is_file()}):
        before = path.read_bytes().decode("utf-8")  # bytes: the ends of lines stay what they are
        after = exchanged(before, old, new)
        if exchanged(after, new, old) != before:
            raise ValueError(f"{path.relative_to(root)} names {new} already, and could not be restored afterwards")
        if after != before:
            changed[path] = after.encode("utf-8")
    for path, content in changed.items():
        write_atomically(path, content)
    return new, list(changed)


def parsed(name: str) -> Address:
    """The address in OWNER/NAME[@REF]; ValueError, in a sentence, for anything else."""
    if "://" in name or name.startswith(("git@", "github.com/")):
        raise ValueError(f"give OWNER/NAME, or OWNER/NAME@REF for a tag or branch, not an address: {name!r}")
    repository, at, ref = name.partition("@")
    owner, slash, project = repository.partition("/")
    if not slash or "/" in project:
        raise ValueError(f"{name!r} is not of the form OWNER/NAME, or OWNER/NAME@REF for a tag or branch")
    if len(owner) > 39 or not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", owner):
        raise ValueError(f"{owner!r} is no name of a GitHub account: letters, digits and single dashes between them")
    if len(project) > 100 or not re.fullmatch(r"[\w.-]*[\w-]", project, re.ASCII) or project.endswith(".git"):
        raise ValueError(f"{project!r} is no name of a GitHub repository: letters, digits, dashes, dots, no .git")
    if at and (".." in ref or ref.endswith(".lock") or not re.fullmatch(r"\w([\w.-]*[\w-])?", ref, re.ASCII)):
        raise ValueError(f"{ref!r} is no tag or branch that fits into every link: letters, digits, dashes and dots")
    return Address(repository, ref if at else DEFAULT_REF)


def current(root: Path) -> Address:
    """The address that the course in `root` has now."""
    path = root / "ddpm_course" / "__init__.py"
    if not path.is_file() or not (root / "notebooks").is_dir():
        raise FileNotFoundError(f"there is no checkout of the course in {root}: publishing needs its notebooks")
    text = path.read_text(encoding="utf-8")
    repository, ref = (re.search(rf'^{name} = "([^"]+)"$', text, re.MULTILINE) for name in ("REPOSITORY", "REF"))
    return Address(repository[1], ref[1])


def exchanged(text: str, old: Address, new: Address) -> str:
    """The text with every mention of one address turned into the other.

    A mention is OWNER/NAME as a whole, in whatever address; behind it /blob/REF, /tree/REF, /raw/REF or @REF; and the
    line REF = "..." of the package.
    """
    end = r"(?![\w-]|\.(?!git\b)\w)"  # a full stop ends a name, and so does .git
    at_ref = rf"(?:(/(?:blob|tree|raw)/|@){re.escape(old.ref)}(?![\w-]|\.\w))?"
    mention = rf"(?<![\w.-]){re.escape(old.repository)}{at_ref}{end}"

    def renamed(match: re.Match) -> str:
        return new.repository + (match[1] + new.ref if match[1] else "")

    text = re.sub(mention, renamed, text)
    return re.sub(rf'^REF = "{re.escape(old.ref)}"$', f'REF = "{new.ref}"', text, flags=re.MULTILINE)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="OWNER/NAME[@REF]", help="a tag for a class; without @REF, the branch main")


def run(options: argparse.Namespace) -> int:
    address, changed = publish(options.name, options.root)
    print(f"{address}: files changed: {len(changed)}. Commit them, and let {address.ref} point to that commit.")
    return 0
