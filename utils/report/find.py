"""Finished runs: finding results folders and reading what is in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from utils.config.load import load
from utils.config.schema import Config
from utils.settings import BadInput
from utils.store.files import Damaged, read_pickle
from utils.store.folder import RunFolder

OF_CURVES = ("epochs", "diagnostics", "tasks")
"""Keys of a seed's final results that the curves are drawn from."""


class _Part(BaseModel):
    """A part of final_score.json: what a comparison reads of it, other keys may be there too."""

    model_config = ConfigDict(allow_inf_nan=False)


class Summary(_Part):
    """One score over the seeds of a run."""

    mean: float | None
    std: float | None
    ci95: float | None
    values: list[float | None]


class Matrix(_Part):
    """Accuracy matrices of a run: mean (T, T), values (S, T, T)."""

    mean: list[list[float]]
    values: list[list[list[float]]]


class Scores(_Part):
    """Scores on one split."""

    accuracy_matrix: Matrix
    FinalAccuracy: Summary
    BWT: Summary
    Forgetting: Summary
    FWT: Summary


class Time(_Part):
    """Seconds a seed took."""

    total_s: Summary


class Memory(_Part):
    """What is held between tasks."""

    method_floats: int
    stored_real_samples: int


class FinalScore(_Part):
    """What a comparison reads of final_score.json."""

    seeds: list[int]
    test: Scores
    time: Time
    memory: Memory

    @model_validator(mode="after")
    def _complete(self) -> "FinalScore":
        final, matrix = self.test.FinalAccuracy, self.test.accuracy_matrix
        if not self.seeds or not len(self.seeds) == len(final.values) == len(matrix.values):
            raise ValueError("not one FinalAccuracy and one accuracy matrix for each seed")
        if None in (final.mean, *final.values):
            raise ValueError("FinalAccuracy is not known for each seed")
        squares = [matrix.mean, *matrix.values]
        if len({len(rows) for square in squares for rows in (square, *square)}) != 1:
            raise ValueError("the accuracy matrices are not square")
        return self


@dataclass(frozen=True)
class FinishedRun:
    """A results folder with a score."""

    folder: Path
    config: Config
    score: FinalScore

    @property
    def method(self) -> str:
        """The method's name."""
        return self.config.method.name

    @property
    def accuracy(self) -> dict[int, float]:
        """Seed -> FinalAccuracy on test data."""
        return dict(zip(self.score.seeds, self.score.test.FinalAccuracy.values, strict=True))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The dotted keys that decide the numbers."""
        return self.config.identity

    @property
    def problem(self) -> dict[str, Any]:
        """Those of them that say what is learnt. Only runs that learn the same may be compared."""
        return {k: v for k, v in self.settings.items() if k.startswith("scenario.") and k != "scenario.dev_split"}

    def results(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The final results of each seed that has them whole, and lines about those that have not."""
        found, notes, missing = [], [], []
        for seed in self.score.seeds:
            path = RunFolder(self.folder, seed).final
            try:
                results = read_pickle(path)
            except FileNotFoundError:
                missing.append(str(seed))
                continue
            except (Damaged, OSError) as error:
                notes.append(f"{error}; the learning curves are without seed {seed}; run the same again to mend it")
                continue
            if not isinstance(results, dict) or not all(key in results for key in OF_CURVES):
                notes.append(f"{path} is of an older version; the learning curves are without seed {seed}")
                continue
            found.append(results)
        if missing:
            seeds = ", ".join(missing)
            notes.append(f"{self.folder}: no final_results.pkl, and so no learning curves, of seed {seeds}")
        return found, notes


def find(folders: Sequence[Path], option: str = "--compare") -> list[FinishedRun]:
    """All finished runs in these folders, each of them a results folder, or one with results folders in it.

    `option` is where they were named, for messages.

    Runs that --restart moved aside (`<save_path>.old-1`) are taken only if they are named themselves.

    Raises:
        BadInput: no such folder, no finished run in it, or one that cannot be read.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{option} {folder}: not a directory; give results folders, or a folder that holds some")
        scores = [folder / "final_score.json"] if (folder / "final_score.json").exists() else _below(folder)
        if not scores:
            raise BadInput(f"{option} {folder}: no finished run: no final_score.json in it or below; run main.py first")
        for score in scores:
            if score.resolve() not in found:
                found[score.resolve()] = _read(score.parent)
    return list(found.values())


def _below(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("final_score.json"))
    return [path for path in paths if not re.search(r"\.old-\d+(/|$)", path.parent.relative_to(folder).as_posix())]


def _read(folder: Path) -> FinishedRun:
    path = folder / "final_score.json"
    try:
        score = FinalScore.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the whole"
        raise BadInput(
            f"{path} is damaged or of an older version ({where}: {problem['msg']}); "
            f"run python main.py {folder / 'config.yml'} to write it anew"
        ) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    return FinishedRun(folder, load(folder / "config.yml"), score)
