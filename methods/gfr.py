"""GFR: generative feature replay.

Liu et al., "Generative Feature Replay For Class-Incremental Learning", CVPR Workshops 2020 (arXiv 2004.09199).

After each task a conditional GAN learns the embeddings of the task's images, and is held to what it generated for old
classes. During the next task the heads are trained on embeddings generated for the old classes, and the encoder's
embeddings of the current images are held to what they were.
"""

import copy
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task, mapped
from methods import Diagnostic, Method, MethodConfig
from methods.mechanisms.distance import DISTANCES
from methods.mechanisms.generated import past_labels
from models.gan import FeatureGAN
from models.gaussians import ClassGaussians
from models.learner import Learner
from utils.settings import AnyCase, configured, options_of

JUDGED = 200  # generated embeddings per class for the agreement
GANConfig: Any = options_of(FeatureGAN)


class Config(MethodConfig):
    """The weights of GFR's terms, and its generator."""

    replay: float = Field(1.0, ge=0)
    """factor on the weight of the generated embeddings' cross-entropy, which is 1 - 1 / tasks seen; the current batch's
    is 1 / tasks seen. 0: no generated embeddings, and weight 1 for the current batch"""
    feature_distillation: float = Field(0.1, ge=0)
    """weight of the distance of E(x) from E_old(x) on current images; 0 here and for replay is naive"""
    distance: Annotated[Literal["squared", "euclidean"], AnyCase] = "squared"
    """the mean over images of |E(x) - E_old(x)|^2, or of |E(x) - E_old(x)|, which holds small changes back as much as
    large ones"""
    fixed_replay: int | None = Field(None, ge=1)
    """embeddings generated per task, when it begins, dropped when it ends; by default as many as the task has images"""
    generator: Annotated[Literal["gan", "gaussian"], AnyCase] = "gan"
    """of embeddings: a conditional GAN, or one Gaussian of full covariance per class"""
    gan: GANConfig = GANConfig()
    """the GAN (generator: gan)"""


class GFR(Method):
    """Generative feature replay.

    *Deviation* from the authors' code: the distillation is of squared distances, averaged over images, where theirs is
    the norm over the whole batch times the number of past tasks; the embedding is the encoder's, whatever its
    activation; the Gaussians have a full covariance, where theirs move along one direction, the deviations.
    """

    title = "GFR"
    config: Config
    static = True
    off: ClassVar = {"replay": 0.0, "feature_distillation": 0.0}
    diagnosed: ClassVar = {"agreement": Diagnostic("generated embeddings classified as their class (share)")}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        sizes = learner.encoder.embedding_dim, len(learner.task_of)
        gan = config.generator == "gan"
        self.gan: FeatureGAN | ClassGaussians = (configured(FeatureGAN, config.gan) if gan else ClassGaussians)(*sizes)
        self.gan.to(stream.device)
        self.teacher = copy.deepcopy(learner.encoder).eval().requires_grad_(False)
        self.rehearsal: tuple[Tensor, Tensor] | None = None  # generated embeddings (N, d), and their classes (N,)

    def begin_task(self, task: Task) -> Task:
        if task.index > 0:
            y = past_labels(self.learner, task, self.config.fixed_replay, self.stream.device)
            self.rehearsal = self.gan.sample(y, self.stream), y
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None:
            return super().loss(x, y, task)
        z = self.learner.embed(x)
        terms = {"cross_entropy": self.cross_entropy(z, y, task)}
        if self.config.replay:
            z_old, y_old = self.rehearsal
            index = torch.randint(len(y_old), (len(y),), device=y.device, generator=self.stream)
            past = self.learner.cross_entropy(z_old[index], y_old[index]).mean()
            share = 1 / (task.index + 1)
            terms["cross_entropy"] = share * terms["cross_entropy"]
            terms["replay"] = self.config.replay * (1 - share) * past
        if self.config.feature_distillation:
            before = self.teacher(x)
            squared = self.config.distance == "squared"
            distance = (z - before).square().sum(dim=1) if squared else DISTANCES["euclidean"](z, before)
            terms["distance"] = self.config.feature_distillation * distance.mean()
        return terms

    def end_task(self, task: Task) -> None:
        rehearsal, self.rehearsal = self.rehearsal, None
        self.teacher.load_state_dict(self.learner.encoder.state_dict())
        z, y = mapped(self.learner.embed, task.train.x), task.train.y
        self.gan.fit(z, y, rehearsal, self.stream)
        self.measured = {}
        for c in self.learner.classes_before(task.index + 1):
            asked = torch.full((JUDGED,), c, device=y.device)
            as_asked = self.learner.predict_mixed(self.gan.sample(asked, self.stream), asked) == c
            self.measured[f"agreement/class {c}"] = float(as_asked.float().mean())
