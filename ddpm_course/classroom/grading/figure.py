"""Draws what a class did in a lesson: one bar an exercise, one thin bar a mistake."""

from collections import Counter

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ...plots import COLORS, finish, style

LOOKS = {  # colour and hatching, so that it reads in grey as well; Okabe and Ito's colours
    "solved": {"color": COLORS[2], "hatch": ""},
    "wrong": {"color": COLORS[1], "hatch": "///"},
    "not attempted": {"color": "#ffffff", "hatch": ""},
    "missing": {"color": "#ffffff", "hatch": "..."},
    "stopped": {"color": "#9a9a9a", "hatch": "xxx"},
}
MOST = 4  # mistakes shown for an exercise; the CSV has them all


def draw(lesson: str, counted: list[tuple[str, Counter, Counter]]) -> Figure:
    """A figure of what `report.summary` counted: for each exercise the statuses, under it its commonest mistakes."""
    rows = []  # from top to bottom
    for title, statuses, mistakes in counted:
        rows += [(title, statuses), *mistakes.most_common(MOST)]
    labels, bars = zip(*rows, strict=True)
    most = max(statuses.total() for _, statuses, _ in counted)
    with style():
        figure, axes = plt.subplots(figsize=(9, 1.4 + 0.26 * len(bars)), dpi=120)
        for y, bar in enumerate(bars):
            if isinstance(bar, Counter):
                left = 0
                for status, look in LOOKS.items():
                    _piece(axes, y, left, bar[status], most, look)
                    left += bar[status]
            else:
                axes.barh(y, bar, 0.45, color=COLORS[1], edgecolor="black", linewidth=0.6, hatch="///")
                axes.text(bar + most / 150, y, str(bar), va="center", fontsize=8)
        for status, look in LOOKS.items():
            axes.barh(0, 0, label=status, edgecolor="black", **look)
        axes.set_yticks(range(len(labels)), labels)
        for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
            label.set(fontweight="bold" if isinstance(bar, Counter) else "normal", fontsize=10)
        axes.set(ylim=(len(bars) - 0.4, -0.6), xlim=(0, most), xlabel="students", title=lesson)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(False, axis="y")
        figure.legend(loc="outside upper center", ncols=len(LOOKS), fontsize=9)
    return finish(figure, f"How many students solved each exercise of {lesson}, and which mistakes they made")


def _piece(axes, y: int, left: int, width: int, most: int, look: dict[str, str]) -> None:
    """One status of an exercise's bar with its number in it, on a plain patch so that hatching does not cross it."""
    if not width:
        return
    axes.barh(y, width, 0.8, left, edgecolor="black", linewidth=0.6, **look)
    if width >= most / 50:
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
        axes.text(left + width / 2, y, str(width), ha="center", va="center", fontsize=8, bbox=patch)
