"""GEM: a step must not raise the loss of any past task on what is stored of it.

Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017 (arXiv 1706.08840), eq. 8-11.
"""

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.linalg import solve_triangular
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task
from methods import Diagnostic, Method, MethodConfig
from methods.mechanisms.gradients import flat_gradients, gradient_of, set_gradients
from methods.mechanisms.memory import Memory, random_choice
from models.learner import Learner

RIDGE = 1e-7  # added to the diagonal of the Gram matrix, relative to its mean, so that it can be factored


class Config(MethodConfig):
    """The memory of GEM, and its margin."""

    memory_per_task: int = Field(200, ge=0)
    """images stored of each task; all of them are used at each step"""
    margin: float = Field(0.0, ge=0)
    """lower bound of each past task's coefficient in a projected gradient (the paper's gamma, 0.5 there)"""


class GEM(Method):
    """The gradient nearest to the current one that opposes no past task's gradient.

    *Deviation* from the original code: one projection of the whole gradient, not one for each tensor; the current
    head's part of it is kept; where nothing is violated nothing is changed; a task's memory is a random choice of its
    images, not its last ones.
    """

    title = "GEM"
    config: Config
    off: ClassVar = {"memory_per_task": 0}
    diagnosed: ClassVar = {
        "violations": Diagnostic("steps whose gradient opposed a past task's (share of all so far)"),
        "fallbacks": Diagnostic("projections without a solution, replaced by dropping the step (number)"),
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.memory = Memory(config.memory_per_task * len(learner.groups), learner.encoder.shape, stream)
        self.counts: Tensor = nn.Buffer(torch.zeros(3, dtype=torch.long))  # steps, violations, fallbacks
        self.past: list[Split] = []

    def begin_task(self, task: Task) -> Task:
        filled = Split(self.memory.x[: len(self.memory)], self.memory.y[: len(self.memory)])
        task_of = self.learner.task_of[filled.y]
        self.past = [filled.take(task_of == t) for t in range(task.index)] if len(filled) else []
        return task

    def after_backward(self) -> None:
        if not self.past:
            return
        parameters = list(self.learner.parameters())
        gradient = flat_gradients(parameters)
        memories = torch.stack([self._gradient_of(t, parameters) for t in range(len(self.past))])  # (tasks, P)
        self.counts[0] += 1
        if (memories @ gradient >= 0).all():
            return
        self.counts[1] += 1
        projected = project(gradient, memories, self.config.margin)
        if projected is None:
            self.counts[2] += 1
            projected = torch.zeros_like(gradient)
        set_gradients(parameters, projected)

    def _gradient_of(self, task: int, parameters: list[nn.Parameter]) -> Tensor:
        x, y = self.past[task].batch(slice(None))
        return gradient_of(
            F.cross_entropy(self.learner(self.augment(x), task), self.learner.columns(y, task)), parameters
        )

    def end_task(self, task: Task) -> None:
        self.past = []
        kept = random_choice(task.train, self.config.memory_per_task, self.stream)
        self.memory.append(x=kept.x, y=kept.y)

    def diagnostics(self, dev: list[Split]) -> dict[str, float]:
        steps, violations, fallbacks = self.counts.tolist()
        return {"violations": violations / max(steps, 1), "fallbacks": float(fallbacks)}


def project(gradient: Tensor, memories: Tensor, margin: float = 0.0) -> Tensor | None:
    """The vector nearest to g (P,) whose inner products with the rows of G (t, P) are not negative.

    The dual (equation 11), min over v >= margin of 1/2 v'GG'v + (Gg)'v, is a non-negative least-squares problem: with
    v = margin + u and the Cholesky factor GG' = LL', min over u >= 0 of |L'u + L^-1 (Gg + margin GG'1)|. Then g + G'v.
    None if there is no solution in floating point.
    """
    gram = (memories @ memories.T).double().cpu().numpy()
    scale = gram.trace() / len(gram)
    if scale == 0:
        return gradient
    linear = (memories @ gradient).double().cpu().numpy() + margin * gram.sum(axis=1)
    try:
        lower = np.linalg.cholesky(gram + RIDGE * scale * np.eye(len(gram)))
        dual, _ = nnls(lower.T, -solve_triangular(lower, linear, lower=True))
    except (np.linalg.LinAlgError, RuntimeError, ValueError):
        return None
    dual = torch.as_tensor(dual + margin, dtype=gradient.dtype, device=gradient.device)
    return gradient + memories.T @ dual
