"""FeTrIL: features of new classes, moved to the means of old ones, stand for the past.

Petit et al., "FeTrIL: feature translation for exemplar-free class-incremental learning", WACV 2023 (arXiv 2211.13131),
section 3.1, equation 1, with the most similar new class (k = 1).
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task, concatenate
from methods import Method, MethodConfig
from models.learner import Learner

Config = MethodConfig


class FeTrIL(Method):
    """Per old class, the features of the new class whose mean has the largest cosine, moved to the old class's mean.

    The heads are trained on them and on the new features, one class as often as another where classes are as large.

    *Deviation* from the paper: the layers above the features keep training across tasks, and are whatever `model.head`
    and `model.embedding` say; the paper trains a new linear classifier per task (`model.head: linear`).
    """

    title = "FeTrIL"
    works_on = "features"
    static = True
    off: ClassVar = None

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        shape = len(learner.task_of), *learner.encoder.shape
        self.means: Tensor = nn.Buffer(torch.zeros(shape, device=stream.device))

    def begin_task(self, task: Task) -> Task:
        if task.index == 0:
            return task
        past, real = self.learner.classes_before(task.index), task.train
        means = class_means(real, task.classes)
        moved = [self.moved(c, real, means, task.classes) for c in past]
        return replace(task, classes=past + task.classes, train=concatenate(real, *moved))

    def moved(self, old: int, real: Split, means: Tensor, classes: tuple[int, ...]) -> Split:
        """Pseudo-features of the class `old`, made of the new `classes`, whose means are (k, F)."""
        nearest = int(F.cosine_similarity(self.means[old], means).argmax())
        x = real.x[real.y == classes[nearest]]
        return Split(x + self.means[old] - means[nearest], torch.full_like(real.y[: len(x)], old))

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if task.index == 0:
            return super().loss(x, y, task)
        return {"cross_entropy": self.learner.cross_entropy(self.learner.embed(x), y).mean()}

    def end_task(self, task: Task) -> None:
        own = self.learner.groups[task.index]
        self.means[list(own)] = class_means(task.train, own)


def class_means(split: Split, classes: tuple[int, ...]) -> Tensor:
    """Mean features (k, F) of some classes of a split."""
    return torch.stack([split.x[split.y == c].double().mean(dim=0).to(split.x.dtype) for c in classes])
