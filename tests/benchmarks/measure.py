"""Measures one row of the benchmark, or the curve, and prints it as a line of JSON; bench.py starts it.

In a process of its own, because the peak memory is the process's and because nothing a row leaves behind (memory,
threads, warm caches) should touch the next one.
"""

import ast
import copy
import importlib
import inspect
import json
import os
import statistics
import sys
import time
from contextlib import redirect_stdout
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course import schedules
from ddpm_course.classifier import classify, features
from ddpm_course.classroom import editions
from ddpm_course.data import clusters, load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.metrics import frechet_distance
from ddpm_course.nets import Guided
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate
from ddpm_course.training import best_device, load_pretrained, train
from ddpm_course.unet import UNet

SAMPLES = 1000  # of the Fréchet distance
SEEDS = 3  # of our own rows: their distance is the mean of so many trainings, every other row's that of one
CLUSTERS = 32  # of pixels, in the place of classes
GUIDANCE = 1.5  # of the guided samples after four minutes
SHAPE = (64, 1, 28, 28)  # of the images whose sampling is timed
TIMED_STEPS = 50  # a sampler with more steps than this is timed on so many, and scaled
SHORT_MINUTES = 0.2  # of training, where only its speed is asked for
PACE_SECONDS = 3  # of a peer's training, to turn minutes into steps
TRIAL = 128  # images in such a step, where the peer's own batch is larger
NOT_RECIPE = {"minutes", "watch", "checkpoint"}  # keywords of lesson 00's call that do not change what is learned


def lesson_00() -> tuple[UNet, GaussianDiffusion, dict]:
    """The network, what its output means, and the keywords of `train` that lesson 00 sets: so they are written once."""
    notebook = editions.read(editions.ROOT / "notebooks" / "solutions" / "00_start_here.ipynb")
    cells = {cell.id: cell.source for cell in notebook.cells}
    names = {"torch": torch, "UNet": UNet, "GaussianDiffusion": GaussianDiffusion, **vars(schedules), "print": str}
    exec(cells["model"], names)  # the course's own cell: `my_net = UNet(…)`, `my_diffusion = GaussianDiffusion(…)`
    calls = [node for node in ast.walk(ast.parse(cells["train"])) if isinstance(node, ast.Call)]
    call = next(node for node in calls if getattr(node.func, "id", None) == "train")
    keywords = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg not in NOT_RECIPE}
    return names["my_net"], names["my_diffusion"], keywords


def row(name: str, minutes: float, short: bool = False) -> dict:
    """A network and a recipe, trained for some minutes. `name` is "ours", "ours, no labels" (the same network and
    recipe, always given the null class), "ours, clusters" (labels made from the pixels), a peer's, or "PEER, our
    recipe"."""
    device, minutes, timed = best_device(), SHORT_MINUTES if short else minutes, 5 if short else TIMED_STEPS
    images, labels = load_images()
    net, diffusion, keywords = lesson_00()
    given, y = told(name, images, labels)
    if name == "ours, clusters":
        net = UNet(**net.arguments | dict(num_classes=CLUSTERS))
    arguments = net.arguments
    peer, own_recipe = None, False
    if not name.startswith("ours"):
        peer = importlib.import_module("peer_" + name.split(",")[0])
        own_recipe = not name.endswith(", our recipe")
        diffusion = peer.DIFFUSION if own_recipe else diffusion
        net = peer.build(diffusion.schedule)
    net.to(device)
    forward, peak = flops(net, device), matrix_rate(device)

    if own_recipe:
        net, seen, seconds = train_as(peer, net, images.to(device), minutes)
        sampler, total, steps = peer.sampler(net.eval(), SHAPE)
    else:
        keywords = {"batch_size": default(train, "batch_size")} | keywords
        run = train(net, diffusion, images, given, minutes=minutes, **keywords)
        net, seen, seconds = run.ema.net, run.step * keywords["batch_size"], run.seconds
        total = default(generate, "steps")
        few = y if y is None else y[: SHAPE[0]]
        sampler, steps = f"ancestral, {total} steps", ancestral_steps(net.eval(), diffusion, SHAPE, total, y=few)
    memory = peak_memory(device)  # of training: what sampling takes depends on how many images at once
    peak = max(peak, matrix_rate(device))  # a shared machine has slow moments, and the first may have been one
    result = dict(
        name=name,
        parameters=sum(p.numel() for p in net.parameters()),
        images_per_second=round(seen / seconds, 1),
        fraction_of_peak=round(3 * forward * seen / seconds / peak, 3),
        peak_memory_mb=memory,
        seconds_64_samples=round(seconds_to_sample(steps, total, timed), 2),
        sampler=sampler + (f" (timed on {timed})" if total > timed else ""),
        peak_gflops=round(peak / 1e9, 1),
        mflops_per_image=round(forward / 1e6, 1),
        images=seen,
        training_seconds=round(seconds, 1),
        threads=torch.get_num_threads(),
        device=str(device),
    )
    if short:
        return result
    scores = [distances(net, diffusion, y)]
    for seed in range(1, SEEDS if name.startswith("ours") else 1):
        torch.manual_seed(seed)
        again = UNet(**arguments)
        run = train(again.to(device), diffusion, images, given, minutes=minutes, seed=seed, **keywords)
        scores.append(distances(run.ema.net, diffusion, y))
    plain, *guided = zip(*scores, strict=True)
    result |= dict(frechet=round(statistics.mean(plain), 2), frechet_by_seed=plain)
    return result | (dict(guided_by_seed=guided[0]) if guided else {})


