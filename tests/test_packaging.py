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

from ddpm_course import __version__
from ddpm_course.editions import ROOT, badge, lessons

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {"pillow": "PIL", "ipython": "IPython"}
TOOLS = {"nbgrader", "nbclient", "jupyter_client", "nbformat"}  # to build the editions; imported where they are used
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
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    learner, runtime = ranges(lines), ranges(PROJECT["dependencies"])
    assert {name: learner.get(name) for name in runtime} == runtime
    assert learner.keys() - runtime.keys() == {"jupyterlab", "nbval"}
    assert lines[-1] == "-e ."  # and the course itself


def test_ranges_agree_between_the_lists():
    learner = ranges((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    extras = {name: ranges(lines) for name, lines in PROJECT["optional-dependencies"].items()}
    lists = [learner, *extras.values()]
    for one in lists:
        for other in lists:
            assert {name: one[name] for name in one.keys() & other.keys()} == {
                n: other[n] for n in one.keys() & other.keys()
            }
    for name in ("nbgrader", "diffusers"):
        assert name in extras["test"] and name not in learner


def test_conda_takes_the_same_python_and_the_same_list():
    python, pip, listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert (python, pip) == (f"python{PROJECT['requires-python']}", "pip")
    assert listed == {"pip": ["-r requirements.txt"]}


def test_every_import_of_the_package_is_declared():
    declared = {IMPORTED_AS.get(name, name) for name in ranges(PROJECT["dependencies"])}
    for path in (ROOT / "ddpm_course").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            others = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"ddpm_course", "my_ddpm"}
            allowed = declared | TOOLS if path.name in ("editions.py", "kernels.py") else declared
            assert others <= allowed, f"{path.name}, line {node.lineno}: {others - allowed}"


def test_importing_the_package_alone_is_quick():
    heavy = "torch", "datasets", "matplotlib", "nbgrader", "nbformat"
    for module in ("ddpm_course", "ddpm_course.editions"):
        script = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
        assert capture(sys.executable, "-c", script).stdout.strip() == "[]", module


# ---- the wheel ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = capture(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_contains_the_package_and_the_assets(wheel):
    assert wheel.name.startswith(f"ddpm_course-{__version__}-py3")
    files = {path for path in [*(ROOT / "ddpm_course").rglob("*"), *(ROOT / "assets").rglob("*")] if path.is_file()}
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    wanted = {f"ddpm_course/{path}" if path.startswith("assets") else path for path in wanted}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert any(name.startswith("ddpm_course/assets/") for name in held)


def test_an_editable_install_reads_the_clone():
    script = "import ddpm_course; print(ddpm_course.__file__)"
    assert Path(capture(sys.executable, "-c", script, cwd=ROOT.parent).stdout.strip()).parent == ROOT / "ddpm_course"


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
    copied = "-m ddpm_course.editions copy work"
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
    assert make("notebooks", "LESSONS=00 02")[1] == ["-m ddpm_course.editions build 00 02"]
    assert not any("pip" in call for call in make("lab")[1])


@needs_make
def test_make_says_which_python_it_needs(fresh):
    clone, make = fresh
    done, calls = make("lab", version="3.10.4", refused=1)
    assert done.returncode != 0 and calls == []
    assert "needs Python 3.11, 3.12 or 3.13" in done.stdout and "is: 3.10.4" in done.stdout
    assert "make lab PYTHON=" in done.stdout and not (clone / ".venv").exists()


@needs_make
@pytest.mark.parametrize(("tests", "browser"), [(0, 0), (3, 0), (0, 3)])
def test_ci_runs_the_tests_and_the_browser_whatever_the_first_says(tmp_path, tests, browser):
    """Called from elsewhere, without a terminal; both parts run, and a failure of either is passed on."""
    run = in_ci(tmp_path, tools=["chromium"], tests=tests, browser=browser)
    assert "tests ran in clone" in run.stdout and "browser ran: 00 03, fast 1, CI true" in run.stdout
    assert "apt-get" not in run.stdout and (run.returncode == 0) == (tests == browser == 0)
    assert (
        f"make test: {'FAILED' if tests else 'passed'}; in the browser: {'FAILED' if browser else 'passed'}"
        in run.stdout
    )
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@needs_make
@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 1)() != 0, reason="installs as root")
def test_ci_installs_chromium_where_it_is_missing(tmp_path):
    run = in_ci(tmp_path, tools=["apt-get"])
    assert [line.split(": ")[1] for line in run.stdout.splitlines() if line.startswith("apt-get")] == [
        "-q update, noninteractive",
        "-q install -y --no-install-recommends chromium, noninteractive",
    ]
    assert "browser ran" in run.stdout and run.returncode == 0


@needs_make
@pytest.mark.skipif(os.name == "nt", reason="links to tools")
def test_ci_fails_without_a_browser(tmp_path):
    run = in_ci(tmp_path, tools=[])
    assert "tests ran in clone" in run.stdout and "NOT RUN" in run.stdout and run.returncode != 0


def in_ci(tmp_path, tools: list[str], tests: int = 0, browser: int = 0) -> subprocess.CompletedProcess:
    """.ci/run beside a Makefile that says what was asked of it, with these of apt-get and chromium on the path."""
    shutil.copytree(ROOT / ".ci", tmp_path / "clone" / ".ci")
    ran = '"browser ran: $(LESSONS), fast $$DDPM_COURSE_FAST, CI $$CI"'
    make = f"test:\n\t@echo tests ran in $(notdir $(CURDIR)); exit {tests}\n"
    (tmp_path / "clone" / "Makefile").write_text(f"{make}test-browser:\n\t@echo {ran}; exit {browser}\n")
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("bash", "sh", "dirname", "make", "timeout", "id", "env", "cp", "chmod"):
        if found := shutil.which(name):
            (bin / name).symlink_to(found)
    for name in tools:
        (bin / name).write_text(
            f'#!/bin/sh\necho "{name}: $*, $DEBIAN_FRONTEND"\n[ $2 != install ] || {{ cp "$0" {bin}/chromium; }}\n'
        )
        (bin / name).chmod(0o755)
    environment = {"PATH": str(bin), "HOME": str(tmp_path)}
    script = tmp_path / "clone" / ".ci" / "run"
    return capture("bash", script, cwd=tmp_path, stdin=subprocess.DEVNULL, env=environment)


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
