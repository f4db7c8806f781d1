"""How time and memory grow with tasks, samples, embedding size, seeds and jobs: log-log slopes and a figure.

python bench/scale.py --out scale.png                                     naive and a small PRER: some minutes
python bench/scale.py --methods naive ewc gem --axes tasks --rounds 3     a choice

Generated data: noisy 3 x 32 x 32 images around one pattern per class, two classes per task, as many tasks as are
asked for. One thing varies at a time, the others stay at `BASE`. A slope of 1 is linear growth.

Training (steps and what the method does between tasks) and evaluation are measured separately: after each of T tasks
all T are evaluated, which gives the accuracy matrix its T^2 entries; evaluation grows with T^2 because it is asked for,
however quick it is. End to end there is the start-up as well, a constant, which makes slopes smaller.
"""

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

import numpy as np

from bench.kill import SMALL
from bench.measuring import ROOT, machine, markdown, run_ours

AXES: dict[str, tuple[int, ...]] = {
    "tasks": (5, 10, 20, 50),
    "samples": (100, 200, 400, 800),
    "embedding": (100, 200, 400, 800),
    "seeds": (1, 2, 4),
    "jobs": (1, 2),
}
"""What varies, and how; samples are training images per class."""
BASE = {"tasks": 5, "samples": 100, "embedding": 400, "seeds": 1, "jobs": 1}
SEEDS_FOR_JOBS = {"seeds": 4}
"""Of the axis of jobs: several seeds, which jobs share."""
TEST_SAMPLES = 10
"""Test images per class."""
LINEAR = 1.1
"""The largest slope that is called linear: clocks are not exact."""
Point = dict[str, Any]
"""One measured run: axis, method, value, and seconds and memory."""
PARTS: dict[str, Callable[[Point], float]] = {
    "training": lambda p: p["train_s"] + p["method_s"],
    "evaluation": lambda p: p["eval_s"],
    "end to end": lambda p: p["end_to_end_s"],
    "peak memory": lambda p: p["peak_mb"],
}
"""What grows: seconds, and 10^6 bytes."""
WHOLE = {"seeds": ("end to end", "peak memory"), "jobs": ("end to end",)}
"""The parts of axes on which seconds of a seed and memory of the first process say nothing."""


