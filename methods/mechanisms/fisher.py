"""The diagonal of the Fisher information of the classifier's weights."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split
from methods.mechanisms.buffer import random_choice
from methods.mechanisms.gradients import image_chunks, mean_over_samples
from models.learner import Learner

Labels = Literal["empirical", "exact"]
"""empirical: gradients for the true labels; exact: for labels drawn from the classifier's own predictions."""


def fisher(
    learner: Learner, split: Split, task: int, labels: Labels, samples: int | None, stream: torch.Generator
) -> Tensor:
    """Mean over samples of the squared gradient of each one's own log-likelihood, as one vector (P,).

    Not the square of a batch's gradient: that vanishes where the gradients cancel, and depends on the batch's size.

    Args:
        learner: in evaluation mode.
        split: images of the task `task`.
        labels: whose gradients; Kunstner, Hennig and Balles, NeurIPS 2019 (arXiv 1905.12558), on the difference.
        samples: a random choice of so many; None for all.
        stream: draws the samples and the labels.
    """
    if samples is not None:
        split = random_choice(split, samples, stream)
    columns = learner.columns(split.y, task)
    if labels == "exact":
        with torch.no_grad():
            logits = torch.cat([learner.logits(learner.embed(x), task) for (x,) in image_chunks(split)])
        columns = torch.multinomial(logits.softmax(dim=1), 1, generator=stream).squeeze(1)
    return mean_over_samples(learner, task, image_chunks(split, columns), _log_loss, torch.square)


def _log_loss(logits: Tensor, column: Tensor) -> Tensor:
    return F.cross_entropy(logits[None], column[None])
