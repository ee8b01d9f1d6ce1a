"""The tool that builds the editions, on a lesson of a few cells made here."""

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

from ddpm_course import REF, REPOSITORY, editions, verification
from ddpm_course.kernels import PatientKernelManager

LESSON = "07_tiny"
SOLUTION = {"grade": False, "grade_id": "ex-7-1", "locked": False, "schema_version": 3, "solution": True, "task": False}
CHECK = SOLUTION | {"grade": True, "grade_id": "check-7-1", "locked": True, "solution": False, "points": 1}


def code(name, source, **metadata):
    return new_code_cell(source, id=name, metadata=metadata)


def tiny_lesson():
    """Everything a lesson has: badge, setup, an exercise and its check, a progress bar, a slider."""
    link = editions.page(f"notebooks/solutions/{LESSON}.ipynb")
    return new_notebook(
        cells=[
            new_markdown_cell(f"# Tiny\n\n{editions.badge(LESSON)}", id="title"),
            code("setup", editions.setup_cell(), tags=["setup"]),
            code(
                "ex-7-1",
                'def double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION',
                nbgrader=dict(SOLUTION),
            ),
            code(
                "check-7-1",
                "try:\n    print('solved' if double(2) == 4 else 'wrong')\n"
                "except NotImplementedError:\n    print('not attempted')",
                nbgrader=dict(CHECK),
            ),
            new_markdown_cell(f"<details>\n\n[solution]({link})\n\n</details>", id="hints-7-1"),
            code(
                "bar",
                "import sys\n\nfrom tqdm import tqdm\n\n"
                "for _ in tqdm(range(5), file=sys.stdout, mininterval=0):\n    pass",
                scrolled=True,
            ),
            code("slider", "import ipywidgets\n\nipywidgets.IntSlider()"),
            code("environment", "import os\n\nprint({k: v for k, v in os.environ.items() if k.startswith('DDPM_')})"),
        ],
        metadata={"kernelspec": editions.KERNEL, "widgets": {}, "toc": {}},
    )


def put(notebook, root, folder="notebooks/solutions"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, root / folder / f"{LESSON}.ipynb")


