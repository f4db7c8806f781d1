"""Experience replay: a few stored images of the past are trained on with the new ones.

Rolnick et al., "Experience replay for continual learning", NeurIPS 2019 (arXiv 1811.11682); Chaudhry et al., "On tiny
episodic memories in continual learning", 2019 (arXiv 1902.10486).
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task
from methods import Method, MethodConfig
from methods.mechanisms.memory import Memory, random_choice
from models.learner import Learner
from utils.settings import AnyCase


class Config(MethodConfig):
    """The memory of experience replay."""

    memory_size: int = Field(1000, ge=1)
    """images stored, of all tasks together"""
    buffer: Annotated[Literal["balanced", "reservoir"], AnyCase] = "balanced"
    """balanced: as many of each class seen; reservoir: every image seen with the same probability"""
    sample_size: int | None = Field(None, ge=1)
    """stored images per step; by default as many as current ones"""
    share: float | None = Field(None, ge=0, le=1)
    """w: (1 - w) * current loss + w * loss of stored images; by default the share of past tasks among those seen"""


class Replay(Method):
    """A memory of real images, filled when a task ends.

    *Deviations* from Chaudhry et al.: the memory is filled when a task ends, not with every batch, is balanced over
    classes by default, and the two losses have the weights of `share`, not the same. Rolnick et al. also distil.
    """

    title = "Experience Replay"
    config: Config
    static = True
    off: ClassVar = {"share": 0.0}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.memory = Memory(config.memory_size, learner.encoder.shape, stream)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        terms = super().loss(x, y, task)
        share = task.index / (task.index + 1) if self.config.share is None else self.config.share
        if task.index == 0 or share == 0:
            return terms
        stored = self.memory.draw(self.config.sample_size or len(y))
        past = self.learner.cross_entropy(self.learner.embed(self.augment(stored["x"])), stored["y"]).mean()
        return {"cross_entropy": (1 - share) * terms["cross_entropy"], "replay": share * past}

    def end_task(self, task: Task) -> None:
        offered = random_choice(task.train, len(task.train), self.stream)  # all of them, in random order
        add = self.memory.add_balanced if self.config.buffer == "balanced" else self.memory.add_reservoir
        add(x=offered.x, y=offered.y)
