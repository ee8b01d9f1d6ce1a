"""A machine that is lent: the word about the GPU, and work that survives when the machine is taken back."""

import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from ddpm_course import capstone, checks, colab, data, metrics
from ddpm_course.checks import library
from ddpm_course.classroom import editions
from ddpm_course.plots.lesson06 import power_spectrum

SOURCES = editions.ROOT / "notebooks" / "solutions"
TRAINING = {"00", "04", "05", "06"}  # lessons that train, and so gain from a GPU


def cells(lesson: str) -> dict[str, str]:
    (name,) = editions.lessons(chosen=[lesson])
    return {cell.id: cell.source for cell in editions.read(SOURCES / f"{name}.ipynb").cells}


@pytest.fixture
def saving(monkeypatch):
    monkeypatch.delenv("DDPM_COURSE_SAVE")


@pytest.fixture
def in_colab(monkeypatch, tmp_path):
    """Colab's kernel, in an empty folder, with a place where Drive can be mounted."""
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive" / "MyDrive")
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")
    return tmp_path


@pytest.fixture
def mounted(in_colab, saving):
    colab.DRIVE.mkdir(parents=True)
    return colab.DRIVE


# ---- forgot the GPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "gpu", "lines"), [(True, False, 2), (True, True, 0), (False, False, 0)])
def test_only_colab_without_a_gpu_hears_of_it(in_colab, monkeypatch, capsys, here, gpu, lines):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if not here:
        monkeypatch.delitem(sys.modules, "google.colab")
    colab.suggest_gpu(minutes=8)
    told = capsys.readouterr().out
    assert told.count("\n") == lines
    assert ("about 8 minutes" in told and "Runtime → Change runtime type → T4 GPU" in told) == bool(lines)


def test_the_lessons_that_train_say_their_minutes():
    """The number is the one in the table at the top of the lesson, and the call comes before anything slow."""
    asked = {}
    for lesson in editions.lessons():
        texts = cells(lesson)
        table = re.search(r"time to run \|([^|]*)\|", "\n".join(texts.values()))[1]
        for name, source in texts.items():
            for minutes in re.findall(r"^colab\.suggest_gpu\(minutes=(\d+)\)", source, re.MULTILINE):
                assert name in ("imports", "machine") and minutes in re.findall(r"\d+", table), (lesson, table)
                asked[lesson[:2]] = int(minutes)
    assert asked.keys() == TRAINING


# ---- my_ddpm.py ---------------------------------------------------------------------------------------------------


def to_model_range(images):
    return images.float() / 127.5 - 1


def solve(capsys) -> str:
    capsys.readouterr()
    checks.to_model_range(to_model_range)
    return capsys.readouterr().out


def test_a_solved_exercise_goes_to_drive_if_it_is_mounted(mounted, capsys):
    assert "Saved in ddpm_course/my_ddpm.py in your Drive, which now holds 1 function of yours." in solve(capsys)
    file = mounted / "ddpm_course" / "my_ddpm.py"
    assert "def to_model_range" in file.read_text(encoding="utf-8") and not Path("my_ddpm.py").exists()
    assert checks.progress() and "1 of" in capsys.readouterr().out
    os.chdir(mounted.parent)  # another lesson, another machine: only Drive is the same
    assert "which now holds 1 function" in solve(capsys)


def test_what_was_solved_before_drive_was_mounted_is_taken_along(in_colab, saving, capsys):
    assert "Saved in my_ddpm.py, which" in solve(capsys)
    begun = Path("my_ddpm.py").read_text(encoding="utf-8")
    colab.DRIVE.mkdir(parents=True)
    assert (colab.own_folder() / "my_ddpm.py").read_text(encoding="utf-8") == begun
    (colab.own_folder() / "my_ddpm.py").write_text("older", encoding="utf-8")
    assert (colab.own_folder() / "my_ddpm.py").read_text(encoding="utf-8") == "older"  # what Drive has is not replaced


