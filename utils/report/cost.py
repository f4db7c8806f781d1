"""Axes of costs, such as bytes and seconds: their scale, and the runs that no other beats in accuracy and cost."""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 100  # values whose ratio exceeds this get a logarithmic axis
Point = tuple[float, float]  # cost, accuracy


def scale(values: Sequence[float]) -> str:
    """The scale of an axis of these values."""
    positive = [value for value in values if value > 0]
    if min(values) < 0 or not positive or max(values) <= WIDE * min(positive):
        return "linear"
    return "log" if len(positive) == len(values) else "symlog"


def set_xscale(axes: "Axes", values: Sequence[float]) -> None:
    """The scale of the x axis; one with a zero is linear up to a tenth of the smallest positive value."""
    if (name := scale(values)) != "symlog":
        axes.set_xscale(name)
        return
    linear = min(value for value in values if value > 0) / 10
    axes.set_xscale(name, linthresh=linear)
    axes.set_xlim(-linear / 2, 2 * max(values))
    first, last = floor(log10(10 * linear)), ceil(log10(max(values)))
    axes.set_xticks([0, *(10.0**power for power in range(first, last + 1, 1 + (last - first) // 5))])  # none beside 0


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other has both at most the cost and at least the accuracy of, by increasing cost."""
    best, found = float("-inf"), list[Point]()
    for cost, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            found.append((cost, accuracy))
            best = accuracy
    return found


def draw(axes: "Axes", points: Sequence[Point], ringed: Sequence[bool], colour: str) -> None:
    """The front as steps, and a ring around some of the points."""
    found = front(points)
    right = max(cost for cost, _ in points)
    steps = [*found, (right, found[-1][1])]
    axes.step(*zip(*steps, strict=True), where="post", color=colour, linewidth=1, linestyle=":", zorder=1)
    for (cost, accuracy), ring in zip(points, ringed, strict=True):
        if ring:
            axes.plot(cost, accuracy, marker="o", markersize=13, markerfacecolor="none", color=colour)
