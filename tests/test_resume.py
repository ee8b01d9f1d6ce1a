"""Surviving: a training that is killed, stopped, out of space or out of range, and what it goes on from.

The kills are SIGKILLs from this process. To save the seconds that importing torch takes, the trainings are forks of one
helper (this file, run as a program), which imports torch once and never computes anything itself.
"""

import hashlib
import io
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ddpm_course import checkpoints, training, training_step
from ddpm_course.checkpoints import StateFile
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.training import train
from ddpm_course.unet import UNet


class Small(nn.Module):
    """A network of a few hundred weights that has everything a state must hold: classes, dropout, a buffer."""

    num_classes = 3

    def __init__(self, width=8):
        super().__init__()
        self.into, self.out = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.label, self.norm, self.dropout = nn.Embedding(4, width), nn.BatchNorm2d(width), nn.Dropout(0.2)

    def forward(self, x, t, y=None):
        h = self.norm(self.into(x)) + self.label(y)[:, :, None, None] + (t / 1000).reshape(-1, 1, 1, 1)
        return self.out(self.dropout(torch.tanh(h)))


IMAGES = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 3


def small(width=8):
    torch.manual_seed(0)
    return Small(width)


def go(steps=60, net=None, images=IMAGES, labels=LABELS, diffusion=None, **how):
    how = dict(batch_size=8, device="cpu", report_every=5, save_minutes=0) | how
    diffusion = diffusion or GaussianDiffusion(cosine_schedule(), "v")
    return train(net or small(), diffusion, images, labels, steps=None if "minutes" in how else steps, **how)


def everything(path):
    """All that is in a state file but the seconds, which no two runs share."""
    state = StateFile(path, {})._read(Path(path))
    del state["run"]["seconds"]
    return state


