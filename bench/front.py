"""Accuracy against memory of kept studies: `python bench/front.py study/mnist_patches.jsonl --out docs/front.png`.

A panel per study; runs of files of the same name look the same in all. Dotted: the best at no more bytes; ringed:
stores real samples.
"""

import sys
from argparse import ArgumentParser
from math import ceil
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.report import cost
from utils.report.find import find
from utils.report.groups import Group, groups

OURS = {"prer_features": "#c2410c", "prer": "#f59e0b"}
MARKERS = "osD^vP"
GREY = "#6b7280"
PER_ROW = 3  # panels, at most


def main() -> int:
    """Draw the figure that the command line asks for."""
    parser = ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("studies", nargs="+", type=Path, help="files of kept runs, study/<problem>.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="PNG, PDF or SVG")
    options = parser.parse_args()
    drawn = groups(find(options.studies))
    rows = ceil(len(drawn) / PER_ROW)
    columns = ceil(len(drawn) / rows)
    figure = Figure((3.8 * columns + 1, 3.2 * rows + 0.4), layout="constrained")
    looks = dict[str, dict[str, Any]]()
    panels = np.ravel(figure.subplots(rows, columns))
    for axes, group in zip(panels[: len(drawn)], drawn, strict=True):
        draw(axes, group, looks)
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], label=name, linestyle="", marker=look["fmt"], color=look["color"])
        for name, look in looks.items()
    ]
    handles.append(Line2D([], [], label="best at no more bytes", linestyle=":", color=GREY))
    handles.append(
        Line2D([], [], label="stores real samples", linestyle="", marker="o", markerfacecolor="none", color=GREY)
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=3 * columns - 1, fontsize=8, frameon=False)
    figure.savefig(options.out, dpi=150)
    print(options.out)
    return 0


def draw(axes: Axes, group: Group, looks: dict[str, dict[str, Any]]) -> None:
    """Mean and standard deviation of each run's final accuracy over its bytes; without those below half of the best.

    `looks` has marker and colour by the label of a run; those of new labels are added.
    """
    best = max(row.run.score.mean for row in group.rows)
    rows = [row for row in group.rows if row.run.score.memory and row.run.score.mean >= best / 2]
    if not rows:
        raise SystemExit(f"{group.title}: no run says its memory in bytes; results of an older version have none")
    points = [(float(row.run.score.memory or 0), row.run.score.mean) for row in rows]
    for row, (x, y) in zip(rows, points, strict=True):
        own = {"fmt": "*", "markersize": 14, "color": OURS.get(row.run.method), "zorder": 3}
        other = {"fmt": MARKERS[len(looks) % len(MARKERS)], "color": f"C{len(looks) % 10}"}
        name, title = row.run.folder.name, row.run.title
        label = title if name == row.run.method else f"{title} ({name})"
        look = looks.setdefault(label, own if row.run.method in OURS else other)
        axes.errorbar(x, y, row.run.score.final["std"] or 0, **look)
    axes.set(xscale="log", xlabel="bytes held between tasks", ylabel="FinalAccuracy", title=group.heading)
    cost.draw(axes, points, [bool(row.run.score.stored) for row in rows], GREY)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
