"""A multilayer perceptron: two hidden layers of ReLU units."""

import math
from typing import Annotated

from annotated_types import Ge
from torch import nn

from flows.transforms import perceptron
from models.encoders import Encoder, ImageShape


def build(
    image_shape: ImageShape, embedding: int | None = None, *, hidden_size: Annotated[int, Ge(1)] = 400
) -> Encoder:
    """The second hidden layer, of 400 units by default, is the embedding (van de Ven et al. 2022, Methods).

    Args:
        hidden_size: units of the first layer
    """
    layers = perceptron(math.prod(image_shape), hidden_size, embedding or 400)
    return Encoder(nn.Sequential(nn.Flatten(), *layers, nn.ReLU()), nn.Identity(), image_shape, decoder)


def decoder(inputs: int, image_shape: ImageShape) -> nn.Sequential:
    """The mirror of the mlp encoder: codes (B, inputs) -> logits of pixels (B, C, H, W)."""
    return nn.Sequential(*perceptron(inputs, 400, 400, math.prod(image_shape)), nn.Unflatten(1, image_shape))
