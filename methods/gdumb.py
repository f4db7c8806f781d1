"""GDumb: a class-balanced memory, and a new classifier trained on nothing else.

Prabhu, Torr and Dokania, "GDumb: a simple approach that questions our progress in continual learning", ECCV 2020,
algorithms 1 (greedy balancing sampler) and 2 (dumb learner).
"""

import copy
from dataclasses import replace

import torch
from pydantic import Field

from datasets.data import Task
from methods import MethodConfig
from methods.cumulative import Cumulative
from methods.mechanisms.memory import balanced_choice
from models.learner import Learner


class Config(MethodConfig):
    """The memory of GDumb."""

    memory_size: int = Field(1000, ge=1)
    """images stored, of all tasks together; an epoch is a pass over them"""


class GDumb(Cumulative):
    """Each task starts from the untrained weights and trains on the memory alone.

    Its first task is `naive`'s only if all images of that task fit into the memory.

    *Deviation* from the paper: `train` sets the schedule, and there is no CutMix; where a class is too full, surplus
    images are dropped together, not one per new image.
    """

    title = "GDumb"
    config: Config

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self._untrained = copy.deepcopy(learner.state_dict())  # no memory: the seed gives them again

    def begin_task(self, task: Task) -> Task:
        self.learner.load_state_dict(self._untrained)
        everything = super().begin_task(task)
        kept = balanced_choice(everything.train.y, self.config.memory_size, self.stream).sort().values
        return replace(everything, train=everything.train.take(kept))
