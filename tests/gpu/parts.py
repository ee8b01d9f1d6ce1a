"""What `make test-gpu` tries, part by part: is it right, then how fast is it. run.py gives each a process of its own.

A part is given the device, and whether the sizes are to be a CPU's; it yields rows of the table.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from unittest import mock

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import classify, features, frechet_distance
from ddpm_course.nets import Guided, MixedPrecision
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import load_checkpoint, save_checkpoint, step, train
from ddpm_course.training.devices import Team, mixed_precision
from ddpm_course.training.state import digest
from ddpm_course.training.step import Training
from ddpm_course.unet import UNet

OTHER_BLOCKS = dict(
    widths=(8, 16), self_condition=True, attention=("linear", "full"), conv="standardised", time="add", middle="linear",
    downsample="space_to_depth", upsample="transposed", dropout=0.1, num_classes=10,
)  # fmt: skip
STEPS = inspect.signature(generate).parameters["steps"].default  # of a sampler


def row(check: str, passed: bool | None, found: str, **figures) -> dict:
    """A row of the table: what was tried, whether it passed (None: it only tells), what was found, figures by name."""
    return dict(check=check, passed=passed, found=found, **figures)


def lesson_00() -> tuple[UNet, GaussianDiffusion]:
    """Lesson 00's network and what its output means; the rest of its recipe is what `train` does by default."""
    torch.manual_seed(0)
    return UNet(1, (32, 64), num_classes=10), GaussianDiffusion(cosine_schedule(1000), "v")


def random_images(n: int, channels: int = 1, side: int = 28) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=g), torch.arange(n) % 10


def new_training(net: UNet, diffusion: GaussianDiffusion, device: torch.device, batch: int, side: int = 28) -> Training:
    """A training with the defaults of `train`, on four batches of random images, so that a few steps pass an epoch."""
    taken, ours = inspect.signature(Training).parameters, {"net", "diffusion", "images", "labels"}
    given = {name: p.default for name, p in inspect.signature(train).parameters.items() if name in taken.keys() - ours}
    images = random_images(4 * batch, net.channels, side)
    return Training(net, diffusion, *images, Team(device), **given | dict(batch_size=batch))


def steps_of(training: Training, count: int) -> None:
    for _ in range(count):
        training.step(1e-3)


def seconds_for(work: Callable[[], object], device: torch.device) -> float:
    synchronize = getattr(torch, device.type).synchronize
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def sentence(error: Exception) -> str:
    """What went wrong, and the last line of the course or of this file that it came by."""
    ours = (str(Path(__file__).parents[2] / "ddpm_course"), __file__)
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename.startswith(ours)][-1:]
    place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in frames)
    return f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}{place}"


def rows_of(part: str, device: str, small: bool) -> Iterator[dict]:
    """The rows of a part; where it raises, the last one says so."""
    try:
        yield from globals()[part](torch.device(device), small)
    except Exception as error:
        yield row(part, False, sentence(error))


# ---- is it right? ---------------------------------------------------------------------------------------------------


def machine(device: torch.device, small: bool) -> Iterator[dict]:
    card, memory, products = device.type, None, mixed_precision(device) or torch.float32
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card, memory = properties.name, round(properties.total_memory / 1e9)
    found = f"{card}{f', {memory} GB' if memory else ''}, torch {torch.__version__}; trains with {products} products"
    yield row("machine", None, found, card=card, gigabytes=memory, torch=torch.__version__, cuda=torch.version.cuda)


