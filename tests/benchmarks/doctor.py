"""The doctor and networks of other packages: what it says of healthy ones, and whether it finds what is wrong.

    OMP_NUM_THREADS=1 python tests/benchmarks/doctor.py              what is not in doctor.json yet
    OMP_NUM_THREADS=1 python tests/benchmarks/doctor.py diffusers    this package's row

Small relatives of the benchmark's networks, trained in lesson 00's loop on garments of 12 x 12 pixels, with T = 100, so
that a t one off matters; and one as its authors train it. They are kept in work/doctor, so that an examination can be
repeated without the training. About ten minutes on one quiet core.
"""

import argparse
import importlib
import json
import time
from pathlib import Path

import bench
import torch
from measure import flipped_batches, lesson_00
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from ddpm_course.classroom.editions import ROOT
from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.doctor import examine
from ddpm_course.files import write_atomically
from ddpm_course.samplers import generate
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.training import train

RESULTS = Path(__file__).with_name("doctor.json")
KEPT = ROOT / "work" / "doctor"
SIZE, BATCH, T = 12, 32, 100
STEPS, OWN_STEPS = 400, 600  # of lesson 00's recipe, and of the peer's own
WIDTHS = {  # of our small relatives, and anything else that they must be told
    "diffusers": dict(width=16),
    "smalldiffusion": dict(width=32, size=SIZE),
    "annotated": dict(width=8),
}
NAMES = {
    "diffusers": "diffusers' `UNet2DModel`",
    "smalldiffusion": "smalldiffusion's U-Net",
    "annotated": "`denoising-diffusion-pytorch`'s U-Net",
}
OWN = ", its own recipe"
ROWS = [*NAMES, "annotated" + OWN]  # the other recipes begin more slowly: 500 steps of warm-up, batches of 1,024


class Told(nn.Module):
    """A network that is told a t so much later."""

    def __init__(self, net: nn.Module, later: int, T: int):
        super().__init__()
        self.net, self.later, self.T = net, later, T

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(x, (t + self.later).clamp(1, self.T), y)


def mistakes(net: nn.Module, diffusion: GaussianDiffusion, images: Tensor) -> dict[str, tuple]:
    """What a user of another package gets wrong: the probe that should name it, and what is examined."""
    schedule, T, predicts = diffusion.schedule, diffusion.schedule.T, diffusion.predicts
    linear = bool(schedule.beta[-1] < 0.1)
    other = cosine_schedule(T) if linear else linear_schedule(T)
    return {
        "counts t from 0, fed from 1": ("start of t", Told(net, 1, T), diffusion, images),
        "counts t from 1, fed from 0": ("start of t", Told(net, -1, T), diffusion, images),
        "data in [0, 1]": ("range of the data", net, diffusion, images.float() / 255),
        "v for noise, or noise for v": (
            "what is predicted", net, GaussianDiffusion(schedule, "noise" if predicts == "v" else "v"), images),
        "another schedule": ("t it is told", net, GaussianDiffusion(other, predicts), images),
    }  # fmt: skip


def trained(name: str, images: Tensor) -> tuple[nn.Module, GaussianDiffusion, list | None]:
    """The network with its averaged weights, and its losses, if the recipe says them."""
    _, lesson, keywords = lesson_00()
    package, own = name.removesuffix(OWN), name.endswith(OWN)
    peer = importlib.import_module(f"peer_{package}")
    diffusion = peer.DIFFUSION if own else GaussianDiffusion(cosine_schedule(T), lesson.predicts)
    torch.manual_seed(0)
    net = peer.build(diffusion.schedule, **WIDTHS[package])
    weights, losses = (KEPT / f"{name.replace(' ', '_')}.{ending}" for ending in ("safetensors", "json"))
    if not losses.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        if own:
            average, values = train_as(peer, net, images), None
        else:
            run = train(net, diffusion, images, steps=STEPS, **keywords | dict(batch_size=BATCH))
            average, values = run.ema.net, run.losses
        save_model(average, weights)
        losses.write_text(json.dumps(values), encoding="utf-8")
    load_model(net, weights)
    return net.eval(), diffusion, json.loads(losses.read_text(encoding="utf-8"))


def train_as(peer, net: nn.Module, images: Tensor) -> nn.Module:
    """Train as the peer does, but in smaller batches; the network to sample with."""
    step, finish = peer.recipe(net.train(), OWN_STEPS)
    batches = flipped_batches(images, BATCH)
    for _ in range(OWN_STEPS):
        step(next(batches))
    return finish()


def row(name: str) -> dict:
    images, _ = load_images(size=SIZE)
    net, diffusion, losses = trained(name, images)
    drawn = generate(net, diffusion, (48, 1, SIZE, SIZE), progress=False, generator=torch.Generator().manual_seed(0))
    started = time.process_time()
    examination = examine(net, diffusion, images, samples=drawn, losses=losses)
    seconds = time.process_time() - started
    print(f"{name}, {seconds:.0f} s\n{examination.table()}", flush=True)
    found = {}
    for mistake, (probe, *model) in mistakes(net, diffusion, images).items():
        after = examine(*model)
        found[mistake] = [finding.name for finding in after.suspicious]
        print(f"{mistake}: {found[mistake]} (meant: {probe}, {after[probe].value})", flush=True)
    return dict(
        name=name,
        weights=sum(p.numel() for p in net.parameters()),
        seconds=round(seconds, 1),
        healthy=[finding.name for finding in examination.suspicious],
        unjudged=[finding.name for finding in examination.unknown],
        mistakes=found,
    )


def read() -> dict[str, dict]:
    return bench.read(RESULTS)


def markdown(results: dict[str, dict]) -> str:
    """What the doctor names, by network and mistake."""
    columns = [["the doctor names, for a network", "weights", "as it is", *next(iter(results.values()))["mistakes"]]]
    for name, entry in results.items():
        named = [", ".join(names) or "nothing" for names in (entry["healthy"], *entry["mistakes"].values())]
        heading = NAMES[name.removesuffix(OWN)] + OWN * name.endswith(OWN)
        columns.append([heading, f"{entry['weights']:,}", *named])
    head, *body = zip(*columns, strict=True)  # a mistake in each line
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=", ".join(ROWS))
    args = parser.parse_args()
    if unknown := set(args.names) - set(ROWS):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(ROWS)}")
    for name in args.names or ROWS:
        if args.names or name not in read():
            results = read() | {name: row(name)}
            ordered = [results[job] for job in ROWS if job in results]
            write_atomically(RESULTS, json.dumps(ordered, indent=1) + "\n")
    print("\n" + markdown(read()))


if __name__ == "__main__":
    main()
