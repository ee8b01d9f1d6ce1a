"""The command line of the training.

    python -m ddpm_course.training --minutes 4 --out model

With --checkpoint STATE a training that was killed goes on where it was when the same line is typed again. On a machine
with several GPUs, or on the cores of one CPU, N processes share each batch:

    torchrun --nproc-per-node=N -m ddpm_course.training --minutes 4 --out model
"""

import argparse
import os
import shlex
import sys
import tempfile
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import torch

from .. import schedules
from ..data import load_images
from ..diffusion import VARIANCES, GaussianDiffusion
from ..unet import UNet
from .checkpoints import save_checkpoint, weights_file
from .devices import Team
from .loop import train
from .run import Run


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
    parser.add_argument("--variance", choices=VARIANCES, default="small", help="of a reverse step")
    parser.add_argument("--kind", choices=["l2", "l1", "huber"], default="l2", help="of the loss")
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--t-uniform", type=float, default=0.0, help="share of t drawn uniformly, not around a middle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="train through torch.compile")
    parser.add_argument("--checkpoint", type=Path, help="file for the training's state; goes on from it if it exists")
    parser.add_argument("--save-minutes", type=float, default=1.0, help="how often that file is written")
    parser.add_argument("--out", type=Path, required=True, help="the file to write: OUT.safetensors")
    args = parser.parse_args()
    args.out = weights_file(args.out)  # the shell leaves the ~ of --out=~/model to us
    args.checkpoint = args.checkpoint and Path(os.path.expanduser(args.checkpoint))
    if args.checkpoint and args.out.resolve() == args.checkpoint.resolve():
        parser.error("--checkpoint and --out must be two files")

    def report(run: Run) -> None:
        if len(run.losses) % 20 == 1 or run.step == run.steps:
            print(f"step {run.step:,}: loss {run.losses[-1][1]:.4f}, {run.seconds:.0f} s", flush=True)

    try:
        if Team.join().leads:  # better now than after the training
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=args.out.parent):
                pass
        with nullcontext() if Team.join().leads else redirect_stdout(None):  # one process says what was read
            images, labels = load_images(args.data, size=args.size)
        classes = None if args.unconditional or labels is None or labels.max() == 0 else int(labels.max()) + 1
        if not classes and not args.unconditional and Team.join().leads:
            print(f"training without labels: the data has {'none' if labels is None else 'one class'}", flush=True)
        torch.manual_seed(args.seed)
        net = UNet(
            images.shape[1], args.widths, blocks=args.blocks, patch=args.patch, dropout=args.dropout,
            num_classes=classes, learn_variance=args.variance == "learned",
        )  # fmt: skip
        schedule = getattr(schedules, f"{args.schedule}_schedule")(args.T)
        diffusion = GaussianDiffusion(schedule, args.predicts, args.variance)
        run = train(
            net, diffusion, images, labels if classes else None, minutes=args.minutes, steps=args.steps,
            batch_size=args.batch_size, lr=args.lr, ema_decay=args.ema, t_uniform=args.t_uniform, kind=args.kind,
            seed=args.seed, compile=args.compile, checkpoint=args.checkpoint, save_minutes=args.save_minutes,
            watch=report,
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
