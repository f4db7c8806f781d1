"""EWC: weights that carry information about old tasks are held to the values they had.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017 (arXiv 1612.00796), equation 3.
"""

from typing import ClassVar

import torch

from datasets.data import Task
from methods.mechanisms.anchored import Anchored
from methods.mechanisms.fisher import FisherConfig, fisher
from methods.mechanisms.gradients import flat_parameters

Config = FisherConfig


class EWC(Anchored):
    """A quadratic penalty for each task: its Fisher information, around the weights it ended with.

    The sum of the tasks' penalties is itself a quadratic, with the summed information F = sum_t F_t around the weighted
    mean sum_t F_t theta_t / F, up to a constant without gradient. So the memory is two vectors however many tasks.

    *Deviation* from the original code, which squared the summed gradient instead of summing the squares.
    """

    factor: ClassVar = 0.5

    def end_task(self, task: Task) -> None:
        weights = flat_parameters(self.learner)
        information = self._information(task)
        total = self.importance + information
        weighted = self.importance * self.anchor + information * weights
        self.anchor = torch.where(total > 0, weighted / total.clamp(min=torch.finfo(total.dtype).tiny), weights)
        self.importance = total

    def _information(self, task: Task) -> torch.Tensor:
        config = self.config
        return fisher(self.learner, task.train, task.index, config.fisher, config.fisher_samples, self.stream)
