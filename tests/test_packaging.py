"""Setting up: one list of dependencies, a wheel that holds the assets, a Makefile that repeats without reinstalling."""

import ast
import os
import re
import shutil
import sys
import tomllib
import zipfile

import pytest
import yaml
from courses import python, run, save
from packaging.requirements import Requirement

from ddpm_course import __version__, editions, kernels
from ddpm_course.classroom.editions import ROOT, badge, lessons
from ddpm_course.classroom.kernels import PatientKernelManager

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LEARNER = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
IMPORTED_AS = {"pillow": "PIL", "ipython": "IPython"}
TOOLS = {"nbgrader", "nbclient", "jupyter_client", "nbformat"}  # the classroom's, imported where they are used
needs_make = pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="make is not here")


def ranges(lines) -> dict[str, str]:
    """Name to range, from lines as pip reads them."""
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return {requirement.name.lower(): str(requirement.specifier) for requirement in found}


def test_a_learner_installs_the_run_time_list_with_jupyterlab_and_nbval_and_all_lists_agree():
    learner, runtime = ranges(LEARNER), ranges(PROJECT["dependencies"])
    assert {name: learner.get(name) for name in runtime} == runtime
    assert learner.keys() - runtime.keys() == {"jupyterlab", "nbval"}
    assert LEARNER[-1] == "-e ."  # and the course itself
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert listed == [f"python{PROJECT['requires-python']}", "pip", {"pip": ["-r requirements.txt"]}]  # conda too
    agreed = dict(learner)
    for lines in PROJECT["optional-dependencies"].values():
        for name, versions in ranges(lines).items():
            assert agreed.setdefault(name, versions) == versions, name
    assert {"nbgrader", "diffusers"} <= agreed.keys() - learner.keys()


def test_every_import_of_the_package_is_declared():
    declared = {IMPORTED_AS.get(name, name) for name in ranges(PROJECT["dependencies"])}
    declared |= set(sys.stdlib_module_names) | {"ddpm_course", "my_ddpm"}
    for path in (ROOT / "ddpm_course").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            allowed = declared | TOOLS if "classroom" in path.parts else declared
            others = {name.split(".")[0] for name in names} - allowed
            assert not others, f"{path.name}, line {node.lineno}: {others}"


LIGHT = {  # modules, and what they do not wait for
    "lab, ddpm_course.classroom.__main__": {"torch", "datasets", "matplotlib", "nbgrader", "nbformat"},
    "checks, ddpm_course.training, ddpm_course.metrics": {"datasets", "torchvision", "IPython", "matplotlib"},
}


@pytest.mark.parametrize("modules", LIGHT)
def test_importing_is_quick_and_an_editable_install_reads_the_clone(modules):
    script = f"import ddpm_course.{modules}, sys; print({LIGHT[modules]} & sys.modules.keys(), ddpm_course.__file__)"
    assert python("-c", script, cwd=ROOT.parent) == f"set() {ROOT / 'ddpm_course' / '__init__.py'}\n"


