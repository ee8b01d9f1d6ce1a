"""`make test-install`: the course installs into empty environments and works there. Slow; standard library alone.

    wheel          the built wheel, installed away from the clone, finds its data, its checkpoint and its checks
    tests 3.11     a copy of the clone, set up as `make test` sets it up, passes the package tests on that Python
    tests 3.13     the same on the newest Python
    colab 3.12     an environment like Colab's: the setup cell installs the course in a kernel, and fails in a sentence
    colab 3.13     the same on the newest Python

Say which with arguments (`python tests/install/run.py wheel 3.13 "colab 3.12"`). An interpreter that is missing counts as failed.
Environments are made in a temporary folder, one at a time, and removed; each takes as much room as torch does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONS = "3.11", "3.13"
COLAB_PYTHONS = "3.12", "3.13"
# older than what pip would take by itself, as in Colab, where the course must do with them
COLAB = ["ipykernel==6.17.1", "ipython==7.34.0", "ipywidgets==7.7.1", "jupyter-client<8", "numpy<2.3"]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "work", "__pycache__", ".*_cache", ".ipynb_checkpoints", "dist")


class Failed(Exception):
    pass


def command(*parts, env: dict[str, str] | None = None, **options) -> None:
    print("$", *parts, flush=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= env or {}
    if code := subprocess.run(list(map(str, parts)), env=environment, check=False, **options).returncode:
        raise Failed(f"{' '.join(map(str, parts[:5]))} … ended with {code}")


def interpreter(version: str) -> str | None:
    """A Python of this version: on the path, under pyenv, or behind Windows' launcher."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    here = [f"python{version}", *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True)]
    asks = [[name] for name in here] + ([["py", f"-{version}"]] if os.name == "nt" else [])
    for ask in asks:
        script = "import sys; print(sys.executable if '%d.%d' % sys.version_info[:2] == sys.argv[1] else '')"
        try:
            done = subprocess.run([*ask, "-c", script, version], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # absent, or pyenv's signpost to a version not chosen
            continue
        if done.stdout.strip():
            return done.stdout.strip()
    return None


def environment(python: str, folder: Path) -> Path:
    """The Python of a new, empty environment."""
    command(python, "-m", "venv", folder / "venv")
    return folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def try_wheel(python: str, folder: Path) -> None:
    shutil.copytree(ROOT, folder / "clone", ignore=LEFT_OUT)
    own = environment(python, folder)
    command(own, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder / "dist", folder / "clone")
    shutil.rmtree(folder / "clone")
    command(own, "-m", "pip", "install", "--quiet", *(folder / "dist").glob("*.whl"))
    (folder / "empty").mkdir()
    shutil.copy(ROOT / "tests" / "install" / "use_wheel.py", folder / "use_wheel.py")
    command(own, folder / "use_wheel.py", cwd=folder / "empty")


def try_tests(python: str, folder: Path) -> None:
    clone = Path(shutil.copytree(ROOT, folder / "clone", ignore=LEFT_OUT))
    own = environment(python, folder)
    command(own, "-m", "pip", "install", "--quiet", "-e", ".[test]", "-r", "requirements.txt", cwd=clone)
    options = ["-q", "-n", "2", "--dist", "worksteal", "--ignore=tests/test_notebooks.py"]
    command(own, "-m", "pytest", *options, "-m", "not slow", cwd=clone)


def try_colab(python: str, folder: Path) -> None:
    """The repository that the setup cell names is a local one: git is told to look there in place of the address."""
    sys.path.insert(0, str(ROOT))
    from ddpm_course import REF, REPOSITORY
    from ddpm_course.classroom import editions

    origin, content = Path(shutil.copytree(ROOT, folder / "origin", ignore=LEFT_OUT)), folder / "content"
    git = "git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-C", origin
    command(*git, "init", "--quiet", "--initial-branch", REF)
    command(*git, "add", "--all")
    command(*git, "commit", "--quiet", "--message", "the course")

    own = environment(python, folder)
    command(own, "-m", "pip", "install", "--quiet", "torch", "torchvision", "matplotlib", *COLAB)
    site = subprocess.check_output([own, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    stub = Path(site.strip(), "google", "colab")
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    content.mkdir()
    (folder / "setup.py").write_text(editions.setup_cell(), encoding="utf-8")
    told = {
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a remark of debugpy's
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{REPOSITORY}",
    }
    lesson = ROOT / "notebooks" / "00_start_here.ipynb"
    script = ROOT / "tests" / "install" / "rehearse.py"
    command(own, script, folder / "setup.py", lesson, cwd=content, env=told)


def main(chosen: list[str]) -> int:
    jobs = [("wheel", PYTHONS[0], try_wheel)]
    jobs += [(f"tests {version}", version, try_tests) for version in PYTHONS]
    jobs += [(f"colab {version}", version, try_colab) for version in COLAB_PYTHONS]
    known = {name for name, *_ in jobs} | {version for _, version, _ in jobs}
    if unknown := set(chosen) - known:
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
        return 2
    summary, failed = [], 0
    for name, version, job in jobs:
        if chosen and name not in chosen and (version not in chosen or name == "wheel"):
            continue
        print(f"\n==== {name}", flush=True)
        start, python = time.monotonic(), interpreter(version)
        if python is None:
            outcome, failed = f"NOT RUN: no Python {version} was found", failed + 1
        else:
            with tempfile.TemporaryDirectory(prefix="ddpm_course-") as folder:
                try:
                    job(python, Path(folder))
                    outcome = f"passed in {time.monotonic() - start:.0f} s ({python_version(python)})"
                except Failed as error:
                    outcome, failed = f"FAILED: {error}", failed + 1
        summary.append(f"{name:<12}{outcome}")
    print("\n==== test-install\n" + "\n".join(summary))
    print(f"{len(summary) - failed} passed, {failed} failed")
    return bool(failed)


def python_version(python: str) -> str:
    return subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
