"""Measuring a classifier without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from datasets.data import Split, chunks
from methods import Method

SCORED_TRAINING_IMAGES = 2000
"""Train scores are measured on the first so many training images of a task (their order is the data set's)."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; afterwards every part's mode is as before."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def confusion(method: Method, split: Split, task: int) -> np.ndarray:
    """Counts (K, K) of true class x predicted class on a split of the task `task`."""
    classes = len(method.learner.task_of)
    counts = torch.zeros(classes * classes, dtype=torch.long, device=split.y.device)
    with evaluating(method.learner), torch.inference_mode():
        for index in chunks(torch.arange(len(split), device=split.y.device)):
            x, y = split.batch(index)
            counts += (y * classes + method.predict(x, task)).bincount(minlength=len(counts))
    return counts.view(classes, classes).cpu().numpy()


def accuracy(method: Method, split: Split, task: int) -> float:
    """Share of a split of the task `task` that is classified right."""
    counts = confusion(method, split, task)
    return float(counts.trace() / counts.sum())


def scored_part(train: Split) -> Split:
    """The part of a task's training data that train scores are measured on."""
    return train.take(slice(0, SCORED_TRAINING_IMAGES))


def memory(method: Method) -> dict[str, int]:
    """Numbers held between tasks: the classifier's, the method's (stored images' pixels too), and real samples kept."""
    tensors = [value for value in method.state_dict().values() if isinstance(value, torch.Tensor)]
    return {
        "learner_parameters": sum(p.numel() for p in method.learner.parameters()),
        "method_floats": sum(value.numel() for value in tensors),
        "stored_real_samples": method.stored_real_samples,
    }
