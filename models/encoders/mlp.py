"""A multilayer perceptron: two hidden layers."""

import math
from typing import Annotated

from annotated_types import Ge
from torch import nn

from models.encoders import Encoder, ImageShape


def build(
    image_shape: ImageShape, embedding: int | None = None, *, hidden_size: Annotated[int, Ge(1)] = 400
) -> Encoder:
    """Two hidden layers of ReLU units; the second, of 400, is the embedding (van de Ven et al. 2022, Methods).

    Args:
        image_shape: (C, H, W)
        embedding: units of the second layer; by default 400
        hidden_size: units of the first layer
    """
    first, second = nn.Linear(math.prod(image_shape), hidden_size), nn.Linear(hidden_size, embedding or 400)
    features = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU())
    return Encoder(features, nn.Identity(), image_shape, decoder)


def decoder(inputs: int, image_shape: ImageShape) -> nn.Sequential:
    """The mirror of the mlp encoder: codes (B, inputs) -> logits of pixels (B, C, H, W)."""
    return nn.Sequential(
        nn.Linear(inputs, 400),
        nn.ReLU(),
        nn.Linear(400, 400),
        nn.ReLU(),
        nn.Linear(400, math.prod(image_shape)),
        nn.Unflatten(1, image_shape),
    )
