"""ER-ACE: experience replay with an asymmetric cross-entropy.

Caccia et al., "New insights on reducing abrupt representation change in online continual learning", ICLR 2022
(arXiv 2104.05025), equation 3: L(current, classes of the current batch) + L(stored, all classes seen).
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Task, as_bytes
from methods import Method, MethodConfig
from methods.mechanisms.memory import Memory
from models.learner import NO_LOGIT, Learner


class Config(MethodConfig):
    """The memory of ER-ACE."""

    memory_size: int = Field(1000, ge=1)
    """images stored, of all tasks together: a reservoir of everything that was trained on"""
    sample_size: int | None = Field(None, ge=1)
    """stored images per step; by default as many as current ones"""


class ERACE(Method):
    """New classes do not push old ones away: the softmax of current images is over the classes of their batch.

    Old and new classes are told apart by the stored images, which include those of the current task. In the task
    scenario a head has no columns of old classes; in the domain scenario its columns are those of old classes, too.

    *Deviation*: on the first task the memory is filled but not replayed, so that all methods learn it alike.
    """

    title = "ER-ACE"
    config: Config
    augments_itself = True  # the memory keeps images as they are
    off: ClassVar = None

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.memory = Memory(config.memory_size, learner.encoder.shape, stream)

    def begin_task(self, task: Task) -> Task:
        # the number of stored samples to draw from must not change inside a task
        self.static = task.index == 0 or len(self.memory) == self.memory.capacity
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        logits, columns = self.learner(self.augment(x), task.index), self.learner.columns(y, task.index)
        if task.index == 0:
            terms = {"cross_entropy": F.cross_entropy(logits, columns)}
        else:
            absent = torch.ones_like(logits[0], dtype=torch.bool).index_fill(0, columns, False)
            stored = self.memory.draw(self.config.sample_size or len(y))
            past = self.learner.cross_entropy(self.learner.embed(self.augment(stored["x"])), stored["y"]).mean()
            terms = {"cross_entropy": F.cross_entropy(logits.masked_fill(absent, NO_LOGIT), columns), "replay": past}
        self.memory.add_reservoir(x=as_bytes(x), y=y)
        return terms

    def end_task(self, task: Task) -> None:
        self.memory.recount()
