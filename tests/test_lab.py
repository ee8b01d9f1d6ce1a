"""A learner's copies of the lessons, and JupyterLab as `make lab` opens it, asked over its own address."""

import json
import os
import re
import sys
import urllib.error
import urllib.request

import pytest
from courses import contents, save, server

from ddpm_course import REF, REPOSITORY, lab
from ddpm_course.classroom.editions import badge


def ask(url: str, token: str, path: str) -> tuple[int, str]:
    """A server's answer, and the number of it."""
    request = urllib.request.Request(url + path, headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


OURS = ("ddpm_course.lab", "own/a.ipynb"), "lab/tree/own/a.ipynb", ["@jupyter/nbgrader"]
AS_IT_COMES = ("jupyterlab",), "lab", []  # the control: it serves what ours lacks


@pytest.mark.parametrize("command, page, disabled", [OURS, AS_IT_COMES], ids=["ours", "as it comes"])
def test_a_learner_sees_nothing_of_nbgrader_and_no_news(tmp_path, command, page, disabled):
    save(tmp_path / "own" / "a.ipynb", {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    with server(tmp_path, *command) as there:
        text = ask(*there, page)[1]
        served = {ask(*there, path)[0] for path in ("formgrader", "courses", "assignments", "nbgrader_version")}
        assert ask(*there, "api/contents/own/a.ipynb")[0] == 200  # the folder it was started in
    assert f"/{page}?token=" in (tmp_path / ".log").read_text()
    config = json.loads(re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    names = {extension["name"] for extension in config["federated_extensions"]}
    assert names >= {"@jupyter/nbgrader", "@jupyter-widgets/jupyterlab-manager"}  # both are installed
    assert config["disabledExtensions"] == disabled and config["news"] == {"disabled": bool(disabled)}
    assert served == {404} if disabled else 404 not in served


def test_settings_of_the_machine_come_second_and_what_cannot_be_opened_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    monkeypatch.setattr(sys, "argv", sys.argv)
    started = []
    monkeypatch.setattr(lab.runpy, "run_module", lambda name, **_: started.append((name, *sys.argv[1:])))
    notebook = str(save(tmp_path / "lessons" / "a #?%.ipynb", ""))
    assert lab.main([notebook, "--no-browser"]) == 0
    assert os.environ["JUPYTER_CONFIG_PATH"] == f"{lab.SETTINGS}{os.pathsep}/mine"
    monkeypatch.chdir(tmp_path)
    assert lab.main(["lessons/a #?%.ipynb"]) == 0
    url, page = "--LabApp.default_url=/lab/tree/", "a%20%23%3F%25.ipynb"  # the page, below the folder that is served
    here = ("jupyterlab", f"--ServerApp.root_dir={tmp_path}", f"{url}lessons/{page}")
    elsewhere = ("jupyterlab", f"--ServerApp.root_dir={tmp_path / 'lessons'}", url + page, "--no-browser")
    assert started == [elsewhere, here]
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    assert lab.main([notebook]) == lab.main(["none.ipynb"]) == lab.main(["~no one/x.ipynb"]) == lab.main([]) == 1
    told = capsys.readouterr().out
    assert "JupyterLab is not installed: python -m pip install -r requirements.txt" in told
    assert "no notebook 'none.ipynb' here; `python -m ddpm_course.lab copy work`" in told


def test_copy_never_touches_what_is_there_and_links_solutions_that_open_offline(tmp_path, monkeypatch, capsys):
    names, solutions = ["00_a.ipynb", "01_b.ipynb"], lab.page("notebooks/solutions")
    for name in names:
        save(tmp_path / "notebooks" / name, f"[solution]({solutions}/{name}) {badge(name.removesuffix('.ipynb'))}")
    work, elsewhere = tmp_path / "work", tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    save(work / "00_a.ipynb", "my answers")
    for count in (1, 0):
        assert lab.main(["copy", str(work)], tmp_path) == 0
        assert f"lessons copied now: {count}; those that were there are as you left them" in capsys.readouterr().out
    copied = f"[solution](../notebooks/solutions/01_b.ipynb) {badge('01_b')}"  # which leads to Colab
    assert contents(work) == {"00_a.ipynb": b"my answers", "01_b.ipynb": copied.encode()}
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path.parent))
    assert [path.name for path in lab.copy(f"~/{elsewhere.name}", tmp_path)] == names
    assert f"{solutions}/01_b.ipynb" in (elsewhere / "01_b.ipynb").read_text()
    assert lab.main(["copy", str(elsewhere)], work) == 1  # where there are no notebooks
    assert f"github.com/{REPOSITORY}/blob/{REF}/notebooks\n" in capsys.readouterr().err
