"""EWC: weights that carry information about old tasks are held to the values they had.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017 (arXiv 1612.00796), equation 3.
"""

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task
from methods.mechanisms.anchored import Anchored, AnchoredConfig
from methods.mechanisms.fisher import Labels, fisher
from methods.mechanisms.gradients import flat_parameters


class Config(AnchoredConfig):
    """EWC's options."""

    importance: float = Field(1000.0, ge=0)
    """lambda: loss + lambda / 2 * penalty; of ewc the penalties of all tasks are added up"""
    fisher: Labels = "exact"
    """exact: over all labels, weighted by the classifier's probabilities; empirical: of the true labels"""
    fisher_samples: int | None = Field(1000, ge=1)
    """images per task that its Fisher information is measured on; null: all"""


class EWC(Anchored):
    """A quadratic penalty for each task: its Fisher information, around the weights it ended with.

    The sum of the tasks' penalties is itself a quadratic, with the summed information F = sum_t F_t around the weighted
    mean sum_t F_t theta_t / F, up to a constant without gradient. So the memory is two vectors however many tasks.

    *Deviation* from the original code, which squared the summed gradient instead of summing the squares.
    """

    config: Config
    factor = 0.5

    def end_task(self, task: Task) -> None:
        weights, information = flat_parameters(self.learner), self._information(task)
        total = self.importance + information
        weighted = self.importance * self.anchor + information * weights
        self.anchor = torch.where(total > 0, weighted / total.clamp(min=torch.finfo(total.dtype).tiny), weights)
        self.importance = total

    def _information(self, task: Task) -> Tensor:
        config = self.config
        return fisher(self.learner, task.train, task.index, config.fisher, config.fisher_samples, self.stream)
