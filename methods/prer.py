"""PRER: pseudo-rehearsal of embeddings with a normalizing flow.

Pomponi, Scardapane and Uncini, "Continual Learning with Invertible Generative Models", Neural Networks 2023,
arXiv 2202.05694 (first version: "Pseudo-Rehearsal for Continual Learning with Normalizing Flows", arXiv 2007.02443).

No image of the past is stored. After each task a generator (one flow, one decoder: `models/image_generator.py`) learns
the task's images and relearns its own. While the next task is learnt, the encoder is held to what it said about images
that the generator makes up for the old classes.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split, Task
from methods import Diagnostic, ImageGrid, Method, MethodConfig
from methods.mechanisms.distance import DISTANCES
from methods.mechanisms.distillation import divergences
from methods.mechanisms.health import DIAGNOSED, health, health_on_dev, in_turns, reconstructions, samples_of
from models.code_flow import FLOW
from models.feature_generator import FeatureGenerator
from models.generator import Generator
from models.image_generator import AutoencoderSettings, FlowSettings, ImageGenerator
from models.learner import Learner
from utils.settings import AnyCase, BadInput, Settings

REJECTIONS = 10
"""How often, at most, refused samples are made up again."""


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
    rejection: bool = False
    """make up again what the classifier does not take for the class asked for"""


class Replay(Settings):
    """What is replayed to the heads, if `weights.replay` is not 0."""

    space: Annotated[Literal["image", "embedding"], AnyCase] = "image"
    """image: decoded images go through the whole network. embedding: no image is made up; the encoder's features are
    frozen after the first task and the flow's samples of them go to what is learnt above; then autoencoder and target
    have no part"""
    targets: Annotated[Literal["labels", "logits", "both"], AnyCase] = "labels"
    """labels: the classes asked for; logits: what the heads said when the last task ended; both: the sum"""
    temperature: float = Field(2.0, gt=0)
    """of the distillation (targets: logits, both)"""


class Weights(Settings):
    """Weights of the loss: cross-entropy + er * distance + replay * replay's loss + l1 * |encoder|."""

    er: float = Field(1.0, ge=0)
    """of the distance between embeddings and what they were"""
    replay: float = Field(0.0, ge=0)
    """of the loss of made-up samples under the heads. If it is not 0, the current batch's cross-entropy weighs as much
    as its classes are of all seen so far, and replay's the rest"""
    l1: float = Field(0.0, ge=0)
    """of the L1 norm of the encoder's parameters (in force from the first task on)"""
    old_tasks: float | None = Field(None, ge=0, le=1)
    """w: weigh the current batch by 1 - w and all that is made up by w, whatever the numbers of classes"""


class Config(MethodConfig):
    """PRER's options."""

    target: Annotated[Literal["past_encoder", "flow"], AnyCase] = "past_encoder"
    """what a made-up image's embedding is held to: what the encoder said of it when the last task ended, or the flow's
    own sample (then the flow models the encoder's embeddings themselves)"""
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    """the decoder, and the codes that the flow models"""
    flow: Annotated[FlowSettings, FLOW] = Field({}, validate_default=True)
    """the normalizing flow"""
    regularization: Regularization = Regularization()
    """how the made-up images enter the loss"""
    replay: Replay = Replay()
    """what is replayed to the heads"""
    weights: Weights = Weights()
    """weights of the loss"""
    predict: Annotated[Literal["head", "flow"], AnyCase] = "head"
    """who classifies: the heads; or the flow, by Bayes' rule from its density of each class"""


class Samples(NamedTuple):
    """What is made up for a task, dropped when it ends. B of them are a batch."""

    x: Tensor
    """images, uint8 (N, C, H, W); in embedding space codes (N, dimension)"""
    y: Tensor
    """global class ids (N,)"""
    targets: Tensor
    """the embeddings (N, d) they are held to; (N, 0) if weights.er is 0"""
    answers: Tensor
    """logits (N, k) of the heads of their classes when the last task ended"""


