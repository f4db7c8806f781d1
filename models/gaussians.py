"""One Gaussian per class: the simplest generator of embeddings."""

import torch
from torch import Tensor, nn

RIDGE = (
    1e-3  # added to the diagonal of a covariance, relative to its mean: a class may have fewer images than dimensions
)


class ClassGaussians(nn.Module):
    """Mean and covariance of the embeddings (B, dimension) of each of K classes, measured once and kept."""

    def __init__(self, dimension: int, classes: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(classes, dimension))
        self.factor = nn.Buffer(torch.zeros(classes, dimension, dimension))  # of Cholesky, lower triangular

    def fit(self, z: Tensor, y: Tensor, past: object, stream: torch.Generator) -> None:
        """Measure a task's embeddings z (N, d) of classes y (N,); `past` and `stream` are not used."""
        for c in y.unique().tolist():
            of_class = z[y == c].double()
            covariance = of_class.T.cov(correction=0)
            ridge = (RIDGE * covariance.diagonal().mean()).clamp(min=torch.finfo(z.dtype).tiny)
            self.mean[c] = of_class.mean(dim=0).to(z.dtype)
            factor = torch.linalg.cholesky(covariance + ridge * torch.eye(z.shape[1], device=z.device))
            self.factor[c] = factor.to(z.dtype)

    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """Generate embeddings (B, d), one of each class in y (B,)."""
        noise, z = torch.randn(len(y), self.mean.shape[1], device=y.device, generator=stream), self.mean[y]
        for c in y.unique().tolist():
            z[y == c] += noise[y == c] @ self.factor[c].T
        return z
