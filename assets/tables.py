"""Measure the tables that lessons show and that take longer than a lesson.

    OMP_NUM_THREADS=1 python assets/tables.py training      lesson 07's, some two hours on one core

A row is stored in assets/tables/ as soon as it is measured, so an interrupted run goes on where it stopped. To measure
a row again, delete its line.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from ddpm_course.classifier import features
from ddpm_course.data import clusters, load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.files import write_atomically
from ddpm_course.metrics import frechet_distance, memorised, nearest_neighbours
from ddpm_course.modes import fast_mode
from ddpm_course.samplers import generate
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import Run, train
from ddpm_course.training.optimizer import matrices_inside
from ddpm_course.unet import UNet

TABLES = Path(__file__).parent / "tables"
DIFFUSION = GaussianDiffusion(cosine_schedule(1000), predicts="v")
SHORT = 800  # training steps of a row, where the row is not about their number
BAG = 8  # the class that fine-tuning has never seen

Job = tuple[dict, Callable[..., dict]]  # what tells a row from the others, and what measures it


def training_rows() -> Iterator[Job]:
    """Lesson 07: what steps, images, width, mirroring and the learning rate do, and fine-tuning, and sizes."""
    for steps in (100, 200, 400, 800, 1600):
        yield dict(part="steps", steps=steps), trained
    for count in (140, 1000, 5000):
        yield dict(part="images", images=count), trained
    for told in ("nothing", "clusters"):
        yield dict(part="told", told=told), trained
    for optimizer, t in (("AdamW", "uniform"), ("AdamW", "around"), ("Muon", "uniform")):
        yield dict(part="recipe", optimizer=optimizer, t=t), trained
    yield dict(part="fine-tuning"), fine_tuned
    for seed in range(3):
        for mirrored in (False, True):
            yield dict(part="mirrored", mirrored=mirrored, seed=seed, steps=400), trained
    for widths in ([16, 32], [48, 96]):
        yield dict(part="width", widths=widths), trained
    yield dict(part="along", steps=SHORT), along
    for lr in (1e-3, 1.6e-2, 6.4e-2):
        yield dict(part="rate", lr=lr, steps=400), trained
    for side in (28, 32, 64, 96):
        for channels in (1, 3):
            yield dict(part="sizes", side=side, channels=channels), sized


def trained(
    steps: int = SHORT,
    images: int | None = None,
    widths=(32, 64),
    mirrored: bool = False,
    lr: float = 4e-3,
    seed: int = 0,
    told: str = "classes",
    optimizer: str = "Muon",
    t: str = "around",
) -> dict:
    """One training of lesson 00's network: the distance of its samples, and how near they are to training images.

    It is told classes, nothing, or which of 32 clusters of pixels a picture belongs to. Without matrices that are
    Muon's, its optimizer is AdamW.
    """
    pictures, labels = load_images()
    if images is not None:  # the first ones of each class
        rows = torch.cat([torch.nonzero(labels == c)[: images // 10, 0] for c in range(10)])
        pictures, labels = pictures[rows], labels[rows]
    if told == "clusters":
        labels = clusters(pictures, 32, generator=seeded(0))
    chosen = torch.randperm(len(labels), generator=seeded(1))[:1000]
    asked = dict(classes=CLASSES, clusters=labels[chosen], nothing=None)
    seen, of = (torch.cat([pictures, pictures.flip(3)]), labels.repeat(2)) if mirrored else (pictures, labels)
    torch.manual_seed(seed)
    net = UNet(1, widths, num_classes=dict(classes=10, clusters=32, nothing=None)[told])
    parameters = sum(p.numel() for p in net.parameters())
    options = dict(lr=lr, seed=seed) | (dict(t_around=None) if t == "uniform" else {})
    matrices = [] if optimizer == "AdamW" else matrices_inside(net)
    try:
        with patch("ddpm_course.training.optimizer.matrices_inside", lambda _: matrices):
            run = train(net, DIFFUSION, seen, None if told == "nothing" else of, steps=steps, **options)
    except FloatingPointError:
        return dict(parameters=parameters, frechet=None)
    last = [loss for step, loss in run.losses if step > 0.9 * run.step]
    samples = drawn(run.ema.net, asked[told])
    near, _ = nearest_neighbours(samples, pictures, k=2)
    return score(samples) | dict(
        parameters=parameters,
        loss=round(sum(last) / len(last), 4),
        seconds=round(run.seconds),
        nearest=round(near[:, 0].median().item(), 3),
        copies=round(100 * memorised(near).double().mean().item(), 1),
    )


def along(steps: int) -> dict:
    """One training, with the last weights and their average scored on the way."""
    seen: dict[str, list] = dict(step=[], loss=[], raw=[], average=[])
    marks = [round(steps * share) for share in (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)]

    def watch(run: Run) -> None:
        if run.step in marks:
            recent = [loss for step, loss in run.losses if step > run.step - 100]
            seen["step"].append(run.step)
            seen["loss"].append(round(sum(recent) / len(recent), 4))
            for name, net in (("raw", run.net.eval()), ("average", run.ema.net)):
                seen[name].append(score(drawn(net))["frechet"])

    torch.manual_seed(0)
    train(UNet(1, num_classes=10), DIFFUSION, *load_images(), steps=steps, watch=watch)
    return seen


def fine_tuned() -> dict:
    """A network that knows all garments but bags is given bags alone: distances of each class, before and after."""
    images, labels = load_images()
    known = labels != BAG
    torch.manual_seed(0)
    run = train(UNet(1, num_classes=10), DIFFUSION, images[known], labels[known], steps=SHORT)
    before = class_distances(run.ema.net)
    result = dict(before=before)
    for name, chosen, lr in (
        ("bags alone", labels == BAG, 1e-3),
        ("bags alone, the full rate", labels == BAG, 4e-3),
        ("everything", labels >= 0, 1e-3),
    ):
        net = UNet(1, num_classes=10)
        net.load_state_dict(run.ema.net.state_dict())
        result[name] = class_distances(train(net, DIFFUSION, images[chosen], labels[chosen], steps=200, lr=lr).ema.net)
    return result


def class_distances(net) -> list[float]:
    test, labels = load_images(split="test")
    count = 70 if fast_mode() else 200
    samples = generate(
        net, DIFFUSION, (10 * count, 1, 28, 28), y=torch.arange(10 * count) % 10, progress=False, generator=seeded(0)
    )
    return [round(frechet_distance(samples[c::10], test[labels == c]), 1) for c in range(10)]


def sized(side: int, channels: int) -> dict:
    """Minutes for 1,000 training steps on two cores, and the memory, for a picture's size; in a process of its own."""
    code = f"import tables; tables.print_size({side}, {channels})"
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    command, here = [sys.executable, "-c", code], Path(__file__).parent
    done = subprocess.run(command, cwd=here, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_size(side: int, channels: int) -> None:
    widths = (32, 64) if side <= 32 else (32, 64, 128)
    patch = 2 if side <= 32 else 4
    images = torch.randint(0, 256, (256, channels, side, side), dtype=torch.uint8, generator=seeded(0))
    run = train(UNet(channels, widths, patch=patch), DIFFUSION, images, steps=12)
    pace = run.seconds / run.step
    (memory,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())  # the largest so far; Linux
    cost = dict(minutes=round(1000 * pace / 60, 1), megabytes=round(int(memory) / 1024))
    print(json.dumps(dict(widths=widths, patch=patch) | cost))


# ---- what all tables share ----


CLASSES = torch.arange(1000) % 10


def drawn(net, y: Tensor | None = CLASSES) -> Tensor:
    """1,000 samples from the same noise, asked for y; a few in a few steps in fast mode."""
    n, steps = (80, 3) if fast_mode() else (1000, 25)
    y = None if y is None else y[:n]
    return generate(net, DIFFUSION, (n, 1, 28, 28), steps, y=y, progress=False, generator=seeded(0))


def score(samples: Tensor) -> dict:
    return dict(frechet=round(frechet_distance(samples, reference()), 2))


@cache
def reference() -> Tensor:
    return features(load_images(split="test")[0])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ROWS = {"training": training_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=ROWS)
    parser.add_argument("parts", nargs="*", help="of the table; all of them if none is named")
    parser.add_argument("--out", type=Path, default=TABLES)
    args = parser.parse_args()
    file = args.out / f"{args.table}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for named, measure in ROWS[args.table]():
        if (args.parts and named["part"] not in args.parts) or any(named.items() <= row.items() for row in stored):
            continue
        print(named, flush=True)
        started = time.perf_counter()
        row = named | measure(**{key: value for key, value in named.items() if key != "part"})
        stored.append(row | dict(whole_seconds=round(time.perf_counter() - started)))
        write_atomically(file, "".join(json.dumps(row) + "\n" for row in stored))


if __name__ == "__main__":
    main()
