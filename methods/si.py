"""SI: a weight is important if moving it lowered the loss.

Zenke, Poole and Ganguli, "Continual learning through synaptic intelligence", ICML 2017 (arXiv 1703.04200), eq. 3-5.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from datasets.data import Task
from methods.mechanisms.anchored import Anchored, AnchoredConfig
from methods.mechanisms.gradients import flat_gradients, flat_parameters
from models.learner import Learner


class Config(AnchoredConfig):
    """The weight of SI's penalty, and its damping."""

    importance: float = Field(10.0, ge=0)
    """c: loss + c * penalty"""
    damping: float = Field(0.1, gt=0)
    """xi, under the squared distance that a weight moved"""


class SI(Anchored):
    """Importance_i = sum over tasks of max(0, path_i) / (moved_i^2 + xi), path_i = -integral of gradient_i d weight_i.

    The integral is the sum over steps of gradient times movement, the gradient being that of the task's own loss: the
    penalty's is subtracted, exactly, since it is known.

    *Deviation* from the paper, whose equation 5 has no maximum: a task never makes a weight less important. In the
    authors' code the maximum is that of 0 and the sum over tasks.
    """

    title = "SI"
    config: Config

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.path: Tensor = nn.Buffer(torch.zeros_like(self.anchor))
        self.last_gradient: Tensor = nn.Buffer(torch.zeros_like(self.anchor))
        self.last_weights: Tensor = nn.Buffer(torch.zeros_like(self.anchor))

    def after_backward(self) -> None:
        weights = self._walk()
        from_penalty = 2 * self.strength * self.importance * (weights - self.anchor)
        self.last_gradient.copy_(flat_gradients(self.learner.parameters()) - from_penalty)
        self.last_weights.copy_(weights)

    def end_task(self, task: Task) -> None:
        weights = self._walk()
        moved = weights - self.anchor
        self.importance = self.importance + self.path.clamp(min=0) / (moved.square() + self.config.damping)
        self.anchor, self.path, self.last_gradient = weights, torch.zeros_like(weights), torch.zeros_like(weights)

    def _walk(self) -> Tensor:
        """Continue the path to the present weights; returns them."""
        weights = flat_parameters(self.learner)
        self.path.sub_(self.last_gradient * (weights - self.last_weights))
        return weights
