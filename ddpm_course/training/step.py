"""One training step, and everything that it changes (lessons 05 and 07).

`loop` goes around it. Nothing in a step makes the host wait for the device.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..arguments import number
from ..diffusion import GaussianDiffusion
from ..losses import diffusion_loss
from ..nets import MixedPrecision, data_dtype
from ..pixels import in_unit_range
from .batches import Batches, Stream
from .devices import Team, even_slices, mixed_precision
from .optimizer import Muon


class EMA:
    """An exponential moving average of a network's weights: the weights to sample with.

    decay: the average's memory, about 1 / (1 - decay) steps; 0.9999 in Ho et al. (2020), section 4. The
           n-th update uses min(decay, (1 + n) / (10 + n)), so that the random weights of the start are soon forgotten.

    The average of weights in half precision is kept in float32: a hundredth of a change would be rounded away.
    """

    def __init__(self, net: nn.Module, decay: float = 0.995):
        self.decay = number("decay", decay, 0, 1)
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in net.parameters()):
            self.net.float()
        self.updates = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards net's weights; call it after the optimizer's step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours = list(self.net.parameters())
        theirs = [theirs.to(mine.dtype) for mine, theirs in zip(ours, net.parameters(), strict=True)]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for ours, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            ours.copy_(theirs)

    def state_dict(self) -> dict:
        return dict(net=self.net.state_dict(), updates=self.updates)

    def load_state_dict(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.updates = state["updates"]


@dataclass
class Run:
    """A training, while it goes on and afterwards. `ema.net` is the network to sample with."""

    net: nn.Module
    ema: EMA
    steps: int | None = None  # planned; None while the speed is being measured
    step: int = 0  # done
    seconds: float = 0.0  # spent in training steps
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss since the entry before)
    unread: list[Tensor] = field(default_factory=list, repr=False)  # on the device: to read one is to wait for it
    skipped: int | Tensor = 0  # steps that changed nothing, as float16 overflowed in them; a number at every report

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what happens in this `with` as time spent in training steps."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def state_dict(self) -> dict:
        record = ("steps", "step", "seconds", "losses", "unread", "skipped")
        return {name: getattr(self, name) for name in record}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.step, self.seconds = state["steps"], state["step"], state["seconds"]
        self.losses = list(state["losses"])  # a list of its own: another attempt may start from the same state
        device = next(self.net.parameters()).device
        self.unread = [loss.to(device) for loss in state["unread"]]
        self.skipped = state.get("skipped", 0)  # older states have none


class Training:
    """Everything that changes while a network is trained, and the step that changes it. The arguments are `train`'s."""

    def __init__(
        self,
        net: nn.Module,
        diffusion: GaussianDiffusion,
        images: Tensor | Stream,
        labels: Tensor | None,
        team: Team,
        *,
        batch_size: int,
        lr: float,
        ema_decay: float,
        seed: int,
        accumulate: int = 1,
        weight_decay: float = 0.01,
        clip: float = 1.0,
        t_around: tuple[float, float] | None = None,
        t_uniform: float = 0.0,
        label_dropout: float = 0.0,
        kind: str = "l2",
    ):
        self.diffusion, self.team, self.device, self.lr, self.seed = diffusion, team, team.device, lr, seed
        self.batch_size, self.label_dropout, self.kind = batch_size, label_dropout, kind
        self.t_draws = dict(around=t_around, uniform=t_uniform)
        self.accumulate, self.clip = accumulate, clip
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        self.dtype = data_dtype(net) or torch.float32
        self.generator = torch.Generator(self.device).manual_seed(seed)  # of data order, dropped labels, t and noise
        self.images = self.labels = None
        if isinstance(images, Stream):
            self.batches = images
        else:
            self.images = images.to(self.device)
            self.labels = labels.to(self.device, torch.int64) if labels is not None else None
            self.batches = Batches(len(images), batch_size, self.device, self.generator)
        # dropout alone draws from the device's own generator
        self.own_random = {"cuda": torch.cuda, "mps": torch.mps}.get(self.device.type, torch)
        self.place = [self.device] if self.device.type == "cuda" else []  # there may be several GPUs

        self.precision = mixed_precision(self.device)
        self.optimizer = Muon(net, lr, weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        shared, self.no_sync = net, nullcontext
        if team.size > 1:
            shared = nn.parallel.DistributedDataParallel(net, device_ids=self.place or None)
            self.no_sync = shared.no_sync  # gradients add up in each process; the next backward averages them
        self.mixed_net = MixedPrecision(shared, self.precision)  # to call; the weights, and their names, stay net's
        self.mixed_net.self_condition = getattr(net, "self_condition", False)  # a shared network does not tell
        self.run = run = Run(net, EMA(net, ema_decay))
        saved = dict(run=run, net=net, ema=run.ema, optimizer=self.optimizer, scaler=self.scaler, batches=self.batches)
        self.saved = saved  # what a state consists of, besides the states of the generators
        self.weights = [*net.state_dict().values(), *self.run.ema.net.state_dict().values()]
        self.good_weights, self.good_step = [w.clone() for w in self.weights], 0  # where to go back to if they explode

    def __str__(self) -> str:
        products = f" with {self.precision} products" if self.precision else ""
        return f"{self.device}{products}" + (f" in {self.team.size} processes" if self.team.size > 1 else "")

    def step(self, lr: float) -> None:
        """One line of Algorithm 1 after the other. Every process draws for the whole batch and keeps its share.

        The share is computed in parts, whose gradients add up, so that only a part's activations take memory.
        """
        n, device, generator, share = self.batch_size, self.device, self.generator, self.team.share(self.batch_size)
        x, y = self._next_batch(share)
        if y is not None:
            drop = torch.rand(n, device=device, generator=generator)[share] < self.label_dropout
            y = torch.where(drop, self.net.num_classes, y)
        t = self.diffusion.schedule.sample_t(n, **self.t_draws, device=device, generator=generator)[share]
        noise = torch.randn(n, *x.shape[1:], dtype=self.dtype, device=device, generator=generator)[share]

        self.optimizer.zero_grad()
        batch_loss, parts = 0.0, even_slices(len(x), self.accumulate)
        for part in parts:
            with nullcontext() if part is parts[-1] else self.no_sync():
                x0, labels = in_unit_range(x[part]).to(self.dtype), None if y is None else y[part]
                given = dict(t=t[part], noise=noise[part])
                losses = diffusion_loss(self.mixed_net, self.diffusion, x0, labels, self.kind, **given)
                # Sums over the batch's size, as parts and shares differ in theirs; the mean of all processes follows.
                loss = losses.sum() / (n / self.team.size)
                self.scaler.scale(loss).backward()
            batch_loss = batch_loss + loss.detach()
        self._move(lr)
        self.run.unread.append(batch_loss)
        self.run.step += 1

    def _next_batch(self, share: slice) -> tuple[Tensor, Tensor | None]:
        """Images, and labels or None, of this process's share of the next batch."""
        if self.images is None:
            x, y = next(self.batches)
            return x.to(self.device, non_blocking=True), None if y is None else y.to(self.device, non_blocking=True)
        rows = next(self.batches)[share]
        return self.images[rows], None if self.labels is None else self.labels[rows]

    def _move(self, lr: float) -> None:
        """Move the weights along their gradients, and the average after them."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.scaler.step(self.optimizer)  # or nothing, where a gradient is not finite
        if self.scaler.is_enabled():
            self.run.skipped = self.run.skipped + self.optimizer.adamw.found_inf
        self.scaler.update()
        self.run.ema.update(self.net)

    def read_losses(self) -> None:
        """Wait for the device and record the mean loss: with loss scaling, of the steps whose loss is finite.

        raises FloatingPointError if it, or a weight, is not finite: the networks are then back at the report before
        """
        run = self.run
        norms = torch._foreach_norm(list(run.ema.net.parameters()))
        spoilt = 0 * torch.stack(norms).sum()  # 0, or nan once a weight is not finite: the loss may not show it yet
        losses = torch.stack(run.unread)
        if self.scaler.is_enabled():
            losses, run.skipped = losses[losses.isfinite()], int(run.skipped)
        value = self.team.mean(losses.mean() + spoilt).item()
        run.unread.clear()
        if not math.isfinite(value):
            torch._foreach_copy_(self.weights, self.good_weights)
            last = f"the last finite one was {run.losses[-1][1]:.4g}" if run.losses else "no finite one came before"
            back = f"the networks are back at step {self.good_step:,}"
            raise FloatingPointError(f"the loss is {value} at step {run.step:,}; {last}, and {back}.")
        run.losses.append((run.step, value))
        self._remember()

    def _remember(self) -> None:
        torch._foreach_copy_(self.good_weights, self.weights)
        self.good_step = self.run.step

    def state_dict(self) -> dict:
        state = {name: part.state_dict() for name, part in self.saved.items()}
        dropout = self.own_random.get_rng_state(*self.place)
        return state | dict(device=self.device.type, generator=self.generator.get_state(), dropout=dropout)

    def load_state_dict(self, state: dict) -> bool:
        """Go back to a state. False if it comes from another kind of device, whose random numbers differ."""
        for name, part in self.saved.items():
            if state[name]:  # a scaler that is off has nothing to say
                part.load_state_dict(state[name])
        self._remember()
        if state["device"] != self.device.type:
            self.generator.manual_seed(self.seed + self.run.step)
            return False
        self.generator.set_state(state["generator"])
        self.own_random.set_rng_state(state["dropout"], *self.place)
        return True
