"""Charts as inline SVG, whose colours are those of the page: `.c0` to `.c7` and `.reference` set `--c` for runs.

Text is drawn in the page's font, so that it stays crisp, can be searched, and follows dark mode and print.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Literal, NamedTuple

import numpy as np

Scale = Literal["linear", "log", "count"]
"""log: for positive values; count: for values from 0 on, logarithmic above a tenth of the smallest that is not 0."""
WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 68, 12, 12, 44
COLOURS, SHAPES = 8, 5
MOST_POINTS = 300
"""Of a line; of longer ones some are left out."""
BRIGHT = 0.46
"""Accuracies above it are shown in a colour on which black reads better than white."""
MOST_NUMBERED = 10
"""Tasks of a heat map with a number in each cell."""
LETTER = 6.2
"""Width of a letter of a label, about."""


class Look(NamedTuple):
    """How a run looks in all charts: CSS classes, and the shape of its marks."""

    classes: str
    shape: int


class Line(NamedTuple):
    """A run's curve: x (n,), y (n,), and where there is a band its edges (n,) each."""

    name: str
    look: Look
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Point(NamedTuple):
    """A run's place in a scatter plot, with the spread of y."""

    name: str
    look: Look
    x: float
    y: float
    spread: float


def look(run: int, rank: int) -> Look:
    """How the run of this number looks; no two ranks of 40 look alike."""
    return Look(f"run c{rank % COLOURS} d{rank // COLOURS % 4} r{run}", rank % SHAPES)


def look_of_reference(run: int, method: str) -> Look:
    """Grey, for naive and joint: what the others are measured by."""
    return Look(f"run reference {method} r{run}", ("joint", "naive").index(method))


class Axis:
    """Values to positions along a line, with round ticks.

    Args:
        values: all that has to be on it.
        start, end: positions of the least and of the largest.
        scale: of the values.
    """

    def __init__(self, values: Sequence[float], start: float, end: float, scale: Scale = "linear") -> None:
        self.scale, self.start, self.end = scale, start, end
        self.unit = min((value for value in values if value > 0), default=1.0) / 10
        scaled = [self._scaled(value) for value in values] or [0.0]
        least, largest = min(scaled), max(scaled)
        margin = 0.04 * (largest - least) or 0.05 * (abs(largest) or 1)
        self.least, self.largest = least - margin, largest + margin

    def _scaled(self, value: float) -> float:
        if self.scale == "linear":
            return float(value)
        return log10(max(value, 1e-6)) if self.scale == "log" else log10(1 + max(value, 0) / self.unit)

    def _unscaled(self, scaled: float) -> float:
        return 10**scaled if self.scale == "log" else self.unit * (10**scaled - 1)

    def at(self, value: float) -> float:
        """Position of a value."""
        share = (self._scaled(value) - self.least) / (self.largest - self.least)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, whole: bool = False) -> list[tuple[float, str]]:
        """Position and label of about five round values; only whole ones if asked for."""
        if self.scale == "linear":
            return self._labelled(_round_values(self.least, self.largest, whole))
        factors = (1, 2, 5) if self.largest - self.least < 2 else (1,)
        values = [factor * 10.0**power for power in range(-6, 13) for factor in factors]
        if self.scale == "count":
            values = [0.0, *(value for value in values if value > self.unit)]
        there = [value for value in values if self.least <= self._scaled(value) <= self.largest]
        if len(there) < 2:  # the axis is so short that the scale hardly matters
            return self._labelled(_round_values(*map(self._unscaled, (self.least, self.largest)), whole))
        return [(self.at(value), short(value)) for value in there[:: max(1, ceil(len(there) / 7))]]

    def _labelled(self, values: Sequence[float]) -> list[tuple[float, str]]:
        digits = max(0, -floor(log10(values[1] - values[0]) + 1e-9)) if len(values) > 1 else 2
        return [(self.at(value), f"{value:.{digits}f}") for value in values]


