"""Gaussians of classes: as generators of embeddings, and as a classifier."""

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


class SharedGaussian:
    """Gaussians of K classes on features (B, F), with means (K, F) and one covariance (F, F) for all of them.

    Densities are given relative to those at the mean of the classes, the center: K numbers per sample are enough, and
    nothing of size (F, F) is kept.
    """

    def __init__(self, means: Tensor, covariance: Tensor) -> None:
        center = means.mean(dim=0)
        apart = means - center
        weight = torch.linalg.solve(covariance, apart.T)  # (F, K)
        between = apart @ weight  # (K, K)
        identity = torch.eye(len(means), dtype=means.dtype, device=means.device)
        # the covariance of all classes together is C + A'A / K (A: the means without their mean); Woodbury's identity
        self.center, self.weight = center.float(), weight.float()
        self.bias = (-0.5 * between.diagonal()).float()
        self.inverse = torch.linalg.inv(len(means) * identity + between).float()

    def discriminants(self, x: Tensor) -> Tensor:
        """log p(x | class) - log p(x | center) (B, K) of features x (B, F); linear in x."""
        return (x - self.center) @ self.weight + self.bias

    def background(self, x: Tensor) -> Tensor:
        """log p(x) - log p(x | center) (B,), up to a constant, p being one Gaussian of all classes together."""
        v = (x - self.center) @ self.weight
        return 0.5 * ((v @ self.inverse) * v).sum(dim=1)