def same(a, b):
    """Equal to the last bit, all the way down."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def stop_at(step):
    def watch(run):
        if run.step == step:
            raise KeyboardInterrupt

    return watch


@pytest.fixture
def whole(tmp_path):
    """The state at the end of a training that nothing happened to."""
    go(checkpoint=tmp_path / "whole")
    return everything(tmp_path / "whole")


# ---- killed ----

EVENTS = ("while writing", "before the renames", "between the renames")
STEPS = 1200


def kill_me_there(event, count):
    """In the training process: at the `count`-th such moment, say so and wait for the end."""
    seen = itertools.count(1)

    def here(name):
        if name == event and next(seen) == count:
            os.write(1, b"now\n")
            time.sleep(600)

    class Slowly:
        """A file of which half is on the disk when it happens."""

        def __init__(self, file):
            self.file = file

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            here("while writing")
            self.file.write(content[len(content) // 2 :])

        def __enter__(self):
            return self

        def __exit__(self, *how):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    path_open, path_replace = Path.open, Path.replace

    def slow_open(path, mode="r", *more):
        file = path_open(path, mode, *more)
        return Slowly(file) if mode == "xb" else file

    def slow_replace(path, target):
        here("before the renames" if not path.name.endswith(".partial") else "between the renames")
        return path_replace(path, target)

    Path.open, Path.replace = slow_open, slow_replace


def be_the_helper():
    """Fork a training for every line of the standard input: `event count pause path`."""
    import torch._dynamo  # noqa: F401 - the first optimizer of a process imports it

    torch.set_num_threads(1)
    for line in sys.stdin:
        event, count, pause, path = line.rstrip("\n").split("|")
        child = os.fork()
        if child == 0:
            kill_me_there(event, int(count))
            go(STEPS, checkpoint=path, watch=lambda run, pause=float(pause): time.sleep(pause))
            print("finished", flush=True)
            os._exit(0)
        print("process", child, flush=True)
        os.waitpid(child, 0)
        print("over", flush=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork, and this test would take too long without it")
def test_killed_at_any_moment_and_resumed_to_the_same_bits(tmp_path):
    """24 SIGKILLs: 12 at random times, 4 each in the middle of a write, before its renames and between them."""
    rng = random.Random(0)
    kinds = [("", 0)] * 12 + [(event, rng.randint(2, 4)) for event in EVENTS for _ in range(4)]
    rng.shuffle(kinds)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    helper = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def start(event="", count=0, pause=0.0, path="state"):
        helper.stdin.write(f"{event}|{count}|{pause}|{tmp_path / path}\n")
        helper.stdin.flush()
        word, process = helper.stdout.readline().split()
        assert word == "process"
        return int(process)

    def lines():
        return list(itertools.takewhile(lambda line: line != "over\n", iter(helper.stdout.readline, "")))

    try:
        start(path="whole")
        assert "finished\n" in lines()
        resumed_at, used_previous = [], 0
        for event, count in kinds:
            process = start(event, count, pause=0.01)
            said = []
            while not said or not said[-1].startswith(
                ("now", "going on" if not event and resumed_at else "training on")
            ):
                said.append(helper.stdout.readline())
                assert said[-1] != "over\n", f"it ended before it was killed, after {len(resumed_at)} kills: {said}"
                if event and said[-1].startswith("training on"):
                    said.append(helper.stdout.readline())
            if not event:
                time.sleep(rng.uniform(0, 0.3))
            os.kill(process, signal.SIGKILL)
            said += lines()
            assert "finished\n" not in said
            resumed_at += [line.split("step ")[1] for line in said if line.startswith("going on")]
            used_previous += any("is missing: using the state before it" in line for line in said)
            assert not any("damaged" in line or "cut short" in line for line in said)
        start()
        said = lines()
        assert "finished\n" in said
    finally:
        helper.stdin.close()
        helper.wait(10)
    steps = [int(text.split(" of ")[0].replace(",", "")) for text in resumed_at]
    assert steps == sorted(steps) and len(set(steps)) > 8 and steps[-1] < STEPS
    assert used_previous >= 3  # of the four that were killed between the renames, the last may be the last of all
    assert same(everything(tmp_path / "state"), everything(tmp_path / "whole"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state", "state.previous", "whole", "whole.previous"]


# ---- stopped ----


def test_the_stop_button_saves_and_says_how_to_go_on(tmp_path, whole, capsys):
    run = go(checkpoint=tmp_path / "state", save_minutes=9, watch=stop_at(35))
    assert run.step == 35 and not run.net.training
    assert "stopped after 35 steps" in (out := capsys.readouterr().out) and "the same call goes on from step 35" in out
    run = go(checkpoint=tmp_path / "state")
    assert f"going on from {tmp_path / 'state'}: step 35 of 60" in capsys.readouterr().out
    assert same(everything(tmp_path / "state"), whole)
    assert run.losses == whole["run"]["losses"] and run.step == 60


def test_without_a_checkpoint_the_stop_button_says_what_it_would_take(capsys):
    assert go(watch=stop_at(10)).step == 10
    assert "stopped after 10 steps" in (out := capsys.readouterr().out) and "with checkpoint= the same call" in out


@pytest.mark.parametrize("at", ["diffusion_loss", "update"])
def test_a_stop_in_the_middle_of_a_step_waits_for_its_end(tmp_path, whole, monkeypatch, at):
    """Ctrl-C while the 23rd loss is computed, or between the weights' step and the average's: resumed to the same bits."""
    owner = training_step if at == "diffusion_loss" else training_step.EMA
    calls, real = itertools.count(1), getattr(owner, at)

    def interrupted(*args, **kwargs):
        if next(calls) == 23:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, at, interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background start out ignoring it
    try:
        run = go(checkpoint=tmp_path / "state", save_minutes=9)
        assert run.step == 23 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    except KeyboardInterrupt:
        pytest.fail("the interrupt got through")  # it would end the tests
    finally:
        signal.signal(signal.SIGINT, before)
    go(checkpoint=tmp_path / "state", save_minutes=9)
    assert same(everything(tmp_path / "state"), whole)


def test_a_second_press_of_the_stop_button_does_not_cost_the_state(tmp_path, whole, monkeypatch):
    """Pressed while the state is being written after the first one: written whole, and the result returned."""
    path, fsync = tmp_path / "state", os.fsync

    def pressed_again(descriptor):
        os.kill(os.getpid(), signal.SIGINT)
        fsync(descriptor)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.os, "fsync", pressed_again)
            assert go(checkpoint=path, save_minutes=9, watch=stop_at(20)).step == 20
    except KeyboardInterrupt:
        pytest.fail("the interrupt got through")
    finally:
        signal.signal(signal.SIGINT, before)
    assert everything(path)["run"]["step"] == 20
    go(checkpoint=path, save_minutes=9)
    assert same(everything(path), whole)


def test_what_another_training_is_writing_beside_it_is_left_alone(tmp_path):
    """`run` clears away what a killed `run` has left, and not what `run.2` is writing at this moment."""
    mine, other = "run.123-0123abcd.partial", "run.2.123-0123abcd.partial"
    for name in (mine, other):
        (tmp_path / name).touch()
    go(4, checkpoint=tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", other]


def test_the_command_line_goes_on_when_the_same_line_is_typed_again(tmp_path, monkeypatch, capsys):
    """Interrupted at its third step and repeated, it leaves what it leaves when nothing happens."""
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("L", (16, 16), 10 * i).save(tmp_path / "images" / f"{i}.png")

    def type_in(name):
        paths = ["--data", tmp_path / "images", "--out", tmp_path / name, "--checkpoint", tmp_path / f"{name}.state"]
        options = ["--steps", "6", "--batch-size", "8", "--widths", "8", *map(str, paths)]
        monkeypatch.setattr(sys, "argv", ["training", *options])
        training.main()
        return capsys.readouterr().out

    def pressed(step, *plan):
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate(step, *plan)

    type_in("whole")
    learning_rate = training.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", pressed)
        assert "stopped after 3 steps" in type_in("again")
    assert "again.state: step 3 of 6" in type_in("again")

    def made(name):
        net, _, about = training.load_checkpoint(tmp_path / name, "cpu")
        return net.state_dict(), about | dict(command="", seconds=0)  # which names it, and no two runs share

    assert same(made("again"), made("whole"))


def test_a_finished_training_is_not_repeated(tmp_path, whole, capsys):
    run = go(checkpoint=tmp_path / "whole", watch=stop_at(60))
    assert run.step == run.steps == 60 and "nothing is left to do" in capsys.readouterr().out
    assert all(torch.equal(value, whole["net"][name]) for name, value in run.net.state_dict().items())
    assert all(torch.equal(value, whole["ema"]["net"][name]) for name, value in run.ema.net.state_dict().items())


def test_the_scaler_of_half_precision_is_in_the_state(tmp_path, monkeypatch):
    """The path of a T4 on the CPU. A growth interval of 4 steps makes the scale change on both sides of the stop."""
    monkeypatch.setattr(training_step, "mixed_precision", lambda *how: torch.float16)
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: scaler(*a, **k, growth_interval=4, init_scale=64.0))

    def unet(**how):
        torch.manual_seed(0)
        return go(14, UNet(widths=(8,), heads=2, num_classes=3), torch.zeros(8, 1, 8, 8).byte(), LABELS[:8], **how)

    unet(checkpoint=tmp_path / "whole")
    unet(checkpoint=tmp_path / "state", watch=stop_at(10))
    state = everything(tmp_path / "state")
    assert state["scaler"]["scale"] == 256.0 and state["scaler"]["_growth_tracker"] == 2
    unet(checkpoint=tmp_path / "state")
    assert same(everything(tmp_path / "state"), everything(tmp_path / "whole"))
    assert everything(tmp_path / "state")["scaler"]["scale"] == 512.0


def test_a_budget_of_minutes_keeps_its_plan(tmp_path, monkeypatch, capsys):
    """120 steps were planned; the machine that goes on is ten times slower, and still makes 120."""
    from test_training import Clock

    with monkeypatch.context() as patch:
        Clock(patch, lambda step: 0.5)
        go(minutes=1, checkpoint=tmp_path / "state", watch=stop_at(50))
    assert "1 minutes are 120 steps" in capsys.readouterr().out
    Clock(monkeypatch, lambda step: 5.0)
    run = go(minutes=1, checkpoint=tmp_path / "state")
    assert run.step == run.steps == 120 and abs(run.seconds - (50 * 0.5 + 70 * 5)) < 1e-6
    assert "steps/s" not in capsys.readouterr().out


def test_a_stop_before_there_is_a_plan(tmp_path, monkeypatch, capsys):
    from test_training import Clock

    Clock(monkeypatch, lambda step: 0.5)
    assert go(minutes=1, checkpoint=tmp_path / "state", watch=stop_at(5)).steps is None
    run = go(minutes=1, checkpoint=tmp_path / "state")
    assert run.step == run.steps == 120 and "step 5\n" in capsys.readouterr().out


def test_on_another_kind_of_device_it_goes_on_and_says_what_changes(tmp_path, capsys):
    go(checkpoint=tmp_path / "state", watch=stop_at(30))
    file = StateFile(tmp_path / "state", {})
    state = file._read(file.path)
    file.about = state["about"]
    file.save(state | dict(device="cuda", generator=torch.zeros(16, dtype=torch.uint8)))
    assert go(checkpoint=tmp_path / "state").step == 60
    assert "another kind of device" in capsys.readouterr().out


# ---- files that are not what they should be ----


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


def forged(content):
    return StateFile.FORMAT + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def saved_by_torch(things):
    buffer = io.BytesIO()
    torch.save(things, buffer)
    return buffer.getvalue()


def hostile_torch_file():
    return saved_by_torch({"about": {}, "net": Bomb()})


SPOILT = {
    "empty": (lambda whole: b"", "is empty"),
    "cut short": (lambda whole: whole[: len(whole) // 2], "is cut short or damaged"),
    "without its last byte": (lambda whole: whole[:-1], "is cut short or damaged"),
    "one bit turned": (lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], "damaged"),
    "a text": (lambda whole: b"My notes\non diffusion\n", "is not a training state of this course"),
    "binary": (lambda whole: bytes(range(256)) * 9, "is not a training state of this course"),
    "older": (
        lambda whole: whole.replace(b"state 1", b"state 0", 1),
        "was written by another version of this course",
    ),
    "hostile pickle": (lambda whole: pickle.dumps(Bomb()), "is not a training state of this course"),
    "hostile torch.save": (lambda whole: hostile_torch_file(), "is not a training state of this course"),
    "hostile pickle, well forged": (lambda whole: forged(pickle.dumps(Bomb(), 2)), "nothing in it was run"),
    "hostile torch.save, well forged": (
        lambda whole: forged(hostile_torch_file()),
        "nothing in it was run",
    ),
    "other things": (lambda whole: forged(saved_by_torch([1, 2])), "is not a training state of this course"),
}


@pytest.mark.parametrize("spoil, complaint", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_state_gives_a_sentence_and_the_one_before_is_used(
    tmp_path, whole, monkeypatch, capsys, spoil, complaint
):
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"
    go(checkpoint=state, watch=stop_at(40))
    bad = spoil(state.read_bytes())
    state.write_bytes(bad)
    run = go(checkpoint=state, watch=stop_at(40))  # 40 again: so it went on from an earlier one
    out = capsys.readouterr().out
    assert complaint in out and "using the state before it, state.previous" in out and "step 35 of 60" in out
    assert run.step == 40 and not (tmp_path / "bomb-went-off").exists()
    assert (tmp_path / "state.damaged").read_bytes() == bad
    go(checkpoint=state)
    assert same(everything(state), whole)


@pytest.mark.parametrize("spoil, complaint", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_state_alone_is_refused_and_left_as_it_is(tmp_path, monkeypatch, spoil, complaint):
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"
    go(5, checkpoint=state)
    bad = spoil(state.read_bytes())
    (tmp_path / "state.previous").unlink(missing_ok=True)
    state.write_bytes(bad)
    with pytest.raises(ValueError, match=complaint + ".*nothing to go on from"):
        go(5, checkpoint=state)
    assert state.read_bytes() == bad and not (tmp_path / "bomb-went-off").exists()


def test_the_bombs_of_the_tests_above_are_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.load(io.BytesIO(hostile_torch_file()), weights_only=False)
    assert (tmp_path / "bomb-went-off").exists()


def test_in_a_folder_every_training_goes_on_from_its_own_state(tmp_path, capsys):
    """Other arguments are no error there, as they are for a file: they begin another training."""
    go(checkpoint=tmp_path, watch=stop_at(10))
    go(checkpoint=tmp_path, seed=1, watch=stop_at(20))
    assert "going on" not in capsys.readouterr().out
    assert go(checkpoint=tmp_path, seed=1, watch=stop_at(25)).step == 25
    assert "step 20 of 60" in capsys.readouterr().out
    assert go(checkpoint=tmp_path, watch=stop_at(15)).step == 15
    assert "step 10 of 60" in capsys.readouterr().out


def deeper():
    net = small()
    net.extra = nn.Linear(1, 1)
    return net


OTHER = {
    "network": dict(net=deeper()),
    "images": dict(images=IMAGES.flip(0)),
    "labels": dict(labels=LABELS.flip(0)),
    "predicts": dict(diffusion=GaussianDiffusion(cosine_schedule(), "noise")),
    "betas": dict(diffusion=GaussianDiffusion(linear_schedule(), "v")),
    "minutes": dict(minutes=1),
    "steps": dict(steps=61),
    "batch_size": dict(batch_size=4),
    "lr": dict(lr=1e-3),
    "ema_decay": dict(ema_decay=0.9),
    "label_dropout": dict(label_dropout=0.2),
    "kind": dict(kind="l1"),
    "seed": dict(seed=1),
}


@pytest.mark.parametrize("name, how", OTHER.items(), ids=OTHER)
def test_another_training_is_refused_by_name(tmp_path, name, how):
    go(checkpoint=tmp_path / "state", watch=stop_at(10))
    content = (tmp_path / "state").read_bytes()
    with pytest.raises(ValueError, match=rf"belongs to another training; what differs: .*{name} \(.* then, .* now\)"):
        go(checkpoint=tmp_path / "state", **how)
    assert (tmp_path / "state").read_bytes() == content


def test_numpy_numbers_do_not_spoil_the_state(tmp_path, whole):
    """A state holds plain values only: NumPy's would make it unreadable."""
    import numpy as np

    how = dict(lr=np.float64(4e-3), ema_decay=np.float64(0.995), checkpoint=tmp_path / "state")
    how |= dict(batch_size=np.int64(8), seed=np.int64(0))
    go(np.int64(60), **how, watch=stop_at(30))
    go(np.int64(60), **how)
    assert same(everything(tmp_path / "state") | dict(about=0), whole | dict(about=0))


