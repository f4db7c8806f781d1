"""A conditional normalizing flow: a density with exact likelihood and exact sampling."""

import math

import torch
from torch import Tensor, nn

from flows.transforms import Transform


class Flow(nn.Module):
    """The density of x = f^-1(u; c) with u standard normal, for an invertible f.

    Example:
        >>> from flows.realnvp import build
        >>> flow = build(width=8, context=3)
        >>> c = torch.eye(3)  # one condition per row
        >>> flow.sample(c).shape
        torch.Size([3, 8])
        >>> flow.log_prob(torch.randn(3, 8), c).shape
        torch.Size([3])
    """

    def __init__(self, transform: Transform, width: int) -> None:
        super().__init__()
        self.transform, self.width = transform, width

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x (B, d) to z = f(x; c) (B, d) and log|det dz/dx| (B,)."""
        return self.transform(x, c)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z (B, d) to x = f^-1(z; c) (B, d) and log|det dx/dz| (B,)."""
        return self.transform.inverse(z, c)

    def log_prob(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Log-density (B,) in nats of x (B, d): log N(f(x; c); 0, I) + log|det df/dx|."""
        z, ladj = self(x, c)
        return ladj - 0.5 * (z.square().sum(dim=1) + self.width * math.log(2 * math.pi))

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
        like = next(self.parameters())
        u = torch.randn(count, self.width, dtype=like.dtype, device=like.device, generator=generator)
        with torch.no_grad():
            return self.inverse(temperature * u, c)[0]

    def initialize(self, x: Tensor, c: Tensor | None = None) -> None:
        """Set everything that depends on data from x (B, d). Call it before the first step of a fit."""
        self.transform.initialize(x, c)
