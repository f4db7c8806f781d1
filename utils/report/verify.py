"""`--verify`: re-run finished seeds from the config.yml of their results folders, and compare with what is stored."""

import csv
import json
import tempfile
from argparse import Namespace
from pathlib import Path

import torch

from utils.config.provenance import current_provenance
from utils.queue.launch import run_seed
from utils.queue.plan import Experiment, plan
from utils.report.find import FinishedRun, find
from utils.run.signals import Stop
from utils.settings import BadInput
from utils.store.folder import RunFolder, provenance_of
from utils.store.metrics import splits

TOLERANCE = 0.01  # largest difference between two accuracies that still counts as the same result
Numbers = dict[tuple[str, ...], float]  # (task, epoch, split, metric) -> value, as in metrics.csv
WEIGHTS = {None: "weights are not stored", True: "the weights' bits too", False: "other weights"}


def verify(options: Namespace) -> int:
    """Run the first seed of each finished run again, or each of `--seeds`; returns 1 if one differs or fails."""
    wanted = [(run, i) for run in find(options.verify, "--verify") for i in options.seeds or run.score.seeds[:1]]
    with tempfile.TemporaryDirectory() as scratch:
        planned = [_plan(run, seed, Path(scratch, str(i)), options) for i, (run, seed) in enumerate(wanted)]
        return max([_verify(*which, again, options.tasks) for which, again in zip(wanted, planned, strict=True)])


def _plan(run: FinishedRun, seed: int, folder: Path, options: Namespace) -> Experiment:
    if seed not in run.score.seeds:
        raise BadInput(f"--seeds {seed}: {run.folder} has {', '.join(map(str, run.score.seeds))}")
    if (options.tasks or 1) > run.score.tasks:
        raise BadInput(f"--tasks {options.tasks}: {run.folder} has {run.score.tasks}")
    made = provenance_of(run.folder, seed)
    changes = ["method.plot=no", "train.save=yes", "train.load=yes", "train.tensorboard=no"]
    changes.append(f"train.save_path={json.dumps(str(folder))}")
    device = options.device or (made.device if made else None)
    command = {"configs": [run.folder / "config.yml"], "set": changes, "seeds": (seed,), "device": device}
    return plan(Namespace(**command, data_root=options.data_root, backend="local"))[0]


def _verify(run: FinishedRun, seed: int, experiment: Experiment, tasks: int | None) -> int:
    """Run it, compare, and print the verdict; returns 1 if it differs or fails."""
    made, name = provenance_of(run.folder, seed), f"{run.folder}, seed {seed}"
    print(f"{name}: made with {made or 'unknown versions (no provenance.yml)'}")
    if made:
        torch.set_num_threads(made.threads)
        here = current_provenance(run.method, str(experiment.device))
        print(f"here: {made.changed_to(here) or 'the same'}")
    experiment.config.save_path.mkdir()
    if run_seed(experiment, seed, Stop(), tasks, f"{run.method} seed {seed}"):
        return 1
    stored, again = RunFolder(run.folder, seed), RunFolder(experiment.config.save_path, seed)
    expected = _read_metrics(stored.metrics) if stored.metrics.exists() else _accuracies(run, seed)
    numbers, verdicts = _read_metrics(again.metrics), []
    for task in range(tasks or run.score.tasks):
        of_task = {key: value for key, value in expected.items() if int(key[0] or 0) == task}
        if not of_task:
            raise BadInput(f"{stored.metrics} is damaged: it has no number of task {task}; remove it to compare scores")
        differing = [key for key, value in of_task.items() if numbers.get(key) != value]
        gap = max((abs(numbers[k] - of_task[k]) for k in differing if k[3].startswith("accuracy/")), default=0.0)
        weights = stored.weights(task)
        same = _same_tensors(weights, again.weights(task)) if weights.exists() else None
        identical = not differing and same is not False
        verdicts.append("identical" if identical else "the same" if gap <= TOLERANCE else "DIFFERS")
        equal = f"{len(of_task) - len(differing)} of {len(of_task)} numbers are equal, {WEIGHTS[same]}"
        far = "" if identical else f"; accuracies differ by at most {gap:.4f}"
        print(f"task {task}: {verdicts[-1]}: {equal}{far}")
    told = "bit-identical" if same else "identical in all that is stored"
    if inexact := [task for task, verdict in enumerate(verdicts) if verdict != "identical"]:
        told = f"the same within {TOLERANCE}, not to the bit from task {inexact[0]} on"
    if "DIFFERS" in verdicts:
        worst = verdicts.index("DIFFERS")
        told = f"DIFFERS: not to the bit from task {inexact[0]} on, by more than {TOLERANCE} from {worst} on"
    print(f"{name}: {told}\n")
    return int("DIFFERS" in verdicts)


def _read_metrics(path: Path) -> Numbers:
    with path.open(newline="") as file:
        keys = ("task", "epoch", "split", "metric")
        return {tuple(row[key] for key in keys): float(row["value"]) for row in csv.DictReader(file)}


def _accuracies(run: FinishedRun, seed: int) -> Numbers:
    """The accuracies of the seed in final_score.json."""
    score, place = json.loads((run.folder / "final_score.json").read_text()), run.score.seeds.index(seed)
    return {
        (str(task), "", part, f"accuracy/{other}"): value
        for part in splits(score)
        for task, row in enumerate(score[part]["accuracy_matrix"]["values"][place])
        for other, value in enumerate(row)
    }


def _same_tensors(one: Path, other: Path) -> bool:
    a, b = (torch.load(path, map_location="cpu", weights_only=True) for path in (one, other))
    return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)
