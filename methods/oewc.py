"""Online EWC: one running Fisher information around the latest weights.

Schwarz et al., "Progress & Compress", ICML 2018 (arXiv 1805.06370), section 4, equation 9.
"""

from pydantic import Field

from datasets.data import Task
from methods import ewc
from methods.mechanisms.gradients import flat_parameters


class Config(ewc.Config):
    """As those of `ewc`, with a decay."""

    gamma: float = Field(1.0, ge=0, le=1)
    """decay of the information of the tasks before, at the end of each task"""


class OnlineEWC(ewc.EWC):
    """F <- gamma F + F_t around the weights after task t.

    *Deviations* from the paper: the information of each task is not normalised, so that tasks with larger gradients
    weigh more; and the penalty has F where the paper has gamma F, which is another `importance`.
    """

    title = "Online EWC"
    config: Config

    def end_task(self, task: Task) -> None:
        self.importance = self.config.gamma * self.importance + self._information(task)
        self.anchor = flat_parameters(self.learner)
