"""A learner's copies of the lessons, and JupyterLab as `make lab` opens it, asked over its own address."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from ddpm_course import REF, REPOSITORY, lab
from ddpm_course.classroom.editions import badge

NBGRADER = "formgrader", "courses", "assignments", "nbgrader_version"  # addresses that its extensions serve


@contextmanager
def server(folder, *command):
    """Start a server in `folder`; yields its address and token. Settings of this machine are left out."""
    shutil.rmtree(folder / "runtime", ignore_errors=True)
    own = {"JUPYTER_RUNTIME_DIR": folder / "runtime", "JUPYTER_CONFIG_DIR": folder / "config"}
    options = ["--no-browser", "--allow-root", "--ServerApp.port=0"]
    arguments = [sys.executable, "-m", *command, *options]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(arguments, cwd=folder, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            found = list((folder / "runtime").glob("jpserver-*.json"))
            if found and (text := found[0].read_text()).endswith("}"):
                facts = json.loads(text)
                break
            time.sleep(0.2)
        yield facts["url"], facts["token"]
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, path: str, token: str) -> tuple[int, str]:
    request = urllib.request.Request(address + path, headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def page_config(text: str) -> dict:
    return json.loads(re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def test_a_learner_sees_nothing_of_nbgrader_and_no_news(tmp_path):
    pytest.importorskip("nbgrader")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with server(tmp_path, "ddpm_course.lab", "work/a.ipynb") as (address, token):
        status, text = ask(address, "lab/tree/work/a.ipynb", token)
        served = {path: ask(address, path, token)[0] for path in NBGRADER}
        assert ask(address, "api/contents/work/a.ipynb", token)[0] == 200  # the folder it was started in
    config = page_config(text)
    assert status == 200 and "/lab/tree/work/a.ipynb?token=" in (tmp_path / "log").read_text()
    names = [extension["name"] for extension in config["federated_extensions"]]
    assert "@jupyter/nbgrader" in names and "@jupyter-widgets/jupyterlab-manager" in names  # both are installed
    assert config["disabledExtensions"] == ["@jupyter/nbgrader"]
    assert config["news"] == {"disabled": True}
    assert served == dict.fromkeys(NBGRADER, 404)


def test_the_addresses_asked_for_are_nbgraders(tmp_path):
    """The control: JupyterLab as it comes serves what the test above finds missing."""
    pytest.importorskip("nbgrader")
    with server(tmp_path, "jupyterlab") as (address, token):
        config = page_config(ask(address, "lab", token)[1])
        served = {path: ask(address, path, token)[0] for path in NBGRADER}
    assert config["disabledExtensions"] == [] and config["news"] == {"disabled": False}
    assert 404 not in served.values()


def test_settings_of_the_machine_come_second(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    monkeypatch.setattr(sys, "argv", sys.argv)
    started = []
    monkeypatch.setattr(lab.runpy, "run_module", lambda name, **_: started.append((name, sys.argv[-1])))
    notebook = tmp_path / "a b.ipynb"
    notebook.touch()
    assert lab.main([str(notebook), "--no-browser"]) == 0
    assert os.environ["JUPYTER_CONFIG_PATH"] == f"{lab.SETTINGS}{os.pathsep}/mine"
    assert started == [("jupyterlab", "--no-browser")]


def test_what_cannot_be_opened_is_a_sentence(tmp_path, monkeypatch, capsys):
    assert lab.main(["work/none.ipynb"]) == lab.main([]) == 1
    assert (
        "There is no notebook 'work/none.ipynb' here; `python -m ddpm_course.lab copy work`" in capsys.readouterr().out
    )
    (tmp_path / "a.ipynb").touch()
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    assert lab.main([str(tmp_path / "a.ipynb")]) == 1
    assert "JupyterLab is not installed: python -m pip install -r requirements.txt" in capsys.readouterr().out


# ---- copies ---------------------------------------------------------------------------------------------------------


def test_copy_never_touches_what_is_there_and_links_solutions_that_open_offline(tmp_path, capsys):
    names = ["00_a.ipynb", "01_b.ipynb"]
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    for name in names:
        text = f"[solution]({lab.page(f'notebooks/solutions/{name}')}) {badge(name.removesuffix('.ipynb'))}"
        (tmp_path / "notebooks" / name).write_text(text)
        (tmp_path / "notebooks" / "solutions" / name).touch()
    work = tmp_path / "work"
    work.mkdir()
    (work / "00_a.ipynb").write_text("my answers")
    for count in (1, 0):
        assert lab.main(["copy", str(work)], tmp_path) == 0
        assert f"lessons copied now: {count}; those that were there are as you left them" in capsys.readouterr().out
    assert (work / "00_a.ipynb").read_text() == "my answers" and sorted(path.name for path in work.iterdir()) == names
    copied = (work / "01_b.ipynb").read_text()
    assert copied == f"[solution](../notebooks/solutions/01_b.ipynb) {badge('01_b')}"  # which leads to Colab
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    assert [path.name for path in lab.copy(elsewhere, tmp_path)] == names
    assert lab.page("notebooks/solutions/01_b.ipynb") in (elsewhere / "01_b.ipynb").read_text()


def test_copy_without_notebooks_says_where_they_are(tmp_path, capsys):
    assert lab.main(["copy", str(tmp_path / "work")], tmp_path) == 1
    assert f"github.com/{REPOSITORY}/blob/{REF}/notebooks\n" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
    with pytest.raises(SystemExit):
        lab.main(["copy"])
    assert "python -m ddpm_course.lab copy" in capsys.readouterr().err