# ---- no space ----


@pytest.mark.parametrize("fails", [lambda n: n % 2, lambda n: n > 3], ids=["now and then", "from some moment on"])
def test_a_full_disk_costs_no_training(tmp_path, whole, monkeypatch, capsys, fails):
    """The disk is full at some of the writes: said in a sentence, the training goes on, the last good state is whole."""
    calls, fsync = itertools.count(1), os.fsync

    def full_disk(descriptor):
        fsync(descriptor)
        if (tmp_path / "here").exists() and fails(next(calls)):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full_disk)
    monkeypatch.setattr(checkpoints, "_flush_folder", lambda folder: None)
    (tmp_path / "here").touch()
    run = go(checkpoint=tmp_path / "state")
    assert run.step == 60 and torch.equal(run.net.into.weight, whole["net"]["into.weight"])
    out = capsys.readouterr().out
    assert "could not be written" in out and "No space left on device" in out and "holds the state of step" in out
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "here").unlink()
    go(checkpoint=tmp_path / "state")  # there is room again
    assert same(everything(tmp_path / "state"), whole)


# ---- out of range ----


def test_an_explosion_goes_back_to_the_last_good_report(tmp_path):
    """From step 17 on the loss is infinite: at step 20 it stops, the networks are those of step 15, and so is the file."""
    kept = {}

    def watch(run):
        kept[run.step] = [w.clone() for w in (*run.net.state_dict().values(), *run.ema.net.state_dict().values())]
        if run.step == 10:
            run.net.register_forward_hook(lambda net, args, out: out / (next(count) < 7))
        kept["run"] = run

    count = itertools.count(1)
    with pytest.raises(FloatingPointError) as caught:
        go(checkpoint=tmp_path / "state", watch=watch)
    assert "at step 20; the last finite one was " in (text := str(caught.value)) and "back at step 15" in text
    assert "smaller lr than 0.004" in text and "holds the state of step 15" in text
    run = kept["run"]
    now = [*run.net.state_dict().values(), *run.ema.net.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(now, kept[15], strict=True))
    assert everything(tmp_path / "state")["run"]["step"] == 15


