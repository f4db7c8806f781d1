"""Scores of continual learning, one function per score registered by `@score`; and metrics.csv, which holds them."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from utils.store.files import write_text


@dataclass(frozen=True)
class Scored:
    """What a score is computed from: T tasks, all of them trained on."""

    r: np.ndarray  # accuracies (T, T); r[i, j]: on task j after training on task i, future tasks included
    initial: np.ndarray  # accuracy (T,) of the untrained classifier; empty in the class scenario
    confusion: np.ndarray | None = None  # counts (K, K), true class x predicted, on all T tasks, if they are known


Score = Callable[[Scored], float | None]
SCORES: dict[str, Score] = {}  # in the order of final_score.json; None: undefined, such as a mean over no task


def score(name: str) -> Callable[[Score], Score]:
    """Register a score: it then appears in all files with scores and tables of --compare."""

    def register(function: Score) -> Score:
        SCORES[name] = function
        return function

    return register


@score("FinalAccuracy")
def final_accuracy(s: Scored) -> float:
    """Mean accuracy over all tasks after the last."""
    return float(s.r[-1].mean())


@score("BWT")
def bwt(s: Scored) -> float | None:
    """Backward transfer: mean over j < T-1 of R[T-1, j] - R[j, j]. Lopez-Paz and Ranzato, NeurIPS 2017, eq. 3."""
    return float((s.r[-1] - s.r.diagonal())[:-1].mean()) if len(s.r) > 1 else None


@score("FWT")
def fwt(s: Scored) -> float | None:
    """Forward transfer: mean over j > 0 of R[j-1, j] - b[j], b (T,) the accuracy at initialisation. Same, eq. 4.

    None in the class scenario, where classes to come are never predicted.
    """
    return float((s.r.diagonal(offset=1) - s.initial[1:]).mean()) if len(s.r) > 1 and len(s.initial) else None


@score("Forgetting")
def forgetting(s: Scored) -> float | None:
    """Mean over j < T-1 of max over i < T-1 of R[i, j] - R[T-1, j]. Chaudhry et al., ECCV 2018, eq. 3."""
    return float((s.r[:-1, :-1].max(axis=0) - s.r[-1, :-1]).mean()) if len(s.r) > 1 else None


@score("TotalAccuracy")
def total_accuracy(s: Scored) -> float:
    """Mean of the lower triangle with the diagonal. Diaz-Rodriguez et al., 2018 (arXiv 1810.13166), eq. 1."""
    return float(s.r[np.tril_indices(len(s.r))].mean())


@score("BackwardTransfer")
def backward_transfer(s: Scored) -> float | None:
    """Mean over i > j of R[i, j] - R[j, j]. Diaz-Rodriguez et al., 2018, eq. 2."""
    return float((s.r - s.r.diagonal())[np.tril_indices(len(s.r), k=-1)].mean()) if len(s.r) > 1 else None


@score("LastBackwardTransfer")
def last_backward_transfer(s: Scored) -> float | None:
    """Mean over all T tasks of R[T-1, j] - R[j, j]; the last task, whose term is 0, is counted."""
    return float((s.r[-1] - s.r.diagonal()).mean()) if len(s.r) > 1 else None


@score("F1")
def f1(s: Scored) -> float | None:
    """Macro F1 over the classes that occur in the confusion matrix."""
    if s.confusion is None:
        return None
    hits, true = s.confusion.diagonal(), s.confusion.sum(axis=1)
    return float((2 * hits / np.maximum(true + s.confusion.sum(axis=0), 1))[true > 0].mean())


def scores(
    matrix: Sequence[Sequence[float]], initial: Sequence[float], confusion: Sequence[Sequence[int]] | None = None
) -> dict[str, float | None]:
    """Every score by its name, of the t tasks trained on so far as if there were no others.

    From the accuracies after each of them on all tasks (t x T), those of the untrained classifier (T), and the counts
    on the t tasks (K x K), if they are known.
    """
    t = len(matrix)
    counts = None if confusion is None else np.array(confusion)
    scored = Scored(np.array(matrix)[:, :t], np.array(initial)[:t], counts)
    return {name: function(scored) for name, function in SCORES.items()}


def splits(results: Mapping[str, Any]) -> list[str]:
    """The names of the splits that results of a seed, or final scores, hold."""
    return [name for name in ("test", "train", "dev") if name in results]


class Summary(TypedDict):
    """A score over seeds; None where undefined: the mean of no value, the other two of fewer than two."""

    mean: float | None
    std: float | None  # ddof 1
    ci95: float | None  # half-width of the 95% confidence interval, by Student's t
    values: list[float | None]


def summary(values: Sequence[float | None]) -> Summary:
    """The summary of a score's values, one per seed."""
    from scipy.special import stdtrit  # Student's t; imported here because scipy is slow to import

    known = np.array([value for value in values if value is not None], dtype=float)
    n = len(known)
    std = float(known.std(ddof=1)) if n > 1 else None
    ci95 = None if std is None else float(stdtrit(n - 1, 0.975) * std / np.sqrt(n))
    return Summary(mean=float(known.mean()) if n else None, std=std, ci95=ci95, values=list(values))


