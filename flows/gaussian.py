"""One Gaussian of full covariance per condition: the baseline for a flow."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows import Flow
from flows.transforms import Transform


class Triangular(Transform):
    """z = L(c) (x - mean(c)) with L lower triangular, its diagonal positive; mean and L are linear in the
    condition, the logarithm of the diagonal is kept between -5 and 5.

    Under a standard normal, x is Gaussian with the full covariance (L'L)^-1: one Gaussian per class for one-hot c.
    """

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.zeros(width * (width + 1), context))
        self.bias = nn.Parameter(torch.zeros(width * (width + 1)))

    def _mean_and_factor(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, d), factor (B, d, d), and the log of its determinant (B,)."""
        c = x.new_zeros(len(x), 0) if c is None else c.to(x.dtype)
        values = F.linear(c, self.weight, self.bias)
        mean, square = values[:, : self.width], values[:, self.width :].unflatten(1, (self.width, self.width))
        log_diagonal = 5 * torch.tanh(square.diagonal(dim1=1, dim2=2) / 5)  # a scale between e^-5 and e^5
        return mean, square.tril(-1) + torch.diag_embed(log_diagonal.exp()), log_diagonal.sum(dim=1)

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, factor, ladj = self._mean_and_factor(x, c)
        return (factor @ (x - mean)[:, :, None])[:, :, 0], ladj

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, factor, ladj = self._mean_and_factor(z, c)
        return torch.linalg.solve_triangular(factor, z[:, :, None], upper=False)[:, :, 0] + mean, -ladj


def build(width: int, context: int = 0) -> Flow:
    """Standardisation, then a triangular map that is linear in the condition (see `Triangular`)."""
    return Flow(width, [Triangular(width, context)])
