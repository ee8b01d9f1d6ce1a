"""What the tests of training share: a tiny network and data set, short trainings of it, their states to the last bit."""

import os
import sys
import time
from pathlib import Path

import torch
from core import seeded
from courses import run as command
from torch import nn

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import EMA, step, train
from ddpm_course.training.state import StateFile
from ddpm_course.unet import UNet

DIFFUSION = GaussianDiffusion(cosine_schedule(), "v")
IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=seeded())
LABELS = torch.arange(40) % 3


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


def small(width=8):
    torch.manual_seed(0)
    return Small(width)


def unet(**options):
    torch.manual_seed(0)
    return UNet(**dict(widths=(8,), heads=2, num_classes=3) | options)


def go(steps=60, *, minutes=None, net=None, diffusion=DIFFUSION, images=IMAGES, labels=LABELS, **options):
    steps = None if steps == 60 and minutes is not None else steps
    options = dict(batch_size=8, device="cpu", report_every=5, save_minutes=0) | options
    return train(net or small(), diffusion, images, labels, minutes=minutes, steps=steps, **options)


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
        return go(20, net=net, **dict(batch_size=14, label_dropout=0.3) | options)
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


def stop_at(step):
    def watch(run):
        if run.step == step:
            raise KeyboardInterrupt

    return watch


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def state_in(path):
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


class Clock:
    """A clock that each step moves by `pace(step)` seconds; `watch` may move it too. No step computes anything."""

    def __init__(self, monkeypatch, pace):
        self.now, self.steps, update = 1000.0, 0, EMA.update

        def ticking(ema, net):
            update(ema, net)
            self.steps += 1
            self.now += pace(self.steps)

        def no_work(net, diffusion, x0, *args, **kwargs):
            return next(net.parameters()).sum() * torch.ones(len(x0))

        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(step, "diffusion_loss", no_work)
        monkeypatch.setattr(EMA, "update", ticking)


def no_space(*_):
    raise OSError(28, "No space left on device")


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)
