"""Classifiers in closed form: computed from sums over the features of all tasks, without a training step."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datasets.data import Split, Task
from methods import Method, MethodConfig
from models.learner import Learner

AT_ONCE = 1024  # samples that are added to the sums


class ClosedForm(Method):
    """Sums over each class, in double precision, from which a subclass computes its classifier when it is asked.

    `densities` says that its scores are log-probabilities, and may be added up over classes.

    F is the number of features, K that of classes. Sums do not depend on batches or on the order of samples, but for
    rounding. The learner is not used: scores are of all global classes, and `Learner.as_class_logits` says which of
    them a scenario compares.
    """

    works_on = "features"
    trains = False
    densities: ClassVar[bool] = False
    off: ClassVar = None

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        (self.features,), self.classes = learner.encoder.shape, len(learner.task_of)
        self.counts: Tensor = self.sum_buffer(self.classes)
        self._solution: Any = None

    def sum_buffer(self, *shape: int) -> Tensor:
        """A buffer of zeros for sums."""
        return nn.Buffer(torch.zeros(*shape, dtype=torch.double, device=self.stream.device))

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        """Add features x (B, F), in double precision, of classes y (B,) to the sums."""
        raise NotImplementedError

    def solve(self) -> Any:
        """What `scores` needs, computed from the sums."""
        raise NotImplementedError

    @property
    def solution(self) -> Any:
        """What `solve` returns for the sums as they are; computed once."""
        if self._solution is None:
            self._solution = self.solve()
        return self._solution

    def scores(self, x: Tensor) -> Tensor:
        """Features (B, F) -> scores (B, K), larger for more likely classes; of unseen ones, any number."""
        raise NotImplementedError

    def end_task(self, task: Task) -> None:
        self.add(task.train)

    @torch.no_grad()
    def add(self, data: Split) -> None:
        """Add features and their classes to the sums."""
        for x, y in zip(data.x.split(AT_ONCE), data.y.split(AT_ONCE), strict=True):
            self.counts += y.bincount(minlength=self.classes)
            self.accumulate(x.double(), y)
        self._solution = None

    @torch.no_grad()
    def logits(self, x: Tensor, task: int) -> Tensor:
        if not self.counts.any():
            return self.learner.as_class_logits(x.new_zeros(len(x), self.classes), task)
        scores = self.scores(x)  # with a nearly singular covariance, scores of seen classes are far below NO_LOGIT
        scores = scores.masked_fill(self.counts == 0, torch.finfo(scores.dtype).min)
        return self.learner.as_class_logits(scores.log_softmax(dim=1), task, self.densities)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._solution = None


class Means(ClosedForm):
    """Adds the sums of each class's features (K, F)."""

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.sums: Tensor = self.sum_buffer(self.classes, self.features)

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        self.sums.index_add_(0, y, x)

    @property
    def means(self) -> Tensor:
        """Of each class (K, F), in double precision; of unseen ones 0."""
        return self.sums / self.counts.clamp(min=1)[:, None]
