"""Embedding Regularization: the embeddings of a few stored images are held to what they were.

Pomponi et al., "Efficient continual learning in neural networks with embedding regularization", Neurocomputing 2020
(arXiv 1909.03742). Not experience replay, which is `replay`.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Task, as_floats
from methods import Method, MethodConfig
from methods.mechanisms.distance import DISTANCES, Distance
from methods.mechanisms.memory import Memory, random_choice
from models.learner import Learner


class Config(MethodConfig):
    """The memory of Embedding Regularization, and its distance."""

    importance: float = Field(1.0, ge=0)
    """weight of the distance"""
    memory_per_task: int = Field(200, ge=1)
    """images stored of each task"""
    sample_size: int | None = Field(None, ge=1)
    """stored images per step; by default as many as current ones"""
    distance: Distance = "cosine"
    """cosine: 1 - cos(a, b); euclidean: |a - b|"""
    normalize: bool = False
    """L2-normalise embeddings first"""


class ER(Method):
    """Cross-entropy + importance * mean distance of stored images' embeddings to those stored with them."""

    title = "Embedding Regularization"
    config: Config
    static = True
    off: ClassVar = {"importance": 0.0}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        places = config.memory_per_task * len(learner.groups)
        self.memory = Memory(places, learner.encoder.shape, stream, embedding=learner.encoder.embedding_dim)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        terms = super().loss(x, y, task)
        if task.index == 0 or self.config.importance == 0:
            return terms
        stored = self.memory.draw(self.config.sample_size or len(y))
        pair = self.learner.embed(self.augment(stored["x"])), stored["embedding"]
        if self.config.normalize:
            pair = F.normalize(pair[0]), F.normalize(pair[1])
        distance = DISTANCES[self.config.distance](*pair).mean()
        return terms | {"distance": self.config.importance * distance}

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        kept = random_choice(task.train, self.config.memory_per_task, self.stream)
        self.memory.append(x=kept.x, y=kept.y, embedding=self.learner.embed(as_floats(kept.x)))
