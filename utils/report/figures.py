"""The figures of a comparison: what is drawn of a group of finished runs, and what each figure says in words."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from methods import find
from utils.report import charts
from utils.report.charts import Line, Look, Point
from utils.report.find import FinishedRun, Summary
from utils.report.groups import REFERENCES, Group
from utils.store.folder import RunFolder

MOST_IN_ALT = 8
"""Runs that a figure's alternative text tells; the tables have them all."""
MOST_PICTURES, MOST_PICTURE_BYTES = 12, 2_500_000
"""Of made-up samples, embedded in a page."""
WIDE = 100
"""Positive values further apart than this are drawn on a logarithmic scale."""

Results = list[list[dict[str, Any]]]
"""For each run of a group the final results of its seeds."""


class Figure(NamedTuple):
    """A drawing with its caption."""

    title: str
    caption: str
    svg: str


class Picture(NamedTuple):
    """A PNG file of a run, embedded."""

    name: str
    alt: str
    uri: str
    width: int
    height: int


def looks(group: Group) -> list[Look]:
    """How each run looks in all figures of the group: the only run of naive, or of joint, is grey."""
    methods = [run.method for run in group.runs]
    grey = [name in REFERENCES and methods.count(name) == 1 for name in methods]
    return [
        charts.look_of_reference(i, methods[i]) if grey[i] else charts.look(i, rank=i - sum(grey[:i]))
        for i in range(len(methods))
    ]


def scores(group: Group) -> list[Figure]:
    """What is known of every finished run: accuracy over tasks, forgetting, accuracy against memory and time."""
    points = list(zip(group.names, looks(group), group.runs, strict=True))
    curves = [_accuracy_curve(name, look, run) for name, look, run in points]
    figures = [
        Figure(
            "Accuracy over tasks",
            "Mean test accuracy on the tasks seen so far; bands: ± one standard deviation over seeds.",
            charts.lines(curves, "after task", "accuracy on tasks seen", _alt("Accuracy after each task", curves)),
        )
    ]
    for title, label, values in (
        ("Accuracy against memory", "numbers held between tasks", [r.score.memory.method_floats for r in group.runs]),
        ("Accuracy against time", "seconds a seed", [r.score.time.total_s.mean or 0.0 for r in group.runs]),
    ):
        placed = [
            _point(name, look, x, run.score.test.FinalAccuracy)
            for (name, look, run), x in zip(points, values, strict=True)
        ]
        told = _told([f"{p.name} {p.y:.4f} at {charts.short(p.x)}" for p in placed])
        scale = "linear" if max(values) < WIDE * min(values) else "count"
        svg = charts.scatter(placed, label, "FinalAccuracy", f"Scatter plot. {title}: {told}", scale)
        figures.append(
            Figure(title, "FinalAccuracy, mean ± one standard deviation. Up and to the left is better.", svg)
        )
    spreads = [(name, look, run.score.test.Forgetting) for name, look, run in points]
    forgetting = [_point(name, look, 0.0, value) for name, look, value in spreads if value.mean is not None]
    if forgetting:
        told = _told([f"{point.name} {point.y:.4f}" for point in forgetting])
        figures.append(
            Figure(
                "Forgetting",
                "Best accuracy on a task so far, minus the last, mean over tasks; whiskers: ± one standard deviation.",
                charts.bars(forgetting, "forgetting (less is better)", f"Bar chart. Forgetting: {told}"),
            )
        )
    return figures


def matrices(group: Group) -> list[Figure]:
    """The mean accuracy matrix of each run."""
    figures = []
    for name, run in zip(group.names, group.runs, strict=True):
        r = np.array(run.score.test.accuracy_matrix.mean)
        last = ", ".join(f"{value:.2f}" for value in r[-1])
        alt = f"Heat map of {name}'s accuracy matrix. After the last task, by task: {last}"
        figures.append(Figure(name, "", charts.heat_map(r, alt)))
    return figures


def learning(group: Group, results: Results) -> list[Figure]:
    """Loss and accuracy of each epoch, the tasks one after the other."""
    figures = []
    for key, title, caption in (
        ("loss", "Loss", "Mean loss of an epoch's steps, penalties included; mean over seeds."),
        ("accuracy", "Accuracy on the task at hand", "After each epoch, on dev data, else on training data."),
    ):
        curves = []
        for name, look, seeds in zip(group.names, looks(group), results, strict=True):
            histories = [[epoch[key] for task in seed["epochs"] for epoch in task] for seed in seeds]
            length = min(map(len, histories), default=0)
            if length:
                y = np.mean([history[:length] for history in histories], axis=0).tolist()
                curves.append(Line(name, look, range(1, length + 1), y))
        if curves:
            scale = _scale([value for curve in curves for value in curve.y])
            alt = _alt(f"{title} by epoch", curves)
            svg = charts.lines(curves, "epoch, over all tasks", key, alt, scale, marks=False)
            figures.append(Figure(title, caption, svg))
    return figures


