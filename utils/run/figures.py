"""Figures of one run, as PNG bytes. Nothing here touches files or global state of matplotlib.

matplotlib is imported by the first figure: it is slow, and many runs draw none.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from methods import ImageGrid

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Name of a line -> its points (task, value)."""
MOST_NUMBERED = 12
"""Tasks of an accuracy matrix with a number in each cell; of more, the figure grows no further."""
MOST_NAMED = 16
"""Lines with a name each; of more, only the first and the last have one, and colours say the order."""


def of_results(results: Mapping[str, Any], meaning: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The figures of a finished run's results, by name: accuracies, then each group of the method's diagnostics.

    Args:
        results: what final_results.pkl holds.
        meaning: group of diagnostics -> what it is, with its unit.
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
    """Heat map of the accuracy matrix r (T, T), in [0, 1], with the value in each cell."""
    size = 1.6 + 0.55 * min(len(r), MOST_NUMBERED)
    figure = _figure(size + 0.9, size)
    axes = figure.add_subplot()
    image = axes.imshow(r, vmin=0, vmax=1, cmap="cividis")
    if len(r) <= MOST_NUMBERED:
        for (i, j), value in np.ndenumerate(r):
            axes.text(
                j, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.55 else "white", size=8
            )
    axes.set(xlabel="tested on task", ylabel="trained up to task", title=title)
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)
    figure.colorbar(image, ax=axes, label="accuracy", shrink=0.8)
    return _png(figure)


def accuracy_over_tasks(r: np.ndarray, title: str) -> bytes:
    """For each task its accuracy from when it was learnt on, and the mean over the tasks seen, of r (T, T)."""
    tasks = range(len(r))
    lines = {f"task {j}": [(i, r[i, j]) for i in tasks if i >= j] for j in tasks}
    mean = [(i, r[i, : i + 1].mean()) for i in tasks]
    return over_tasks({**lines, "mean of tasks seen": mean}, title, "test accuracy", emphasised="mean of tasks seen")


def over_tasks(series: Series, title: str, meaning: str, emphasised: str = "", scale: str = "linear") -> bytes:
    """Lines over the number of tasks learnt; the values' scale is linear or log."""
    from matplotlib import colormaps

    figure = _figure(6, 3.6)
    axes = figure.add_subplot()
    usual = [name for name in series if name != emphasised]
    named = series if len(usual) <= MOST_NAMED else {usual[0], usual[-1], emphasised}
    for index, (name, points) in enumerate(series.items()):
        x, y = zip(*points, strict=True)
        style = {"color": f"C{index}", "linewidth": 1.2}
        if named is not series:
            style = {"color": colormaps["viridis"](index / len(series)), "linewidth": 0.8}
        if name == emphasised:
            style = {"color": "black", "linewidth": 2.2, "linestyle": "--"}
        axes.plot(x, y, marker="o", markersize=3.5, label=name if name in named else None, **style)
    axes.set(xlabel="after task", ylabel=fill(meaning, 36), title=title, yscale=scale)
    _whole_numbers(axes.xaxis)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _png(figure)


def image_grid(grid: ImageGrid) -> bytes:
    """Rows of images with their labels."""
    columns = max(len(images) for _, images in grid.rows)
    _, channels, height, width = grid.rows[0][1].shape
    gap = 2
    canvas = np.ones((len(grid.rows) * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for i, (_, images) in enumerate(grid.rows):
        pixels = images.cpu().permute(0, 2, 3, 1).expand(-1, -1, -1, 3 if channels == 1 else channels).numpy()
        for j, image in enumerate(pixels):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = image
    figure = _figure(1.6 + 0.5 * columns, 0.6 + 0.5 * len(grid.rows))
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    centres = [i * (height + gap) + height / 2 for i in range(len(grid.rows))]
    axes.set_yticks(centres, [label for label, _ in grid.rows], fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(grid.title, fontsize=10)
    return _png(figure)


def _figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _whole_numbers(axis: "Axis") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
