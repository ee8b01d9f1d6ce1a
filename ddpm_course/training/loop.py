"""Training within a budget (lessons 00, 06 and 07): the loop around the step.

`step` is what happens in one step, `plan` how many there are, and `state` what survives when they are interrupted.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import as_labels, as_tensor, number, whole
from ..diffusion import GaussianDiffusion
from ..modes import fast_mode
from ..pixels import as_images
from ..weighting import as_weighting
from .batches import Stream
from .devices import Team
from .plan import Budget, learning_rate
from .run import Run
from .state import Keeper, description, digest, unbroken
from .step import Training

FAST_STEPS = 6
# what states of older trainings had, and do not mention
NEWER = dict(accumulate=1, weight_decay=0.01, clip=1.0, t_uniform=0.0, t_importance=False, weighting="none")


def train(
    net: nn.Module,
    diffusion: GaussianDiffusion,
    images: Tensor | Iterable,
    labels: Tensor | None = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    accumulate: int = 1,
    lr: float = 4e-3,
    weight_decay: float = 0.01,
    clip: float = 1.0,
    ema_decay: float = 0.995,
    t_around: tuple[float, float] | None = (-0.6, 1.0),
    t_uniform: float = 0.0,
    t_importance: bool = False,
    label_dropout: float = 0.1,
    kind: str = "l2",
    weighting: Tensor | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    compile: bool = False,
    checkpoint: str | Path | None = None,
    save_minutes: float = 1.0,
    watch: Callable[[Run], None] | None = None,
    report_every: int = 25,
) -> Run:
    """Algorithm 1 of Ho et al. (2020), for a number of minutes or of steps.

    net, diffusion: what to train, and what its output means; the network is moved to `device`. It goes on from the
                    weights that it has; the optimizer starts anew, so fine-tuning wants a smaller lr
    images:         (N, C, H, W) uint8; they stay on the device and are shuffled and scaled there. For sets that do not
                    fit into memory: a DataLoader, or any iterable (but a list) of batches with or without labels; see
                    `Stream`, also for what a `checkpoint` of such a training can promise
    labels:         (N,) integers in 0..net.num_classes - 1, or None; `label_dropout` of them become the null class,
                    for guidance. NumPy arrays will do for both, and integers of any type
    minutes, steps: one of the two. Minutes are turned into steps by timing the first ones (see `Budget`), and buy
                    training steps alone: what `watch` does comes on top. In fast mode there are a few steps at most.
    batch_size:     images a step, of all processes together; no more than there are. A stream's batches are cut to it
    accumulate:     parts in which a step computes its batch, where the whole does not fit into the device's memory.
                    Their gradients add up to the batch's, but for batch normalisation, which sees parts
    lr:             of `Muon`; rises over the first 50 steps, then falls along a cosine to 0 at the last
    weight_decay:   each step makes weights smaller by this part of their learning rate, see `Muon`
    clip:           the largest length of a step's gradient, longer ones are cut to it; math.inf for no limit
    ema_decay:      of the moving average of the weights, in [0, 1], see `EMA`
    t_around:       where most t are drawn, see `Schedule.sample_t`; None for uniform ones, as in the paper
    t_uniform:      the share that is drawn uniformly all the same; bits per dimension need the smallest t (lesson 08)
    t_importance:   draw t where losses were large instead, and weight them less (lesson 12): see `ImportanceSampler`
    kind:           of the loss, see `diffusion_loss`
    weighting:      (T+1,) what the loss at each t is multiplied with: see weighting.py, or make your own (lesson 12)
    seed:           of data order, dropped labels, t and noise; not of dropout, nor of the weights net starts with
    device:         where to train; `best_device()` by default
    compile:        train through torch.compile: the first step takes a minute, the others less; for long runs on a GPU
    checkpoint:     a file for the state of the training, written at the first report after `save_minutes`, when you
                    stop it, and at the end. Where it exists already the training goes on from it, with the plan it
                    had; on a CPU it ends with the weights, bit for bit, that it would have had. The state before is
                    kept beside it. In a folder that exists, every training, told apart by its arguments, has a file of
                    its own; of `net` its make counts, not its weights: for another start give another `seed` or file.
    watch:          called with the Run every `report_every` steps, a report, which is also when the losses are read
    returns         the Run; the notebook's stop button (or Ctrl-C) returns early with what there is. On a GPU without
                    bfloat16, steps that overflow in float16 change nothing, and are counted in Run.skipped
    raises          ValueError for arguments that do not fit, or a checkpoint that does not belong to them;
                    FloatingPointError if the loss stops being finite: net is then what it was at the report before
                    (the average of its weights is only where `watch` kept the Run, or in the checkpoint)

    Under `torchrun` the same call trains with all of its processes, of several machines too. They share each batch of
    `batch_size`; only the first one prints, writes and calls `watch`.
    """
    if (minutes is None) == (steps is None):
        raise ValueError("give either minutes or steps")
    if minutes is not None:
        number("minutes", minutes, 0, above=True)
    else:
        steps = whole("steps", steps, 1)  # the state takes no NumPy numbers
    lr, seed = number("lr", lr, 0, above=True), whole("seed", seed, -(2**63), 2**63 - 1)
    batch_size, report_every = whole("batch_size", batch_size, 1), whole("report_every", report_every, 1)
    accumulate, clip = whole("accumulate", accumulate, 1), number("clip", clip, 0, math.inf, above=True)
    weight_decay = number("weight_decay", weight_decay, 0)
    number("ema_decay", ema_decay, 0, 1)
    number("label_dropout", label_dropout, 0, 1)
    t_uniform = number("t_uniform", t_uniform, 0, 1)
    if t_around is not None:
        if not isinstance(t_around, Sequence) or len(t_around) != 2:
            raise ValueError(f"t_around must be None, or a mean and a deviation, got {t_around!r}")
        mean, deviation = t_around
        t_around = number("the mean of t_around", mean), number("the deviation of t_around", deviation, 0)
    number("save_minutes", save_minutes, 0, math.inf)
    images, labels = _data(net, images, labels)
    team = Team.join(device)
    if fast_mode() and (steps is None or steps > FAST_STEPS):
        asked = f"{minutes:g} minutes" if steps is None else f"{steps:,}"
        team.say(f"fast mode: {FAST_STEPS} steps of training instead of {asked}")
        minutes, steps = None, FAST_STEPS
    streamed = not isinstance(images, Tensor)
    batch_size = batch_size if streamed else min(batch_size, len(images))
    if team.size * accumulate > 1 and batch_size < 2 * team.size * accumulate:
        counts = {"parts": accumulate, "processes": team.size}
        parts = " in each of ".join(f"{count} {name}" for name, count in counts.items() if count > 1)
        raise ValueError(f"a batch of {batch_size} is too small for {parts}: each needs two images of it")
    settings = dict(
        batch_size=batch_size, accumulate=accumulate, lr=lr, weight_decay=weight_decay, clip=clip, ema_decay=ema_decay,
        t_around=t_around, t_uniform=t_uniform, t_importance=bool(t_importance), label_dropout=label_dropout, kind=kind,
        weighting=None if weighting is None else as_weighting(weighting, diffusion.schedule.T), seed=seed,
    )  # fmt: skip
    about = {}
    if checkpoint is not None:
        about = settings | dict(
            network=description(net), images=type(images).__name__ if streamed else digest(images),
            labels=digest(labels), weighting=digest(settings["weighting"]), predicts=diffusion.predicts,
            variance=diffusion.variance, betas=digest(diffusion.schedule.beta), minutes=minutes, steps=steps,
        )  # fmt: skip
        about = {name: value for name, value in about.items() if name not in NEWER or value != NEWER[name]}
    keeper = Keeper(checkpoint, about, save_minutes, team)

    if streamed:
        share = len(range(batch_size)[team.share(batch_size)])
        images = Stream(images, share, getattr(net, "num_classes", None), team)
    training = Training(net, diffusion, images, labels, team, **settings)
    if compile:
        training.mixed_net.net = torch.compile(training.mixed_net.net)
    training.run.steps = steps
    team.say(f"training on {training}")
    try:
        return run_training(training, minutes, keeper, report_every, watch)
    except FloatingPointError as problem:
        raise FloatingPointError(f"{problem} Try a smaller lr than {lr:g}.{keeper.kept}") from None


def run_training(
    training: Training,
    minutes: float | None,
    keeper: Keeper,
    report_every: int = 25,
    watch: Callable[[Run], None] | None = None,
) -> Run:
    """Take a training to its end; or, when it is interrupted, to the end of the step that it is in.

    minutes: the budget, where training.run.steps is None and the state has no plan either
    report_every, watch: as `train` has them
    """
    keeper.resume(training)
    run, team, net = training.run, training.team, training.net
    budget = Budget(minutes, run.step) if run.steps is None else None  # a plan that comes from a state stays
    try:
        with unbroken(team.size > 1) as pressed:  # a team stops at a report, all of it at once
            while run.steps is None or run.step < run.steps:
                _steps_to_report(training, budget, report_every)
                if team.any(bool(pressed)):
                    raise KeyboardInterrupt
                if team.leads:
                    if watch is not None:
                        watch(run)
                        net.train()  # it may have looked at samples, in evaluation mode
                    keeper.save_in_time(training)
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt), unbroken():  # pressed again: the state is still written
            goes_on = keeper.save(training) if team.leads else ""
            team.say(f"stopped after {run.step:,} steps: the networks are usable as they are, and {goes_on}")
    finally:
        net.eval()
    if run.skipped:
        team.say(f"{int(run.skipped)} of {run.step:,} steps changed nothing: in them float16 overflowed")
    return run


def _steps_to_report(training: Training, budget: Budget | None, report_every: int) -> None:
    """Steps up to the next report, which is at every so many of them and at the last; then the losses are read.

    Only here is the host made to wait for the device: at a report, and while a budget is measured. Then on a GPU only
    every tenth step waits, so that the others are as fast as they will be later.
    """
    run = training.run
    wait_every = 1 if training.device.type == "cpu" else 10
    while True:
        with unbroken():  # an interrupt comes between two steps, where weights, average and count agree
            with run.timed():
                training.step(learning_rate(run.step, run.steps, training.lr))
            at_report = run.step % report_every == 0
            if budget and (at_report or (run.steps is None and run.step % wait_every == 0)):
                with run.timed():
                    run.unread[-1].item()  # wait, or the clock would only tell how fast the host hands out work
                run.steps = _planned(budget, training)
            if at_report or run.step == run.steps:
                with run.timed():
                    training.read_losses()
                return


def _planned(budget: Budget, training: Training) -> int | None:
    """The number of steps that the budget makes now, the same in every process."""
    run, team = training.run, training.team
    steps = team.told(budget.plan(run.step, run.seconds, run.steps) if team.leads else None)
    if steps != run.steps:
        instead = f" now, not {run.steps:,}" if run.steps else ""
        team.say(f"{1 / budget.pace:.1f} steps/s: {budget.seconds / 60:g} minutes are {steps:,} steps{instead}")
    return steps


def _data(net: nn.Module, images: Any, labels: Tensor | None) -> tuple[Tensor | Iterable, Tensor | None]:
    """Images and labels as tensors, or a stream as it is; ValueError unless the network can be trained with them."""
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    if dtype not in (torch.float64, torch.float32, torch.bfloat16):
        raise ValueError(f"a network with weights in {dtype} cannot be trained: net.float() has weights that can")
    if not any(p.requires_grad for p in net.parameters()):
        raise ValueError("the weights are frozen, as those of an average are: net.requires_grad_() makes them learn")
    if isinstance(images, Iterable) and not (isinstance(images, Sequence) or hasattr(images, "__array__")):
        if labels is not None:
            raise ValueError("labels were given beside a stream of images, which has them in its batches")
        return images, None
    images = as_tensor("images", images)
    if images.is_floating_point() or images.ndim != 4:
        raise ValueError(f"images must be uint8 with shape (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError("there are no images to train on")
    if labels is not None:
        classes = getattr(net, "num_classes", None)
        if classes is None:
            raise ValueError("labels were given, but the network has no classes: build it with num_classes=...")
        labels = as_labels("labels", labels, len(images), classes)
    return as_images("images", images), labels
