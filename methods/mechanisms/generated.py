"""Generated samples of past classes: their labels, what they are held to, and pictures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.data import Task
from methods import ImageGrid
from models.learner import Learner

PER_ROW = 10  # images per row of a picture


class Samples(NamedTuple):
    """Generated images or codes, and what they are held to."""

    x: Tensor  # (N, ...)
    y: Tensor  # classes (N,)
    targets: Tensor  # embeddings (N, d); (N, 0) if weights.er is 0
    answers: Tensor  # logits (N, k) when the last task ended

    def draw(self, n: int, stream: torch.Generator) -> "Samples":
        index = torch.randint(len(self.y), (n,), device=self.y.device, generator=stream)
        return Samples(*(part[index] for part in self))


def cycle_labels(classes: Sequence[int], n: int, device: torch.device) -> Tensor:
    """Labels (n,) that cycle through the classes."""
    return torch.tensor(tuple(classes), device=device)[torch.arange(n, device=device) % len(classes)]


def past_labels(learner: Learner, task: Task, asked: int | None, device: torch.device) -> Tensor:
    """Labels (N,) of the classes before a task: `asked`, by default one per image of it, but at least one per class."""
    past = learner.classes_before(task.index)
    return cycle_labels(past, max(asked or len(task.train), len(past)), device)


def reconstructions(task: Task, decoded: Callable[[Tensor, Tensor], Tensor]) -> ImageGrid:
    """Images of each class of a task, and below them the same: decoded(images (N, C, H, W), classes (N,))."""
    rows = []
    for c in task.classes:
        x, y = task.train.take((task.train.y == c).nonzero()[:PER_ROW, 0]).batch(slice(None))
        rows += [(f"class {c}, real", x), (f"class {c}, decoded", decoded(x, y))]
    return ImageGrid(f"Images of task {task.index} and their reconstructions", rows)
