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
from methods.mechanisms.distance import divergence
from models.learner import Learner


class Config(MethodConfig):
    """The distillation of LwF."""

    alpha: float = Field(1.0, ge=0)
    """weight of the distillation, next to the current task's loss (the paper's lambda_o)"""
    temperature: float = Field(2.0, gt=0)
    """of the distillation"""


class LwF(Method):
    """Cross-entropy + alpha * distillation of the network as it was when the last task ended.

    *Deviation* from the original code, where alpha also took away from the current task: at 1 nothing was left of it.
    """

    config: Config
    static = True
    off: ClassVar = {"alpha": 0.0}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.teacher = copy.deepcopy(learner).eval().requires_grad_(False)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if task.index == 0 or self.config.alpha == 0:
            return super().loss(x, y, task)
        learner, teacher = self.learner, self.teacher
        z = learner.embed(x)
        current = self.cross_entropy(z, y, task)
        new, old = learner.past_logits(z, task.index), teacher.past_logits(teacher.embed(x), task.index)
        if learner.scenario == "class":
            new, old = ([logits[:, learner.columns_before(task.index)] for logits in each] for each in (new, old))
        past = [divergence(*pair, self.config.temperature).mean() for pair in zip(new, old, strict=True)]
        return {"cross_entropy": current, "distillation": self.config.alpha * torch.stack(past).mean()}

    def end_task(self, task: Task) -> None:
        self.teacher.load_state_dict(self.learner.state_dict())