def test_elsewhere_a_folder_of_that_name_is_no_drive(mounted, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "google.colab")
    assert "Saved in my_ddpm.py, which" in solve(capsys) and list(mounted.iterdir()) == []


def test_a_drive_that_is_full_leaves_the_current_folder(mounted, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert "Saved in my_ddpm.py, which" in solve(capsys)
    assert colab.keep("00") is None
    assert "Nothing can be kept in runs" in (told := capsys.readouterr().out) and "No space left" in told


# ---- the folder of a training -------------------------------------------------------------------------------------


def test_the_folder_is_beside_the_notebook_in_drive_or_neither(in_colab, saving, monkeypatch, capsys):
    assert colab.keep("00") == Path("runs/00") and Path("runs/00").is_dir()
    told = capsys.readouterr().out
    assert "kept in runs" in told and "run: from google.colab import drive; drive.mount(" in told
    colab.DRIVE.mkdir(parents=True)
    assert colab.keep("00") == colab.DRIVE / "ddpm_course" / "runs" / "00"
    told = capsys.readouterr().out
    assert "kept in ddpm_course/runs/00 in your Drive" in told and "drive.mount" not in told
    monkeypatch.delitem(sys.modules, "google.colab")
    assert colab.keep("00") == Path("runs/00") and "drive.mount" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, value", [("DDPM_COURSE_SAVE", "0"), ("DDPM_COURSE_FAST", "1"), ("NBGRADER_EXECUTION", "autograde")]
)
def test_building_testing_and_grading_keep_nothing(mounted, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    assert colab.keep("00") is None and capsys.readouterr().out == ""
    assert list(mounted.iterdir()) == [] and list(Path().iterdir()) == []


# ---- killed in the middle -----------------------------------------------------------------------------------------

# The lesson's own cells, with a smaller budget; the state is written every few steps rather than every minute.
BEFORE = {
    "00": """
from functools import partial
from ddpm_course import colab, plots, training
from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import cosine_schedule
from ddpm_course.unet import UNet

torch.manual_seed(0)
my_net = UNet(channels=1, widths=(8,), heads=2, num_classes=10)
my_diffusion = GaussianDiffusion(cosine_schedule(1000), predicts="v")
images, labels = load_images(limit=100)
train = partial(training.train, steps=200, batch_size=8, save_minutes=0, report_every=20, device="cpu")
plots.LiveTraining.draw = lambda self, net: torch.zeros(10, 1, 28, 28)
""",
    "06": """
from functools import partial
from types import SimpleNamespace
from ddpm_course import capstone as whole, colab

whole.SAVE_MINUTES, whole.BATCH = 0, 8
whole.best_device = lambda: torch.device("cpu")
whole.load_images = partial(whole.load_images, limit=100)
whole.reference, whole.frechet_distance = lambda: None, lambda samples, _: 1 + samples.float().std().item()
capstone = SimpleNamespace(run=partial(whole.run, widths=(8, 16), samples=65, steps=2))
""",
}
CELLS = {"00": ("keep", "train"), "06": ("keep", "capstone-run")}
SMALLER = {"00": ("minutes=4, ", ""), "06": ("minutes=1", "minutes=0.05")}


def start(lesson: str, folder: Path) -> subprocess.Popen:
    keep, train = (cells(lesson)[name] for name in CELLS[lesson])
    assert SMALLER[lesson][0] in train
    script = f"import torch\n{BEFORE[lesson]}\n{keep}\n{train.replace(*SMALLER[lesson])}\nprint('done')\n"
    environment = {key: value for key, value in os.environ.items() if key != "DDPM_COURSE_SAVE"}
    command = [sys.executable, "-u", "-c", script]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("lesson", ["00", "06"])
def test_a_lesson_killed_in_the_middle_goes_on(tmp_path, lesson):
    """Killed when a state is there, run again: it goes on to the end. Lesson 00 a third time: it says it is complete."""
    process = start(lesson, tmp_path)
    try:
        while not (states := list(tmp_path.glob("runs/*/training-*[0-9a-f]"))):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
    finally:
        process.kill()
    first = process.communicate()[0]
    assert process.returncode != 0 and "going on" not in first and "The training is kept in runs" in first
    again = start(lesson, tmp_path).communicate()[0]
    assert re.search(r"going on from .*: step [1-9]", again) and again.endswith("done\n")
    if lesson == "00":
        third = start(lesson, tmp_path).communicate()[0]
        assert "nothing is left to do (to train again, delete it or give another checkpoint=)" in third
        assert "Figure" in third  # the loss curve is shown all the same
    assert list(tmp_path.glob("runs/*/training-*[0-9a-f]")) == states


def test_another_file_of_functions_is_another_capstone(tmp_path, monkeypatch, capsys):
    """Solved more since the interruption: the training begins anew, with what there is now."""
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    monkeypatch.setattr(capstone, "reference", lambda: None)
    monkeypatch.setattr(capstone, "frechet_distance", lambda samples, reference: 1.0)
    file, states = tmp_path / "my_ddpm.py", tmp_path / "states"
    states.mkdir()
    for told, count in (("training on", 1), ("nothing is left to do", 1), ("training on", 2)):
        if count == 2:
            file.write_text(library.add(library.HEADER, library.BY_NAME["to_model_range"], to_model_range), "utf-8")
        capstone.run(path=file, checkpoint=states, widths=(8, 16), save=False)
        printed = capsys.readouterr().out
        assert told in printed and ("going on" in printed) == ("nothing" in told)
        assert len(list(states.glob("training-*[0-9a-f]"))) == count


# ---- every machine ------------------------------------------------------------------------------------------------


SHELL = r"\bos\.(system|popen)\b|shell=True|['\"]/tmp"
UNIX = r"^(import|from) (fcntl|grp|pty|pwd|resource|termios)\b"  # inside functions there is something else to be done
FLOAT64 = r"(\.double\(\)|\.to\(torch\.float64\)|\.to\(dtype=torch\.float64\))\.(cpu\(\)|to\(['\"]cpu)"


def test_no_cell_and_no_module_needs_a_shell_and_float64_is_made_on_the_cpu():
    """Windows runs it all. Apple's GPU has no float64: a tensor goes to the CPU first, and is widened there."""
    texts = {path: path.read_text(encoding="utf-8") for path in (editions.ROOT / "ddpm_course").rglob("*.py")}
    patterns = dict.fromkeys(texts, f"{SHELL}|{UNIX}|{FLOAT64}")
    for path in [*SOURCES.glob("*.ipynb"), *SOURCES.parent.glob("*.ipynb")]:
        code = [cell.source for cell in editions.read(path).cells if cell.cell_type == "code"]
        texts[path], patterns[path] = "\n".join(code), rf"^\s*[!%]|get_ipython|{SHELL}|{FLOAT64}"
    for path, text in texts.items():
        assert not (found := re.search(patterns[path], text, re.MULTILINE)), f"{path.name}: {found[0]}"


def test_an_image_on_the_gpu_is_scored_and_drawn_without_float64():
    """The calls that take samples wherever they are: widened on the CPU only, in the order that Apple's GPU needs."""

    class OnApple(torch.Tensor):
        """A tensor that refuses to become float64 until it was asked to go to the CPU."""

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.Tensor.cpu or (func is torch.Tensor.to and "cpu" in map(str, args)):
                return args[0].as_subclass(torch.Tensor)
            if func is torch.Tensor.double or any(a is torch.float64 for a in (*args, *(kwargs or {}).values())):
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            return super().__torch_function__(func, types, args, kwargs or {})

    images = data.to_unit_range(data.load_images(limit=100)[0])
    on_apple = images.as_subclass(OnApple)
    with pytest.raises(TypeError, match="float64"):
        on_apple.double()
    assert torch.equal(power_spectrum(on_apple), power_spectrum(images))
    assert torch.equal(metrics.features(on_apple), metrics.features(images))
