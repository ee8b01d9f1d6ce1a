"""The exercises of lesson 07: averaged weights, the learning rate, parts of a batch, fp16, what survives, any picture.

What goes wrong in them is in lesson07.mistakes.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn

from ..diffusion import q_sample
from ..schedules import cosine_schedule
from .cases import normal
from .cases07 import decay_cases, part_cases, rate_cases, resume_cases, scaled_cases, update_cases
from .pictures07 import square_cases
from .records import Case
from .written import exercise


@exercise(
    "7.1",
    decay_cases,
    first="the very first update, and one far out. What should the average hold after each of them?",
    tolerance=1e-6,
    any_float=True,
    free=("n",),
)
def ema_decay(n, half_life=6931):
    """The share of the old average that the n-th update keeps.

    n:          an int: 1 for the first update
    half_life:  a number of updates above 0. Late in a run, what the average holds now counts
                exactly half as much after so many of them; 6931 is the paper's decay of 0.9999
    returns     a number in (0, 1): the decay with that half-life, or the warm-up's
                (1 + n) / (10 + n) as long as that is smaller
    """
    longest = 0.5 ** (1 / half_life)
    warm_up = (1 + n) / (10 + n)
    return min(longest, warm_up)


@exercise(
    "7.2",
    update_cases,
    first="a decay of 0, and one of almost 1. Which of the two lists must come back?",
    tolerance=1e-5,
    any_float=True,
)
def ema_update(average, weights, decay):
    """One update of an exponential moving average.

    average:  list of tensors, one for each entry of the network's state_dict(): floats in
              float32 or float64, and counters, which are integers
    weights:  list of the network's tensors now, in the same order and shapes. The floats may
              be in bfloat16, and may ask for gradients
    decay:    a number in [0, 1): the share of the old average that stays
    returns   list of new tensors that ask for no gradients, floats in the average's dtype. A
              counter is not averaged: it is the network's. Both lists stay as they are
    """
    updated = []
    for old, new in zip(average, weights, strict=True):
        new = new.detach().to(old.dtype)
        mixed = decay * old + (1 - decay) * new
        updated.append(mixed if old.is_floating_point() else new)
    return updated


@exercise(
    "7.3",
    rate_cases,
    first="sketch the rate over the steps, and mark step 0, step warmup - 1, step warmup and the end on the axis.",
    tolerance=1e-5,
    any_float=True,
    free=("step", "steps"),
)
def learning_rate(step, steps, peak, warmup=50):
    """The learning rate of a step, in a plan of `steps` steps.

    The rate of the first `warmup` steps lies on a straight line: step 0 has 1/warmup of the
    peak, step warmup - 1 all of it. Then comes half a period of a cosine, which begins at the
    peak at step `warmup` and arrives at 0 at step `steps`.

    step:     an int, 0 for the first step. A run that goes on beyond its plan has the rate 0
    steps:    an int above 0. A plan of no more than `warmup` steps is cut off in the rise, and
              has its steps alone: after them the rate is 0 as well
    peak:     the largest rate, a number
    warmup:   an int above 0
    returns   a number
    """
    if step >= steps:
        return 0.0
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (1 + math.cos(math.pi * done)) / 2


@exercise(
    "7.4",
    part_cases,
    first="ten pictures in parts of four. How many values does each part's loss average, and how many the whole's?",
)
def accumulated_gradient(net, xt, t, noise, size, most=1.0):
    """The gradient of a batch's loss, by a network that has room for `size` pictures at a time.

    The loss is the mean of (noise - net(xt, t))² over all values of the batch.

    net:      a torch.nn.Module, called as net(xt, t); its weights stay as they are. What their
              gradients held before is dropped
    xt:       (B, ...) data at noise level t
    t:        (B,) integers
    noise:    same shape as xt
    size:     an int above 0. B need not be a multiple of it, and may be smaller
    most:     where the gradient of the whole batch, over all weights, has a larger norm than
              this, it is scaled down to this norm
    returns   the loss of the whole batch, as a float or a tensor; the gradient lies in the
              .grad of the weights
    """
    batch = len(xt)
    total = 0.0
    net.zero_grad()
    for first in range(0, batch, size):
        part = slice(first, first + size)
        predicted = net(xt[part], t[part])
        share = len(predicted) / batch
        loss = share * F.mse_loss(predicted, noise[part])
        loss.backward()
        total += loss.item()
    nn.utils.clip_grad_norm_(net.parameters(), most)
    return total


@exercise(
    "7.5",
    scaled_cases,
    first="copy the body of broken_scaled_step. For each line, ask how large the gradients are there, scaled or not.",
    tolerance=4e-4,  # a last digit more or less decides how float16 rounds a weight
)
def scaled_step(net, optimizer, loss, scale, good, interval=2000):
    """One step in half precision, as broken_scaled_step would be without its four faults.

    The gradients are those of scale · loss, so that small ones do not round to 0; the step is
    made with those of the loss, clipped to a norm of 1. If one of them is inf or NaN, it is
    not made: the weights and the optimizer stay as they are.

    net:        the network; every weight of it is in the optimizer, and in the loss
    optimizer:  a torch.optim.Optimizer
    loss:       a tensor of shape (), not yet scaled
    scale:      the scale of this step, a number
    good:       an int: how many steps were made since the scale last changed
    interval:   after so many the scale is doubled; after a step that was not made it is halved
    returns     scale, good: those of the next step
    """
    optimizer.zero_grad()
    (scale * loss).backward()
    gradients = [weight.grad for weight in net.parameters()]
    for gradient in gradients:
        gradient /= scale
    finite = all(gradient.isfinite().all() for gradient in gradients)
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    if finite:
        optimizer.step()
        good += 1
        if good >= interval:
            scale *= 2
            good = 0
    else:
        scale /= 2
        good = 0
    return scale, good


class SmallTraining:
    """A training that fits on a page: all that it is made of, and one step of it."""

    def __init__(self, images, steps):
        self.images = images  # (N, D), the data set
        self.steps = steps  # the plan: as many as the minutes allow, measured on this machine
        self.step = 0  # done so far
        self.schedule = cosine_schedule(20)
        size = images.shape[1]
        first, last = nn.Linear(size + 1, 6), nn.Linear(6, size)
        self.net = nn.Sequential(first, nn.SiLU(), nn.Dropout(0.3), last)
        self.average = copy.deepcopy(self.net)
        self.optimizer = torch.optim.Adam(self.net.parameters())
        self.generator = torch.Generator().manual_seed(0)  # for the images' order, t and noise
        self.queue = torch.empty(0, dtype=torch.int64)  # rows that this epoch still has to see

    def take_step(self):
        if len(self.queue) == 0:
            self.queue = torch.randperm(len(self.images), generator=self.generator)
        rows, self.queue = self.queue[:4], self.queue[4:]
        x0 = self.images[rows]
        t = self.schedule.sample_t(len(x0), generator=self.generator)
        noise = torch.randn(x0.shape, generator=self.generator)
        xt = q_sample(self.schedule, x0, t, noise)
        # its dropout draws from PyTorch's own generator
        predicted = self.net(torch.cat([xt, t[:, None] / 20], dim=1))
        loss = F.mse_loss(predicted, noise)
        self.optimizer.zero_grad()
        loss.backward()
        rate = learning_rate(self.step, self.steps, peak=0.05, warmup=4)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.step += 1
        names, new = zip(*self.net.state_dict().items(), strict=True)
        old = list(self.average.state_dict().values())
        average = ema_update(old, new, ema_decay(self.step, 20))
        self.average.load_state_dict(dict(zip(names, average, strict=True)))
        return loss.item()

    def load(self, state):
        """Go on from a state, {name of an attribute: its state}.

        "dropout" is the state of PyTorch's own generator.
        """
        for name, value in state.items():
            if name == "dropout":
                torch.set_rng_state(value)
            elif hasattr(part := getattr(self, name), "load_state_dict"):
                part.load_state_dict(value)
            elif isinstance(part, torch.Generator):
                part.set_state(value)
            else:
                setattr(self, name, value)


def begun(images, steps):
    """A SmallTraining whose network begins with other weights for another plan: as another process would."""
    training = SmallTraining(images, steps)
    with torch.no_grad():
        for i, weight in enumerate(training.net.parameters()):
            weight.copy_(0.6 * normal(tuple(weight.shape), 860 + 10 * steps + i))
    training.average.load_state_dict(training.net.state_dict())
    return training


def state_cases() -> list[Case]:
    return resume_cases(begun)


@exercise(
    "7.6",
    state_cases,
    first="read take_step line by line, and underline whatever has another value after the step than before it.",
    tolerance=1e-5,
)
def state_to_save(run):
    """What a training's file must hold for another process to go on as if nothing had been.

    That process makes SmallTraining(images, ...) with the same images, but with other first
    weights and with the plan of its own machine, calls its load() with the state, and goes on.

    run:      a SmallTraining after some step; it stays as it is
    returns   dict {name: state}, as run.load takes it: for an attribute of `run` its name, and
              "dropout" for the state of PyTorch's own generator. torch.load with
              weights_only=True must be able to read it: tensors, numbers, text, and lists and
              dicts of them, no objects. The images are not in it: they lie where they were
    """
    state = {}
    state["net"] = run.net.state_dict()
    state["average"] = run.average.state_dict()
    state["optimizer"] = run.optimizer.state_dict()
    state["generator"] = run.generator.get_state()
    state["dropout"] = torch.get_rng_state()
    state["queue"] = run.queue
    state["step"] = run.step
    state["steps"] = run.steps
    return state


@exercise(
    "7.7",
    square_cases,
    first="one of each kind of picture in the folder. Print its mode and size, and look at what .convert makes of it.",
    tolerance=0.015,
)
def to_square(picture, size):
    """Any picture as a square for a network.

    picture:  a Pillow image of mode "1", "L", "LA", "P", "RGB", "RGBA" or "I;16", with any
              width and height. EXIF may say how it has to be turned; a palette may have a
              transparent colour. White has the level 65535 in "I;16"
    size:     width and height of the result
    returns   (3, size, size) uint8 tensor: the picture upright, in RGB, on white wherever it is
              transparent; its short side resized to `size` with a filter that averages, and cut
              out of the middle of the long one. A pixel or a level more or less does not matter
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "I;16":
        levels = np.asarray(picture) / 257
        picture = Image.fromarray(levels.round().astype(np.uint8))
    picture = picture.convert("RGBA")
    background = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(background, picture).convert("RGB")
    scale = size / min(picture.size)
    width = round(picture.width * scale)
    height = round(picture.height * scale)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left = (width - size) // 2
    top = (height - size) // 2
    picture = picture.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
