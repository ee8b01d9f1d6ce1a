"""Pictures of lesson 13: what a patient shows, at a glance."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, finish, style
from .images import tile


@style()
def symptoms(
    samples: Tensor, names: Sequence[str], losses: Sequence[float], times: Sequence[int], by_t: Sequence[float],
    images: Tensor, *, title: str, alt: str,
) -> Figure:  # fmt: skip
    """Samples (N, 1, H, W), a row for every len(names); below them the losses of the training, its loss by t, and the
    values that pixels of samples and of images have."""
    figure = plt.figure(figsize=(7.5, 4.6))
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    ax = above.subplots()
    picture = tile(samples, len(names))
    ax.imshow(picture)
    ax.axis("off")
    ax.set_title(title, fontsize=11, pad=16)
    for i, name in enumerate(names):
        ax.text((i + 0.5) * picture.shape[1] / len(names), -2, name, ha="center", va="bottom", fontsize=8)
    one, two, three = below.subplots(1, 3)
    one.plot([(i + 1) / len(losses) for i in range(len(losses))], losses, linewidth=1.6)
    one.set(xlabel="share of the training", title="loss", ylim=(0, 1.05 * max(1.0, *losses)))
    two.plot(times, by_t, "-o", color=COLORS[1], markersize=3, linewidth=1.6)
    two.set(xlabel="t", title="loss by t", ylim=(0, 1.05 * max(1.0, *by_t)))
    edges = [-1.5 + 0.125 * i for i in range(25)]
    for x, name, look in ((images, "images", "stepfilled"), (samples, "samples", "step")):
        filled = look == "stepfilled"
        shade = {"color": COLORS[5], "alpha": 0.5} if filled else {"color": "black", "linewidth": 1.5}
        values = x.flatten().clamp(-1.5, 1.5).numpy()
        three.hist(values, edges, density=True, histtype=look, label=name, **shade)
    three.set(xlabel="value of a pixel", title="histogram", yticks=[], xticks=[-1, 0, 1])
    three.legend(fontsize=8)
    for ax in (one, two, three):
        ax.title.set_fontsize(10)
    return finish(figure, alt)
