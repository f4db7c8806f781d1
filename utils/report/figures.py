"""The figures of a group of finished runs, each with a caption and an alternative text."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from methods import find
from utils.report import drawing
from utils.report.drawing import Curve, Look
from utils.report.groups import REFERENCES, Group
from utils.store.folder import RunFolder

MAX_SAMPLES = 12
"""Runs whose generated samples are shown."""

Results = list[list[dict[str, Any]]]
"""For each run of a group the final results of its seeds."""


class Figure(NamedTuple):
    """A drawing, as an `<svg>` or `<img>` element, with its caption."""

    title: str
    caption: str
    html: str


def looks(group: Group) -> list[Look]:
    """The look of each run in all figures of the group; a single run of naive or joint is grey."""
    methods = [run.method for run in group.runs]
    grey = [method in REFERENCES and methods.count(method) == 1 for method in methods]
    return [drawing.look(name, i, -1 if grey[i] else i - sum(grey[:i])) for i, name in enumerate(group.names)]


def scores(group: Group, looks: Sequence[Look]) -> list[Figure]:
    """Accuracy over tasks, and final accuracy against memory, time and forgetting."""
    curves = []
    for look, run in zip(looks, group.runs, strict=True):
        r = np.array(run.test.accuracy_matrix.values)  # (S, T, T)
        tasks = np.arange(r.shape[1])
        seen = np.stack([r[:, i, : i + 1].mean(axis=1) for i in tasks], axis=1)  # (S, T)
        mean, std = seen.mean(axis=0), seen.std(axis=0, ddof=1) if len(seen) > 1 else np.zeros(len(tasks))
        curves.append(Curve(look, tasks, mean, mean - std, mean + std))
    title, y_label = "Accuracy over tasks", "accuracy on tasks seen"
    caption = "Mean test accuracy on the tasks seen so far, ± one standard deviation."
    figures = [Figure(title, caption, drawing.chart(curves, "after task", y_label, title))]
    memory = [run.score.memory["method_floats"] for run in group.runs]
    seconds = [run.score.time["total_s"].mean for run in group.runs]
    forgetting = [run.test.Forgetting.mean for run in group.runs]
    caption = "Mean ± one standard deviation. Upper left is better."
    for x_label, values in (
        ("numbers stored between tasks", memory),
        ("seconds per seed", seconds),
        ("Forgetting", forgetting),
    ):
        if None not in values:  # Forgetting of a single task is undefined
            finals = [(run.final, run.test.FinalAccuracy.std or 0.0) for run in group.runs]
            edges = [np.array([[x], [y], [y - s], [y + s]]) for x, (y, s) in zip(values, finals, strict=True)]
            points = [Curve(look, *edge) for look, edge in zip(looks, edges, strict=True)]
            title = f"FinalAccuracy against {x_label}"
            figures.append(Figure(title, caption, drawing.chart(points, x_label, "FinalAccuracy", title)))
    return figures


def matrices(group: Group) -> list[Figure]:
    """The mean accuracy matrix of each run."""
    figures = []
    for name, run in zip(group.names, group.runs, strict=True):
        r = np.array(run.test.accuracy_matrix.mean)
        alt = f"Accuracy matrix of {name}; after the last task: {', '.join(f'{value:.2f}' for value in r[-1])}"
        figures.append(Figure(name, "", drawing.matrix(r, alt)))
    return figures


def learning(looks: Sequence[Look], results: Results) -> list[Figure]:
    """Loss and accuracy per epoch, the tasks one after the other."""
    figures = []
    captions = {
        "loss": "Mean over the steps of each epoch, penalties included, and over seeds.",
        "accuracy": "On the current task after each epoch: on dev data if there is any, else on train data.",
    }
    for key, caption in captions.items():
        curves = []
        for look, seeds in zip(looks, results, strict=True):
            histories = [[epoch[key] for task in seed["epochs"] for epoch in task] for seed in seeds]
            if length := min(map(len, histories), default=0):
                y = np.mean([history[:length] for history in histories], axis=0)
                curves.append(Curve(look, np.arange(1, length + 1), y, y, y))
        if curves:
            svg = drawing.chart(curves, "epoch, over all tasks", key, key.capitalize())
            figures.append(Figure(key.capitalize(), caption, svg))
    return figures


def diagnostics(group: Group, looks: Sequence[Look], results: Results) -> list[Figure]:
    """What the methods measured after each task, such as the quality of a generator: one figure per quantity."""
    curves: dict[str, list[Curve]] = defaultdict(list)
    meaning: dict[str, str] = {}
    for look, run, seeds in zip(looks, group.runs, results, strict=True):
        meaning |= {name: d.meaning for name, d in find(run.method)[0].diagnosed.items()}
        measured: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for seed in seeds:
            for task, numbers in enumerate(seed["diagnostics"]):
                for name, value in numbers.items():
                    if np.isfinite(value):
                        measured[name.partition("/")[0]][task].append(value)
        for quantity, by_task in measured.items():
            mean, low, high = (np.array([f(by_task[t]) for t in sorted(by_task)]) for f in (np.mean, np.min, np.max))
            curves[quantity].append(Curve(look, np.array(sorted(by_task)), mean, low, high))
    figures = []
    for quantity, drawn in curves.items():
        label = quantity.replace("_", " ")
        title = meaning.get(quantity, label)
        title = title[0].upper() + title[1:]
        svg = drawing.chart(drawn, "after task", label, title)
        figures.append(Figure(title, "Mean over seeds and over classes or tasks; bands: lowest to highest.", svg))
    return figures


def samples(group: Group) -> list[Figure]:
    """What the first seed of each run generated after its last task, for the first runs that drew samples."""
    figures: list[Figure] = []
    for name, run in zip(group.names, group.runs, strict=True):
        seed, last = run.score.seeds[0], len(run.test.accuracy_matrix.mean) - 1
        path = RunFolder(run.folder, seed).plot(f"samples_task_{last}")
        if path.exists() and len(figures) < MAX_SAMPLES:
            alt = f"Samples generated by {name}, seed {seed}, after the last task; one row per class"
            uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            figures.append(Figure(name, f"{alt}.", f'<img src="{uri}" alt="{escape(alt)}">'))
    return figures
