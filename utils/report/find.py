"""Find finished runs and read their scores and results."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AliasPath, BaseModel, BeforeValidator, Field, ValidationError, model_validator

import methods
from utils.config.load import load
from utils.config.schema import Config
from utils.report.kept import opened, study_of
from utils.settings import BadInput
from utils.store.files import Damaged, read_pickle
from utils.store.folder import SWEEP, RunFolder
from utils.store.metrics import Summary

OLD = re.compile(r"\.old-\d+/")  # in the path of what --restart moved aside


def _scores(test: Any) -> Any:
    return {k: v for k, v in test.items() if k != "accuracy_matrix"} if isinstance(test, dict) else test


Matrices = list[list[list[float | None]]]


class Score(BaseModel, allow_inf_nan=False):
    """What a comparison reads of final_score.json: S seeds, and of test data the scores and matrices (S, T, T)."""

    seeds: list[int]
    scores: Annotated[dict[str, Summary], BeforeValidator(_scores), Field(validation_alias="test")]
    final: Annotated[Summary, Field(validation_alias=AliasPath("test", "FinalAccuracy"))]
    mean: Annotated[float, Field(validation_alias=AliasPath("test", "FinalAccuracy", "mean"))]
    finals: Annotated[list[float], Field(validation_alias=AliasPath("test", "FinalAccuracy", "values"))]
    forgetting: Annotated[Summary, Field(validation_alias=AliasPath("test", "Forgetting"))]
    nested: Annotated[Matrices, Field(validation_alias=AliasPath("test", "accuracy_matrix", "values"))]
    seconds: Annotated[Summary, Field(validation_alias=AliasPath("time", "total_s"))]
    memory: Annotated[int | None, Field(validation_alias=AliasPath("memory", "method_bytes"))] = None
    """Bytes; not in scores of older versions."""
    stored: Annotated[int, Field(validation_alias=AliasPath("memory", "stored_real_samples"))]

    @model_validator(mode="after")
    def _check(self) -> "Score":
        shape = self.matrices.shape  # ValueError if rows differ in length
        if not self.seeds or not len(self.seeds) == len(self.finals) == shape[0] or shape[1:] != (self.tasks,) * 2:
            raise ValueError("not one FinalAccuracy and one square accuracy matrix per seed")
        if np.isnan(np.tril(self.matrices)).any():
            raise ValueError("an accuracy on a task that was learned is missing")
        return self

    @property
    def tasks(self) -> int:
        return len(self.nested[0])

    @cached_property
    def matrices(self) -> np.ndarray:
        """(S, T, T); nan where a future task was not evaluated."""
        return np.array(self.nested, dtype=float)


class Inside(BaseModel):
    """A measurement inside a task: training steps so far, and test accuracy on each of the tasks so far."""

    step: int
    accuracy: list[float]


class Results(BaseModel):
    """What a comparison reads of a seed's final_results.pkl; K classes."""

    epochs: list[list[dict[str, float]]]  # of each task, the numbers measured after each epoch
    diagnostics: list[dict[str, float]]  # after each task
    class_names: list[str] = []
    anytime: Annotated[list[list[Inside]], Field(validation_alias=AliasPath("test", "anytime"))] = []
    confusion: Annotated[list[list[int]] | None, Field(validation_alias=AliasPath("test", "confusion"))] = None
    """Test images (K, K), true class x predicted; not in results of older versions."""

    @model_validator(mode="after")
    def _check(self) -> "Results":
        if self.confusion is not None and np.shape(self.confusion) != (len(self.confusion),) * 2:
            raise ValueError("the confusion matrix is not square")
        return self


@dataclass(frozen=True)
class FinishedRun:
    """A results folder with a final score; `settings` are the dotted keys of `config` that affect what is learned.

    `study` is the name of the file that it was kept in, with others of the same protocol, if it was.
    """

    folder: Path
    config: Config
    score: Score
    settings: dict[str, Any]
    study: str = ""

    @property
    def place(self) -> str:
        """Its folder; of a kept run, whose folder is temporary, the name of its file and its own."""
        return f"{self.study}.jsonl/{self.folder.name}" if self.study else str(self.folder)

    @property
    def method(self) -> str:
        return self.config.method.name

    @property
    def title(self) -> str:
        """The method's name for readers: its own title, not an inherited one, or that of the YAML."""
        return vars(methods.find(self.method)[0]).get("title") or self.method

    @property
    def accuracy(self) -> dict[int, float]:
        """Seed -> FinalAccuracy on test data."""
        return dict(zip(self.score.seeds, self.score.finals, strict=True))

    @property
    def learned(self) -> dict[int, np.ndarray]:
        """Seed -> test accuracy (T,) on each task right after training on it."""
        return {seed: r.diagonal() for seed, r in zip(self.score.seeds, self.score.matrices, strict=True)}

    @property
    def problem(self) -> dict[str, Any]:
        """The settings of the learning problem; only runs of the same problem are compared."""
        return {k: v for k, v in self.settings.items() if k.startswith("scenario.") and k != "scenario.dev_split"}

    def mean(self, seeds: Sequence[int]) -> float:
        """Mean FinalAccuracy over these seeds; over all seeds of the run if there are none."""
        return float(np.mean([self.accuracy[seed] for seed in seeds])) if seeds else self.score.mean

    def results(self) -> tuple[list[Results], list[str]]:
        """The final results of each seed that has them, and a note about each file that cannot be used."""
        found, notes = [], []
        for path in [RunFolder(self.folder, seed).final for seed in self.score.seeds]:
            try:
                found.append(Results.model_validate(read_pickle(path)))
                continue
            except FileNotFoundError:
                continue
            except ValidationError as error:
                reason = f"{path} is damaged or of an older version ({_first(error)})"
            except Exception as error:  # unpickling damaged bytes may raise anything
                reason = str(error) if isinstance(error, Damaged) else f"{path} cannot be read ({error})"
            notes.append(f"{reason}; left out of the learning curves; run the same command again to repair it")
        return found, notes


