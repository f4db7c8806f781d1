"""The flows of zuko (Rozet et al., https://github.com/probabilists/zuko) under our contract."""

from collections.abc import Callable
from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch import Tensor, nn

from flows import Flow
from flows.transforms import ActNorm, Transform


class FromZuko(Transform):
    """Adapts one of zuko's lazy transforms, which map a condition to a transform."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(None if c is None else c.to(x.dtype)).call_and_ladj(x)

    def inverse(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(None if c is None else c.to(z.dtype)).inv.call_and_ladj(z)


def builder(family: Callable[..., Any], **fixed: Any) -> Callable[..., Flow]:
    """The builder of one of zuko's flows, `family`, whose other arguments are `fixed`."""

    def build(
        width: int,
        context: int = 0,
        *,
        blocks: Annotated[int, Ge(1)] = 5,
        hidden_size: Annotated[int | float, Gt(0)] = 128,
        hidden_layers: Annotated[int, Ge(0)] = 1,
    ) -> Flow:
        """Standardisation, transforms of zuko, and a learned scale.

        Args:
            blocks: couplings or autoregressive transforms
            hidden_size: units per hidden layer; a float is a multiple of width + context
            hidden_layers: hidden layers after the first
        """
        units = hidden_size if isinstance(hidden_size, int) else max(1, round(hidden_size * (width + context)))
        layers = [units] * (1 + hidden_layers)
        flow = family(width, context, transforms=blocks, hidden_features=layers, **fixed)
        return Flow(width, [FromZuko(flow.transform), ActNorm(width)])

    return build
