"""The conditional flow on codes: fitted, sampled, refitted to its own samples, and used as a classifier."""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from flows import Flow
from models.fitting import MAX_NORM, Objective, class_weights, fit, length

CHUNK = 4096  # codes that pass through the flow at once where no gradient is needed
REACH = 1.2  # samples whose norm exceeds this multiple of the largest norm in the fit are redrawn
MAX_REDRAWS = 20  # each lowers the temperature, which moves the sample towards the centre of its class
HELD_OUT = 0.1  # share of the codes that early stopping holds out


class Condition(nn.Module):
    """Labels (B,) of K = `classes` classes -> conditions (B, size).

    Args:
        type: none: no condition (size 0); one_hot; class_embedding: a learned vector per class
        dimension: class_embedding: size of the vector; by default the number of classes
    """

    def __init__(
        self,
        classes: int,
        *,
        type: Literal["none", "one_hot", "class_embedding"] = "one_hot",
        dimension: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.kind = classes, type
        self.size = {"none": 0, "one_hot": classes, "class_embedding": dimension or classes}[type]
        if type == "class_embedding":
            self.vectors = nn.Embedding(classes, self.size)

    def forward(self, y: Tensor) -> Tensor:
        return self.vectors(y) if self.kind == "class_embedding" else F.one_hot(y, self.classes)[:, : self.size].float()


class Density(nn.Module):
    """A density of codes (B, d) given their classes y (B,), of K classes in all."""

    relearns: bool = True
    """Whether a fit has to see codes of earlier classes, generated before it, in order not to forget them."""

    def __init__(self, dimension: int, classes: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.fits = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.known = nn.Buffer(torch.zeros(classes, dtype=torch.bool))  # classes it was fitted to
        self.redrawn = nn.Buffer(torch.zeros((), dtype=torch.long))  # samples, since it was last set to 0

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        """Log-density (B,) in nats of codes z (B, d) given their classes y (B,)."""
        raise NotImplementedError

    def round_trip(self, z: Tensor, y: Tensor) -> Tensor:
        """Error (B,) of codes z (B, d) sent through the flow and back: |z - f^-1(f(z))| / |z|."""
        raise NotImplementedError

    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """Codes (B, d), one per class in y (B,); samples not finite or out of `REACH` are redrawn and counted."""
        raise NotImplementedError

    def noisy(self, z: Tensor, stream: torch.Generator) -> Tensor:
        """Codes z (B, d) with the noise of the fit."""
        raise NotImplementedError

    def fit(self, z: Tensor, y: Tensor, real: Tensor, stream: torch.Generator) -> None:
        """Maximise the likelihood of codes z (N, d) of classes y (N,), every class with the same weight.

        `real` (N,), bool, tells which codes get noise: all but the flow's own samples, since their noise would add up.
        `stream` draws batches and noise.
        """
        raise NotImplementedError

    @torch.no_grad()
    def negative_log_likelihood(self, z: Tensor, y: Tensor) -> float:
        """Mean over codes z (N, d) given their classes y (N,), in nats per dimension."""
        return float(-self.log_prob(z, y).mean() / self.dimension)

    @torch.no_grad()
    def posterior(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, K) of the classes of codes z (B, d); the prior of those it was fitted to is uniform."""
        return self.class_densities(z).log_softmax(dim=1)

    @torch.no_grad()
    def class_densities(self, z: Tensor) -> Tensor:
        """Log-densities (B, K) in nats of codes z (B, d) given each class; -inf where it was not fitted to one."""
        scores = torch.full((len(z), len(self.known)), -torch.inf, device=z.device)
        for c in self.known.nonzero()[:, 0].tolist():
            parts = [self.log_prob(part, torch.full_like(part[:, 0], c, dtype=torch.long)) for part in z.split(CHUNK)]
            scores[:, c] = torch.cat(parts)
        return scores


class CodeFlow(Density):
    """Density of codes (B, d) given their classes y (B,); its size does not depend on the number of tasks.

    Args:
        build: (d = dimension, size of the condition) -> a new flow; ValueError if d is too small for it
        steps: batches after each task
        epochs: instead of steps: passes over the task's data and the generated data
        lr: learning rate of Adam
        weight_decay: L2 penalty of Adam
        batch_size: codes per step
        annealing: let the learning rate fall to 0 along a cosine
        reset: begin each fit with new weights, not with those of the last task
        early_stopping: hold a tenth of the codes out of the fit, whatever their classes, stop when their likelihood
            stops rising, and keep the best weights
        tolerance: early_stopping: epochs without a better likelihood before it stops
        noise: standard deviation of the Gaussian noise on the flow's input during the fit, as a multiple of
            each dimension's standard deviation
        temperature: scale of the Gaussian that samples are drawn from; below 1 they stay closer to the data

    Attributes:
        name: what the log calls it
    """

    name = "flow"

    def __init__(
        self,
        dimension: int,
        condition: Condition,
        build: Callable[[int, int], Flow],
        *,
        steps: Annotated[int, Ge(1)] | None = 500,
        epochs: Annotated[int, Ge(0)] | None = None,
        lr: Annotated[float, Gt(0)] = 1e-3,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
        batch_size: Annotated[int, Ge(2)] = 256,
        annealing: bool = True,
        reset: bool = False,
        early_stopping: bool = False,
        tolerance: Annotated[int, Ge(1)] = 5,
        noise: Annotated[float, Ge(0)] = 0.1,
        temperature: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(dimension, condition.classes)
        self.condition = condition
        self.reset, self.early_stopping, self.noise, self.temperature = reset, early_stopping, noise, temperature
        options: dict[str, Any] = {**length(steps, epochs), "batch_size": batch_size, "tolerance": tolerance}
        options |= {"lr": lr, "weight_decay": weight_decay, "annealing": annealing, "max_norm": MAX_NORM}
        self._fit: Callable[..., None] = partial(fit, **options)
        self._build = partial(build, dimension, condition.size)
        self.flow: Flow = self._build()
        self.reach = nn.Buffer(torch.tensor(torch.inf))  # of samples, in standardised codes

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        return self.flow.log_prob(z, self.condition(y))

    @torch.no_grad()
    def class_densities(self, z: Tensor) -> Tensor:
        scores, known = torch.full((len(z), len(self.known)), -torch.inf, device=z.device), self.known.nonzero()[:, 0]
        at_once = max(1, CHUNK // max(1, len(known)))  # codes, each once for every class: few large passes
        for codes, rows in zip(z.split(at_once), scores.split(at_once), strict=True):
            pairs = codes.repeat_interleave(len(known), dim=0), known.repeat(len(codes))
            rows[:, known] = self.log_prob(*pairs).view(len(codes), len(known))
        return scores

    @torch.no_grad()
    def round_trip(self, z: Tensor, y: Tensor) -> Tensor:
        c = self.condition(y)
        back = self.flow.inverse(self.flow(z, c)[0], c)[0]
        return torch.linalg.vector_norm(back - z, dim=1) / torch.linalg.vector_norm(z, dim=1).clamp(min=1e-6)

    @torch.no_grad()
    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        return torch.cat([self._sample(part, stream) for part in y.split(CHUNK)])

    def _sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        temperature = self.temperature
        z = self.flow.sample(self.condition(y), temperature, stream)
        for _ in range(MAX_REDRAWS):
            norms = torch.linalg.vector_norm(self.flow.standardize(z)[0], dim=1)
            bad = (~(norms <= self.reach)).nonzero()[:, 0]  # nan is not within reach
            if not len(bad):
                return z
            self.redrawn.add_(len(bad))
            temperature *= 0.8
            z[bad] = self.flow.sample(self.condition(y[bad]), temperature, stream)
        raise FloatingPointError("the flow has no sample near its data; lower the flow's lr, or set its reset: yes")

    def noisy(self, z: Tensor, stream: torch.Generator) -> Tensor:
        noise = torch.randn(z.shape, device=z.device, generator=stream)
        return z + self.noise * self.flow.standardize.deviation * noise

    def fit(self, z: Tensor, y: Tensor, real: Tensor, stream: torch.Generator) -> None:
        if self.fits > 0 and self.reset:
            self.flow = self._build().to(z.device)
        if self.fits == 0 or self.reset:
            self.flow.initialize(z, self.condition(y))
        else:  # the learned part continues from its weights
            self.flow.standardize.initialize(z)
        permuted = torch.randperm(len(z), device=z.device, generator=stream)  # whether used or not: the same stream
        held_out = permuted[: ceil(HELD_OUT * len(z))] if self.early_stopping else None

        def loss(index: Tensor) -> Tensor:
            codes = torch.where(real[index, None], self.noisy(z[index], stream), z[index])
            return -self.log_prob(codes, y[index]).mean()

        objective = Objective(nn.ModuleList([self.flow, self.condition]), loss)
        self._fit([objective], class_weights(y), stream, name=self.name, held_out=held_out)
        self.fits.add_(1)
        self.known[y.unique()] = True
        self.reach.copy_(REACH * torch.linalg.vector_norm(self.flow.standardize(z)[0], dim=1).max())
