"""Distances between embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """1 - cos(a, b) (B,) of embeddings a, b (B, d)."""
    return 1 - F.cosine_similarity(a, b, dim=1)


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| (B,) of embeddings a, b (B, d)."""
    return torch.linalg.vector_norm(a - b, dim=1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "euclidean": euclidean}
"""`distance` in the YAML -> the function."""
