"""Figures of one run, as the bytes of a PNG, PDF or SVG file (`kind`), and the drawings that the report shares.

Only `Figure` objects, no pyplot: nothing here changes matplotlib's global state or touches a file. matplotlib is
imported by the first figure, because the import is slow and many runs draw none.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from methods import ImageGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = dict[str, list[tuple[int, float]]]  # name of a line -> its points (task, value)
MAX_NUMBERED = 12  # tasks up to which accuracy matrices show numbers; beyond, the figures do not grow either
MAX_NAMED = 16  # names in a column of a legend
MAX_LINES = 6  # lines in a plot of diagnostics; more are a heat map
MANY = 40  # points of a line up to which they are marked
STEPS = "training step"
MIN_SPAN = 0.05  # least range of an axis of accuracies: with less, one image would look like a cliff


def of_results(
    results: Mapping[str, Any], meaning: Mapping[str, str], kind: str = "png"
) -> Iterator[tuple[str, bytes]]:
    """The figures of a finished run by name: test accuracies, then one per group of the method's diagnostics.

    `results` is the content of final_results.pkl, `meaning` each group's description and unit.
    """
    r, scenario = np.array(results["test"]["accuracy_matrix"], dtype=float), results["config"]["scenario"]
    method = results["config"]["method"]["name"]
    title = f"{method} on {scenario['dataset']['name']} ({scenario['type']}, seed {results['seed']})"
    yield "accuracy_matrix", accuracy_matrix(r, title, kind)
    tasks = range(len(r))
    lines = {f"task {j}": [(i, r[i, j]) for i in tasks[j:]] for j in tasks}  # from the time it was learned
    mean = {"mean of tasks seen": [(i, r[i, : i + 1].mean()) for i in tasks]}
    yield "accuracy_over_tasks", over_tasks(lines, title, "test accuracy", mean=mean, kind=kind)
    if inside := list(chain(*results["test"].get("anytime", ()))):  # measured inside of tasks
        lines = {f"task {j}": [(e["step"], e["accuracy"][j]) for e in inside if j < len(e["accuracy"])] for j in tasks}
        mean = {"mean of tasks seen": [(e["step"], float(np.mean(e["accuracy"]))) for e in inside]}
        lines = {name: points for name, points in lines.items() if points}
        yield "accuracy_over_steps", over_tasks(lines, title, "test accuracy", mean=mean, kind=kind, x_label=STEPS)
    groups: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    for task, numbers in enumerate(results["diagnostics"]):
        for name, value in numbers.items():
            group, _, series = name.partition("/")
            groups[group][series or group].append((task, value))
    for group, lines in groups.items():
        draw = over_tasks if len(lines) <= MAX_LINES else heat_map
        yield group, draw(lines, title, meaning.get(group, group), kind=kind)


def accuracy_matrix(r: np.ndarray, title: str, kind: str = "png") -> bytes:
    """Heat map of the accuracy matrix r (T, T), in [0, 1]; nan, which was not measured, is left blank."""
    size = 1.6 + 0.55 * min(len(r), MAX_NUMBERED)
    figure = new_figure(size + 0.9, size)
    axes = figure.add_subplot()
    draw_matrix(axes, r)
    axes.set(xlabel="tested on task", ylabel="trained up to task", title=title)
    figure.colorbar(axes.images[0], ax=axes, label="accuracy", shrink=0.8)
    return _encoded(figure, kind)


def over_tasks(
    series: Series,
    title: str,
    meaning: str,
    mean: Series | None = None,
    kind: str = "png",
    x_label: str = "after task",
) -> bytes:
    """Lines over the number of tasks learned, or over steps, and one of their mean."""
    from matplotlib import colormaps

    columns = -(-len(series) // MAX_NAMED)
    figure = new_figure(5.2 + 0.8 * columns, 3.6)
    axes = figure.add_subplot()
    for index, (name, points) in enumerate(series.items()):
        colour = colormaps["viridis"](index / len(series)) if columns > 1 else f"C{index}"
        style: dict[str, Any] = {
            "color": colour,
            "marker": "o",
            "markersize": 3.5 if len(points) <= MANY else 0,
            "linewidth": 1.2,
        }
        axes.plot(*zip(*points, strict=True), label=name, **style)
    for name, points in (mean or {}).items():
        axes.plot(*zip(*points, strict=True), label=name, color="black", linewidth=2.2, linestyle="--")
    axes.set(xlabel=x_label, ylabel=fill(meaning, 36), title=title)
    if "accuracy" in meaning:
        axes.set_ylim(accuracy_limits(*axes.get_ylim()))
    if "(number)" in meaning:
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        axes.locator_params(axis="y", integer=True)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=columns)
    return _encoded(figure, kind)


def heat_map(series: Series, title: str, meaning: str, kind: str = "png") -> bytes:
    """A row per series, a column per task, for values of more series than lines could show."""
    figure = new_figure(2.6 + 0.45 * min(max(map(len, series.values())), MAX_NUMBERED), 1.4 + 0.2 * len(series))
    axes = figure.add_subplot()
    draw_heat(axes, series)
    axes.set(xlabel="after task", title=title)
    figure.colorbar(axes.images[0], ax=axes, label=fill(meaning, 36))
    return _encoded(figure, kind)


def draw_heat(axes: "Axes", series: Series) -> None:
    """As `heat_map`, into axes; what was not measured is left blank."""
    tasks = sorted({task for points in series.values() for task, _ in points})
    values = np.full((len(series), tasks[-1] + 1), np.nan)
    for row, points in enumerate(series.values()):
        for task, value in points:
            values[row, task] = value
    axes.imshow(values, aspect="auto", cmap="cividis", interpolation="none")
    axes.set_yticks(range(len(series)), [short(name) for name in series], fontsize=8, parse_math=False)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(tasks[0] - 0.5, tasks[-1] + 0.5)


def accuracy_limits(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis of accuracies: MIN_SPAN apart at least, and hardly above 1 or below 0."""
    gap = max(0.0, MIN_SPAN - (high - low)) / 2
    low, high = low - gap, high + gap
    margin = 0.02 * (high - low)  # for markers at 0 and 1
    top = min(high, 1 + margin)
    bottom = max(min(low, top - MIN_SPAN), -margin)
    return bottom, max(top, bottom + MIN_SPAN)


