"""A machine that is lent: the word about the GPU, and work that survives when the machine is taken back."""

import os
import re
import sys
import types
from pathlib import Path

import lessons
import pytest
import torch

from ddpm_course import checks, colab, data, plots, training
from ddpm_course.classroom import editions
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import cosine_schedule
from ddpm_course.unet import UNet


@pytest.fixture
def in_colab(monkeypatch, tmp_path):
    """Colab's kernel, saving, in an empty folder; Drive is mounted once colab.DRIVE is made."""
    monkeypatch.delenv("DDPM_COURSE_SAVE")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive" / "MyDrive")
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")


@pytest.mark.parametrize("here, gpu, lines", [(True, False, 2), (True, True, 0), (False, False, 0)])
def test_only_colab_without_a_gpu_hears_of_it(in_colab, monkeypatch, capsys, here, gpu, lines):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if not here:
        monkeypatch.delitem(sys.modules, "google.colab")
    colab.suggest_gpu(minutes=8)
    told = capsys.readouterr().out
    assert told.count("\n") == lines
    assert ("about 8 minutes" in told and "Runtime → Change runtime type → T4 GPU" in told) == bool(lines)


def to_model_range(images):
    return images.float() / 127.5 - 1


def solve(capsys) -> str:
    capsys.readouterr()
    checks.to_model_range(to_model_range)
    return capsys.readouterr().out


def test_a_solved_exercise_goes_to_drive_once_it_is_mounted(in_colab, monkeypatch, capsys):
    assert "Saved in my_ddpm.py, which" in solve(capsys)
    colab.DRIVE.mkdir(parents=True)
    kept = colab.own_folder() / "my_ddpm.py"
    assert kept.read_text("utf-8") == Path("my_ddpm.py").read_text("utf-8")  # what was solved before is taken along
    Path("my_ddpm.py").write_text("newer", "utf-8")
    assert "def to_model_range" in (colab.own_folder() / "my_ddpm.py").read_text("utf-8")  # Drive's is not replaced
    kept.unlink()
    os.chdir(colab.DRIVE.parent)  # another lesson, another machine: only Drive is the same
    for _ in range(2):
        assert "Saved in ddpm_course/my_ddpm.py in your Drive, which now holds 1 function of yours." in solve(capsys)
    assert kept.is_file() and not Path("my_ddpm.py").exists()
    assert checks.progress() and "1 of" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "google.colab")  # elsewhere a folder of that name is no drive
    assert "Saved in my_ddpm.py, which" in solve(capsys)


def test_a_training_is_kept_beside_the_notebook_in_drive_or_nowhere(in_colab, monkeypatch, capsys):
    def kept() -> tuple[Path | None, str]:
        return colab.keep("00"), capsys.readouterr().out

    folder, told = kept()
    assert folder == Path("runs/00") and folder.is_dir()
    assert "kept in runs" in told and "run: from google.colab import drive; drive.mount(" in told
    colab.DRIVE.mkdir(parents=True)
    folder, told = kept()
    assert folder == colab.DRIVE / "ddpm_course" / "runs" / "00"
    assert "kept in ddpm_course/runs/00 in your Drive" in told and "drive.mount" not in told
    for name, value in ("DDPM_COURSE_SAVE", "0"), ("DDPM_COURSE_FAST", "1"), ("NBGRADER_EXECUTION", "autograde"):
        with monkeypatch.context() as building_testing_or_grading:
            building_testing_or_grading.setenv(name, value)
            assert kept() == (None, "")
    with monkeypatch.context() as elsewhere:
        elsewhere.delitem(sys.modules, "google.colab")
        folder, told = kept()
        assert folder == Path("runs/00") and "kept in runs" in told and "drive.mount" not in told

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert "Saved in my_ddpm.py, which" in solve(capsys)  # not in Drive
    folder, told = kept()
    assert folder is None and "Nothing can be kept in runs" in told and "No space left" in told


def test_a_lesson_s_training_goes_on_when_it_is_run_again(in_colab, monkeypatch):
    """Its own cells, with a small network; tests/test_resume.py kills such a training, tests/test_capstone.py lesson 06's."""

    def train(*given, minutes, **options):
        assert minutes == 4
        return training.train(*given, steps=30, batch_size=8, device="cpu", **options)

    monkeypatch.setattr(plots.LiveTraining, "draw", lambda self, net: torch.zeros(10, 1, 28, 28))
    images, labels = data.load_images(limit=100)
    for told in ("The training is kept in runs", "nothing is left to do (to train again, delete it or"):
        torch.manual_seed(0)
        net, diffusion = UNet(channels=1, widths=(8,), heads=2, num_classes=10), GaussianDiffusion(cosine_schedule())
        given = {"my_net": net, "my_diffusion": diffusion, "images": images, "labels": labels, "train": train}
        printed = lessons.by_number("00").run("keep", "train", **given)["printed"]
        assert told in printed and "Figure" in printed  # the loss curve is shown all the same
    runs = types.SimpleNamespace(run=lambda **options: options)
    left = lessons.by_number("06").run("keep", "capstone-run", capstone=runs)
    assert left["result"] == {"minutes": 1, "checkpoint": Path("runs/06_sampling")}


SHELL = r"\bos\.(system|popen)\b|shell=True|['\"]/tmp"
UNIX = r"^(import|from) (fcntl|grp|pty|pwd|resource|termios)\b"  # inside functions there is something else to be done
FLOAT64 = r"(\.double\(\)|\.to\(torch\.float64\)|\.to\(dtype=torch\.float64\))\.(cpu\(\)|to\(['\"]cpu)"


def test_no_cell_and_no_module_needs_a_shell_and_float64_is_made_on_the_cpu():
    """Windows runs it all. Apple's GPU has no float64: a tensor goes to the CPU first, and is widened there."""
    for path in (editions.ROOT / "ddpm_course").rglob("*.py"):
        found = re.search(f"{SHELL}|{UNIX}|{FLOAT64}", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not found, f"{path.name}: {found[0]}"
    for edition, name in lessons.EDITIONS:
        for cell in lessons.read(edition, name).code:
            found = re.search(rf"^\s*[!%]|get_ipython|{SHELL}|{FLOAT64}", cell.source, re.MULTILINE)
            assert not found, f"{edition} {name}, {cell.id}: {found[0]}"
