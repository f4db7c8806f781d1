"""matplotlib figures as inline SVG in the colours of the page, light or dark.

Runs, axes and text are drawn in placeholder colours, which `as_svg` replaces by `currentColor` and the page's CSS
variables. matplotlib's own settings stay as they are outside `rc_context`.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.run.figures import draw_matrix, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = tuple(f"#c0c0c{i}" for i in range(8))
REFERENCE, INK, SOFT, GRID, CARD = "#c0c0d0", "#c0c0d1", "#c0c0d2", "#c0c0d3", "#c0c0d4"
CSS = {INK: "currentColor", SOFT: "var(--soft)", GRID: "var(--grid)", CARD: "var(--card)"}
CSS |= {REFERENCE: "var(--reference)", **{colour: f"var(--c{i})" for i, colour in enumerate(COLOURS)}}
"""Placeholder -> colour in the page; report.html defines the variables."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
}
STYLE |= {"axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "grid.color": GRID}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
"""matplotlib's settings for these figures, for an `rc_context` around drawing and saving them."""
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = "osDv^"
WIDE = 100
"""Values whose ratio exceeds this get a logarithmic axis."""
MAX_POINTS = 300
"""Points per line; longer lines are thinned out."""

Look = dict[str, Any]
"""matplotlib's label, colour, linestyle and marker of a run, and the gid that identifies it in the page."""
_figures = count()


class Curve(NamedTuple):
    """A run's line: x (n,), y (n,), and the edges (n,) of its band."""

    look: Look
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def look(name: str, run: int, rank: int) -> Look:
    """How a run is drawn in every figure; no two of 40 ranks look alike. Rank -1 is grey, for a reference."""
    colour, dashes = (COLOURS[rank % 8], DASHES[rank // 8 % 4]) if rank >= 0 else (REFERENCE, DASHES[1 + run % 2])
    return {"label": name, "gid": f"run r{run}", "color": colour, "linestyle": dashes, "marker": MARKERS[rank % 5]}


def as_svg(figure: "Figure", alt: str) -> str:
    """The figure as an `<svg>` element that refers to no other file.

    Artists with a gid "run r<i>" get these two classes. The other ids are unique in the process, or removed.
    """
    from matplotlib import rc_context

    buffer, no_metadata = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.hashsalt": f"figure {next(_figures)}"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    ((size, svg),) = re.findall(r'<svg.*?(viewBox="[^"]*").*?</defs>(.*)', buffer.getvalue(), re.S)  # less <style>
    svg = re.sub(r'id="(run r\d+)"', r'class="\1"', svg)
    svg = re.sub(r' id="[a-zA-Z.0-9]+_\d+"| transform="rotate\(-0 [^"]*"| font-family: [^;"]*;?', "", svg)
    svg = re.sub(r"<(?:path|use|text)[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub("|".join(CSS), lambda colour: CSS[colour[0]], re.sub(r"\s*\n\s*", " ", svg))
    return f'<svg {size} role="img" aria-label="{escape(alt)}">{svg.replace("xlink:href", "href")}'


def chart(curves: Sequence[Curve], x_label: str, y_label: str, title: str) -> str:
    """Curves over tasks or epochs, each with its band; or, if each has one point, points with error bars and names."""
    figure = new_figure(6, 3.8)
    axes = figure.add_subplot()
    axes.grid()
    axes.set_axisbelow(True)
    points = all(len(curve.x) == 1 for curve in curves)
    for look, *line in curves:
        keep = slice(None, None, -(-len(line[0]) // MAX_POINTS))
        x, y, low, high = (values[keep] for values in line)
        size = 7 if points else 5 if len(x) <= 20 else 0
        axes.plot(x, y, markersize=size, linewidth=1.6, markeredgecolor=CARD, markeredgewidth=0.6, **look)
        if points:
            axes.vlines(x, low, high, color=look["color"], gid=look["gid"], linewidth=1.2)
        else:
            alpha = 0.12 if len(curves) <= 8 else 0.04
            axes.fill_between(x, low, high, color=look["color"], gid=look["gid"], linewidth=0, alpha=alpha)
    axes.set(xlabel=x_label, ylabel=y_label, yscale=_scale([curve.low for curve in curves]))
    if points:
        axes.set_xscale(_scale([curve.x for curve in curves]))
        axes.margins(x=0.08)
        _name(figure, axes, curves)
    else:
        axes.locator_params(axis="x", integer=True)
    values = [f"{curve.look['label']} {curve.y[0]:.4g} to {curve.y[-1]:.4g}" for curve in curves]
    return as_svg(figure, f"{title}, by {x_label}, first to last: {'; '.join(values)}")


def _scale(values: Sequence[np.ndarray]) -> str:
    every = np.concatenate(values)
    positive = every[every > 0]
    if every.min() < 0 or not len(positive) or every.max() <= WIDE * positive.min():
        return "linear"
    return "log" if len(positive) == len(every) else "symlog"


def matrix(r: np.ndarray, alt: str) -> str:
    """Heat map of the accuracy matrix r (T, T), in [0, 1]."""
    figure = new_figure(2.5, 2.4)
    axes = figure.add_subplot()
    draw_matrix(axes, r, fontsize=min(9.0, 50 / len(r)))
    axes.tick_params(labelsize=9)
    return as_svg(figure, alt)


def swatch(look: Look) -> str:
    """A run's line and mark, for the legend."""
    figure = new_figure(0.4, 0.17)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], **look)
    return as_svg(figure, "").replace('role="img" aria-label=""', 'class="swatch" aria-hidden="true"')


def _name(figure: "Figure", axes: "Axes", points: Sequence[Curve]) -> None:
    """Write each run's name beside its point, unless it would cover a mark or another name."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # fixes the layout, in which the boxes below are measured
    places = [(point.x[0], point.y[0]) for point in points]
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in axes.transData.transform(places)]
    for point, place in zip(points, places, strict=True):
        style = {"textcoords": "offset points", "gid": point.look["gid"], "size": 10}
        for right, up in ((7, -4), (-7, -4), (7, 6), (-7, 6), (7, -14), (-7, -14)):
            text = axes.annotate(point.look["label"], place, (right, up), ha="left" if right > 0 else "right", **style)
            box = text.get_window_extent()
            if axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()
