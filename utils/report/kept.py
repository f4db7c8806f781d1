"""Finished runs in one file, a line of JSON per run: what a repository keeps of a study."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from utils.settings import BadInput
from utils.store.files import write_text

SUFFIX = ".jsonl"


def keep(folder: Path, file: Path, read: Callable[[Path], str] = Path.read_text) -> int:
    """Write name, settings, provenance and scores of the runs in a folder. Returns their number; no file if it is 0.

    `read` gives the text that is kept of config.yml and provenance.yml.

    BadInput if the file holds a run, or a seed of one, that the folder lacks: it would be lost.
    """
    lines = []
    for score in sorted(folder.glob("*/final_score.json")):
        run = score.parent
        texts = [run / "config.yml", *sorted(run.rglob("provenance.yml"))]
        files = {str(path.relative_to(run)): read(path) for path in texts}
        lines.append({"run": run.name, "files": files, "score": json.loads(score.read_text())})
    if lines:
        before = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        if lost := _seeds(before) - _seeds(lines):
            names = ", ".join(f"{run} seed {seed}" for run, seed in sorted(lost))
            raise BadInput(f"{file}: left as it is: {folder} lacks its runs {names}; run them again")
        file.parent.mkdir(exist_ok=True)
        write_text(file, "".join(f"{json.dumps(line)}\n" for line in lines))
    return len(lines)


def _seeds(lines: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(line["run"], seed) for line in lines for seed in line["score"]["seeds"]}


def opened(path: Path) -> Path:
    """The results folder of a path: of FILE.jsonl or FILE.jsonl/RUN one for the time of the program, else the path."""
    if path.suffix == SUFFIX and path.is_file():
        return _unpacked(path.resolve())
    if path.parent.suffix == SUFFIX and path.parent.is_file():
        root = _unpacked(path.parent.resolve())
        if not (root / path.name).is_dir():
            raise BadInput(f"{path}: no such run; it has {', '.join(sorted(run.name for run in root.iterdir()))}")
        return root / path.name
    return path


def study_of(folder: Path) -> str:
    """The name of the file that a run was kept in; empty if it was not."""
    return next((parent.stem for parent in folder.parents if parent.suffix == SUFFIX), "")


@cache
def _unpacked(file: Path) -> Path:
    scratch = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    root = Path(scratch, file.name).resolve()  # `study_of` knows it by its suffix
    root.mkdir()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            run = json.loads(line)
            for name, text in {**run["files"], "final_score.json": json.dumps(run["score"])}.items():
                path = (root / run["run"] / name).resolve()
                if not path.is_relative_to(root):
                    raise ValueError(f"{name} of {run['run']} is no name")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        except (ValueError, KeyError, TypeError) as error:
            expected = "a line of JSON per run, as bench/freeze.py writes it"
            raise BadInput(f"{file}: line {number} is damaged ({error}); expected {expected}") from None
    return root
