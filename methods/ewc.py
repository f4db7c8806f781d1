"""EWC: weights that carry information about old tasks are held to the values they had.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017 (arXiv 1612.00796), equation 3.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split, Task
from methods.mechanisms.anchored import Anchored, AnchoredConfig
from methods.mechanisms.gradients import flat_parameters, mean_over_samples
from methods.mechanisms.memory import random_choice
from models.learner import Learner
from utils.settings import AnyCase


class Config(AnchoredConfig):
    """The weight of EWC's penalty, and its Fisher information."""

    importance: float = Field(1000.0, ge=0)
    """lambda: loss + lambda / 2 * penalty; of ewc the penalties of all tasks are added up"""
    fisher: Annotated[Literal["empirical", "exact"], AnyCase] = "exact"
    """exact: over all labels, weighted by the classifier's probabilities; empirical: of the true labels"""
    fisher_samples: int | None = Field(1000, ge=1)
    """images per task that its Fisher information is measured on; null: all"""


class EWC(Anchored):
    """A quadratic penalty for each task: its Fisher information, around the weights it ended with.

    The sum of the tasks' penalties is itself a quadratic, with the summed information F = sum_t F_t around the weighted
    mean sum_t F_t theta_t / F, up to a constant without gradient. So the memory is two vectors however many tasks.

    *Deviation* from the original code, which squared the summed gradient instead of summing the squares.
    """

    title = "EWC"
    config: Config
    factor = 0.5

    def end_task(self, task: Task) -> None:
        weights, information = flat_parameters(self.learner), self._information(task)
        total = self.importance + information
        weighted = self.importance * self.anchor + information * weights
        self.anchor = torch.where(total > 0, weighted / total.clamp(min=torch.finfo(total.dtype).tiny), weights)
        self.importance = total

    def _information(self, task: Task) -> Tensor:
        config = self.config
        return fisher(self.learner, task.train, task.index, config.fisher, config.fisher_samples, self.stream)


def fisher(
    learner: Learner, split: Split, task: int, labels: str, samples: int | None, stream: torch.Generator
) -> Tensor:
    """The diagonal of the Fisher information (P,): the mean over samples of squared gradients of the log-likelihood.

    Empirical is for the true labels (Kunstner, Hennig and Balles, NeurIPS 2019, arXiv 1905.12558, on the difference).
    Exact is the expectation over labels k of (d log p_k)^2 under the classifier's p. An estimate from labels drawn from
    p has high variance: a confident classifier rarely draws the informative labels. With random signs s_k,
    (d sum_k s_k sqrt(p_k) log p_k)^2, the root held constant, has the same expectation, since the mixed terms cancel,
    and depends on every label each time.

    The learner is in evaluation mode; `samples` images of the split are drawn at random, or all if it is None.
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
