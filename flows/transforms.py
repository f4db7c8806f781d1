"""Invertible transforms of vectors with the log-determinants of their Jacobians; a flow is a composition of them."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_DEVIATION = 1e-2
"""Lower bound of a standard deviation, relative to the mean deviation of all dimensions: a nearly constant dimension
stays small instead of being scaled to unit variance."""
MAX_LOG_ODDS = 3.0
"""Bound on a coupling's s: its scale sigmoid(s + 1.5) stays above 0.18, which keeps the inverse stable."""


class Transform(nn.Module):
    """An invertible map of vectors; dtype and device are those of the input."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x (B, d) under the condition c (B, c) to z (B, d) and ladj = log|det dz/dx| (B,)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z (B, d) back to x (B, d) and ladj = log|det dx/dz| (B,)."""
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Set what depends on data from the batch x (B, d), and return the transformed batch (B, d)."""
        return self(x, c)[0]


class Compose(Transform):
    """Applies the transforms in turn; their log-determinants add up."""

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        self.transforms = cast(Sequence[Transform], nn.ModuleList(transforms))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for transform in self.transforms:
            x, ladj = transform(x, c)
            total = total + ladj
        return x, total

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for transform in reversed(self.transforms):
            z, ladj = transform.inverse(z, c)
            total = total + ladj
        return z, total

    @torch.no_grad()
    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        for transform in self.transforms:
            x = transform.initialize(x, c)
        return x


class Leading(Transform):
    """A transform of the first `width` dimensions; the others are unchanged. Makes the levels of a multi-scale flow."""

    def __init__(self, transform: Transform, width: int) -> None:
        super().__init__()
        self.transform, self.width = transform, width

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        head, ladj = self.transform(x[:, : self.width], c)
        return torch.cat((head, x[:, self.width :]), dim=1), ladj

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        head, ladj = self.transform.inverse(z[:, : self.width], c)
        return torch.cat((head, z[:, self.width :]), dim=1), ladj

    @torch.no_grad()
    def initialize(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return torch.cat((self.transform.initialize(x[:, : self.width], c), x[:, self.width :]), dim=1)


class Standardize(Transform):
    """z = (x - mean) / deviation with statistics of the data, set by `initialize` and kept in buffers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.deviation, -self.deviation.log().sum().expand(len(x))

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * self.deviation + self.mean, self.deviation.log().sum().expand(len(z))

    @torch.no_grad()
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

    order: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(width))

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

    Args:
        width: d, at least 2 (ValueError otherwise).
        context: size of the condition c, 0 for none.
        hidden_size, hidden_layers: see `flows/realnvp.py`.
    """

    def __init__(self, width: int, context: int, hidden_size: int | float, hidden_layers: int) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"a coupling needs at least 2 dimensions, got {width}")
        self.kept = width // 2
        inputs = self.kept + context
        units = hidden_size if isinstance(hidden_size, int) else max(1, round(hidden_size * inputs))
        layers: list[nn.Module] = [nn.Linear(inputs, units), nn.ReLU()]
        for _ in range(hidden_layers):
            layers += [nn.Linear(units, units), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(units, 2 * (width - self.kept)))
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def _scale_and_shift(self, a: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        s, shift = self.net(_join(a, c)).chunk(2, dim=1)  # each (B, d - kept)
        # The bound keeps the sigmoid's logarithm exact; logsigmoid, which needs none, is ten times slower on CPU.
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
    of the half that a multi-scale level drops (Real NVP, section 3.6; Glow's `split2d_prior`). With `given=0` it is the
    final, class-conditional Gaussianisation of what is left.
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


def _join(a: Tensor, c: Tensor | None) -> Tensor:
    return a if c is None else torch.cat((a, c.to(a.dtype)), dim=1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and floored standard deviation (d,) of a batch (B, d); ValueError for fewer than 2 vectors."""
    if len(x) < 2:
        raise ValueError(f"data-dependent initialisation needs at least 2 vectors, got {len(x)}")
    deviation = x.std(dim=0)
    floor = (MIN_DEVIATION * deviation.mean()).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    return x.mean(dim=0), torch.maximum(deviation, floor)
