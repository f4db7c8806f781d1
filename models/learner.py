"""The classifier that learns one task after the other: an encoder, and heads on its embeddings."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders import Encoder

Scenario = Literal["task", "class", "domain"]
"""task: a head for each task, task known at test. class: one head over all classes, task unknown.
domain: one head over the position of a class inside its task (van de Ven et al., Nature Machine Intelligence 2022)."""

NO_LOGIT = -1e4
"""Stands for minus infinity where a head has no column: its softmax is 0, and differences of two are 0, not nan."""


class Learner(nn.Module):
    """Encoder and heads. Labels are global class ids everywhere else; only here they become columns of a head.

    Args:
        encoder: images to embeddings of size d = `encoder.embedding_dim`.
        head: `head(d, k)` builds a classifier of k columns.
        scenario: see `Scenario`.
        groups: the global class ids of each task, in order of the tasks.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Callable[[int, int], nn.Module],
        scenario: Scenario,
        groups: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.encoder, self.scenario = encoder, scenario
        self.groups = tuple(tuple(group) for group in groups)
        classes = sum(len(group) for group in self.groups)
        self.widths = {
            "task": [len(group) for group in self.groups],
            "class": [classes],
            "domain": [max(len(group) for group in self.groups)],
        }[scenario]  # columns of each head
        self.heads = nn.ModuleList(head(encoder.embedding_dim, width) for width in self.widths)
        task_of, position_of = torch.zeros(classes, dtype=torch.long), torch.zeros(classes, dtype=torch.long)
        for index, group in enumerate(self.groups):
            for position, c in enumerate(group):
                task_of[c], position_of[c] = index, position
        self.task_of: Tensor
        self.position_of: Tensor
        self.register_buffer("task_of", task_of, persistent=False)
        self.register_buffer("position_of", position_of, persistent=False)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> embeddings (B, d)."""
        return self.encoder(x)

    def forward(self, x: Tensor, task: int) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, k) of the head that serves the task of index `task`."""
        return self.logits(self.embed(x), task)

    def classes_before(self, task: int) -> tuple[int, ...]:
        """The global class ids of all tasks before the task of index `task`, in their order."""
        return tuple(c for group in self.groups[:task] for c in group)

    def logits(self, z: Tensor, task: int) -> Tensor:
        """Embeddings (B, d) -> logits (B, k) of the head that serves the task of index `task`."""
        return self.heads[task if self.scenario == "task" else 0](z)

    def columns(self, y: Tensor, task: int) -> Tensor:
        """Global class ids (B,) -> the columns (B,) of their head; the same whatever task they are of."""
        return y if self.scenario == "class" else self.position_of[y]

    def mixed_logits(self, z: Tensor, y: Tensor) -> Tensor:
        """Embeddings (B, d) -> logits (B, k) of the head of each one's own label y (B,): batches of mixed tasks.

        In the task scenario every head sees the whole batch and each sample picks its own, so that nothing is gathered
        on the host; columns that a head lacks hold `NO_LOGIT`. k is the widest head's.
        """
        if self.scenario != "task":
            return self.logits(z, 0)
        every = [head(z) for head in self.heads]
        every = [F.pad(logits, (0, max(self.widths) - logits.shape[1]), value=NO_LOGIT) for logits in every]
        return torch.stack(every, dim=1)[torch.arange(len(y), device=y.device), self.task_of[y]]

    def cross_entropy(self, z: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy (B,) of each embedding (B, d) under the head of its own label y (B,): batches of mixed tasks.

        For a batch of one task this is `F.cross_entropy(logits(z, task), columns(y, task))`.
        """
        return F.cross_entropy(self.mixed_logits(z, y), self.columns(y, 0), reduction="none")

    def predict(self, z: Tensor, task: int) -> Tensor:
        """Embeddings (B, d) -> the most likely global class id (B,); in the class scenario the task plays no part."""
        return self._class_of(self.logits(z, task), task)

    def predict_mixed(self, z: Tensor, y: Tensor) -> Tensor:
        """Embeddings (B, d) -> the class (B,) that the head of each one's own label y (B,) takes it for."""
        predicted = torch.empty_like(y)
        for task in self.task_of[y].unique().tolist():
            of_task = self.task_of[y] == task
            predicted[of_task] = self.predict(z[of_task], task)
        return predicted

    def likeliest(self, probabilities: Tensor, task: int) -> Tensor:
        """Probabilities (B, K) of all global classes -> the likeliest class (B,) that the task may have.

        In the domain scenario a class stands for all that have its position, whichever task they are of.
        """
        if self.scenario == "domain":
            by_position = probabilities.new_zeros(len(probabilities), self.widths[0])
            probabilities = by_position.index_add_(1, self.position_of, probabilities)
        elif self.scenario == "task":
            probabilities = probabilities[:, self.groups[task]]
        return self._class_of(probabilities, task)

    def _class_of(self, scores: Tensor, task: int) -> Tensor:
        """The global class id (B,) of the largest of a head's columns (B, k), among those that the task may have."""
        if self.scenario == "class":
            return scores.argmax(dim=1)
        group = torch.tensor(self.groups[task], device=scores.device)
        return group[scores[:, : len(group)].argmax(dim=1)]  # an uneven task may have fewer classes than columns


def paper_head(dropout: float) -> Callable[[int, int], nn.Module]:
    """PRER's head: d -> d -> d/4 -> k with ReLU and dropout (0.5 in the paper, 0.2 in its first version)."""

    def build(d: int, k: int) -> nn.Module:
        hidden = max(1, d // 4)
        return nn.Sequential(
            nn.Linear(d, d),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(d, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, k),
        )

    return build


def linear_head(dropout: float) -> Callable[[int, int], nn.Module]:
    """One linear layer, after dropout if there is any."""

    def build(d: int, k: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(d, k)) if dropout else nn.Linear(d, k)

    return build


HEADS: dict[str, Callable[[float], Callable[[int, int], nn.Module]]] = {"paper": paper_head, "linear": linear_head}
"""`model.head` -> its builder, given the dropout."""
