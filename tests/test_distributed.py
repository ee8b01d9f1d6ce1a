"""Several processes, one training: real ones, started by `python -m torch.distributed.run` on the CPU (gloo)."""

import itertools
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from trainings import distance, go, go_in_float64, state_in, stop_at, torchrun, weights

from ddpm_course.training import load_checkpoint
from ddpm_course.training.devices import Team


@pytest.fixture(scope="module")
def alone():
    norms, clip = [], nn.utils.clip_grad_norm_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", lambda *limit: norms.append(clip(*limit).item()))
        run = go_in_float64()
    assert sum(norm > 1 for norm in norms) > 5  # clipping matters in this run
    return run


@pytest.mark.parametrize("processes, begins_at, accumulate", [(2, 0, 1), (3, 10, 1), (2, 0, 3)])
def test_processes_train_the_network_that_one_would(tmp_path, alone, processes, begins_at, accumulate):
    """20 steps in float64: weights, average and losses to 1e-9. Three processes go on from where one stopped at step 10.
    Gradients go between the processes once a step, in however many parts that is computed."""
    path = tmp_path / "state"
    if begins_at:
        go_in_float64(checkpoint=path, watch=stop_at(begins_at))
    out, state = torchrun(processes, __file__, path, accumulate), state_in(path)
    assert state["run"]["step"] == 20 and set(state["net"]) == set(alone.net.state_dict())
    assert distance(alone.net, state["net"]) < 1e-9 and distance(alone.ema.net, state["ema"]["net"]) < 1e-9
    ours, theirs = (torch.tensor(losses, dtype=torch.float64) for losses in (alone.losses, state["run"]["losses"]))
    assert (ours - theirs).abs().max() < 1e-9
    assert out.count(f"training on cpu in {processes} processes") == 1
    assert out.count("going on from") == (begins_at > 0)
    assert re.findall(r"watched (\d+)", out) == [str(step) for step in range(begins_at + 5, 21, 5)]
    assert re.findall(r"worst difference between processes: (\S+)", out) == ["0.0"]
    assert re.findall(r"gradients met (\d+) times", out) == [str(20 - begins_at)]
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
    for options, complaint in ({}, "8 processes:"), (dict(accumulate=2), "2 parts in each of 8 processes:"):
        with pytest.raises(ValueError, match=f"a batch of 14 is too small for {complaint} each needs two images"):
            go(batch_size=14, **options)


class CountingDDP(nn.parallel.DistributedDataParallel):
    """Counts the times that gradients are averaged; those of so small a network travel together."""

    met = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_comm_hook(None, self.counted)

    @staticmethod
    def counted(state, bucket):
        CountingDDP.met += 1
        return allreduce_hook(None, bucket)


def main():
    """One of the processes, which is told where the state is, and in how many parts to compute a step."""
    nn.parallel.DistributedDataParallel = CountingDDP
    options = dict(checkpoint=Path(sys.argv[1]), accumulate=int(sys.argv[2]))
    flat = weights(go_in_float64(**options, watch=lambda run: print("watched", run.step)).net)
    low, high = flat.clone(), flat.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        print(f"worst difference between processes: {(high - low).max().item()}")
        print(f"gradients met {CountingDDP.met} times")


if __name__ == "__main__":
    main()
