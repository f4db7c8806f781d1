"""`--verify`: re-run finished seeds from the config.yml of their results folders, and compare with what is stored."""

import csv
import json
import math
import pickle
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from utils.config.provenance import current_provenance
from utils.queue.launch import run_seed
from utils.queue.plan import Experiment, plan
from utils.report.find import FinishedRun, find
from utils.run.signals import Stop
from utils.settings import BadInput
from utils.store.folder import RunFolder, provenance_of
from utils.store.metrics import SCORES, splits

TOLERANCE = 0.01  # largest difference between two accuracies that still counts as the same result
Numbers = dict[tuple[str, ...], float]  # (task, epoch, split, metric, step) -> value, as in metrics.csv
WEIGHTS = {None: "weights are not stored", True: "weights are equal", False: "weights differ"}


def verify(options: Namespace) -> int:
    """Run the first seed of each finished run again, or each of `--seeds`; returns 1 if one differs or fails."""
    wanted = [(run, i) for run in find(options.verify, "--verify") for i in options.seeds or run.score.seeds[:1]]
    with tempfile.TemporaryDirectory() as scratch:
        planned = [_plan(run, seed, Path(scratch, str(i)), options) for i, (run, seed) in enumerate(wanted)]
        return max([_verify(*which, again, options.tasks) for which, again in zip(wanted, planned, strict=True)])


def _plan(run: FinishedRun, seed: int, folder: Path, options: Namespace) -> Experiment:
    if seed not in run.score.seeds:
        raise BadInput(f"--seeds {seed}: {run.place} has {', '.join(map(str, run.score.seeds))}")
    if (options.tasks or 1) > run.score.tasks:
        raise BadInput(f"--tasks {options.tasks}: {run.place} has {run.score.tasks}")
    made = provenance_of(run.folder, seed)
    changes = ["method.plot=no", "model.cache=no", "train.save=yes", "train.load=yes", "train.tensorboard=no"]
    changes.append(f"train.save_path={json.dumps(str(folder))}")
    device = options.device or (made.device if made else None)
    command = {"configs": [run.folder / "config.yml"], "set": changes, "seeds": (seed,), "device": device}
    try:
        return plan(Namespace(**command, data_root=options.data_root, backend="local"))[0]
    except BadInput as error:  # a kept run's folder is temporary
        raise BadInput(str(error).replace(str(run.folder), run.place)) from None


def _verify(run: FinishedRun, seed: int, experiment: Experiment, tasks: int | None) -> int:
    """Run it, compare, and print the verdict; returns 1 if it differs or fails."""
    made, name = provenance_of(run.folder, seed), f"{run.place}, seed {seed}"
    stored, again = RunFolder(run.folder, seed), RunFolder(experiment.config.save_path, seed)
    expected = _read_metrics(stored) if stored.metrics.exists() else _accuracies(run, seed)
    print(f"{name}: run with {made or 'unknown versions (no provenance.yml)'}")
    if made:
        torch.set_num_threads(made.threads)
        own = getattr(experiment.config.model.encoder, "file", None)
        here = current_provenance(run.method, str(experiment.device), own)
        print(f"here: {made.changed_to(here) or 'the same'}")
    experiment.config.save_path.mkdir()
    if run_seed(experiment, seed, Stop(), tasks, f"{run.method} seed {seed}"):
        return 1
    numbers, verdicts, weights_kept = _read_metrics(again), list[str](), list[bool]()
    newer = SCORES.keys() - {key[3] for key in expected}  # the file is of a version that did not have them
    for task in range(tasks or run.score.tasks):
        of_task = {key: value for key, value in expected.items() if int(key[0] or 0) == task}
        if stored.metrics.exists():
            _check_whole(stored.metrics, task, of_task, [key for key in numbers if int(key[0] or 0) == task], newer)
        differing = [key for key, value in of_task.items() if not _equal(value, numbers.get(key, math.inf))]
        gaps = [abs(numbers.get(k, math.inf) - of_task[k]) for k in differing if k[3].startswith("accuracy/")]
        gap, weights = max(gaps, default=0.0), stored.weights(task)
        same = _same_tensors(weights, again.weights(task)) if weights.exists() else None
        weights_kept.append(same is not None)
        identical = not differing and same is not False
        verdicts.append("identical" if identical else "the same" if gap <= TOLERANCE else "DIFFERS")
        equal = f"{len(of_task) - len(differing)} of {len(of_task)} numbers are equal, {WEIGHTS[same]}"
        far = "" if identical else f"; accuracies differ by at most {gap:.4f}"
        print(f"task {task}: {verdicts[-1]}: {equal}{far}")
    told = "bit-identical" if all(weights_kept) else "identical in all that is stored"
    if inexact := [task for task, verdict in enumerate(verdicts) if verdict != "identical"]:
        told = f"the same within {TOLERANCE}; bits differ from task {inexact[0]} on"
    if "DIFFERS" in verdicts:
        worst = verdicts.index("DIFFERS")
        told = f"DIFFERS: in bits from task {inexact[0]} on, by more than {TOLERANCE} from task {worst} on"
    print(f"{name}: {told}\n")
    return int("DIFFERS" in verdicts)


