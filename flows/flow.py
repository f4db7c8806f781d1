"""A conditional normalizing flow: a density with exact likelihood and exact sampling."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from flows.transforms import Compose, Standardize, Transform


class Flow(Compose):
    """The density of x (B, width) = f^-1(u; c) with u standard normal; f: standardisation, then the transforms.

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
        self.width = width

    @property
    def standardize(self) -> Standardize:
        """The first transform."""
        return cast(Standardize, self.transforms[0])

    def log_prob(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Log-density (B,) in nats of x (B, d): log N(f(x; c); 0, I) + log|det df/dx|."""
        z, ladj = self(x, c)
        return ladj - 0.5 * (z.square().sum(dim=1) + self.width * math.log(2 * math.pi))

    @torch.no_grad()
    def sample(
        self,
        c: Tensor | None = None,
        n: int | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw vectors (B, d) without gradients: one per condition in c (B, c), or n of them without a condition.

        `temperature` scales the standard deviation of u; below 1, samples stay closer to the modes.
        """
        count = n if c is None else len(c)
        if count is None:
            raise ValueError("sample() needs the conditions c, or n, the number of samples of a flow without one")
        like = self.standardize.mean
        u = torch.randn(count, self.width, dtype=like.dtype, device=like.device, generator=generator)
        return self.inverse(temperature * u, c)[0]
