"""A flow for each class, fitted where there are real codes of the class."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from models.code_flow import CodeFlow, Density


class ClassFlows(Density):
    """K unconditional flows on codes (B, d), all of them made at the start.

    Their conditional density is that of one flow whose parameters are all functions of the class.
    """

    relearns = False

    def __init__(self, dimension: int, classes: int, build: Callable[[], CodeFlow]) -> None:
        super().__init__(dimension, classes)
        self.flows = nn.ModuleList([build() for _ in range(classes)])
        for c, flow in enumerate(self.flows):
            cast(CodeFlow, flow).name = f"flow of class {c}"
        self.noise = nn.Buffer(torch.zeros(dimension))  # its deviation

    def _by_class(self, y: Tensor) -> Iterator[tuple[CodeFlow, Tensor, Tensor]]:
        """Of each class in y (B,): its flow, its places in y (b,), and the labels (b,) that the flow takes."""
        for c in y.unique().tolist():
            places = (y == c).nonzero()[:, 0]
            yield cast(CodeFlow, self.flows[c]), places, torch.zeros_like(places)

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        values = z.new_zeros(len(z))
        for flow, at, own in self._by_class(y):
            values[at] = flow.log_prob(z[at], own)
        return values

    def round_trip(self, z: Tensor, y: Tensor) -> Tensor:
        errors = z.new_zeros(len(z))
        for flow, at, own in self._by_class(y):
            errors[at] = flow.round_trip(z[at], own)
        return errors

    @torch.no_grad()
    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        codes = self.noise.new_zeros(len(y), self.dimension)
        for flow, at, own in self._by_class(y):
            codes[at] = flow.sample(own, stream)
            self.redrawn.add_(flow.redrawn)
            flow.redrawn.zero_()
        return codes

    def noisy(self, z: Tensor, stream: torch.Generator) -> Tensor:
        """As declared; of a class that has no flow yet, too: by the mean deviation of the classes that have one."""
        return z + self.noise * torch.randn(z.shape, device=z.device, generator=stream)

    def fit(self, z: Tensor, y: Tensor, real: Tensor, stream: torch.Generator) -> None:
        for flow, at, own in self._by_class(y):
            if real[at].any():  # classes that the flow itself generated are not fitted again
                flow.fit(z[at], own, real[at], stream)
        self.fits.add_(1)
        self.known[y.unique()] = True
        fitted = [cast(CodeFlow, self.flows[c]) for c in self.known.nonzero()[:, 0].tolist()]
        self.noise.copy_(torch.stack([flow.noise * flow.flow.standardize.deviation for flow in fitted]).mean(dim=0))
