"""Training within a budget, and the moving average of the weights (lessons 00, 06 and 07).

From the command line, in a checkout:

    python -m ddpm_course.training --minutes 4 --out model

With --checkpoint STATE a training that was killed goes on where it was when the same line is typed again. On a machine
with several GPUs, or on the cores of one CPU, N processes share each batch:

    torchrun --nproc-per-node=N -m ddpm_course.training --minutes 4 --out model
"""

import argparse
import hashlib
import math
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from . import schedules
from .budgets import Budget
from .checkpoints import StateFile, digest, load_checkpoint, load_pretrained, save_checkpoint, weights_file
from .data import load_images
from .devices import Team, best_device
from .diffusion import GaussianDiffusion
from .training_step import EMA, Run, Training
from .unet import UNet

__all__ = [
    "EMA", "Run", "best_device", "fast_mode", "learning_rate", "load_checkpoint", "load_pretrained", "save_checkpoint",
    "train",
]  # fmt: skip

WARMUP = 50  # steps over which the learning rate rises
FAST_STEPS = 6


def fast_mode() -> bool:
    """Whether budgets are shortened to seconds (tests, and grading of exercises)."""
    return os.environ.get("DDPM_COURSE_FAST") == "1" or "NBGRADER_EXECUTION" in os.environ


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
    compile: bool = False,
    checkpoint: str | Path | None = None,
    save_minutes: float = 1.0,
    watch: Callable[[Run], None] | None = None,
    report_every: int = 25,
) -> Run:
    """Algorithm 1 of Ho et al. (2020), for a number of minutes or of steps.

    net, diffusion: what to train, and what its output means; the network is moved to `device`
    images:         (N, C, H, W) uint8; they stay on the device and are shuffled and scaled there
    labels:         (N,) integers in 0..net.num_classes - 1, or None; `label_dropout` of them become the null class,
                    for guidance
    minutes, steps: one of the two. Minutes are turned into steps by timing the first ones (see `Budget`), and buy
                    training steps alone: what `watch` does comes on top. In fast mode there are a few steps at most.
    batch_size:     images a step, of all processes together; no more than there are
    lr:             rises over the first 50 steps, then falls along a cosine to 0 at the last
    ema_decay:      of the moving average of the weights, see `EMA`
    kind:           of the loss, see `diffusion_loss`
    seed:           of data order, dropped labels, t and noise; not of dropout, nor of the weights net starts with
    device:         where to train; `best_device()` by default
    compile:        train through torch.compile: the first step takes a minute, the others less; for long runs on a GPU
    checkpoint:     a file for the state of the training, written at the first report after `save_minutes`, when you
                    stop it, and at the end. Where it exists already the training goes on from it, with the plan it
                    had; on a CPU it ends with the weights, bit for bit, that it would have had. The state before is
                    kept beside it. In a folder that exists, every training, told apart by its arguments, has a file of
                    its own; of `net` its make counts, not its weights: for another start give another `seed` or file.
    watch:          called with the Run every `report_every` steps, a report, which is also when the losses are read
    returns         the Run; the notebook's stop button (or Ctrl-C) returns early with what there is
    raises          ValueError for arguments that do not fit, or a checkpoint that does not belong to them;
                    FloatingPointError if the loss stops being finite: net is then what it was at the report before
                    (the average of its weights is only where `watch` kept the Run, or in the checkpoint)

    Under `torchrun --nproc-per-node=N` the same call trains with N processes. They share each batch of `batch_size`;
    only the first one prints, writes and calls `watch`.
    """
    _check(net, images, labels, minutes=minutes, steps=steps, batch_size=batch_size, report_every=report_every)
    lr, seed = float(lr), int(seed)  # go into the checkpoint, which takes no NumPy numbers
    team = Team.join(device)
    say = partial(print, flush=True) if team.leads else _nothing
    if fast_mode() and (steps is None or steps > FAST_STEPS):
        asked = f"{minutes:g} minutes" if steps is None else f"{steps:,}"
        say(f"fast mode: {FAST_STEPS} steps of training instead of {asked}")
        minutes, steps = None, FAST_STEPS
    batch_size = int(min(batch_size, len(images)))
    if team.size > 1 and batch_size < 2 * team.size:
        raise ValueError(f"a batch of {batch_size} is too small for {team.size} processes: each needs two images of it")
    file = state = None
    if checkpoint is not None:
        of = dict(
            network=_description(net), images=digest(images), labels=digest(labels), predicts=diffusion.predicts,
            variance=diffusion.variance, betas=digest(diffusion.schedule.beta), minutes=minutes, steps=steps,
            batch_size=batch_size, lr=lr, ema_decay=ema_decay, label_dropout=label_dropout, kind=kind, seed=seed,
        )  # fmt: skip
        file = StateFile(checkpoint, of)
        state = team.told(file.load() if team.leads else None)

    training = Training(net, diffusion, images, labels, team, batch_size, lr, ema_decay, label_dropout, kind, seed)
    if compile:
        training.call = torch.compile(training.call)
    run = training.run
    run.steps = steps if steps is None else int(steps)
    say(f"training on {training}")
    if state is not None:
        if not training.load_state_dict(state):
            say(f"its state comes from another kind of device: on {team.device.type}, other random numbers follow")
        here = f"step {run.step:,}" + (f" of {run.steps:,}" if run.steps is not None else "")
        done = "nothing is left to do (to train again, delete it or give another checkpoint=)"
        left = done if run.step == run.steps else here
        say(f"going on from {checkpoint}: {left}")
    budget = Budget(minutes, run.step) if run.steps is None else None  # a plan that comes from a checkpoint stays
    saved = None if state is None else run.step

    def save() -> str:
        """Write the state and say where it is. A full disk costs the state, not the training."""
        nonlocal saved
        if file is None:
            return "with checkpoint= the same call could go on from here"
        try:
            if saved != run.step:
                file.save(training.state_dict())
            saved = run.step
        except OSError as e:
            say(f"the state of step {run.step:,} could not be written ({e})" + _kept(checkpoint, saved))
        return "the same call goes on" + (f" from step {saved:,}" if saved else " from the start")

    saved_at = clock = time.perf_counter()
    try:
        with unbroken() if team.size > 1 else nullcontext([]) as pressed:  # a team stops at a report, all of it at once
            while run.steps is None or run.step < run.steps:
                with unbroken():
                    training.step(learning_rate(run.step, run.steps, lr))
                    report = run.step % report_every == 0
                    if budget and (
                        report or run.steps is None and run.step % (1 if team.device.type == "cpu" else 10) == 0
                    ):
                        run.unread[-1].item()  # wait for the device (on a CPU there is nothing to wait for)
                        spent = run.seconds + time.perf_counter() - clock
                        plan = team.told(budget.plan(run.step, spent, run.steps) if team.leads else None)
                        if plan != run.steps:
                            instead = f" now, not {run.steps:,}" if run.steps else ""
                            say(f"{1 / budget.pace:.1f} steps/s: {minutes:g} minutes are {plan:,} steps{instead}")
                        run.steps = plan
                    report = report or run.step == run.steps
                    if report:
                        problem = training.read_losses()
                        if problem:
                            net.eval()
                            kept = _kept(checkpoint, saved)
                            raise FloatingPointError(f"{problem} Try a smaller lr than {lr:g}.{kept}")
                    run.seconds += time.perf_counter() - clock
                    clock = time.perf_counter()
                if report and team.any(bool(pressed)):
                    raise KeyboardInterrupt
                if report and team.leads:
                    if watch is not None:
                        watch(run)
                        net.train()  # it may have looked at samples, in evaluation mode
                    if file and (run.step == run.steps or time.perf_counter() - saved_at >= 60 * save_minutes):
                        with unbroken():
                            save()
                        saved_at = time.perf_counter()
                    clock = time.perf_counter()
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt), unbroken():  # pressed again: the state is still written
            on = save() if team.leads else ""
            say(f"stopped after {run.step:,} steps: the networks in the result are usable as they are, and {on}")
    net.eval()
    return run


