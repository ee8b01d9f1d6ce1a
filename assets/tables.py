"""Measure the tables that lessons show and that take longer than a lesson.

    OMP_NUM_THREADS=1 python assets/tables.py training      lesson 07's, some two hours on one core
    OMP_NUM_THREADS=1 python assets/tables.py fewer_steps   lesson 09's, somewhat over one hour
    OMP_NUM_THREADS=1 python assets/tables.py guidance      lesson 10's, somewhat over one hour
    OMP_NUM_THREADS=1 python assets/tables.py improved      lesson 12's, some two hours
    OMP_NUM_THREADS=1 python assets/tables.py improved      lesson 12's, one hour and a half

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
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ddpm_course.blocks import sinusoidal_embedding
from ddpm_course.bound import bits_per_dim
from ddpm_course.classifier import classify, features, load_classifier
from ddpm_course.data import clusters, load_images
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.exercises.lesson08 import inside_balls
from ddpm_course.files import write_atomically
from ddpm_course.guidance import ClassifierGuided
from ddpm_course.losses import BOUND_SHARE, bound_share, term_of_output
from ddpm_course.metrics import frechet_distance, memorised, nearest_neighbours
from ddpm_course.modes import fast_mode
from ddpm_course.nets import Guided
from ddpm_course.pixels import to_unit_range
from ddpm_course.samplers import ancestral_coefficients, ancestral_steps, ddim_steps, generate
from ddpm_course.schedules import cosine_schedule
from ddpm_course.solvers import heun_steps, multistep_steps
from ddpm_course.times import spaced_timesteps
from ddpm_course.training import Run, load_pretrained, train
from ddpm_course.training.optimizer import matrices_inside
from ddpm_course.unet import UNet
from ddpm_course.variances import best_coefficients, best_variances, respaced, squared_errors
from ddpm_course.weighting import implied_weights, min_snr_weights

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


def fewer_steps_rows() -> Iterator[Job]:
    """Lesson 09: which times to visit, and what each sampler makes of a number of network calls."""
    for calls in (5, 10, 25):
        for clock in ("leading", "linspace", "trailing", "root", "log_snr"):
            yield dict(part="times", clock=clock, calls=calls), visiting
    for calls in (3, 5, 9, 15, 25, 49, 99):
        for sampler in SAMPLERS:
            yield dict(part="calls", sampler=sampler, calls=calls), called


def visiting(clock: str, calls: int) -> dict:
    """The bundled network's distance with DDIM at times that are even in t (three conventions), in its root, or in the
    logarithm of the signal-to-noise ratio."""
    schedule = pretrained()[1].schedule
    spacing = dict(root=torch.arange(schedule.T + 1.0).sqrt(), log_snr=schedule.snr.log()).get(clock, clock)
    times = spaced_timesteps(schedule.T, calls, spacing)
    return score(drawn_from_bundled(calls, partial(ddim_steps, times=times))) | dict(times=times)


def called(sampler: str, calls: int) -> dict:
    """The bundled network's distance after so many calls: Heun's method takes two a step, and one in the last."""
    steps = (calls + 1) // 2 if "Heun" in sampler else calls
    return score(drawn_from_bundled(steps, SAMPLERS[sampler]))


SAMPLERS = {
    "ancestral": ancestral_steps,
    "DDIM": ddim_steps,
    "Heun": heun_steps,
    "Heun in sigma": partial(heun_steps, coordinate="sigma"),
    "multistep": multistep_steps,
}


def guidance_rows() -> Iterator[Job]:
    """Lesson 10: what the scale of guidance does, and the other ways to guide."""
    for scale in (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 0.0, 1.2):
        yield dict(part="scale", scale=scale), guided
    yield dict(part="ancestral", scale=1.5, sampler="ancestral"), guided
    for scale in (3.0, 8.0):
        yield dict(part="unclipped", scale=scale, clip=False), guided
    for scale in (2.0, 3.0):
        yield dict(part="interval", scale=scale, interval=[200, 700]), guided
    for scale in (1.5, 2.0):
        yield dict(part="weak", scale=scale, by="weak"), guided
    for scale in (1.0, 3.0):
        yield dict(part="classifier", scale=scale, by="noise-aware classifier"), guided
    yield dict(part="classifier", scale=1.0, by="clean classifier"), guided
    yield dict(part="classifier", scale=1.0, by="clean classifier through x0"), guided


def guided(
    scale: float, sampler: str = "DDIM", clip: bool = True, interval: list[int] | None = None, by: str = "null"
) -> dict:
    """1,000 samples of the bundled network, a hundred asked of each class: distance, how often the classifier agrees
    with what was asked, precision and recall (three neighbours, 1,000 real images), and how much is black or white."""
    net, diffusion = pretrained()
    if by == "null":
        steered = Guided(net, scale, interval=interval)
    elif by == "weak":
        steered = Guided(net, scale, weak=weak_network())
    else:
        judge = noise_aware_classifier() if by.startswith("noise") else load_classifier()
        steered = ClassifierGuided(net, diffusion, partial(log_likelihood, judge), scale, through_x0=by.endswith("x0"))
    samples = drawn_from_bundled(25, partial(SAMPLERS[sampler], clip=clip), steered)
    real = reference()[:1000]
    seen = features(samples)
    return score(seen) | dict(
        accuracy=round(100 * (classify(samples) == CLASSES[: len(samples)]).double().mean().item(), 1),
        precision=round(inside_balls(seen, real, 3).double().mean().item(), 3),
        recall=round(inside_balls(real, seen, 3).double().mean().item(), 3),
        saturated=round(100 * (samples.abs() > 0.99).double().mean().item(), 1),
        white=round(100 * (samples > 0.99).double().mean().item(), 1),
    )


def log_likelihood(classifier, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """(B,) log p(y | x)."""
    logits = classifier(x, t) if isinstance(classifier, NoisyClassifier) else classifier(x)
    return logits.log_softmax(1)[torch.arange(len(y)), y]


@cache
def weak_network() -> UNet:
    """Lesson 00's network after 200 steps of training."""
    torch.manual_seed(0)
    return train(UNet(1, num_classes=10), DIFFUSION, *load_images(), steps=200).ema.net


