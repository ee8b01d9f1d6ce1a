"""A model under examination: a fixed batch of its data, and questions that are asked once (lesson 13)."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor

from ..diffusion import GaussianDiffusion, q_sample
from ..nets import call, data_dtype, device_of, evaluating
from ..samplers import Step, ddim_steps
from .findings import UnjudgedError

ELEMENTS = 50_000  # numbers in a batch: enough to see a network that is told t one off
FEW = 16  # of its items, where a rough answer will do
LEVELS = (0.97, 0.9, 0.7, 0.45, 0.2, 0.06)  # of alpha_bar, where a network is asked
SAMPLING_STEPS = 20
SAMPLES = 24


class Patient:
    """The model and what came with it.

    images:   (N, ...) floats as the network sees them; `given` is what was handed in
    x0, y:    the batch the network is asked about, and its labels or None
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        diffusion: GaussianDiffusion,
        given: Tensor,
        images: Tensor,
        labels: Tensor | None,
        samples: Tensor | None,
        losses: Tensor | None,
        raw: Callable[..., Tensor] | None,
    ):
        self.net, self.diffusion, self.given, self.images = net, diffusion, given, images
        self.labels, self.samples, self.losses, self.raw = labels, samples, losses, raw
        self.schedule, self.device = diffusion.schedule, device_of(net)
        n = max(16, min(ELEMENTS // images[0].numel(), 25_000))
        rows = torch.linspace(0, len(images) - 1, min(n, len(images))).round().long()  # over all of them, in order
        rows = rows.repeat(-(-n // len(rows)))[:n]
        self.x0 = images[rows].to(self.device, data_dtype(net) or torch.float32)
        self.y = None if labels is None else labels[rows].to(self.device)
        self._answers: dict[tuple, Tensor] = {}

    def need(self, name: str) -> Tensor:
        """The labels, samples or losses that were handed in."""
        if getattr(self, name) is None:
            raise UnjudgedError(f"no {name} were given")
        return getattr(self, name)

    def level(self, t: int) -> float:
        """alpha_bar_t"""
        return float(self.schedule.alpha_bar[t])

    def time(self, level: float) -> int:
        """The t whose alpha_bar is nearest to a level."""
        return int((self.schedule.alpha_bar[1:].double() - level).abs().argmin()) + 1

    @property
    def times(self) -> list[int]:
        """Different times from little to much noise."""
        return sorted({self.time(level) for level in LEVELS})

    def noise(self, t: int) -> Tensor:
        """The noise that belongs to t: the same one whenever it is asked for."""
        generator = torch.Generator().manual_seed(t)
        return torch.randn(self.x0.shape, generator=generator).to(self.x0)

    def noised(self, t: int, n: int | None = None) -> Tensor:
        return q_sample(self.schedule, self.x0[:n], t, self.noise(t)[:n])

    def target(self, t: int, n: int | None = None) -> Tensor:
        return self.diffusion.target(self.x0[:n], self.noise(t)[:n], t)

    def labels_of(self, n: int | None = None) -> Tensor | None:
        return None if self.y is None else self.y[:n]

    def answer(self, t: int, told: int | None = None, n: int | None = None, labels: str = "given") -> Tensor:
        """(n, ...) what the network says about x_t when it is told `told`.

        labels: "given", "none", or "others": everybody has the label of somebody of another class
        """
        told = t if told is None else told
        key = (t, told, n, labels)
        if key not in self._answers:
            y = None if labels == "none" else self.labels_of(n)
            if labels == "others":
                y = other_labels(y)
            self._answers[key] = self.ask(self.noised(t, n), told, y)
        return self._answers[key]

    def ask(self, x: Tensor, told: int | Tensor, y: Tensor | None, *, as_it_is: bool = False, raw=False) -> Tensor:
        """The network's answer in the data's type; with dropout off unless `as_it_is`."""
        net = self.raw if raw else self.net
        t = torch.full((len(x),), told, device=x.device) if isinstance(told, int) else told
        with torch.no_grad(), nullcontext() if as_it_is else evaluating(net):
            output = call(net, x, t, y)
        return output[:, : x.shape[1]].to(x.dtype)

    def must_speak(self, t: int) -> None:
        """How much an answer changes can't be said of one that is next to 0."""
        if float(self.answer(t, n=FEW).square().mean()) < 1e-4:
            raise UnjudgedError("its answers are next to 0")

    def error_of(self, output: Tensor, t: int) -> float:
        """The mean squared error as one of v, which is 1 for no knowledge of unit data at any t, whatever is predicted.

        The error of x_0 divided by 1 - alpha_bar; that of the noise, by alpha_bar.
        """
        n = len(output)
        estimate, _ = self.diffusion.decode(output, self.noised(t, n), t)
        return float((estimate - self.x0[:n]).square().mean() / (1 - self.level(t)))

    def error(self, t: int, told: int | None = None, n: int | None = None, labels: str = "given") -> float:
        return self.error_of(self.answer(t, told, n, labels), t)

    def errors(self, times: Sequence[int], labels: str = "given") -> float:
        """Their sum; infinite for "none" if the network can't be called without labels."""
        try:
            return sum(self.error(t, labels=labels) for t in times)
        except Exception:  # a stranger's network raises anything
            if labels != "none":
                raise
            return math.inf

    def best_told(self) -> tuple[float, Tensor]:
        """What is left of the error if it is told the best of the times, and the place of that time for each."""
        times, labels = self.times, self.better_labels
        table = torch.tensor([[self.error(t, told, FEW, labels) for told in times] for t in times]).clamp(min=1e-9)
        least, places = table.min(1)
        return float((least / table.diagonal()).log().mean().exp()), places

    def sampling(self) -> list[Step]:
        """A short DDIM, from seeded noise."""
        if not hasattr(self, "_steps"):
            n = min(SAMPLES if self.x0[0].numel() > 64 else 512, len(self.x0))
            x_T = torch.randn(n, *self.x0.shape[1:], generator=torch.Generator().manual_seed(0)).to(self.x0)
            steps = min(SAMPLING_STEPS, self.schedule.T)
            self._steps = list(
                ddim_steps(self.net, self.diffusion, tuple(x_T.shape), steps, x_T=x_T, y=self.labels_of(n))
            )
        return self._steps

    @contextmanager
    def buffers_kept(self) -> Iterator[None]:
        """Batch normalisation in training mode counts what it sees; afterwards it has seen nothing."""
        buffers = list(self.net.buffers()) if isinstance(self.net, torch.nn.Module) else []
        before = [buffer.clone() for buffer in buffers]
        try:
            yield
        finally:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)

    def linear(self, t: int) -> float:
        """What Wiener's filter, the best linear one, misses: var(x_0 | x_t) / (1 - alpha_bar), as in `error`."""
        level = self.level(t)
        return float((self.power / (level * self.power + 1 - level)).mean())

    @cached_property
    def power(self) -> Tensor:
        """The variance of the data along a linear filter's directions: Fourier's for pictures, or principal."""
        x = self.images[:2000].double()
        x = x - x.mean(0)
        if self.pictures:
            return torch.fft.fft2(x, norm="ortho").abs().square().mean(0).flatten()
        x = x.flatten(1)
        if x.shape[1] > 1024:
            return x.square().mean(0)
        return torch.linalg.eigvalsh(x.T.cov().reshape(x.shape[1], -1)).clamp(min=0)

    @cached_property
    def better_labels(self) -> str:
        """ "given", or "none" where the answers are better without: labels that are wrong must not spoil the rest."""
        t = self.time(0.2)
        return "none" if self.y is not None and self.errors([t], "none") < self.error(t) else "given"

    @property
    def pictures(self) -> bool:
        return self.images.ndim == 4 and min(self.images.shape[-2:]) >= 4


def apart(a: Tensor, b: Tensor) -> float:
    """How different two answers are, as a share of their size."""
    return float((a - b).norm() / ((a.norm() + b.norm()) / 2).clamp(min=1e-12))


def other_labels(y: Tensor) -> Tensor:
    """For each item the label of another class, from the same batch."""
    classes = y.unique()
    if len(classes) < 2:
        raise UnjudgedError("all labels are the same")
    place = torch.searchsorted(classes, y)
    return classes[(place + len(classes) // 2) % len(classes)]
