"""Training within a budget, the moving average of the weights, checkpoints (lessons 00, 06 and 07).

From the command line, in a checkout:

    python -m ddpm_course.training --minutes 4 --out model
"""

import argparse
import copy
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from . import schedules
from .data import ASSETS, load_images, to_unit_range
from .diffusion import GaussianDiffusion
from .losses import diffusion_loss
from .schedules import Schedule
from .unet import UNet

WARMUP = 50  # steps over which the learning rate rises
MEASURED = 12  # steps timed to turn minutes into steps
FAST_STEPS = 6


def fast_mode() -> bool:
    """Whether budgets are shortened to seconds (tests, and grading of exercises)."""
    return os.environ.get("DDPM_COURSE_FAST") == "1" or "NBGRADER_EXECUTION" in os.environ


def best_device() -> torch.device:
    """CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def mixed_precision(device_type: str, bf16_in_hardware: bool) -> torch.dtype | None:
    """The precision of the network's matrix products: bfloat16, float16 (with loss scaling), or None for float32.

    device_type:      "cuda", "mps" or "cpu"; only CUDA gains from it in this course
    bf16_in_hardware: as torch.cuda.is_bf16_supported(including_emulation=False) says; False on a T4, True on an A100
    """
    if device_type != "cuda":
        return None
    return torch.bfloat16 if bf16_in_hardware else torch.float16


class EMA:
    """An exponential moving average of a network's weights: the weights to sample with.

    decay: the average's memory, about 1 / (1 - decay) steps; 0.9999 in Ho et al. (2020), section 4. The
           n-th update uses min(decay, (1 + n) / (10 + n)), so that the random weights of the start are soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float = 0.995):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards net's weights; call it after the optimizer's step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), 1 - decay)
        for ours, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            ours.copy_(theirs)


@dataclass
class Run:
    """A training, while it goes on and afterwards. `ema.net` is the network to sample with."""

    net: nn.Module
    ema: EMA
    steps: int | None = None  # planned; None while the speed is being measured
    step: int = 0  # done
    seconds: float = 0.0  # spent in training steps
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss since the entry before)