def short(name: str, length: int = 24) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def image_grid(grid: ImageGrid, kind: str = "png") -> bytes:
    """Rows of images with their labels."""
    columns, rows = max(len(images) for _, images in grid.rows), []
    for _, images in grid.rows:  # in frames of one white pixel; rows are filled up with white images
        pixels = images.cpu().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()  # (N, H, W, 3)
        framed = np.pad(pixels, ((0, columns - len(pixels)), (1, 1), (1, 1), (0, 0)), constant_values=1)
        rows.append(np.concatenate(list(framed), axis=1))
    figure = new_figure(1.6 + 0.5 * columns, 0.6 + 0.5 * len(rows))
    axes = figure.add_subplot()
    axes.imshow(np.concatenate(rows), interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * len(rows[0]), [label for label, _ in grid.rows], fontsize=8)
    axes.set_title(grid.title, fontsize=10)
    axes.set(xticks=[], frame_on=False)
    axes.tick_params(length=0)
    return _encoded(figure, kind)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_matrix(axes: "Axes", r: np.ndarray, fontsize: float = 8, zeros: bool = True) -> None:
    """Heat map of a matrix r (T, T) in [0, 1], nan left blank; with numbers if there are few, `zeros`: 0.00 too."""
    axes.imshow(r, vmin=0, vmax=1, cmap="cividis", interpolation="none")
    if len(r) <= MAX_NUMBERED:
        for (i, j), value in np.ndenumerate(r):
            if np.isnan(value) or (not zeros and value < 0.005):
                continue
            colour = "#111111" if value > 0.55 else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=fontsize)
        axes.set(xticks=range(len(r)), yticks=range(len(r)))
    else:
        axes.locator_params(integer=True)


def _encoded(figure: "Figure", kind: str) -> bytes:
    """The content of a file without a date, so that the same figure has the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}):  # fonts that journals accept
        figure.savefig(buffer, format=kind, dpi=150, metadata=undated)
    return buffer.getvalue()
