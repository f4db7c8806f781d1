"""Flows by name, all of one signature, so that `flow.type` in a YAML file is all that it takes to change the flow.

`realnvp`, the paper's, and `gaussian`, the baseline, are ours; `nice`, `maf` and `nsf` are those of zuko (Rozet et al.,
https://github.com/probabilists/zuko), imported only when asked for.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.flow import Flow, realnvp
from flows.transforms import ActNorm, Compose, Standardize, Transform


class Triangular(Transform):
    """z = L(c) (x - mean(c)) with L lower triangular, its diagonal positive; linear in the condition (bounded there).

    Under a standard normal, x is Gaussian with the full covariance (L'L)^-1: one Gaussian a class for one-hot c.
    """

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.zeros(width * (width + 1), context))
        self.bias = nn.Parameter(torch.zeros(width * (width + 1)))

    def _mean_and_factor(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, d), factor (B, d, d), and the log of its diagonal (B, d)."""
        c = x.new_zeros(len(x), 0) if c is None else c.to(x.dtype)
        values = F.linear(c, self.weight, self.bias)
        mean, square = values[:, : self.width], values[:, self.width :].unflatten(1, (self.width, self.width))
        log_diagonal = 5 * torch.tanh(square.diagonal(dim1=1, dim2=2) / 5)  # a scale between e^-5 and e^5
        return mean, square.tril(-1) + torch.diag_embed(log_diagonal.exp()), log_diagonal

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, factor, log_diagonal = self._mean_and_factor(x, c)
        return (factor @ (x - mean)[:, :, None])[:, :, 0], log_diagonal.sum(dim=1)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, factor, log_diagonal = self._mean_and_factor(z, c)
        x = torch.linalg.solve_triangular(factor, z[:, :, None], upper=False)[:, :, 0]
        return x + mean, -log_diagonal.sum(dim=1)


class FromZuko(Transform):
    """A lazy transform of zuko's (conditions in, transform out) under our contract."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(None if c is None else c.to(x.dtype)).call_and_ladj(x)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(None if c is None else c.to(z.dtype)).inv.call_and_ladj(z)


def _from_zuko(kind: str, **fixed: Any) -> Callable[..., Flow]:
    """A builder of zuko's flow `kind`: standardisation, `blocks` of its transforms, and a learned scale."""

    def build(width: int, context: int, levels: int, blocks: int, hidden_size: int | float, hidden_layers: int) -> Flow:
        import zuko

        units = hidden_size if isinstance(hidden_size, int) else max(1, round(hidden_size * (width + context)))
        own = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]} if kind == "NICE" else {}
        flow = getattr(zuko.flows, kind)(
            width, context, transforms=blocks, hidden_features=[units] * (1 + hidden_layers), **own, **fixed
        )
        return Flow(Compose([Standardize(width), FromZuko(flow.transform), ActNorm(width)]), width)

    return build


def gaussian(
    width: int, context: int, levels: int = 1, blocks: int = 1, hidden_size: int | float = 1, hidden_layers: int = 0
) -> Flow:
    """One Gaussian of full covariance for each condition: what a flow has to be better than. Takes no other size."""
    return Flow(Compose([Standardize(width), Triangular(width, context)]), width)


FLOWS: dict[str, Callable[..., Flow]] = {
    "realnvp": realnvp,
    "nice": _from_zuko("NICE"),
    "maf": _from_zuko("MAF"),
    "nsf": _from_zuko("NSF", passes=2),
    "gaussian": gaussian,
}
"""`flow.type` -> build(width, context, levels, blocks, hidden_size, hidden_layers).

nice: additive couplings (Dinh et al. 2014, arXiv 1410.8516). maf: masked autoregressive, exact but d passes for a
sample (Papamakarios et al. 2017, arXiv 1705.07057). nsf: rational-quadratic spline couplings (Durkan et al. 2019, arXiv
1906.04032). Only realnvp has levels.
"""