def train(
    net: nn.Module,
    diffusion: GaussianDiffusion,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    lr: float = 4e-3,
    ema_decay: float = 0.995,
    label_dropout: float = 0.1,
    kind: str = "l2",
    seed: int = 0,
    device: torch.device | str | None = None,
    watch: Callable[[Run], None] | None = None,
    report_every: int = 25,
) -> Run:
    """Algorithm 1 of Ho et al. (2020), for a number of minutes or of steps.

    net, diffusion: what to train, and what its output means; the network is moved to `device`
    images:         (N, C, H, W) uint8; they stay on the device and are shuffled and scaled there
    labels:         (N,) or None; `label_dropout` of them become the null class, for guidance
    minutes, steps: one of the two. Minutes are turned into steps once, by timing the first ones, and buy training
                    steps alone: what `watch` does comes on top. In fast mode there are a few steps at most.
    lr:             rises over the first 50 steps, then falls along a cosine to 0 at the last
    watch:          called with the Run every `report_every` steps, which is also when the losses are read
    returns         the Run; interrupting the notebook's cell returns early with what there is
    raises          ValueError for arguments that do not fit; FloatingPointError if the loss stops being finite
    """
    if (minutes is None) == (steps is None):
        raise ValueError("give either minutes or steps")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 with shape (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if len(images) == 0:
        raise ValueError("there are no images to train on")
    if labels is not None and getattr(net, "num_classes", None) is None:
        raise ValueError("labels were given, but the network has no classes: build it with num_classes=...")
    if labels is not None and labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape ({len(images)},), one an image; got {tuple(labels.shape)}")
    if fast_mode() and (steps is None or steps > FAST_STEPS):
        asked = f"{minutes:g} minutes" if steps is None else f"{steps:,}"
        print(f"fast mode: {FAST_STEPS} steps of training instead of {asked}")
        minutes, steps = None, FAST_STEPS

    device = torch.device(device) if device else best_device()
    net.to(device, memory_format=torch.channels_last).train()
    images = images.to(device)
    labels = labels.to(device) if labels is not None else None
    generator = torch.Generator(device).manual_seed(seed)  # of data order, t and noise
    batches = _batches(images, labels, min(batch_size, len(images)), generator)

    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = mixed_precision(device.type, bf16)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    def mixed_net(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            return net(x, t, y)

    run = Run(net, EMA(net, ema_decay), steps)
    print(f"training on {device}" + (f" with {precision} products" if precision else ""), flush=True)
    pending = []  # losses still on the device: reading one makes the host wait for a GPU
    started = time.perf_counter()
    try:
        while run.steps is None or run.step < run.steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(run.step, run.steps, lr)
            x, y = next(batches)
            if y is not None:
                drop = torch.rand(len(y), device=device, generator=generator) < label_dropout
                y = torch.where(drop, net.num_classes, y)
            loss = diffusion_loss(mixed_net, diffusion, x, y, kind, generator=generator).mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            run.ema.update(net)
            pending.append(loss.detach())
            run.step += 1

            if run.steps is None and run.step in (3, 3 + MEASURED):  # 3: the first steps are slower, they don't count
                pending[-1].item()  # wait for the device
                spent = run.seconds + time.perf_counter() - started  # in training steps, without what `watch` takes
                if run.step == 3:
                    measured_from = spent
                else:
                    pace = (spent - measured_from) / MEASURED  # seconds a step
                    run.steps = run.step + max(0, round((minutes * 60 - spent) / pace))
                    print(f"{1 / pace:.1f} steps/s: {minutes:g} minutes are {run.steps:,} steps", flush=True)
            if run.step % report_every == 0 or run.step == run.steps:
                value = torch.stack(pending).mean().item()
                pending.clear()
                run.seconds += time.perf_counter() - started
                run.losses.append((run.step, value))
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the loss is {value} at step {run.step}; the last finite one was "
                        f"{run.losses[-2][1] if len(run.losses) > 1 else None}. Try a smaller lr than {lr:g}."
                    )
                if watch is not None:
                    watch(run)
                started = time.perf_counter()
    except KeyboardInterrupt:
        print(f"stopped after {run.step} steps: the networks in the result are usable as they are")
    net.eval()
    return run


def learning_rate(step: int, steps: int | None, peak: float) -> float:
    """The rate of step 0, 1, …: rises over WARMUP steps, then follows half a cosine down to 0 at `steps`."""
    if step < WARMUP or steps is None:
        return peak * min(1.0, (step + 1) / WARMUP)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def _batches(images: Tensor, labels: Tensor | None, size: int, generator: torch.Generator):
    """Shuffled batches for ever: every image once before any comes again (but for the last, partial batch)."""
    while True:
        order = torch.randperm(len(images), device=images.device, generator=generator)
        for rows in order[: len(images) // size * size].split(size):
            yield to_unit_range(images[rows]), None if labels is None else labels[rows]


def save_checkpoint(path: str | Path, net: UNet, diffusion: GaussianDiffusion, **about) -> None:
    """Write path.safetensors (weights and betas) and path.json (everything needed to use them, and `about`).

    Both are written whole under another name and then renamed, so that a reader never meets half of one and a full
    disk leaves the checkpoint that was there before.
    """
    path = _without_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    tensors["betas"] = diffusion.schedule.beta[1:].contiguous()
    about = dict(network=net.arguments, predicts=diffusion.predicts, variance=diffusion.variance, **about)
    contents = {
        path.with_name(path.name + ".safetensors"): save(tensors),
        path.with_name(path.name + ".json"): json.dumps(about, indent=2).encode(),
    }
    partials = {file: file.with_name(file.name + ".partial") for file in contents}
    for file, content in contents.items():
        partials[file].write_bytes(content)
    for file, partial in partials.items():
        partial.replace(file)


def load_checkpoint(path: str | Path, device: torch.device | str | None = None) -> tuple[UNet, GaussianDiffusion, dict]:
    """Read what `save_checkpoint` wrote: the network in evaluation mode, its diffusion, and the JSON.

    Nothing in the files is executed.
    raises FileNotFoundError if there is none at `path`; ValueError if the files are not such a checkpoint
    """
    path = _without_suffix(path)
    weights, facts = (path.with_name(path.name + suffix) for suffix in (".safetensors", ".json"))
    for file in (weights, facts):
        if not file.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}: {file.name} is missing")
    try:
        about = json.loads(facts.read_text())
        tensors = load_file(weights)
        diffusion = GaussianDiffusion(Schedule(tensors.pop("betas")), about["predicts"], about["variance"])
        net = UNet(**about["network"])
        net.load_state_dict(tensors)
    except (ValueError, LookupError, TypeError, RuntimeError, OSError, safetensors.SafetensorError) as e:
        raise ValueError(f"{path} is not a checkpoint of this course, or is damaged: {e}") from e
    return net.eval().to(device or best_device(), memory_format=torch.channels_last), diffusion, about


def _without_suffix(path: str | Path) -> Path:
    """The name both files share; "lr0.004" has no suffix to lose, so `Path.with_suffix` will not do."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def load_pretrained(device: torch.device | str | None = None) -> tuple[UNet, GaussianDiffusion, dict]:
    """The bundled checkpoint: a class-conditional network for Fashion-MNIST. See `load_checkpoint`."""
    return load_checkpoint(ASSETS / "fashion_unet", device)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network and save its averaged weights.")
    parser.add_argument("--data", default="bundled", help="what load_images takes")
    parser.add_argument("--size", type=int, help="resize and crop the images to this")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float)
    budget.add_argument("--steps", type=int)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--patch", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--unconditional", action="store_true", help="ignore the labels")
    parser.add_argument("--schedule", choices=["linear", "quadratic", "sigmoid", "cosine"], default="cosine")
    parser.add_argument("--T", type=int, default=1000)
    parser.add_argument("--predicts", choices=["noise", "x0", "v"], default="v")
    parser.add_argument("--kind", choices=["l2", "l1", "huber"], default="l2", help="of the loss")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="without suffix")
    args = parser.parse_args()

    images, labels = load_images(args.data, size=args.size)
    classes = None if args.unconditional or labels.max() == 0 else int(labels.max()) + 1
    torch.manual_seed(args.seed)
    net = UNet(
        images.shape[1], args.widths, blocks=args.blocks, patch=args.patch, dropout=args.dropout, num_classes=classes
    )
    diffusion = GaussianDiffusion(getattr(schedules, f"{args.schedule}_schedule")(args.T), args.predicts)

    def report(run: Run) -> None:
        if len(run.losses) % 20 == 1 or run.step == run.steps:
            print(f"step {run.step:,}: loss {run.losses[-1][1]:.4f}, {run.seconds:.0f} s", flush=True)

    run = train(
        net, diffusion, images, labels if classes else None, minutes=args.minutes, steps=args.steps,
        batch_size=args.batch_size, lr=args.lr, ema_decay=args.ema, kind=args.kind, seed=args.seed, watch=report,
    )  # fmt: skip
    save_checkpoint(
        args.out, run.ema.net, diffusion, schedule=f"{args.schedule}, T={args.T}", data=args.data,
        images_shape=list(images.shape), command="python -m ddpm_course.training " + shlex.join(sys.argv[1:]),
        steps=run.step, seconds=round(run.seconds), loss=run.losses[-1][1] if run.losses else None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
