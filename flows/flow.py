"""A conditional normalizing flow: a density with exact likelihood and exact sampling."""

import math

import torch
from torch import Tensor, nn

from flows.transforms import (
    ActNorm,
    AffineCoupling,
    Compose,
    Gaussianize,
    Leading,
    Permutation,
    Standardize,
    Transform,
)


class Flow(nn.Module):
    """The density of x = f^-1(u; c) with u standard normal, for an invertible f.

    Example:
        >>> flow = realnvp(width=8, context=3)
        >>> c = torch.eye(3)                       # one condition a row
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
        """Draw vectors (B, d): one for each condition in c (B, c), or n of them without a condition.

        `temperature` scales the deviation of u: below 1 samples keep closer to the modes. Gradients do not flow.
        """
        count = n if c is None else len(c)
        if count is None:
            raise ValueError("sample() needs the conditions c, or n, the number of samples of a flow without one")
        like = next(self.parameters())
        u = torch.randn(count, self.width, dtype=like.dtype, device=like.device, generator=generator)
        with torch.no_grad():
            return self.inverse(temperature * u, c)[0]

    def initialize(self, x: Tensor, c: Tensor | None = None) -> None:
        """Set everything that depends on data from x (B, d): before the first step of a fit."""
        self.transform.initialize(x, c)


def realnvp(
    width: int,
    context: int = 0,
    levels: int = 2,
    blocks: int = 5,
    hidden_size: int | float = 128,
    hidden_layers: int = 1,
) -> Flow:
    """PRER's flow (arXiv 2202.05694, section on the generative model): a multi-scale conditional RealNVP.

    Standardisation, then `levels` times `blocks` x [ActNorm, fixed permutation, affine coupling]; between two levels
    half of the dimensions leave through a learned linear-Gaussian prior, and what is left at the end is Gaussianised.

    *Deviation* from the original: the standardisation is a transform of the flow, so its log-determinant is counted
    and it cannot be lost when the flow is rebuilt or saved.

    Args:
        width: d, dimensions of x.
        context: dimensions of the condition, 0 for none.
        levels: each halves the dimensions; ValueError when a level is left with fewer than 2.
        blocks: couplings a level.
        hidden_size, hidden_layers: the couplings' networks, see `AffineCoupling`.
    """
    transforms: list[Transform] = [Standardize(width)]
    current = width
    for level in range(levels):
        if current < 2:
            raise ValueError(
                f"{levels} levels need more than {width} dimensions: level {level + 1} would have {current}"
            )
        steps: list[Transform] = []
        for _ in range(blocks):
            steps += [
                ActNorm(current),
                Permutation(current),
                AffineCoupling(current, context, hidden_size, hidden_layers),
            ]
        kept = current // 2
        if level < levels - 1:
            steps.append(Gaussianize(current, context, given=kept))
        transforms.append(Leading(Compose(steps), current))
        current = kept if level < levels - 1 else current
    transforms.append(Leading(Gaussianize(current, context), current))
    return Flow(Compose(transforms), width)