def placement(device: torch.device, small: bool) -> Iterator[dict]:
    """What tests/test_devices.py asks of fake tensors."""
    net, diffusion = lesson_00()
    training = new_training(net, diffusion, device, 8)
    steps_of(training, 5)
    held = [value for state in training.optimizer.state.values() for value in state.values()]
    places = {
        "weights": [*net.parameters(), *training.weights, *training.good_weights],
        "optimizer": [value for value in held if isinstance(value, Tensor) and value.ndim],  # a count may be the host's
        "data": [training.images, training.labels, training.batches.order, *training.run.unread],
        "tables": diffusion.schedule._on_device.values(),
        "samples": [x for one in ddim_steps(net, diffusion, (2, 1, 28, 28), 3) for x in (one.x, one.x0)],
    }
    astray = [name for name, tensors in places.items() if any(x.device.type != device.type for x in tensors)]
    found = f"elsewhere: {', '.join(astray)}" if astray else f"{sum(map(len, places.values()))} tensors are"
    yield row(f"training and sampling stay on {device.type}", not astray, found)

    x0, y = torch.randn(4, 1, 8, 8, device=device), torch.arange(4)  # a sampler takes labels of the host along
    net = UNet(**OTHER_BLOCKS).to(device)
    for predicts, sampler in (("noise", ancestral_steps), ("x0", ddim_steps)):
        other = GaussianDiffusion(cosine_schedule(1000), predicts, "large")
        diffusion_loss(net, other, x0, y.to(device)).mean().backward()
        sample(sampler(Guided(net, 2.0), other, x0.shape, 3, y=y), progress=False)
    yield row("other blocks, targets, samplers; guidance", True, "they run")
    if device.type != "cpu":
        try:
            q_sample(diffusion.schedule, x0, y, x0)
        except ValueError as error:
            yield row("t on the host beside data on the GPU", "t is on cpu" in str(error), str(error))
        else:
            yield row("t on the host beside data on the GPU", False, "nothing was said")


def pulls(device: torch.device, small: bool) -> Iterator[dict]:
    """Nothing in a step makes the host wait for the GPU; the first ones may, they fill caches."""
    works, notices = {"one that is there": lambda: torch.ones(1, device=device).item()}, "one that is there"
    for dtype in dict.fromkeys((mixed_precision(device), torch.float16 if device.type == "cuda" else None)):
        with mock.patch.object(step, "mixed_precision", lambda _, dtype=dtype: dtype):
            training = new_training(*lesson_00(), device, 8)
        steps_of(training, 6)
        works[f"training with {dtype or torch.float32} products"] = partial(steps_of, training, 12)
    for sampler in (ddim_steps, ancestral_steps):
        net, diffusion = lesson_00()
        steps = sampler(Guided(net.to(device), 1.5), diffusion, (8, 1, 28, 28), 10, y=torch.arange(8))
        next(steps)
        works[sampler.__name__] = partial(sample, steps, progress=False)
    for name, work in works.items():
        problem = ""
        try:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            work()
        except RuntimeError as error:
            problem = sentence(error)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        passed = "synchronizing" in problem if name == notices else not problem
        skipped = device.type != "cuda" and not problem
        found = "skipped: only CUDA tells" if skipped else problem or "none"
        yield row(f"host pulls: {name}", None if skipped else passed, found)


