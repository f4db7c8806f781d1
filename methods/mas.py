"""MAS: a weight is important if the outputs change with it; no labels are needed.

Aljundi et al., "Memory aware synapses: learning what (not) to forget", ECCV 2018 (arXiv 1711.09601), equations 3 to 5.
"""

import torch
from pydantic import Field

from datasets.data import Task
from methods.mechanisms.anchored import Anchored, AnchoredConfig
from methods.mechanisms.gradients import flat_parameters, mean_over_samples
from methods.mechanisms.memory import random_choice


class Config(AnchoredConfig):
    """The weight of MAS's penalty, and the images it is measured on."""

    samples: int | None = Field(1000, ge=1)
    """images of a task that importance is measured on; null: all"""


class MAS(Anchored):
    """Importance_i = sum over tasks of the mean over images of |d |logits|^2 / d weight_i|."""

    title = "MAS"
    config: Config

    def end_task(self, task: Task) -> None:
        some = random_choice(task.train, self.config.samples or len(task.train), self.stream)
        found = mean_over_samples(self.learner, some, task.index, lambda logits: logits.square().sum(), torch.abs)
        self.importance = self.importance + found
        self.anchor = flat_parameters(self.learner)