def plus_minus(value: Mapping[str, Any], digits: int = 4) -> str:
    """A `Summary` as text: mean ± std, or - where there is no mean."""
    if value["mean"] is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {fixed(value['std'], digits)}"
    return f"{fixed(value['mean'], digits)}{spread}"


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; what rounds to zero has no sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


Row = tuple[int | None, int | None, str, str, float]  # task (None: untrained), epoch (None: after it), split, ...


def write_metrics(folder: Path, results: dict[str, Any], tensorboard: bool) -> None:
    """Write all numbers of the results so far: metrics.csv, and with `tensorboard` an event file.

    Events are written anew each time, with `purge_step` 0 for a TensorBoard that has read the old file: an interrupted
    run may have left events of a task that the resumed run repeats. Steps are epochs over all tasks for what is
    measured after each epoch, otherwise tasks.
    """
    rows, text = _rows(results), io.StringIO()
    header = ("method", "seed", "task", "epoch", "split", "metric", "value")
    of_run = (results["config"]["method"]["name"], results["seed"])
    csv.writer(text, lineterminator="\n").writerows([header, *((*of_run, *row) for row in rows)])
    write_text(folder / "metrics.csv", text.getvalue())
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter  # needs an optional package

        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        epochs = 0
        with SummaryWriter(str(folder), purge_step=0) as events:
            for task, epoch, split, metric, value in rows:
                epochs += metric == "loss"
                step = task or 0 if epoch is None else epochs - 1
                events.add_scalar(f"{split or 'method'}/{metric}", value, step)


def _rows(results: dict[str, Any]) -> list[Row]:
    """In the order in which the numbers became known: a task only appends rows."""
    parts, rows = splits(results), list[Row]()
    watched = "dev" if "dev" in parts else "train"  # the split of the accuracy after each epoch
    for part in parts:
        initial = results[part]["initial_accuracy"]
        rows += [(None, None, part, f"initial_accuracy/{j}", value) for j, value in enumerate(initial)]
    for task, diagnostics in enumerate(results["diagnostics"]):
        for epoch, values in enumerate(results["epochs"][task]):
            rows += [(task, epoch, watched if name == "accuracy" else "train", name, v) for name, v in values.items()]
        for part in parts:
            matrix = results[part]["accuracy_matrix"][: task + 1]
            counts = results[part]["confusion"] if task + 1 == len(results["tasks"]) else None  # kept of the last task
            known = scores(matrix, results[part]["initial_accuracy"], counts)
            rows += [(task, None, part, f"accuracy/{j}", value) for j, value in enumerate(matrix[-1])]
            rows += [(task, None, part, name, value) for name, value in known.items() if value is not None]
        rows += [(task, None, "", *number) for number in diagnostics.items()]
    return rows
