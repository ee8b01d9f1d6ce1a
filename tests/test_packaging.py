"""Setting up: one list of dependencies, a wheel that holds the assets, a Makefile that repeats without reinstalling."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
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


def capture(*command, **options):
    """Run a command without what `make test` handed down to these tests: make's own variables and its command line's."""
    handed_down = ("MAKE", "MFLAGS", "TEST_ARGS", "LAB_ARGS", "LESSONS", "PYTHON", "VENV")
    options.setdefault("env", {key: value for key, value in os.environ.items() if not key.startswith(handed_down)})
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


# ---- dependencies -------------------------------------------------------------------------------------------------


def test_a_learner_installs_the_run_time_list_with_jupyterlab_and_nbval():
    learner, runtime = ranges(LEARNER), ranges(PROJECT["dependencies"])
    assert {name: learner.get(name) for name in runtime} == runtime
    assert learner.keys() - runtime.keys() == {"jupyterlab", "nbval"}
    assert LEARNER[-1] == "-e ."  # and the course itself
    python, pip, listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert (python, pip) == (f"python{PROJECT['requires-python']}", "pip")  # conda takes the same
    assert listed == {"pip": ["-r requirements.txt"]}


def test_ranges_agree_between_the_lists():
    extras = {name: ranges(lines) for name, lines in PROJECT["optional-dependencies"].items()}
    agreed: dict[str, str] = {}
    for listed in (ranges(LEARNER), *extras.values()):
        for name, versions in listed.items():
            assert agreed.setdefault(name, versions) == versions, name
    assert {"nbgrader", "diffusers"} <= extras["test"].keys() - ranges(LEARNER).keys()


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


@pytest.mark.parametrize("module", ["ddpm_course", "ddpm_course.lab", "ddpm_course.classroom.__main__"])
def test_importing_the_package_alone_is_quick(module):
    heavy = "torch", "datasets", "matplotlib", "nbgrader", "nbformat"
    script = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    assert capture(sys.executable, "-c", script).stdout.strip() == "[]"


# ---- the wheel, and commands of before ------------------------------------------------------------------------------


def test_the_wheel_holds_package_and_assets_and_no_classroom(tmp_path):
    done = capture(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"ddpm_course-{__version__}-py3")
    files = [path for top in ("ddpm_course", "assets") for path in (ROOT / top).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    wanted = {f"ddpm_course/{path}" if path.startswith("assets") else path for path in wanted}
    for_the_clone = ("ddpm_course/classroom/", "ddpm_course/editions.py", "ddpm_course/kernels.py")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {path for path in wanted if not path.startswith(for_the_clone)}
    assert {"ddpm_course/lab.py", "ddpm_course/assets/classifier.safetensors"} <= held


def test_an_editable_install_reads_the_clone():
    script = "import ddpm_course; print(ddpm_course.__file__)"
    assert Path(capture(sys.executable, "-c", script, cwd=ROOT.parent).stdout.strip()).parent == ROOT / "ddpm_course"


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


def test_a_grading_folder_of_before_finds_its_kernel_manager():
    assert kernels.PatientKernelManager is PatientKernelManager


# ---- make ---------------------------------------------------------------------------------------------------------

FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
case "$2" in *version_info\\[*) echo "{version}";; *version_info\\ \\<*) exit {refused};; esac
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def fresh(tmp_path):
    """A clone with nothing set up, and a Python that only notes how it was called."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)

    def make(*arguments, version="3.12.1", refused=0):
        python = tmp_path / "fake-python"
        python.write_text(FAKE_PYTHON.format(log=tmp_path / "log", version=version, refused=refused))
        python.chmod(0o755)
        (tmp_path / "log").write_text("")
        done = capture("make", *arguments, f"PYTHON={python}", cwd=clone)
        return done, [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("-c")]

    return clone, make


@needs_make
def test_make_lab_sets_up_once_copies_and_opens(fresh):
    clone, make = fresh
    opened = "-m ddpm_course.lab work/00_start_here.ipynb --no-browser"
    done, calls = make("lab", "LAB_ARGS=--no-browser")
    assert done.returncode == 0, done.stderr
    copied = "-m ddpm_course.lab copy work"
    assert calls == ["-m venv .venv", "-m pip install -r requirements.txt", copied, opened]
    assert make("lab", "LAB_ARGS=--no-browser")[1] == [copied, opened]
    os.utime(clone / "requirements.txt", (2e9, 2e9))
    assert make("lab", "LAB_ARGS=--no-browser")[1] == ["-m pip install -r requirements.txt", copied, opened]


