"""Sets that do not fit into memory: DataLoaders and other streams, what goes on later, and a share for each process."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from trainings import (
    IMAGES,
    LABELS,
    distance,
    go,
    go_in_float64,
    same,
    small,
    state_in,
    stop_at,
    torchrun,
    unet,
    weights,
)

from ddpm_course.training import step as one_step

FLOATS = IMAGES.float() / 127.5 - 1


class Rows:
    """The images and labels in order, in batches of some size, again and again. `begun` holds what set_epoch heard."""

    def __init__(self, size=8, images=IMAGES, labels=LABELS):
        self.size, self.images, self.labels, self.at, self.begun = size, images, labels, 0, []

    def set_epoch(self, epoch):
        self.begun.append(epoch)

    def __iter__(self):
        self.at = 0
        return self.rest()

    def rest(self):
        while self.at < len(self.images):
            rows = slice(self.at, self.at + self.size)
            self.at = rows.stop
            yield (self.images[rows], self.labels[rows]) if self.labels is not None else self.images[rows]
        self.at = 0


class Continuing(Rows):
    """Can be read from the middle."""

    def __iter__(self):
        return self.rest()

    def state_dict(self):
        return dict(at=self.at)

    def load_state_dict(self, state):
        self.at = state["at"]


def stream(source, steps=12, net=None, **options):
    return go(steps, net=net or unet(), images=source, labels=None, **options)


def loader(images, workers=0, **options):
    return DataLoader(TensorDataset(images, LABELS), num_workers=workers, **dict(batch_size=6) | options)


def test_one_order_one_training_however_it_is_read():
    """In batches of any size, by workers or not, in bytes or floats, after 12 steps of 8 from 40 images, to the last
    bit; without labels another one. A network without classes reads past labels. Nothing but images is needed."""
    plain = weights(stream(Rows()).net)
    for source in (
        Rows(3),
        Rows(100),
        loader(IMAGES, 2),
        loader(FLOATS),
        Rows(images=FLOATS.numpy(), labels=LABELS.int()),
    ):
        assert torch.equal(weights(stream(source).net), plain)
    without = [unet(num_classes=None) for _ in range(2)]
    for net, source in zip(without, (Rows(), (batch for _ in range(3) for batch in Rows(labels=None))), strict=True):
        stream(source, net=net)
    assert torch.equal(*map(weights, without)) and not torch.equal(weights(stream(Rows(labels=None)).net), plain)


def test_labels_stay_beside_their_images_and_every_reading_is_an_epoch(monkeypatch):
    seen, levels = [], torch.arange(50, dtype=torch.uint8)
    images, net = levels.reshape(50, 1, 1, 1).expand(50, 1, 8, 8), small()
    net.num_classes = 50

    def watched(net, diffusion, x0, y, *args, **kwargs):
        seen.append((x0, y))
        return net.net.out.bias.sum() * torch.ones(len(x0))

    monkeypatch.setattr(one_step, "diffusion_loss", watched)
    source = Rows(7, images, torch.arange(50))
    stream(source, 16, net, label_dropout=0.0, accumulate=3)
    x0, y = (torch.cat(given) for given in zip(*seen, strict=True))
    assert torch.equal(y, torch.arange(128) % 50) and source.begun == [0, 1, 2]
    assert (x0 - (y / 127.5 - 1).reshape(-1, 1, 1, 1)).abs().max() < 1e-6


@pytest.mark.parametrize("size", [8, 12])
def test_a_source_that_continues_goes_on_to_the_same_bits(tmp_path, size):
    """Stopped in the middle of the set, and where batches are longer than a step's in the middle of one of them, too.
    Dropout and batch normalisation are in the network."""
    for name, watch in ("whole", None), ("state", stop_at(22)), ("state", None):
        source = Continuing(size)
        stream(source, 40, small(), checkpoint=tmp_path / name, report_every=1, watch=watch)
    assert same(state_in(tmp_path / "state"), state_in(tmp_path / "whole"))
    assert source.begun[0] == 4  # the fifth reading, of the 176 images that 22 steps take


@pytest.mark.parametrize("stop, follows", [(20, True), (23, False)])
def test_another_source_starts_anew_and_all_else_goes_on(tmp_path, stop, follows):
    """Five steps read the set once. Where the stop comes after a whole reading what follows is what would have: so all
    but the order is as it was. Elsewhere the order is another one; from the state itself nothing is missing."""
    for name, watch in ("whole", None), ("state", stop_at(stop)), ("state", None):
        source = Rows()
        run = stream(source, 40, small(), checkpoint=tmp_path / name, report_every=1, watch=watch)
    ours, whole = state_in(tmp_path / "state"), state_in(tmp_path / "whole")
    assert run.step == 40 and source.begun[0] == (stop - 1) // 5 + 1
    assert ours.pop("batches") and whole.pop("batches") and same(ours, whole) == follows
    assert same(ours["generator"], whole["generator"]) and ours["run"]["losses"][:stop] == whole["run"]["losses"][:stop]


ODD = [
    ("the stream of images has ended", (batch for batch in Rows())),
    ("the stream of images has ended", Rows(images=IMAGES[:0])),
    ("the images of the stream must be a tensor.*got dict", Rows(images=[{}], labels=None)),
    (
        r"images of shape \(B, C, H, W\), or a pair.*; got 1 things, the first of shape \(8, 8, 8\)",
        Rows(images=IMAGES[:, 0], labels=None),
    ),
    ("got 3 things", zip(IMAGES[None], LABELS[None], LABELS[None], strict=True)),
    ("must be uint8 0…255, or floats", Rows(images=IMAGES.float())),
    ("no value below 0: floats must lie in", Rows(images=IMAGES / 255)),
    (r"labels of the stream must lie in 0\.\.2", Rows(labels=LABELS + 1)),
    (r"labels of the stream must have shape \(8,\)", Rows(labels=LABELS[:, None])),
    (
        r"of one kind: first came torch.uint8 \(1, 8, 8\), with labels, and then torch.uint8 \(1, 4, 8\), with labels",
        [*Rows(), *Rows(images=IMAGES[:, :, :4])],
    ),
    ("of one kind: .* and then torch.float32", [*Rows(), *Rows(images=FLOATS)]),
    ("of one kind: .* and then torch.uint8 .*, without labels", [*Rows(), *Rows(labels=None)]),
]


@pytest.mark.parametrize("complaint, source", ODD, ids=[complaint[:30] for complaint, _ in ODD])
def test_what_no_stream_is_made_of_is_named(complaint, source):
    with pytest.raises(ValueError, match=complaint):
        stream(iter(source) if isinstance(source, list) else source)


def test_labels_beside_a_stream_are_refused():
    with pytest.raises(ValueError, match="labels were given beside a stream"):
        go(images=Rows(), labels=LABELS)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows interrupts no group of processes")
def test_the_stop_button_reaches_workers_too(tmp_path):
    """Ctrl-C in a terminal, and Jupyter's button, interrupt all processes of a group at once: the training ends in
    order, and its state is written."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, __file__, "endless", tmp_path / "state"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    with subprocess.Popen(command, **pipes) as process:
        while "step 5\n" not in (line := process.stdout.readline()):
            assert line
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    step = int(re.search(r"stopped after (\d+) steps: .* goes on from step \1\n", out)[1])
    assert state_in(tmp_path / "state")["run"]["step"] == step >= 5


