"""Publishing under another address: on a copy of the real tree, there and back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_course import REF, REPOSITORY
from ddpm_course.classroom import editions
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.publish import Address, current, exchanged, parsed, publish

THERE = "Some-Body/a.fork_of-it@v1.2"
MADE = shutil.ignore_patterns(
    ".git", ".venv*", "work", "runs", "screens", "dist", "build", "*cache*", "*.egg-info", ".ip*"
)


def texts(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A copy of the course as it is."""
    return Path(shutil.copytree(editions.ROOT, tmp_path_factory.mktemp("here") / "clone", ignore=MADE))


@pytest.fixture(scope="module")
def there(here, tmp_path_factory) -> Path:
    """The same, published under another address; no test changes it."""
    root = Path(shutil.copytree(here, tmp_path_factory.mktemp("there") / "clone"))
    publish(THERE, root)
    return root


@pytest.fixture
def clone(there, tmp_path) -> Path:
    """A copy of that without the large files, to be changed."""
    return Path(shutil.copytree(there, tmp_path / "clone", ignore=shutil.ignore_patterns("assets", "tests")))


def test_no_other_place_names_the_repository(there):
    """Nothing in the tree, whatever its kind, names the old address once `publish` has been everywhere it goes."""
    owner = REPOSITORY.split("/")[0]
    assert [name for name, content in texts(there).items() if owner.encode() in content] == []


def test_running_it_back_restores_every_byte(here, clone, capsys):
    assert main(["publish", f"{REPOSITORY}@{REF}"], clone) == 0
    assert capsys.readouterr().out.startswith(f"{REPOSITORY}@{REF}: files changed: ")
    before, after = texts(here), texts(clone)
    assert after.keys() >= {"README.md", "ddpm_course/__init__.py"}
    assert [name for name in after if before[name] != after[name]] == []
    assert publish(f"{REPOSITORY}@{REF}", clone) == (Address(REPOSITORY, REF), [])


def test_badges_setup_cells_links_and_readme_agree_and_nothing_else_changes(here, there):
    repository, ref = THERE.split("@")
    for lesson in editions.lessons(there):
        for folder in ("notebooks", "notebooks/solutions"):
            before, after = ((root / folder / f"{lesson}.ipynb").read_text(encoding="utf-8") for root in (here, there))
            assert f"colab.research.google.com/github/{repository}/blob/{ref}/notebooks/{lesson}.ipynb" in after
            assert f'COURSE = \\"git+https://github.com/{repository}@{ref}\\"' in after
            own = re.findall(rf"github(?:\.com)?/{re.escape(repository)}/blob/([^/]+)/", after)
            assert len(own) >= 2 and set(own) == {ref}
            lines = zip(before.splitlines(), after.splitlines(), strict=True)
            assert all(REPOSITORY in line for line, other in lines if line != other)  # nothing was run
        assert f"/github/{repository}/blob/{ref}/notebooks/{lesson}.ipynb" in (there / "README.md").read_text("utf-8")


def test_the_published_course_is_sound(there, tmp_path):
    """The package says its new address, `verify` finds the texts that it makes of it, and the layout is still ruff's."""
    clone = Path(shutil.copytree(there, tmp_path / "clone"))

    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(clone)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False).stdout

    repository, ref = THERE.split("@")
    script = "from ddpm_course import REF, REPOSITORY, lab; print(REPOSITORY, REF, lab.page('x'), lab.ROOT)"
    address = f"https://github.com/{repository}/blob/{ref}/x"
    assert python("-c", script).split() == [repository, ref, address, str(clone)]
    assert "nothing wrong" in python("-m", "ddpm_course.classroom", "verify")
    assert python("-m", "ruff", "check", "--no-cache", "notebooks", "ddpm_course/__init__.py") == "All checks passed!\n"
    path = clone / "notebooks" / "solutions" / "01_forward_process.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("/blob/v1.2/notebooks/solutions", "/blob/main/notebooks/solutions", 1), "utf-8")
    assert "links to main, not to v1.2" in python("-m", "ddpm_course.classroom", "verify")


def test_a_name_that_the_course_has_already_is_refused(clone):
    """Its mentions could not be told from ours on the way back."""
    readme = clone / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nSee also github.com/octo/cat.\n", encoding="utf-8")
    before = texts(clone)
    with pytest.raises(ValueError, match=r"README.md names octo/cat@v1 already"):
        publish("octo/cat@v1", clone)
    assert texts(clone) == before


BAD = {
    "https://github.com/octo/cat": "not an address",
    "git@github.com:octo/cat.git": "not an address",
    "github.com/octo/cat": "not an address",
    "octo": "not of the form OWNER/NAME",
    "octo/cat/dog": "not of the form OWNER/NAME",
    "": "not of the form OWNER/NAME",
    "-octo/cat": "no name of a GitHub account",
    "oc--to/cat": "no name of a GitHub account",
    "oc to/cat": "no name of a GitHub account",
    "/cat": "no name of a GitHub account",
    "octo/": "no name of a GitHub repository",
    "octo/..": "no name of a GitHub repository",
    "octo/cat.git": "no name of a GitHub repository",
    'octo/cat"': "no name of a GitHub repository",
    "octo/cat@": "no tag or branch",
    "octo/cat@feature/x": "no tag or branch",
    "octo/cat@v1..2": "no tag or branch",
    "octo/cat@v1 2": "no tag or branch",
    "octo/cat@-v1": "no tag or branch",
    "octo/cat@v1\n": "no tag or branch",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_gets_a_sentence_and_changes_nothing(there, capsys, name):
    assert main(["publish", "--", name], there) == 1
    assert BAD[name] in (complaint := capsys.readouterr().err) and "Traceback" not in complaint
    assert current(there) == parsed(THERE)


def test_publishing_needs_a_checkout(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkout of the course"):
        publish("octo/cat", tmp_path)


OLD, NEW = Address("a-b/c.d", "v1"), Address("x/y", "main")
MENTIONS = {
    "https://github.com/a-b/c.d": "https://github.com/x/y",
    "git clone https://github.com/a-b/c.d.git": "git clone https://github.com/x/y.git",
    "git+https://github.com/a-b/c.d@v1": "git+https://github.com/x/y@main",
    '"git+https://github.com/a-b/c.d@v1"': '"git+https://github.com/x/y@main"',
    "(https://github.com/a-b/c.d/blob/v1/README.md)": "(https://github.com/x/y/blob/main/README.md)",
    "https://github.com/a-b/c.d/tree/v1 and more": "https://github.com/x/y/tree/main and more",
    "We are at github.com/a-b/c.d.": "We are at github.com/x/y.",
    "https://github.com/a-b/c.d/issues": "https://github.com/x/y/issues",
    "https://github.com/a-b/c.d/blob/v12/x": "https://github.com/x/y/blob/v12/x",
    "https://github.com/a-b/c.d2": "https://github.com/a-b/c.d2",
    "https://github.com/za-b/c.d": "https://github.com/za-b/c.d",
    "https://github.com/a-b/cxd": "https://github.com/a-b/cxd",
    "https://github.com/a-b/c.d.e": "https://github.com/a-b/c.d.e",
    'REF = "v1"': 'REF = "main"',
    'OTHER_REF = "v1"': 'OTHER_REF = "v1"',
}


def test_what_a_mention_is():
    assert {text: exchanged(text, OLD, NEW) for text in MENTIONS} == MENTIONS
    assert {text: exchanged(text, NEW, OLD) for text in MENTIONS.values()} == {
        new: old for old, new in MENTIONS.items()
    }
