"""Online EWC: one running Fisher information around the latest weights.

Schwarz et al., "Progress & Compress: a scalable framework for continual learning", ICML 2018 (arXiv 1805.06370),
section 4, equation 9.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from datasets.data import Task
from methods import MethodConfig
from methods.mechanisms.anchored import Anchored
from methods.mechanisms.fisher import Labels, fisher
from methods.mechanisms.gradients import flat_parameters
from utils.settings import AnyCase


class Config(MethodConfig):
    """Online EWC's options."""

    importance: float = Field(1000.0, ge=0)
    """lambda: loss + lambda / 2 * penalty"""
    gamma: float = Field(1.0, ge=0, le=1)
    """decay of the information of the tasks before, at the end of each task"""
    fisher: Annotated[Labels, AnyCase] = "exact"
    """exact: over all labels, as likely as the classifier takes them to be; empirical: of the true labels"""
    fisher_samples: int | None = Field(1000, ge=1)
    """images of a task that its Fisher information is measured on; null: all"""


class OnlineEWC(Anchored):
    """F <- gamma F + F_t around the weights after task t."""

    off: ClassVar = {"importance": 0.0}

    @property
    def strength(self) -> float:
        return self.config.importance / 2

    def end_task(self, task: Task) -> None:
        config = self.config
        information = fisher(self.learner, task.train, task.index, config.fisher, config.fisher_samples, self.stream)
        self.importance = config.gamma * self.importance + information
        self.anchor = flat_parameters(self.learner).clone()
