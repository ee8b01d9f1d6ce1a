"""`make test-gpu` without a GPU: its parts at small sizes on the CPU, what they say of broken code, and the runner."""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from ddpm_course.training.step import Training

CPU = ["--device", "cpu", "--small"]


def load(folder, name):
    """tests/FOLDER/NAME.py, by another name: there are more files that are called run.py."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", Path(__file__).parent / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts, run, measure = load("gpu", "parts"), load("gpu", "run"), load("benchmarks", "measure")


@pytest.mark.parametrize("part", [part for part in run.LIMITS if part != "processes"])  # tests/test_distributed.py
def test_parts_on_the_cpu(part):
    rows = list(parts.rows_of(part, "cpu", True))
    assert rows and [row for row in rows if row["passed"] is False] == []
    json.dumps(rows)


def elsewhere(monkeypatch):
    make = parts.new_training

    def new_training(*arguments):
        training = make(*arguments)
        training.good_weights = [torch.empty(1, device="meta")]
        return training

    monkeypatch.setattr(parts, "new_training", new_training)


def scaled_gradients(monkeypatch):
    monkeypatch.setattr(torch.amp.GradScaler, "unscale_", lambda *_: None)


def forgotten_random_state(monkeypatch):
    load = Training.load_state_dict
    monkeypatch.setattr(Training, "load_state_dict", lambda self, state: load(self, state | {"device": "another"}))


@pytest.mark.parametrize(
    ("part", "broken", "failed"),
    [
        ("placement", elsewhere, ["training and sampling stay on cpu"]),
        ("precision", scaled_gradients, ["precision: float16, scaled"]),
        ("resume", forgotten_random_state, ["a training stopped half-way and gone on with"]),
    ],
)
def test_parts_notice_what_is_broken(monkeypatch, part, broken, failed):
    broken(monkeypatch)
    rows = parts.rows_of(part, "cpu", True)
    assert [row["check"] for row in rows if row["passed"] is False] == failed


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    make = parts.new_training

    def new_training(net, diffusion, device, batch, side):
        if batch > 2:
            raise torch.OutOfMemoryError
        return make(net, diffusion, device, batch, side)

    monkeypatch.setattr(parts, "new_training", new_training)
    assert [row.get("batch") for row in parts.rows_of("speed", "cpu", True)] == [None, 2, 2]


def test_the_recipe_is_lesson_00s():
    """Nothing but `train`'s defaults."""
    (ours, our_meaning), (net, meaning, keywords) = parts.lesson_00(), measure.lesson_00()
    assert ours.arguments == net.arguments and keywords == {}
    assert our_meaning.predicts == meaning.predicts
    assert torch.equal(our_meaning.schedule.beta, meaning.schedule.beta)


def test_a_part_that_raises_dies_or_hangs_is_a_row(monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "machine", lambda *_: 1 / 0)
    (row,) = parts.rows_of("machine", "cpu", True)
    assert not row["passed"] and row["found"].startswith("failed: ZeroDivisionError: division by zero (")

    script = tmp_path / "run.py"
    monkeypatch.setattr(run, "__file__", str(script))
    first = json.dumps(dict(check="first", passed=True, found=""))
    for ending, limit, problem in (
        ("sys.exit('CUDA error')", 60, "failed: it ended with 1: CUDA error"),
        ("time.sleep(60)", 2, "failed: it was not done after 2 seconds"),
    ):
        script.write_text(f"import sys, time\nprint({first!r}, flush=True)\n{ending}\n", encoding="utf-8")
        monkeypatch.setitem(run.LIMITS, "machine", limit)
        rows = list(run.rows_from_process("machine", CPU))
        assert [(row["check"], row["found"]) for row in rows] == [("first", ""), ("machine", problem)]


def test_without_pillow_and_pyarrow_all_but_the_pictures_is_there():
    script = f"""
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name: find(name) if name not in ("tqdm", "PIL", "pyarrow") else None
        sys.path.insert(0, {str(Path(run.__file__).parent)!r})
        import run
        run.run_part("recipe", "cpu", True)
        from ddpm_course import parquet, pictures, samplers
        assert all("Mock" in repr(one) for one in (parquet.pq, pictures.Image, samplers.tqdm))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["found"] == "skipped: no pictures can be read"


def test_the_table_and_its_file(monkeypatch, tmp_path, capsys):
    given = dict(check="a check", passed=True, found="Fréchet"), dict(check="another", passed=False, found="failed")
    monkeypatch.setattr(run, "rows_from_process", lambda name, options: given if options == CPU else ())
    monkeypatch.setattr(sys, "argv", ["run.py", "speed", *CPU, "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "FAILED", "2"] and lines[-1].endswith("1 failed")
    stored = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [row | given[i] for i, row in enumerate(stored)] == stored and stored[0]["part"] == "speed"

    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "einops" else True)
    with pytest.raises(SystemExit, match="This needs einops, which .* does not have; pip installs them"):
        run.main()