def precision(device: torch.device, small: bool) -> Iterator[dict]:
    """Outputs and gradients against float64 on the CPU, with the same weights and images.

    A layer rounds what it reads and what it writes: three errors of half an eps at most and of random sign, together
    less than an eps. So n layers are off by less than eps sqrt(n), or twice as many with the way back. Half precision
    adds up in float32. Float32 adds up in itself, and some of cuDNN's convolutions (Winograd's) lose a digit there.
    """
    net, g = lesson_00()[0], torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():  # what starts at 0 would hide what comes before it
            weight += 0.02 * torch.randn(weight.shape, generator=g)
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear | nn.GroupNorm) for module in net.modules())
    n = 4 if small else 32
    x, target = torch.randn(2, n, 1, 28, 28, generator=g, dtype=torch.float64)
    t, y = torch.randint(1, 1001, (n,), generator=g), torch.arange(n) % 10

    def outcome(place: torch.device, real: torch.dtype, products: torch.dtype | None) -> tuple[Tensor, Tensor]:
        here = deepcopy(net).to(place, real, memory_format=torch.channels_last)
        scaler = torch.amp.GradScaler(place.type, enabled=products == torch.float16)
        output = MixedPrecision(here, products)(x.to(place, real), t.to(place), y.to(place))
        scaler.scale((output.to(real) - target.to(place, real)).square().mean()).backward()
        scaler.unscale_(torch.optim.SGD(here.parameters()))  # it finds the gradients by their optimizer
        gradients = torch.cat([weight.grad.flatten() for weight in here.parameters()])
        return output.detach().cpu().double(), gradients.cpu().double()

    exact = outcome(torch.device("cpu"), torch.float64, None)
    allowed = torch.backends.cudnn.allow_tf32  # convolutions then keep as many digits as float16's, where the GPU can
    for name, products, digits, tf32 in (
        ("float32", None, torch.float32, False),
        ("float32, TF32 where there is", None, torch.float16, True),
        ("bfloat16", torch.bfloat16, torch.bfloat16, allowed),
        ("float16, scaled", torch.float16, torch.float16, allowed),
    ):
        if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            yield row("precision: bfloat16", None, "skipped: this GPU only emulates it")
            continue
        try:
            torch.backends.cudnn.allow_tf32 = tf32
            found = outcome(device, torch.float32, products)
        finally:
            torch.backends.cudnn.allow_tf32 = allowed
        errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]
        eps = torch.finfo(digits).eps * (10 if digits == torch.float32 else 1)
        limits = [eps * (ways * layers) ** 0.5 for ways in (1, 2)]
        passed = errors[0] < limits[0] and errors[1] < limits[1]
        text = "output off by {:.1e} of {:.1e}, gradients by {:.1e} of {:.1e}"
        found = text.format(errors[0], limits[0], errors[1], limits[1])
        yield row(f"precision: {name}", passed, found, errors=errors, limits=limits)


