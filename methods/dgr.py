"""DGR: deep generative replay.

Shin, Lee, Kim and Kim, "Continual Learning with Deep Generative Replay", NeurIPS 2017, arXiv 1705.08690; with
distillation: van de Ven and Tolias, "Generative replay with feedback connections as a general strategy for continual
learning", 2018, arXiv 1809.10635.

No image of the past is stored. After each task a variational autoencoder (`models/vae.py`) learns the task's images and
relearns its own. While the next task is learnt, images that it makes up are trained on next to the real ones; their
labels are what the classifier said of them when the task began.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Split, Task, as_floats, mapped
from methods import Diagnostic, ImageGrid, Method, MethodConfig
from methods.mechanisms.distillation import divergence
from methods.mechanisms.health import DRAWN, MEASURED, reconstructions
from models.learner import NO_LOGIT, Learner
from models.vae import VAE, VAESettings

PER_IMAGE = 4
"""Images made up for each one of the task: the classifier learns fewer by heart."""


class Config(MethodConfig):
    """DGR's options."""

    distillation: bool = False
    """made-up images are labelled with the probabilities of all past classes, not with the likeliest class"""
    temperature: float = Field(2.0, gt=0)
    """of these probabilities (distillation: yes); above 1 it brings out the unlikely ones"""
    share: float | None = Field(None, ge=0, le=1)
    """weight of the current batch, that of the made-up one being 1 - share; by default 1 / tasks seen"""
    replay: float = Field(1.0, ge=0)
    """factor on the made-up batch's weight; 0 is naive"""
    fixed_replay: int | None = Field(None, ge=1)
    """images made up for each task, drawn afresh when it begins and dropped when it ends; by default 4 for each image
    of the task"""
    vae: VAESettings = VAESettings()
    """the generator of images"""


@dataclass(frozen=True)
class Rehearsal:
    """Made-up images x, uint8 (N, C, H, W), and teacher's logits (N, k) of each past head; dropped with the task."""

    x: Tensor
    answers: tuple[Tensor, ...]

    def draw(self, n: int, stream: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        """n of them at random: images (n, C, H, W) in [0, 1], and for each past head the teacher's logits (n, k)."""
        index = torch.randint(len(self.x), (n,), device=self.x.device, generator=stream)
        return as_floats(self.x[index]), [answer[index] for answer in self.answers]


class DGR(Method):
    """Deep generative replay.

    A made-up image bears no task: in the task scenario it is labelled by, and trains, every past head. In the class
    scenario the teacher chooses among the past classes, and the learner answers with all its columns, so that new
    classes are told from old ones; soft targets give new classes the probability 0 (van de Ven and Tolias 2018).

    *Deviation* from the paper: the generator is a variational autoencoder, not a WGAN, as in van de Ven and Tolias.
    """

    off: ClassVar = {"replay": 0.0}
    diagnosed: ClassVar = {
        "agreement": Diagnostic("generated images classified as before the task (share)"),
        "negative_elbo": Diagnostic("negative evidence lower bound of the task's images (nats per image)"),
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.vae = VAE(learner.encoder, config.vae).to(stream.device)
        self.rehearsal: Rehearsal | None = None
        self.health: dict[str, float] = {}

    def begin_task(self, task: Task) -> Task:
        if task.index > 0:
            x = self.vae.sample(self.config.fixed_replay or PER_IMAGE * len(task.train), self.stream)
            # the labels are settled here, so that no copy of the teacher need be kept
            self.rehearsal = Rehearsal(x, self._answers(x, task.index))
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None or self.config.replay == 0:
            return super().loss(x, y, task)
        x_old, answers = self.rehearsal.draw(len(y), self.stream)
        z, z_old = self.learner.embed(torch.cat((x, x_old))).split((len(x), len(x_old)))
        current = self.cross_entropy(z, y, task)
        past = torch.stack(
            [self._disagreement(self.learner.logits(z_old, head), answer) for head, answer in enumerate(answers)]
        ).mean()
        share = 1 / (task.index + 1) if self.config.share is None else self.config.share
        return {"cross_entropy": share * current, "replay": self.config.replay * (1 - share) * past}

    def _disagreement(self, logits: Tensor, answer: Tensor) -> Tensor:
        """The loss () of logits (B, k) for which the teacher had the logits `answer` (B, k)."""
        if self.config.distillation:
            return divergence(logits, answer, self.config.temperature)
        return F.cross_entropy(logits, answer.argmax(dim=1))

    def end_task(self, task: Task) -> None:
        rehearsal, self.rehearsal = self.rehearsal, None
        self.vae.fit(task.train.x, None if rehearsal is None else rehearsal.x, self.stream)
        self.health = self._measure(task, rehearsal)

    @torch.no_grad()
    def _measure(self, task: Task, rehearsal: Rehearsal | None) -> dict[str, float]:
        x, _ = task.train.batch(slice(0, MEASURED))
        terms = zip(("reconstruction", "divergence"), self.vae.negative_elbo(x, self.stream), strict=True)
        health = {f"negative_elbo/{name}": float(values.mean()) for name, values in terms}
        if rehearsal is not None:
            pairs = zip(rehearsal.answers, self._answers(rehearsal.x[:MEASURED], task.index), strict=True)
            same = [(old[:MEASURED].argmax(dim=1) == new.argmax(dim=1)).float().mean() for old, new in pairs]
            health["agreement"] = float(torch.stack(same).mean())
        return health

    @torch.no_grad()
    def _answers(self, x: Tensor, tasks: int) -> tuple[Tensor, ...]:
        """What the classifier says of images x, uint8 (N, C, H, W), about the first `tasks` tasks.

        Returns:
            Logits (N, k) of each of their heads, or of the one head; other tasks' columns of it are `NO_LOGIT`.
        """
        z = mapped(self.learner.embed, x)
        if self.learner.scenario == "task":
            return tuple(self.learner.logits(z, head) for head in range(tasks))
        logits = self.learner.logits(z, 0)
        if self.learner.scenario == "class":
            unknown = [c for group in self.learner.groups[tasks:] for c in group]
            logits[:, unknown] = NO_LOGIT
        return (logits,)

    def diagnostics(self, dev: Sequence[Split]) -> dict[str, float]:
        return self.health

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        made = as_floats(self.vae.sample(5 * DRAWN, self.stream))
        samples = [("", row) for row in made.split(DRAWN)]
        return {
            "samples": ImageGrid(f"Images made up after task {task.index}", samples),
            "reconstructions": reconstructions(task, lambda x, y: self.vae.reconstruct(x)),
        }