def learning_rate(step: int, steps: int | None, peak: float) -> float:
    """The rate of step 0, 1, …: rises over WARMUP steps, then follows half a cosine down to 0 at `steps`."""
    if step < WARMUP or steps is None:
        return peak * min(1.0, (step + 1) / WARMUP)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


@contextmanager
def unbroken() -> Iterator[list]:
    """Let a step end when the stop button is pressed in the middle of it: KeyboardInterrupt comes afterwards.

    Yields a list that is empty as long as nothing was pressed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield []  # no interrupt arrives here
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(signal.SIGINT, None)


def _check(net: nn.Module, images: Tensor, labels: Tensor | None, **numbers: float | None) -> None:
    if (numbers["minutes"] is None) == (numbers["steps"] is None):
        raise ValueError("give either minutes or steps")
    for name, value in numbers.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be more than 0, got {value}")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 with shape (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if len(images) == 0:
        raise ValueError("there are no images to train on")
    if labels is None:
        return
    classes = getattr(net, "num_classes", None)
    if classes is None:
        raise ValueError("labels were given, but the network has no classes: build it with num_classes=...")
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        raise ValueError(f"labels must be a tensor of integers, got {getattr(labels, 'dtype', type(labels).__name__)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape ({len(images)},), one an image; got {tuple(labels.shape)}")
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0 or highest >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {lowest} to {highest}; {classes} is the null class")


def _description(net: nn.Module) -> str:
    """What tells a network from others, whatever its weights: its class, its size, and a digest of its make."""
    shapes = {name: (tuple(value.shape), str(value.dtype)) for name, value in net.state_dict().items()}
    make = hashlib.sha256(repr((getattr(net, "arguments", None), shapes)).encode()).hexdigest()
    return f"{type(net).__name__} of {sum(p.numel() for p in net.parameters()):,} weights, {make[:12]}"


def _kept(checkpoint: str | Path | None, step: int | None) -> str:
    return f" {checkpoint} holds the state of step {step:,}." if step is not None else ""


def _nothing(*args) -> None:
    """What the processes print that do not lead."""


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
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="train through torch.compile")
    parser.add_argument(
        "--checkpoint", type=Path, help="file for the state of the training; goes on from it if it exists"
    )
    parser.add_argument("--save-minutes", type=float, default=1.0, help="how often that file is written")
    parser.add_argument("--out", type=Path, required=True, help="the file to write: OUT.safetensors")
    args = parser.parse_args()
    if args.checkpoint and weights_file(args.out).resolve() == args.checkpoint.resolve():
        parser.error("--checkpoint and --out must be two files")

    def report(run: Run) -> None:
        if len(run.losses) % 20 == 1 or run.step == run.steps:
            print(f"step {run.step:,}: loss {run.losses[-1][1]:.4f}, {run.seconds:.0f} s", flush=True)

    try:
        if Team.join().leads:  # better now than after the training
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=args.out.parent):
                pass
        images, labels = load_images(args.data, size=args.size)
        classes = None if args.unconditional or labels.max() == 0 else int(labels.max()) + 1
        torch.manual_seed(args.seed)
        net = UNet(
            images.shape[1], args.widths, blocks=args.blocks, patch=args.patch, dropout=args.dropout,
            num_classes=classes,
        )  # fmt: skip
        diffusion = GaussianDiffusion(getattr(schedules, f"{args.schedule}_schedule")(args.T), args.predicts)
        run = train(
            net, diffusion, images, labels if classes else None, minutes=args.minutes, steps=args.steps,
            batch_size=args.batch_size, lr=args.lr, ema_decay=args.ema, kind=args.kind, seed=args.seed,
            compile=args.compile, checkpoint=args.checkpoint, save_minutes=args.save_minutes, watch=report,
        )  # fmt: skip
    except (ValueError, OSError, FloatingPointError) as e:
        sys.exit(f"{e}")
    if not Team.join().leads:
        return
    try:
        save_checkpoint(
            args.out, run.ema.net, diffusion, schedule=f"{args.schedule}, T={args.T}", data=args.data,
            images_shape=list(images.shape), command="python -m ddpm_course.training " + shlex.join(sys.argv[1:]),
            steps=run.step, seconds=round(run.seconds), loss=run.losses[-1][1] if run.losses else None,
        )  # fmt: skip
    except OSError as e:
        again = f": make room and repeat the command, it goes on from {args.checkpoint}" if args.checkpoint else ""
        sys.exit(f"the network could not be saved ({e}){again}")


if __name__ == "__main__":
    main()
