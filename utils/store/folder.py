"""The results folder: what is where in it, and who may write. Every write is whole or not at all."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from utils.config.load import load as load_config
from utils.config.provenance import Provenance
from utils.config.schema import Config, identity_of
from utils.config.yaml_text import as_yaml, read
from utils.locks import exclusive
from utils.settings import BadInput
from utils.store import files
from utils.store.log import log
from utils.store.metrics_csv import write_metrics

SWEEP = "sweep.json"  # in the folder of a sweep: its points and their ranking
MAX_WAIT_SECONDS = 300  # a lock is held for milliseconds, that of a sweep of 1,000 points for up to a minute
State = dict[str, Any]  # what state_dict() of a module returns


class RunFolder:
    """The files of one seed, `exp_<seed>/`; `tensorboard` adds event files."""

    def __init__(self, root: Path, seed: int, tensorboard: bool = False) -> None:
        self.seed, self.path, self.tensorboard = seed, root / f"exp_{seed}", tensorboard
        self.final = self.path / "final_results.pkl"
        self.metrics = self.path / "metrics.csv"
        self.state = self.path / "state.pt"
        self.log = self.path / "experiment.log"
        self.provenance = self.path / "provenance.yml"
        self.lock = self.path / ".lock"
        self.method = self.path / "models" / "method.pt"
        self.encoder = self.path / "models" / "encoder.pt"

    def plot(self, name: str, kind: str = "png") -> Path:
        return self.path / "plots" / f"{name}.{kind}"

    def weights(self, task: int) -> Path:
        """The classifier's, after a task."""
        return self.path / "models" / f"task_{task}.pt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, only this process writes the seed. The lock ends with the process, however that ends.

        BadInput if another process runs the seed, OSError if the results folder is gone or cannot be written.
        """
        with ExitStack() as stack:
            with locked(self.path.parent):
                self.path.mkdir(exist_ok=True)
                stack.enter_context(_seed_lock(self.lock))
            yield

    def begin(self, provenance: Provenance) -> None:
        """Write the provenance; a resumed seed keeps its own, and the log says what has changed since."""
        if not any(path.exists() for path in files.checkpoints(self.state)):
            files.write_text(self.provenance, as_yaml(provenance.model_dump()))
            first = _seeds_in(self.path.parent)[0]
            if (other := provenance_of(self.path.parent, first)) and (changes := other.changed_to(provenance)):
                log.warning("run with %s, unlike seed %d: results may differ by more than chance", changes, first)
        elif (begun := provenance_of(self.path.parent, self.seed)) and (changes := begun.changed_to(provenance)):
            log.warning("resumed with %s: results may differ from those of an uninterrupted run", changes)

    def save_task(self, task: int, learner: State, method: State, results: dict[str, Any]) -> None:
        """After a task: write the classifier's weights, the method's state (of the last task only), and the results."""
        files.write_tensors(self.weights(task), learner)
        files.write_tensors(self.method, method)
        files.write_pickle(self.path / "results" / f"task_{task}.pkl", results)
        write_metrics(self.path, results, self.tensorboard)

    def save_encoder(self, features: State) -> None:
        """Before the first task: write the weights of an encoder's features that were trained and frozen."""
        files.write_tensors(self.encoder, features)

    def save_final(self, results: dict[str, Any]) -> None:
        """After the last task: write the results, which mark the seed as finished."""
        write_metrics(self.path, results, self.tensorboard)
        files.write_pickle(self.final, results)

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the checkpoint to resume from; the previous one is kept beside it."""
        files.write_checkpoint(self.state, state)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint that is not damaged, or None; a damaged one is logged."""
        for path in files.checkpoints(self.state):
            try:
                return files.read_checkpoint(path, device)
            except FileNotFoundError:
                continue
            except files.Damaged as error:
                log.warning("%s; resuming from the checkpoint before it", error)
        return None

    def results(self) -> dict[str, Any] | None:
        """The final results; None if there are none, or if they are damaged, which is logged."""
        try:
            return files.read_pickle(self.final)
        except FileNotFoundError:
            return None
        except files.Damaged as error:
            log.warning("%s; the last results are computed again", error)
            return None


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Inside, no other process creates, moves or scores a results folder, or starts a seed of it. Keep it short.

    The lock lies beside the folder, which may be moved, and for a point of a sweep beside the sweep's folder.
    BadInput if another process holds it for too long, OSError if it cannot be written.
    """
    root = Path(os.path.realpath(root))  # a link to a folder has the folder's lock
    folder = root.parent if (root.parent / SWEEP).exists() else root
    file = folder.with_name(f".{folder.name}.lock")
    with exclusive(file, MAX_WAIT_SECONDS, f"{file} was locked by another process for {MAX_WAIT_SECONDS} s; try again"):
        yield


def check_free(root: Path, seeds: Sequence[int] | None = None) -> None:
    """BadInput if a process runs one of the seeds (None: any seed, in points too); call it inside `locked`."""
    every = (*root.glob("exp_*/.lock"), *root.glob("*/exp_*/.lock"))
    for path in every if seeds is None else (RunFolder(root, seed).lock for seed in seeds):
        if path.exists():
            with _seed_lock(path):
                pass


def _seed_lock(path: Path) -> AbstractContextManager[None]:
    seed, root = path.parent.name.removeprefix("exp_"), path.parent.parent
    refusal = f"train.save_path: another process runs seed {seed} of {root}; wait for it, or choose another"
    return exclusive(path, 0, refusal)


def check_folder(config: Config) -> None:
    """BadInput unless the results folder is new, or was made by the same configuration; writes nothing."""
    root = config.save_path
    if (root / SWEEP).exists():
        raise BadInput(f"train.save_path: {root} holds a sweep; choose another, or start again with --restart")
    if (root / "config.yml").exists():
        try:
            theirs = load_config(root / "config.yml", ["train.save_path=null"]).identity
        except BadInput as error:
            problem = f"{root} holds a config.yml that cannot be used ({str(error).splitlines()[0]})"
            raise BadInput(f"train.save_path: {problem}; choose another save_path") from None
        check_same(root, config.identity, theirs)


def is_results(root: Path) -> bool:
    """Whether a folder was made by this program, as a sweep or a run, and may be moved aside."""
    marks = ((root / SWEEP).exists(), any(root.glob("exp_*/experiment.log")))
    return any(marks) or ((root / "config.yml").exists() and not _is_users(root / "config.yml"))


def _is_users(config: Path) -> bool:
    """Whether a file is not as this program writes it: it has comments, short forms, or errors."""
    try:
        return config.read_text(encoding="utf-8") != as_yaml(load_config(config).dump())
    except (BadInput, UnicodeDecodeError):
        return True


def check_seeds(config: Config) -> None:
    """BadInput if results of a seed in the folder are of another configuration or seed, as in a copied folder."""
    for seed, run in finished_runs(config.save_path).items():
        check_run(config, seed, run)


def check_run(config: Config, seed: int, results: dict[str, Any]) -> None:
    """BadInput unless the results of a seed, finished or not, are of this configuration and seed."""
    path, ours = RunFolder(config.save_path, seed).path, config.identity | {"seed": seed}
    try:
        theirs = identity_of(results["config"]) | {"seed": results["seed"]}
    except (AttributeError, KeyError, TypeError):
        raise BadInput(
            f"{path} holds results without their configuration and seed; remove or restore the folder"
        ) from None
    known = {key: value for key, value in ours.items() if key in theirs}  # not those that a later version added
    check_same(path, known, {key: theirs[key] for key in known})


def check_same(root: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """BadInput with the keys that differ unless `ours`, the settings that decide results, are those of the folder."""
    if theirs.get("scenario.fingerprint") is None:  # made before there were any
        ours = ours | {"scenario.fingerprint": None}
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differing:
        changes = ", ".join(f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in differing[:6])
        raise BadInput(
            f"train.save_path: {root} holds results of another configuration ({changes}); "
            "choose another save_path, or start again with --restart"
        )


def make_folder(root: Path, anew: bool, name: str, text: str) -> None:
    """Make a results folder with the file that describes it; with `anew`, an existing one is moved aside.

    A config.yml that the user wrote stays as it is. Of a link, the folder that it leads to is made or moved.
    """
    if root.is_symlink():
        root = Path(os.path.realpath(root))
    if root.exists() and anew:
        aside = (root.with_name(f"{root.name}.old-{i}") for i in itertools.count(1))
        kept = root.rename(next(path for path in aside if not path.exists()))
        print(f"{root}: what was there is now {kept}")
    root.mkdir(exist_ok=True)
    if not ((root / name).exists() and name == "config.yml" and _is_users(root / name)):
        files.write_text(root / name, text)


def _seeds_in(root: Path) -> list[int]:
    """The seeds that have a folder, in ascending order."""
    return sorted(int(folder.name[4:]) for folder in root.glob("exp_*") if folder.name[4:].isdecimal())


def finished_runs(root: Path) -> dict[int, dict[str, Any]]:
    """Seed -> final results, of all finished seeds in ascending order."""
    return {seed: run for seed in _seeds_in(root) if (run := RunFolder(root, seed).results()) is not None}


def provenance_of(root: Path, seed: int) -> Provenance | None:
    """From `exp_<seed>/provenance.yml`, else `provenance.yml` of the folder, else None; BadInput if it is damaged."""
    path = next((p for p in (RunFolder(root, seed).provenance, root / "provenance.yml") if p.exists()), None)
    try:
        return Provenance.model_validate(read(path)) if path else None
    except ValidationError as error:
        raise BadInput(f"{path} is damaged ({error.errors()[0]['msg']}); remove it to make it unknown") from None
