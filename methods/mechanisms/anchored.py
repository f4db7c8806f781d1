"""A quadratic penalty on changes of important weights: what EWC, online EWC, SI and MAS have in common."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from datasets.data import Split, Task
from methods import Method, MethodConfig
from methods.mechanisms.gradients import flat_parameters
from models.learner import Learner


class AnchoredConfig(MethodConfig):
    """The weight of the penalty."""

    importance: float = Field(1.0, ge=0)
    """lambda: loss + lambda * penalty"""


class Anchored(Method):
    """loss + strength * sum_i importance_i * (weight_i - anchor_i)^2, over all weights of the classifier."""

    config: AnchoredConfig
    static = True
    off: ClassVar = {"importance": 0.0}
    factor: ClassVar[float] = 1.0  # strength / the option `importance`

    def __init__(self, config: AnchoredConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        # both (P,) in the order of `parameters()`; `end_task` sets them
        self.anchor: Tensor = nn.Buffer(flat_parameters(learner))
        self.importance: Tensor = nn.Buffer(torch.zeros_like(self.anchor))

    @property
    def strength(self) -> float:
        """Weight of the penalty; 0 switches it off."""
        return self.factor * self.config.importance

    def penalty(self) -> Tensor:
        """sum_i importance_i * (weight_i - anchor_i)^2, a scalar."""
        change = parameters_to_vector(self.learner.parameters()) - self.anchor
        return (self.importance * change.square()).sum()

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        terms = super().loss(x, y, task)
        if task.index > 0 and self.strength > 0:
            terms["penalty"] = self.strength * self.penalty()
        return terms

    def diagnostics(self, dev: list[Split]) -> dict[str, float]:
        return {"largest_importance": float(self.importance.max())}
