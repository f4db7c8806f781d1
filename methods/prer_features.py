"""PRER on features: a normalizing flow on a frozen encoder's features, as a classifier or for pseudo-rehearsal.

Ours, after PRER (arXiv 2202.05694). The encoder's features are frozen (`model.frozen`). Flows model their coordinates
along the leading principal directions of the first task's features. No image is stored or generated.

`predict: flow`, the default, is Bayes' rule. A class has a flow of its own, fitted once, so that no later task changes
what is known of it; a Gaussian that all classes share describes what the flows do not (`FlowOverGaussian`). How much
the flows are trusted is chosen on held-out samples (`models.tempering`). No layer is trained.

With `predict: head` one conditional flow learns each task's features and those it generated itself; during the next
task its samples train the layers above, projection and heads.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task, mapped
from methods import Diagnostic
from methods.mechanisms.flow_over_gaussian import FlowOverGaussian
from methods.mechanisms.prer_config import RehearsingConfig, build_flow
from methods.mechanisms.rehearsal import Rehearsing
from methods.slda import SLDA
from methods.slda import Config as SLDAConfig
from models.learner import Learner
from models.subspace import Subspace
from utils.settings import AnyCase, BadInput

MAX_FEATURES = 4000  # for the principal directions
HELD_OUT = 0.1  # share of a task's samples that the flows are not fitted to, for the choice of their weight
MIN_SAMPLES = 10  # of a class, for some of them to be held out


class Config(RehearsingConfig):
    """The options that `prer` and `prer_features` share, and those of the Gaussian."""

    predict: Annotated[Literal["head", "flow", "both"], AnyCase] = "flow"
    """what classifies: the heads; the flow, by Bayes' rule from its density of each class; or both, by the product of
    their probabilities"""
    shrinkage: float = Field(1e-4, gt=0, le=1)
    """predict: flow: share of the Gaussian's covariance that is replaced by the mean variance times the identity"""

    @property
    def generative(self) -> bool:
        return self.predict == "flow"


class PRERFeatures(Rehearsing):
    """A flow on features; `flow.dimension` is the number of principal directions."""

    title = "PRER on features"
    config: Config
    works_on = "features"
    diagnosed: ClassVar = Rehearsing.diagnosed | {
        "tempering": Diagnostic("weight of the flow in Bayes' rule, and scale of its log-densities (predict: flow)")
    }
    off: ClassVar = {"predict": "head", **Rehearsing.off}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        (features,), dimension = learner.encoder.shape, config.flow.dimension
        if dimension > features:
            raise BadInput(f"method.flow: dimension {dimension} is more than the encoder's {features} features")
        self.subspace = Subspace(features, dimension)
        self.flow = build_flow(config.flow, dimension, len(learner.task_of))
        self.trains = config.predict != "flow" or self.rehearses  # where the flow classifies, no layer is used
        self.classifier: FlowOverGaussian | None = None  # predict: flow
        if config.predict == "flow":
            gaussian = SLDA(SLDAConfig(name="slda", shrinkage=config.shrinkage), learner, stream)
            self.classifier = FlowOverGaussian(gaussian, self.subspace, self.flow)
        self.to(stream.device)

    @property
    def layer(self) -> nn.Module:
        """What is trained on the features before the heads."""
        encoder = self.learner.encoder
        return encoder.projection if isinstance(encoder.features, nn.Identity) else encoder

    def embed(self, x: Tensor) -> Tensor:
        return self.layer(self.subspace(x))

    def codes(self, x: Tensor) -> Tensor:
        return self.subspace.codes(x)

    def generate(self, y: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.flow.sample(y, self.stream)
        return codes, codes

    def embed_generated(self, x: Tensor) -> Tensor:
        layer, subspace = self.layer, self.subspace
        if isinstance(layer, nn.Linear):  # both linear maps as one: features have many more dimensions than codes
            return F.linear(x, layer.weight @ subspace.basis.T, layer.bias + layer.weight @ subspace.mean)
        return layer(subspace.features(x))

    def begin_task(self, task: Task) -> Task:
        if task.index > 0 and self.rehearses:
            self.subspace.activate(self.layer)
        return super().begin_task(task)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None:
            return super().loss(x, y, task) | self.l1(self.layer)
        old = self.rehearsal.draw(self.config.regularization.to_sample or len(y), self.stream)
        codes = self.flow.noisy(self.codes(x), self.stream)  # with the noise that the flow's samples have
        z, z_old = self.embed_generated(torch.cat((codes, old.x))).split((len(x), len(old.x)))
        return self.terms(z, y, z_old, old, task) | self.l1(self.layer)

    def end_task(self, task: Task) -> None:
        """Find the principal directions after the first task; fit the flow to the task's and the generated codes."""
        real, replayed = task.train, self.replayed(task) if self.flow.relearns else None
        self.rehearsal, counts = None, real.y.bincount()
        if self.classifier is not None and self.flow.fits == 0 and len(real) < self.flow.dimension:
            problem = f"{self.flow.dimension} directions cannot be found in the first task's {len(real)} samples"
            raise BadInput(f"method.flow.dimension: {problem}; lower it")
        if self.flow.fits == 0:
            some = torch.randperm(len(real), device=real.y.device, generator=self.stream)[:MAX_FEATURES]
            self.subspace.find(real.x[some], balanced=isinstance(self.layer, nn.Linear))
        if self.classifier is None:
            self.fit(real, replayed, task)
            return
        held_out = torch.rand(len(real), device=real.y.device, generator=self.stream) < HELD_OUT
        held_out &= (counts >= MIN_SAMPLES)[real.y]  # a class of few samples needs all of them
        fitted, unseen = real.take(~held_out), real.take(held_out)
        self.classifier.add(fitted)
        self.fit(fitted, replayed, task)
        if len(unseen):
            self.classifier.choose(unseen)
        share, scale = self.classifier.tempering.chosen
        self.measured |= {"tempering/share": share, "tempering/scale": scale}

    def fit(self, real: Split, replayed: tuple[Tensor, Tensor] | None, task: Task) -> None:
        """Fit the flow to the codes of real features, and to generated codes with their classes."""
        z, y = mapped(self.codes, real.x), real.y
        if replayed is not None:
            z, y = torch.cat((z, replayed[0])), torch.cat((y, replayed[1]))
        self.fit_flow(z, y, torch.arange(len(y), device=y.device) < len(real), task)

    def class_densities(self, x: Tensor) -> Tensor:
        return super().class_densities(x) if self.classifier is None else self.classifier.class_densities(x)

    def score(self, x: Tensor, logits: Tensor, task: int) -> Tensor:
        if self.classifier is None or not self.flow.known.any():
            return super().score(x, logits, task)
        return self.classifier.score(x, logits, task)
