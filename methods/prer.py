"""PRER: pseudo-rehearsal of embeddings with a normalizing flow.

Pomponi, Scardapane and Uncini, "Continual Learning with Invertible Generative Models", Neural Networks 2023,
arXiv 2202.05694 (first version: "Pseudo-Rehearsal for Continual Learning with Normalizing Flows", arXiv 2007.02443).

No image of the past is stored. After each task a generator (one flow, one decoder: `models/generator.py`) learns the
task's images and relearns its own. While the next task is learnt, the encoder is held to what it said about images
that the generator makes up for the old classes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split, Task, as_floats
from methods import ImageGrid, Method, MethodConfig
from methods.mechanisms.distance import DISTANCES
from models.generator import CHUNK, AutoencoderSettings, FlowSettings, Generated, Generator
from models.learner import Learner
from utils.settings import AnyCase, BadInput, Settings

DRAWN = 10
"""Images a row in the figures."""


class Regularization(Settings):
    """How the made-up images enter the loss."""

    type: Annotated[Literal["alternation", "overwrite", "concatenation"], AnyCase] = "alternation"
    """alternation: a batch of their own next to the real one; concatenation: appended to the real batch, one pass;
    overwrite: a real sample stays with probability (current classes / all seen), else a made-up one replaces it"""
    distance: Annotated[Literal["cosine", "euclidean"], AnyCase] = "cosine"
    """between an embedding and what it should be: 1 - cos(a, b), or |a - b|"""
    fixed_replay: int = Field(10_000, ge=1)
    """images made up for each task, drawn afresh when it begins and dropped when it ends"""
    to_sample: int | None = Field(None, ge=1)
    """made-up images a step; by default as many as real ones"""


class Weights(Settings):
    """Weights of the loss: cross-entropy + er * distance + replay * made-up images' cross-entropy + l1 * |encoder|."""

    er: float = Field(1.0, ge=0)
    """of the distance between embeddings and what they were"""
    replay: float = Field(0.0, ge=0)
    """of the cross-entropy of the made-up images under their own class"""
    l1: float = Field(0.0, ge=0)
    """of the L1 norm of the encoder's parameters (in force from the first task on)"""
    old_tasks: float | None = Field(None, ge=0, le=1)
    """w: weigh the current batch by 1 - w and the made-up images by w; by default both count fully"""


class Config(MethodConfig):
    """PRER's options."""

    target: Annotated[Literal["past_encoder", "flow"], AnyCase] = "past_encoder"
    """what a made-up image's embedding is held to: what the encoder said of it when the last task ended, or the flow's
    own sample (then the flow models the encoder's embeddings themselves)"""
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    """the decoder, and the codes that the flow models"""
    flow: FlowSettings = FlowSettings()
    """the normalizing flow"""
    regularization: Regularization = Regularization()
    """how the made-up images enter the loss"""
    weights: Weights = Weights()
    """weights of the loss"""


@dataclass(frozen=True)
class Rehearsal:
    """The made-up images of a task, and the embeddings (N, d) they are held to. Dropped when the task ends."""

    split: Split
    targets: Tensor

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """n of them at random: images (n, C, H, W) in [0, 1], class ids (n,), targets (n, d)."""
        index = torch.randint(len(self.split), (n,), device=self.targets.device, generator=stream)
        return *self.split.batch(index), self.targets[index]


