"""final_score.json and final_score.log: the scores of an experiment over its seeds."""

import json
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from utils.config.schema import Config
from utils.store.files import write_text
from utils.store.folder import finished_runs
from utils.store.metrics import Summary, fixed, plus_minus, scores, splits, summary

UNITS = {"steps_per_s": "steps per second", "stored_real_samples": "samples", "method_bytes": "bytes"}
"""Of times and memory; all other times are in seconds, and all other memory in numbers."""
NAME = 28  # characters of the column of names
WIDTH = 100  # characters of a line with names of classes


def write_final_score(config: Config) -> None:
    """Write final_score.json and final_score.log of all finished seeds, if there are any; OSError if that fails."""
    runs = list(finished_runs(config.save_path).values())
    if not runs:
        return
    score: dict[str, Any] = {
        "method": config.method.name,
        "dataset": config.scenario.dataset.label,
        "scenario": config.scenario.type,
        "seeds": [run["seed"] for run in runs],
        "protocol": {"selection": config.train.selection, "epochs": config.train.epochs, "steps": config.train.steps},
    }
    of_seeds = [seed_scores(run) for run in runs]
    for part in splits(runs[0]):
        values = np.array([run[part]["accuracy_matrix"] for run in runs], dtype=float)  # (S, T, T)
        std = _with_nulls(values.std(axis=0, ddof=1)) if len(runs) > 1 else None
        matrix = {"mean": _with_nulls(values.mean(axis=0)), "std": std, "values": _with_nulls(values)}
        score[part] = {"accuracy_matrix": matrix, **_over_seeds([of_seed[part] for of_seed in of_seeds])}
    score["time"] = _over_seeds([run["time"] for run in runs])
    held = [run["memory"] for run in runs]  # bytes are not in results of older versions
    score["memory"] = {key: max(one[key] for one in held) for key in held[0] if all(key in one for one in held)}
    write_text(config.save_path / "final_score.json", json.dumps(score, indent=1, allow_nan=False) + "\n")
    write_text(config.save_path / "final_score.log", _as_text(score, runs))


def seed_scores(run: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Split -> name -> score, from the final results of one seed."""
    return {part: scores(run[part], confusion=run[part]["confusion"]) for part in splits(run)}


def _with_nulls(values: np.ndarray) -> list[Any]:
    """As nested lists, None for nan: future tasks that were not evaluated."""
    nested = values.astype(object)
    nested[np.isnan(values)] = None
    return nested.tolist()


def _over_seeds(of_seeds: list[dict[str, float | None]]) -> dict[str, Summary]:
    return {name: summary([values[name] for values in of_seeds]) for name in of_seeds[0]}


def _as_text(score: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """The content of final_score.log."""
    seeds, protocol, parts = score["seeds"], score["protocol"], splits(score)
    length = f"{protocol['steps']} steps" if protocol["steps"] else f"{protocol['epochs']} epochs"
    names = [name for name in score["test"] if name != "accuracy_matrix"]
    matrix = score["test"]["accuracy_matrix"]["mean"]
    lines = [
        f"{score['method']} on {score['dataset']}, {score['scenario']} scenario, {length} per task, "
        f"selection: {protocol['selection']}",
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))}), mean ± std over seeds; "
        "scores are fractions",
        "",
        " " * NAME + "".join(f"{part:>19}" for part in parts),
        *(f"{name:{NAME}}" + "".join(f"{plus_minus(score[part][name]):>19}" for part in parts) for name in names),
        "",
        f"{'test, by seed':{NAME}}" + "".join(f"{seed:>9}" for seed in seeds),
        *(f"{name:{NAME}}" + "".join(map(_cell, score["test"][name]["values"])) for name in names),
        "",
        "test accuracy on each task (column) after training on each task (row), mean over seeds",
        "",
        " " * 6 + "".join(f"{j:>9}" for j in range(len(matrix))),
        *(f"{i:>6}" + "".join(map(_cell, row)) for i, row in enumerate(matrix)),
        "",
        *_classes(runs),
        "",
        *(f"{name:{NAME}}{plus_minus(v, 1):>19} {UNITS.get(name, 'seconds')}" for name, v in score["time"].items()),
        *(f"{name:{NAME}}{value:>19,} {UNITS.get(name, 'numbers')}" for name, value in score["memory"].items()),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else fixed(value, 4):>9}"


def _classes(runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line per task with the names of its classes, of each seed if the seeds have different ones."""
    same = all(run["tasks"] == runs[0]["tasks"] for run in runs)
    for run in runs[:1] if same else runs:
        yield "classes of each task" if same else f"classes of each task, seed {run['seed']}"
        for task, classes in enumerate(run["tasks"]):
            names = run.get("class_names")  # not in results of older versions
            text = ", ".join(str(names[c]) if names else str(c) for c in classes)
            yield from wrap(text, WIDTH, initial_indent=f"{task:>6}  ", subsequent_indent=" " * 8)
