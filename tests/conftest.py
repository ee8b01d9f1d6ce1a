"""Settings for every test: nothing is saved, no window opens, nothing depends on who runs them."""

import functools
import os
import signal

import lessons
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

os.environ["DDPM_COURSE_SAVE"] = "0"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes at once: threads of their own would be in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("DDPM_COURSE_FAST", "NBGRADER_EXECUTION"):
    os.environ.pop(name, None)


@pytest.fixture(scope="module")
def lesson(request) -> lessons.Lesson:
    """The lesson that the file is named after, such as test_lesson05.py, or the one that the test is parametrised by."""
    if hasattr(request, "param"):
        return lessons.read(*request.param)
    return lessons.by_number(request.module.__name__.removeprefix("test_lesson"))


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """A real IPython in an empty folder, set up as a lesson does and saving; `shell.run(cell)` is what a kernel does."""
    monkeypatch.delenv("DDPM_COURSE_SAVE")
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"hist_file": ":memory:"}}))
    shell.run = functools.partial(shell.run_cell, store_history=True)
    shell.run("import torch\nfrom ddpm_course import checks, diffusion\nfrom ddpm_course.schedules import Schedule")
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture
def stop_button():
    """Presses a notebook's stop button, or Ctrl-C; tests in the background start out ignoring it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
