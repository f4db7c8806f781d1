"""The conditional flow on codes: fitted, sampled, refitted to its own samples, and read as a classifier."""

from math import ceil
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import flows
from flows import Flow
from models.fitting import minimise
from utils.settings import AnyCase, Chosen, Settings

CHUNK = 4096
"""Codes that go through the flow at once where no gradient is needed."""
REACH = 1.2
"""A sample farther out than this times the farthest code of the fit is drawn again."""
REDRAWS = 20
"""How often at most; each time the temperature falls, so that the sample nears the centre of its class."""
HELD_OUT = 0.1
"""Share of what a flow is fitted to that early stopping judges it by."""


class ConditioningSettings(Settings):
    """How a class label becomes a condition."""

    type: Annotated[Literal["none", "one_hot", "class_embedding"], AnyCase] = "one_hot"
    """none: not at all; one_hot; class_embedding: a learned vector for each class"""
    dimension: int | None = Field(None, ge=1)
    """class_embedding: the vector's size; by default the number of classes"""


class FlowSettings(Settings):
    """The normalizing flow and its fit."""

    type: str = "realnvp"
    """which flow: the name of a file in flows/"""
    epochs: int = Field(20, ge=0)
    """passes over the task's data and the generated data, after each task"""
    steps: int | None = Field(None, ge=1)
    """batches after each task, instead of epochs"""
    dimension: int = Field(32, ge=2)
    """size of the codes, where they are a projection (all but target: flow)"""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate"""
    weight_decay: float = Field(0.0, ge=0)
    """Adam's L2 penalty"""
    batch_size: int = Field(256, ge=2)
    """codes a step"""
    annealing: bool = True
    """let the learning rate fall to 0 along a cosine"""
    reset: bool = False
    """begin each fit with new weights, not with those of the last task"""
    early_stopping: bool = False
    """hold a tenth of the codes out of the fit, stop when their likelihood stops rising, and keep the best weights"""
    tolerance: int = Field(5, ge=1)
    """early_stopping: epochs without a better likelihood before it stops"""
    noise: float = Field(0.1, ge=0)
    """deviation of the Gaussian noise on the flow's input while it trains, in units of each code's own deviation"""
    temperature: float = Field(0.8, gt=0)
    """scale of the Gaussian that samples are drawn from; below 1 they keep closer to the data"""
    conditioning: ConditioningSettings = ConditioningSettings()
    """what the flow is told of the class"""


FLOW = Chosen(flows, "type", FlowSettings, "build")


class Condition(nn.Module):
    """Class labels (B,) -> conditions (B, size); None when `size` is 0."""

    def __init__(self, settings: ConditioningSettings, classes: int) -> None:
        super().__init__()
        self.classes, self.kind = classes, settings.type
        sizes = {"none": 0, "one_hot": classes, "class_embedding": settings.dimension or classes}
        self.size = sizes[self.kind]
        if self.kind == "class_embedding":
            self.vectors = nn.Embedding(classes, self.size)

    def forward(self, y: Tensor) -> Tensor | None:
        if self.kind == "none":
            return None
        return self.vectors(y) if self.kind == "class_embedding" else F.one_hot(y, self.classes).float()