def told(name: str, images: Tensor, labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What a row's network is told in training, and what its samples are asked to be; most are told nothing."""
    if name == "ours":
        return labels, (torch.arange(SAMPLES) % 10).to(best_device())
    if name == "ours, clusters":
        given = clusters(images, CLUSTERS, generator=torch.Generator().manual_seed(0))
        chosen = torch.randperm(len(given), generator=torch.Generator().manual_seed(1))[:SAMPLES]
        return given, given[chosen].to(best_device())  # each as often as there are pictures of it
    return None, None


def distances(net: nn.Module, diffusion: GaussianDiffusion, y: Tensor | None) -> list[float]:
    """The Fréchet distance of samples as `generate` draws them, and with labels also that of guided ones."""
    reference, device = features(load_images(split="test")[0]), best_device()
    values = []
    for called in [net] if y is None else [net, Guided(net, GUIDANCE)]:
        g = torch.Generator(device).manual_seed(0)
        made = generate(called, diffusion, (SAMPLES, *SHAPE[1:]), y=y, progress=False, generator=g)
        values.append(round(frechet_distance(made, reference), 2))
    return values


def default(function, argument: str) -> int:
    return inspect.signature(function).parameters[argument].default


def train_as(peer, net: nn.Module, images: Tensor, minutes: float) -> tuple[nn.Module, int, float]:
    """Train as the peer does; the network to sample with, and how many images it saw in how many seconds.

    The minutes are turned into steps before they begin, on a copy, so that a plan over the steps ends with the budget.
    """
    batches = flipped_batches(images, min(peer.BATCH, TRIAL))
    step, _ = peer.recipe(copy.deepcopy(net).train(), 1000)
    step(next(batches))  # the first one is slower
    seen, started = 0, time.perf_counter()
    while seen == 0 or time.perf_counter() - started < PACE_SECONDS:
        x = next(batches)
        step(x)
        synchronize(images.device)
        seen += len(x)
    pace = seen / (time.perf_counter() - started)

    steps = max(1, round(minutes * 60 * pace / peer.BATCH))
    print(f"{pace:.1f} images/s: {minutes:g} minutes are {steps:,} steps of {peer.BATCH}", flush=True)
    batches = flipped_batches(images, peer.BATCH)
    step, finish = peer.recipe(net.train(), steps)
    started = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    synchronize(images.device)
    return finish(), steps * peer.BATCH, time.perf_counter() - started


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
    timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
    return 2 * n**3 / min(timer.timeit(1).median for _ in range(10))


def seconds_to_sample(iterator, total: int, timed: int) -> float:
    """Seconds for all `total` steps of a sampler, from at most `timed` of them after the first."""
    next(iterator)
    started = time.perf_counter()
    count = sum(1 for _ in islice(iterator, timed))
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


SAMPLERS = {  # what the curve compares, on the bundled network: a sampler and a scale of guidance
    "DDIM": (ddim_steps, None),
    "ancestral, β̃": (ancestral_steps, None),
    "DDIM, guidance 1.2": (ddim_steps, 1.2),
}


def curve() -> dict:
    """Fréchet distance of the bundled network's conditional samples, and how many in 100 the judge calls what was
    asked for, by sampler and number of steps: what `generate`'s defaults are chosen from."""
    device = best_device()
    net, diffusion, _ = load_pretrained(device)
    reference = features(load_images(split="test")[0])
    y, shape, values = (torch.arange(SAMPLES) % 10).to(device), (SAMPLES, *SHAPE[1:]), {}
    for name, (sampler, scale) in SAMPLERS.items():
        called, values[name] = Guided(net, scale) if scale else net, {}
        for steps in (5, 10, 25, 50):
            g = torch.Generator(device).manual_seed(0)
            made = generate(called, diffusion, shape, steps, y=y, sampler=sampler, progress=False, generator=g)
            asked = (classify(made).cpu() == y.cpu()).double().mean().item()
            values[name][steps] = [round(frechet_distance(made, reference), 2), round(100 * asked, 1)]
            print(name, steps, values[name][steps], flush=True)
    return values


if __name__ == "__main__":
    name, minutes, *short = sys.argv[1:]
    os.environ.pop("DDPM_COURSE_FAST", None)  # it would cut the training short
    with redirect_stdout(sys.stderr):
        result = dict(name="curve", values=curve()) if name == "curve" else row(name, float(minutes), bool(short))
    print(json.dumps(result))
