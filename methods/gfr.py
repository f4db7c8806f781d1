"""GFR: generative feature replay.

Liu, Wu, Menta, Herranz, Raducanu, Bagdanov, Jui and van de Weijer, "Generative Feature Replay For Class-Incremental
Learning", CVPR Workshops 2020, arXiv 2004.09199.

No image of the past is stored, and none is made up. After each task a conditional GAN (`models/gan.py`) learns the
embeddings of the task's images and relearns its own. While the next task is learnt, the heads are trained on
embeddings that it makes up for the old classes, and the encoder is held to what it said before of the current images.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Split, Task, mapped
from methods import Diagnostic, Method, MethodConfig
from methods.mechanisms.distance import euclidean
from methods.mechanisms.distillation import frozen_copy
from models.gan import FeatureGAN, FeatureGANSettings, Features
from models.learner import Learner


class Config(MethodConfig):
    """GFR's options."""

    replay: float = Field(1.0, ge=0)
    """factor on the weight of the made-up embeddings' cross-entropy, which is 1 - 1 / tasks seen; the current batch's
    is 1 / tasks seen. 0: no made-up embeddings, and weight 1 for the current batch"""
    feature_distillation: float = Field(10.0, ge=0)
    """weight of the mean distance |E(x) - E_old(x)| on current images; 0 here and for replay is naive. The authors'
    norm over a whole batch weighs about as much"""
    fixed_replay: int | None = Field(None, ge=1)
    """embeddings made up for each task, drawn afresh when it begins and dropped when it ends; by default as many as the
    task has images"""
    gan: FeatureGANSettings = FeatureGANSettings()
    """the generator of embeddings"""


class GFR(Method):
    """Generative feature replay.

    *Deviation* from the authors' code: the generator keeps old classes by learning from embeddings it made up before,
    not by being held to its former self at the same noise; the embedding is the encoder's, whatever its activation;
    the distance is averaged over images, where theirs is the norm over the whole batch times the number of past tasks.
    """

    off: ClassVar = {"replay": 0.0, "feature_distillation": 0.0}
    diagnosed: ClassVar = {
        "agreement": Diagnostic("generated embeddings classified as their class (share)"),
        "feature_distance": Diagnostic("mean distance of current images' embeddings to the previous encoder's"),
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        encoder = learner.encoder
        self.gan = FeatureGAN(encoder.embedding_dim, len(learner.task_of), config.gan).to(stream.device)
        self.teacher = frozen_copy(learner).encoder
        self.rehearsal: Features | None = None
        self.register_buffer("distances", torch.zeros(2, device=stream.device))  # of this task: their sum, how many
        self.health: dict[str, float] = {}

    def begin_task(self, task: Task) -> Task:
        self.distances.zero_()
        if task.index > 0:
            count = self.config.fixed_replay or len(task.train)
            self.rehearsal = self.gan.sample(count, self.learner.classes_before(task.index), self.stream)
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
            distance = euclidean(z, target).mean()
            self.distances += torch.stack((distance.detach(), torch.ones_like(distance)))
            terms["distance"] = self.config.feature_distillation * distance
        return terms

    def end_task(self, task: Task) -> None:
        rehearsal, self.rehearsal = self.rehearsal, None
        self.teacher.load_state_dict(self.learner.encoder.state_dict())
        real = Features(mapped(self.learner.embed, task.train.x), task.train.y)
        self.gan.fit(real, rehearsal, self.stream)
        self.health = self._measure(task)

    @torch.no_grad()
    def _measure(self, task: Task) -> dict[str, float]:
        health = {}
        if self.distances[1]:
            health["feature_distance"] = float(self.distances[0] / self.distances[1])
        for c in self.learner.classes_before(task.index + 1):
            made = self.gan.sample(200, [c], self.stream)
            predicted = self.learner.predict(made.z, int(self.learner.task_of[c]))
            health[f"agreement/class {c}"] = float((predicted == c).float().mean())
        return health

    def diagnostics(self, dev: Sequence[Split]) -> dict[str, float]:
        return self.health
