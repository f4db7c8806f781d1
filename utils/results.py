"""The results folder: the only place that writes it. Every write is whole or not at all; results are plain data."""

import io
import itertools
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from utils import metrics
from utils.config import Config
from utils.config import load as load_config
from utils.settings import BadInput

SCORES = (
    "FinalAccuracy",
    "BWT",
    "FWT",
    "Forgetting",
    "TotalAccuracy",
    "BackwardTransfer",
    "LastBackwardTransfer",
    "F1",
)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """The same for text."""
    write_bytes(path, text.encode())


def write_pickle(path: Path, plain: object) -> None:
    """The same for a pickle of builtins."""
    write_bytes(path, pickle.dumps(plain, protocol=4))


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """The same for what `torch.load(weights_only=True)` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"refused to load {module}.{name}: results hold builtins only")


def read_pickle(path: Path) -> Any:
    """Read a pickle of builtins; anything else in it is refused (pickle.UnpicklingError)."""
    with path.open("rb") as file:
        return _BuiltinsOnly(file).load()


class RunFolder:
    """One seed's part of the results: `exp_<seed>/`."""

    def __init__(self, root: Path, seed: int) -> None:
        self.seed, self.path = seed, root / f"exp_{seed}"
        self.final = self.path / "final_results.pkl"
        self.state = self.path / "state.pt"
        self.log = self.path / "experiment.log"

    def plot(self, name: str) -> Path:
        """Where a figure goes."""
        return self.path / "plots" / f"{name}.png"

    def save_task(self, task: int, state: dict[str, Any]) -> None:
        """After a task: its weights, the results so far, and all that is needed to go on from here."""
        write_tensors(self.path / "models" / f"task_{task}.pt", state["learner"])
        write_pickle(self.path / "results" / f"task_{task}.pkl", state["results"])
        write_tensors(self.state, state)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """What the last `save_task` saved, or None."""
        if not self.state.exists():
            return None
        return torch.load(self.state, map_location=device, weights_only=True)


def check_folder(config: Config, restart: bool) -> None:
    """Make sure that the results folder is free, or was made by the same configuration; writes nothing.

    Raises:
        BadInput: it belongs to another configuration, or cannot be written.
    """
    root = config.save_path
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"train.save_path: {root} cannot be made: {there} is not a directory that may be written to")
    if (root / "config.yml").exists() and not restart and config.train.load:
        _check_same(config, load_config(root / "config.yml"))


def prepare(config: Config, restart: bool) -> None:
    """Make the results folder and put the configuration there; an older run is moved aside if it is not to go on.

    Raises:
        BadInput: it cannot be written.
    """
    root = config.save_path
    try:
        if root.exists() and (restart or not config.train.load):
            aside = (root.with_name(f"{root.name}.old-{i}") for i in itertools.count(1))
            root.rename(next(path for path in aside if not path.exists()))
        write_text(root / "config.yml", yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise BadInput(f"train.save_path: {root} cannot be written ({error}); choose another") from error


def _check_same(new: Config, old: Config) -> None:
    ours, theirs = new.identity, old.identity
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differing:
        changes = ", ".join(f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in differing[:6])
        raise BadInput(
            f"train.save_path: {new.save_path} holds results of another configuration ({changes}); "
            "choose another save_path, or start again with --restart"
        )


def finished_seeds(root: Path) -> list[int]:
    """The seeds with final results, in order."""
    return sorted(int(file.parent.name.removeprefix("exp_")) for file in root.glob("exp_*/final_results.pkl"))


def write_final_score(config: Config) -> Path | None:
    """final_score.json and final_score.log of all finished seeds; returns the path of the log, None without a seed."""
    root = config.save_path
    runs = [read_pickle(RunFolder(root, seed).final) for seed in finished_seeds(root)]
    if not runs:
        return None
    score = _final_score(config, runs)
    write_text(root / "final_score.json", json.dumps(score, indent=1, allow_nan=False) + "\n")
    write_text(root / "final_score.log", _final_log(score))
    return root / "final_score.log"


def _final_score(config: Config, runs: list[dict[str, Any]]) -> dict[str, Any]:
    score: dict[str, Any] = {
        "method": config.method.name,
        "dataset": config.scenario.dataset.name,
        "scenario": config.scenario.type,
        "seeds": [run["seed"] for run in runs],
        "protocol": {"selection": config.train.selection, "epochs": config.train.epochs, "steps": config.train.steps},
    }
    for part in [part for part in ("test", "train", "dev") if part in runs[0]]:
        values = np.array([run[part]["accuracy_matrix"] for run in runs])  # (S, T, T)
        std = values.std(axis=0, ddof=1).tolist() if len(runs) > 1 else None
        matrix = {"mean": values.mean(axis=0).tolist(), "std": std, "values": values.tolist()}
        per_run = [
            metrics.scores(
                np.array(run[part]["accuracy_matrix"]),
                np.array(run[part]["initial_accuracy"]),
                np.array(run[part]["confusion"]),
            )
            for run in runs
        ]
        score[part] = {"accuracy_matrix": matrix}
        score[part] |= {name: metrics.summary([run[name] for run in per_run]) for name in SCORES}
    score["time"] = {name: metrics.summary([run["time"][name] for run in runs]) for name in runs[0]["time"]}
    score["memory"] = {name: max(run["memory"][name] for run in runs) for name in runs[0]["memory"]}
    return score


def _final_log(score: dict[str, Any]) -> str:
    seeds = score["seeds"]
    length = (
        f"{score['protocol']['steps']} steps" if score["protocol"]["steps"] else f"{score['protocol']['epochs']} epochs"
    )
    parts = [part for part in ("test", "train", "dev") if part in score]
    lines = [
        f"{score['method']} on {score['dataset']}, {score['scenario']} scenario, {length} a task, "
        f"weights chosen: {score['protocol']['selection']}",
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))}): mean ± std over seeds",
        "",
        " " * 22 + "".join(f"{part:>19}" for part in parts),
    ]
    lines += [f"{name:22}" + "".join(f"{_plus_minus(score[part][name]):>19}" for part in parts) for name in SCORES]
    lines += ["", "test accuracy on task (column) after training on task (row), mean over seeds", ""]
    matrix = score["test"]["accuracy_matrix"]["mean"]
    lines.append("      " + "".join(f"{j:>8}" for j in range(len(matrix))))
    lines += [f"{i:>6}" + "".join(f"{value:>8.4f}" for value in row) for i, row in enumerate(matrix)]
    lines.append("")
    lines += [f"{name:22}{_plus_minus(value, digits=1):>19}" for name, value in score["time"].items()]
    lines += [f"{name:22}{value:>19,}" for name, value in score["memory"].items()]
    return "\n".join(lines) + "\n"


def _plus_minus(value: dict[str, Any], digits: int = 4) -> str:
    if value["mean"] is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"
