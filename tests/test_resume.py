"""Surviving: a training that is killed, stopped, out of space or out of range, and what it goes on from."""

import copy
import hashlib
import io
import itertools
import multiprocessing
import os
import pickle
import random
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from trainings import DIFFUSION, LABELS, Bomb, Clock, go, no_space, same, small, state_in, stop_at

from ddpm_course import files
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import linear_schedule
from ddpm_course.training import step as one_step
from ddpm_course.training.state import StateFile


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The contents of a state file at step 40, and of the one before it, at step 35."""
    path = tmp_path_factory.mktemp("begun") / "state"
    go(checkpoint=path, watch=stop_at(40))
    return path.read_bytes(), path.with_name("state.previous").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state at the end of a training that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "state"
    go(checkpoint=path)
    return state_in(path)


EVENTS = ("while writing", "before the renames", "between the renames")
STEPS = 700


def training(event, when, path):
    """In a process of its own: 700 steps, that end at the `when`-th such moment, or so many seconds after a report."""
    torch.set_num_threads(1)
    sys.stdout = Path(f"{path}.log").open("a")  # noqa: SIM115 - for as long as the process lives
    seen, fsync, replace = itertools.count(1), os.fsync, Path.replace

    def here(name, first=lambda: None):
        if name == event and next(seen) == when:
            first()
            os.kill(os.getpid(), signal.SIGKILL)

    def slow_fsync(descriptor):
        here("while writing", lambda: os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2))
        fsync(descriptor)

    def slow_replace(path, target):
        here("between the renames" if path.name.endswith(".partial") else "before the renames")
        return replace(path, target)

    def watch(run):
        if event == "at random" and next(seen) == 1:
            signal.setitimer(signal.ITIMER_REAL, when)  # its signal, too, ends a process at once
        time.sleep(0.01 * (path.name == "state"))

    os.fsync, Path.replace, files._flush_folder = slow_fsync, slow_replace, lambda folder: None
    go(STEPS, checkpoint=path, watch=watch)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork, and this test would take too long without it")
def test_killed_at_any_moment_and_resumed_to_the_same_bits(tmp_path, monkeypatch):
    """17 times: 8 at random times, 3 each in the middle of a write, before its renames and between them.

    The trainings are forks of a process that has imported torch, and never computes anything itself.
    """
    rng = random.Random(0)
    kinds = [("at random", rng.uniform(0.001, 0.3)) for _ in range(8)]
    kinds += [(event, rng.randint(2, 4)) for event in EVENTS for _ in range(3)]
    rng.shuffle(kinds)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "torch._dynamo"])  # the first optimizer imports that

    def start(event="", when=0, path="state"):
        process = processes.Process(target=training, args=(event, when, tmp_path / path))
        process.start()
        return process

    whole = start(path="whole")  # all the while
    for event, when in kinds:
        process = start(event, when)
        process.join()
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGALRM), f"it was not killed {event}"
    for process in (start(), whole):
        process.join()
        assert process.exitcode == 0
    told = (tmp_path / "state.log").read_text()
    steps = [int(step) for step in re.findall(r"going on from .*: step (\d+) of", told)]
    assert steps == sorted(steps) and len(set(steps)) > 8 and steps[-1] < STEPS
    assert told.count("is missing: using the state before it") >= 3 and "damaged" not in told and "cut" not in told
    assert same(state_in(tmp_path / "state"), state_in(tmp_path / "whole"))
    assert not list(tmp_path.glob("*.partial"))


def test_the_stop_button_says_how_to_go_on_and_what_is_finished_is_not_repeated(tmp_path, whole, capsys):
    """With NumPy's numbers, which would make the state unreadable: it holds plain values only."""
    path, mine, other = (
        tmp_path / name for name in ("state", "state.123-0123abcd.partial", "state.2.1-0123abcd.partial")
    )
    mine.touch()  # a killed process left it
    other.touch()  # another training is writing it at this moment
    numbers = dict(lr=np.float64(4e-3), ema_decay=np.float64(0.995), batch_size=np.int64(8), seed=np.int64(0))
    run = go(np.int64(60), checkpoint=path, save_minutes=9, watch=stop_at(35), **numbers)
    assert run.step == 35 and not run.net.training and all(w.isfinite().all() for w in run.ema.net.parameters())
    assert "stopped after 35 steps" in (out := capsys.readouterr().out) and "the same call goes on from step 35" in out
    for said in f"going on from {path}: step 35 of 60", "nothing is left to do":
        run = go(checkpoint=path)
        assert said in capsys.readouterr().out and run.step == 60
        assert same(state_in(path), whole) and run.losses == whole["run"]["losses"]
        assert same([run.net.state_dict(), run.ema.net.state_dict()], [whole["net"], whole["ema"]["net"]])
    assert other.exists() and not mine.exists()
    assert go(watch=stop_at(10)).step == 10
    assert "stopped after 10 steps" in (out := capsys.readouterr().out) and "with checkpoint= the same call" in out


