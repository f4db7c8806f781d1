"""Cumulative training: a task is trained with the data of all tasks before, from the weights of the last one."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from datasets.data import Split, Task, concatenate, stored
from methods import Method, MethodConfig
from models.learner import Learner


class Cumulative(Method):
    """Keeps all data; an epoch is a pass over all of it."""

    title = "Cumulative"
    static = True
    off: ClassVar = None

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.x: Tensor = nn.Buffer(stored(0, learner.encoder.shape, stream.device))
        self.y: Tensor = nn.Buffer(torch.zeros(0, dtype=torch.long, device=stream.device))

    def begin_task(self, task: Task) -> Task:
        past = self.learner.classes_before(task.index)
        return replace(task, classes=past + task.classes, train=concatenate(Split(self.x, self.y), task.train))

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if task.index == 0:
            return super().loss(x, y, task)
        return {"cross_entropy": self.learner.cross_entropy(self.learner.embed(x), y).mean()}

    def end_task(self, task: Task) -> None:
        self.x, self.y = task.train.x, task.train.y

    @property
    def stored_real_samples(self) -> int:
        return len(self.y)
