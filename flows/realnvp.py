"""RealNVP: the paper's flow, multi-scale affine couplings."""

from typing import Annotated

from annotated_types import Ge, Gt

from flows import Flow
from flows.transforms import ActNorm, AffineCoupling, Compose, Gaussianize, Permutation, Transform


def build(
    width: int,
    context: int = 0,
    *,
    levels: Annotated[int, Ge(1)] = 2,
    blocks: Annotated[int, Ge(1)] = 5,
    hidden_size: Annotated[int | float, Gt(0)] = 128,
    hidden_layers: Annotated[int, Ge(0)] = 1,
) -> Flow:
    """PRER's flow (arXiv 2202.05694, section on the generative model): a multi-scale conditional RealNVP.

    Standardisation, then `levels` times `blocks` x [ActNorm, fixed permutation, affine coupling]; between two levels
    half of the dimensions are factored out by a learned linear-Gaussian prior, and the rest is Gaussianised at the end.

    *Deviation* from the original: the standardisation is a transform of the flow, so its log-determinant is counted
    and it cannot be lost when the flow is rebuilt or saved.

    Args:
        levels: scales; half of the dimensions are factored out between two of them, and at least 2 must remain
        blocks: couplings per level
        hidden_size: units per hidden layer of a coupling; a float is a multiple of its input size
        hidden_layers: hidden layers of a coupling after its first
    """
    transforms, left = list[Transform](), width
    for level in range(1, levels + 1):
        if left < 2:
            raise ValueError(f"{levels} levels need more than {width} dimensions: level {level} would have {left}")
        steps: list[Transform] = []
        for _ in range(blocks):
            steps += [ActNorm(left), Permutation(left), AffineCoupling(left, context, hidden_size, hidden_layers)]
        if level < levels:
            steps.append(Gaussianize(left, context, given=left // 2))
        transforms.append(Compose(steps, left))
        left = left // 2 if level < levels else left
    return Flow(width, [*transforms, Compose([Gaussianize(left, context)], left)])
