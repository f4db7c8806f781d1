"""Figures of one run, as PNG bytes, and the drawings that the report shares.

Only `Figure` objects, no pyplot: nothing here changes matplotlib's global state or touches a file. matplotlib is
imported by the first figure, because the import is slow and many runs draw none.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from methods import ImageGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Name of a line -> its points (task, value)."""
MAX_NUMBERED = 12
"""Tasks up to which an accuracy matrix shows its values as numbers; beyond, the figure does not grow either."""
MAX_NAMED = 16
"""Lines up to which each has a legend entry; beyond, only the first and the last, and colours give the order."""


def of_results(results: Mapping[str, Any], meaning: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The figures of a finished run by name: test accuracies, then one per group of the method's diagnostics.

    Args:
        results: the content of final_results.pkl.
        meaning: group of diagnostics -> its description and unit.
    """
    r, config = np.array(results["test"]["accuracy_matrix"]), results["config"]
    problem = f"{config['scenario']['dataset']['name']} ({config['scenario']['type']}, seed {results['seed']})"
    title = f"{config['method']['name']} on {problem}"
    yield "accuracy_matrix", accuracy_matrix(r, title)
    yield "accuracy_over_tasks", accuracy_over_tasks(r, title)
    groups: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for task, numbers in enumerate(results["diagnostics"]):
        for name, value in numbers.items():
            group, _, series = name.partition("/")
            groups[group][series or group].append((task, value))
    for group, series in groups.items():
        yield group, over_tasks(series, title, meaning.get(group, group))


def accuracy_matrix(r: np.ndarray, title: str) -> bytes:
    """Heat map of the accuracy matrix r (T, T), in [0, 1]."""
    size = 1.6 + 0.55 * min(len(r), MAX_NUMBERED)
    figure = new_figure(size + 0.9, size)
    axes = figure.add_subplot()
    image = draw_matrix(axes, r)
    axes.set(xlabel="tested on task", ylabel="trained up to task", title=title)
    figure.colorbar(image, ax=axes, label="accuracy", shrink=0.8)
    return _png(figure)


def accuracy_over_tasks(r: np.ndarray, title: str) -> bytes:
    """Accuracy on each task from the time it was learned, and the mean over the tasks seen, from r (T, T)."""
    tasks = range(len(r))
    lines = {f"task {j}": [(i, r[i, j]) for i in tasks if i >= j] for j in tasks}
    mean = [(i, r[i, : i + 1].mean()) for i in tasks]
    return over_tasks({**lines, "mean of tasks seen": mean}, title, "test accuracy", emphasised="mean of tasks seen")


def over_tasks(series: Series, title: str, meaning: str, emphasised: str = "", scale: str = "linear") -> bytes:
    """Lines over the number of tasks learned; `scale` of the values is linear or log."""
    from matplotlib import colormaps

    figure = new_figure(6, 3.6)
    axes = figure.add_subplot()
    usual = [name for name in series if name != emphasised]
    named = series if len(usual) <= MAX_NAMED else {usual[0], usual[-1], emphasised}
    for index, (name, points) in enumerate(series.items()):
        style = {"color": f"C{index}", "linewidth": 1.2}
        if named is not series:
            style = {"color": colormaps["viridis"](index / len(series)), "linewidth": 0.8}
        if name == emphasised:
            style = {"color": "black", "linewidth": 2.2, "linestyle": "--"}
        axes.plot(
            *zip(*points, strict=True), marker="o", markersize=3.5, label=name if name in named else None, **style
        )
    label_axes(axes, "after task", meaning, scale)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _png(figure)


def image_grid(grid: ImageGrid) -> bytes:
    """Rows of images with their labels."""
    columns = max(len(images) for _, images in grid.rows)
    height, width = grid.rows[0][1].shape[-2:]
    cell_height, cell_width = height + 2, width + 2  # white lines between the images
    canvas = np.ones((len(grid.rows) * cell_height, columns * cell_width, 3))
    for i, (_, images) in enumerate(grid.rows):
        for j, image in enumerate(images.cpu().permute(0, 2, 3, 1).numpy()):
            top, left = i * cell_height, j * cell_width
            canvas[top : top + height, left : left + width] = image  # (H, W, 1) is broadcast to three channels
    figure = new_figure(1.6 + 0.5 * columns, 0.6 + 0.5 * len(grid.rows))
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks(np.arange(len(grid.rows)) * cell_height + height / 2, [label for label, _ in grid.rows], fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(grid.title, fontsize=10)
    return _png(figure)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_matrix(axes: "Axes", r: np.ndarray, fontsize: float = 8) -> "AxesImage":
    """Heat map of the accuracy matrix r (T, T), in [0, 1], with a number in each cell if there are few."""
    image = axes.imshow(r, vmin=0, vmax=1, cmap="cividis", interpolation="none")
    if len(r) <= MAX_NUMBERED:
        for (i, j), value in np.ndenumerate(r):
            colour = "#111111" if value > 0.55 else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=fontsize)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return image


def label_axes(axes: "Axes", x_label: str, y_label: str, scale: str = "linear") -> None:
    """Label and scale the axes of lines over tasks or epochs: whole numbers on x."""
    axes.set(xlabel=x_label, ylabel=fill(y_label, 36), yscale=scale)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
