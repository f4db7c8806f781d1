"""Joint training: per task a new classifier is trained on the data of all tasks so far. The upper reference."""

import copy

import torch

from datasets.data import Task
from methods import MethodConfig
from methods.cumulative import Cumulative
from models.learner import Learner


class Joint(Cumulative):
    """Cumulative training that starts each task from the weights of the untrained classifier."""

    title = "Joint"

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.untrained = copy.deepcopy(learner).requires_grad_(False)

    def begin_task(self, task: Task) -> Task:
        self.learner.load_state_dict(self.untrained.state_dict())
        return super().begin_task(task)
