"""Making and verifying the editions, on a lesson of a few cells; and the setup cell, in an environment like Colab's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ddpm_course import REF, REPOSITORY
from ddpm_course.classroom import editions
from ddpm_course.classroom.__main__ import main
from ddpm_course.classroom.build import build, execute
from ddpm_course.classroom.kernels import PatientKernelManager
from ddpm_course.classroom.verify import _output_faults, verify
from ddpm_course.lab import page

LESSON = "07_tiny"
SOLUTION = {"grade": False, "grade_id": "ex-7-1", "locked": False, "schema_version": 3, "solution": True, "task": False}
CHECK = SOLUTION | {"grade": True, "grade_id": "check-7-1", "locked": True, "solution": False, "points": 1}
DOUBLE = 'def double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION'
TRIED = """\
try:
    print('solved' if double(2) == 4 else 'wrong')
except NotImplementedError:
    print('not attempted')"""
BAR = "import sys\n\nfrom tqdm import tqdm\n\nfor _ in tqdm(range(5), file=sys.stdout, mininterval=0):\n    pass"
FIGURE = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()"
ENVIRONMENT = """\
import os

print({k: v for k, v in os.environ.items() if k.startswith('DDPM_')}, 'NBGRADER_EXECUTION' in os.environ)"""


def code(name, source, **metadata):
    return new_code_cell(source, id=name, metadata=metadata)


def tiny_lesson():
    """Everything a lesson has: badge, setup, an exercise and its check, a progress bar, a slider, a figure."""
    cells = [
        new_markdown_cell(f"# Tiny\n\n{editions.badge(LESSON)}", id="title"),
        code("setup", editions.setup_cell(), tags=["setup"]),
        code("ex-7-1", DOUBLE, nbgrader=dict(SOLUTION)),
        code("check-7-1", TRIED, nbgrader=dict(CHECK)),
        new_markdown_cell(f"[solution]({page(f'notebooks/solutions/{LESSON}.ipynb')})", id="hints-7-1"),
        code("bar", BAR, scrolled=True),
        code("slider", "import ipywidgets\n\nipywidgets.IntSlider()"),
        code("figure", FIGURE),
        code("environment", ENVIRONMENT),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": editions.KERNEL, "widgets": {}, "toc": {}})


def get(root, edition):
    """The notebook as it lies in the clone, its cells by id, and the notebook among them under its own name."""
    notebook = nbformat.read(root / edition / f"{LESSON}.ipynb", as_version=4)
    return notebook, {"notebook": notebook} | {cell.id: cell for cell in notebook.cells}


def put(root, edition, notebook):
    """As an editor would save it: nbformat's own writer refuses or repairs some faults."""
    (root / edition).mkdir(parents=True, exist_ok=True)
    (root / edition / f"{LESSON}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A clone with the tiny lesson, both editions built where much is set that a reader has not."""
    root = tmp_path_factory.mktemp("clone")
    put(root, "notebooks/solutions", tiny_lesson())
    with pytest.MonkeyPatch.context() as patch:
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


# ---- build --------------------------------------------------------------------------------------------------------


def test_student_edition_has_stubs_and_outputs_of_its_own(built):
    (source, cells), (student, stubs) = get(built, "notebooks/solutions"), get(built, "notebooks")
    assert stubs["ex-7-1"].source == f'def double(x):\n    """Twice x."""\n    {editions.STUB}'
    assert printed(cells["check-7-1"]) == "solved\n"
    assert printed(stubs["check-7-1"]) == "not attempted\n"
    assert [c.source for c in source.cells if c.id != "ex-7-1"] == [c.source for c in student.cells if c.id != "ex-7-1"]
    assert verify(built) == []
    assert not any(cell.outputs for cell in editions.student_edition(source).cells if cell.cell_type == "code")


@pytest.mark.parametrize("edition", ["notebooks/solutions", "notebooks"])
def test_saved_notebooks_hold_what_a_reader_needs(built, edition):
    """No timings, no widgets, one line a bar, figures; run at the student's own budget, and nothing saved."""
    notebook, cells = get(built, edition)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    assert all(set(cell.metadata) <= {"tags", "nbgrader", "slideshow"} for cell in notebook.cells if cell.id != "setup")
    assert cells["setup"].metadata["cellView"] == "form"  # Colab folds it to its first line
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5, 6, 7]
    bar = printed(cells["bar"])
    assert bar.count("\n") == 1 and "\r" not in bar and bar.startswith("100%")
    assert list(cells["slider"].outputs[0].data) == ["text/plain"]
    assert ["image/png" in output.data for output in cells["figure"].outputs] == [True]
    assert printed(cells["environment"]) == "{'DDPM_COURSE_SAVE': '0'} False\n"
    assert cells["setup"].outputs == []


