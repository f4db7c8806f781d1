"""The diagonal of the Fisher information of the classifier's weights."""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split
from methods.mechanisms.buffer import random_choice
from methods.mechanisms.gradients import mean_over_samples
from models.learner import Learner
from utils.settings import AnyCase

Labels = Annotated[Literal["empirical", "exact"], AnyCase]
"""empirical: gradients for the true labels; exact: for the classifier's own predictions, as the definition has it."""


def fisher(
    learner: Learner, split: Split, task: int, labels: Labels, samples: int | None, stream: torch.Generator
) -> Tensor:
    """Mean over samples of the squared gradient of each one's own log-likelihood, as one vector (P,).

    Not the square of a batch's gradient: that vanishes where the gradients cancel, and depends on the batch's size.

    Exact is the expectation over labels k of (d log p_k)^2 under the classifier's p. An estimate from labels drawn from
    p has high variance: a confident classifier rarely draws the informative labels. With random signs s_k,
    (d sum_k s_k sqrt(p_k) log p_k)^2, the root held constant, has the same expectation, since the mixed terms cancel,
    and depends on every label each time.

    Args:
        learner: in evaluation mode.
        split: images of the task `task`.
        labels: whose gradients; Kunstner, Hennig and Balles, NeurIPS 2019 (arXiv 1905.12558), on the difference.
        samples: a random choice of so many; None for all.
        stream: draws the samples and the signs.
    """
    if samples is not None:
        split = random_choice(split, samples, stream)
    width = learner.widths[task if learner.scenario == "task" else 0]
    if labels == "empirical":
        weights = F.one_hot(learner.columns(split.y, task), width)
    else:  # signs
        weights = 2.0 * torch.randint(2, (len(split), width), device=split.y.device, generator=stream) - 1

    def log_likelihood(logits: Tensor, weights: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=0)
        roots = 1.0 if labels == "empirical" else (log_p.detach() / 2).exp()
        return (weights * roots * log_p).sum()

    return mean_over_samples(learner, split, task, log_likelihood, torch.square, weights)
