"""Publishing under another address: on a copy of the real tree, there and back."""

import shutil
from pathlib import Path

import lessons
import pytest
from courses import contents, python, save

from ddpm_course import REF, REPOSITORY
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.editions import ROOT
from ddpm_course.classroom.publish import Address, exchanged, publish

HERE, THERE = f"{REPOSITORY}@{REF}", "Some-Body/a.fork_of-it@v1.2"
OWNER, (NEW, TAG) = f"{REPOSITORY.split('/')[0]}/".encode(), THERE.split("@")
MADE = [".git", ".venv*", "work", "runs", "screens", "dist", "build", "*cache*", "*.egg-info", ".ip*"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, dict, dict]:
    """A copy of the course that was published under another address, what was in its files before, and what is now."""
    clone = tmp_path_factory.mktemp("published") / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*MADE))
    before = contents(clone)
    publish(THERE, clone)
    return clone, before, contents(clone)


def test_no_file_names_the_old_address_and_the_way_back_restores_every_byte(published, capsys):
    clone, before, after = published
    assert [name for name, content in after.items() if OWNER in content] == []
    assert main(["publish", HERE], clone) == 0
    assert capsys.readouterr().out.startswith(f"{HERE}: files changed: ")
    back = contents(clone)
    assert back.keys() == before.keys() and [name for name in back if back[name] != before[name]] == []
    assert publish(HERE, clone) == (Address(REPOSITORY, REF), [])
    publish(THERE, clone)
    assert contents(clone) == after


def test_the_published_course_is_sound(published):
    """The package says its new address, `verify` finds the badges, setup cells and links that it makes of it, nothing
    else changes in a lesson, and the layout is still ruff's."""
    clone, before, after = published
    for name in (name for name in before if name.endswith(".ipynb")):
        lines = zip(*(files[name].decode().splitlines() for files in (before, after)), strict=True)
        assert all(REPOSITORY in line for line, other in lines if line != other), name  # nothing was run
    for name in lessons.NAMES:
        assert f"/github/{NEW}/blob/{TAG}/notebooks/{name}.ipynb" in after["README.md"].decode()
    script = "from ddpm_course import REF, REPOSITORY, lab; print(REPOSITORY, REF, lab.page('x'), lab.ROOT)"
    there = [NEW, TAG, f"https://github.com/{NEW}/blob/{TAG}/x", str(clone)]
    assert python("-c", script, cwd=clone, PYTHONPATH=str(clone)).split() == there
    assert "nothing wrong" in python("-m", "ddpm_course.classroom", "verify", cwd=clone, PYTHONPATH=str(clone))
    python("-m", "ruff", "check", "--no-cache", "notebooks", "ddpm_course/__init__.py", cwd=clone)


BAD = {
    "not an address": ["https://github.com/octo/cat", "git@github.com:octo/cat.git", "github.com/octo/cat"],
    "not of the form OWNER/NAME": ["octo", "octo/cat/dog", ""],
    "no name of a GitHub account": ["-octo/cat", "oc--to/cat", "oc to/cat", "/cat"],
    "no name of a GitHub repository": ["octo/", "octo/..", "octo/cat.git", 'octo/cat"'],
    "no tag or branch": ["octo/cat@" + ref for ref in ("", "feature/x", "v1..2", "v1 2", "-v1", "v1\n")],
    "README.md names octo/cat@v1 already": ["octo/cat@v1"],  # its mentions could not be told from ours on the way back
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_bad_name_gets_a_sentence_and_changes_nothing(tmp_path, capsys, complaint):
    save(tmp_path / "ddpm_course" / "__init__.py", 'REPOSITORY = "ours/here"\nREF = "main"\n')
    save(tmp_path / "README.md", "We are at github.com/ours/here. See also github.com/octo/cat.\n")
    save(tmp_path / "notebooks" / "a.ipynb", "https://github.com/ours/here/blob/main/README.md")
    before = contents(tmp_path)
    for name in BAD[complaint]:
        assert main(["publish", "--", name], tmp_path) == 1
        assert complaint in (told := capsys.readouterr().err) and "Traceback" not in told
    assert contents(tmp_path) == before
    assert main(["publish", "octo/dog"], tmp_path / "notebooks") == 1
    assert "no checkout of the course" in capsys.readouterr().err


A, B = Address("a-b/c.d", "v1"), Address("x/y", "main")
MENTIONS = (
    'REF = "{1}"\nWe are at github.com/{0}. git clone https://github.com/{0}.git "git+https://github.com/{0}@{1}" '
    "[a](https://github.com/{0}/blob/{1}/a.md) github.com/{0}/tree/{1} github.com/{0}/issues github.com/{0}/blob/v12/x"
)
OTHERS = '\nA_REF = "v1" github.com/a-b/c.d2 github.com/za-b/c.d github.com/a-b/cxd github.com/a-b/c.d.e'


def test_what_a_mention_is():
    before, after = (MENTIONS.format(*address) + OTHERS for address in (A, B))
    assert exchanged(before, A, B) == after and exchanged(after, B, A) == before
