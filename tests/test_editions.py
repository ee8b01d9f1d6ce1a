"""Making and verifying the editions, on a lesson of a few cells; and the setup cell, in an environment like Colab's."""

import os
import shutil
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from courses import contents, run, save
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ddpm_course import REF, REPOSITORY
from ddpm_course.classroom import editions
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.build import build
from ddpm_course.classroom.kernels import PatientKernelManager
from ddpm_course.classroom.verify import verify
from ddpm_course.lab import page

LESSON, SOURCE = "97_tiny", "notebooks/solutions"
SOLUTION = {
    "grade": False,
    "grade_id": "ex-97-1",
    "locked": False,
    "schema_version": 3,
    "solution": True,
    "task": False,
}
CHECK = SOLUTION | {"grade": True, "grade_id": "check-97-1", "locked": True, "solution": False, "points": 1}
DOUBLE = 'def double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION'
TRIED = "try: print(double(2))\nexcept NotImplementedError: print('not attempted')"
BAR = """\
import sys

from tqdm import tqdm

for left in (True, False):  # the second bar wipes its line in the end
    for _ in tqdm(range(5), file=sys.stdout, mininterval=0, leave=left):
        pass"""
FIGURE = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()"
ENVIRONMENT = """\
import os

print({k: v for k, v in os.environ.items() if k.startswith(('DDPM_', 'NBGRADER'))})
print(sys.executable == os.environ['THIS_PYTHON'], os.path.basename(os.getcwd()))"""


def code(name, source, **metadata):
    return new_code_cell(source, id=name, metadata=metadata)


