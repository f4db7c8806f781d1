"""Find finished runs and read their scores and results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from utils.config.load import load
from utils.config.schema import Config
from utils.settings import BadInput
from utils.store.files import Damaged, read_pickle
from utils.store.folder import RunFolder


class Summary(BaseModel, allow_inf_nan=False):
    """One score over the seeds of a run."""

    mean: float | None
    std: float | None
    ci95: float | None
    values: list[float | None]


class Matrix(BaseModel, allow_inf_nan=False):
    """Accuracy matrices: mean (T, T), values (S, T, T)."""

    mean: list[list[float]]
    values: list[list[list[float]]]


class Scores(BaseModel):
    """Scores on one split."""

    accuracy_matrix: Matrix
    FinalAccuracy: Summary
    BWT: Summary
    Forgetting: Summary
    FWT: Summary


class FinalScore(BaseModel):
    """What a comparison reads of final_score.json; other keys are ignored."""

    seeds: list[int]
    test: Scores
    time: dict[str, Summary]
    memory: dict[str, int]

    @model_validator(mode="after")
    def _complete(self) -> "FinalScore":
        final, matrix = self.test.FinalAccuracy, self.test.accuracy_matrix
        if not len(self.seeds) == len(final.values) == len(matrix.values) or None in (final.mean, *final.values):
            raise ValueError("expected one FinalAccuracy and one accuracy matrix per seed")
        squares = [matrix.mean, *matrix.values]
        if len({len(square) for square in squares} | {len(row) for square in squares for row in square}) != 1:
            raise ValueError("the accuracy matrices are not square")
        if "total_s" not in self.time or not {"method_floats", "stored_real_samples"} <= self.memory.keys():
            raise ValueError("time.total_s, memory.method_floats or memory.stored_real_samples is missing")
        return self


@dataclass(frozen=True)
class FinishedRun:
    """A results folder with a final score."""

    folder: Path
    config: Config
    score: FinalScore

    @property
    def method(self) -> str:
        """The method's name."""
        return self.config.method.name

    @property
    def test(self) -> Scores:
        """The scores on test data."""
        return self.score.test

    @property
    def final(self) -> float:
        """Mean FinalAccuracy on test data; always known, see `FinalScore`."""
        return self.test.FinalAccuracy.mean or 0.0

    @property
    def accuracy(self) -> dict[int, float]:
        """Seed -> FinalAccuracy on test data."""
        values = zip(self.score.seeds, self.test.FinalAccuracy.values, strict=True)
        return {seed: value for seed, value in values if value is not None}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The dotted keys of the configuration that affect results."""
        return self.config.identity

    @property
    def problem(self) -> dict[str, Any]:
        """The settings of the learning problem; only runs of the same problem are compared."""
        return {k: v for k, v in self.settings.items() if k.startswith("scenario.") and k != "scenario.dev_split"}

    def results(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The final results of each seed that has them, and a note about each file that cannot be used."""
        found, notes = [], []
        paths = [RunFolder(self.folder, seed).final for seed in self.score.seeds]
        for path in [path for path in paths if path.exists()]:
            try:
                results = read_pickle(path)
                if not (isinstance(results, dict) and results.keys() >= {"epochs", "diagnostics"}):
                    raise Damaged(f"{path} was written by an older version")
                found.append(results)
            except (Damaged, OSError) as error:
                notes.append(f"{error}; left out of the learning curves; run the same command again to repair it")
        return found, notes


def find(folders: Sequence[Path], option: str = "--compare") -> list[FinishedRun]:
    """All finished runs in these folders; each is a results folder or contains some.

    Runs that --restart moved aside (`<save_path>.old-1`) are included only if named explicitly. `option` is the
    command-line option that named the folders, for messages.

    Raises:
        BadInput: a folder does not exist or contains no finished run, or a run cannot be read.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{option} {folder}: not a directory; give results folders or a folder that contains some")
        below = [
            path for path in sorted(folder.rglob("final_score.json")) if not _moved_aside(path.relative_to(folder))
        ]
        scores = [folder / "final_score.json"] if (folder / "final_score.json").exists() else below
        if not scores:
            raise BadInput(
                f"{option} {folder}: no finished run (no final_score.json in or below it); run main.py first"
            )
        for score in scores:
            if score.resolve() not in found:
                found[score.resolve()] = _read(score.parent)
    return list(found.values())


def _moved_aside(path: Path) -> bool:
    return any(re.search(r"\.old-\d+$", part) for part in path.parts)


def _read(folder: Path) -> FinishedRun:
    path = folder / "final_score.json"
    try:
        score = FinalScore.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "file"
        raise BadInput(
            f"{path} is damaged or of an older version ({where}: {problem['msg']}); "
            f"run python main.py {folder / 'config.yml'} to rewrite it"
        ) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    return FinishedRun(folder, load(folder / "config.yml"), score)