def test_the_wheel_holds_package_and_assets_and_no_classroom(tmp_path):
    python("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    [wheel] = tmp_path.glob(f"ddpm_course-{__version__}-py3*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for top in ("ddpm_course", "assets") for path in (ROOT / top).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    wanted = {f"ddpm_course/{path}" if path.startswith("assets") else path for path in wanted}
    for_the_clone = ("ddpm_course/classroom/", "ddpm_course/editions.py", "ddpm_course/kernels.py")
    assert held == {path for path in wanted if not path.startswith(for_the_clone)}
    assert {"ddpm_course/lab.py", "ddpm_course/assets/classifier.safetensors"} <= held


OLD = {  # a command of before: where it is now, how it ends, and what shows that it does the work
    "copy {out}": ("lab", 0, f"lessons copied now: {len(lessons())}"),
    "build 99": ("classroom", 1, "build: there is no lesson '99'"),
    "verify": ("classroom", 0, "both editions: nothing wrong"),
    "release {out} --lessons 01 --nbgrader": ("classroom", 0, "an nbgrader course"),
    "report {out}": ("classroom", 1, "report: there is no folder"),
    "publish octo": ("classroom", 1, "publish: 'octo' is not of the form OWNER/NAME"),
}


@pytest.mark.parametrize("command", OLD)
def test_a_command_of_before_names_the_new_one_and_does_the_work(tmp_path, capsys, command):
    module, code, result = OLD[command]
    arguments = command.format(out=tmp_path / "out").split()
    assert editions.main(arguments) == code
    told = capsys.readouterr()
    assert told.err.splitlines()[0] == f"This command is now: python -m ddpm_course.{module} {' '.join(arguments)}"
    assert result in (told.err.splitlines()[1] if code else told.out) and told.err.count("\n") == 1 + code
    assert kernels.PatientKernelManager is PatientKernelManager  # a grading folder of before names it


FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
case "$2" in *version_info\\[*) echo "{version}";; *version_info\\ \\<*) exit {refused};; esac
case "$2 $3" in "pip install") exit {pip};; esac
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def make(tmp_path):
    """Runs make in a clone with nothing set up, by a Python that only notes how it was called."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        save(tmp_path / "clone" / name, (ROOT / name).read_bytes())

    def make(*arguments, version="3.12.1", refused=0, pip=0):
        log = save(tmp_path / "log", "")
        python = save(tmp_path / "python", FAKE_PYTHON.format(log=log, version=version, refused=refused, pip=pip))
        python.chmod(0o755)
        done = run("make", *arguments, f"PYTHON={python}", cwd=tmp_path / "clone")
        return done, [line for line in log.read_text().splitlines() if not line.startswith("-c")]

    return make


@needs_make
def test_make_sets_up_once_copies_opens_and_tests(make, tmp_path):
    opens = ["-m ddpm_course.lab copy work", "-m ddpm_course.lab work/00_start_here.ipynb --no-browser"]
    tests, install = "-m pytest -n auto --maxprocesses 4 --dist worksteal", "-m pip install -r requirements.txt"
    install_all = "-m pip install -e .[test] -r requirements.txt"
    assert make("lab", "LAB_ARGS=--no-browser")[1] == ["-m venv .venv", install, *opens]
    assert make("lab", "LAB_ARGS=--no-browser")[1] == opens
    save(tmp_path / "clone" / "requirements.txt", "torch")
    assert make("lab", "LAB_ARGS=--no-browser")[1] == [install, *opens]
    assert make("test")[1] == [install_all, tests]
    assert make("test", "TEST_ARGS=-x")[1] == [f"{tests} -x"]
    assert make("notebooks", "LESSONS=00 02")[1] == ["-m ddpm_course.classroom build 00 02"]
    shutil.rmtree(tmp_path / "clone" / ".venv")
    assert make("test")[1] == ["-m venv .venv", install_all, tests]
    assert make("lab", "LAB_ARGS=--no-browser")[1] == opens  # which the tests' installation serves too
    shutil.rmtree(tmp_path / "clone" / ".venv")
    done, calls = make("lab", version="3.10.4", refused=1)
    assert done.returncode != 0 and calls == [] and not (tmp_path / "clone" / ".venv").exists()
    assert re.search(r"needs Python 3.11 or newer.* is: 3.10.4\n.*make lab PYTHON=", done.stdout)
    done, calls = make("test", version="3.15.0", pip=1)
    assert done.returncode != 0 and calls == ["-m venv .venv", install_all]
    assert re.search(r"PyTorch is built for Python 3.11 to 3.14, and this is 3.15.0.*make test PYTHON=", done.stdout)
    assert PROJECT["requires-python"] == ">=3.11"  # whatever comes: PyTorch decides


PARTS = ["test", "test TEST_ARGS=tests/test_answers.py -k gets_its_verdict", "test-browser LESSONS=00 03"]
TOOL = """#!/bin/sh
echo "{tool}: $*, as ${{ATEN_CPU_CAPABILITY:-it is}}, $CI $DDPM_COURSE_FAST"
[ "$*" != "{fails}" ]
"""


@pytest.mark.skipif(os.name == "nt", reason="CI's script is for a POSIX shell")
@pytest.mark.parametrize("fails", ["none", *PARTS])
def test_ci_runs_every_part_and_passes_a_failure_on(tmp_path, fails):
    """Called from elsewhere, beside tools that say what was asked of them."""
    script = save(tmp_path / "clone" / ".ci" / "run", (ROOT / ".ci" / "run").read_bytes())
    for tool in ("make", "chromium"):
        save(tmp_path / tool, TOOL.format(tool=tool, fails=fails)).chmod(0o755)
    done = run("bash", script, cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    told = [f"make: {part}, as {how}" for part, how in zip(PARTS, ("it is", "default", "it is, true 1"), strict=True)]
    assert [line for line in told if line not in done.stdout] == []
    assert (done.returncode == 0) == (fails == "none") == ("FAILED" not in done.stdout)


def test_the_readme_names_commands_that_exist_and_every_lesson():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"lab", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", readme)) <= targets
    rows = dict(re.findall(r"^\| (\d\d) (.+)$", readme, flags=re.MULTILINE))
    written = {name[:2]: badge(name) for name in lessons()}
    assert list(rows) == [f"{number:02}" for number in range(14)]
    for number, row in rows.items():
        assert written[number] in row if number in written else "| planned |" in row, row


@pytest.mark.parametrize("page", ["README.md", "assets/README.md", "tests/benchmarks/README.md"])
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    for path, heading in links:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        headings = re.findall(r"^##+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE) if heading else []
        assert not heading or heading in [title.lower().replace(" ", "-") for title in headings], heading


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "layout"])
def test_code_and_notebooks_are_tidy(command):
    python("-m", "ruff", *command, "--no-cache", ".")  # make format may mend what it says
