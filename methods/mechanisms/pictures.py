"""Pictures of what a generator of images does."""

from collections.abc import Callable

from torch import Tensor

from datasets.data import Task
from methods import ImageGrid

PER_ROW = 10
"""Images per row of a picture."""


def reconstructions(task: Task, decoded: Callable[[Tensor, Tensor], Tensor]) -> ImageGrid:
    """Images of each class of a task, and below them their reconstructions by an autoencoder.

    Args:
        task: the one that was just learned.
        decoded: images (N, C, H, W) in [0, 1] and their classes (N,) -> the same, encoded and decoded.
    """
    rows = []
    for c in task.classes:
        x, y = task.train.take((task.train.y == c).nonzero()[:PER_ROW, 0]).batch(slice(None))
        rows += [(f"class {c}, real", x), (f"class {c}, decoded", decoded(x, y))]
    return ImageGrid(f"Images of task {task.index} and their reconstructions", rows)
