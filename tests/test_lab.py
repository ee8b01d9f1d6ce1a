"""JupyterLab as `make lab` opens it, asked over its own address."""

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

from ddpm_course import lab

NBGRADER = "formgrader", "courses", "assignments", "nbgrader_version"  # addresses that its extensions serve


@contextmanager
def server(folder, *command):
    """Start a server in `folder`; yields its address and token. Settings of this machine are left out."""
    shutil.rmtree(folder / "runtime", ignore_errors=True)
    own = {"JUPYTER_RUNTIME_DIR": folder / "runtime", "JUPYTER_CONFIG_DIR": folder / "config"}
    options = ["--no-browser", "--allow-root", "--ServerApp.port=0"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, *options], cwd=folder, env={**os.environ, **own}, stdout=log, stderr=log
        )
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
    monkeypatch.setattr(lab.runpy, "run_module", lambda name, **_: started.append((name, sys.argv)))
    notebook = tmp_path / "a b.ipynb"
    notebook.touch()
    assert lab.main([str(notebook), "--no-browser"]) == 0
    assert os.environ["JUPYTER_CONFIG_PATH"] == f"{lab.SETTINGS}{os.pathsep}/mine"
    ((name, argv),) = started
    assert name == "jupyterlab" and argv[-1] == "--no-browser"


def test_a_notebook_that_is_not_there_is_a_sentence(capsys):
    assert lab.main(["work/none.ipynb"]) == lab.main([]) == 1
    assert "There is no notebook 'work/none.ipynb' here" in capsys.readouterr().out


def test_without_jupyterlab_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.ipynb").touch()
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    assert lab.main([str(tmp_path / "a.ipynb")]) == 1
    assert "JupyterLab is not installed: python -m pip install -r requirements.txt" in capsys.readouterr().out
