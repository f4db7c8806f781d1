"""A-GEM: a step must not raise the average loss of what is stored.

Chaudhry et al., "Efficient lifelong learning with A-GEM", ICLR 2019 (arXiv 1812.00420), equation 11.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from datasets.data import Split, Task
from methods import Diagnostic, Method, MethodConfig
from methods.mechanisms.gradients import flat_gradients, gradient_of, set_gradients
from methods.mechanisms.memory import Memory, random_choice
from models.learner import Learner


class Config(MethodConfig):
    """The memory of A-GEM."""

    memory_per_task: int = Field(200, ge=0)
    """images stored of each task"""
    sample_size: int = Field(256, ge=1)
    """stored images, of all past tasks, per reference gradient"""


class AGEM(Method):
    """Where the gradient g opposes the memory's gradient r, the part of g along r is taken out."""

    title = "A-GEM"
    config: Config
    static = True
    off: ClassVar = {"memory_per_task": 0}
    diagnosed: ClassVar = {"violations": Diagnostic("steps whose gradient opposed the memory's (share of all so far)")}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.memory = Memory(config.memory_per_task * len(learner.groups), learner.encoder.shape, stream)
        self.steps: Tensor = nn.Buffer(torch.zeros((), dtype=torch.long, device=stream.device))
        self.violations: Tensor = nn.Buffer(torch.zeros((), dtype=torch.long, device=stream.device))

    def after_backward(self) -> None:
        if len(self.memory) == 0:
            return
        parameters = list(self.learner.parameters())
        stored = self.memory.draw(self.config.sample_size)
        loss = self.learner.cross_entropy(self.learner.embed(self.augment(stored["x"])), stored["y"]).mean()
        gradient, reference = flat_gradients(parameters), gradient_of(loss, parameters)
        self.steps += 1
        self.violations += torch.dot(gradient, reference) < 0
        set_gradients(parameters, project(gradient, reference))

    def end_task(self, task: Task) -> None:
        kept = random_choice(task.train, self.config.memory_per_task, self.stream)
        self.memory.append(x=kept.x, y=kept.y)

    def diagnostics(self, dev: list[Split]) -> dict[str, float]:
        return {"violations": float(self.violations / self.steps.clamp(min=1))}


def project(gradient: Tensor, reference: Tensor) -> Tensor:
    """g - (g.r / r.r) r where g.r < 0, else g; all (P,). A reference of zeros changes nothing."""
    product = torch.dot(gradient, reference)
    share = product / torch.dot(reference, reference).clamp(min=torch.finfo(reference.dtype).tiny)
    return torch.where(product < 0, gradient - share * reference, gradient)
