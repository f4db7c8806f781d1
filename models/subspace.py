"""The leading principal directions of features, in which `prer_features` generates them."""

import torch
from torch import Tensor, nn

MIN_SHARE = 1e-2  # lower bound of a direction's deviation, relative to the largest, where directions are balanced


class Subspace(nn.Module):
    """Features (B, F) -> their projection onto an affine subspace (B, F); before `activate` they pass unchanged.

    If balanced, a coordinate is divided by the square root of its deviation: layers above learn from small ones too.
    """

    def __init__(self, features: int, dimension: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(features))
        self.directions = nn.Buffer(torch.zeros(dimension, features))  # orthonormal rows
        self.scale = nn.Buffer(torch.ones(dimension))
        self.active = nn.Buffer(torch.zeros((), dtype=torch.bool))

    def find(self, features: Tensor, balanced: bool) -> None:
        """Take the leading principal directions of features (N, F)."""
        self.mean.copy_(features.mean(dim=0))
        _, singular, directions = torch.linalg.svd(features - self.mean, full_matrices=False)
        kept = min(len(self.directions), len(directions))
        self.directions[:kept] = directions[:kept]
        if balanced:
            self.scale[:kept] = (singular[:kept] / singular[0]).clamp(min=MIN_SHARE).sqrt()

    @torch.no_grad()
    def activate(self, above: nn.Module) -> None:
        """Project from now on; a linear layer `above` maps the balanced features to the same outputs as before."""
        if isinstance(above, nn.Linear) and not self.active:
            was = above.weight @ self.mean
            above.weight.copy_(above.weight @ self.directions.T * self.scale @ self.directions)
            above.bias.add_(was - above.weight @ self.mean)
        self.active.fill_(True)

    def codes(self, features: Tensor) -> Tensor:
        """Features (B, F) -> coordinates (B, dimension)."""
        return (features - self.mean) @ self.directions.T / self.scale

    def covariance(self, of_features: Tensor) -> Tensor:
        """Covariance (dimension, dimension) of the coordinates of features with covariance (F, F)."""
        directions = (self.directions / self.scale[:, None]).to(of_features.dtype)
        return directions @ of_features @ directions.T

    @property
    def basis(self) -> Tensor:
        """(dimension, F): coordinates @ basis + mean are features; once it is active, balanced ones."""
        return torch.where(self.active, 1.0, self.scale)[:, None] * self.directions

    def features(self, codes: Tensor) -> Tensor:
        """Coordinates (B, dimension) -> features (B, F), as the layers above take them."""
        return codes @ self.basis + self.mean

    def forward(self, features: Tensor) -> Tensor:
        return torch.where(self.active, self.features(self.codes(features)), features)