def main() -> int:
    """Measure what the command line names."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--methods", nargs="+", default=["naive", "prer"])
    parser.add_argument("--values", type=int, nargs="+", help="instead of the usual ones, for one axis")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as main.py has it")
    parser.add_argument("--rounds", type=int, default=1, help="medians of so many (1)")
    parser.add_argument("--out", type=Path, default=Path("scale.png"), help="the figure")
    options, on = parser.parse_args(), machine()  # the commit as it is now: another may come meanwhile
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        places = [(axis, value) for axis in options.axes for value in options.values or AXES[axis]]
        for number, (axis, value), method in product(range(options.rounds), places, options.methods):
            at = BASE | (SEEDS_FOR_JOBS if axis == "jobs" else {}) | {axis: value}
            measured = measure(method, at, Path(folder), options)
            points.append({"axis": axis, "method": method, "value": value, **measured})
            print(f"round {number} {axis} {value} {method}: {measured['end_to_end_s']:.1f} s", file=sys.stderr)
    points = medians(points)
    print(f"{on}\n\n{table(points)}")
    draw(points, options.out)
    print(f"\n{options.out}")
    return 0


def measure(method: str, at: dict[str, int], folder: Path, options: Namespace) -> Point:
    """One run with so many tasks, samples, ..."""
    data = folder / f"{at['tasks']}-{at['samples']}.npz"
    if not data.exists():
        make_images(data, 2 * at["tasks"], at["samples"])
    settings = ["train.epochs=5", "model.encoder=mlp", f"model.embedding={at['embedding']}"]
    settings += [f"scenario.dataset={{name: npz, path: {data}}}", "scenario.labels_per_task=2"]
    settings += [*SMALL.get(method, "").split(), *options.set]
    config = ROOT / "files" / f"{method}_digits.yaml"
    chosen = ["--seeds", f"0-{at['seeds'] - 1}", "--jobs", str(at["jobs"])]
    with tempfile.TemporaryDirectory(dir=folder) as results:
        return run_ours(config, Path(results) / "run", settings, chosen)


def make_images(file: Path, classes: int, samples: int) -> None:
    """Noisy images around one coarse random pattern a class, uint8 (N, 3, 32, 32)."""
    random = np.random.default_rng(0)
    patterns = np.kron(random.random((classes, 3, 4, 4)), np.ones((8, 8)))
    arrays = {}
    for part, count in (("train", samples), ("test", TEST_SAMPLES)):
        y = np.repeat(np.arange(classes), count)
        noisy = patterns[y] + 0.1 * random.standard_normal((len(y), 3, 32, 32), dtype=np.float32)
        arrays |= {f"x_{part}": (noisy.clip(0, 1) * 255).astype(np.uint8), f"y_{part}": y}
    np.savez(file, **arrays)


def medians(points: Sequence[Point]) -> list[Point]:
    """One point for all rounds of the same axis, method and value."""
    keys = ("axis", "method", "value")
    found = []
    for key in dict.fromkeys(tuple(p[k] for k in keys) for p in points):
        same = [p for p in points if tuple(p[k] for k in keys) == key]
        found.append({k: same[0][k] if k in keys else median(p[k] for p in same) for k in same[0]})
    return found


def lines(points: Sequence[Point]) -> dict[tuple[str, str, str], list[tuple[int, float]]]:
    """(axis, method, part) -> its (value, seconds or 10^6 bytes)."""
    found: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for point in points:
        for part in WHOLE.get(point["axis"], PARTS):
            found.setdefault((point["axis"], point["method"], part), []).append((point["value"], PARTS[part](point)))
    return found


def slope(line: Sequence[tuple[float, float]]) -> float:
    """Of the straight line nearest to the logarithms: the exponent b of y = a x^b."""
    x, y = np.log(np.array(line, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


def growth(axis: str, part: str, exponent: float) -> str:
    """A slope in words."""
    if axis == "jobs":
        return f"{2**-exponent:.2f} x as fast with twice the jobs"
    if (axis, part) == ("tasks", "evaluation"):  # of T^2 accuracies
        return "linear in the T^2 accuracies or better" if exponent <= 2 * LINEAR else "MORE THAN QUADRATIC"
    return "linear or better" if exponent <= LINEAR else "MORE THAN LINEAR"


def table(points: Sequence[Point]) -> str:
    """Every line with its slope; of one point there is none."""
    rows = []
    for (axis, method, part), line in lines(points).items():
        measured = ", ".join(f"{value}: {number:.4g}" for value, number in line)
        exponent = slope(line) if len(line) > 1 else None
        verdict = ["", ""] if exponent is None else [f"{exponent:.2f}", growth(axis, part, exponent)]
        rows.append([axis, method, part, measured, *verdict])
    return markdown(["against", "method", "what (s, MB)", "measured", "slope", "growth"], rows)


def draw(points: Sequence[Point], file: Path) -> None:
    """A column an axis; seconds above (logarithmic), memory below (from 0)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    drawn, axes_names = lines(points), list(dict.fromkeys(p["axis"] for p in points))
    methods = list(dict.fromkeys(p["method"] for p in points))
    styles = dict(zip(PARTS, ("-", ":", "--", "-"), strict=True))
    figure = Figure(figsize=(1.5 + 3 * len(axes_names), 6), layout="constrained")
    grid = figure.subplots(2, len(axes_names), squeeze=False, sharey="row")
    for (axis, method, part), line in drawn.items():
        panel = grid[int(part == "peak memory"), axes_names.index(axis)]
        name = method if part == "peak memory" else f"{method}: {part}"
        panel.plot(
            *zip(*line, strict=True), styles[part], color=f"C{methods.index(method)}", marker="o", ms=3, label=name
        )
    for row, meaning in zip(grid, ("seconds", "peak memory (MB)"), strict=True):
        row[0].set_ylabel(meaning)
        for panel, axis in zip(row, axes_names, strict=True):
            values = sorted({p["value"] for p in points if p["axis"] == axis})
            panel.set(xlabel=axis, xscale="log", visible=bool(panel.lines))
            panel.xaxis.set_major_locator(FixedLocator(values))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.grid(alpha=0.3)
    grid[0, 0].set_yscale("log")
    grid[1, 0].set_ylim(bottom=0)
    for panel in (row[0] for row in grid if row[0].lines):
        panel.legend(fontsize=7, frameon=False, handlelength=4)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