class NoisyClassifier(nn.Module):
    """A small classifier that is told t: three strided convolutions, each scaled and shifted by the code of t."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in ((1, 32), (32, 64), (64, 96)))
        self.told = nn.ModuleList(nn.Linear(64, 2 * layer.out_channels) for layer in self.layers)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        code = sinusoidal_embedding(t, 64)
        for layer, told in zip(self.layers, self.told, strict=True):
            scale, shift = told(code)[:, :, None, None].chunk(2, 1)
            x = nn.functional.silu(nn.functional.group_norm(layer(x), 8) * (1 + scale) + shift)
        return self.head(x.mean((2, 3)))


@cache
def noise_aware_classifier() -> NoisyClassifier:
    """The classifier of noisy images, after 1,500 steps."""
    images, labels = load_images()
    schedule = pretrained()[1].schedule
    torch.manual_seed(0)
    net = NoisyClassifier()
    steps = 5 if fast_mode() else 1500
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (128,))
        x0, t = to_unit_range(images[rows]), schedule.sample_t(128)
        logits = net(q_sample(schedule, x0, t, torch.randn_like(x0)), t)
        loss = nn.functional.cross_entropy(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return net.eval().requires_grad_(False)


def improved_rows() -> Iterator[Job]:
    """Lesson 12: what the variance of a reverse step does, chosen or learned, what a loss weighs, and which t it draws.

    The cheap rows come first.
    """
    for steps in (10, 25, 50, 1000):
        yield dict(part="variance", measure="bits", steps=steps), partial(bounded, "bundled")
    for steps in (10, 25, 50, 1000):
        yield dict(part="learned", measure="bits", steps=steps), partial(bounded, "learned")
    for steps in (10, 25, 50):
        for variance in (*CHOSEN, "learned"):
            yield dict(part="learned", measure="distance", steps=steps, variance=variance), partial(far, "learned")
    for seed in range(3):
        for weighting in ("v", "noise", "x0", "min-SNR-5"):
            yield dict(part="weighting", weighting=weighting, seed=seed), weighted
        for t in ("uniform", "importance"):
            yield dict(part="importance", t=t, seed=seed), hybrid
        yield dict(part="hybrid", stopped=False, seed=seed), hybrid
    for steps in (10, 25, 50, 1000):
        for variance in CHOSEN:
            yield dict(part="variance", measure="distance", steps=steps, variance=variance), partial(far, "bundled")


CHOSEN = ("small", "large", "best")  # variances that a network need not learn


def bounded(network: str, measure: str, steps: int) -> dict:
    """Bits of 200 held-out pictures by each variance in a chain of so many steps, and differences in pairs: how many
    less than with beta-tilde, and for a learned variance less than the bundled network's and its own with the best one.
    Each with its standard error."""
    bits = bits_of_pictures(network, steps)
    row = dict(
        bits={name: with_error(each) for name, each in bits.items()},
        less={name: with_error(bits["small"] - each) for name, each in bits.items() if name != "small"},
    )
    if network != "bundled":
        first = bits_of_pictures("bundled", steps)
        row["less_than_bundled"] = {name: with_error(each - bits["learned"]) for name, each in first.items()}
        row["less_than_best"] = with_error(bits["best"] - bits["learned"])
    return row


@cache
def bits_of_pictures(network: str, steps: int) -> dict[str, Tensor]:
    """(200,) bits of each picture by the variance's name, all from the same noise. The chain has so many steps, and of
    1,000 each picture is asked at 60."""
    net, diffusion = pretrained(network)
    pictures, labels = (some[: 20 if fast_mode() else 200] for some in load_images(split="test"))
    times = spaced_timesteps(diffusion.schedule.T, steps)
    net, diffusion = respaced(net, diffusion, times)
    best = best_variances(diffusion.schedule, errors_of(network)[times[::-1]])
    kinds = {name: (replace(diffusion, variance=name), None) for name in ("small", "large", diffusion.variance)}
    kinds["best"] = diffusion, best
    return {
        name: bits_per_dim(
            net, chain, pictures, labels, steps=min(steps, 60), variances=variances, generator=seeded(0)
        ).per_image
        for name, (chain, variances) in kinds.items()
    }


@cache
def errors_of(network: str) -> Tensor:
    """(T+1,) the network's squared errors on 200 training pictures."""
    pictures, labels = (some[: 20 if fast_mode() else 200] for some in load_images())
    return squared_errors(*pretrained(network), pictures, labels, generator=seeded(1))