@needs_make
def test_make_test_sets_up_once_and_serves_lab_too(fresh):
    _, make = fresh
    install = "-m pip install -e .[test] -r requirements.txt"
    pytest_runs = "-m pytest -n auto --maxprocesses 4 --dist worksteal"
    assert make("test")[1] == ["-m venv .venv", install, pytest_runs]
    assert make("test", "TEST_ARGS=-x")[1] == [f"{pytest_runs} -x"]
    assert make("notebooks", "LESSONS=00 02")[1] == ["-m ddpm_course.classroom build 00 02"]
    assert not any("pip" in call for call in make("lab")[1])


@needs_make
def test_make_says_which_python_it_needs(fresh):
    clone, make = fresh
    done, calls = make("lab", version="3.10.4", refused=1)
    assert done.returncode != 0 and calls == []
    assert "needs Python 3.11, 3.12 or 3.13" in done.stdout and "is: 3.10.4" in done.stdout
    assert "make lab PYTHON=" in done.stdout and not (clone / ".venv").exists()


# ---- .ci/run ------------------------------------------------------------------------------------------------------

PARTS = [
    "tests ran in clone, as it is: ",
    "tests ran in clone, as default: tests/test_checks_*.py",
    "browser ran: 00 03, 1, true",
]
INSTALL = ["apt-get: -q update, noninteractive"]
INSTALL += ["apt-get: -q install -y --no-install-recommends chromium, noninteractive"]
CI = {  # tools on the path, how the three parts end, what is printed; all parts run, whatever becomes of those before
    "all well": (["chromium"], (0, 0, 0), PARTS),
    "tests fail": (["chromium"], (3, 0, 0), [*PARTS, "make test: FAILED"]),
    "on an old processor": (["chromium"], (0, 3, 0), [*PARTS, "the checks on an old processor: FAILED"]),
    "in the browser": (["chromium"], (0, 0, 3), [*PARTS, "in the browser: FAILED"]),
    "Chromium is installed": (["apt-get"], (0, 0, 0), [*INSTALL, *PARTS]),
    "no browser": ([], (0, 0, 1), [*PARTS[:2], "NOT RUN"]),
}


@needs_make
@pytest.mark.parametrize("case", CI)
def test_ci_runs_every_part_and_passes_a_failure_on(tmp_path, case):
    """Called from elsewhere, without a terminal, beside a Makefile that says what was asked of it."""
    tools, ends, printed = CI[case]
    if "apt-get" in tools and os.geteuid() != 0:
        pytest.skip("installs as root")
    shutil.copytree(ROOT / ".ci", tmp_path / "clone" / ".ci")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    tests = "@echo tests ran in $(notdir $(CURDIR)), as $${ATEN_CPU_CAPABILITY:-it is}: '$(TEST_ARGS)'"
    browser = "@echo browser ran: $(LESSONS), $$DDPM_COURSE_FAST, $$CI"
    recipes = (
        f"test:\n\t{tests}; exit $(if $(TEST_ARGS),{ends[1]},{ends[0]})\ntest-browser:\n\t{browser}; exit {ends[2]}\n"
    )
    (tmp_path / "clone" / "Makefile").write_text(recipes)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "sh", "dirname", "make", "timeout", "id", "env", "cp", "chmod"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    installs = f'[ $2 != install ] || {{ cp "$0" {folder}/chromium; }}'
    for name in tools:
        (folder / name).write_text(f'#!/bin/sh\necho "{name}: $*, $DEBIAN_FRONTEND"\n{installs}\n')
        (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "HOME": str(tmp_path)}
    script = tmp_path / "clone" / ".ci" / "run"
    done = capture("bash", script, cwd=tmp_path, stdin=subprocess.DEVNULL, env=environment)
    assert [line for line in printed if line not in done.stdout] == []
    assert ("apt-get:" in done.stdout) == ("apt-get" in tools)
    assert (done.returncode == 0) == (ends == (0, 0, 0))


# ---- texts --------------------------------------------------------------------------------------------------------


def test_the_readme_names_commands_that_exist_and_every_lesson():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"lab", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", readme)) <= targets
    assert [lesson for lesson in lessons() if badge(lesson) not in readme] == []
    for path in re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "layout"])
def test_code_and_notebooks_are_tidy(command):
    done = capture(sys.executable, "-m", "ruff", *command, "--no-cache", ".", cwd=ROOT)
    assert done.returncode == 0, f"make format may mend this:\n{done.stdout[-6000:]}"