def test_weights_that_explode_behind_a_finite_loss_are_noticed_at_once(tmp_path, monkeypatch):
    """The 15th step's gradient is nan: its loss was still finite, but no state with such weights is written."""
    calls, clip = itertools.count(1), nn.utils.clip_grad_norm_

    def spoil(parameters, limit):
        parameters = list(parameters)
        clip(parameters, limit)
        if next(calls) == 15:
            parameters[0].grad.fill_(float("nan"))

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(FloatingPointError, match=r"at step 15; .* back at step 10\..* holds the state of step 10"):
        go(checkpoint=tmp_path / "state")


# ---- compiled ----


def test_compiling_leaves_ordinary_names_and_the_same_weights(tmp_path, monkeypatch):
    """torch.compile with its "eager" back end, which needs no compiler: names in net, average and state are the plain
    ones, and a run that began uncompiled goes on compiled."""
    compiled, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: (compiled.append(net), real(net, backend="eager"))[1])
    plain = go(20)
    assert compiled == []
    run = go(20, compile=True, checkpoint=tmp_path / "state", watch=stop_at(10))
    assert compiled == [run.net]
    run = go(20, checkpoint=tmp_path / "state")
    names = set(small().state_dict())
    state = everything(tmp_path / "state")
    assert set(run.net.state_dict()) == set(run.ema.net.state_dict()) == set(state["net"]) == names
    for ours, theirs in zip(run.net.state_dict().values(), plain.net.state_dict().values(), strict=True):
        assert (ours - theirs).abs().max() < 1e-6


if __name__ == "__main__":
    be_the_helper()
