"""SLDA: streaming linear discriminant analysis.

Hayes and Kanan, "Lifelong machine learning with deep streaming linear discriminant analysis", CVPR Workshops 2020
(arXiv 1909.01520), equations 1 to 3.
"""

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task
from methods import MethodConfig
from methods.mechanisms.closed_form import Means
from models.gaussians import SharedGaussian
from models.learner import Learner
from utils.settings import BadInput


class Config(MethodConfig):
    """The regularisation of SLDA."""

    shrinkage: float = Field(1e-4, gt=0, le=1)
    """share of the covariance that is replaced by the mean variance times the identity"""


class SLDA(Means):
    """One Gaussian per class, with its own mean and a covariance that all classes share.

    The covariance is the within-class covariance, exact after every task, from the sum of x x^T.

    *Deviation* from the paper: its covariance is updated one sample at a time, with the means as they are then, and
    shrunk to the identity whatever the scale of the features; classes are equally probable in both.
    """

    title = "Streaming LDA"
    densities = True
    config: Config

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.squares: Tensor = self.sum_buffer(self.features, self.features)

    def end_task(self, task: Task) -> None:
        super().end_task(task)
        if int(self.counts.max()) < 2:
            raise BadInput("scenario.dataset: each class has 1 training sample, and slda needs 2 for a covariance")

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        super().accumulate(x, y)
        self.squares += x.T @ x

    @property
    def covariance(self) -> Tensor:
        """Within classes (F, F), in double precision, before shrinkage."""
        return (self.squares - self.sums.T @ self.means) / self.counts.sum()

    @property
    def shrunk(self) -> Tensor:
        """The covariance after shrinkage."""
        covariance, amount = self.covariance, self.config.shrinkage
        shrunk = (1 - amount) * covariance
        shrunk.diagonal().add_(amount * covariance.diagonal().mean())
        return shrunk

    def solve(self) -> SharedGaussian:
        return SharedGaussian(self.means[self.counts > 0], self.shrunk)

    def scores(self, x: Tensor) -> Tensor:
        scores = x.new_zeros(len(x), self.classes)
        scores[:, self.counts > 0] = self.solution.discriminants(x)
        return scores

    def score(self, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """The largest log-density of a class relative to that of all classes together (Ren et al. 2021,
        arXiv 2106.09022), in nats."""
        if not self.counts.any():
            return super().score(x, logits, task)
        return self.solution.discriminants(x).amax(dim=1) - self.solution.background(x)
