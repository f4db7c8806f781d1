"""ResNet-18 for small images: the usual encoder of continual-learning papers on CIFAR."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders import Encoder, ImageShape
from models.encoders.paper import decoder


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, around a shortcut: (B, in, H, W) -> (B, out, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.body = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def build(image_shape: ImageShape, embedding: int | None = None, *, filters: Annotated[int, Ge(1)] = 64) -> Encoder:
    """ResNet-18 (He et al., CVPR 2016) with a 3 x 3 stem and no pooling before the last layer, as for 32 x 32 images.

    Its pooled output, 8 * filters wide, is the embedding; with `embedding`, a linear layer maps it to that size. 64
    filters as in Buzzega et al. 2020.

    Args:
        filters: of the first layer
    """
    stem = nn.Conv2d(image_shape[0], filters, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(filters), nn.ReLU()]
    inputs = filters
    for outputs, stride in ((filters, 1), (2 * filters, 2), (4 * filters, 2), (8 * filters, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    projection = nn.Linear(inputs, embedding) if embedding else nn.Identity()
    return Encoder(features, projection, image_shape, decoder)
