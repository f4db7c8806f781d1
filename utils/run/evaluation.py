"""Measuring a classifier without changing its modes, buffers or random streams."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from datasets.data import Split, chunks, stratified
from methods import Method

SCORED_TRAINING_IMAGES = 2000  # of a task, for train scores


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


def confusion(method: Method, split: Split, task: int) -> np.ndarray:
    """Counts (K, K), true class x predicted class, on a split of the task of index `task`."""
    classes = len(method.learner.task_of)
    counts = torch.zeros(classes * classes, dtype=torch.long, device=split.y.device)
    with evaluating(method.learner), torch.inference_mode():
        for index in chunks(torch.arange(len(split), device=split.y.device)):
            x, y = split.batch(index)
            counts += (y * classes + method.predict(x, task)).bincount(minlength=len(counts))
    return counts.view(classes, classes).cpu().numpy()


def accuracy(method: Method, split: Split, task: int) -> float:
    """Share of a split of the task of index `task` that is classified correctly."""
    counts = confusion(method, split, task)
    return float(counts.trace() / counts.sum())


def scored_part(train: Split) -> Split:
    """The part of a task's training data on which train scores are measured: every class with its share."""
    return train.take(stratified(train.y, SCORED_TRAINING_IMAGES))


def memory(method: Method) -> dict[str, int]:
    """Numbers kept between tasks: parameters, the method's state (pixels of stored images included), real samples."""
    tensors = [value for value in method.state_dict().values() if isinstance(value, torch.Tensor)]
    return {
        "learner_parameters": sum(p.numel() for p in method.learner.parameters()),
        "method_floats": sum(value.numel() for value in tensors),
        "stored_real_samples": method.stored_real_samples,
    }
