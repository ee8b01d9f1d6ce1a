"""A training as it happens: pass a LiveTraining as `watch=` to `train`."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..modes import fast_mode
from ..nets import device_of
from ..samplers import generate
from .base import finish, style
from .images import tile


@style()
def curve_with_samples(
    losses: Sequence[tuple[int, float]], grids: Sequence[tuple[int, Tensor]], steps: int | None = None
) -> Figure:
    """A training at a glance: the loss, and below it one row of samples for each stage, with its step."""
    figure = plt.figure(figsize=(7.5, 2.6 + 0.78 * len(grids)))
    heights = [2.6, 0.78 * len(grids)] if grids else [2.6]
    top, *rest = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    ax = top.subplots()
    ax.plot(*zip(*losses, strict=True), linewidth=1.5, marker="." if len(losses) < 10 else None)
    ax.set(xlabel="step", ylabel="loss", xlim=(0, steps or losses[-1][0]), ylim=(0, None))
    if grids:
        axes = rest[0].subplots(len(grids), 1, squeeze=False)[:, 0]
        for ax, (step, images) in zip(axes, grids, strict=True):
            ax.imshow(tile(images, len(images)))
            ax.set(xticks=[], yticks=[], frame_on=False)
            ax.grid(False)
            ax.set_ylabel(f"step {step:,}", rotation=0, ha="right", va="center", fontsize=10)
    told = ", ".join(f"{step:,}" for step, _ in grids)
    return finish(figure, "The loss of a training" + (f", above samples drawn at step {told}" if grids else ""))


class LiveTraining:
    """Pass one as `watch=` to `train`: the loss curve and samples of the averaged network, redrawn in place.

    diffusion: what the network's output means
    shape:     (C, H, W) of one image
    labels:    (n,) the classes to draw, or None for ten unlabelled images
    previews:  how many rows of samples over the training, each after twice as many steps as the one before
    """

    def __init__(self, diffusion, shape: tuple[int, int, int], labels: Tensor | None = None, *, previews: int = 6):
        self.diffusion, self.labels, self.previews = diffusion, labels, previews
        self.shape = (10 if labels is None else len(labels), *shape)
        self.grids: list[tuple[int, Tensor]] = []
        self.handle = None

    def __call__(self, run) -> None:
        from IPython.display import display

        halvings = self.previews - 1 - len(self.grids)  # most happens at the start
        if run.steps is not None and run.step >= run.steps / 2**halvings:
            self.grids.append((run.step, self.draw(run.ema.net)))
        figure = curve_with_samples(run.losses, self.grids, run.steps)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)

    def draw(self, net) -> Tensor:
        """Samples from the same noise every time, so that rows compare; the training's generator is not touched."""
        device = device_of(net)
        generator = torch.Generator(device).manual_seed(0)
        labels = None if self.labels is None else self.labels.to(device)
        steps = 3 if fast_mode() else 25
        return generate(net, self.diffusion, self.shape, steps, y=labels, generator=generator, progress=False)
