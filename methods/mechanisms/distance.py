"""Distances between embeddings."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.settings import AnyCase

Distance = Annotated[Literal["cosine", "euclidean"], AnyCase]


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| (B,) of embeddings a, b (B, d)."""
    return torch.linalg.vector_norm(a - b, dim=1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: 1 - F.cosine_similarity(a, b, dim=1),
    "euclidean": euclidean,
}
"""`distance` in the YAML -> the distances (B,) of embeddings a, b (B, d)."""


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians that have the moments of vectors a (N, d) and b (M, d); at least 0.

    |m - n|^2 + tr(A + B - 2 (AB)^1/2), the trace of the root being the sum of the roots of AB's eigenvalues (Dowson and
    Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis 1982).
    """
    (m, cov_a), (n, cov_b) = (
        (v.mean(axis=0), np.cov(v.T)) for v in (a.double().cpu().numpy(), b.double().cpu().numpy())
    )
    roots = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0))
    return max(0.0, float(np.square(m - n).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum()))