def health(group: Group, results: Results) -> list[Figure]:
    """What methods said of themselves after each task: for PRER, the health of its flow. A figure a quantity."""
    curves: dict[str, list[Line]] = defaultdict(list)
    meaning: dict[str, str] = {}
    for name, look, run, seeds in zip(group.names, looks(group), group.runs, results, strict=True):
        meaning |= {name: d.meaning for name, d in find(run.method)[0].diagnosed.items()}
        for quantity, by_task in _diagnostics(seeds).items():
            tasks, values = list(by_task), list(by_task.values())
            low, mean, high = ([float(f(v)) for v in values] for f in (np.min, np.mean, np.max))
            curves[quantity].append(Line(name, look, tasks, mean, low, high))
    figures = []
    for quantity, drawn in curves.items():
        scale = _scale([value for line in drawn for edge in (line.low, line.high) for value in edge])
        said = meaning.get(quantity, quantity.replace("_", " "))
        title = f"{said[0].upper()}{said[1:]}"
        svg = charts.lines(drawn, "after task", quantity.replace("_", " "), _alt(title, drawn), scale)
        figures.append(Figure(title, "Mean over seeds and classes or tasks; bands: the lowest and the highest.", svg))
    return figures


def _diagnostics(seeds: Sequence[dict[str, Any]]) -> dict[str, dict[int, list[float]]]:
    """Quantity -> task -> its values, one for each class or task that it is measured of, mean over seeds."""
    collected: dict[str, dict[int, dict[str, list[float]]]] = {}
    for seed in seeds:
        for task, numbers in enumerate(seed["diagnostics"]):
            for name, value in numbers.items():
                if np.isfinite(value):
                    by_task = collected.setdefault(name.partition("/")[0], {})
                    by_task.setdefault(task, {}).setdefault(name, []).append(value)
    return {
        quantity: {task: [float(np.mean(v)) for v in series.values()] for task, series in sorted(by_task.items())}
        for quantity, by_task in collected.items()
    }


def pictures(group: Group) -> tuple[list[Picture], list[str]]:
    """Samples made up after the last task by the first seed of each run that drew them; a line about those left out."""
    found, notes, room = [], [], MOST_PICTURE_BYTES
    for name, run in zip(group.names, group.runs, strict=True):
        last = len(run.score.test.accuracy_matrix.mean) - 1
        path = RunFolder(run.folder, run.score.seeds[0]).plot(f"samples_task_{last}")
        if not path.exists():
            continue
        picture = _picture(path, name, run.score.seeds[0])
        if picture is None:
            notes.append(f"{path} is not a whole PNG file; it is not in the report")
        elif len(picture.uri) > room or len(found) == MOST_PICTURES:
            notes.append(f"{path} is not in the report: it has room for {MOST_PICTURES} pictures, 2.5 MB together")
        else:
            found.append(picture)
            room -= len(picture.uri)
    return found, notes


def _picture(path: Path, name: str, seed: int) -> Picture | None:
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in content[-12:]):
        return None
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    alt = f"Images that {name}, seed {seed}, made up after the last task, a row a class"
    return Picture(name, alt, f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)


def _accuracy_curve(name: str, look: Look, run: FinishedRun) -> Line:
    values = np.array(run.score.test.accuracy_matrix.values)  # (S, T, T)
    seen = np.array([[r[i, : i + 1].mean() for i in range(len(r))] for r in values])  # (S, T)
    mean, std = seen.mean(axis=0), seen.std(axis=0, ddof=1) if len(seen) > 1 else np.zeros(seen.shape[1])
    return Line(name, look, range(seen.shape[1]), mean.tolist(), (mean - std).tolist(), (mean + std).tolist())


def _point(name: str, look: Look, x: float, value: Summary) -> Point:
    return Point(name, look, x, value.mean, value.std or 0.0)


def _scale(values: Sequence[float]) -> charts.Scale:
    return "log" if min(values) > 0 and max(values) > WIDE * min(values) else "linear"


def _alt(what: str, curves: Sequence[Line]) -> str:
    return f"Line chart. {what}, first to last: {_told([f'{c.name} {c.y[0]:.3g} to {c.y[-1]:.3g}' for c in curves])}"


def _told(parts: Sequence[str]) -> str:
    more = f"; and {len(parts) - MOST_IN_ALT} more" if len(parts) > MOST_IN_ALT else ""
    return "; ".join(parts[:MOST_IN_ALT]) + more
