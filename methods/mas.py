"""MAS: a weight is important if the outputs change with it; no labels are needed.

Aljundi et al., "Memory aware synapses: learning what (not) to forget", ECCV 2018 (arXiv 1711.09601), equations 3 to 5.
"""

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task
from methods import MethodConfig
from methods.mechanisms.anchored import Anchored
from methods.mechanisms.buffer import random_choice
from methods.mechanisms.gradients import flat_parameters, image_chunks, mean_over_samples


class Config(MethodConfig):
    """MAS's options."""

    importance: float = Field(1.0, ge=0)
    """lambda: loss + lambda * penalty"""
    samples: int | None = Field(1000, ge=1)
    """images of a task that importance is measured on; null: all"""


class MAS(Anchored):
    """Importance_i = sum over tasks of the mean over images of |d |logits|^2 / d weight_i|."""

    def end_task(self, task: Task) -> None:
        samples = self.config.samples or len(task.train)
        chunks = image_chunks(random_choice(task.train, samples, self.stream))
        self.importance = self.importance + mean_over_samples(
            self.learner, task.index, chunks, _squared_norm, torch.abs
        )
        self.anchor = flat_parameters(self.learner).clone()


def _squared_norm(logits: Tensor) -> Tensor:
    return logits.square().sum()