def far(network: str, measure: str, steps: int, variance: str) -> dict:
    """The distance of 1,000 ancestral samples, and mean and scatter of that of a hundred, which is much larger: with
    1,000 steps there are only these."""
    net, diffusion = pretrained(network)
    coefficients = ancestral_coefficients
    if variance == "best":
        coefficients = partial(best_coefficients, errors=errors_of(network))
    else:
        diffusion = replace(diffusion, variance=variance)
    n = 80 if fast_mode() else 1000 if steps <= 50 else 100
    samples = generate(
        net, diffusion, (n, 1, 28, 28), steps, y=CLASSES[:n],
        sampler=partial(ancestral_steps, coefficients=coefficients), progress=False, generator=seeded(0),
    )  # fmt: skip
    hundreds = torch.tensor([frechet_distance(some, reference()) for some in features(samples).split(100)])
    row = dict(samples=n, hundred=round(hundreds.mean().item(), 2))
    if n >= 1000:
        row |= score(samples) | dict(scatter=round(hundreds.std().item(), 2))
    return row


def weighted(weighting: str, seed: int) -> dict:
    """Lesson 00's network after 400 steps with uniform t: the error of v weighted as another target would."""
    plain = implied_weights(DIFFUSION.schedule, "v")
    if weighting == "min-SNR-5":
        table = min_snr_weights(DIFFUSION, 5.0)
    else:
        table = implied_weights(DIFFUSION.schedule, weighting) / plain.clamp(min=1)  # 0 at t = 0
    torch.manual_seed(seed)
    options = dict(steps=400, t_around=None, weighting=table, seed=seed)
    net = train(UNet(1, num_classes=10), DIFFUSION, *load_images(), **options).ema.net
    return score(drawn(net)) | bits_in_short(net, DIFFUSION)


def hybrid(seed: int, t: str = "uniform", stopped: bool = True) -> dict:
    """The same network with a learned variance, after 400 steps of the hybrid loss: t uniform, or by the losses; and
    with the gradient of the bound's share stopped before the estimate, or not."""
    diffusion = replace(DIFFUSION, variance="learned")
    torch.manual_seed(seed)
    net = UNet(1, num_classes=10, learn_variance=True)
    options = dict(steps=400, t_around=None, t_importance=t == "importance", seed=seed)
    with patch("ddpm_course.losses.bound_share", bound_share if stopped else whole_share):
        net = train(net, diffusion, *load_images(), **options).ema.net
    return score(drawn(net)) | bits_in_short(net, diffusion)


def whole_share(diffusion: GaussianDiffusion, output: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The bound's share of the hybrid loss, of which the estimate of x_0 learns as well."""
    return (BOUND_SHARE * diffusion.schedule.T * term_of_output(diffusion, output, x0, xt, t)).to(output.dtype)


def bits_in_short(net: nn.Module, diffusion: GaussianDiffusion) -> dict:
    """Bits of 100 held-out pictures, each asked at 40 of the 1,000 steps."""
    pictures, labels = (some[: 20 if fast_mode() else 100] for some in load_images(split="test"))
    return dict(
        bits=with_error(bits_per_dim(net, diffusion, pictures, labels, steps=40, generator=seeded(0)).per_image)
    )


def with_error(values: Tensor) -> list[float]:
    return [round(values.mean().item(), 4), round(values.std().item() / len(values) ** 0.5, 4)]


@cache
def pretrained(network: str = "bundled") -> tuple[UNet, GaussianDiffusion]:
    return load_pretrained(name=network)[:2]


def drawn_from_bundled(steps: int, sampler: Callable, net: nn.Module | None = None) -> Tensor:
    """1,000 samples from the same noise, a hundred of each class; a few in a few steps in fast mode."""
    (bundled, diffusion), n = pretrained(), 80 if fast_mode() else 1000
    return generate(
        net or bundled, diffusion, (n, 1, 28, 28), steps,
        y=CLASSES[:n], sampler=sampler, progress=False, generator=seeded(0),
    )  # fmt: skip


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


ROWS = {
    "training": training_rows,
    "fewer_steps": fewer_steps_rows,
    "guidance": guidance_rows,
    "improved": improved_rows,
}


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