class PRER(Method):
    """Pseudo-rehearsal with a normalizing flow.

    *Deviation* from the original: the cosine distance is 1 - cos (the original added the similarity, which pushes
    embeddings apart); the decoder relearns old classes with the new ones; no generated image outlives its task.
    """

    off: ClassVar = {"weights": {"er": 0.0, "replay": 0.0}}
    meaning: ClassVar[dict[str, str]] = {
        "agreement": "made-up images classified as asked (share)",
        "flow_nll": "negative log-likelihood of codes (nats per dimension)",
        "embedding_distance": "mean distance of made-up images' embeddings to their targets",
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        if config.flow.conditioning.type == "none" and config.weights.replay > 0:
            raise BadInput(
                "method.flow.conditioning.type: none cannot say which class a sample is; set weights.replay: 0"
            )
        code = "projection" if config.target == "past_encoder" else "embedding"
        classes = len(learner.task_of)
        try:
            self.generator = Generator(learner.encoder, classes, code, config.autoencoder, config.flow)
        except ValueError as error:
            raise BadInput(f"method.flow: {error}") from error
        self.generator.to(stream.device)
        self.rehearsal: Rehearsal | None = None
        self.health: dict[str, float] = {}

    @property
    def rehearses(self) -> bool:
        """Whether made-up images enter the loss at all."""
        return self.config.weights.er > 0 or self.config.weights.replay > 0

    def begin_task(self, task: Task) -> Task:
        self.distance_sum, self.distance_count = torch.zeros((), device=self.stream.device), 0
        if task.index > 0 and self.rehearses:
            made = self._make_up(task)
            targets = made.codes if self.config.target == "flow" else self.learner.embeddings(made.split)
            self.rehearsal = Rehearsal(made.split, targets)
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> Tensor:
        loss = super().loss(x, y, task) if self.rehearsal is None else self._rehearsed(x, y, task)
        if self.config.weights.l1:
            loss = loss + self.config.weights.l1 * sum(p.abs().sum() for p in self.learner.encoder.parameters())
        return loss

    def _rehearsed(self, x: Tensor, y: Tensor, task: Task) -> Tensor:
        weights, kind = self.config.weights, self.config.regularization.type
        count = len(y) if kind == "overwrite" else self.config.regularization.to_sample or len(y)
        x_old, y_old, targets = self.rehearsal.draw(count, self.stream)
        new, old = torch.ones_like(y, dtype=x.dtype), torch.ones_like(y_old, dtype=x.dtype)  # weight of each sample
        if kind == "alternation":
            z, z_old = self.learner.embed(x), self.learner.embed(x_old)
        elif kind == "concatenation":
            z, z_old = self.learner.embed(torch.cat((x, x_old))).split((len(x), count))
        else:
            share_new = len(task.classes) / len(self.learner.classes_before(task.index + 1))
            stays = torch.rand(len(y), device=y.device, generator=self.stream) < share_new
            z = z_old = self.learner.embed(torch.where(stays[:, None, None, None], x, x_old))
            new, old = stays.to(x.dtype), (~stays).to(x.dtype)

        logits, columns = self.learner.logits(z, task.index), self.learner.columns(y, task.index)
        current = _mean(F.cross_entropy(logits, columns, reduction="none"), new)
        distance = _mean(DISTANCES[self.config.regularization.distance](z_old, targets), old)
        self.distance_sum += distance.detach()
        self.distance_count += 1
        past = weights.er * distance
        if weights.replay:
            past = past + weights.replay * _mean(self.learner.cross_entropy(z_old, y_old), old)
        if weights.old_tasks is None:
            return current + past
        return (1 - weights.old_tasks) * current + weights.old_tasks * past

    def end_task(self, task: Task) -> None:
        self.rehearsal = None
        replayed = self._make_up(task).split if task.index > 0 else None
        self.generator.fit(task.train, replayed, self.stream)
        self.health = self._measure(task, replayed)

    def _make_up(self, task: Task) -> Generated:
        """Images of all classes before the task."""
        past = self.learner.classes_before(task.index)
        return self.generator.sample(self.config.regularization.fixed_replay, past, self.stream)

    @torch.no_grad()
    def _measure(self, task: Task, replayed: Split | None) -> dict[str, float]:
        """Health of the generator, after a task; the likelihood is that of what it was fitted on, task by task."""
        health = {}
        if self.distance_count:
            health["embedding_distance"] = float(self.distance_sum / self.distance_count)
        for c in self.learner.classes_before(task.index + 1):
            made = self.generator.sample(200, [c], self.stream).split
            predicted = self.learner.predict(self.learner.embeddings(made), int(self.learner.task_of[c]))
            health[f"agreement/class {c}"] = float((predicted == c).float().mean())
        for index in range(task.index + 1):
            fitted = task.train if index == task.index else replayed.take(self.learner.task_of[replayed.y] == index)
            x, y = fitted.batch(slice(0, CHUNK))
            nll = -self.generator.log_prob(x, y).mean() / self.generator.dimension
            health[f"flow_nll/task {index}"] = float(nll)
        return health

    def diagnostics(self) -> dict[str, float]:
        return self.health

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        seen = sorted(self.learner.classes_before(task.index + 1))
        made = self.generator.sample(DRAWN * len(seen), seen, self.stream).split
        samples = [(f"class {c}", as_floats(made.x[made.y == c])) for c in seen]
        pairs = []
        for c in task.classes:
            x, y = task.train.take((task.train.y == c).nonzero()[:DRAWN, 0]).batch(slice(None))
            pairs += [(f"class {c}, real", x), (f"class {c}, decoded", self.generator.reconstruct(x, y))]
        return {
            "samples": ImageGrid(f"Images made up after task {task.index}", samples),
            "reconstructions": ImageGrid(f"Images of task {task.index} and their reconstructions", pairs),
        }


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (B,) values; 0 when no weight is left."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
