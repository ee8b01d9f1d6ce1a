"""The code that the patients of the clinic have in common: a small diffusion model of the functions of lesson 13.

A patient is this code with a change in one function, which the catalogue of lesson 13 knows as a mistake. Pictures are
16 x 16, the network has 182,000 weights, and the chain 100 steps.
"""

from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType

import torch
from torch import Tensor, nn

from ..data import load_images
from ..exercises import edits, lesson13
from ..exercises.written import USUAL, exercises_of, sources
from ..schedules import Schedule
from ..times import spaced_timesteps
from ..unet import UNet

SIZE, T, STEPS = 16, 100, 25
ETA = 0.5  # of DDIM: with none the small network draws badly
FUNCTIONS = {record.name: record.reference for record in exercises_of(lesson13)}


def changes_of(name: str, *mistakes: str) -> str:
    """What the catalogue writes for mistakes in a function, made together."""
    known = {mistake.id: mistake for mistake in FUNCTIONS[name].exercise.mistakes}
    return known[" and ".join(mistakes)].variants[0].change


def changed(name: str, place: str, changes: str) -> Callable:
    """The function `name` of the patients' code, where `place`, itself or one that it calls, has these changes."""
    if name != place:
        changes = " ; ".join(f"in {place}: {change}" for change in changes.split(" ; "))
    return edits.wrong_function(name, changes, sources(lesson13.__name__), USUAL | vars(lesson13))


def text(name: str, changes: str) -> str:
    """The function `name` with these changes, as its patient brought it."""
    source = FUNCTIONS[name].exercise.source
    for change in changes.split(" ; ") if changes else ():
        source = edits.changed(source, change)
    return source


@cache
def pictures(limit: int | None = 2000) -> tuple[Tensor, Tensor]:
    """Garments for the patients, (N, 1, 16, 16) uint8, and their labels (N,)."""
    return load_images(size=SIZE, limit=limit)


def network(dropout: float = 0.0) -> UNet:
    torch.manual_seed(0)
    return UNet(widths=(16, 32), num_classes=10, dropout=dropout)


class Told(nn.Module):
    """A patient's network as its code calls it: with a code of t of the patient's own, and guided where asked.

    code_of:  the code of t that goes into the first layer
    """

    def __init__(self, net: UNet, code_of: Callable):
        super().__init__()
        self.net, self.code_of, self.num_classes = net, code_of, net.num_classes
        self.t = None
        net.time.register_forward_pre_hook(self._coded)

    def _coded(self, layer: nn.Module, given: tuple) -> tuple:
        return (self.code_of(self.t, given[0].shape[1]).to(given[0].dtype),)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.t = t
        return self.net(x, t, y)


def with_parts(function: Callable, **parts: Callable) -> Callable:
    """A function of the patients' code that calls these in the place of the usual ones."""
    return FunctionType(function.__code__, function.__globals__ | parts, function.__name__)


def make_samples(
    net: Callable, schedule: Schedule, labels: Tensor, parts: dict[str, Callable], sampler: str, scale: float, seed: int
) -> Tensor:
    """(N, 1, 16, 16) what the patients' code draws with a network.

    parts:    the functions by their names: draw, ancestral_move, ddim_move, steer
    sampler:  "ancestral" or "DDIM", in 25 steps
    """
    shape, generator = (len(labels), 1, SIZE, SIZE), torch.Generator().manual_seed(seed)
    times = spaced_timesteps(schedule.T, STEPS)

    def ask(x: Tensor, t: Tensor) -> Tensor:
        return parts["steer"](net, x, t, labels, scale)

    if sampler == "ancestral":
        draw = parts["draw"]
        if draw is FUNCTIONS["draw"]:
            draw = with_parts(draw, ancestral_move=parts["ancestral_move"])
        return draw(ask, schedule, shape, times, generator)
    x = torch.randn(shape, generator=generator)
    with torch.no_grad():
        for t, s in zip(times[:-1], times[1:], strict=True):
            told = torch.full((len(x),), t)
            signal, sigma = schedule.q_coefficients(t, x)
            x0 = ((x - sigma * ask(x, told)) / signal).clamp(-1, 1)
            z = torch.randn(shape, generator=generator)
            x = parts["ddim_move"](schedule, x0, x, t, s, z, ETA)
    return x


def loss_by_t(step: Callable, net: nn.Module, schedule: Schedule, x0: Tensor, y: Tensor, points: Sequence[int]) -> list:
    """The training's own loss at some t, with weights that stay as they are."""
    generator, losses = torch.Generator().manual_seed(5), []
    still = torch.optim.SGD(net.parameters(), lr=0.0)
    for t in points:
        noise = torch.randn(x0.shape, generator=generator)
        told = torch.full((len(x0),), t)
        losses.append(float(step(lambda x, t: net(x, t, y), schedule, still, x0, told, noise)))
    net.zero_grad()
    return losses
