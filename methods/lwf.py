"""LwF: on the new task's images, the outputs for the old tasks are held to those of the previous network.

Li and Hoiem, "Learning without forgetting", ECCV 2016 (arXiv 1606.09282), equations 1 to 3.
"""

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task
from methods import Method, MethodConfig
from methods.mechanisms.distance import past_divergences
from models.learner import Learner


class Config(MethodConfig):
    """The distillation of LwF."""

    alpha: float = Field(1.0, ge=0)
    """weight of the distillation, next to the current task's loss; the paper's lambda_o is alpha * temperature^2"""
    temperature: float = Field(2.0, gt=0)
    """of the distillation"""


class LwF(Method):
    """Cross-entropy + alpha * distillation of the network as it was when the last task ended.

    *Deviation* from the paper: the distillation is the mean over old heads, not their sum, so that its weight does not
    grow with the tasks; it has the factor temperature^2 (see `divergence`); and the new head is not warmed up alone.

    *Deviation* from the original code, which scaled the current task's loss by 1 - alpha.
    """

    title = "LwF"
    config: Config
    static = True
    off: ClassVar = {"alpha": 0.0}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.teacher = copy.deepcopy(learner).eval().requires_grad_(False)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if task.index == 0 or self.config.alpha == 0:
            return super().loss(x, y, task)
        z = self.learner.embed(x)
        past = past_divergences(self.learner, z, self.teacher, x, task.index, self.config.temperature)
        return {"cross_entropy": self.cross_entropy(z, y, task), "distillation": self.config.alpha * past.mean()}

    def end_task(self, task: Task) -> None:
        self.teacher.load_state_dict(self.learner.state_dict())