def test_a_kernel_is_this_python_in_the_notebook_s_folder_and_a_cell_that_takes_too_long_is_named(
    tmp_path, monkeypatch
):
    used = []

    class Impatient(nbclient.NotebookClient):
        def __init__(self, notebook, **options):
            super().__init__(notebook, **options | {"timeout": 3})
            used.append(self.kernel_manager_class)

    monkeypatch.setattr(nbclient, "NotebookClient", Impatient)
    where = code("where", "import os, sys\nprint(sys.executable)\nprint(os.getcwd())")
    environment, endless = code("environment", ENVIRONMENT), code("endless", "while True:\n    pass")
    with pytest.raises(RuntimeError, match="stuck: .*tim"):
        notebook = new_notebook(cells=[where, environment, endless])
        execute(notebook, tmp_path, name="stuck", fast=True, DDPM_COURSE_SAVE="1")
    assert printed(where).split() == [sys.executable, str(tmp_path)]
    assert "'DDPM_COURSE_FAST': '1'" in printed(environment) and "'DDPM_COURSE_SAVE': '1'" in printed(environment)
    assert used == [PatientKernelManager]  # which misses no reply beside sliders


def test_a_cell_that_fails_is_named_and_nothing_is_written(clone):
    notebook, cells = get(clone, "notebooks/solutions")
    cells["bar"].update(source="1 / 0", id="0f0f0f0f")
    put(clone, "notebooks/solutions", notebook)
    before = {path: path.read_bytes() for path in clone.rglob("*.ipynb")}
    with pytest.raises(RuntimeError, match=r"07_tiny[\s\S]*1 / 0[\s\S]*ZeroDivisionError"):
        build(root=clone)
    assert before == {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()}


def test_lines_that_were_written_over():
    assert editions.as_shown("  0%|  |\r 50%|# |\r100%|##|\n") == "100%|##|\n"
    assert editions.as_shown("10%\r20%\r     \r") == ""  # tqdm(leave=False) wipes its line
    assert editions.as_shown("a line\n") == "a line\n"
    assert editions.as_shown("windows\r\n") == "windows\n"


def test_ids_drawn_by_an_editor_become_readable_once():
    notebook = tiny_lesson()
    drawn = ["3f2a9c01", "setup", "7b1c2d3e-0000-4000-8000-0123456789ab", "aZ3_kQ9x-1bC", "hints-7-1", "slider"]
    for cell, name in zip(notebook.cells, drawn, strict=False):
        cell.id = name
    editions.refresh(notebook)
    names = [cell.id for cell in notebook.cells]
    assert names == ["text-1", "setup", "code-1", "code-2", "hints-7-1", "code-3", "slider", "figure", "environment"]
    notebook.cells.insert(0, new_markdown_cell("new"))
    editions.refresh(notebook)
    assert [cell.id for cell in notebook.cells] == ["text-2", *names]


def test_building_brings_shared_texts_up_to_date():
    notebook = tiny_lesson()
    for cell in (notebook.cells[0], notebook.cells[4]):
        cell.source = cell.source.replace(REPOSITORY, "somebody/else")
    notebook.cells[1].source = "import ddpm_course"
    editions.refresh(notebook)
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in tiny_lesson().cells]


