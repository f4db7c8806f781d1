"""The results folder: what is where in it. Every write is whole or not at all; results are plain data."""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from utils.config.load import load as load_config
from utils.config.provenance import MadeWith
from utils.config.schema import Config
from utils.config.yaml_text import as_yaml
from utils.settings import BadInput
from utils.store.files import (
    Damaged,
    previous,
    read_checkpoint,
    read_pickle,
    write_checkpoint,
    write_pickle,
    write_tensors,
    write_text,
)
from utils.store.log import log
from utils.store.long_format import MetricsWriter

SWEEP = "sweep.json"
"""In a folder of a sweep: what its points are, and their ranking."""


class RunFolder:
    """One seed's part of the results: `exp_<seed>/`, with events for TensorBoard if they are wanted."""

    def __init__(self, root: Path, seed: int, tensorboard: bool = False) -> None:
        self.seed, self.path = seed, root / f"exp_{seed}"
        self.final = self.path / "final_results.pkl"
        self.metrics = self.path / "metrics.csv"
        self.state = self.path / "state.pt"
        self.log = self.path / "experiment.log"
        self.method = self.path / "models" / "method.pt"
        self.writer = MetricsWriter(self.path, tensorboard)

    def plot(self, name: str) -> Path:
        """Where a figure goes."""
        return self.path / "plots" / f"{name}.png"

    def weights(self, task: int) -> Path:
        """Where the classifier's weights after a task go."""
        return self.path / "models" / f"task_{task}.pt"

    def save_task(
        self, task: int, learner: dict[str, torch.Tensor], method: dict[str, Any], results: dict[str, Any]
    ) -> None:
        """After a task: write the classifier's weights, the method's state (of the last task only), and the results."""
        write_tensors(self.weights(task), learner)
        write_tensors(self.method, method)
        write_pickle(self.path / "results" / f"task_{task}.pkl", results)
        self.writer.write(results)

    def save_final(self, results: dict[str, Any]) -> None:
        """After the last task: write the results, which mark the seed as finished."""
        self.writer.write(results)
        write_pickle(self.final, results)

    def close(self) -> None:
        """End the writing of events for TensorBoard."""
        self.writer.close()

    def save_state(self, state: dict[str, Any]) -> None:
        """All that is needed to go on from here; the state before stays beside it."""
        write_checkpoint(self.state, state)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """The last state that was saved whole, or None; a damaged one is reported and passed over."""
        for path in (self.state, previous(self.state)):
            try:
                return read_checkpoint(path, device)
            except FileNotFoundError:
                continue
            except Damaged as error:
                log.warning("%s; going on from what was saved before it", error)
        return None

    def results(self) -> dict[str, Any] | None:
        """The final results; None if there are none, or if they are damaged, which is reported."""
        try:
            return read_pickle(self.final)
        except FileNotFoundError:
            return None
        except Damaged as error:
            log.warning("%s; they are made again", error)
            return None


def owner(root: Path) -> Path:
    """The folder whose lock keeps others away from a results folder: its sweep's, if it is in one, else itself."""
    return root.parent if (root.parent / SWEEP).exists() else root


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Inside, no other process runs on this results folder, an `owner`. The lock ends with the process.

    Raises:
        BadInput: another one does, or the folder beside which the lock lies cannot be written.
    """
    try:
        file = root.with_name(f".{root.name}.lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        lock = FileLock(file, blocking=False)
        lock.acquire()
    except Timeout as error:
        raise BadInput(f"train.save_path: another process runs on {root}; wait for it, or choose another") from error
    except OSError as error:
        raise BadInput(f"train.save_path: {root} cannot be made ({error}); choose another") from error
    try:
        yield
    finally:
        lock.release()


def check_folder(config: Config, restart: bool) -> None:
    """Make sure that the results folder is free, or was made by the same configuration; writes nothing.

    Raises:
        BadInput: it belongs to another configuration, or cannot be written.
    """
    root = config.save_path
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"train.save_path: {root} cannot be made: {there} is not a directory that may be written to")
    if restart or not config.train.load:
        return
    if (root / SWEEP).exists():
        raise BadInput(f"train.save_path: {root} holds a sweep; choose another, or start again with --restart")
    if (root / "config.yml").exists():
        check_same(root, config.identity, load_config(root / "config.yml").identity)


def prepare(config: Config, seeds: Sequence[int], restart: bool, made_with: MadeWith) -> None:
    """Make the results folder and put the configuration there; an older run is moved aside if it is not to go on.

    What a run that goes on was begun with stays written there; if one of the seeds is still to be run with something
    else, that is said.

    Raises:
        BadInput: it cannot be written.
    """
    root, anew = config.save_path, restart or not config.train.load
    begun = None if anew or not (root / "config.yml").exists() else load_config(root / "config.yml").made_with
    to_run = not all(RunFolder(root, seed).final.exists() for seed in seeds)
    if begun and to_run and (changes := begun.changed_to(made_with)):
        print(f"{root}: goes on with {changes}: perhaps not to the bit what it would have been", file=sys.stderr)
    make_folder(root, anew, "config.yml", as_yaml({**config.dump(), "made_with": (begun or made_with).model_dump()}))


def make_folder(root: Path, anew: bool, name: str, text: str) -> None:
    """Make a results folder with the file that says what it is of; `anew`, what was there is moved aside.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        if root.exists() and anew:
            aside = (root.with_name(f"{root.name}.old-{i}") for i in itertools.count(1))
            root.rename(next(path for path in aside if not path.exists()))
        root.mkdir(exist_ok=True)
        write_text(root / name, text)
    except OSError as error:
        raise BadInput(f"train.save_path: {root} cannot be written ({error}); choose another") from error


def check_same(root: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Make sure that what decides the numbers is what it was in the folder `root`.

    Raises:
        BadInput: it is not; names what differs.
    """
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differing:
        changes = ", ".join(f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in differing[:6])
        raise BadInput(
            f"train.save_path: {root} holds results of another configuration ({changes}); "
            "choose another save_path, or start again with --restart"
        )


def finished_runs(root: Path) -> dict[int, dict[str, Any]]:
    """Seed -> final results of all seeds that have them, in order."""
    seeds = sorted(int(folder.name[4:]) for folder in root.glob("exp_*") if folder.name[4:].isdecimal())
    runs = {seed: RunFolder(root, seed).results() for seed in seeds}
    return {seed: run for seed, run in runs.items() if run is not None}
