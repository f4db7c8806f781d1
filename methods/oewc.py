"""Online EWC: one running Fisher information around the latest weights.

Schwarz et al., "Progress & Compress: a scalable framework for continual learning", ICML 2018 (arXiv 1805.06370),
section 4, equation 9.
"""

from typing import ClassVar

from pydantic import Field

from datasets.data import Task
from methods.mechanisms.anchored import Anchored
from methods.mechanisms.fisher import FisherConfig, fisher
from methods.mechanisms.gradients import flat_parameters


class Config(FisherConfig):
    """Online EWC's options."""

    gamma: float = Field(1.0, ge=0, le=1)
    """decay of the information of the tasks before, at the end of each task"""


class OnlineEWC(Anchored):
    """F <- gamma F + F_t around the weights after task t."""

    factor: ClassVar = 0.5

    def end_task(self, task: Task) -> None:
        config = self.config
        information = fisher(self.learner, task.train, task.index, config.fisher, config.fisher_samples, self.stream)
        self.importance = config.gamma * self.importance + information
        self.anchor = flat_parameters(self.learner).clone()
