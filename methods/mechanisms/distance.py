"""Distances between embeddings, and between answers."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.learner import Learner
from utils.settings import AnyCase

Distance = Annotated[Literal["cosine", "euclidean"], AnyCase]
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda a, b: 1 - F.cosine_similarity(a, b, dim=1),
    "euclidean": lambda a, b: torch.linalg.vector_norm(a - b, dim=1),
}
"""`distance` in the YAML -> the distances (B,) of embeddings a, b (B, d)."""


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) (B,) of two logits (B, k); 0 when both say the same.

    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531), section 2: the
    factor T^2 keeps the gradient's size. Written as a divergence it has the gradient of their cross-entropy.
    """
    student, teacher = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def past_divergences(
    learner: Learner, z: Tensor, teacher: Learner, x: Tensor, tasks: int, temperature: float
) -> Tensor:
    """Mean divergence of the teacher's answers on images x (B, C, H, W), by head of the first `tasks` tasks (heads,).

    z (B, d) are the learner's embeddings of x. In the class scenario the one head has the columns of these tasks only.
    """
    new, old = learner.past_logits(z, tasks), teacher.past_logits(teacher.embed(x), tasks)
    if learner.scenario == "class":
        new, old = ([logits[:, learner.columns_before(tasks)] for logits in each] for each in (new, old))
    return torch.stack([divergence(*pair, temperature).mean() for pair in zip(new, old, strict=True)])


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians that have the moments of vectors a (N, d) and b (M, d); at least 0.

    |m - n|^2 + tr(A + B - 2 (AB)^1/2), the trace of the root being the sum of the roots of AB's eigenvalues (Dowson and
    Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis 1982).
    """
    x, y = a.double().cpu().numpy(), b.double().cpu().numpy()
    m, cov_a, n, cov_b = x.mean(axis=0), np.cov(x.T), y.mean(axis=0), np.cov(y.T)
    roots = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0))
    return max(0.0, float(np.square(m - n).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum()))
