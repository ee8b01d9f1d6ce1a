"""Several processes, one training: real ones, started by `python -m torch.distributed.run` on the CPU (gloo)."""

import itertools
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from courses import run as command
from PIL import Image
from torch import nn
from trainings import go, state_in, stop_at, unet, weights

from ddpm_course.training import load_checkpoint
from ddpm_course.training.devices import Team


def go_in_float64(**options):
    """20 steps on the CPU: U-Net, labels with dropout, self-conditioning, a rate that makes clipping bite.

    Of a batch of 14, 2 processes get 6 and 8 images, 3 get 4, 4 and 6.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        net = unet(self_condition=True)
        assert net.out.weight.dtype == torch.float64
        nn.init.normal_(net.out.weight, 0, 3.0)  # a bad start: its gradients are longer than 1
        return go(20, net=net, batch_size=14, label_dropout=0.3, **options)
    finally:
        torch.set_default_dtype(before)


def torchrun(processes, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = command(sys.executable, *launch, *arguments, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def distance(net, state):
    return max((value - state[name]).abs().max().item() for name, value in net.state_dict().items())


@pytest.fixture(scope="module")
def alone():
    norms, clip = [], nn.utils.clip_grad_norm_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", lambda *limit: norms.append(clip(*limit).item()))
        run = go_in_float64()
    assert sum(norm > 1 for norm in norms) > 5  # clipping matters in this run
    return run


@pytest.mark.parametrize("processes, begins_at", [(2, 0), (3, 10)])
def test_processes_train_the_network_that_one_would(tmp_path, alone, processes, begins_at):
    """20 steps in float64: weights, average and losses to 1e-9. Three processes go on from where one stopped at step 10."""
    path = tmp_path / "state"
    if begins_at:
        go_in_float64(checkpoint=path, watch=stop_at(begins_at))
    out, state = torchrun(processes, __file__, path), state_in(path)
    assert state["run"]["step"] == 20 and set(state["net"]) == set(alone.net.state_dict())
    assert distance(alone.net, state["net"]) < 1e-9 and distance(alone.ema.net, state["ema"]["net"]) < 1e-9
    ours, theirs = (torch.tensor(losses, dtype=torch.float64) for losses in (alone.losses, state["run"]["losses"]))
    assert (ours - theirs).abs().max() < 1e-9
    assert out.count(f"training on cpu in {processes} processes") == 1
    assert out.count("going on from") == (begins_at > 0)
    assert re.findall(r"watched (\d+)", out) == [str(step) for step in range(begins_at + 5, 21, 5)]
    assert re.findall(r"worst difference between processes: (\S+)", out) == ["0.0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state", "state.previous"]


def test_the_command_line_under_torchrun(tmp_path):
    """Minutes are planned by the first process for all."""
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.new("L", (16, 16), 10 * i).save(tmp_path / "images" / f"{i}.png")
    options = ["--data", tmp_path / "images", "--minutes", "0.02", "--batch-size", "8", "--widths", "8"]
    out = torchrun(2, "-m", "ddpm_course.training", *options, "--out", tmp_path / "model")
    assert out.count("steps/s: 0.02 minutes are") >= 1 and out.count("training on cpu") == 1
    assert load_checkpoint(tmp_path / "model", "cpu")[2]["steps"] >= 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "model.safetensors"]


@pytest.mark.parametrize("n, size", [*itertools.product((10, 11, 14, 64), (1, 2, 3, 4, 5))])
def test_shares_cover_the_batch_once_and_begin_at_even_rows(n, size):
    shares = [Team(torch.device("cpu"), rank, size).share(n) for rank in range(size)]
    assert [i for share in shares for i in range(n)[share]] == list(range(n))
    assert all(share.start % 2 == 0 and share.stop > share.start for share in shares)


def test_a_batch_too_small_for_the_processes_is_named(monkeypatch):
    monkeypatch.setattr(Team, "join", lambda device=None: Team(torch.device("cpu"), 0, 8))
    with pytest.raises(ValueError, match="a batch of 14 is too small for 8 processes"):
        go(batch_size=14)


def main():
    """One of the processes, which is told where the state is."""
    flat = weights(go_in_float64(checkpoint=Path(sys.argv[1]), watch=lambda run: print("watched", run.step)).net)
    low, high = flat.clone(), flat.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        print(f"worst difference between processes: {(high - low).max().item()}")


if __name__ == "__main__":
    main()
