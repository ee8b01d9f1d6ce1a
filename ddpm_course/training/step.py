"""One training step, and everything that it changes (lessons 05 and 07).

`loop` goes around it. Nothing in a step makes the host wait for the device.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..arguments import number
from ..diffusion import GaussianDiffusion
from ..losses import diffusion_loss
from ..nets import MixedPrecision, data_dtype
from ..pixels import to_unit_range
from .devices import Team, mixed_precision
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

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what happens in this `with` as time spent in training steps."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def state_dict(self) -> dict:
        record = ("steps", "step", "seconds", "losses", "unread")
        return {name: getattr(self, name) for name in record}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.step, self.seconds = state["steps"], state["step"], state["seconds"]
        self.losses = list(state["losses"])  # a list of its own: another attempt may start from the same state
        device = next(self.net.parameters()).device
        self.unread = [loss.to(device) for loss in state["unread"]]


class Training:
    """Everything that changes while a network is trained, and the step that changes it. The arguments are `train`'s."""

    def __init__(
        self,
        net: nn.Module,
        diffusion: GaussianDiffusion,
        images: Tensor,
        labels: Tensor | None,
        team: Team,
        *,
        batch_size: int,
        lr: float,
        ema_decay: float,
        seed: int,
        t_around: tuple[float, float] | None = None,
        label_dropout: float = 0.0,
        kind: str = "l2",
    ):
        self.diffusion, self.team, self.device, self.lr, self.seed = diffusion, team, team.device, lr, seed
        self.batch_size, self.t_around, self.label_dropout, self.kind = batch_size, t_around, label_dropout, kind
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        self.dtype = data_dtype(net) or torch.float32
        self.images = images.to(self.device)
        self.labels = labels.to(self.device, torch.int64) if labels is not None else None
        self.generator = torch.Generator(self.device).manual_seed(seed)  # of data order, dropped labels, t and noise
        self.batches = Batches(len(images), batch_size, self.device, self.generator)
        # dropout alone draws from the device's own generator
        self.own_random = {"cuda": torch.cuda, "mps": torch.mps}.get(self.device.type, torch)
        self.place = [self.device] if self.device.type == "cuda" else []  # there may be several GPUs

        self.precision = mixed_precision(self.device)
        self.optimizer = Muon(net, lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        shared = net
        if team.size > 1:
            shared = nn.parallel.DistributedDataParallel(net, device_ids=self.place or None)
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
        """One line of Algorithm 1 after the other. Every process draws for the whole batch and keeps its share."""
        n, device, generator, share = self.batch_size, self.device, self.generator, self.team.share(self.batch_size)
        rows, y = next(self.batches)[share], None
        if self.labels is not None:
            drop = torch.rand(n, device=device, generator=generator)[share] < self.label_dropout
            y = torch.where(drop, self.net.num_classes, self.labels[rows])
        x0 = to_unit_range(self.images[rows]).to(self.dtype)
        t = self.diffusion.schedule.sample_t(n, around=self.t_around, device=device, generator=generator)[share]
        noise = torch.randn(n, *x0.shape[1:], dtype=self.dtype, device=device, generator=generator)[share]
        losses = diffusion_loss(self.mixed_net, self.diffusion, x0, y, self.kind, t=t, noise=noise)
        loss = losses.sum() / (n / self.team.size)  # the shares' mean is then the batch's, though shares differ in size

        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # and, in a team, the mean of everybody's gradients
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.run.ema.update(self.net)
        self.run.unread.append(loss.detach())
        self.run.step += 1

    def read_losses(self) -> None:
        """Wait for the device and record the mean loss.

        raises FloatingPointError if it, or a weight, is not finite: the networks are then back at the report before
        """
        run = self.run
        norms = torch._foreach_norm(list(run.ema.net.parameters()))
        spoilt = 0 * torch.stack(norms).sum()  # 0, or nan once a weight is not finite: the loss may not show it yet
        value = self.team.mean(torch.stack(run.unread).mean() + spoilt).item()
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


class Batches:
    """Shuffled rows for ever: every image once before any comes again (but for the last, partial batch)."""

    def __init__(self, images: int, size: int, device: torch.device | str, generator: torch.Generator | None):
        self.images, self.size, self.device, self.generator = images, size, device, generator
        self.order, self.position = None, 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        """(size,) the numbers of the next images."""
        if self.order is None or self.position + self.size > self.images:
            self.order = torch.randperm(self.images, device=self.device, generator=self.generator)
            self.position = 0
        self.position += self.size
        return self.order[self.position - self.size : self.position]

    def state_dict(self) -> dict:
        return dict(order=self.order, position=self.position)

    def load_state_dict(self, state: dict) -> None:
        self.order = state["order"].to(self.device) if state["order"] is not None else None
        self.position = state["position"]