def slow(batch):
    torch.utils.data.get_worker_info().dataset.tensors[0].sum()
    for _ in range(3000):
        torch.rand(100)
    return torch.utils.data.default_collate(batch)


def test_two_processes_with_a_share_each_train_the_network_that_one_would(tmp_path):
    """20 steps of 14 images in float64. Two processes read 6 and 8 of each 14, in batches of 5 by a worker; one process
    reads all of them: weights and losses to 1e-9. Processes that read the same are told; DistributedSampler's do not."""
    alone = go_in_float64(images=Rows(14, FLOATS[:28].double(), LABELS[:28]), labels=None)
    out, state = torchrun(2, __file__, "shared", tmp_path / "state"), state_in(tmp_path / "state")
    assert state["run"]["step"] == 20 and distance(alone.net, state["net"]) < 1e-9
    ours, theirs = (torch.tensor(losses, dtype=torch.float64) for losses in (alone.losses, state["run"]["losses"]))
    assert (ours - theirs).abs().max() < 1e-9
    assert out.count("two processes read the same images: give each its share") == 2
    assert out.count("a sampler's share: 5 steps") == 2


def main(what, path):
    if what == "endless":
        options = dict(checkpoint=path, save_minutes=9, watch=lambda run: print("step", run.step, flush=True))
        source = loader(IMAGES, 2, collate_fn=slow, batch_size=8)
        stream(source, 100_000, **options)
        return
    rank = int(os.environ["RANK"])
    mine = [row for first in (0, 14) for row in range(first, first + 14)[slice(6) if rank == 0 else slice(6, 14)]]
    pieces = TensorDataset(FLOATS[mine].double(), LABELS[mine])
    go_in_float64(images=DataLoader(pieces, batch_size=5, num_workers=1), labels=None, checkpoint=path)
    try:
        stream(loader(IMAGES))
    except ValueError as problem:
        print(problem, flush=True)
    shares = DistributedSampler(range(40))  # a process group is there already; before, it would ask for its numbers
    print(f"a sampler's share: {stream(loader(IMAGES, sampler=shares), 5).step} steps", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