PRESSES = {  # at which call of what, with which options, and the step after which it stops
    "while the loss is computed": (one_step, "diffusion_loss", 23, {}, 23),
    "between the weights' step and the average's": (one_step.EMA, "update", 23, {}, 23),
    "while the losses are read": (one_step.Training, "read_losses", 4, {}, 20),
    "while a state is written": (os, "fsync", 4, dict(save_minutes=0), 10),
    "again, while the state is written": (os, "fsync", 1, dict(watch=stop_at(20)), 20),
}


@pytest.mark.parametrize("owner, name, call, options, step", PRESSES.values(), ids=PRESSES)
def test_the_stop_button_in_any_moment(tmp_path, whole, monkeypatch, stop_button, owner, name, call, options, step):
    """What is going on ends first; the state is written, and goes on to the same bits."""
    path, calls, real = tmp_path / "state", itertools.count(1), getattr(owner, name)

    def interrupted(*args, **kwargs):
        if next(calls) == call:
            stop_button()
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        run = go(checkpoint=path, **dict(save_minutes=9) | options)
    assert run.step == state_in(path)["run"]["step"] == step and not run.net.training
    assert name != "fsync" or step == 20 or state_in(f"{path}.previous")["run"]["step"] == 5  # written once only
    go(checkpoint=path, save_minutes=9)
    assert same(state_in(path), whole)


@pytest.mark.parametrize("stopped_at, pace, seconds", [(50, 5.0, 375), (5, 0.5, 60)], ids=["planned", "measuring"])
def test_a_budget_of_minutes_keeps_its_plan(tmp_path, monkeypatch, capsys, stopped_at, pace, seconds):
    """120 steps were planned; the machine that goes on is ten times slower, and still makes 120. Where there was no
    plan yet, it is made then."""
    with monkeypatch.context() as patch:
        Clock(patch, lambda step: 0.5)
        go(minutes=1, checkpoint=tmp_path / "state", watch=stop_at(stopped_at))
    Clock(monkeypatch, lambda step: pace)
    run = go(minutes=1, checkpoint=tmp_path / "state")
    assert run.step == run.steps == 120 and abs(run.seconds - seconds) < 1e-6
    out = capsys.readouterr().out
    assert out.count("steps/s: 1 minutes are 120 steps") == out.count("steps/s") == 1
    assert f": step {stopped_at}" + (" of 120\n" if stopped_at == 50 else "\n") in out


def test_on_another_kind_of_device_it_goes_on_and_says_what_changes(tmp_path, begun, capsys):
    path = tmp_path / "state"
    path.write_bytes(begun[0])
    state = StateFile(path, {})._read(path)
    StateFile(path, state["about"]).save(state | dict(device="cuda", generator=torch.zeros(16, dtype=torch.uint8)))
    assert go(checkpoint=path).step == 60
    assert "another kind of device" in capsys.readouterr().out


def forged(content):
    return StateFile.FORMAT + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def saved_by_torch(things):
    buffer = io.BytesIO()
    torch.save(things, buffer)
    return buffer.getvalue()


HOSTILE = saved_by_torch({"about": {}, "net": Bomb()})
NO_STATE, NOTHING_RUN = "is not a training state of this course", "nothing in it was run"
SPOILT = {
    "empty": (lambda whole: b"", "is empty"),
    "cut short": (lambda whole: whole[:-1], "is cut short or damaged"),
    "one bit turned": (lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], "damaged"),
    "binary": (lambda whole: bytes(range(256)) * 9, NO_STATE),
    "older": (lambda whole: whole.replace(b"state 1", b"state 0", 1), "was written by another version of this course"),
    "hostile pickle": (lambda whole: pickle.dumps(Bomb()), NO_STATE),
    "hostile torch.save": (lambda whole: HOSTILE, NO_STATE),
    "hostile pickle, well forged": (lambda whole: forged(pickle.dumps(Bomb(), 2)), NOTHING_RUN),
    "hostile torch.save, well forged": (lambda whole: forged(HOSTILE), NOTHING_RUN),
    "other things": (lambda whole: forged(saved_by_torch([1, 2])), NO_STATE),
}


