"""A training's result: the average of the weights, and the record of how it went (lessons 05 and 07)."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..arguments import number


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
