"""Conditional normalizing flows, one file per family: its name is a `flow.type`. Imports nothing of the project.

A file defines `build(width, context=0, *, own options) -> Flow` for vectors of `width` dimensions under a condition of
`context` dimensions (0: none).
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from flows.transforms import Compose, Standardize, Transform


class Flow(Compose):
    """The density of x (B, width) = f^-1(u; c), u standard normal; f standardises, then applies the transforms.

    Example:
        >>> from flows.realnvp import build
        >>> flow = build(width=8, context=3)
        >>> c = torch.eye(3)  # one condition per row
        >>> flow.sample(c).shape
        torch.Size([3, 8])
        >>> flow.log_prob(torch.randn(3, 8), c).shape
        torch.Size([3])
    """

    def __init__(self, width: int, transforms: Iterable[Transform]) -> None:
        super().__init__([Standardize(width), *transforms])

    @property
    def standardize(self) -> Standardize:
        """The first transform."""
        return cast(Standardize, self.transforms[0])

    def log_prob(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Log-density (B,) in nats of x (B, d): log N(f(x; c); 0, I) + log|det df/dx|."""
        z, ladj = self(x, c)
        return ladj - 0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))

    @torch.no_grad()
    def sample(self, c: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Draw vectors (B, d), one per condition in c (B, context); of an unconditional flow, c is of size (B, 0).

        `temperature` scales the standard deviation of u; below 1, samples stay closer to the modes.
        """
        mean = self.standardize.mean
        u = torch.randn(len(c), len(mean), dtype=mean.dtype, device=mean.device, generator=generator)
        return self.inverse(temperature * u, c)[0]