def find(folders: Sequence[Path], option: str = "--compare") -> list[FinishedRun]:
    """All finished runs in these folders, each of which is a results folder or contains some, or a file of kept runs.

    Runs that --restart moved aside (`<save_path>.old-1`) are found only if named. `option` named the folders.
    """
    paths = {path.resolve(): path for folder in map(opened, folders) for path in _scores_in(folder, option)}
    return [_read(path) for path in paths.values()]


def find_readable(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """As `find`, with a note in place of each run that cannot be read, and of each file or folder without one.

    Notes also name the runs without a finished seed, and sweeps, whose points are ranked on test data here. BadInput,
    with a line per reason, if no run can be read, or if a path does not exist.
    """
    found, paths, notes = list[FinishedRun](), dict[Path, Path](), list[str]()
    folders = [*map(opened, folders)]
    absent = [folder for folder in folders if not os.path.exists(folder)]
    for folder in absent or folders:
        try:
            paths |= {path.resolve(): path for path in _scores_in(folder)}
        except BadInput as error:
            notes.append(str(error))
        else:
            notes += _unfinished(folder)
    for root in dict.fromkeys(path.parents[1] for path in paths.values() if (path.parents[1] / SWEEP).exists()):
        notes.append(f"{root}: points of a sweep, compared on test data: choose by {root / 'sweep.log'}, not by this")
    for path in paths.values():
        try:
            found.append(_read(path))
        except BadInput as error:
            notes.append("; ".join(str(error).splitlines()))
    if not found:
        raise BadInput("\n".join(map(printable, notes)))
    return found, notes


def _unfinished(folder: Path) -> list[str]:
    """A note for each run in or below a folder that was begun and has no finished seed."""
    begun = dict.fromkeys(log.parents[1] for log in sorted(folder.rglob("exp_*/experiment.log")))
    runs = [
        run
        for run in begun
        if not (run / "final_score.json").exists() and not OLD.search(f"{run.relative_to(folder)}/")
    ]
    return [f"{run}: no finished seed; left out" for run in runs]


def printable(text: str) -> str:
    """The text with control characters, line breaks and undecodable bytes escaped: for a terminal, and for any line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _scores_in(folder: Path, option: str = "--compare") -> list[Path]:
    """The files final_score.json of a results folder, or of those below it."""
    name = "final_score.json"
    if not folder.is_dir():
        raise BadInput(f"{option} {folder}: not a directory; give results folders or a folder that contains some")
    below = [path for path in sorted(folder.rglob(name)) if not OLD.search(str(path.relative_to(folder)))]
    if not below:
        raise BadInput(f"{option} {folder}: no finished run (no {name} in or below it); run main.py first")
    return [folder / name] if folder / name in below else below


def _read(path: Path) -> FinishedRun:
    try:
        score = Score.model_validate_json(path.read_bytes())
    except ValidationError as error:
        damage = f"is damaged or of an older version ({_first(error)})"
        repair = f"run python main.py {path.with_name('config.yml')} to rewrite it"
        raise BadInput(f"{path} {damage}; {repair}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    config = load(path.with_name("config.yml"))
    settings = {key: value for key, value in config.identity.items() if not key.startswith("train.evaluate")}
    return FinishedRun(path.parent, config, score, settings, study_of(path))


def total_confusion(results: Sequence[Results]) -> tuple[np.ndarray, list[str]]:
    """The counts (K, K) of test images, true class x predicted, added over seeds, and the names of the classes.

    Of no image, (0, 0), if they are not known, or if the seeds have different classes.
    """
    known = [np.array(seed.confusion) for seed in results if seed.confusion]
    if not known or len({counts.shape for counts in known}) > 1:
        return np.zeros((0, 0), dtype=int), []
    counts, names = np.sum(known, axis=0), results[0].class_names
    return counts, names if len(names) == len(counts) else [*map(str, range(len(counts)))]


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
