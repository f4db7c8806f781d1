"""SLDA: streaming linear discriminant analysis.

Hayes and Kanan, "Lifelong machine learning with deep streaming linear discriminant analysis", CVPR Workshops 2020
(arXiv 1909.01520), equations 1 to 3.
"""

import torch
from pydantic import Field
from torch import Tensor

from methods import MethodConfig
from methods.mechanisms.closed_form import Means
from models.learner import Learner


class Config(MethodConfig):
    """The regularisation of SLDA."""

    shrinkage: float = Field(1e-2, gt=0, le=1)
    """share of the covariance that is replaced by the mean variance times the identity"""


class SLDA(Means):
    """One Gaussian per class, with its own mean and a covariance that all classes share.

    The covariance is that within the classes, exact after every task, from the sum of x x^T.

    *Deviation* from the paper: its covariance is updated one sample at a time, with the means as they are then, and
    shrunk to the identity whatever the scale of the features; classes are equally probable in both.
    """

    title = "Streaming LDA"
    config: Config

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.squares: Tensor = self.sum_buffer(self.features, self.features)

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        super().accumulate(x, y)
        self.squares += x.T @ x

    @property
    def covariance(self) -> Tensor:
        """Within classes (F, F), in double precision, before shrinkage."""
        return (self.squares - self.sums.T @ self.means) / self.counts.sum()

    def solve(self) -> tuple[Tensor, Tensor]:
        covariance, means = self.covariance, self.means
        shrunk = (1 - self.config.shrinkage) * covariance
        shrunk.diagonal().add_(self.config.shrinkage * covariance.diagonal().mean())
        weight = torch.linalg.solve(shrunk, means.T)  # (F, K)
        return weight.float(), (-0.5 * (means.T * weight).sum(dim=0)).float()

    def scores(self, x: Tensor) -> Tensor:
        weight, bias = self.solution
        return x @ weight + bias
