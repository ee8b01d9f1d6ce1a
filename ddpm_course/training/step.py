"""One training step, and everything that it changes (lessons 05 and 07).

`loop` goes around it. Nothing in a step makes the host wait for the device.
"""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..diffusion import GaussianDiffusion
from ..losses import diffusion_loss
from ..nets import MixedPrecision, data_dtype
from ..pixels import in_unit_range
from .batches import Batches, Stream
from .devices import Team, even_slices, mixed_precision
from .importance import ImportanceSampler
from .optimizer import Muon
from .run import EMA, Run


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
        t_importance: bool = False,
        label_dropout: float = 0.0,
        kind: str = "l2",
        weighting: Tensor | None = None,
    ):
        self.diffusion, self.team, self.device, self.lr, self.seed = diffusion, team, team.device, lr, seed
        self.batch_size, self.label_dropout, self.kind = batch_size, label_dropout, kind
        self.t_draws = dict(around=t_around, uniform=t_uniform)
        self.accumulate, self.clip = accumulate, clip
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        self.dtype = data_dtype(net) or torch.float32
        self.weighting = {} if weighting is None else dict(weighting=weighting.to(self.dtype).to(self.device))
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
        self.t_sampler = None
        if t_importance:
            self.t_sampler = ImportanceSampler(diffusion.schedule.T, t_uniform, self.device, self.dtype)
        self.run = run = Run(net, EMA(net, ema_decay))
        saved = dict(run=run, net=net, ema=run.ema, optimizer=self.optimizer, scaler=self.scaler, batches=self.batches)
        saved |= {} if self.t_sampler is None else dict(t_sampler=self.t_sampler)
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
        if self.t_sampler is None:
            t, weights = self.diffusion.schedule.sample_t(n, **self.t_draws, device=device, generator=generator), None
        else:
            t, weights = self.t_sampler.draw(n, generator)
            weights = weights[share]
        t = t[share]
        noise = torch.randn(n, *x.shape[1:], dtype=self.dtype, device=device, generator=generator)[share]

        self.optimizer.zero_grad()
        batch_loss, seen, parts = 0.0, [], even_slices(len(x), self.accumulate)
        for part in parts:
            with nullcontext() if part is parts[-1] else self.no_sync():
                x0, labels = in_unit_range(x[part]).to(self.dtype), None if y is None else y[part]
                given = dict(t=t[part], noise=noise[part], **self.weighting)
                losses = diffusion_loss(self.mixed_net, self.diffusion, x0, labels, self.kind, **given)
                seen.append(losses.detach())
                losses = losses if weights is None else weights[part] * losses
                # Sums over the batch's size, as parts and shares differ in theirs; the mean of all processes follows.
                loss = losses.sum() / (n / self.team.size)
                self.scaler.scale(loss).backward()
            batch_loss = batch_loss + loss.detach()
        if self.t_sampler is not None:
            self.t_sampler.update(t, torch.cat(seen), self.team)
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