def _round_values(least: float, largest: float, whole: bool) -> list[float]:
    rough = (largest - least) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.7 * rough)
    step = max(1.0, step) if whole else step
    return [step * i for i in range(ceil(least / step - 1e-9), floor(largest / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number in a few letters: 0.01, 250, 1.4M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def lines(
    curves: Sequence[Line], x_label: str, y_label: str, alt: str, scale: Scale = "linear", marks: bool = True
) -> str:
    """Curves over tasks or epochs, each with its band."""
    x = Axis([value for curve in curves for value in curve.x], LEFT, WIDTH - RIGHT)
    edges = [edge for curve in curves for edge in (curve.y, curve.low, curve.high) if edge is not None]
    y = Axis([value for edge in edges for value in edge], HEIGHT - BOTTOM, TOP, scale)
    drawn = []
    for curve in curves:
        keep = range(0, len(curve.x), ceil(len(curve.x) / MOST_POINTS))
        path = _path([(x.at(curve.x[i]), y.at(curve.y[i])) for i in keep])
        band = ""
        if curve.low is not None and curve.high is not None:
            there = [(x.at(curve.x[i]), y.at(curve.high[i])) for i in keep]
            back = [(x.at(curve.x[i]), y.at(curve.low[i])) for i in reversed(keep)]
            band = f'<path class="band" d="{_path(there + back)}Z"/>'
        dots = "".join(_mark(x.at(a), y.at(b), curve.look.shape) for a, b in zip(curve.x, curve.y, strict=True))
        drawn.append(_run(curve.name, curve.look, f'{band}<path class="line" d="{path}"/>{dots if marks else ""}'))
    return _svg(HEIGHT, alt, _frame(x.ticks(whole=True), y.ticks(), x_label, y_label) + "".join(drawn))


def scatter(points: Sequence[Point], x_label: str, y_label: str, alt: str, scale: Scale) -> str:
    """A mark a run, with its spread; named beside it as long as there is room."""
    x = Axis([point.x for point in points], LEFT, WIDTH - RIGHT, scale)
    y = Axis([p.y + sign * p.spread for p in points for sign in (-1, 1)], HEIGHT - BOTTOM, TOP)
    taken = [(x.at(p.x) - 6, y.at(p.y) - 6, x.at(p.x) + 6, y.at(p.y) + 6) for p in points]
    taken += [(x.at(p.x) - 2, y.at(p.y + p.spread), x.at(p.x) + 2, y.at(p.y - p.spread)) for p in points]
    drawn = []
    for point in points:
        left, top = x.at(point.x), y.at(point.y)
        whisker = f"M{left} {y.at(point.y - point.spread)}V{y.at(point.y + point.spread)}"
        label = _label(point.name, left, top, taken)
        content = f'<path class="whisker" d="{whisker}"/>{_mark(left, top, point.look.shape, size=5)}{label}'
        drawn.append(_run(point.name, point.look, content))
    return _svg(HEIGHT, alt, _frame(x.ticks(), y.ticks(), x_label, y_label) + "".join(drawn))


def _label(name: str, left: float, top: float, taken: list[tuple[float, float, float, float]]) -> str:
    """The name where it covers nothing that is there already; nothing if there is no such place."""
    width = LETTER * len(name)
    for down in (4, -8, 16):
        for x, anchor in ((left + 8, "start"), (left - 8, "end")):
            y, begin = top + down, x if anchor == "start" else x - width
            box = (begin, y - 10, begin + width, y + 2)
            inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            if inside and not any(box[0] < c and a < box[2] and box[1] < d and b < box[3] for a, b, c, d in taken):
                taken.append(box)
                return f'<text class="name" text-anchor="{anchor}" x="{x:.0f}" y="{y:.0f}">{escape(name)}</text>'
    return ""


def bars(points: Sequence[Point], x_label: str, alt: str) -> str:
    """A horizontal bar a run for its value y, from 0, with the spread; its name above it."""
    row, height = 34, 34 * len(points) + TOP + BOTTOM
    x = Axis([0.0, *(p.y + sign * p.spread for p in points for sign in (-1, 1))], 14, WIDTH - 58)
    zero = x.at(0)
    drawn = []
    for i, point in enumerate(points):
        top, end = TOP + i * row, x.at(point.y)
        left, right = x.at(point.y - point.spread), x.at(point.y + point.spread)
        drawn.append(
            _run(
                point.name,
                point.look,
                f'<path class="axis" d="M{zero} {top + 13}v15"/>'
                f'<text class="name" x="14" y="{top + 10}">{escape(point.name)}</text>'
                f'<rect class="bar" x="{min(zero, end)}" y="{top + 15}" '
                f'width="{max(abs(end - zero), 0.5):.1f}" height="11" rx="2"/>'
                f'<path class="whisker" d="M{left} {top + 20.5}H{right}"/>'
                f'<text class="value" x="{WIDTH - 4}" y="{top + 25}">{point.y:.4f}</text>',
            )
        )
    bottom = height - BOTTOM + 2
    axis = f'<path class="axis" d="M14 {bottom}H{WIDTH - 58}"/>' + _x_ticks(x.ticks(), bottom)
    middle = (14 + WIDTH - 58) / 2
    return _svg(
        height, alt, f'{axis}{"".join(drawn)}<text class="label" x="{middle}" y="{height - 8}">{x_label}</text>'
    )


def heat_map(r: np.ndarray, alt: str) -> str:
    """The accuracy matrix r (T, T) in [0, 1]: one pixel a cell, blown up; with numbers if they can be read."""
    from matplotlib import colormaps
    from PIL import Image

    buffer, tasks = io.BytesIO(), len(r)
    Image.fromarray(colormaps["cividis"](r, bytes=True)[:, :, :3]).save(buffer, "PNG")
    pixels = base64.b64encode(buffer.getvalue()).decode()
    size, left, top = 200, 26, 4
    cell = size / tasks
    step = ceil(tasks / 10)
    texts = []
    for i in range(0, tasks, step):
        middle = (i + 0.5) * cell
        texts.append(f'<text class="tick x" x="{left + middle:.1f}" y="{top + size + 14}">{i}</text>')
        texts.append(f'<text class="tick y" x="{left - 5}" y="{top + middle + 4:.1f}">{i}</text>')
    if tasks <= MOST_NUMBERED:
        font = min(11.0, cell * 0.36)
        texts += [
            f'<text class="{"on-light" if value > BRIGHT else "on-dark"}" font-size="{font:.1f}" '
            f'x="{left + (j + 0.5) * cell:.1f}" y="{top + (i + 0.5) * cell + font * 0.35:.1f}">{_share(value)}</text>'
            for (i, j), value in np.ndenumerate(r)
        ]
    image = (
        f'<image x="{left}" y="{top}" width="{size}" height="{size}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{pixels}"/>'
    )
    return _svg(top + size + 20, alt, image + "".join(texts), width=left + size + 4)


def _share(value: float) -> str:
    return "1" if value >= 0.995 else f"{value:.2f}".removeprefix("0")


def _run(name: str, style: Look, content: str) -> str:
    return f'<g class="{style.classes}"><title>{escape(name)}</title>{content}</g>'


def _mark(x: float, y: float, shape: int, size: float = 3.2) -> str:
    s = size
    if shape == 0:
        return f'<circle class="mark" cx="{x}" cy="{y}" r="{s}"/>'
    corners = (
        [(-s, -s), (s, -s), (s, s), (-s, s)],
        [(0, -1.3 * s), (1.25 * s, s), (-1.25 * s, s)],
        [(0, -1.4 * s), (1.4 * s, 0), (0, 1.4 * s), (-1.4 * s, 0)],
        [(0, 1.3 * s), (1.25 * s, -s), (-1.25 * s, -s)],
    )[shape - 1]
    return f'<path class="mark" d="{_path([(x + a, y + b) for a, b in corners])}Z"/>'


def swatch(style: Look) -> str:
    """A run's line and mark, for the legend."""
    return (
        f'<svg class="{style.classes} swatch" viewBox="0 0 28 12" aria-hidden="true">'
        f'<path class="line" d="M1 6H27"/>{_mark(14, 6, style.shape)}</svg>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _x_ticks(ticks: Sequence[tuple[float, str]], bottom: float) -> str:
    return "".join(f'<text class="tick x" x="{at}" y="{bottom + 15}">{text}</text>' for at, text in ticks)


def _frame(x: Sequence[tuple[float, str]], y: Sequence[tuple[float, str]], x_label: str, y_label: str) -> str:
    bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    grid = "".join(f"M{LEFT} {at}H{WIDTH - RIGHT}" for at, _ in y)
    labels = "".join(f'<text class="tick y" x="{LEFT - 6}" y="{at + 4}">{text}</text>' for at, text in y)
    return (
        f'<path class="grid" d="{grid}"/><path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
        f"{labels}{_x_ticks(x, bottom)}"
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}">{escape(x_label)}</text>'
        f'<text class="label" transform="translate(11 {middle}) rotate(-90)">{escape(y_label)}</text>'
    )


def _svg(height: float, alt: str, content: str, width: float = WIDTH) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">{content}</svg>'