def tiny_lesson():
    """Everything a lesson has: badge, setup, an exercise and its check, a progress bar, a slider, a figure."""
    cells = [
        new_markdown_cell(f"# Tiny\n\n{editions.badge(LESSON)}", id="title"),
        code("setup", editions.setup_cell(), tags=["setup"]),
        code("ex-97-1", DOUBLE, nbgrader=dict(SOLUTION)),
        code("check-97-1", TRIED, nbgrader=dict(CHECK)),
        new_markdown_cell(f"[solution]({page(f'notebooks/solutions/{LESSON}.ipynb')})", id="hints-97-1"),
        code("bar", BAR, scrolled=True),
        code("slider", "import ipywidgets\n\nipywidgets.IntSlider()"),
        code("figure", FIGURE),
        code("environment", ENVIRONMENT),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": editions.KERNEL, "widgets": {}, "toc": {}})


def cells_of(root, edition=SOURCE):
    """The cells by id, and the notebook among them under its own name."""
    notebook = nbformat.read(root / edition / f"{LESSON}.ipynb", as_version=4)
    return {"notebook": notebook} | {cell.id: cell for cell in notebook.cells}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A clone with the tiny lesson, both editions built where much is set that a reader has not."""
    root = tmp_path_factory.mktemp("clone")
    save(root / SOURCE / f"{LESSON}.ipynb", tiny_lesson())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIS_PYTHON", sys.executable)
        for name in ("DDPM_COURSE_FAST", "DDPM_COURSE_SAVE", "NBGRADER_EXECUTION"):
            patch.setenv(name, "1")
        build(root=root)
    return root


@pytest.fixture
def clone(built, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "clone"))


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_the_editions_hold_what_a_reader_needs(built):
    """One line a bar, figures; run by this Python at the student's budget, nothing saved; stubs in the one of them."""
    assert verify(built) == []  # no widgets, no timings, every cell run, all else is equal
    stub = f'def double(x):\n    """Twice x."""\n    {editions.STUB}'
    for edition, answer, tried in ((SOURCE, DOUBLE, "4\n"), ("notebooks", stub, "not attempted\n")):
        cells = cells_of(built, edition)
        assert cells["ex-97-1"].source == answer and printed(cells["check-97-1"]) == tried
        assert cells["setup"].metadata["cellView"] == "form" and cells["setup"].outputs == []  # Colab folds it
        assert cells["setup"].metadata["jupyter"] == {"source_hidden": True}  # and so does JupyterLab
        assert "version" not in cells["notebook"].metadata.language_info
        bar = printed(cells["bar"])
        assert bar.count("\n") == 1 and "\r" not in bar and bar.startswith("100%")
        assert list(cells["slider"].outputs[0].data) == ["text/plain"] and len(cells["figure"].outputs) == 1
        assert "image/png" in cells["figure"].outputs[0].data
        assert printed(cells["environment"]) == f"{{'DDPM_COURSE_SAVE': '0'}}\nTrue {Path(edition).name}\n"


@pytest.mark.parametrize("source, reason", [("1 / 0", "1 / 0[\\s\\S]*ZeroDivisionError"), ("while True: pass", "tim")])
def test_a_cell_that_fails_or_takes_too_long_is_named_and_nothing_is_written(clone, monkeypatch, source, reason):
    class Impatient(nbclient.NotebookClient):
        def __init__(self, notebook, **options):
            assert options["kernel_manager_class"] is PatientKernelManager  # which misses no reply beside sliders
            super().__init__(notebook, **options | {"timeout": 4})

    monkeypatch.setattr(nbclient, "NotebookClient", Impatient)
    cells = cells_of(clone)
    cells["ex-97-1"].source += f"\n{source}"
    save(clone / SOURCE / f"{LESSON}.ipynb", cells["notebook"])
    before = contents(clone)
    with pytest.raises(RuntimeError, match=rf"97_tiny[\s\S]*{reason}"):
        build(root=clone)
    assert contents(clone) == before


BODIES = ["def double(x):\n    return 2 * x", "### BEGIN SOLUTION\ndef double(x): ...\n### END SOLUTION"]
BODIES += ["def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x", DOUBLE]  # no region, outside a function, no end


@pytest.mark.parametrize("body", BODIES)
def test_a_source_that_nbgrader_cannot_clear_is_refused(body):
    notebook = tiny_lesson()
    notebook.cells[2].source = body
    notebook.cells[2].metadata.nbgrader.grade_id = "check-97-1"  # used twice
    with pytest.raises(ValueError, match="nbgrader refuses .*check-97-1" if body == DOUBLE else "in: ex-97-1"):
        editions.student_edition(notebook)


def test_lessons_are_chosen_by_number_or_name_and_commands_say_what_is_wrong(clone, capsys):
    assert editions.lessons(clone) == editions.lessons(clone, ["97"]) == editions.lessons(clone, [LESSON]) == [LESSON]
    assert main(["build", "98"], clone) == 1
    assert capsys.readouterr().err == "build: there is no lesson '98'; there are: 97_tiny\n"
    (clone / "notebooks" / f"{LESSON}.ipynb").rename(clone / "notebooks" / "98_stray.ipynb")
    assert main(["verify"], clone) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("98_stray.ipynb: no source", f"{LESSON}: no student edition; make notebooks LESSONS=97")


def shows(cell, kind="display_data", **output):
    cell.outputs = [new_output(kind, **output)]


FAULTS = {  # a change to the source's cells or to the notebook, and what is said of it
    "not run": (lambda c: c["bar"].update(execution_count=None), "not every code cell was run"),
    "error": (lambda c: shows(c["bar"], "error", ename="E", evalue="v"), "bar: failed with E: v"),
    "widget": (lambda c: shows(c["bar"], data={editions.WIDGET: {"model_id": "1"}}), "widget without its state"),
    "home": (lambda c: shows(c["bar"], data={"text/plain": "Path('/Users/ada/x.png')"}), "path of the machine"),
    "windows": (lambda c: shows(c["bar"], data={"text/plain": r"in C:\Users\ada"}), "path of the machine"),
    "widget state": (lambda c: c["notebook"].metadata.update(widgets={}), "metadata: 'widgets' left behind"),
    "timings": (lambda c: c["bar"].metadata.update(execution={}), "bar: metadata 'execution' left behind"),
    "kernel": (lambda c: c["notebook"].metadata.update(kernelspec={"name": "mine"}), "kernelspec is"),
    "format": (lambda c: c["notebook"].update(nbformat_minor=4), "format is 4.4"),
    "setup text": (lambda c: c["setup"].update(source="pass"), "setup: the text differs"),
    "setup place": (lambda c: c["notebook"].cells.insert(1, code("before", "pass")), "is not the setup cell"),
    "badge": (lambda c: c["title"].update(source=editions.badge("01_other")), "no badge of this lesson"),
    "id": (lambda c: c["bar"].update(id="0f0f0f0f"), "id '0f0f0f0f' is not readable"),
    "same id": (lambda c: c["bar"].update(id="slider"), "id 'slider' is used 2 times"),
    "no region": (lambda c: c["ex-97-1"].update(source="def double(x): ..."), "without a region"),
    "no check": (lambda c: c["check-97-1"].metadata.pop("nbgrader"), "is not its check"),
    "stray": (lambda c: c["bar"].update(source="### BEGIN SOLUTION"), "not marked as a solution"),
    "picture": (lambda c: c["hints-97-1"].update(source="![](../assets/a.png)"), "cannot work from every folder"),
    "html": (lambda c: c["hints-97-1"].update(source='<img src="assets/a.png">'), "cannot work from every folder"),
    "lesson": (lambda c: c["hints-97-1"].update(source="[next](08_none.ipynb)"), "08_none.ipynb, which does not"),
    "page": (lambda c: c["hints-97-1"].update(source=f"[s]({page('no')})"), "links to no, which"),
    "ref": (lambda c: c["hints-97-1"].update(source=f"[s]({page('x').replace(REF, 'v0')})"), "links to v0, not to"),
    "size": (lambda c: shows(c["bar"], data={"image/png": "A" * 800_000}), "KiB, more than 640"),
    # in the student edition:
    "student metadata": (lambda c: c["bar"].metadata.update(tags=["x"]), "bar: metadata is not"),
    "student notebook": (lambda c: c["notebook"].metadata.update(accelerator="GPU"), "its metadata are not"),
    "student order": (lambda c: c["notebook"].cells.reverse(), "ids or order"),
    "student stub": (
        lambda c: c["ex-97-1"].update(source="def double(x):\n    return 2 * x"),
        "ex-97-1: source is not",
    ),
    "student markers": (lambda c: c["ex-97-1"].update(source="### END SOLUTION"), "ex-97-1: holds a solution"),
    "student stderr": (lambda c: shows(c["bar"], "stream", name="stderr", text="!"), "bar: wrote to standard error"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(clone, name):
    (change, message), student = FAULTS[name], name.startswith("student")
    edition = "notebooks" if student else SOURCE
    cells = cells_of(clone, edition)
    change(cells)
    save(clone / edition / f"{LESSON}.ipynb", cells["notebook"])
    found = [fault for fault in verify(clone) if fault.startswith(LESSON if student else ("solutions/", LESSON))]
    assert any(message in fault for fault in found), found


PIP = """
import pathlib, sys
here = pathlib.Path(__file__).parent.parent
(here / "asked").write_text("\\n".join(sys.argv[sys.argv.index("install") + 1 :]))
(here / "ddpm_course").mkdir()
(here / "ddpm_course" / "__init__.py").write_text("")
"""


@pytest.fixture
def setup(tmp_path):
    """Runs the setup cell and an import in a folder, with Colab's torch and numpy and empty libraries, in site/."""
    site = tmp_path / "site"
    save(site / "pip" / "__main__.py", PIP)
    for name, version in {"torch": "2.9.0+cu126", "torchvision": "0.24.0+cu126", "numpy": "2.0.2", "pip": "1"}.items():
        save(site / name / "__init__.py", "")
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        save(site / f"{name}-{version}.dist-info" / "METADATA", text)
    for name in ("PIL", "datasets", "matplotlib", "einops", "tqdm", "safetensors", "ipywidgets"):
        save(site / name / "__init__.py", "")
    script = editions.setup_cell() + "\nimport ddpm_course\nprint(ddpm_course.__file__)"

    def in_folder(name, before=""):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (site / "asked").unlink(missing_ok=True)
        done = run(
            sys.executable, "-S", "-c", before + script, cwd=tmp_path / name, env=os.environ | {"PYTHONPATH": str(site)}
        )
        return done, (site / "asked").read_text().split() if (site / "asked").exists() else []

    return in_folder


NEW = ["--quiet", f"git+https://github.com/{REPOSITORY}@{REF}"]
NEW += ["torch==2.9.0+cu126", "torchvision==0.24.0+cu126", "numpy==2.0.2"]  # which are left as they are
BEFORE = {  # the notebook's folder, a file that lies there before, where the course is found, what pip is asked for
    "beside the package": ("clone/notebooks", "clone/ddpm_course/__init__.py", "clone", []),
    "deep in the clone": ("clone/notebooks/solutions", "clone/ddpm_course/__init__.py", "clone", []),
    "installed": ("content", "site/ddpm_course/__init__.py", "site", []),
    "Colab": ("content", "content/a.ipynb", "site", NEW),
    "a folder of that name": ("content", "content/ddpm_course/ddpm_course/README.md", "site", NEW),  # is no package
}


@pytest.mark.parametrize("case", BEFORE)
def test_setup_finds_the_course_or_has_pip_bring_it_once(setup, tmp_path, case):
    folder, before, found, asked = BEFORE[case]
    save(tmp_path / before, "")
    for install in (asked, []):
        done, requested = setup(folder)
        package = tmp_path / found / "ddpm_course" / "__init__.py"
        assert (done.stdout, done.stderr, requested) == (f"{package}\n", "", install)


OTHERS = {  # how this Python is made another one, and what is said of it
    "import sys; sys.path[:] = [path for path in sys.path if 'site' not in path]\n": "has no torch, torchvision, numpy",
    "import sys; sys.version_info = (3, 9, 18, 'final', 0)\n": "and the course needs 3.11 or newer.",
}


@pytest.mark.parametrize("change", OTHERS)
def test_setup_says_in_a_sentence_which_python_has_no_course(setup, tmp_path, change):
    save(tmp_path / "clone" / "ddpm_course" / "__init__.py", "")
    told = setup("clone/notebooks", change)[0].stderr.splitlines()[-1]
    assert "Select the Python with the course (Kernel → Change Kernel, in VS Code: Select Kernel)" in told
    assert f": this one, {sys.executable}, " in told and OTHERS[change] in told
