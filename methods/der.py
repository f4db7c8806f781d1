"""DER: stored images with the logits that they once had; with beta > 0 it is DER++.

Buzzega et al., "Dark experience for general continual learning", NeurIPS 2020 (arXiv 2004.07211), equations 5 and 6.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Task, as_bytes
from methods import Method, MethodConfig
from methods.mechanisms.memory import Memory
from models.learner import NO_LOGIT, Learner


class Config(MethodConfig):
    """The memory of DER, and the weights of its two terms."""

    alpha: float = Field(0.5, ge=0)
    """weight of the mean squared error between logits and stored logits"""
    beta: float = Field(0.5, ge=0)
    """weight of the cross-entropy of a second batch of stored images (DER++); 0: DER"""
    memory_size: int = Field(500, ge=1)
    """images stored, of all tasks together: a reservoir of everything that was trained on"""
    sample_size: int | None = Field(None, ge=1)
    """stored images per step, in each of the two batches; by default as many as current ones"""


class DER(Method):
    """Cross-entropy + alpha * mean (logits - stored logits)^2 + beta * cross-entropy of stored images.

    The reservoir takes every batch as it is trained on, with the logits of that moment, under each image's own head.

    *Deviation*: these logits are those of evaluation mode, without dropout and with running statistics, so that they
    are the answer and not a draw of it; where the two modes do not differ they are the paper's.

    *Deviation*: the squared error is the mean over the head's columns, as in the authors' code, where the paper has the
    sum; columns that were not there when an image was stored count as equal.

    *Deviation*: on the first task the memory is filled but not replayed, so that all methods learn it alike.
    """

    title = "DER"
    config: Config
    augments_itself = True  # the memory keeps images as they are
    off: ClassVar = {"alpha": 0.0, "beta": 0.0}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.memory = Memory(config.memory_size, learner.encoder.shape, stream, logits=max(learner.widths))

    def begin_task(self, task: Task) -> Task:
        # the number of stored samples to draw from must not change inside a task
        self.static = task.index == 0 or len(self.memory) == self.memory.capacity
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        config, augmented = self.config, self.augment(x)
        terms = super().loss(augmented, y, task)
        if config.alpha == config.beta == 0:
            return terms
        count = config.sample_size or len(y)
        if task.index > 0 and config.alpha:
            stored = self.memory.draw(count)
            now = self.learner.mixed_logits(self.learner.embed(self.augment(stored["x"])), stored["y"])
            now = torch.where(stored["logits"] == NO_LOGIT, NO_LOGIT, now)  # columns that were not there then
            terms["logits"] = config.alpha * F.mse_loss(now, stored["logits"])
        if task.index > 0 and config.beta:
            stored = self.memory.draw(count)
            past = self.learner.cross_entropy(self.learner.embed(self.augment(stored["x"])), stored["y"])
            terms["replay"] = config.beta * past.mean()
        answers = self._answers(augmented, task)
        padded = F.pad(answers, (0, max(self.learner.widths) - answers.shape[1]), value=NO_LOGIT)
        self.memory.add_reservoir(x=as_bytes(x), y=y, logits=padded)
        return terms

    @torch.no_grad()
    def _answers(self, x: Tensor, task: Task) -> Tensor:
        """The logits (B, k) in evaluation mode."""
        training = self.learner.training
        answers = self.learner.eval()(x, task.index)
        self.learner.train(training)
        return answers

    def end_task(self, task: Task) -> None:
        self.memory.recount()
