"""What a queue says when it has ended: the score of one file in full, of several files a line each, and what failed."""

import json
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from utils.queue.plan import Experiment
from utils.store.folder import SWEEP, RunFolder
from utils.store.metrics import plus_minus


def summary(experiments: Sequence[Experiment]) -> str:
    """The scores of the queue; empty if there are none."""
    folders = [(folder, next(points).sweep) for folder, points in groupby(experiments, lambda point: point.folder)]
    if len(folders) == 1:
        score = folders[0][0] / ("sweep.log" if folders[0][1] else "final_score.log")
        return f"\n{score.read_text(encoding='utf-8')}\n{score}" if score.exists() else ""
    width = max(len(str(folder)) for folder, _ in folders)
    rows = [f"{folder!s:{width}}  {_of_sweep(folder) if sweep else _of_run(folder)}" for folder, sweep in folders]
    return "\n".join(["\ntest FinalAccuracy, mean ± std over seeds; in full in final_score.log and sweep.log", *rows])


def failures(failed: Collection[tuple[Path, int]]) -> str:
    """A line per failed seed, with the log that says why; empty if there are none."""
    logs = [(root, seed, RunFolder(root, seed).log) for root, seed in sorted(failed)]
    return "\n".join(f"failed: {root} seed {seed}{f', see {log}' if log.exists() else ''}" for root, seed, log in logs)


def _of_run(folder: Path) -> str:
    try:
        score = json.loads((folder / "final_score.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "no finished seed"
    count = len(score["seeds"])
    return f"{plus_minus(score['test']['FinalAccuracy'])}  {count} seed{'s' * (count > 1)}"


def _of_sweep(folder: Path) -> str:
    ranking = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
    chosen, points = ranking["chosen"], len(ranking["points"])
    return f"{plus_minus(chosen['test'])}  {chosen['name']}, best of {points} points" if chosen else "no finished point"