def _equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))  # a diagnostic may be nan


def _read_metrics(folder: RunFolder) -> Numbers:
    """The numbers of metrics.csv, without its columns `method` and `seed`; older files lack `method` and `step`."""
    path, keys = folder.metrics, ("task", "epoch", "split", "metric")
    try:
        text = path.read_text(encoding="utf-8")
        rows = [*csv.DictReader(text.splitlines())]
        numbers = {(*(row[key] for key in keys), row.get("step") or ""): float(row["value"]) for row in rows}
        _check_rows(numbers, {row["seed"] for row in rows}, folder.seed)
        if not text.endswith("\n") or len(numbers) < len(rows):
            raise ValueError("its last line is cut, or a number is in it twice")
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{path} is damaged ({what}); remove it to compare the scores in final_score.json") from None
    return numbers


def _check_rows(numbers: Numbers, seeds: set[str], seed: int) -> None:
    """ValueError unless there are numbers, of this seed alone, with whole tasks and finite accuracies."""
    if seeds != {str(seed)}:
        raise ValueError(f"it has numbers of {len(seeds)} seeds; expected those of seed {seed}")
    for (task, _, _, metric, _), value in numbers.items():
        if not (task.isdecimal() or not task) or ("accuracy/" in metric and not 0 <= value <= 1):
            raise ValueError(f"{metric} of task {task or 'none'} is {value}")


def _check_whole(path: Path, task: int, stored: Numbers, again: list[tuple[str, ...]], newer: set[str]) -> None:
    """BadInput if the file lacks a number of the task that running it again has, but for those of `newer` scores."""
    if missing := [key for key in again if key not in stored and key[3] not in newer]:
        lost = f"{len(missing)} of {len(again)} numbers of task {task}, the first is {missing[0][3]}"
        raise BadInput(f"{path} is cut or of an older version: it lacks {lost}; remove it to compare scores")


def _accuracies(run: FinishedRun, seed: int) -> Numbers:
    """The accuracies of the seed in final_score.json."""
    path, place = run.folder / "final_score.json", run.score.seeds.index(seed)
    try:
        score = json.loads(path.read_text(encoding="utf-8"))
        matrices = {part: np.array(score[part]["accuracy_matrix"]["values"], dtype=float) for part in splits(score)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is damaged ({error})") from None
    if any(m.shape != run.score.matrices.shape or ((m < 0) | (m > 1)).any() for m in matrices.values()):
        raise BadInput(f"{path} is damaged: expected a square matrix of accuracies per seed and split")
    return {
        (str(task), "", part, f"accuracy/{other}", ""): float(value)
        for part, of_seeds in matrices.items()
        for (task, other), value in np.ndenumerate(of_seeds[place])
        if not np.isnan(value)  # a future task that was not evaluated
    }


def _same_tensors(one: Path, other: Path) -> bool:
    try:
        a, b = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
        return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{one} is damaged ({reason}); remove it to compare without it") from None
