"""`make test-install`: the course installs into empty environments and works there. Slow.

    wheel     the built wheel, installed away from the clone, finds its data, its checkpoint and its checks
    tests     a copy of the clone, set up as `make test` sets it up, passes the package tests on that Python
    colab     an environment like Colab's: the setup cell installs the course in a kernel, and fails in a sentence

Say which with pytest's options (`python tests/install/run.py -k "wheel or 3.12"`). A Python that is missing counts as failed.
Environments are made in a temporary folder, one at a time, and removed; each takes as much room as torch does.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_course import REF, REPOSITORY
from ddpm_course.classroom import editions

HERE = Path(__file__).resolve().parent
# older than what pip would take by itself, as in Colab, where the course must do with them
COLAB = ["ipykernel==6.17.1", "ipython==7.34.0", "ipywidgets==7.7.1", "jupyter-client<8", "numpy<2.3"]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "work", "__pycache__", ".*_cache", ".ipynb_checkpoints", "dist")


def command(*parts, env: dict[str, str] | None = None, **options) -> None:
    print("$", *parts, flush=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(list(map(str, parts)), env=environment | (env or {}), check=True, **options)


def interpreter(version: str) -> str:
    """A Python of this version: on the path, under pyenv, or behind Windows' launcher."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    calls = [[f"python{version}"], *([path] for path in sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True))]
    for call in [*calls, ["py", f"-{version}"]]:
        try:
            script = "import sys; print(sys.executable)"
            return subprocess.run([*call, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # absent, or pyenv's signpost to a version not chosen
            continue
    pytest.fail(f"no Python {version} was found")


@pytest.fixture
def own(request, tmp_path):
    """The Python of a new, empty environment, of the version that the test names; the copy of the clone is removed too."""
    command(interpreter(request.param), "-m", "venv", tmp_path / "venv")
    shutil.copytree(editions.ROOT, tmp_path / "clone", ignore=LEFT_OUT)
    (tmp_path / "empty").mkdir()
    yield tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("own", ["3.11"], indirect=True)
def test_wheel(own, tmp_path):
    command(own, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path / "dist", tmp_path / "clone")
    shutil.rmtree(tmp_path / "clone")
    command(own, "-m", "pip", "install", "--quiet", *(tmp_path / "dist").glob("*.whl"))
    command(own, shutil.copy(HERE / "use.py", tmp_path), cwd=tmp_path / "empty")


@pytest.mark.parametrize("own", ["3.11", "3.13"], indirect=True)
def test_tests(own, tmp_path):
    command(own, "-m", "pip", "install", "--quiet", "-e", ".[test]", "-r", "requirements.txt", cwd=tmp_path / "clone")
    options = ["-q", "-n", "2", "--dist", "worksteal", "--ignore=tests/test_notebooks.py"]
    command(own, "-m", "pytest", *options, "-m", "not slow", cwd=tmp_path / "clone")


@pytest.mark.parametrize("own", ["3.12", "3.13"], indirect=True)
def test_colab(own, tmp_path):
    """The repository that the setup cell names is a local one: git is told to look there in place of the address."""
    git = "git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-C", tmp_path / "clone"
    command(*git, "init", "--quiet", "--initial-branch", REF)
    command(*git, "add", "--all")
    command(*git, "commit", "--quiet", "--message", "the course")
    command(own, "-m", "pip", "install", "--quiet", "torch", "torchvision", "matplotlib", *COLAB)
    site = subprocess.check_output([own, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    stub = Path(site.strip(), "google", "colab", "__init__.py")
    stub.parent.mkdir(parents=True)
    stub.touch()
    (tmp_path / "setup.py").write_text(editions.setup_cell(), encoding="utf-8")
    told = {
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a remark of debugpy's
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{(tmp_path / 'clone').as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{REPOSITORY}",
    }
    lesson = editions.ROOT / "notebooks" / "00_start_here.ipynb"
    command(own, HERE / "rehearse.py", tmp_path / "setup.py", lesson, cwd=tmp_path / "empty", env=told)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-v", "-s", "-p", "no:cacheprovider", *sys.argv[1:]]))
