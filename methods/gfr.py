"""GFR: generative feature replay.

Liu, Wu, Menta, Herranz, Raducanu, Bagdanov, Jui and van de Weijer, "Generative Feature Replay For Class-Incremental
Learning", CVPR Workshops 2020, arXiv 2004.09199.

No past image is stored or generated. After each task a conditional GAN (`models/gan.py`) learns the embeddings of
the task's images and those it generated itself. During the next task the heads are trained on embeddings generated for
the old classes, and the encoder's embeddings of the current images are held to what they were.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Split, Task, mapped
from methods import Diagnostic, Method, MethodConfig
from methods.mechanisms.distance import euclidean
from methods.mechanisms.distillation import frozen_copy
from methods.mechanisms.rehearsal import cycle_labels
from models.gan import FeatureGAN
from models.learner import Learner
from utils.settings import configured, options_of

JUDGED = 200
"""Generated embeddings per class for the agreement."""
GANConfig: Any = options_of(FeatureGAN)


class Config(MethodConfig):
    """GFR's options."""

    replay: float = Field(1.0, ge=0)
    """factor on the weight of the generated embeddings' cross-entropy, which is 1 - 1 / tasks seen; the current batch's
    is 1 / tasks seen. 0: no generated embeddings, and weight 1 for the current batch"""
    feature_distillation: float = Field(10.0, ge=0)
    """weight of the mean distance |E(x) - E_old(x)| on current images; 0 here and for replay is naive. The authors'
    norm over a whole batch has about the same weight"""
    fixed_replay: int | None = Field(None, ge=1)
    """embeddings generated per task, when it begins, dropped when it ends; by default as many as the task has images"""
    gan: GANConfig = GANConfig()
    """the generator of embeddings"""


class Features(NamedTuple):
    """Embeddings z (N, d) and their global class ids y (N,)."""

    z: Tensor
    y: Tensor


class GFR(Method):
    """Generative feature replay.

    *Deviation* from the authors' code: the generator keeps old classes by learning from embeddings it generated before,
    not by being held to its former self at the same noise; the embedding is the encoder's, whatever its activation;
    the distance is averaged over images, where theirs is the norm over the whole batch times the number of past tasks.
    """

    config: Config
    off: ClassVar = {"replay": 0.0, "feature_distillation": 0.0}
    diagnosed: ClassVar = {"agreement": Diagnostic("generated embeddings classified as their class (share)")}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.gan = configured(FeatureGAN, config.gan)(learner.encoder.embedding_dim, len(learner.task_of))
        self.gan.to(stream.device)
        self.teacher = frozen_copy(learner).encoder
        self.rehearsal: Features | None = None
        self.health: dict[str, float] = {}

    def begin_task(self, task: Task) -> Task:
        if task.index > 0:
            count = self.config.fixed_replay or len(task.train)
            y = cycle_labels(self.learner.classes_before(task.index), count, self.stream.device)
            self.rehearsal = Features(self.gan.sample(y, self.stream), y)
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None:
            return super().loss(x, y, task)
        z = self.learner.embed(x)
        terms = {"cross_entropy": self.cross_entropy(z, y, task)}
        if self.config.replay:
            index = torch.randint(len(self.rehearsal.y), (len(y),), device=y.device, generator=self.stream)
            past = self.learner.cross_entropy(self.rehearsal.z[index], self.rehearsal.y[index]).mean()
            share = 1 / (task.index + 1)
            terms["cross_entropy"] = share * terms["cross_entropy"]
            terms["replay"] = self.config.replay * (1 - share) * past
        if self.config.feature_distillation:
            with torch.no_grad():
                target = self.teacher(x)
            terms["distance"] = self.config.feature_distillation * euclidean(z, target).mean()
        return terms

    def end_task(self, task: Task) -> None:
        rehearsal, self.rehearsal = self.rehearsal, None
        self.teacher.load_state_dict(self.learner.encoder.state_dict())
        z, y = mapped(self.learner.embed, task.train.x), task.train.y
        if rehearsal is not None:
            z, y = torch.cat((z, rehearsal.z)), torch.cat((y, rehearsal.y))
        self.gan.fit(z, y, len(task.train), self.stream)
        self.health = {f"agreement/class {c}": self._agreement(c) for c in self.learner.classes_before(task.index + 1)}

    @torch.no_grad()
    def _agreement(self, c: int) -> float:
        """Share of the embeddings generated for class c that the classifier assigns to it."""
        z = self.gan.sample(cycle_labels([c], JUDGED, self.stream.device), self.stream)
        return float((self.learner.predict(z, int(self.learner.task_of[c])) == c).float().mean())

    def diagnostics(self, dev: Sequence[Split]) -> dict[str, float]:
        return self.health
