"""Measures one row of the benchmark, or one small table, and prints it as a line of JSON; bench.py starts it.

In a process of its own, because the peak memory is the process's and because nothing a row leaves behind (memory,
threads, warm caches) should touch the next one.
"""

import argparse
import copy
import importlib
import inspect
import json
import os
import statistics
import sys
import time
from contextlib import redirect_stdout
from typing import NamedTuple

import ours
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course.data import load_images, to_unit_range
from ddpm_course.metrics import classify, features, frechet_distance
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, guided
from ddpm_course.training import Run, best_device, load_pretrained, train

SAMPLES, DDIM_STEPS = 1000, 50  # of the Fréchet distance
SHAPE = (64, 1, 28, 28)  # of the images whose sampling is timed
TIMED_STEPS = 50  # a sampler with more steps than this is timed on so many, and scaled
TRIAL = 128  # images in a step that is made for its speed alone, where the recipe's own batch is larger
SPEED_SECONDS = 12  # of training, where only its speed is asked for
PACE_SECONDS = 3  # of training, to turn minutes into steps


class Trained(NamedTuple):
    """A network to sample with, and how many images passed in how many seconds of training."""

    net: nn.Module
    images: int
    seconds: float


def row(name: str, minutes: float, short: bool) -> dict:
    """A network and a recipe, trained for some minutes. `name` is "ours", "ours, no labels" (the same network and
    recipe, always given the null class), a peer's, or "PEER, our recipe"."""
    device = best_device()
    images, labels = load_images()
    torch.manual_seed(0)
    net, diffusion, keywords = ours.lesson_00()
    own = False  # whether it is trained with a recipe of its own
    if name == "ours":
        y = (torch.arange(SAMPLES) % 10).to(device)
    elif name == "ours, no labels":
        labels = y = None
    else:
        own = not name.endswith(", our recipe")
        peer = importlib.import_module("peer_" + name.split(",")[0])
        diffusion = peer.DIFFUSION if own else diffusion
        net = peer.build(diffusion.schedule)
        labels = y = None  # these networks know no classes
    net.to(device)
    forward, parameters, peak = flops(net, device), sum(p.numel() for p in net.parameters()), matrix_rate(device)

    if own:
        trained = own_recipe(peer, net, images.to(device), minutes, short)
        sampler, total, steps = peer.sampler(trained.net.eval(), SHAPE)
    else:
        trained = our_recipe(net, diffusion, images, labels, keywords, minutes, short)
        sampler, total, steps = ours.sampler(trained.net.eval(), diffusion, SHAPE, y if y is None else y[: SHAPE[0]])
    memory = peak_memory(device)  # of training: what sampling takes depends on how many images at once
    peak = max(peak, matrix_rate(device))  # a shared machine has slow moments, and the first may have been one

    rate, timed = trained.images / trained.seconds, 5 if short else TIMED_STEPS
    result = dict(
        name=name, parameters=parameters, images_per_second=round(rate, 1),
        fraction_of_peak=round(3 * forward * rate / peak, 3), peak_memory_mb=memory,
        seconds_64_samples=round(seconds_to_sample(steps, total, timed), 2),
        sampler=sampler + (f" (timed on {timed})" if total > timed else ""),
        peak_gflops=round(peak / 1e9, 1), mflops_per_image=round(forward / 1e6, 1), images=trained.images,
        training_seconds=round(trained.seconds, 1), threads=torch.get_num_threads(), device=str(device),
    )  # fmt: skip
    if not short:
        how = dict(y=y, progress=False, generator=torch.Generator(device).manual_seed(0))
        samples = generate(trained.net, diffusion, (SAMPLES, *SHAPE[1:]), DDIM_STEPS, sampler=ddim_steps, **how)
        result["frechet"] = round(frechet_distance(samples, features(load_images(split="test")[0])), 2)
    return result