@pytest.mark.parametrize("spoil, complaint", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_state_gives_a_sentence(tmp_path, begun, whole, monkeypatch, capsys, spoil, complaint):
    """Alone it is refused and left as it is; where there is one before it, that is used, and ends in the same bits."""
    monkeypatch.chdir(tmp_path)
    state, bad = tmp_path / "state", spoil(begun[0])
    state.write_bytes(bad)
    with pytest.raises(ValueError, match=complaint + ".*nothing to go on from"):
        go(checkpoint=state)
    assert state.read_bytes() == bad
    (tmp_path / "state.previous").write_bytes(begun[1])
    go(checkpoint=state)
    out = capsys.readouterr().out
    assert complaint in out and "using the state before it, state.previous" in out and "step 35 of 60" in out
    assert same(state_in(state), whole) and (tmp_path / "state.damaged").read_bytes() == bad
    assert not (tmp_path / "bomb-went-off").exists()


def test_the_bomb_is_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.load(io.BytesIO(HOSTILE), weights_only=False)
    assert (tmp_path / "bomb-went-off").exists()


OTHER = dict(
    network=dict(net=small(width=4)), images=dict(images=torch.zeros(40, 1, 8, 8).byte()), labels=dict(labels=LABELS.flip(0)),
    predicts=dict(diffusion=GaussianDiffusion(DIFFUSION.schedule, "noise")),
    betas=dict(diffusion=GaussianDiffusion(linear_schedule(), "v")), minutes=dict(minutes=1),
    steps=dict(steps=61), batch_size=dict(batch_size=4), lr=dict(lr=1e-3), ema_decay=dict(ema_decay=0.9),
    label_dropout=dict(label_dropout=0.2), kind=dict(kind="l1"), seed=dict(seed=1), accumulate=dict(accumulate=2),
    weight_decay=dict(weight_decay=0.1), clip=dict(clip=2),
)  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_another_training_is_refused_by_name(tmp_path, begun, name):
    path = tmp_path / "state"
    path.write_bytes(begun[0])
    with pytest.raises(ValueError, match=rf"belongs to another training; what differs: .*{name} \(.* then, .* now\)"):
        go(checkpoint=path, **OTHER[name])
    assert path.read_bytes() == begun[0]


def test_a_batch_in_parts_goes_on_with_the_same_bits_and_only_in_as_many_parts(tmp_path):
    """With dropout and batch normalisation. States of the defaults do not mention them, as older states do not."""
    for name, stop in ("whole", None), ("state", 35), ("state", None):
        go(accumulate=3, checkpoint=tmp_path / name, watch=stop and stop_at(stop))
    assert same(state_in(tmp_path / "state"), state_in(tmp_path / "whole"))
    with pytest.raises(ValueError, match=r"what differs: accumulate \(3 then, the default now\)\."):
        go(checkpoint=tmp_path / "state")


@pytest.mark.parametrize("fails", [lambda n: n % 2, lambda n: n > 3], ids=["now and then", "from some moment on"])
def test_a_full_disk_costs_no_training(tmp_path, whole, monkeypatch, capsys, fails):
    """The disk is full at some of the writes: said in a sentence, the training goes on, the last good state is whole."""
    calls, fsync = itertools.count(1), os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: no_space() if fails(next(calls)) else fsync(descriptor))
        patch.setattr(files, "_flush_folder", lambda folder: None)
        run = go(checkpoint=tmp_path / "state")
    assert run.step == 60 and torch.equal(run.net.into.weight, whole["net"]["into.weight"])
    out = capsys.readouterr().out
    assert "could not be written" in out and "No space left on device" in out and "holds the state of step" in out
    assert not list(tmp_path.glob("*.partial"))
    go(checkpoint=tmp_path / "state")  # there is room again
    assert same(state_in(tmp_path / "state"), whole)


def test_an_explosion_goes_back_to_the_last_good_report(tmp_path):
    """From step 17 on the loss is infinite: at step 20 it stops, the networks are those of step 15, and so is the file."""
    kept, count = {}, itertools.count(1)

    def watch(run):
        kept["run"], kept[run.step] = run, copy.deepcopy([run.net.state_dict(), run.ema.net.state_dict()])
        if run.step == 10:
            run.net.register_forward_hook(lambda net, args, out: out / (next(count) < 7))

    with pytest.raises(FloatingPointError) as caught:
        go(checkpoint=tmp_path / "state", watch=watch)
    caught.match("^the loss is (nan|inf) at step 20; the last finite one was .*, and the networks are back at step 15")
    caught.match(r"Try a smaller lr than 0.004\. .*state holds the state of step 15\.$")
    run = kept["run"]
    assert same([run.net.state_dict(), run.ema.net.state_dict()], kept[15]) and not run.net.training
    assert state_in(tmp_path / "state")["run"]["step"] == 15


@pytest.mark.parametrize("spoilt, place", [(3, "at step 5; no finite one .* step 0"), (15, "at step 15; .* step 10")])
def test_weights_that_explode_behind_a_finite_loss_are_noticed_at_once(tmp_path, monkeypatch, spoilt, place):
    """The 15th step's gradient is nan: its loss was still finite, but no state with such weights is written."""
    calls, clip = itertools.count(1), nn.utils.clip_grad_norm_

    def spoil(parameters, limit):
        parameters = list(parameters)
        clip(parameters, limit)
        if next(calls) == spoilt:
            parameters[0].grad.fill_(float("nan"))

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(FloatingPointError, match=f"the loss is nan {place}"):
        go(checkpoint=tmp_path / "state")
    assert spoilt == 3 or state_in(tmp_path / "state")["run"]["step"] == 10