class CodeFlow(nn.Module):
    """Density of codes (B, d) given their classes y (B,); the same size however many tasks there were.

    Args:
        dimension: d.
        classes: K, the number of all classes there will be.
        settings: which flow, its sizes, and how it is fitted.

    Raises:
        ValueError: d is too small for the flow's levels.
    """

    def __init__(self, dimension: int, classes: int, settings: FlowSettings) -> None:
        super().__init__()
        self.dimension, self.settings = dimension, settings
        self.condition = Condition(settings.conditioning, classes)
        self.flow = self._new_flow()
        self.register_buffer("fits", torch.zeros((), dtype=torch.long))
        self.register_buffer("known", torch.zeros(classes, dtype=torch.bool))  # classes it was fitted to
        self.register_buffer("reach", torch.tensor(torch.inf))  # of samples, in standardised codes
        self.register_buffer("redrawn", torch.zeros((), dtype=torch.long))

    def _new_flow(self) -> Flow:
        return FLOW.builder_of(self.settings)(self.dimension, self.condition.size)

    @property
    def deviation(self) -> Tensor:
        """Standard deviation (d,) of each dimension of the codes it was fitted to."""
        return self.flow.transform.transforms[0].deviation

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        """Log-density (B,) in nats of codes z (B, d) given their classes y (B,)."""
        return self.flow.log_prob(z, self.condition(y))

    @torch.no_grad()
    def negative_log_likelihood(self, z: Tensor, y: Tensor) -> float:
        """Mean of codes z (B, d) given their classes y (B,), in nats per dimension."""
        return float(-self.log_prob(z, y).mean() / self.dimension)

    @torch.no_grad()
    def posterior(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, K) of the classes of codes z (B, d) by Bayes' rule, all known ones as likely before.

        Classes that it was never fitted to have -inf; so has everything where every density vanishes.
        """
        scores = torch.full((len(z), len(self.known)), -torch.inf, device=z.device)
        for c in self.known.nonzero()[:, 0].tolist():
            scores[:, c] = torch.cat(
                [self.log_prob(p, torch.full((len(p),), c, device=z.device)) for p in z.split(CHUNK)]
            )
        return scores.log_softmax(dim=1)

    @torch.no_grad()
    def round_trip(self, z: Tensor, y: Tensor) -> Tensor:
        """Error (B,) of codes z (B, d) sent through the flow and back: |z - f^-1(f(z))| over |z|."""
        c = self.condition(y)
        back = self.flow.inverse(self.flow(z, c)[0], c)[0]
        return torch.linalg.vector_norm(back - z, dim=1) / torch.linalg.vector_norm(z, dim=1).clamp(min=1e-6)

    @torch.no_grad()
    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """Codes (B, d), one of each class in y (B,).

        Samples that are not finite, or farther out than any code of the fit, are counted in `redrawn` and drawn again.

        Raises:
            FloatingPointError: the flow has no finite sample even at its centre.
        """
        return torch.cat([self._sample(part, stream) for part in y.split(CHUNK)])

    def _sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        temperature = self.settings.temperature
        z = self.flow.sample(self.condition(y), len(y), temperature, stream)
        for _ in range(REDRAWS):
            bad = (~self._within_reach(z)).nonzero()[:, 0]
            if not len(bad):
                return z
            self.redrawn += len(bad)
            temperature *= 0.8
            z[bad] = self.flow.sample(self.condition(y[bad]), len(bad), temperature, stream)
        raise FloatingPointError("the flow has no sample near its data; lower the flow's lr, or set its reset: yes")

    def _within_reach(self, z: Tensor) -> Tensor:
        """Which codes (B,) are finite, and no farther out than those of the fit."""
        standardised = self.flow.transform.transforms[0](z)[0]
        return torch.linalg.vector_norm(standardised, dim=1) <= self.reach  # nan is not

    def fit(self, z: Tensor, y: Tensor, noisy: Tensor, stream: torch.Generator) -> None:
        """Maximise the likelihood of codes z (N, d) of classes y (N,), every class with the same weight.

        Args:
            z, y: the new task's codes, and those of the classes before.
            noisy: which of them (N,) get noise: not those that a flow fitted with noise has made, or it would pile up.
            stream: draws batches and noise.

        Raises:
            FloatingPointError: the likelihood is not finite.
        """
        if self.fits > 0 and self.settings.reset:
            self.flow = self._new_flow().to(z.device)
        standardize = self.flow.transform.transforms[0]
        if self.fits == 0 or self.settings.reset:
            self.flow.initialize(z, self.condition(y))
        else:  # the learned part goes on from where it is
            standardize.initialize(z)
        scale = self.settings.noise * self.deviation * noisy[:, None]
        order = torch.randperm(len(z), device=z.device, generator=stream)
        held_out = order[: ceil(HELD_OUT * len(z))] if self.settings.early_stopping else None

        def loss(index: Tensor) -> Tensor:
            codes = z[index] + scale[index] * torch.randn(len(index), self.dimension, device=z.device, generator=stream)
            return -self.log_prob(codes, y[index]).mean()

        minimise(loss, [self.flow, self.condition], y, self.settings, stream, held_out)
        self.fits += 1
        self.known[y.unique()] = True
        self.reach.copy_(REACH * torch.linalg.vector_norm(standardize(z)[0], dim=1).max())