def get(root, folder="notebooks/solutions"):
    notebook = nbformat.read(root / folder / f"{LESSON}.ipynb", as_version=4)
    return notebook, {cell.id: cell for cell in notebook.cells}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A clone with the tiny lesson, both editions built; tests that change it take a copy."""
    root = tmp_path_factory.mktemp("clone")
    put(tiny_lesson(), root)
    editions.build(root=root)
    return root


@pytest.fixture
def clone(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "clone"))


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_student_edition_has_stubs_and_outputs_of_its_own(built):
    source, cells = get(built)
    student, stubs = get(built, "notebooks")
    assert stubs["ex-7-1"].source == f'def double(x):\n    """Twice x."""\n    {editions.STUB}'
    assert printed(cells["check-7-1"]) == "solved\n"
    assert printed(stubs["check-7-1"]) == "not attempted\n"
    assert [c.source for c in source.cells if c.id != "ex-7-1"] == [c.source for c in student.cells if c.id != "ex-7-1"]
    assert verification.verify(built) == []
    assert not any(cell.outputs for cell in editions.student_edition(source).cells if cell.cell_type == "code")


@pytest.mark.parametrize("folder", ["notebooks/solutions", "notebooks"])
def test_saved_notebooks_hold_no_timings_no_widgets_and_one_line_a_bar(built, folder):
    notebook, cells = get(built, folder)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    assert all(set(cell.metadata) <= {"tags", "nbgrader", "slideshow"} for cell in notebook.cells if cell.id != "setup")
    assert cells["setup"].metadata["cellView"] == "form"  # Colab folds it to its first line
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5, 6]
    bar = printed(cells["bar"])
    assert bar.count("\n") == 1 and "\r" not in bar and bar.startswith("100%")
    assert list(cells["slider"].outputs[0].data) == ["text/plain"]
    assert cells["setup"].outputs == []


def test_the_student_s_budget_is_run_and_nothing_is_saved(built, monkeypatch, tmp_path):
    assert printed(get(built)[1]["environment"]) == "{'DDPM_COURSE_SAVE': '0'}\n"
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    monkeypatch.setenv("DDPM_COURSE_SAVE", "1")
    cell = code("environment", tiny_lesson().cells[-1].source + "\nprint('NBGRADER_EXECUTION' in os.environ)")
    notebook = new_notebook(cells=[cell], metadata={"kernelspec": editions.KERNEL})
    assert printed(editions.run(notebook, tmp_path).cells[0]) == "{'DDPM_COURSE_SAVE': '0'}\nFalse\n"
    notebook = editions.run(notebook, tmp_path, fast=True, DDPM_COURSE_SAVE="1")
    assert "'DDPM_COURSE_FAST': '1'" in printed(notebook.cells[0])
    assert "'DDPM_COURSE_SAVE': '1'" in printed(notebook.cells[0])


def test_a_cell_that_takes_too_long_is_named(tmp_path, monkeypatch):
    client = nbclient.NotebookClient
    monkeypatch.setattr(nbclient, "NotebookClient", lambda notebook, **how: client(notebook, **how | {"timeout": 5}))
    with pytest.raises(RuntimeError, match="stuck: .*tim"):
        editions.run(new_notebook(cells=[code("never", "import time\ntime.sleep(60)")]), tmp_path, name="stuck")


def test_a_lesson_is_run_by_a_client_that_misses_no_reply(tmp_path, monkeypatch):
    used, client = [], nbclient.NotebookClient
    monkeypatch.setattr(nbclient, "NotebookClient", lambda nb, **how: used.append(client(nb, **how)) or used[0])
    editions.run(new_notebook(cells=[code("one", "1")]), tmp_path)
    assert used[0].kernel_manager_class is PatientKernelManager


def test_a_kernel_is_this_python_in_the_notebook_s_folder(tmp_path):
    cell = code("where", "import os, sys\nprint(sys.executable)\nprint(os.getcwd())")
    notebook = editions.run(new_notebook(cells=[cell]), tmp_path)
    assert printed(notebook.cells[0]).split() == [sys.executable, str(tmp_path)]


def test_lines_that_were_written_over():
    assert editions.as_shown("  0%|  |\r 50%|# |\r100%|##|\n") == "100%|##|\n"
    assert editions.as_shown("10%\r20%\r     \r") == ""  # tqdm(leave=False) wipes its line
    assert editions.as_shown("a line\n") == "a line\n"
    assert editions.as_shown("windows\r\n") == "windows\n"


def test_ids_drawn_by_an_editor_become_readable_once():
    notebook = tiny_lesson()
    for cell, name in zip(
        notebook.cells, ["3f2a9c01", "setup", "7b1c2d3e-0000-4000-8000-0123456789ab", "aZ3_kQ9x-1bC"], strict=False
    ):
        cell.id = name
    notebook.cells[5].id = notebook.cells[6].id
    editions.refresh(notebook)
    names = [cell.id for cell in notebook.cells]
    assert names == ["text-1", "setup", "code-1", "code-2", "hints-7-1", "code-3", "slider", "environment"]
    notebook.cells.insert(0, new_markdown_cell("new"))
    editions.refresh(notebook)
    assert [cell.id for cell in notebook.cells] == ["text-2", *names]


def test_building_brings_shared_texts_up_to_date():
    notebook = tiny_lesson()
    notebook.cells[0].source = notebook.cells[0].source.replace(REPOSITORY, "somebody/else")
    notebook.cells[1].source = "import ddpm_course"
    notebook.cells[4].source = notebook.cells[4].source.replace(REPOSITORY, "somebody/else")
    editions.refresh(notebook)
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in tiny_lesson().cells]


def test_a_cell_that_fails_is_named_and_nothing_is_written(clone):
    notebook, cells = get(clone)
    cells["bar"].source, cells["bar"].id = "1 / 0", "0f0f0f0f"
    put(notebook, clone)
    before = {path: path.read_bytes() for path in clone.rglob("*.ipynb")}
    with pytest.raises(RuntimeError, match=r"07_tiny[\s\S]*1 / 0[\s\S]*ZeroDivisionError"):
        editions.build(root=clone)
    assert before == {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "source",
    [
        "def double(x):\n    return 2 * x",
        "### BEGIN SOLUTION\ndef double(x):\n    return 2 * x\n### END SOLUTION",
        "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x",
    ],
    ids=["no region", "region outside a function", "region without an end"],
)
def test_a_solution_without_a_region_is_refused(source):
    notebook = tiny_lesson()
    notebook.cells[2].source = source
    with pytest.raises(ValueError, match="ex-7-1"):
        editions.student_edition(notebook)


def test_metadata_that_nbgrader_cannot_grade_are_refused():
    notebook = tiny_lesson()
    notebook.cells[3].metadata["nbgrader"]["grade_id"] = "ex-7-1"
    with pytest.raises(ValueError, match="nbgrader refuses the cells' metadata: .*ex-7-1"):
        editions.student_edition(notebook)


def test_figures_are_shown_whatever_the_tests_use(tmp_path):
    source = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()"
    notebook = editions.run(new_notebook(cells=[code("figure", source)]), tmp_path)
    assert ["image/png" in output.get("data", {}) for output in notebook.cells[0].outputs] == [True]


def test_lessons_are_chosen_by_number_or_name(built):
    assert editions.lessons(built) == editions.lessons(built, ["07"]) == editions.lessons(built, [LESSON]) == [LESSON]
    with pytest.raises(ValueError, match="no lesson '08'; there are: 07_tiny"):
        editions.build(["08"], root=built)


# ---- verify: every fault that it knows is seen once ---------------------------------------------------------------


def _set(cell, **values):
    cell.update(values)


def _output(cell, **data):
    cell.outputs = [new_output("display_data", data)]


FAULTS = {  # a change to the source's cells or notebook, and what is said of it
    "ran twice": (lambda nb, c: _set(c["bar"], execution_count=9), "not every code cell was run"),
    "not run": (lambda nb, c: _set(c["bar"], execution_count=None), "not every code cell was run"),
    "stderr": (lambda nb, c: _set(c["bar"], outputs=[new_output("stream", name="stderr", text="!")]), "standard error"),
    "error": (lambda nb, c: _set(c["bar"], outputs=[new_output("error", ename="E", evalue="v")]), "failed with E: v"),
    "widget": (lambda nb, c: _output(c["bar"], **{editions.WIDGET: {"model_id": "1"}}), "widget without its state"),
    "home": (lambda nb, c: _output(c["bar"], **{"text/plain": "Path('/home/ada/x.png')"}), "path of the machine"),
    "windows": (lambda nb, c: _output(c["bar"], **{"text/plain": r"in C:\Users\ada"}), "path of the machine"),
    "clone": (lambda nb, c: _set(c["bar"], source="import os\n\nos.getcwd()"), "path of the machine"),
    "widget state": (lambda nb, c: nb.metadata.update(widgets={}), "metadata: 'widgets' left behind"),
    "timings": (lambda nb, c: c["bar"].metadata.update(execution={}), "bar: metadata 'execution' left behind"),
    "kernel": (lambda nb, c: nb.metadata.update(kernelspec={"name": "mine"}), "kernelspec is"),
    "format": (lambda nb, c: nb.update(nbformat_minor=4), "format is 4.4"),
    "setup text": (lambda nb, c: _set(c["setup"], source="pass"), "setup: the text differs"),
    "setup place": (lambda nb, c: nb.cells.insert(1, code("before", "pass")), "is not the setup cell"),
    "badge": (lambda nb, c: _set(c["title"], source=editions.badge("01_other")), "no badge of this lesson"),
    "id": (lambda nb, c: _set(c["bar"], id="0f0f0f0f"), "id '0f0f0f0f' is not readable"),
    "same id": (lambda nb, c: _set(c["bar"], id="slider"), "id 'slider' is used 2 times"),
    "no region": (lambda nb, c: _set(c["ex-7-1"], source="def double(x): ..."), "without a region"),
    "no check": (lambda nb, c: c["check-7-1"].metadata.pop("nbgrader"), "is not its check"),
    "stray": (lambda nb, c: _set(c["bar"], source="### BEGIN SOLUTION"), "not marked as a solution"),
    "picture": (lambda nb, c: _set(c["hints-7-1"], source="![](../assets/a.png)"), "cannot work from every folder"),
    "html": (lambda nb, c: _set(c["hints-7-1"], source='<img src="assets/a.png">'), "cannot work from every folder"),
    "lesson": (lambda nb, c: _set(c["hints-7-1"], source="[next](08_none.ipynb)"), "08_none.ipynb, which does not"),
    "page": (lambda nb, c: _set(c["hints-7-1"], source=f"[s]({editions.page('notebooks/no')})"), "notebooks/no, which"),
    "size": (lambda nb, c: _output(c["bar"], **{"image/png": "A" * 600_000}), "KiB, more than 500"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_a_source_are_found(clone, name):
    notebook, cells = get(clone)
    change, message = FAULTS[name]
    change(notebook, cells)
    if name == "clone":
        editions.run(notebook, clone / "notebooks" / "solutions")
    # as an editor would save it: nbformat's own writer refuses or repairs some of these
    path = clone / "notebooks" / "solutions" / f"{LESSON}.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    found = [fault for fault in verification.verify(clone) if fault.startswith(("solutions/", LESSON + ".ipynb"))]
    assert any(message in fault for fault in found), found


DIFFERENCES = {
    "source": (lambda nb, c: _set(c["bar"], source="pass"), "bar: source is not"),
    "metadata": (lambda nb, c: c["bar"].metadata.update(tags=["x"]), "bar: metadata is not"),
    "id": (lambda nb, c: _set(c["bar"], id="line"), "ids or order"),
    "notebook": (lambda nb, c: nb.metadata.update(accelerator="GPU"), "its metadata are not"),
    "order": (lambda nb, c: nb.cells.reverse(), "ids or order"),
    "stub": (lambda nb, c: _set(c["ex-7-1"], source="def double(x):\n    return 2 * x"), "ex-7-1: source is not"),
    "markers": (lambda nb, c: _set(c["ex-7-1"], source="### END SOLUTION"), "ex-7-1: holds a solution"),
    "stderr": (lambda nb, c: _set(c["bar"], outputs=[new_output("stream", name="stderr", text="!")]), "standard error"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_faults_of_a_student_edition_are_found(clone, name):
    notebook, cells = get(clone, "notebooks")
    change, message = DIFFERENCES[name]
    change(notebook, cells)
    put(notebook, clone, "notebooks")
    found = verification.verify(clone)
    assert found and all(fault.startswith(LESSON) for fault in found)
    assert any(message in fault for fault in found), found


def test_missing_and_extra_editions_are_found(clone):
    (clone / "notebooks" / f"{LESSON}.ipynb").rename(clone / "notebooks" / "08_stray.ipynb")
    found = verification.verify(clone)
    assert found[0] == "08_stray.ipynb: no source"
    assert found[-1] == "07_tiny: no student edition; make notebooks LESSONS=07"


def test_base64_and_addresses_are_no_paths(clone):
    notebook, cells = get(clone)
    _output(cells["bar"], **{"text/html": '<img src="data:image/png;base64,/tmp/x"><a href="https://a.b/home/c">'})
    put(notebook, clone)
    assert verification.verify(clone) == []


# ---- copy ---------------------------------------------------------------------------------------------------------


def test_copy_never_touches_what_is_there(clone):
    work = clone / "work"
    assert editions.copy(work, clone) == [work / f"{LESSON}.ipynb"]
    (work / f"{LESSON}.ipynb").write_text("my answers")
    assert editions.copy(work, clone) == []
    assert (work / f"{LESSON}.ipynb").read_text() == "my answers"
    assert [path.name for path in work.iterdir()] == [f"{LESSON}.ipynb"]


def test_links_to_solutions_open_offline_from_a_copy_in_the_clone(clone, tmp_path):
    editions.copy(clone / "work", clone)
    text = get(clone, "work")[1]["hints-7-1"].source
    link = text.split("](")[1].split(")")[0]
    assert link == f"../notebooks/solutions/{LESSON}.ipynb" and (clone / "work" / link).exists()
    assert get(clone, "work")[1]["title"].source == tiny_lesson().cells[0].source  # the badge still leads to Colab
    editions.copy(tmp_path / "elsewhere", clone)
    assert (
        editions.page(f"notebooks/solutions/{LESSON}.ipynb") in (tmp_path / "elsewhere" / f"{LESSON}.ipynb").read_text()
    )


def test_copy_without_notebooks_says_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"github.com/{REPOSITORY}/blob/{REF}/notebooks"):
        editions.copy(tmp_path / "work", tmp_path)


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
    return subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def colab(tmp_path):
    """Site-packages with Colab's torch and numpy, and a pip that notes what it was asked for; an empty folder."""
    site, content = tmp_path / "site", tmp_path / "content"
    content.mkdir()
    (site / "pip").mkdir(parents=True)
    (site / "pip" / "__init__.py").touch()
    (site / "pip" / "__main__.py").write_text(PIP)
    for name, version in (("torch", "2.9.0+cu126"), ("torchvision", "0.24.0+cu126"), ("numpy", "2.0.2"), ("x", "1")):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (site / name).mkdir()
        (site / name / "__init__.py").touch()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return site, content


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/solutions", "work"])
def test_setup_finds_the_clone_around_the_notebook(colab, tmp_path, folder):
    site, _ = colab
    (tmp_path / "clone" / folder).mkdir(parents=True)
    (tmp_path / "clone" / "ddpm_course").mkdir()
    (tmp_path / "clone" / "ddpm_course" / "__init__.py").write_text("")
    done = run_setup(tmp_path / "clone" / folder, site)
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path / "clone" / "ddpm_course" / "__init__.py"), "")
    assert not (site / "asked").exists()


