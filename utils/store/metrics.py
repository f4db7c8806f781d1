"""Scores of continual learning, one function per score registered by `@score`, and their summaries over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import TypedDict


@dataclass(frozen=True)
class Scored:
    """What a score is computed from: T tasks, all of them trained on."""

    r: np.ndarray  # accuracies (T, T); r[i, j]: on task j after training on task i; nan: a future task, not evaluated
    initial: np.ndarray  # accuracy (T,) of the untrained classifier; empty if it was not evaluated
    confusion: np.ndarray | None = None  # counts (K, K), true class x predicted, on all T tasks, if they are known
    images: np.ndarray | None = None  # number (T,) of images per task, if it is known
    calibration: np.ndarray | None = None  # (bins, 3), as of `evaluation.calibration`, on all T tasks, if it is known
    auroc: Sequence[float | None] = ()  # after each task (T,), of the classes seen against the others
    anytime: Sequence[Sequence[float]] = ()  # of each measurement inside a task, accuracies of the tasks so far


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

    None in the class scenario, where classes to come are never predicted, and where future tasks are not evaluated.
    """
    return float((s.r.diagonal(offset=1) - s.initial[1:]).mean()) if len(s.r) > 1 and len(s.initial) else None


@score("Forgetting")
def forgetting(s: Scored) -> float | None:
    """Mean over j < T-1 of max over i < T-1 of R[i, j] - R[T-1, j]. Chaudhry et al., ECCV 2018, eq. 3."""
    return float((np.nanmax(s.r[:-1, :-1], axis=0) - s.r[-1, :-1]).mean()) if len(s.r) > 1 else None


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


@score("ImageAccuracy")
def image_accuracy(s: Scored) -> float | None:
    """Final accuracy over the images of all tasks; FinalAccuracy is the mean over tasks."""
    return None if s.images is None else float(np.average(s.r[-1], weights=s.images))


@score("AverageIncrementalAccuracy")
def average_incremental_accuracy(s: Scored) -> float | None:
    """Mean over tasks i of the accuracy on all images of the classes seen up to i. Rebuffi et al., CVPR 2017."""
    if s.images is None:
        return None
    return float(np.mean([np.average(row[: i + 1], weights=s.images[: i + 1]) for i, row in enumerate(s.r)]))


@score("Plasticity")
def plasticity(s: Scored) -> float:
    """Mean accuracy R[j, j] on each task right after training on it. Learning accuracy in Riemer et al., ICLR 2019."""
    return float(s.r.diagonal().mean())


@score("AAA")
def average_anytime_accuracy(s: Scored) -> float | None:
    """Average anytime accuracy: mean over measurements inside tasks of the mean accuracy on the tasks so far.

    Caccia et al., ICLR 2022. None without `train.evaluate_every`.
    """
    return float(np.mean([np.mean(accuracies) for accuracies in s.anytime])) if len(s.anytime) else None


@score("ECE")
def expected_calibration_error(s: Scored) -> float | None:
    """Expected calibration error: mean over images of |accuracy - confidence| in their bin.

    Guo et al., ICML 2017, eq. 3. The confidence is the predicted class's softmax probability, in 15 equal bins.
    """
    if s.calibration is None:
        return None
    images, right, confidence = s.calibration.T
    return float(np.abs(right - confidence).sum() / images.sum())


@score("AUROC")
def auroc(s: Scored) -> float | None:
    """Mean over tasks i < T-1 of the area under the ROC curve of classes seen up to i against unseen ones.

    By `Method.score`, by default the largest softmax probability (Hendrycks and Gimpel, ICLR 2017). None in
    the task scenario, where the task gives the classes away.
    """
    known = [value for value in s.auroc if value is not None]
    return float(np.mean(known)) if known else None


def scores(
    split: Mapping[str, Any], tasks: int | None = None, confusion: Sequence[Sequence[int]] | np.ndarray | None = None
) -> dict[str, float | None]:
    """Every score by its name, from the results of a seed on a split (`results["test"]`).

    Of the first `tasks` tasks, by default all of those trained on, as if there were no others; `confusion` are the
    counts (K, K) on them, if they are known. What results of older versions lack leaves scores None.
    """
    t = tasks or len(split["accuracy_matrix"])
    calibration, images, inside = (split.get(name) for name in ("calibration", "images", "anytime"))
    scored = Scored(
        r=np.array(split["accuracy_matrix"][:t], dtype=float)[:, :t],
        initial=np.array(split["initial_accuracy"])[:t],
        confusion=None if confusion is None else np.array(confusion),
        images=images and np.array(images)[:t],
        calibration=calibration and calibration[t - 1] and np.array(calibration[t - 1]),
        auroc=split.get("auroc", ())[:t],
        anytime=[measured["accuracy"] for of_task in (inside or ())[:t] for measured in of_task],
    )
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


UNKNOWN = Summary(mean=None, std=None, ci95=None, values=[])


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
