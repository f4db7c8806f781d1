"""FeCAM: a Gaussian per class, with a covariance of its own, shrunk and brought to unit variances.

Goswami et al., "FeCAM: exploiting the heterogeneity of class distributions in exemplar-free continual learning",
NeurIPS 2023 (arXiv 2309.14062), equations 6 (shrinkage), 7 (normalisation), 8 (Tukey) and 9 (distance).
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Task
from methods import MethodConfig
from methods.mechanisms.closed_form import Means
from models.learner import Learner
from utils.settings import BadInput


class Config(MethodConfig):
    """The regularisation of FeCAM."""

    tukey: float = Field(0.5, gt=0, le=1)
    """exponent of the features: sign(x) |x|^tukey; 1 leaves them as they are"""
    shrinkage: float = Field(1.0, gt=0)
    """times the mean variance, added to the variances, and times the mean covariance, to the covariances"""


class FeCAM(Means):
    """Scores are -1/2 of the squared Mahalanobis distance between features and class means of length 1.

    *Deviation* from the paper: negative features keep their sign under Tukey's transformation, which the paper applies
    to features that are not negative.
    """

    title = "FeCAM"
    config: Config

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.squares: Tensor = self.sum_buffer(self.classes, self.features, self.features)

    def transformed(self, x: Tensor) -> Tensor:
        """Features (B, F) after Tukey's transformation."""
        return x.sign() * x.abs() ** self.config.tukey

    def end_task(self, task: Task) -> None:
        counts = task.train.y.bincount()
        if len(few := (counts == 1).nonzero()[:, 0]):
            problem = f"class {int(few[0])} has 1 training sample, and fecam needs 2 for its covariance"
            raise BadInput(f"scenario.dataset: {problem}; leave it out")
        super().end_task(task)

    def accumulate(self, x: Tensor, y: Tensor) -> None:
        x = self.transformed(x)
        super().accumulate(x, y)
        for c in y.unique().tolist():
            of_class = x[y == c]
            self.squares[c] += of_class.T @ of_class

    def covariance(self, c: int) -> Tensor:
        """Of a class (F, F), in double precision, before shrinkage."""
        mean = self.means[c]
        return self.squares[c] / self.counts[c] - mean[:, None] * mean

    def solve(self) -> tuple[Tensor, Tensor]:
        factors = torch.zeros(self.classes, self.features, self.features, device=self.counts.device)
        for c in self.counts.nonzero()[:, 0].tolist():
            # |L^-1 v|^2 = v C^-1 v for C = L L^T
            lower = torch.linalg.cholesky(normalised(shrunk(self.covariance(c), self.config.shrinkage)))
            identity = torch.eye(self.features, dtype=lower.dtype, device=lower.device)
            factors[c] = torch.linalg.solve_triangular(lower, identity, upper=False)
        return F.normalize(self.means).float(), factors

    def scores(self, x: Tensor) -> Tensor:
        means, factors = self.solution
        x = F.normalize(self.transformed(x))
        squared = [((x - mean) @ factor.T).square().sum(dim=1) for mean, factor in zip(means, factors, strict=True)]
        return -0.5 * torch.stack(squared, dim=1)


def shrunk(covariance: Tensor, amount: float) -> Tensor:
    """Equation 6 with both weights `amount`: C + amount (V1 I + V2 (1 - I)).

    V1 is the mean of the variances, V2 that of the covariances of C (F, F).
    """
    size = len(covariance)
    variance = covariance.diagonal().mean()
    between = (covariance.sum() - covariance.diagonal().sum()) / max(size * (size - 1), 1)
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    return covariance + amount * (variance * identity + between * (1 - identity))


def normalised(covariance: Tensor) -> Tensor:
    """The correlations (F, F) of a covariance, equation 7."""
    deviation = covariance.diagonal().sqrt()
    return covariance / (deviation[:, None] * deviation)
