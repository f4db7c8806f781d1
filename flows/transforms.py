"""Invertible transforms of vectors with the log-determinants of their Jacobians; a flow is a composition of them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_DEVIATION = 1e-2  # lower bound of a dimension's deviation, relative to their mean: constant ones stay small
MAX_LOG_ODDS = 3.0  # bound on a coupling's s: its scale sigmoid(s + 1.5) stays above 0.18, the inverse stable


class Transform(nn.Module):
    """An invertible map of vectors; dtype and device are those of the input."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x (B, d) under the condition c (B, c) to z (B, d) and ladj = log|det dz/dx| (B,)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z (B, d) back to x (B, d) and ladj = log|det dx/dz| (B,)."""
        raise NotImplementedError

    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Set what depends on data from the batch x (B, d), and return the transformed batch (B, d)."""
        return self(x, c)[0]


class Compose(Transform):
    """Applies the transforms in turn to the first `width` dimensions, by default all; the others are unchanged."""

    def __init__(self, transforms: Iterable[Transform], width: int | None = None) -> None:
        super().__init__()
        self.transforms = cast(Sequence[Transform], nn.ModuleList(transforms))
        self.width = width

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        head, total = x[:, : self.width], x.new_zeros(len(x))
        for transform in self.transforms:
            head, ladj = transform(head, c)
            total = total + ladj
        return _rejoined(head, x), total

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        head, total = z[:, : self.width], z.new_zeros(len(z))
        for transform in reversed(self.transforms):
            head, ladj = transform.inverse(head, c)
            total = total + ladj
        return _rejoined(head, z), total

    @torch.no_grad()
    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        head = x[:, : self.width]
        for transform in self.transforms:
            head = transform.initialize(head, c)
        return _rejoined(head, x)


class Standardize(Transform):
    """z = (x - mean) / deviation with statistics of the data, set by `initialize` and kept in buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(width))
        self.deviation = nn.Buffer(torch.ones(width))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.deviation, -self.deviation.log().sum().expand(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * self.deviation + self.mean, self.deviation.log().sum().expand(len(z))

    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        mean, deviation = _moments(x)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return self(x, c)[0]


class ActNorm(Transform):
    """z = (x + shift) * exp(log_scale), learned, and set by `initialize` so that its output has mean 0 and variance 1.

    Kingma and Dhariwal, "Glow", NeurIPS 2018, section 3.1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))
        self.log_scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp() - self.shift, -self.log_scale.sum().expand(len(z))

    @torch.no_grad()
    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        mean, deviation = _moments(x)
        self.shift.copy_(-mean)
        self.log_scale.copy_(-deviation.log())
        return self(x, c)[0]


class Permutation(Transform):
    """A fixed random reordering of the dimensions, drawn when the transform is made; its log-determinant is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.order = nn.Buffer(torch.randperm(width))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.index_select(1, self.order.argsort()), z.new_zeros(len(z))


class AffineCoupling(Transform):
    """The first half a passes; the second becomes b * scale(a, c) + shift(a, c) with scale = sigmoid(s + 1.5).

    Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017, equations 7 and 8, with the bounded
    scale of Glow's published code. The network's last layer starts at zero, so that the transform starts as a constant
    scaling whatever a and c are.

    *Deviation* from the original: s is softly bounded (`MAX_LOG_ODDS`). Unbounded, the inverse of a flow fitted to
    its own samples grew from task to task until it overflowed.

    `context` is the size of c, 0 for none; for the other options see `flows/realnvp.py`.
    """

    def __init__(self, width: int, context: int, hidden_size: int | float, hidden_layers: int) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"a coupling needs at least 2 dimensions, got {width}")
        self.kept = width // 2
        inputs = self.kept + context
        units = hidden_size if isinstance(hidden_size, int) else max(1, round(hidden_size * inputs))
        self.net = perceptron(inputs, *[units] * (1 + hidden_layers), 2 * (width - self.kept))
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def _scale_and_shift(self, a: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        s, shift = self.net(_join(a, c)).chunk(2, dim=1)  # each (B, d - kept)
        # the bound keeps the sigmoid's logarithm exact; logsigmoid, which needs none, is ten times slower on CPU
        return torch.sigmoid(s / (1 + s.abs() / MAX_LOG_ODDS) + 1.5), shift

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self._scale_and_shift(a, c)
        return torch.cat((a, b * scale + shift), dim=1), scale.log().sum(dim=1)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = z[:, : self.kept], z[:, self.kept :]
        scale, shift = self._scale_and_shift(a, c)
        return torch.cat((a, (b - shift) / scale), dim=1), -scale.log().sum(dim=1)


class Gaussianize(Transform):
    """The trailing dimensions b, seen as Gaussian given the leading ones a and c, become standard normal.

    b -> (b - mean(a, c)) * exp(-log_deviation(a, c)) with mean and log-deviation linear in (a, c): the learned prior
    of the half that a multi-scale level drops (Real NVP, section 3.6; Glow's `split2d_prior`); `given=0`: of all.
    """

    def __init__(self, width: int, context: int, given: int = 0) -> None:
        super().__init__()
        self.given = given
        self.weight = nn.Parameter(torch.zeros(2 * (width - given), given + context))
        self.bias = nn.Parameter(torch.zeros(2 * (width - given)))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = x[:, : self.given], x[:, self.given :]
        mean, log_deviation = F.linear(_join(a, c), self.weight, self.bias).chunk(2, dim=1)
        return torch.cat((a, (b - mean) * (-log_deviation).exp()), dim=1), -log_deviation.sum(dim=1)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = z[:, : self.given], z[:, self.given :]
        mean, log_deviation = F.linear(_join(a, c), self.weight, self.bias).chunk(2, dim=1)
        return torch.cat((a, b * log_deviation.exp() + mean), dim=1), log_deviation.sum(dim=1)


def perceptron(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these sizes, with an activation between two."""
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


def _rejoined(head: Tensor, whole: Tensor) -> Tensor:
    """`whole` (B, d) with its first dimensions replaced by `head`."""
    width = head.shape[1]
    return head if width == whole.shape[1] else torch.cat((head, whole[:, width:]), dim=1)


def _join(a: Tensor, c: Tensor | None) -> Tensor:
    return a if c is None else torch.cat((a, c.to(a.dtype)), dim=1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and floored standard deviation (d,) of a batch (B, d); ValueError for fewer than 2 vectors."""
    if len(x) < 2:
        raise ValueError(f"data-dependent initialisation needs at least 2 vectors, got {len(x)}")
    deviation = x.std(dim=0)
    floor = (MIN_DEVIATION * deviation.mean()).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    return x.mean(dim=0), torch.maximum(deviation, floor)