def test_setup_leaves_an_installed_package_alone(colab):
    site, content = colab
    (site / "ddpm_course").mkdir()
    (site / "ddpm_course" / "__init__.py").write_text("")
    done = run_setup(content, site)
    assert (done.stdout.strip(), done.stderr) == (str(site / "ddpm_course" / "__init__.py"), "")
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


SAID = {  # by pip, without a network, without git, without the tag, and nothing
    "  error: subprocess-exited-with-error\n\n      fatal: unable to access 'https://x/': Could not resolve host: x\n"
    "error: subprocess-exited-with-error\nnote: This error originates from a subprocess.": "Could not resolve host: x",
    "  ERROR: Error [Errno 2] No such file or directory: 'git'\nERROR: Cannot find command 'git'": "find command 'git'",
    "WARNING: Did not find tag\n  error: subprocess-exited-with-error\n      error: pathspec 'v7' did not match": "'v7' did",
    "": "?",
}


@pytest.mark.parametrize("said", SAID, ids=["network", "git", "tag", "nothing"])
def test_setup_says_in_a_sentence_why_it_could_not_install(colab, said):
    """The last line of the traceback; in a notebook it is all that is shown (tests/install/rehearse.py sees that)."""
    site, content = colab
    (site / "offline").write_text(said)
    done = run_setup(content, site)
    assert done.stdout == ""
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("RuntimeError: The course could not be installed (is there a network, and git?): ")
    assert SAID[said] in sentence


# ---- the command line ---------------------------------------------------------------------------------------------


def test_the_command_line_copies_verifies_and_reports(clone, capsys):
    assert editions.main(["copy", str(clone / "work")], clone) == 0
    assert "lessons copied now: 1" in capsys.readouterr().out
    assert editions.main(["verify"], clone) == 0
    assert "lessons: 1, both editions: nothing wrong" in capsys.readouterr().out
    (clone / "notebooks" / f"{LESSON}.ipynb").unlink()
    assert editions.main(["verify"], clone) == 1
    assert editions.main(["build", "99"], clone) == 1
    assert "no lesson '99'" in capsys.readouterr().err
