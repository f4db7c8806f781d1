"""iCaRL: exemplars chosen by herding, distillation, and the nearest mean of exemplars as the classifier.

Rebuffi et al., "iCaRL: incremental classifier and representation learning", CVPR 2017 (arXiv 1611.07725), algorithms 1
(classification), 3 (training), 4 (herding) and 5 (reduction).
"""

import copy
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task, concatenate, mapped
from methods import Method, MethodConfig
from methods.mechanisms.distance import past_divergences
from methods.mechanisms.memory import Memory
from models.learner import NO_LOGIT, Learner
from utils.settings import BadInput

SHARPNESS = 100.0  # of the softmax over cosines, which has probabilities; in the domain scenario they are added


class Config(MethodConfig):
    """The exemplars of iCaRL, and its distillation."""

    memory_size: int = Field(1000, ge=1)
    """exemplars of all classes together, at least one per class"""
    distillation: float = Field(1.0, ge=0)
    """weight of the distillation of the old classes' outputs"""
    temperature: float = Field(2.0, gt=0)
    """of the distillation"""


class ICaRL(Method):
    """Trains on the task's images and the exemplars together; predicts the class whose exemplars' mean is nearest.

    Embeddings are brought to length 1, and so is each mean. Until a task ends its classes have no mean, and the heads
    predict.

    *Deviation* from the paper: softmax with cross-entropy and its distillation, as most later implementations have it,
    not one binary cross-entropy per class; so the first task is learned as all methods learn it.
    """

    title = "iCaRL"
    config: Config
    static = True
    off: ClassVar = None

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        classes = len(learner.task_of)
        if config.memory_size < classes:
            raise BadInput(f"method.memory_size: at least one per class, {classes}, got {config.memory_size}")
        self.memory = Memory(config.memory_size, learner.encoder.shape, stream)  # by class, in herding's order
        self.means: Tensor = nn.Buffer(torch.zeros(classes, learner.encoder.embedding_dim, device=stream.device))
        self.known: Tensor = nn.Buffer(torch.zeros(classes, dtype=torch.bool, device=stream.device))  # have a mean
        self.teacher: list[Learner] = []  # during a task, the classifier when the last one ended; in a list: no state

    def stored(self) -> Split:
        """The exemplars."""
        return Split(self.memory.x[: len(self.memory)], self.memory.y[: len(self.memory)])

    def begin_task(self, task: Task) -> Task:
        if task.index == 0:
            return task
        self.teacher = [copy.deepcopy(self.learner).eval().requires_grad_(False)]
        classes = self.learner.classes_before(task.index + 1)
        return replace(task, classes=classes, train=concatenate(self.stored(), task.train))

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if not self.teacher:
            return super().loss(x, y, task)
        z = self.learner.embed(x)
        terms = {"cross_entropy": self.learner.cross_entropy(z, y).mean()}
        if self.config.distillation:
            past = past_divergences(self.learner, z, self.teacher[0], x, task.index, self.config.temperature)
            terms["distillation"] = self.config.distillation * past.mean()
        return terms

    def end_task(self, task: Task) -> None:
        """Cut the old classes' exemplars down to their first, choose those of the new classes, and find all means."""
        self.teacher, learner = [], self.learner
        seen, new = learner.classes_before(task.index + 1), learner.groups[task.index]
        each, stored, kept = self.config.memory_size // len(seen), self.stored(), list[Split]()
        for c in seen:
            if c in new:
                of_class = task.train.take(task.train.y == c)
                kept.append(of_class.take(herd(F.normalize(mapped(learner.embed, of_class.x)), each)))
            else:
                kept.append(stored.take((stored.y == c).nonzero()[:each, 0]))
            self.means[c] = F.normalize(F.normalize(mapped(learner.embed, kept[-1].x)).mean(dim=0), dim=0)
        self.memory.replace(x=torch.cat([part.x for part in kept]), y=torch.cat([part.y for part in kept]))
        self.known[list(seen)] = True

    def logits(self, x: Tensor, task: int) -> Tensor:
        learner = self.learner
        own = torch.tensor(learner.groups[task], device=x.device)
        if not bool((self.known[own] if learner.scenario == "task" else self.known | learner.unseen).all()):
            return super().logits(x, task)
        nearness = F.normalize(self.embed(x)) @ self.means.T  # of vectors of length 1
        scores = (SHARPNESS * nearness).masked_fill(~self.known, NO_LOGIT)
        return learner.as_class_logits(scores.log_softmax(dim=1), task)


def herd(z: Tensor, n: int) -> Tensor:
    """Indices (min(n, N),) of vectors z (N, d), in an order in which the mean of the first k is nearest to that of all.

    Algorithm 4: each next one is the one, of those left, with which the mean of all chosen comes nearest.
    """
    mean, total = z.mean(dim=0), torch.zeros_like(z[0])
    left, chosen = torch.ones_like(z[:, 0], dtype=torch.bool), list[Tensor]()
    for k in range(1, min(n, len(z)) + 1):
        distance = torch.linalg.vector_norm(mean - (total + z) / k, dim=1).masked_fill(~left, torch.inf)
        nearest = distance.argmin()
        left[nearest], total = False, total + z[nearest]
        chosen.append(nearest)
    return torch.stack(chosen)
