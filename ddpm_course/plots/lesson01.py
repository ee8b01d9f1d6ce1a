"""Figures of lesson 01."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .base import COLORS, finish, style


@style()
def paths_and_drift(chain: Tensor, euler: Tensor, drift: Tensor) -> Figure:
    """Paths (T+1, N): the chain in colour, its Euler-Maruyama twin dotted on top, and the equation without noise."""
    figure, ax = plt.subplots(figsize=(7.5, 3.6))
    for i in range(chain.shape[1]):
        first = "_"[: i > 0]  # matplotlib leaves names that begin with _ out of the legend
        t = torch.arange(0, len(chain), 4)  # every fourth step: more than that is a blot
        ax.plot(t, chain[t, i], color=COLORS[i], linewidth=1.6, alpha=0.75, label=f"{first}chain")
        ax.plot(t, euler[t, i], ":", color="black", linewidth=0.9, label=f"{first}Euler–Maruyama, same noise")
        ax.plot(t, drift[t, i], "--", color=COLORS[i], linewidth=2.2, label=f"{first}drift alone")
    ax.set(xlabel="t", ylabel="x", ylim=(-3.8, 4.2))
    ax.legend(loc="upper left", ncols=3, fontsize=9)
    return finish(
        figure, "Paths of the chain, the Euler–Maruyama paths that lie on them, and the equation without noise"
    )
