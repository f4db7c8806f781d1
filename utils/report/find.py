"""Find finished runs and read their scores and results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, Field, ValidationError, model_validator

from utils.config.load import load
from utils.config.schema import Config
from utils.settings import BadInput
from utils.store.files import Damaged, read_pickle
from utils.store.folder import RunFolder


class Summary(BaseModel, allow_inf_nan=False):
    """One score over the seeds of a run; None where undefined."""

    mean: float | None
    std: float | None
    ci95: float | None
    values: Sequence[float | None]


class Known(Summary):
    """A score that no seed lacks."""

    mean: float
    values: Sequence[float]


class Score(BaseModel, allow_inf_nan=False):
    """What a comparison reads of final_score.json; of test data the scores and, (T, T) and (S, T, T), the matrices."""

    seeds: list[int]
    matrix: Annotated[list[list[float]], Field(validation_alias=AliasPath("test", "accuracy_matrix", "mean"))]
    matrices: Annotated[list[list[list[float]]], Field(validation_alias=AliasPath("test", "accuracy_matrix", "values"))]
    FinalAccuracy: Annotated[Known, Field(validation_alias=AliasPath("test", "FinalAccuracy"))]
    BWT: Annotated[Summary, Field(validation_alias=AliasPath("test", "BWT"))]
    Forgetting: Annotated[Summary, Field(validation_alias=AliasPath("test", "Forgetting"))]
    FWT: Annotated[Summary, Field(validation_alias=AliasPath("test", "FWT"))]
    seconds: Annotated[Summary, Field(validation_alias=AliasPath("time", "total_s"))]
    memory: Annotated[int, Field(validation_alias=AliasPath("memory", "method_floats"))]
    stored: Annotated[int, Field(validation_alias=AliasPath("memory", "stored_real_samples"))]

    @model_validator(mode="after")
    def _check(self) -> "Score":
        if not self.seeds or not len(self.seeds) == len(self.FinalAccuracy.values) == len(self.matrices):
            raise ValueError("not one FinalAccuracy and one accuracy matrix per seed")
        tasks = len(self.matrix)
        if any([len(row) for row in matrix] != [tasks] * tasks for matrix in (self.matrix, *self.matrices)):
            raise ValueError("the accuracy matrices are not square")
        return self


@dataclass(frozen=True)
class FinishedRun:
    """A results folder with a final score; `settings` are the dotted keys of `config` that affect results."""

    folder: Path
    config: Config
    score: Score
    settings: dict[str, Any]

    @property
    def method(self) -> str:
        return self.config.method.name

    @property
    def accuracy(self) -> dict[int, float]:
        """Seed -> FinalAccuracy on test data."""
        return dict(zip(self.score.seeds, self.score.FinalAccuracy.values, strict=True))

    @property
    def problem(self) -> dict[str, Any]:
        """The settings of the learning problem; only runs of the same problem are compared."""
        return {k: v for k, v in self.settings.items() if k.startswith("scenario.") and k != "scenario.dev_split"}

    def results(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The final results of each seed that has them, and a note about each file that cannot be used."""
        found, notes = [], []
        for path in filter(Path.exists, [RunFolder(self.folder, seed).final for seed in self.score.seeds]):
            try:
                results = read_pickle(path)
                if not results.keys() >= {"epochs", "diagnostics"}:
                    raise Damaged(f"{path} was written by an older version")
                found.append(results)
            except (Damaged, OSError) as error:
                notes.append(f"{error}; left out of the learning curves; run the same command again to repair it")
        return found, notes


def find(folders: Sequence[Path], option: str = "--compare") -> list[FinishedRun]:
    """All finished runs in these folders, each of which is a results folder or contains some.

    Runs that --restart moved aside (`<save_path>.old-1`) are found only if named. `option` named the folders.
    """
    found: dict[Path, Path] = {}
    name = "final_score.json"
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{option} {folder}: not a directory; give results folders or a folder that contains some")
        below = [p for p in sorted(folder.rglob(name)) if not re.search(r"\.old-\d+/", str(p.relative_to(folder)))]
        if not below:
            raise BadInput(f"{option} {folder}: no finished run (no {name} in or below it); run main.py first")
        own = [path for path in below if path.parent == folder]
        for path in own or below:
            found.setdefault(path.resolve(), path)
    return [_read(path) for path in found.values()]


def _read(path: Path) -> FinishedRun:
    try:
        score = Score.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        damage = f"is damaged or of an older version ({'.'.join(map(str, problem['loc']))}: {problem['msg']})"
        repair = f"run python main.py {path.with_name('config.yml')} to rewrite it"
        raise BadInput(f"{path} {damage}; {repair}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    config = load(path.with_name("config.yml"))
    return FinishedRun(path.parent, config, score, config.identity)
