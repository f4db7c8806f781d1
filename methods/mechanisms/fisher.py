"""The diagonal of the Fisher information of the classifier's weights."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Split
from methods import MethodConfig
from methods.mechanisms.buffer import random_choice
from methods.mechanisms.gradients import image_chunks, mean_over_samples
from models.learner import Learner
from utils.settings import AnyCase

Labels = Literal["empirical", "exact"]
"""empirical: gradients for the true labels; exact: for the classifier's own predictions, as the definition has it."""


class FisherConfig(MethodConfig):
    """Options of the methods that measure the Fisher information."""

    importance: float = Field(1000.0, ge=0)
    """lambda: loss + lambda / 2 * penalty"""
    fisher: Annotated[Labels, AnyCase] = "exact"
    """exact: over all labels, weighted by the classifier's probabilities; empirical: of the true labels"""
    fisher_samples: int | None = Field(1000, ge=1)
    """images per task that its Fisher information is measured on; null: all"""


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
    if labels == "empirical":
        columns = learner.columns(split.y, task)
        return mean_over_samples(learner, task, image_chunks(split, columns), _of_column, torch.square)
    columns = learner.widths[task if learner.scenario == "task" else 0]
    coins = torch.randint(2, (len(split), columns), device=split.y.device, generator=stream)
    signs = 2.0 * coins - 1
    return mean_over_samples(learner, task, image_chunks(split, signs), _of_all_columns, torch.square)


def _of_column(logits: Tensor, column: Tensor) -> Tensor:
    """The log-likelihood () of one column of logits (k,)."""
    return logits.log_softmax(dim=0).gather(0, column[None])[0]


def _of_all_columns(logits: Tensor, signs: Tensor) -> Tensor:
    """sum_k s_k sqrt(p_k) log p_k () of logits (k,), for signs s (k,)."""
    log_p = logits.log_softmax(dim=0)
    return (signs * (log_p.detach() / 2).exp() * log_p).sum()
