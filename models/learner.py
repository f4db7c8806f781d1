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
NO_LOGIT = -1e4  # minus infinity where a head has no column: its softmax is 0, and differences of two are 0, not nan
Head = Callable[[int, int], nn.Module]  # head(d, k) builds a classifier of k columns on embeddings (B, d)


class Learner(nn.Module):
    """Encoder and heads. Labels are global class ids everywhere else; only here they become columns of a head.

    Args:
        groups: the global class ids of each task, in order of the tasks.
        only_seen: in the class scenario, classes not seen yet have no part in the softmax: their logits are `NO_LOGIT`.
            `see` says which were; at first, all.

    d is `encoder.embedding_dim`.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        scenario: Scenario,
        groups: Sequence[Sequence[int]],
        only_seen: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.scenario = encoder, scenario
        self.groups = tuple(tuple(group) for group in groups)
        sizes = [len(group) for group in self.groups]
        self.widths = {"task": sizes, "class": [sum(sizes)], "domain": [max(sizes)]}[scenario]  # columns of each head
        self.heads = nn.ModuleList(head(encoder.embedding_dim, width) for width in self.widths)
        self.order = nn.Buffer(torch.tensor(self.classes_before(len(sizes))), persistent=False)  # classes as they come
        self.task_of = nn.Buffer(torch.zeros(sum(sizes), dtype=torch.long), persistent=False)
        self.position_of = nn.Buffer(torch.zeros(sum(sizes), dtype=torch.long), persistent=False)
        self.only_seen = only_seen and scenario == "class"
        self.unseen = nn.Buffer(torch.zeros(sum(sizes), dtype=torch.bool), persistent=False)  # classes
        self.class_at = nn.Buffer(torch.full((len(sizes), max(sizes)), -1), persistent=False)  # -1: no such position
        for index, group in enumerate(self.groups):
            self.class_at[index, : len(group)] = torch.tensor(group)
            self.task_of[list(group)], self.position_of[list(group)] = torch.tensor(index), torch.arange(len(group))

    def see(self, tasks: int) -> None:
        """From now on the classes of the first `tasks` tasks are those seen; of no task: all classes."""
        self.unseen.fill_(tasks > 0)
        self.unseen[self.columns_before(tasks)] = False

    def freeze(self) -> nn.Module:
        """Take the encoder's features away: the classifier learns on their outputs (B, feature_dim) from now on.

        Returns them in evaluation mode, without gradients.
        """
        features, self.encoder = self.encoder.features, self.encoder.on_features()
        return features.eval().requires_grad_(False)

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> embeddings (B, d)."""
        return self.encoder(x)

    def forward(self, x: Tensor, task: int) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, k) of the head that serves the task of index `task`."""
        return self.logits(self.embed(x), task)

    def classes_before(self, task: int) -> tuple[int, ...]:
        """The global class ids of all tasks before the task of index `task`, in their order."""
        return tuple(c for group in self.groups[:task] for c in group)

    def columns_before(self, task: int) -> Tensor:
        """In the class scenario: the columns (k,) of the classes of all tasks before the task of index `task`."""
        return self.order[: len(self.classes_before(task))]

    def logits(self, z: Tensor, task: int) -> Tensor:
        """Embeddings (B, d) -> logits (B, k) of the head that serves the task of index `task`."""
        logits = self.heads[task if self.scenario == "task" else 0](z)
        return logits.masked_fill(self.unseen, NO_LOGIT) if self.only_seen else logits

    def past_logits(self, z: Tensor, tasks: int) -> list[Tensor]:
        """Embeddings (B, d) -> logits (B, k) of each head of the first `tasks` tasks; later classes have `NO_LOGIT`."""
        if self.scenario == "task":
            return [self.logits(z, task) for task in range(tasks)]
        logits = self.logits(z, 0)
        if self.scenario == "class":
            later = self.order[len(self.classes_before(tasks)) :]
            logits = logits.index_fill(1, later, NO_LOGIT)
        return [logits]

    def columns(self, y: Tensor, task: int) -> Tensor:
        """Global class ids (B,) -> the columns (B,) of their head; the same whatever task they are of."""
        return y if self.scenario == "class" else self.position_of[y]

    def mixed_logits(self, z: Tensor, y: Tensor) -> Tensor:
        """Embeddings (B, d) -> logits (B, k) of the head of each one's own label y (B,): batches of mixed tasks.

        k is the widest head's; columns that a head lacks hold `NO_LOGIT`.
        """
        if self.scenario != "task":
            return self.logits(z, 0)
        # every head sees the whole batch, so that nothing is gathered on the host
        every = [head(z) for head in self.heads]
        every = [F.pad(logits, (0, max(self.widths) - logits.shape[1]), value=NO_LOGIT) for logits in every]
        return torch.stack(every, dim=1)[torch.arange(len(y), device=y.device), self.task_of[y]]

    def cross_entropy(self, z: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy (B,) of embeddings (B, d) of any tasks, each under the head of its own label y (B,)."""
        return F.cross_entropy(self.mixed_logits(z, y), self.columns(y, 0), reduction="none")

    def class_logits(self, z: Tensor, task: int) -> Tensor:
        """Embeddings (B, d) -> logits (B, k) of the classes that the task may have, in the order of `class_of`."""
        logits = self.logits(z, task)
        return logits if self.scenario == "class" else logits[:, : len(self.groups[task])]

    def class_of(self, logits: Tensor, task: int) -> Tensor:
        """`class_logits` (B, k) -> the most likely global class id (B,); the class scenario ignores the task."""
        best = logits.argmax(dim=1)
        return best if self.scenario == "class" else self.class_at[task, best]

    def predict(self, z: Tensor, task: int) -> Tensor:
        """Embeddings (B, d) -> the most likely global class id (B,); in the class scenario the task plays no part."""
        return self.class_of(self.class_logits(z, task), task)

    def predict_mixed(self, z: Tensor, y: Tensor) -> Tensor:
        """Embeddings (B, d) -> the class (B,) that the head of each one's own label y (B,) takes it for."""
        if self.scenario == "class":
            return self.predict(z, 0)
        logits, classes = self.mixed_logits(z, y), self.class_at[self.task_of[y]]
        logits = logits.masked_fill(classes < 0, -torch.inf)
        return classes.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]

    def as_class_logits(self, scores: Tensor, task: int, densities: bool = True) -> Tensor:
        """Scores (B, K) of all global classes -> those (B, k) of the classes that the task may have.

        In the domain scenario a class stands for all that have its position, whichever task they are of. It gets the
        largest of their scores; of `densities`, log-probabilities up to a constant, the logarithm of their sum.
        """
        if self.scenario == "class":
            return scores
        if self.scenario == "task":
            return scores[:, self.groups[task]]
        by_position = scores.new_zeros(len(scores), self.widths[0])
        if densities:
            # positions that the task lacks are left out before the softmax: beside them the others could all be 0
            scores = scores.masked_fill(self.position_of >= len(self.groups[task]), -torch.inf)
            by_position = by_position.index_add_(1, self.position_of, scores.softmax(1)).log()
        else:
            positions = self.position_of.expand_as(scores)
            by_position = by_position.scatter_reduce(1, positions, scores, "amax", include_self=False)
        return by_position[:, : len(self.groups[task])]


def paper_head(dropout: float) -> Head:
    """PRER's head: d -> d -> d/4 -> k with ReLU and dropout (0.5 in the paper, 0.2 in its first version)."""

    def build(d: int, k: int) -> nn.Module:
        hidden = max(1, d // 4)
        first = [nn.Linear(d, d), nn.ReLU(), nn.Dropout(dropout)]
        second = [nn.Linear(d, hidden), nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*first, *second, nn.Linear(hidden, k))

    return build


def linear_head(dropout: float) -> Head:
    """One linear layer, after dropout if there is any."""
    return lambda d, k: nn.Sequential(nn.Dropout(dropout), nn.Linear(d, k)) if dropout else nn.Linear(d, k)


HEADS: dict[str, Callable[[float], Head]] = {"paper": paper_head, "linear": linear_head}
"""`model.head` -> its builder, given the dropout."""
