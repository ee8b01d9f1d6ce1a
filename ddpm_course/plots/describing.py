"""Figures in words: the alternative text of every picture, for people who do not see it.

A plotting function says in a sentence what its figure is (`finish(figure, summary)`); what was measured is read off
the figure itself, so that the text is true of the run that made it.
"""

import html

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

LONGEST = 700  # characters: what is longer is a burden to listen to
MOST = 8  # things told of one panel
MANY = 5  # lines without a name of their own are counted, not told one by one


class Picture:
    """An image file with its alternative text, as a cell shows it.

    As HTML, because JupyterLab and nbconvert drop the alternative text of a bare image output.
    """

    def __init__(self, data: str, kind: str, alt: str, attributes: str = 'style="max-width: 100%"'):
        """data: the file in base64; kind: "png", "jpeg" or "gif"; attributes: more for the <img> element."""
        self.data, self.kind, self.alt, self.attributes = data, kind, alt, attributes

    def _repr_html_(self) -> str:
        source = f"data:image/{self.kind};base64,{self.data}"
        return f'<img alt="{html.escape(self.alt)}" {self.attributes} src="{source}">'

    def __repr__(self) -> str:
        return self.alt


def describe(figure: Figure) -> str:
    """The alternative text of a figure: what it is, then, panel by panel, what its axes and curves show."""
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>" and ax.has_data()]
    names = {_look(line): line.get_label() for ax in panels for line in ax.get_lines() if _named(line)}
    title = figure.get_suptitle()
    said = [text for text in (getattr(figure, "summary", ""), title) if text]
    for i, ax in enumerate(panels):
        facts = _panel(ax, names)
        if facts and len(panels) > 1 and not ax.get_title():
            facts = f"Panel {i + 1}: {facts}"
        if facts and i > 0 and len(" ".join([*said, facts])) > LONGEST:
            said.append(f"And {len(panels) - i} more panels." if len(panels) - i > 1 else "And one more panel.")
            break
        said.append(facts)
    sentences = [f"{_begun(part).rstrip('.')}." for part in said if part]
    plain = " ".join(sentences).replace("$", "")  # without the signs around matplotlib's formulas, and on one line
    return " ".join(plain.split()) or "A figure."


def _panel(ax: Axes, names: dict) -> str:
    """One panel in a sentence: title and axes, then what is drawn. Empty for a panel of pictures alone."""
    own = any(_named(line) for line in ax.get_lines())
    drawn = _curves(ax, {} if own else names)  # a legend in one panel may serve those beside it
    clouds = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets()) > 1]
    drawn += [f"{sum(map(len, clouds)):,} points"] if clouds else []
    for outline in ax.patches:
        if isinstance(outline, Polygon) and _named(outline):
            at, _ = max(outline.get_xy(), key=lambda point: point[1])
            drawn.append(f"histogram of {_named(outline)}, highest near {_number(at)}")
    for bars in ax.containers:
        heights = [_number(bar.get_height()) for bar in bars]
        if len(set(heights)) > 1 and len(heights) <= 12:
            drawn.append(f"{_named(bars) or 'bars'} {', '.join(heights)}")
        elif len(heights) > 12:
            top = max(bars, key=lambda bar: bar.get_height())
            drawn.append(f"histogram of {_named(bars) or 'values'}, highest near {_number(top.get_center()[0])}")
    title, across, up = ax.get_title(), ax.get_xlabel(), ax.get_ylabel()
    if not (drawn or across):
        return ""
    scales = [name for name, scale in (("x", ax.get_xscale()), ("y", ax.get_yscale())) if scale == "log"]
    head = f"{title}: {up}" if title and up else title or up
    head = f"{head} over {across}".lstrip() if across else head
    head += f" (logarithmic {' and '.join(scales)})" if scales else ""
    if len(drawn) > MOST:
        drawn[MOST:] = [f"and {len(drawn) - MOST} more"]
    return ": ".join(part for part in (head, "; ".join(drawn)) if part)


def _curves(ax: Axes, names: dict) -> list[str]:
    """What each line does: where it starts and ends, and its peak or low between."""
    told, unnamed = [], []
    for line in ax.get_lines():
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        kept = np.isfinite(x) & np.isfinite(y)
        if kept.sum() < 2:
            continue
        name = _named(line) or names.get(_look(line), "")
        if line.get_transform() == ax.get_xaxis_transform():  # a vertical line across the panel
            told += [f"{name} at {_number(x[0])}"] if name else []
        elif line.get_transform() == ax.get_yaxis_transform():
            told += [f"{name}: {_number(y[0])}"] if name else []
        elif name:
            told.append(f"{name} {_course(x[kept], y[kept], ax)}")
        else:
            unnamed.append(_course(x[kept], y[kept], ax))
    if len(unnamed) >= MANY:
        return [*told, f"{len(unnamed)} lines"]
    return told or unnamed


def _course(x: np.ndarray, y: np.ndarray, ax: Axes) -> str:
    """How a curve runs from left to right, with what it reaches between its ends."""
    if (x[0] > x[-1]) != ax.xaxis_inverted():
        x, y = x[::-1], y[::-1]
    first, last, span = y[0], y[-1], y.max() - y.min()
    small = 1e-4 * span if ax.get_yscale() == "linear" else 0.0  # nothing, on this axis
    if span <= 1e-6 * abs(y).max():
        return f"stays at {_number(first)}"
    if abs(last - first) < 0.02 * span:
        text = f"starts and ends at {_number(first, small)}"
    else:
        text = f"{'rises' if last > first else 'falls'} from {_number(first, small)} to {_number(last, small)}"
    for word, place in (("a peak", y.argmax()), ("a low", y.argmin())):
        if min(abs(y[place] - first), abs(y[place] - last)) > 0.1 * span:
            at = _number(x[place], 1e-4 * (x.max() - x.min()))
            text += f", with {word} of {_number(y[place], small)} at {at}"
    return text


def _named(artist) -> str:
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else label


def _look(line) -> tuple:
    return line.get_color(), line.get_linestyle(), line.get_marker()


def _number(value: float, small: float = 0.0) -> str:
    """Three digits; what is smaller than `small` is 0."""
    if abs(value) <= small:
        return "0"
    return f"{round(value):,}" if abs(value) >= 1000 else f"{value:.3g}"


def _begun(text: str) -> str:
    """With a capital letter in front, unless a symbol stands there: β is not Β, x not X."""
    return text[0].upper() + text[1:] if text[:2].isascii() and text[:2].isalpha() else text
