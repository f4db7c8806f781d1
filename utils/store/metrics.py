"""Scores of continual learning: pure functions of the accuracy matrix.

R is a T x T array, R[i, j] the accuracy on task j after training on task i; the whole matrix is known, future tasks
too. What is undefined (a mean over no task, a deviation of one seed) is None, never 0 or 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def final_accuracy(r: np.ndarray) -> float:
    """Mean accuracy over all tasks after the last."""
    return float(r[-1].mean())


def bwt(r: np.ndarray) -> float | None:
    """Backward transfer: mean over j < T-1 of R[T-1, j] - R[j, j]. Lopez-Paz and Ranzato, NeurIPS 2017, eq. 3."""
    return float((r[-1] - r.diagonal())[:-1].mean()) if len(r) > 1 else None


def fwt(r: np.ndarray, initial: np.ndarray) -> float | None:
    """Forward transfer: mean over j > 0 of R[j-1, j] - b[j], b (T,) the accuracy at initialisation. Same, eq. 4."""
    return float((r.diagonal(offset=1) - initial[1:]).mean()) if len(r) > 1 else None


def forgetting(r: np.ndarray) -> float | None:
    """Mean over j < T-1 of max over i < T-1 of R[i, j] - R[T-1, j]. Chaudhry et al., ECCV 2018, eq. 3."""
    return float((r[:-1, :-1].max(axis=0) - r[-1, :-1]).mean()) if len(r) > 1 else None


def total_accuracy(r: np.ndarray) -> float:
    """Mean of the lower triangle with the diagonal. Diaz-Rodriguez et al., 2018 (arXiv 1810.13166), eq. 1."""
    return float(r[np.tril_indices(len(r))].mean())


def backward_transfer(r: np.ndarray) -> float | None:
    """Mean over i > j of R[i, j] - R[j, j]. Diaz-Rodriguez et al., 2018, eq. 2."""
    return float((r - r.diagonal())[np.tril_indices(len(r), k=-1)].mean()) if len(r) > 1 else None


def last_backward_transfer(r: np.ndarray) -> float | None:
    """Mean over all T tasks of R[T-1, j] - R[j, j]: the last task, which adds 0, is counted."""
    return float((r[-1] - r.diagonal()).mean()) if len(r) > 1 else None


def f1(confusion: np.ndarray) -> float:
    """Macro F1 of a K x K confusion matrix (true class x predicted class), over the classes that occur."""
    hits = confusion.diagonal()
    occurring = confusion.sum(axis=1) > 0
    totals = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2 * hits[occurring] / totals[occurring]).mean())


def scores(
    matrix: Sequence[Sequence[float]], initial: Sequence[float], confusion: Sequence[Sequence[int]]
) -> dict[str, float | None]:
    """Every score, by its name in final_score.json, of the tasks learnt so far as if there were no others.

    Args:
        matrix: the accuracies after each task so far, on all tasks (t x T).
        initial: those of the untrained classifier (T).
        confusion: of all classes that occur in these tasks (K x K).
    """
    r, b = np.array(matrix)[:, : len(matrix)], np.array(initial)[: len(matrix)]
    return {
        "FinalAccuracy": final_accuracy(r),
        "BWT": bwt(r),
        "FWT": fwt(r, b),
        "Forgetting": forgetting(r),
        "TotalAccuracy": total_accuracy(r),
        "BackwardTransfer": backward_transfer(r),
        "LastBackwardTransfer": last_backward_transfer(r),
        "F1": f1(np.array(confusion)),
    }


def summary(values: Sequence[float | None]) -> dict[str, object]:
    """Mean, standard deviation (ddof 1), half-width of the 95% confidence interval (Student's t), and the values.

    None where undefined: no value for the mean, fewer than two for the other two.
    """
    from scipy.special import stdtrit  # Student's t; only now, since scipy is slow to import

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
    """A `summary` as people read it: mean ± std; - where there is no mean."""
    if value["mean"] is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"