def our_recipe(net, diffusion, images, labels, keywords: dict, minutes: float, short: bool) -> Trained:
    """Train as lesson 00 does, or for a few seconds only."""
    batch = keywords.get("batch_size", inspect.signature(train).parameters["batch_size"].default)
    if not short:
        run = train(net, diffusion, images, labels, minutes=minutes, **keywords)
        return Trained(run.ema.net, run.step * batch, run.seconds)

    marks = []  # seconds after each step

    def watch(run: Run) -> None:
        marks.append(run.seconds)
        if len(marks) > 1 and marks[-1] - marks[0] > SPEED_SECONDS:
            raise KeyboardInterrupt  # what a notebook's stop button does: `train` returns with what there is

    with redirect_stdout(sys.stderr):
        run = train(net, diffusion, images, labels, steps=10_000, watch=watch, report_every=1, **keywords)
    return Trained(run.ema.net, (len(marks) - 1) * batch, marks[-1] - marks[0])  # the first step is slower


def own_recipe(peer, net: nn.Module, images: Tensor, minutes: float, short: bool) -> Trained:
    """Train as the peer does, or for a few seconds only.

    The minutes are turned into steps before they begin, on a copy, so that a plan over the steps ends with the budget.
    """
    batches = flipped_batches(images, min(peer.BATCH, TRIAL))
    step, finish = peer.recipe(copy.deepcopy(net).train(), 1000)
    step(next(batches))  # the first one is slower
    seen, started = 0, time.perf_counter()
    while seen == 0 or time.perf_counter() - started < (SPEED_SECONDS if short else PACE_SECONDS):
        x = next(batches)
        step(x)
        synchronize(images.device)
        seen += len(x)
    seconds = time.perf_counter() - started
    if short:
        return Trained(finish(), seen, seconds)

    steps = max(1, round(minutes * 60 * (seen / seconds) / peer.BATCH))
    print(f"{seen / seconds:.1f} images/s: {minutes:g} minutes are {steps:,} steps of {peer.BATCH}", flush=True)
    batches = flipped_batches(images, peer.BATCH)
    step, finish = peer.recipe(net.train(), steps)
    started = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    synchronize(images.device)
    return Trained(finish(), steps * peer.BATCH, time.perf_counter() - started)


