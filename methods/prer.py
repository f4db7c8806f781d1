"""PRER: pseudo-rehearsal of embeddings with a normalizing flow.

Pomponi, Scardapane and Uncini, "Continual Learning with Invertible Generative Models", Neural Networks 2023,
arXiv 2202.05694 (first version: "Pseudo-Rehearsal for Continual Learning with Normalizing Flows", arXiv 2007.02443).

No image of the past is stored. After each task a generator (one flow, one decoder: `models/generator.py`) learns the
task's images and relearns its own. While the next task is learnt, the encoder is held to what it said about images
that the generator makes up for the old classes.
"""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split, Task, as_floats, chunks, mapped
from methods import ImageGrid, Method, MethodConfig
from methods.mechanisms.distance import DISTANCES, frechet
from methods.mechanisms.distillation import divergences
from models.feature_generator import FeatureGenerator
from models.generator import AutoencoderSettings, FlowSettings, Generator
from models.learner import Learner
from utils.settings import AnyCase, BadInput, Settings

DRAWN, MOST_ROWS = 10, 20
"""Images a row in the figures, and rows: of more classes, some from all over them."""
JUDGED, LEAST_JUDGED = 2000, 50
"""Made-up samples for the agreement: of all classes together, but at least so many of each."""
MEASURED = 1000
"""Samples of a task, for their likelihood."""
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
    flow: FlowSettings = FlowSettings()
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
    meaning: ClassVar[dict[str, str]] = {
        "agreement": "made-up samples classified as asked (share)",
        "flow_nll": "negative log-likelihood of what was fitted (nats per dimension)",
        "embedding_distance": "mean distance of made-up samples' embeddings to their targets",
        "redrawn": "samples drawn again, out of reach or not finite (number)",
        "dev_nll": "negative log-likelihood of dev codes (nats per dimension)",
        "round_trip": "error of dev codes through the flow and back (share of their norm)",
        "frechet": "Fréchet distance of made-up to dev embeddings (share of the latter's variance)",
    }
    healthy: ClassVar[dict[str, tuple[float, float]]] = {
        "agreement": (0.8, 1.0),
        "round_trip": (0.0, 1e-2),
        "frechet": (0.0, 1.0),
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        if config.flow.conditioning.type == "none" and (config.weights.replay > 0 or config.predict == "flow"):
            raise BadInput(
                "method.flow.conditioning.type: none cannot say which class a sample is; set weights.replay: 0 and "
                "predict: head"
            )
        self.of_images = config.replay.space == "image"
        classes = len(learner.task_of)
        try:
            if self.of_images:
                code = "projection" if config.target == "past_encoder" else "embedding"
                self.generator = Generator(learner.encoder, classes, code, config.autoencoder, config.flow)
            else:
                self.generator = FeatureGenerator(learner.encoder, classes, config.flow)
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
            if not self.of_images:
                self.generator.freeze()
            self.rehearsal = self._remembered(*self._make_up(task.index))
            if self.learner.scenario == "class":  # the columns that the past knew
                self.columns = torch.tensor(self.learner.classes_before(task.index), device=self.stream.device)
        return task

    @torch.no_grad()
    def _remembered(self, x: Tensor, y: Tensor, codes: Tensor) -> Samples:
        """Made-up samples with what the classifier says of them before the task."""
        z = self._embeddings(x)
        targets = codes if self.of_images and self.config.target == "flow" else z
        if self.config.weights.er == 0:  # nothing is held to them
            targets = targets[:, :0].clone()
        return Samples(x, y, targets, self.learner.mixed_logits(z, y))

    def loss(self, x: Tensor, y: Tensor, task: Task) -> Tensor:
        loss = super().loss(x, y, task) if self.rehearsal is None else self._rehearsed(x, y, task)
        if self.config.weights.l1:
            frozen = self.rehearsal is not None and not self.of_images  # but for what lies above the features
            learnt = self.learner.encoder.projection if frozen else self.learner.encoder
            loss = loss + self.config.weights.l1 * sum(p.abs().sum() for p in learnt.parameters())
        return loss

    def _rehearsed(self, x: Tensor, y: Tensor, task: Task) -> Tensor:
        weights, kind = self.config.weights, self.config.regularization.type
        count = len(y) if kind == "overwrite" else self.config.regularization.to_sample or len(y)
        index = torch.randint(len(self.rehearsal.y), (count,), device=y.device, generator=self.stream)
        old = Samples(*(part[index] for part in self.rehearsal))
        x_old, share = self._floats(old.x), len(task.classes) / len(self.learner.classes_before(task.index + 1))
        if not self.of_images:
            self.learner.encoder.features.eval()  # frozen, its running statistics too
            x = self.generator.blurred(self.generator.codes(x), self.stream)
        of_new, of_old = torch.ones_like(y, dtype=x.dtype), torch.ones_like(old.y, dtype=x.dtype)  # sample weights
        if kind == "alternation":
            z, z_old = self._embed(x), self._embed(x_old)
        elif kind == "concatenation":
            z, z_old = self._embed(torch.cat((x, x_old))).split((len(x), count))
        else:
            stays = torch.rand(len(y), device=y.device, generator=self.stream) < share
            z = z_old = self._embed(torch.where(stays.view(-1, *[1] * (x.ndim - 1)), x, x_old))
            of_new, of_old = stays.to(x.dtype), (~stays).to(x.dtype)

        logits, columns = self.learner.logits(z, task.index), self.learner.columns(y, task.index)
        current = _mean(F.cross_entropy(logits, columns, reduction="none"), of_new)
        self.parts = {"cross-entropy": current.detach()}
        held = weights.er * self._distance(z_old, old.targets, of_old) if weights.er else 0.0
        replayed = weights.replay * _mean(self._replayed(z_old, old), of_old) if weights.replay else 0.0
        if weights.replay:
            self.parts["replay"] = replayed.detach()
        if weights.old_tasks is not None:
            return (1 - weights.old_tasks) * current + weights.old_tasks * (held + replayed)
        if weights.replay:
            return share * current + (1 - share) * replayed + held
        return current + held

    def _distance(self, z: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean distance () of embeddings z (B, d) to what they should be (B, d)."""
        distance = _mean(DISTANCES[self.config.regularization.distance](z, targets), weights)
        self.parts["distance"] = distance.detach()
        self.distances += torch.stack((self.parts["distance"], torch.ones_like(distance)))
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

    def _embed(self, x: Tensor) -> Tensor:
        """Embeddings (B, d) of images (B, C, H, W) in [0, 1], or of codes (B, dimension)."""
        return self.learner.embed(x) if self.of_images else self.generator.embed(x)

    def _embeddings(self, x: Tensor) -> Tensor:
        """Embeddings (N, d) of made-up samples, however many."""
        return torch.cat([self._embed(self._floats(part)) for part in chunks(x)])

    def _floats(self, x: Tensor) -> Tensor:
        return as_floats(x) if self.of_images else x

    def end_task(self, task: Task) -> None:
        x, y, replayed = None, None, None
        if task.index > 0:
            x, y = (self.rehearsal or self._make_up(task.index))[:2]
            replayed = Split(x, y) if self.of_images else (x, y)
        self.rehearsal = None
        self.generator.fit(task.train, replayed, self.stream, self.journal)
        self.health = self._measure(task, x, y)

    @torch.no_grad()
    def _make_up(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of all classes before the task, in turns, without those that rejection refuses.

        Returns:
            Images, uint8 (N, C, H, W), or in embedding space codes; classes (N,); codes (N, dimension).
        """
        y = self._in_turns(self.learner.classes_before(task), self.config.regularization.fixed_replay)
        x, codes = self._sample(y)
        if self.config.regularization.rejection:
            for _ in range(REJECTIONS):
                refused = (self._judged(x, y) != y).nonzero()[:, 0]
                if not len(refused):
                    break
                x[refused], codes[refused] = self._sample(y[refused])
        return x, y, codes

    def _in_turns(self, classes: Sequence[int], n: int) -> Tensor:
        """Labels (n,), the classes taking turns."""
        device = self.stream.device
        return torch.tensor(tuple(classes), device=device)[torch.arange(n, device=device) % len(classes)]

    def _sample(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.of_images:
            made = self.generator.sample(y, self.stream)
            return made.split.x, made.codes
        codes = self.generator.flow.sample(y, self.stream)
        return codes, codes

    def _judged(self, x: Tensor, y: Tensor) -> Tensor:
        """The class (B,) that the heads take made-up samples of classes y (B,) for."""
        z = self._embeddings(x)
        predicted = torch.empty_like(y)
        for task in self.learner.task_of[y].unique().tolist():
            of_task = self.learner.task_of[y] == task
            predicted[of_task] = self.learner.predict(z[of_task], task)
        return predicted

    def predict(self, x: Tensor, task: int) -> Tensor:
        known = self.generator.flow.known
        group = torch.tensor(self.learner.groups[task], device=x.device)
        untaught = not known[group].all() if self.learner.scenario == "task" else not known.any()
        if self.config.predict == "head" or untaught:
            return super().predict(x, task)
        probabilities = self.generator.flow.posterior(self.generator.codes(x)).exp()
        if self.learner.scenario == "class":
            return probabilities.argmax(dim=1)
        if self.learner.scenario == "domain":  # whichever task it is of
            by_position = probabilities.new_zeros(len(x), self.learner.widths[0])
            by_position.index_add_(1, self.learner.position_of, probabilities)
            return group[by_position[:, : len(group)].argmax(dim=1)]
        return group[probabilities[:, group].argmax(dim=1)]

    @torch.no_grad()
    def _measure(self, task: Task, x: Tensor | None, y: Tensor | None) -> dict[str, float]:
        """The generator after a task: agreement by class, before any rejection; likelihood of what was fitted by task.

        Args:
            task: the one that is over.
            x, y: what was made up of the classes before it, for the fit; None on the first task.
        """
        flow = self.generator.flow
        health = {"redrawn": float(flow.redrawn)}
        if self.distances[1]:
            health["embedding_distance"] = float(self.distances[0] / self.distances[1])
        seen = self.learner.classes_before(task.index + 1)
        asked = self._in_turns(seen, max(JUDGED, LEAST_JUDGED * len(seen)))
        as_asked = (self._judged(self._sample(asked)[0], asked) == asked).float()
        health |= {f"agreement/class {c}": float(as_asked[asked == c].mean()) for c in seen}
        for t in range(task.index):
            some = (self.learner.task_of[y] == t).nonzero()[:MEASURED, 0]
            codes = self.generator.codes(as_floats(x[some])) if self.of_images else x[some]
            health[f"flow_nll/task {t}"] = self._nll(codes, y[some])
        real = task.train.take(slice(0, MEASURED))
        health[f"flow_nll/task {task.index}"] = self._nll(mapped(self.generator.codes, real.x), real.y)
        return health

    def _nll(self, codes: Tensor, y: Tensor) -> float:
        flow = self.generator.flow
        return float(-flow.log_prob(codes, y).mean() / flow.dimension)

    def diagnostics(self) -> dict[str, float]:
        return self.health

    @torch.no_grad()
    def examine(self, dev: Sequence[Split]) -> dict[str, float]:
        flow, health = self.generator.flow, {}
        for t, split in enumerate(dev):
            z = mapped(self.generator.codes, split.x)
            health[f"dev_nll/task {t}"] = self._nll(z, split.y)
            health[f"round_trip/task {t}"] = float(flow.round_trip(z, split.y).max())
            count = max(len(split), 2 * flow.dimension)
            made = self._embeddings(self._sample(self._in_turns(self.learner.groups[t], count))[0])
            real = mapped(self.learner.embed, split.x)
            health[f"frechet/task {t}"] = frechet(made, real) / max(float(real.var(dim=0).sum()), 1e-12)
        return health

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        if not self.of_images:
            return {}
        seen = sorted(self.learner.classes_before(task.index + 1))
        seen = seen[:: ceil(len(seen) / MOST_ROWS)]
        y = self._in_turns(seen, DRAWN * len(seen))
        x, _ = self._sample(y)
        samples = [(f"class {c}", as_floats(x[y == c])) for c in seen]
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
