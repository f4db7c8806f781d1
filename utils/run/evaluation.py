"""Measuring a classifier without changing its modes, buffers or random streams."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from datasets.data import Split, at_once, stratified
from methods import Method

SCORED_TRAINING_IMAGES = 2000  # of a task, for train scores
CALIBRATION_BINS = 15  # as in Guo et al., ICML 2017


class Predictions(NamedTuple):
    """Of N images, in their order."""

    y: np.ndarray  # global class ids (N,)
    predicted: np.ndarray  # global class ids (N,)
    confidence: np.ndarray | None  # softmax probability (N,) of the predicted class; None if the method has no logits
    score: np.ndarray | None  # `Method.score` (N,), where it was asked for

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return float((self.predicted == self.y).mean())


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; each submodule's own mode is restored after."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def predict(method: Method, split: Split, task: int, scored: bool = False) -> Predictions:
    """What a method makes of a split of the task of index `task`, in one pass; `scored`: with `Method.score`."""
    has_logits = type(method).predict is Method.predict
    predicted, confidence, score = list[Tensor](), list[Tensor](), list[Tensor]()
    with evaluating(method.learner), torch.inference_mode():
        for index in torch.arange(len(split), device=split.y.device).split(at_once(split.x)):
            x, _ = split.batch(index)
            if not has_logits:
                predicted.append(method.predict(x, task))
                continue
            logits = method.logits(x, task)
            predicted.append(method.learner.class_of(logits, task))
            confidence.append(logits.double().softmax(dim=1).amax(dim=1))
            if scored:
                score.append(method.score(x, logits, task))
    certain, known = (torch.cat(parts).cpu().numpy() if parts else None for parts in (confidence, score))
    return Predictions(split.y.cpu().numpy(), torch.cat(predicted).cpu().numpy(), certain, known)


def accuracy(method: Method, split: Split, task: int) -> float:
    """Share of a split of the task of index `task` that is classified correctly."""
    return predict(method, split, task).accuracy


def confusion(found: list[Predictions], classes: int) -> np.ndarray:
    """Counts (K, K), true class x predicted class, of K classes."""
    pairs = np.concatenate([one.y * classes + one.predicted for one in found])
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def calibration(found: list[Predictions]) -> list[list[float]] | None:
    """Per bin of the confidence: images, correct ones, sum of their confidences; None if the method has no logits.

    The bins are of equal width, bin m of M holding ((m - 1) / M, m / M].
    """
    if any(one.confidence is None for one in found):
        return None
    confidence = np.nan_to_num(np.concatenate([one.confidence for one in found if one.confidence is not None]))
    right = np.concatenate([one.predicted == one.y for one in found])
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    sums = [np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, right, confidence)]
    return np.stack(sums, axis=1).astype(float).tolist()


def auroc(seen: list[Predictions], unseen: list[Predictions]) -> float | None:
    """Probability that an image of a seen class has a higher score than one of an unseen class; ties count
    half. None if there is no such image or no score."""
    low, high = ([one.score for one in found if one.score is not None] for found in (unseen, seen))
    if not low or not high:
        return None
    negative, positive = (np.concatenate(scores) for scores in (low, high))
    negative = np.sort(np.where(np.isnan(negative), -np.inf, negative))  # nan: looks like nothing that was seen
    positive = np.where(np.isnan(positive), -np.inf, positive)
    wins = sum(int(np.searchsorted(negative, positive, side).sum()) for side in ("left", "right"))
    return wins / (2 * len(positive) * len(negative))


def scored_part(train: Split) -> Split:
    """The part of a task's training data on which train scores are measured: every class with its share."""
    return train.take(stratified(train.y, SCORED_TRAINING_IMAGES))


def memory(method: Method) -> dict[str, int]:
    """The classifier's parameters; the numbers and bytes of the method's state, and the real samples among it.

    The state is what is held between tasks besides the classifier: statistics, generators, teachers, stored images (a
    byte per value of a pixel).
    """
    tensors = [value for value in method.state_dict().values() if isinstance(value, torch.Tensor)]
    return {
        "learner_parameters": sum(p.numel() for p in method.learner.parameters()),
        "method_floats": sum(value.numel() for value in tensors),
        "method_bytes": sum(value.nbytes for value in tensors),
        "stored_real_samples": method.stored_real_samples,
    }