def flipped_batches(images: Tensor, size: int):
    """Shuffled batches for ever, half of the images mirrored: all three peers do so."""
    while True:
        for rows in torch.randperm(len(images), device=images.device)[: len(images) // size * size].split(size):
            x = to_unit_range(images[rows])
            yield torch.where(torch.rand(size, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)


@torch.no_grad()
def flops(net: nn.Module, device: torch.device) -> float:
    """Floating-point operations of one image's way forward: of matrix products, convolutions and attention."""
    x, t = torch.randn(SHAPE, device=device), torch.ones(SHAPE[0], dtype=torch.int64, device=device)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # as two products, to be counted
        net(x, t)
    return counter.get_total_flops() / SHAPE[0]


def matrix_rate(device: torch.device, n: int = 2048) -> float:
    """Operations a second of a float32 matrix product: the best of ten."""
    a, b = torch.randn(2, n, n, device=device)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def seconds_to_sample(iterator, total: int, timed: int) -> float:
    """Seconds for all `total` steps of a sampler, from at most `timed` of them after the first."""
    next(iterator)
    count, started = 0, time.perf_counter()
    for _ in iterator:
        count += 1
        if count == timed:
            break
    synchronize(best_device())
    return (time.perf_counter() - started) / count * total


def peak_memory(device: torch.device) -> int | None:
    """The process's largest memory so far in MB, on a CUDA GPU the tensors' there; None where it is not known."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def cost(name: str) -> dict:
    """What lesson 00's network costs at other batch sizes, image sizes or numbers of sampling steps."""
    images, labels = load_images()
    net, diffusion, keywords = ours.lesson_00()
    if name == "steps":
        net.to(best_device(), memory_format=torch.channels_last).eval()
        y = (torch.arange(SHAPE[0]) % 10).to(best_device())
        seconds = {n: seconds_to_sample(ddim_steps(net, diffusion, SHAPE, n, y=y), n, n) for n in (10, 25, 50, 100)}
        return dict(name=name, values={n: round(s, 2) for n, s in seconds.items()})

    rates = {}
    for value in (16, 32, 64, 128, 256) if name == "batch" else (28, 32, 64):
        if name == "size" and value % net.divisor:
            continue
        data = images if name == "batch" else nn.functional.interpolate(images[:1000], (value, value))
        how = keywords | ({"batch_size": value} if name == "batch" else {})
        trained = our_recipe(copy.deepcopy(net), diffusion, data, labels[: len(data)], how, 0, short=True)
        rates[value] = round(trained.images / trained.seconds, 1)
    return dict(name=name, values=rates)


SAMPLERS = {  # what the curve compares, on the bundled network: a sampler and a scale of guidance
    "DDIM": (ddim_steps, None),
    "ancestral, β̃": (ancestral_steps, None),
    "DDIM, guidance 1.5": (ddim_steps, 1.5),
}


def curve(counts: tuple[int, ...] = (5, 10, 25, 50), samples: int = SAMPLES) -> dict:
    """Fréchet distance of the bundled network's conditional samples, and how many in 100 the judge calls what was
    asked for, by sampler and number of steps: what `generate`'s defaults are chosen from."""
    device = best_device()
    net, diffusion, _ = load_pretrained(device)
    reference = features(load_images(split="test")[0])
    y, values = (torch.arange(samples) % 10).to(device), {}
    for name, (sampler, scale) in SAMPLERS.items():
        called = guided(net, scale) if scale else net
        for steps in counts:
            made = generate(
                called, diffusion, (samples, *SHAPE[1:]), steps, y=y, sampler=sampler, progress=False,
                generator=torch.Generator(device).manual_seed(0),
            )  # fmt: skip
            asked = (classify(made).cpu() == y.cpu()).double().mean().item()
            values.setdefault(name, {})[steps] = [round(frechet_distance(made, reference), 2), round(100 * asked, 1)]
            print(name, steps, values[name][steps], flush=True)
    return dict(name="curve", values=values)


def overhead(repeats: int = 11) -> dict:
    """What `generate` costs beyond the network's calls: seconds for 64 images of lesson 00's network at its default
    number of steps, and of as many bare calls on inputs of that shape; medians of runs that take turns."""
    net, diffusion, _ = ours.lesson_00()
    device = best_device()
    net.to(device, memory_format=torch.channels_last).eval()
    steps = inspect.signature(generate).parameters["steps"].default
    y = (torch.arange(SHAPE[0]) % 10).to(device)
    x = torch.randn(SHAPE, device=device)
    times = torch.linspace(diffusion.schedule.T, 1, steps).long().to(device)

    @torch.no_grad()
    def bare() -> None:
        for t in times:
            net(x, t.expand(SHAPE[0]), y)

    def whole() -> None:
        generate(net, diffusion, SHAPE, y=y, progress=False)

    seconds = {bare: [], whole: []}
    for _ in range(repeats):
        for run in (bare, whole):
            started = time.perf_counter()
            run()
            synchronize(device)
            seconds[run].append(time.perf_counter() - started)
    calls, made = (statistics.median(seconds[run][1:]) for run in (bare, whole))
    return dict(name="overhead", values={"bare calls": round(calls, 3), "generate": round(made, 3)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    os.environ.pop("DDPM_COURSE_FAST", None)  # it would cut the training short
    if args.name in ("batch", "size", "steps"):
        result = cost(args.name)
    elif args.name in ("curve", "overhead"):
        result = {"curve": curve, "overhead": overhead}[args.name]()
    else:
        result = row(args.name, args.minutes, args.short)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
