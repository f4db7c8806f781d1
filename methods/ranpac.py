"""RanPAC: ridge regression to one-hot labels on a random projection of the features.

McDonnell et al., "RanPAC: random projections and pre-trained models for continual learning", NeurIPS 2023
(arXiv 2307.02251), algorithm 1 and equations 6 to 8, without the adaptation of the backbone.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task
from methods import MethodConfig
from methods.mechanisms.closed_form import AT_ONCE, ClosedForm
from models.learner import Learner

RIDGES = [10.0**power for power in range(-8, 9)]
"""Penalties tried, as by the authors."""
HELD_OUT = 0.2  # of the first task's samples, to choose the penalty


class Config(MethodConfig):
    """The projection of RanPAC."""

    width: int = Field(2000, ge=1)
    """M: number of random features, max(0, w.x) with w drawn from a standard normal; the authors use 10,000"""
    ridge: float | None = Field(None, gt=0)
    """penalty; by default the one with the least squared error on a held-out fifth of the first task's training data"""


class RanPAC(ClosedForm):
    """With h = max(0, x W): scores h (H^T H + ridge I)^-1 H^T Y, over the samples of all tasks.

    The projection W is kept and counted as memory; it could be drawn again from the seed.

    *Deviation* from the authors' code: the penalty is chosen on the first task and kept, not for each task anew; where
    the sums of later tasks have no solution at it in double precision, it is the next larger of `RIDGES` that has one.
    """

    title = "RanPAC"
    config: Config

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        shape, device = (self.features, config.width), stream.device
        self.projection: Tensor = nn.Buffer(torch.randn(shape, device=device, generator=stream))
        self.gram: Tensor = self.sum_buffer(config.width, config.width)
        self.targets: Tensor = self.sum_buffer(config.width, self.classes)
        self.ridge: Tensor = nn.Buffer(torch.tensor(config.ridge or 0.0, dtype=torch.double, device=device))

    def projected(self, x: Tensor) -> Tensor:
        """Features (B, F) -> random features (B, M)."""
        return (x @ self.projection.to(x.dtype)).relu()

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        gram, targets = self._sums(x, y)
        self.gram += gram
        self.targets += targets

    def _sums(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """H^T H (M, M) and H^T Y (M, K) of features x (B, F), in double precision, of classes y (B,)."""
        h = self.projected(x)
        return h.T @ h, h.T @ F.one_hot(y, self.classes).to(h.dtype)

    def end_task(self, task: Task) -> None:
        if not self.ridge:
            self.ridge.fill_(self._best_ridge(task.train))
        super().end_task(task)

    @torch.no_grad()
    def _best_ridge(self, train: Split) -> float:
        shuffled = train.take(torch.randperm(len(train), device=train.y.device, generator=self.stream))
        count = round(HELD_OUT * len(train))
        held_out, rest = shuffled.take(slice(count)), shuffled.take(slice(count, None))
        (gram, targets), (own_gram, own_targets) = (self._sums_of(part) for part in (rest, held_out))
        errors = {}
        for ridge in RIDGES:
            if (weight := ridge_regression(gram, targets, ridge)) is not None:  # sum of |h weight - y|^2, but for |y|^2
                errors[ridge] = float((weight * (own_gram @ weight - 2 * own_targets)).sum())
        return min(errors, key=errors.__getitem__)

    def _sums_of(self, split: Split) -> tuple[Tensor, Tensor]:
        """The sums of all samples; a part of them is projected at a time."""
        gram, targets = torch.zeros_like(self.gram), torch.zeros_like(self.targets)
        for x, y in zip(split.x.split(AT_ONCE), split.y.split(AT_ONCE), strict=True):
            part = self._sums(x.double(), y)
            gram += part[0]
            targets += part[1]
        return gram, targets

    def solve(self) -> Tensor:
        larger = [] if self.config.ridge else [ridge for ridge in RIDGES if ridge > self.ridge]
        for ridge in (float(self.ridge), *larger):
            if (weight := ridge_regression(self.gram, self.targets, ridge)) is not None:
                return weight.float()
        raise FloatingPointError(f"ridge regression has no solution at ridge {float(self.ridge)}; raise method.ridge")

    def scores(self, x: Tensor) -> Tensor:
        return self.projected(x) @ self.solution


def ridge_regression(gram: Tensor, targets: Tensor, ridge: float) -> Tensor | None:
    """(gram + ridge I)^-1 targets, for gram (M, M) and targets (M, K); None if it is singular in double precision."""
    factor, failed = torch.linalg.cholesky_ex(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    return None if failed else torch.cholesky_solve(targets, factor)
