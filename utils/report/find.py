"""Find finished runs and read their scores and results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AliasPath, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from utils.config.load import load
from utils.config.schema import Config
from utils.settings import BadInput
from utils.store.files import Damaged, read_pickle
from utils.store.folder import RunFolder
from utils.store.metrics import Summary


def _scores(test: Any) -> Any:
    return {k: v for k, v in test.items() if k != "accuracy_matrix"} if isinstance(test, dict) else test


class Score(BaseModel, allow_inf_nan=False):
    """What a comparison reads of final_score.json: S seeds, and of test data the scores and matrices (S, T, T)."""

    seeds: list[int]
    scores: Annotated[dict[str, Summary], BeforeValidator(_scores), Field(validation_alias="test")]
    final: Annotated[Summary, Field(validation_alias=AliasPath("test", "FinalAccuracy"))]
    mean: Annotated[float, Field(validation_alias=AliasPath("test", "FinalAccuracy", "mean"))]
    finals: Annotated[list[float], Field(validation_alias=AliasPath("test", "FinalAccuracy", "values"))]
    forgetting: Annotated[Summary, Field(validation_alias=AliasPath("test", "Forgetting"))]
    matrices: Annotated[list[list[list[float]]], Field(validation_alias=AliasPath("test", "accuracy_matrix", "values"))]
    seconds: Annotated[Summary, Field(validation_alias=AliasPath("time", "total_s"))]
    memory: Annotated[int, Field(validation_alias=AliasPath("memory", "method_floats"))]
    stored: Annotated[int, Field(validation_alias=AliasPath("memory", "stored_real_samples"))]

    @model_validator(mode="after")
    def _check(self) -> "Score":
        shape = np.shape(self.matrices)  # ValueError if rows differ in length
        if not self.seeds or not len(self.seeds) == len(self.finals) == shape[0] or shape[1:] != (self.tasks,) * 2:
            raise ValueError("not one FinalAccuracy and one square accuracy matrix per seed")
        return self

    @property
    def tasks(self) -> int:
        return len(self.matrices[0])


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
        return dict(zip(self.score.seeds, self.score.finals, strict=True))

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
        own = folder / name
        for path in [own] if own in below else below:
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