def compiled(device: torch.device, small: bool) -> Iterator[dict]:
    """torch.compile trains as well as without it, and a checkpoint has the names that it has without it."""
    count, batch = (12, 4) if small else (300, 64)
    backend = "inductor" if device.type == "cuda" else "eager"  # inductor asks for a compiler of C++ on a CPU
    losses, paces, compiling = [], [], mock.Mock(wraps=partial(torch.compile, backend=backend))
    with mock.patch("torch.compile", compiling):
        for wanted in (False, True):
            net, diffusion = lesson_00()
            marks = []
            run = train(
                net, diffusion, *random_images(4 * batch), steps=count, batch_size=batch, device=device, compile=wanted,
                report_every=count // 6, watch=lambda run, marks=marks: marks.append((run.step, run.seconds)),
            )  # fmt: skip
            losses.append(torch.tensor([loss for _, loss in run.losses]))
            (first, began), (last, ended) = marks[1], marks[-1]  # it compiles before the first report
            paces.append((last - first) / (ended - began))
        worst = (losses[1] / losses[0] - 1).abs().max().item()
        # sums in another order; start weights off by bfloat16's rounding move these means by 0.05 %
        passed = worst < 0.02 and compiling.call_count == 1
        yield row("torch.compile: losses", passed, f"{worst:.1%} apart at most in {count} steps", apart=worst)
        found = f"{paces[0]:.1f} steps/s without, {paces[1]:.1f} with"
        yield row("torch.compile: lesson 00's network", None, found, plain=paces[0], compiled=paces[1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.safetensors"
            save_checkpoint(path, torch.compile(run.net), diffusion)
            with safe_open(path, "pt") as file:
                names = set(file.keys()) ^ {*lesson_00()[0].state_dict(), "betas"}
            again = load_checkpoint(path, device)[0].state_dict()
            same = all(torch.equal(value, again[name]) for name, value in run.net.state_dict().items())
        found = f"another name: {min(names)}" if names else "ordinary names" + ("" if same else ", other weights")
        yield row("torch.compile: a checkpoint", not names and same, found)


def resume(device: torch.device, small: bool) -> Iterator[dict]:
    """Trained in one go, or stopped half-way and gone on with: the same weights and averages to the last bit."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS promises nothing; it is read at its first use
    torch.use_deterministic_algorithms(True)
    batch = 8 if small else 64

    def trained(seed: int, checkpoint: Path | None = None, stop: int | None = None) -> Tensor:
        def watch(run: step.Run) -> None:
            if run.step == stop:
                raise KeyboardInterrupt

        torch.manual_seed(seed)  # of the weights to start from, and of dropout
        net = UNet(1, (16, 32), num_classes=10, dropout=0.1)
        run = train(
            net, lesson_00()[1], *random_images(4 * batch), steps=20, batch_size=batch, report_every=5, device=device,
            checkpoint=checkpoint, watch=watch,
        )  # fmt: skip
        return torch.cat([value.flatten() for net in (run.net, run.ema.net) for value in net.state_dict().values()])

    try:
        whole, twice = trained(0), trained(0)
        with tempfile.TemporaryDirectory() as folder:
            half, resumed = trained(0, Path(folder) / "state", stop=10), trained(1, Path(folder) / "state")
    finally:
        torch.use_deterministic_algorithms(False)
    for check, other in (("twice", twice), ("stopped half-way and gone on with", resumed)):
        apart = (whole - other).abs().max().item()
        passed = torch.equal(whole, other) and not torch.equal(whole, half)  # or it would tell nothing
        yield row(f"a training {check}", passed, f"weights differ by {apart:.1e}" if apart else "the same bits")


def shared(device: torch.device, small: bool) -> Iterator[dict]:
    """What `processes` compares: a short training in float32, alone or as one of torchrun's processes."""
    torch.backends.cudnn.allow_tf32 = False
    net, diffusion = lesson_00()
    with mock.patch.object(step, "mixed_precision", lambda _: None):
        run = train(net, diffusion, *random_images(64), steps=20, batch_size=16, report_every=5, device=device.type)
    weights = digest(torch.cat([weight.flatten() for weight in net.parameters()]))
    yield row("shared", None, "", weights=weights, losses=[loss for _, loss in run.losses])


def processes(device: torch.device, small: bool) -> Iterator[dict]:
    """Two processes with a GPU each (NCCL; gloo on a CPU) train the network that one does."""
    if device.type != "cpu" and torch.cuda.device_count() < 2:
        yield row("torchrun, two processes", None, "skipped: there is one GPU")
        return
    script = [str(Path(__file__).with_name("run.py")), "shared", "--rows", "--device", device.type]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    pipe = subprocess.PIPE
    launcher = subprocess.Popen(launch + script, stdout=pipe, stderr=pipe, text=True, errors="replace")
    try:
        out, errors = launcher.communicate(timeout=80)
    finally:
        launcher.terminate()  # not killed: it has processes of its own to end
        launcher.wait(20)
    two = [json.loads(line) for line in out.splitlines() if line.startswith("{")]  # libraries may have a say
    if len(two) != 2 or not all("losses" in one for one in two):
        yield row("torchrun, two processes", False, f"failed: {two[0]['found'] if two else errors.strip()[-200:]}")
        return
    (alone,) = shared(device, small)
    worst = max(abs(a / b - 1) for a, b in zip(two[0]["losses"], alone["losses"], strict=True))
    same = two[0]["weights"] == two[1]["weights"]
    found = f"losses {worst:.1e} off one process's, weights {'equal' if same else 'differ'} in both"
    yield row("torchrun, two processes", worst < 1e-3 and same, found, apart=worst)


def recipe(device: torch.device, small: bool) -> Iterator[dict]:
    """One minute of lesson 00's training, and how far 1,000 samples are from the held-out images."""
    if not (find_spec("PIL") and find_spec("pyarrow")):
        yield row("lesson 00's recipe", None, "skipped: no pictures can be read")
        return
    limit, minutes, n, steps = (200, 0.02, 70, 2) if small else (None, 1, 1000, STEPS)
    net, diffusion = lesson_00()
    run = train(net, diffusion, *load_images(limit=limit), minutes=minutes, device=device)
    found = f"{run.step:,} steps in {run.seconds:.0f} s, loss {run.losses[-1][1]:.3f}"
    yield row("lesson 00's recipe", True, found, steps=run.step, seconds=run.seconds, loss=run.losses[-1][1])
    reference, y = features(load_images(split="test", limit=limit)[0]), torch.arange(n) % 10
    for name, sampled in (("with labels", run.ema.net), ("with guidance 1.5", Guided(run.ema.net, 1.5))):
        g = torch.Generator(device).manual_seed(0)
        samples = generate(sampled, diffusion, (n, 1, 28, 28), steps, y=y, progress=False, generator=g)
        distance, right = frechet_distance(samples, reference), (classify(samples) == y).double().mean().item()
        found = f"{distance:.2f}, {right:.1%} as asked"
        yield row(f"its Fréchet distance {name}", None, found, frechet=distance, as_asked=right)


# ---- how fast is it? ------------------------------------------------------------------------------------------------


def speed(device: torch.device, small: bool) -> Iterator[dict]:
    """Training in the precision that `train` chooses; the peak is that of a matrix product in the same precision."""
    dtype, n = mixed_precision(device) or torch.float32, 512 if small else 8192
    product = partial(torch.mm, *torch.randn(2, n, n, device=device, dtype=dtype))
    product()
    peak = 2 * n**3 / min(seconds_for(product, device) for _ in range(10))
    del product  # its matrices would count as the training's memory
    yield row(f"matrix product, {dtype}", None, f"{peak / 1e12:.3g} TFLOP/s", flops=peak)
    for name, arguments, batch, side in (
        ("lesson 00's network, 28×28", lesson_00()[0].arguments, 64, 28),
        ("widths 64-128-256, 32×32", dict(channels=3, widths=(64, 128, 256), num_classes=10), 512, 32),
    ):
        net, batch = UNet(**arguments).to(device), 4 if small else batch
        x, t = torch.randn(4, net.channels, side, side, device=device), torch.ones(4, dtype=torch.int64, device=device)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            net(x, t)  # attention as two products, which are counted everywhere
        while (measured := training_speed(net, device, batch, side, 2 if small else 30)) is None:
            batch //= 2  # it did not fit; the memory is free again here, where the exception is gone
            torch.cuda.empty_cache()
        rate, memory = measured
        share = 3 * counter.get_total_flops() / 4 * rate / peak  # the way back costs twice the way there
        found = f"{rate:,.0f} images/s, {share:.0%} of that{f', {memory:,} MB' if memory else ''}"
        figures = dict(images_per_second=rate, share=share, megabytes=memory, batch=batch)
        yield row(f"{name}, batch {batch}", None, found, **figures)


def training_speed(net: UNet, device: torch.device, batch: int, side: int, count: int) -> tuple | None:
    """Images a second and, on CUDA, the largest memory in MB; None where the batch does not fit."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        training = new_training(net, lesson_00()[1], device, batch, side)
        steps_of(training, count // 3 + 1)  # the first ones choose algorithms and fill caches
        seconds = min(seconds_for(lambda: steps_of(training, count), device) for _ in range(3))
    except torch.OutOfMemoryError:
        return None
    return batch * count / seconds, round(torch.cuda.max_memory_allocated() / 1e6) if device.type == "cuda" else None


def sampling(device: torch.device, small: bool) -> Iterator[dict]:
    net, diffusion = lesson_00()
    net.eval().to(device, memory_format=torch.channels_last)
    n, steps = (20, 5) if small else (1000, STEPS)
    made = partial(generate, net, diffusion, (n, 1, 28, 28), y=torch.arange(n) % 10, progress=False)
    made(steps=2)
    seconds = seconds_for(partial(made, steps=steps), device)
    yield row(f"sampling {n:,} images in {steps} steps", None, f"{seconds:.2f} s", seconds=seconds)