REFUSED = {
    "no region": ({"source": "def double(x):\n    return 2 * x"}, "ex-7-1"),
    "outside a function": ({"source": "### BEGIN SOLUTION\ndef double(x): ...\n### END SOLUTION"}, "ex-7-1"),
    "without an end": ({"source": "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x"}, "ex-7-1"),
    "one id twice": ({"metadata": {"nbgrader": SOLUTION | {"grade_id": "check-7-1"}}}, "nbgrader refuses .*check-7-1"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_source_that_nbgrader_cannot_clear_is_refused(fault):
    notebook = tiny_lesson()
    changes, message = REFUSED[fault]
    notebook.cells[2].update(nbformat.from_dict(changes))
    with pytest.raises(ValueError, match=message):
        editions.student_edition(notebook)


def test_lessons_are_chosen_by_number_or_name_and_the_command_line_says_what_is_wrong(clone, capsys):
    assert editions.lessons(clone) == editions.lessons(clone, ["07"]) == editions.lessons(clone, [LESSON]) == [LESSON]
    assert main(["verify"], clone) == 0
    assert "lessons: 1, both editions: nothing wrong" in capsys.readouterr().out
    assert main(["build", "08"], clone) == 1
    assert capsys.readouterr().err == "build: there is no lesson '08'; there are: 07_tiny\n"
    (clone / "notebooks" / f"{LESSON}.ipynb").rename(clone / "notebooks" / "08_stray.ipynb")
    assert main(["verify"], clone) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "08_stray.ipynb: no source"
    assert last == "07_tiny: no student edition; make notebooks LESSONS=07"


# ---- verify: every fault that it knows is seen once ---------------------------------------------------------------


def shows(cell, **data):
    cell.outputs = [new_output("display_data", data)]


def complains(cell):
    cell.outputs = [new_output("stream", name="stderr", text="!")]


def fails(cell):
    cell.outputs = [new_output("error", ename="E", evalue="v")]


NOWHERE = page("notebooks/no")
FAULTS = {  # a change to the source's cells or to the notebook, and what is said of it
    "ran twice": (lambda c: c["bar"].update(execution_count=9), "not every code cell was run"),
    "not run": (lambda c: c["bar"].update(execution_count=None), "not every code cell was run"),
    "stderr": (lambda c: complains(c["bar"]), "bar: wrote to standard error"),
    "error": (lambda c: fails(c["bar"]), "bar: failed with E: v"),
    "widget": (lambda c: shows(c["bar"], **{editions.WIDGET: {"model_id": "1"}}), "widget without its state"),
    "home": (lambda c: shows(c["bar"], **{"text/plain": "Path('/home/ada/x.png')"}), "path of the machine"),
    "windows": (lambda c: shows(c["bar"], **{"text/plain": r"in C:\Users\ada"}), "path of the machine"),
    "widget state": (lambda c: c["notebook"].metadata.update(widgets={}), "metadata: 'widgets' left behind"),
    "timings": (lambda c: c["bar"].metadata.update(execution={}), "bar: metadata 'execution' left behind"),
    "kernel": (lambda c: c["notebook"].metadata.update(kernelspec={"name": "mine"}), "kernelspec is"),
    "format": (lambda c: c["notebook"].update(nbformat_minor=4), "format is 4.4"),
    "setup text": (lambda c: c["setup"].update(source="pass"), "setup: the text differs"),
    "setup place": (lambda c: c["notebook"].cells.insert(1, code("before", "pass")), "is not the setup cell"),
    "badge": (lambda c: c["title"].update(source=editions.badge("01_other")), "no badge of this lesson"),
    "id": (lambda c: c["bar"].update(id="0f0f0f0f"), "id '0f0f0f0f' is not readable"),
    "same id": (lambda c: c["bar"].update(id="slider"), "id 'slider' is used 2 times"),
    "no region": (lambda c: c["ex-7-1"].update(source="def double(x): ..."), "without a region"),
    "no check": (lambda c: c["check-7-1"].metadata.pop("nbgrader"), "is not its check"),
    "stray": (lambda c: c["bar"].update(source="### BEGIN SOLUTION"), "not marked as a solution"),
    "picture": (lambda c: c["hints-7-1"].update(source="![](../assets/a.png)"), "cannot work from every folder"),
    "html": (lambda c: c["hints-7-1"].update(source='<img src="assets/a.png">'), "cannot work from every folder"),
    "lesson": (lambda c: c["hints-7-1"].update(source="[next](08_none.ipynb)"), "08_none.ipynb, which does not"),
    "page": (lambda c: c["hints-7-1"].update(source=f"[s]({NOWHERE})"), "notebooks/no, which"),
    "size": (lambda c: shows(c["bar"], **{"image/png": "A" * 600_000}), "KiB, more than 500"),
}
DIFFERENCES = {  # the same in the student edition
    "source": (lambda c: c["bar"].update(source="pass"), "bar: source is not"),
    "metadata": (lambda c: c["bar"].metadata.update(tags=["x"]), "bar: metadata is not"),
    "id": (lambda c: c["bar"].update(id="line"), "ids or order"),
    "notebook": (lambda c: c["notebook"].metadata.update(accelerator="GPU"), "its metadata are not"),
    "order": (lambda c: c["notebook"].cells.reverse(), "ids or order"),
    "stub": (lambda c: c["ex-7-1"].update(source="def double(x):\n    return 2 * x"), "ex-7-1: source is not"),
    "markers": (lambda c: c["ex-7-1"].update(source="### END SOLUTION"), "ex-7-1: holds a solution"),
    "stderr": (lambda c: complains(c["bar"]), "standard error"),
}
BOTH = [("solutions", name) for name in FAULTS] + [("student", name) for name in DIFFERENCES]


@pytest.mark.parametrize(("edition", "name"), BOTH)
def test_a_fault_is_found(clone, edition, name):
    folder, table = ("notebooks", DIFFERENCES) if edition == "student" else ("notebooks/solutions", FAULTS)
    change, message = table[name]
    notebook, cells = get(clone, folder)
    change(cells)
    put(clone, folder, notebook)
    start = LESSON if edition == "student" else ("solutions/", f"{LESSON}.ipynb")
    found = [fault for fault in verify(clone) if fault.startswith(start)]
    assert any(message in fault for fault in found), found


def test_the_clone_s_own_folder_is_a_path_and_base64_and_addresses_are_none():
    html = '<img src="data:image/png;base64,/tmp/x"><a href="https://a.b/home/c">'
    harmless, own = (new_output("display_data", {"text/html": text}) for text in (html, "in /srv/ours/notebooks"))
    assert _output_faults(harmless, Path("/srv/ours")) == []
    assert _output_faults(own, Path("/srv/ours")) == ["shows a path of the machine it ran on: /srv/ours/notebooks"]
    assert _output_faults(own, Path("/srv/other")) == []


# ---- the setup cell -----------------------------------------------------------------------------------------------

PIP = """
import pathlib, sys
here = pathlib.Path(__file__).parent.parent
(here / "asked").write_text("\\n".join(sys.argv[sys.argv.index("install") + 1 :]))
if (here / "offline").exists():
    sys.exit((here / "offline").read_text())
(here / "ddpm_course").mkdir()
(here / "ddpm_course" / "__init__.py").write_text("")
"""


def run_setup(folder, site):
    """The setup cell, then an import, in a Python that has nothing installed but what lies in `site`."""
    script = editions.setup_cell() + "\nimport ddpm_course\nprint(ddpm_course.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-S", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def package(folder) -> Path:
    """An empty module of this name in a folder."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    return folder / "__init__.py"


@pytest.fixture
def colab(tmp_path):
    """Site-packages with Colab's torch and numpy, and a pip that notes what it was asked for; an empty folder."""
    site, content = tmp_path / "site", tmp_path / "content"
    content.mkdir()
    package(site / "pip").with_name("__main__.py").write_text(PIP)
    for name, version in (("torch", "2.9.0+cu126"), ("torchvision", "0.24.0+cu126"), ("numpy", "2.0.2"), ("x", "1")):
        package(site / name)
        metadata = site / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return site, content


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/solutions", "work", "installed"])
def test_setup_takes_the_clone_around_the_notebook_or_leaves_an_installed_package_alone(colab, tmp_path, folder):
    site, content = colab
    found = package((site if folder == "installed" else tmp_path / "clone") / "ddpm_course")
    if folder != "installed":
        content = tmp_path / "clone" / folder
        content.mkdir(parents=True)
    done = run_setup(content, site)
    assert (done.stdout.strip(), done.stderr) == (str(found), "")
    assert not (site / "asked").exists()


@pytest.mark.parametrize("beside_a_clone", [False, True])
def test_setup_installs_in_colab_and_holds_torch_and_numpy_fixed(colab, beside_a_clone):
    site, content = colab
    if beside_a_clone:  # a folder of that name is no package, though Python would import it
        (content / "ddpm_course" / "ddpm_course").mkdir(parents=True)
    done = run_setup(content, site)
    quiet, address, *kept = (site / "asked").read_text().split()
    assert (quiet, address) == ("--quiet", f"git+https://github.com/{REPOSITORY}@{REF}")
    assert sorted(kept) == ["numpy==2.0.2", "torch==2.9.0+cu126", "torchvision==0.24.0+cu126"]
    assert (done.stdout.strip(), done.stderr) == (str(site / "ddpm_course" / "__init__.py"), "")
    (site / "asked").unlink()
    again = run_setup(content, site)
    assert (again.stdout, again.stderr) == (done.stdout, "") and not (site / "asked").exists()


COMPLAINTS = {  # of pip, and what a student is told
    "network": (
        "  error: subprocess-exited-with-error\n\n      fatal: unable to access 'https://x/': Could not resolve host: x\n"
        "error: subprocess-exited-with-error\nnote: This error originates from a subprocess.",
        "Could not resolve host: x",
    ),
    "git": ("  ERROR: Error [Errno 2] No such file: 'git'\nERROR: Cannot find command 'git'", "find command 'git'"),
    "tag": ("  error: subprocess-exited-with-error\n      error: pathspec 'v7' did not match", "'v7' did"),
    "nothing": ("", "?"),
}


@pytest.mark.parametrize("reason", COMPLAINTS)
def test_setup_says_in_a_sentence_why_it_could_not_install(colab, reason):
    """The last line of the traceback; in a notebook it is all that is shown (tests/install/rehearse.py sees that)."""
    site, content = colab
    complaint, wanted = COMPLAINTS[reason]
    (site / "offline").write_text(complaint)
    done = run_setup(content, site)
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("RuntimeError: The course could not be installed (is there a network, and git?): ")
    assert done.stdout == "" and wanted in sentence
