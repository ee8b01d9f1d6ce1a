"""What the tests of builders, instructors and installers share: commands, and notebooks with other cells in them."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from urllib.request import urlopen

from jupyter_server.serverapp import list_running_servers

from ddpm_course.classroom.editions import ROOT

HANDED_DOWN = "MAKE", "MFLAGS", "TEST_ARGS", "LAB_ARGS", "LESSONS", "PYTHON", "VENV"  # by `make test`, to its tests


def run(*command, cwd: Path = ROOT, env: dict | None = None, **options) -> subprocess.CompletedProcess:
    """A command's outcome; without `env`, in this environment less what make left in it."""
    env = env or {key: value for key, value in os.environ.items() if not key.startswith(HANDED_DOWN)}
    command = [str(word) for word in command]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, **options)


def python(*arguments, cwd: Path = ROOT, **settings: str) -> str:
    """What this Python prints; it must end well. `settings` change its environment."""
    done = run(sys.executable, *arguments, cwd=cwd, env=os.environ | settings)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@contextmanager
def server(folder: Path, *command: str, **settings: str):
    """Start JupyterLab in a folder, none of whose settings are this machine's; yields its address and its token."""
    command = [sys.executable, "-m", *command, "--no-browser", "--allow-root", "--ServerApp.port=0"]
    own = {f"JUPYTER_{name}_DIR": str(folder / f".{name.lower()}") for name in ("RUNTIME", "CONFIG")}
    with open(folder / ".log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | own | settings, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while not ((found := list(list_running_servers(folder / ".runtime"))) and answers(found[0]["url"])):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"JupyterLab did not start: {(folder / '.log').read_text()[-500:]}")
            time.sleep(0.5)
        yield found[0]["url"], found[0]["token"]
    finally:
        process.terminate()  # it shuts its kernels down
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def answers(address: str) -> bool:
    """A server tells its address a moment before it listens there."""
    try:
        urlopen(f"{address}api", timeout=10).close()
    except OSError:
        return False
    return True


def save(path: Path, content: dict | str | bytes) -> Path:
    """Write a file, and a notebook as an editor would: nbformat's own writer refuses or repairs some faults."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def with_cells(notebook, sources: dict[str, list[str]]):
    """A copy with other sources in some cells, by their ids. The last source has the id; without one the cell goes."""
    copy = deepcopy(notebook)
    copy.cells = []
    for cell in notebook.cells:
        for number, source in enumerate(given := sources.get(cell.id, [cell.source]), start=1):
            copy.cells.append(deepcopy(cell))
            copy.cells[-1].update(source=source)
            if number < len(given):
                copy.cells[-1].update(id=f"{cell.id}-own-{number}", metadata={})
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
