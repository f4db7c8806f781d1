"""Find finished runs and read their scores and results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, Field, ValidationError

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


def _at(*keys: str) -> Any:
    return Field(validation_alias=AliasPath(*keys))


class Score(BaseModel, allow_inf_nan=False):
    """What a comparison reads of final_score.json: the scores on test data, time and memory."""

    seeds: list[int]
    matrix: Annotated[list[list[float]], _at("test", "accuracy_matrix", "mean")]
    """mean accuracy matrix (T, T)"""
    matrices: Annotated[list[list[list[float]]], _at("test", "accuracy_matrix", "values")]
    """the accuracy matrix of each seed (S, T, T)"""
    FinalAccuracy: Annotated[Known, _at("test", "FinalAccuracy")]
    BWT: Annotated[Summary, _at("test", "BWT")]
    Forgetting: Annotated[Summary, _at("test", "Forgetting")]
    FWT: Annotated[Summary, _at("test", "FWT")]
    seconds: Annotated[Summary, _at("time", "total_s")]
    memory: Annotated[int, _at("memory", "method_floats")]
    stored: Annotated[int, _at("memory", "stored_real_samples")]


@dataclass(frozen=True)
class FinishedRun:
    """A results folder with a final score."""

    folder: Path
    config: Config
    score: Score
    settings: dict[str, Any]
    """the dotted keys of the configuration that affect results"""

    @property
    def method(self) -> str:
        """The method's name."""
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
        for path in [RunFolder(self.folder, seed).final for seed in self.score.seeds]:
            try:
                results = read_pickle(path)
                if not results.keys() >= {"epochs", "diagnostics"}:
                    raise Damaged(f"{path} was written by an older version")
                found.append(results)
            except FileNotFoundError:
                continue
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
            path
            for path in sorted(folder.rglob("final_score.json"))
            if not re.search(r"\.old-\d+/", path.relative_to(folder).as_posix())
        ]
        scores = [path for path in below if path.parent == folder] or below
        if not scores:
            problem = "no finished run (no final_score.json in or below it); run main.py first"
            raise BadInput(f"{option} {folder}: {problem}")
        for path in scores:
            if path.resolve() not in found:
                found[path.resolve()] = _read(path)
    return list(found.values())


def _read(path: Path) -> FinishedRun:
    try:
        score = Score.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "file"
        damage = f"is damaged or of an older version ({where}: {problem['msg']})"
        raise BadInput(f"{path} {damage}; run python main.py {path.with_name('config.yml')} to rewrite it") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    config = load(path.with_name("config.yml"))
    return FinishedRun(path.parent, config, score, config.identity)
