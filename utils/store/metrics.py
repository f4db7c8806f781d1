"""Scores of continual learning: one function per score, registered by `@score` under its name in final_score.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scored:
    """What a score is computed from: T tasks, all of them trained on.

    Args:
        r: accuracy matrix (T, T); r[i, j] is the accuracy on task j after training on task i, future tasks included.
        initial: accuracy (T,) of the untrained classifier.
        confusion: counts (K, K), true class x predicted class, on all T tasks after the last; None where it is not
            known (in metrics.csv, after a task before the last).
    """

    r: np.ndarray
    initial: np.ndarray
    confusion: np.ndarray | None = None


Score = Callable[[Scored], float | None]
SCORES: dict[str, Score] = {}
"""Name -> score; None where it is undefined, such as a mean over no task. In the order of final_score.json."""


def score(name: str) -> Callable[[Score], Score]:
    """Register a score: it then appears in final_score.json, final_score.log, experiment.log and metrics.csv."""

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
    """Forward transfer: mean over j > 0 of R[j-1, j] - b[j], b (T,) the accuracy at initialisation. Same, eq. 4."""
    return float((s.r.diagonal(offset=1) - s.initial[1:]).mean()) if len(s.r) > 1 else None


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

    Args:
        matrix: accuracies after each of them, on all tasks (t x T).
        initial: accuracies of the untrained classifier (T).
        confusion: counts on the t tasks (K x K), if they are known.
    """
    count = len(matrix)
    counts = None if confusion is None else np.array(confusion)
    scored = Scored(np.array(matrix)[:, :count], np.array(initial)[:count], counts)
    return {name: function(scored) for name, function in SCORES.items()}


def summary(values: Sequence[float | None]) -> dict[str, object]:
    """Mean, standard deviation (ddof 1), half-width of the 95% confidence interval (Student's t), and the values.

    None where undefined: the mean of no value, the other two of fewer than two.
    """
    from scipy.special import stdtrit  # Student's t; imported here because scipy is slow to import

    known = np.array([value for value in values if value is not None], dtype=float)
    n = len(known)
    std = float(known.std(ddof=1)) if n > 1 else None
    return {
        "mean": float(known.mean()) if n else None,
        "std": std,
        "ci95": float(stdtrit(n - 1, 0.975) * std / np.sqrt(n)) if n > 1 else None,
        "values": list(values),
    }


def plus_minus(value: Mapping[str, Any], digits: int = 4) -> str:
    """A `summary` as text: mean ± std, or - where there is no mean."""
    if value["mean"] is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"
