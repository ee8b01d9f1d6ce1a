"""Several processes, one training: real ones, started by `python -m torch.distributed.run` on the CPU (gloo)."""

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ddpm_course import training_step
from ddpm_course.checkpoints import StateFile
from ddpm_course.devices import Team
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import load_checkpoint, train
from ddpm_course.unet import UNet

BATCH = 14  # 2 processes get 6 and 8 images of it, 3 get 4, 4 and 6


def go(steps=20, **how):
    """A training in float64 on the CPU: U-Net, labels with dropout, self-conditioning, a rate that makes clipping bite."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        net = UNet(widths=(8,), heads=2, num_classes=3, self_condition=True)
        assert net.out.weight.dtype == torch.float64
        with torch.no_grad():
            net.out.weight.normal_(0, 3.0)  # a bad start: its gradients are longer than 1
        images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        how = dict(batch_size=BATCH, device="cpu", report_every=5, save_minutes=0, label_dropout=0.3) | how
        diffusion = GaussianDiffusion(cosine_schedule(), "v")
        return train(net, diffusion, images, torch.arange(40) % 3, steps=steps, **how)
    finally:
        torch.set_default_dtype(before)


def torchrun(processes, *command):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launch, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def distance(net, state):
    return max((value - state[name]).abs().max().item() for name, value in net.state_dict().items())


@pytest.fixture(scope="module")
def alone():
    norms, clip = [], nn.utils.clip_grad_norm_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", lambda *how: norms.append(clip(*how).item()))
        run = go()
    assert sum(norm > 1 for norm in norms) > 5  # clipping matters in this run
    return run


@pytest.mark.parametrize("processes, begins_at", [(2, 0), (3, 10)])
def test_processes_train_the_network_that_one_would(tmp_path, alone, processes, begins_at):
    """20 steps in float64: weights, average and losses to 1e-9. Three processes go on from where one stopped at step 10."""
    path = tmp_path / "state"
    if begins_at:

        def stop(run):
            if run.step == begins_at:
                raise KeyboardInterrupt

        go(checkpoint=path, watch=stop)
    done = torchrun(processes, __file__, path)
    state = StateFile(path, {})._read(path)
    assert state["run"]["step"] == 20 and set(state["net"]) == set(alone.net.state_dict())
    assert distance(alone.net, state["net"]) < 1e-9
    assert distance(alone.ema.net, state["ema"]["net"]) < 1e-9
    assert [step for step, _ in state["run"]["losses"]] == [5, 10, 15, 20]
    for (_, ours), (_, theirs) in zip(alone.losses, state["run"]["losses"], strict=True):
        assert abs(ours - theirs) < 1e-9
    said = done.stdout.splitlines()
    assert said.count(f"training on cpu in {processes} processes") == 1
    assert sum(line.startswith("going on from") for line in said) == (begins_at > 0)
    assert [line for line in said if line.startswith("watched")] == [
        f"watched {s}" for s in range(begins_at + 5, 21, 5)
    ]
    assert re.findall(r"worst difference between processes: (\S+)", done.stdout) == ["0.0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state", "state.previous"]


@pytest.mark.parametrize("stopped", ["0", "1", "01"])
def test_a_stop_reaches_all_processes_at_the_same_step(tmp_path, alone, stopped):
    """Ctrl-C arrives in one of two processes at step 7, or in both at other steps: all stop at the report, one writes."""
    path = tmp_path / "state"
    done = torchrun(2, __file__, path, stopped)
    assert "stopped after 10 steps" in done.stdout and done.stdout.count("stopped after") == 1
    assert re.findall(r"worst difference between processes: (\S+)", done.stdout) == ["0.0"]
    assert re.findall(r"^(\d) writes", done.stdout, re.M) == ["0"]
    assert StateFile(path, {})._read(path)["run"]["step"] == 10
    done = torchrun(2, __file__, path)
    assert "going on from" in done.stdout and distance(alone.net, StateFile(path, {})._read(path)["net"]) < 1e-9


TELLS_OF_ITS_FILES = """
import os, runpy, sys

def tell(event, details):
    if event == "open" and str(details[0]).endswith(".partial"):
        print("writes", os.path.basename(details[0]).rsplit(".", 2)[0], flush=True)

sys.addaudithook(tell)
runpy.run_module("ddpm_course.training", run_name="__main__")
"""


def test_the_command_line_under_torchrun(tmp_path):
    """Minutes are planned by the first process for all; one checkpoint is written, by one of them."""
    from PIL import Image

    for i in range(20):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("L", (16, 16), 10 * i).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "told.py").write_text(TELLS_OF_ITS_FILES)
    options = ["--data", tmp_path / "images", "--minutes", "0.02", "--batch-size", "8", "--widths", "8"]
    done = torchrun(2, tmp_path / "told.py", *options, "--out", tmp_path / "model")
    assert done.stdout.count("steps/s: 0.02 minutes are") >= 1 and done.stdout.count("training on cpu") == 1
    assert load_checkpoint(tmp_path / "model", "cpu")[2]["steps"] >= 3
    assert sorted(re.findall("^writes (.*)", done.stdout, re.M)) == ["model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "model.safetensors", "told.py"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("n", [10, 11, 14, 64])
def test_shares_cover_the_batch_once_and_begin_at_even_rows(n, size):
    shares = [Team(torch.device("cpu"), rank, size).share(n) for rank in range(size)]
    assert [i for share in shares for i in range(n)[share]] == list(range(n))
    assert all(share.start % 2 == 0 and share.stop > share.start for share in shares)


def test_a_batch_too_small_for_the_processes_is_named(monkeypatch):
    monkeypatch.setattr(Team, "join", classmethod(lambda cls, device=None: cls(torch.device("cpu"), 0, 8)))
    with pytest.raises(ValueError, match="a batch of 14 is too small for 8 processes"):
        go()


def press_the_button_in(rank, ranks):
    """The seventh step of this process, the eighth of the next one, is interrupted in its middle; writing is told."""
    compute, save, calls = training_step.diffusion_loss, StateFile.save, itertools.count(1)

    def interrupted(*args, **kwargs):
        if next(calls) == 7 + int(rank) and rank in ranks:
            os.kill(os.getpid(), signal.SIGINT)
        return compute(*args, **kwargs)

    def told(self, state):
        print(rank, "writes", flush=True)
        save(self, state)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background starts out ignoring it
    training_step.diffusion_loss, StateFile.save = interrupted, told


def main():
    """One of the processes: STATE, and the ranks of those in which the stop button is pressed."""
    import torch.distributed as dist

    rank, how = os.environ["RANK"], {}
    if len(sys.argv) > 2:
        press_the_button_in(rank, sys.argv[2])
        how = dict(save_minutes=9)  # only what the stop itself writes
    run = go(checkpoint=Path(sys.argv[1]), watch=lambda run: print("watched", run.step, flush=True), **how)
    flat = torch.cat([value.flatten() for value in run.net.state_dict().values()])
    low, high = flat.clone(), flat.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        print(f"worst difference between processes: {(high - low).max().item()}")


if __name__ == "__main__":
    main()
