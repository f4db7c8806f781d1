"""The figures of a group of finished runs, as elements of the page.

Runs, axes and text are drawn in placeholder colours, which `as_svg` replaces by `currentColor` and the page's CSS
variables, so that a figure is legible on light and dark. Draw inside `rc_context(STYLE)`.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from methods import find
from utils.report import cost
from utils.report.find import Results, total_confusion
from utils.report.groups import REFERENCES, Group
from utils.report.svg import COLOURS, INK, REFERENCE, as_svg
from utils.run.figures import (
    MAX_LINES,
    MAX_NUMBERED,
    MIN_SPAN,
    STEPS,
    accuracy_limits,
    draw_heat,
    draw_matrix,
    new_figure,
    short,
)
from utils.store.folder import RunFolder

DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = {"o": "●", "s": "■", "D": "◆", "v": "▼", "^": "▲"}  # matplotlib's marker -> the same as a character
MAX_FEW = 8  # runs up to which bands are dark
BANDS = "Mean over seeds; bars and bands: lowest to highest."
MAX_SAMPLES = 12  # runs whose generated samples and confusion matrices are shown

Look = dict[str, Any]  # matplotlib's label, color, linestyle and marker of a run, and its gid, which the page uses
Values = Mapping[Any, Sequence[Any]]  # x -> the values there, over seeds and series


class Figure(NamedTuple):
    """A drawing, as an `<svg>` or `<img>` element, with its caption."""

    title: str
    caption: str
    html: str


def looks(group: Group) -> list[Look]:
    """How each run is drawn in every figure; no two of 40 look alike. A single run of naive or joint is grey."""
    methods, markers, found = [run.method for run in group.runs], [*MARKERS], list[Look]()
    for i, (name, method) in enumerate(zip(group.names, methods, strict=True)):
        look = {"color": COLOURS[i % 8], "linestyle": DASHES[i // 8 % 4], "marker": markers[i % 5]}
        if method in REFERENCES and methods.count(method) == 1:
            rank = REFERENCES.index(method)
            look = {"color": REFERENCE, "linestyle": DASHES[1 + rank], "marker": markers[rank]}
        found.append(look | {"label": name, "gid": f"run r{i}"})
    return found


def scores(group: Group, looks: Sequence[Look]) -> list[Figure]:
    """Accuracy over tasks, and final accuracy against memory with its Pareto front, time and forgetting."""
    drawn = [(look, run.score) for look, run in zip(looks, group.runs, strict=True)]
    seen = [(look, {i: [np.mean(r[i][: i + 1]) for r in s.matrices] for i in range(s.tasks)}) for look, s in drawn]
    figures = [_chart(seen, "after task", "accuracy on tasks seen", "Accuracy over tasks", f"On test data. {BANDS}")]
    held = "bytes held between tasks"
    against: dict[str, list[float | None]] = {
        held: [score.memory for _, score in drawn],
        "seconds per seed": [score.seconds["mean"] for _, score in drawn],
        "Forgetting": [score.forgetting["mean"] for _, score in drawn],
    }
    for x_label, xs in against.items():
        if None not in xs:  # Forgetting of a single task is undefined
            points = [(look, {x: score.finals}) for x, (look, score) in zip(xs, drawn, strict=True)]
            title, caption = f"FinalAccuracy against {x_label}", f"Upper left is better. {BANDS}"
            rings = [bool(score.stored) for _, score in drawn] if x_label == held else None
            caption += " Ringed: stores real samples. Dotted: the best at no more bytes." if rings else ""
            figures.append(_chart(points, x_label, "FinalAccuracy", title, caption, rings))
    return figures


def matrices(group: Group) -> list[Figure]:
    """The mean accuracy matrix of each run."""
    figures = []
    for name, run in zip(group.names, group.runs, strict=True):
        r, drawing = np.mean(run.score.matrices, axis=0), new_figure(2.5, 2.4)
        draw_matrix(drawing.add_subplot(), r, fontsize=min(9.0, 50 / len(r)))
        alt = f"Accuracy matrix of {name}; after the last task: {', '.join(f'{value:.2f}' for value in r[-1])}"
        figures.append(Figure(name, "", as_svg(drawing, alt)))
    return figures


def confusions(group: Group, results: Sequence[Sequence[Results]]) -> list[Figure]:
    """The confusion matrices of the first runs whose results are there, as shares of each true class."""
    figures = list[Figure]()
    for name, seeds in zip(group.names, results, strict=True):
        counts, classes = total_confusion(seeds)
        if not counts.size or len(figures) == MAX_SAMPLES:
            continue
        drawing = new_figure(2.7, 2.6)
        axes = drawing.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        draw_matrix(axes, shares, fontsize=min(8.0, 56 / len(counts)), zeros=False)
        axes.set(xlabel="predicted", ylabel="true")
        if len(classes) <= MAX_NUMBERED:
            labels, style = [short(label, 10) for label in classes], dict[str, Any](fontsize=8, parse_math=False)
            axes.set_xticks(range(len(classes)), labels, rotation=90 if max(map(len, labels)) > 2 else 0, **style)
            axes.set_yticks(range(len(classes)), labels, **style)
        hits = counts.trace() / max(counts.sum(), 1)
        figures.append(Figure(name, "", as_svg(drawing, f"Confusion matrix of {name}; {hits:.4f} are right")))
    return figures


def measured(group: Group, looks: Sequence[Look], results: Sequence[Sequence[Results]]) -> list[Figure]:
    """What each run's seeds measured per epoch, per task (the methods' diagnostics) and every so many steps."""
    epochs, tasks, seen = "epoch, over all tasks", "after task", "accuracy on tasks seen"
    captions = {(tasks, name): d.meaning for run in group.runs for name, d in find(run.method)[0].diagnosed.items()}
    captions[epochs, "loss"] = "Mean over the steps of each epoch, penalties included"
    captions[STEPS, seen] = "On test data, measured inside tasks (train.evaluate_every)"
    captions[epochs, "accuracy"] = "On the current task after each epoch (dev data if there is any, else train data)"
    lines: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))  # (x, y) -> index of run -> Values
    for i, seeds in enumerate(results):
        for seed in seeds:
            for x, epoch in enumerate(chain(*seed.epochs), 1):
                for measure in ("loss", "accuracy"):
                    if measure in epoch:
                        lines[epochs, measure][i][x].append(epoch[measure])
            for inside in chain(*seed.anytime):
                lines[STEPS, seen][i][inside.step].append(np.mean(inside.accuracy))
            for task, numbers in enumerate(seed.diagnostics):
                for name, value in numbers.items():
                    if np.isfinite(value):
                        lines[tasks, name.partition("/")[0]][i][task].append(value)
    figures = []
    for (x_label, name), of_runs in lines.items():
        label, drawn = name.replace("_", " "), [(looks[i], values) for i, values in of_runs.items()]
        meaning = captions.get((x_label, name), label)
        meaning = meaning[0].upper() + meaning[1:]
        if x_label == tasks and len(drawn) > MAX_LINES:
            figures.append(_heat(drawn, label, f"{meaning}. Mean over seeds."))
        else:
            figures.append(_chart(drawn, x_label, label, label.capitalize(), f"{meaning}. {BANDS}"))
    return figures


def samples(group: Group) -> tuple[list[Figure], list[str]]:
    """What the first seed of each run generated at the end, for the first runs that drew it; notes on damaged files."""
    figures, notes = list[Figure](), list[str]()
    for name, run in zip(group.names, group.runs, strict=True):
        seed = run.score.seeds[0]
        path = RunFolder(run.folder, seed).plot(f"samples_task_{run.score.tasks - 1}")
        if path.exists() and len(figures) < MAX_SAMPLES:
            try:
                content = path.read_bytes()
                Image.open(io.BytesIO(content)).load()
            except OSError as error:  # Pillow's for damaged images too
                notes.append(f"{path} is damaged ({error}); left out of the generated samples")
                continue
            alt = f"Samples generated by {name}, seed {seed}, after the last task; one row per class"
            uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            figures.append(Figure(name, f"{alt}.", f'<img src="{uri}" alt="{escape(alt)}">'))
    return figures, notes


def _heat(lines: Sequence[tuple[Look, Values]], label: str, caption: str) -> Figure:
    """A row per run, a column per task: for diagnostics of more runs than lines could show."""
    means = {look["label"]: [(x, float(np.mean(values[x]))) for x in sorted(values)] for look, values in lines}
    drawing = new_figure(6, 1 + 0.28 * len(lines))
    axes = drawing.add_subplot()
    draw_heat(axes, means)
    axes.set(xlabel="after task")
    drawing.colorbar(axes.images[0], ax=axes, label=label)
    alt = "; ".join(f"{name} {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in means.items())
    return Figure(label.capitalize(), caption, as_svg(drawing, f"{label}, after the first and the last task: {alt}"))


def _chart(
    lines: Sequence[tuple[Look, Values]],
    x_label: str,
    y_label: str,
    title: str,
    caption: str,
    rings: Sequence[bool] | None = None,
) -> Figure:
    """The mean of each line's values, with their range as a band; if each has one x, as points with bars.

    With `rings`, which of the points get one, their Pareto front is drawn too.
    """
    from matplotlib.ticker import EngFormatter

    drawing, points = new_figure(6, 3.8), all(len(values) == 1 for _, values in lines)
    axes = drawing.add_subplot()
    axes.grid()
    every_x, lowest, alt = list[float](), list[float](), list[str]()
    for look, values in lines:
        x = sorted(values)
        y, low, high = ([float(f(values[i])) for i in x] for f in (np.mean, np.min, np.max))
        axes.plot(x, y, markersize=7 if points else 5 if len(x) <= 20 else 0, linewidth=1.6, **look)
        band = {"color": look["color"], "gid": look["gid"]}
        if points:
            axes.vlines(x, low, high, linewidth=1.2, **band)
        else:
            axes.fill_between(x, low, high, linewidth=0, alpha=0.12 if len(lines) <= MAX_FEW else 0.04, **band)
        every_x, lowest = every_x + x, lowest + low
        alt.append(f"{look['label']} {y[0]:.4g} to {y[-1]:.4g}")
    if rings is not None:
        cost.draw(axes, [(x, float(np.mean(values[x]))) for _, values in lines for x in values], rings, INK)
    accuracy = "accuracy" in y_label.lower()
    axes.set(xlabel=x_label, ylabel=y_label, yscale="linear" if accuracy else cost.scale(lowest))
    if accuracy:
        axes.set_ylim(accuracy_limits(*axes.get_ylim()))
    if points:
        cost.set_xscale(axes, every_x)
        if x_label == "Forgetting":
            left, right = axes.get_xlim()
            gap = max(0.0, MIN_SPAN - (right - left)) / 2
            axes.set_xlim(left - gap, right + gap)
        if axes.get_xscale() == "linear" and max(every_x) >= 1000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 30M instead of 3.0 and 1e7 in the corner
    else:
        axes.locator_params(axis="x", integer=True)
    return Figure(title, caption, as_svg(drawing, f"{title}, by {x_label}, first to last: {'; '.join(alt)}"))