class PRER(Method):
    """Pseudo-rehearsal with a normalizing flow.

    *Deviation* from the original: the cosine distance is 1 - cos (the original added the similarity, which pushes
    embeddings apart); the decoder relearns old classes with the new ones; no generated image outlives its task; replay
    to the heads, in either space, is ours.
    """

    off: ClassVar = {"weights": {"er": 0.0, "replay": 0.0}}
    diagnosed: ClassVar = {
        "embedding_distance": Diagnostic("mean distance of generated samples' embeddings to their targets"),
        **DIAGNOSED,
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        if config.flow.conditioning.type == "none" and (config.weights.replay > 0 or config.predict == "flow"):
            raise BadInput(
                "method.flow.conditioning.type: none cannot say which class a sample is; set weights.replay: 0 and "
                "predict: head"
            )
        encoder, classes = learner.encoder, len(learner.task_of)
        try:
            if config.replay.space == "image":
                code = "projection" if config.target == "past_encoder" else "embedding"
                self.generator: Generator = ImageGenerator(encoder, classes, code, config.autoencoder, config.flow)
            else:
                self.generator = FeatureGenerator(encoder, classes, config.flow)
        except ValueError as error:
            raise BadInput(f"method.flow: {error}") from error
        self.generator.to(stream.device)
        self.rehearsal: Samples | None = None
        self.register_buffer("distances", torch.zeros(2, device=stream.device))  # of this task: their sum, how many
        self.columns: Tensor | None = None
        self.health: dict[str, float] = {}

    @property
    def rehearses(self) -> bool:
        """Whether anything made up enters the loss at all."""
        return self.config.weights.er > 0 or self.config.weights.replay > 0

    def begin_task(self, task: Task) -> Task:
        self.distances.zero_()
        if task.index > 0 and self.rehearses:
            self.generator.begin_rehearsal()
            self.rehearsal = self._remembered(*self._make_up(task.index))
            if self.learner.scenario == "class":  # the columns that the past knew
                self.columns = torch.tensor(self.learner.classes_before(task.index), device=self.stream.device)
        return task

    @torch.no_grad()
    def _remembered(self, x: Tensor, y: Tensor, codes: Tensor) -> Samples:
        """Made-up samples with what the classifier says of them before the task."""
        z = self.generator.embeddings(x)
        targets = codes if self.config.target == "flow" and self.config.replay.space == "image" else z
        if self.config.weights.er == 0:  # nothing is held to them
            targets = targets[:, :0].clone()
        return Samples(x, y, targets, self.learner.mixed_logits(z, y))

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        terms = super().loss(x, y, task) if self.rehearsal is None else self._rehearsed(x, y, task)
        if self.config.weights.l1:
            norm = sum(p.abs().sum() for p in self.generator.learnt.parameters())
            terms["l1"] = self.config.weights.l1 * norm
        return terms

    def _rehearsed(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        weights, kind = self.config.weights, self.config.regularization.type
        count = len(y) if kind == "overwrite" else self.config.regularization.to_sample or len(y)
        index = torch.randint(len(self.rehearsal.y), (count,), device=y.device, generator=self.stream)
        old = Samples(*(part[index] for part in self.rehearsal))
        share = len(task.classes) / len(self.learner.classes_before(task.index + 1))
        x, x_old, embed = self.generator.real_inputs(x, self.stream), self.generator.inputs(old.x), self.generator.embed
        of_new, of_old = torch.ones_like(y, dtype=x.dtype), torch.ones_like(old.y, dtype=x.dtype)  # sample weights
        if kind == "alternation":
            z, z_old = embed(x), embed(x_old)
        elif kind == "concatenation":
            z, z_old = embed(torch.cat((x, x_old))).split((len(x), count))
        else:
            stays = torch.rand(len(y), device=y.device, generator=self.stream) < share
            z = z_old = embed(torch.where(stays.view(-1, *[1] * (x.ndim - 1)), x, x_old))
            of_new, of_old = stays.to(x.dtype), (~stays).to(x.dtype)

        logits, columns = self.learner.logits(z, task.index), self.learner.columns(y, task.index)
        current = _mean(F.cross_entropy(logits, columns, reduction="none"), of_new)
        new, past, held = 1.0, 1.0, 1.0  # weights of the current batch, of the replayed one, of the distance
        if weights.old_tasks is not None:
            new, past, held = 1 - weights.old_tasks, weights.old_tasks, weights.old_tasks
        elif weights.replay:
            new, past = share, 1 - share
        terms = {"cross_entropy": new * current}
        if weights.replay:
            terms["replay"] = past * (weights.replay * _mean(self._replayed(z_old, old), of_old))
        if weights.er:
            terms["distance"] = held * (weights.er * self._distance(z_old, old.targets, of_old))
        return terms

    def _distance(self, z: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean distance () of embeddings z (B, d) to what they should be (B, d)."""
        distance = _mean(DISTANCES[self.config.regularization.distance](z, targets), weights)
        self.distances += torch.stack((distance.detach(), torch.ones_like(distance)))
        return distance

    def _replayed(self, z: Tensor, old: Samples) -> Tensor:
        """Loss (B,) of made-up samples' embeddings z (B, d) under the heads of their classes."""
        replay, loss = self.config.replay, torch.zeros_like(z[:, 0])
        logits = self.learner.mixed_logits(z, old.y)
        if replay.targets != "logits":
            loss = loss + F.cross_entropy(logits, self.learner.columns(old.y, 0), reduction="none")
        if replay.targets != "labels":
            of_past = [part if self.columns is None else part[:, self.columns] for part in (logits, old.answers)]
            loss = loss + divergences(*of_past, replay.temperature)
        return loss

    def end_task(self, task: Task) -> None:
        replayed = None
        if task.index > 0:
            replayed = (self.rehearsal or self._make_up(task.index))[:2]
        self.rehearsal = None
        self.generator.fit(task.train, replayed, self.stream)
        self.health = health(self.learner, self.generator, task, replayed, self.stream)
        if self.distances[1]:
            self.health["embedding_distance"] = float(self.distances[0] / self.distances[1])

    @torch.no_grad()
    def _make_up(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of all classes before the task, in turns, without those that rejection refuses.

        Returns:
            Images, uint8 (N, C, H, W), or in embedding space codes; classes (N,); codes (N, dimension).
        """
        count = self.config.regularization.fixed_replay
        y = in_turns(self.learner.classes_before(task), count, self.stream.device)
        x, codes = self.generator.sample(y, self.stream)
        if self.config.regularization.rejection:
            for _ in range(REJECTIONS):
                refused = (self.learner.predict_mixed(self.generator.embeddings(x), y) != y).nonzero()[:, 0]
                if not len(refused):
                    break
                x[refused], codes[refused] = self.generator.sample(y[refused], self.stream)
        return x, y, codes

    def predict(self, x: Tensor, task: int) -> Tensor:
        known = self.generator.flow.known
        taught = known[list(self.learner.groups[task])].all() if self.learner.scenario == "task" else known.any()
        if self.config.predict == "head" or not taught:
            return super().predict(x, task)
        return self.learner.likeliest(self.generator.flow.posterior(self.generator.codes(x)).exp(), task)

    def diagnostics(self, dev: Sequence[Split]) -> dict[str, float]:
        return self.health | health_on_dev(self.learner, self.generator, dev, self.stream)

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        if not isinstance(self.generator, ImageGenerator):
            return {}
        seen = self.learner.classes_before(task.index + 1)
        return {
            "samples": samples_of(seen, lambda y: self.generator.sample(y, self.stream).x, task),
            "reconstructions": reconstructions(task, self.generator.reconstruct),
        }


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (B,) values; 0 when no weight is left."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
