"""PRER: pseudo-rehearsal of images with a normalizing flow.

Pomponi, Scardapane and Uncini, "Continual Learning with Invertible Generative Models", Neural Networks 2023,
arXiv 2202.05694 (first version: "Pseudo-Rehearsal for Continual Learning with Normalizing Flows", arXiv 2007.02443).

No image of the past is stored. After each task a generator (one flow on codes, one decoder) learns the task's images
and the images it generated itself. During the next task the encoder's embeddings of images generated for the old
classes are held to what they were.
"""

from functools import partial
from math import ceil
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from datasets.data import Split, Task, as_floats, concatenate, mapped
from methods import ImageGrid
from methods.mechanisms import prer_config
from methods.mechanisms.generated import PER_ROW, cycle_labels, reconstructions
from methods.mechanisms.rehearsal import Rehearsing
from models.augment import noisy
from models.autoencoder import Autoencoder
from models.code_flow import Condition
from models.learner import Learner, Scenario
from utils.settings import AnyCase, configured

NOISE = 0.15  # default of `regularization.noise` where the heads learn from generated images
MAX_ROWS = 20  # classes of which samples are drawn; of more, an even selection


class RegularizationConfig(prer_config.RegularizationConfig):
    """How generated images enter the loss."""

    type: Annotated[Literal["alternation", "overwrite", "concatenation"], AnyCase] = "alternation"
    """alternation: a batch of their own next to the real one; concatenation: appended to the real batch, one pass;
    overwrite: a real sample stays with probability (current classes / all seen), else a generated one replaces it"""

    noise: float | None = Field(None, ge=0)
    """standard deviation of the noise on the pixels (in [0, 1]) of current and generated images, from the second task
    on, that hides what sets them apart; by default 0.15 where weights.replay is not 0, else 0"""


class ReplayConfig(prer_config.ReplayConfig):
    """What the heads learn from generated images."""

    current: Annotated[Literal["all", "task"], AnyCase] = "task"
    """class scenario: classes in the softmax by which the encoder learns the current batch. all: those seen so far;
    task: the task's; the heads alone learn to tell the batch from old classes (after Smith et al. 2021)"""


class Config(prer_config.RehearsingConfig):
    """The options of both PRER methods, and those of generated images."""

    target: Annotated[Literal["past_encoder", "flow"], AnyCase] = "past_encoder"
    """what the embedding of a generated image is held to: that of the encoder when the last task ended, or the flow's
    own sample (then the flow models the encoder's embeddings themselves)"""
    autoencoder: prer_config.AutoencoderConfig = prer_config.AutoencoderConfig()
    """the decoder, and the codes that the flow models"""
    regularization: RegularizationConfig = RegularizationConfig()
    """how the generated images enter the loss"""
    replay: ReplayConfig = ReplayConfig()
    """what the heads learn from generated images, if weights.replay is not 0"""

    def in_scenario(self, scenario: Scenario) -> Self:
        options = super().in_scenario(scenario)
        if self.regularization.noise is not None:
            return options
        noise = {"noise": NOISE if options.weights.replay else 0.0}
        return options.model_copy(update={"regularization": self.regularization.model_copy(update=noise)})


class PRER(Rehearsing):
    """Pseudo-rehearsal with a normalizing flow.

    *Deviation* from the original: the cosine distance is 1 - cos (the original added the similarity); the decoder
    relearns old classes with the new ones; no generated image outlives its task; replay to the heads, and the noise
    and softmax that keep the encoder from telling generated images from real ones, are ours.
    """

    title = "PRER"
    advice: ClassVar = {"class": "prer_features, which needs model.frozen, is more accurate in the class scenario"}
    config: Config
    works_on = "images"

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        encoder, classes = learner.encoder, len(learner.task_of)
        self.held_to_codes = config.target == "flow"
        dimension = encoder.embedding_dim if self.held_to_codes else config.flow.dimension
        projection = nn.Identity() if self.held_to_codes else nn.Linear(encoder.feature_dim, dimension)
        condition = configured(Condition, config.autoencoder.conditioning)(classes)
        decoder = partial(encoder.mirror, dimension + condition.size, encoder.shape)
        self.autoencoder = configured(Autoencoder, config.autoencoder)(projection, condition, decoder)
        self.flow = prer_config.build_flow(config.flow, dimension, classes)
        self.to(stream.device)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Of images (B, C, H, W) in [0, 1]: the encoder's features, or with target: flow its embeddings (B, F)."""
        encoder = self.learner.encoder
        return encoder(x) if self.held_to_codes else encoder.features(x)

    def codes(self, x: Tensor) -> Tensor:
        return self.autoencoder.projection(self.features(x))

    def generate(self, y: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.flow.sample(y, self.stream)
        return self.autoencoder.images(codes, y), codes

    def embed_generated(self, x: Tensor) -> Tensor:
        return self.learner.embed(as_floats(x))

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None:
            return super().loss(x, y, task) | self.l1(self.learner.encoder)
        kind, count = self.config.regularization.type, self.config.regularization.to_sample or len(y)
        old = self.rehearsal.draw(len(y) if kind == "overwrite" else count, self.stream)
        noise, embed, is_new = self.config.regularization.noise or 0.0, self.learner.embed, None
        x, x_old = (noisy(images, noise, self.stream) for images in (x, self.augment(as_floats(old.x))))
        if kind == "alternation":
            z, z_old = embed(x), embed(x_old)
        elif kind == "concatenation":
            z, z_old = embed(torch.cat((x, x_old))).split((len(x), count))
        else:
            is_new = torch.rand(len(y), device=y.device, generator=self.stream) < self.share(task)
            z = z_old = embed(torch.where(is_new[:, None, None, None], x, x_old))
        return self.terms(z, y, z_old, old, task, is_new) | self.l1(self.learner.encoder)

    def end_task(self, task: Task) -> None:
        """Fit the decoder by reconstruction, then the flow on the codes, to the task's and the generated images."""
        replayed = self.replayed(task)
        pool = task.train if replayed is None else concatenate(task.train, Split(*replayed))
        features = mapped(self.features, pool.x)  # once: the encoder does not change
        self.autoencoder.fit(features, pool, self.stream)
        codes = self.autoencoder.projection(features).detach()
        # decoding and encoding removed the flow's noise: all codes count as real
        self.fit_flow(codes, pool.y, torch.ones_like(pool.y, dtype=torch.bool), task)

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        seen = sorted(self.learner.classes_before(task.index + 1))
        shown = seen[:: ceil(len(seen) / MAX_ROWS)]
        y = cycle_labels(shown, PER_ROW * len(shown), self.stream.device)
        x = as_floats(self.generate(y)[0])
        rows = [(f"class {c}", x[y == c]) for c in shown]
        return {
            "samples": ImageGrid(f"Images generated after task {task.index}", rows),
            "reconstructions": reconstructions(task, self.reconstruct),
        }

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of classes y (B,), encoded and decoded."""
        return self.autoencoder.decode(self.codes(x), y).sigmoid()
