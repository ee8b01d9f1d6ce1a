"""Publishing under another address: on a copy of the real tree, there and back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_course import REF, REPOSITORY, editions
from ddpm_course.publish import Address, current, exchanged, parsed, publish

ROOT = editions.ROOT
HERE = f"{REPOSITORY}@{REF}"
THERE = "Some-Body/a.fork_of-it@v1.2"
MADE = shutil.ignore_patterns(
    ".git", ".venv*", "work", "runs", "screens", "dist", "build", "*cache*", "*.egg-info", ".ip*"
)


def texts(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A copy of the course as it is."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("here") / "clone", ignore=MADE))


@pytest.fixture(scope="module")
def there(here, tmp_path_factory) -> Path:
    """The same, published under another address."""
    root = Path(shutil.copytree(here, tmp_path_factory.mktemp("there") / "clone"))
    publish(THERE, root)
    return root


@pytest.fixture
def clone(there, tmp_path) -> Path:
    return Path(shutil.copytree(there, tmp_path / "clone"))


def in_it(root: Path, *arguments: str):
    """A Python in the clone, which imports the package from there."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_no_other_place_names_the_repository(there):
    """Nothing in the tree, whatever its kind, names the old address once `publish` has been everywhere it goes."""
    owner = REPOSITORY.split("/")[0]
    assert [name for name, content in texts(there).items() if owner.encode() in content] == []


def test_running_it_back_restores_every_byte(here, clone):
    address, changed = publish(HERE, clone)
    before, after = texts(here), texts(clone)
    assert str(address) == HERE and {path.relative_to(clone).as_posix() for path in changed} >= {"README.md"}
    assert before.keys() == after.keys() and [name for name in before if before[name] != after[name]] == []
    assert publish(HERE, clone) == (address, [])


def test_badges_setup_cells_links_and_readme_agree(there):
    repository, ref = THERE.split("@")
    for lesson in editions.lessons(there):
        for folder in ("notebooks", "notebooks/solutions"):
            text = (there / folder / f"{lesson}.ipynb").read_text(encoding="utf-8")
            assert f"colab.research.google.com/github/{repository}/blob/{ref}/notebooks/{lesson}.ipynb" in text
            assert f'COURSE = \\"git+https://github.com/{repository}@{ref}\\"' in text
            own = re.findall(rf"github(?:\.com)?/{re.escape(repository)}/blob/([^/]+)/", text)
            assert len(own) >= 2 and set(own) == {ref}
        assert f"/github/{repository}/blob/{ref}/notebooks/{lesson}.ipynb" in (there / "README.md").read_text("utf-8")


def test_the_published_course_is_sound(here, there):
    """The package says its new address, `verify` finds the texts that it makes of it, and the layout is still ruff's."""
    script = "from ddpm_course import REF, REPOSITORY, editions as e; print(REPOSITORY, REF, e.page('x'), e.ROOT)"
    repository, ref = THERE.split("@")
    page = f"https://github.com/{repository}/blob/{ref}/x"
    assert in_it(there, "-c", script).stdout.split() == [repository, ref, page, str(there)]
    after, before = (in_it(root, "-m", "ddpm_course.editions", "verify").stdout for root in (there, here))
    assert after == before
    tidy = in_it(there, "-m", "ruff", "check", "--no-cache", "notebooks", "ddpm_course/__init__.py")
    assert tidy.returncode == 0, tidy.stdout


def test_a_link_to_another_ref_is_a_fault(clone):
    path = clone / "notebooks" / "solutions" / "01_forward_process.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("/blob/v1.2/notebooks/solutions", "/blob/main/notebooks/solutions", 1), "utf-8")
    assert "links to main, not to v1.2" in in_it(clone, "-m", "ddpm_course.editions", "verify").stdout


def test_nothing_is_run_and_only_addresses_change(here, there):
    """Outputs, counts and metadata are as they were: every notebook differs in lines that name the address."""
    for path in sorted((there / "notebooks").rglob("*.ipynb")):
        before = (here / path.relative_to(there)).read_text(encoding="utf-8").splitlines()
        after = path.read_text(encoding="utf-8").splitlines()
        changed = [line for line, other in zip(before, after, strict=True) if line != other]
        assert changed and all(REPOSITORY in line for line in changed)


def test_from_the_command_line(clone, tmp_path):
    done = in_it(clone, "-m", "ddpm_course.editions", "publish", "octo/cat")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("octo/cat@main: files changed: ") and current(clone) == Address("octo/cat", "main")
    done = in_it(clone, "-m", "ddpm_course.editions", "publish", "octo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "publish: 'octo' is not of the form OWNER/NAME, or OWNER/NAME@REF for a tag or branch\n"
    with pytest.raises(FileNotFoundError, match="no checkout of the course"):
        publish("octo/cat", tmp_path)


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
def test_a_bad_name_gets_a_sentence_and_changes_nothing(there, name):
    with pytest.raises(ValueError, match=BAD[name]):
        publish(name, there)
    assert current(there) == parsed(THERE)


def test_a_name_that_the_course_has_already_is_refused(clone):
    """Its mentions could not be told from ours on the way back."""
    readme = clone / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nSee also github.com/octo/cat.\n", encoding="utf-8")
    before = texts(clone)
    with pytest.raises(ValueError, match=r"README.md names octo/cat@v1 already"):
        publish("octo/cat@v1", clone)
    assert texts(clone) == before


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


@pytest.mark.parametrize("text", MENTIONS)
def test_what_a_mention_is(text):
    assert exchanged(text, OLD, NEW) == MENTIONS[text]
    assert exchanged(MENTIONS[text], NEW, OLD) == text
