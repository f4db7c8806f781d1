"""No encoder: the data are features already, or pixels are classified as they are."""

from torch import nn

from models.encoders import Encoder, ImageShape
from models.encoders.mlp import decoder


def build(image_shape: ImageShape, embedding: int | None = None) -> Encoder:
    """The inputs, flattened, are the embedding; with `embedding`, a linear layer maps them to that size."""
    encoder = Encoder(nn.Flatten(), nn.Identity(), image_shape, decoder)
    if embedding is None:
        return encoder
    return Encoder(nn.Flatten(), nn.Linear(encoder.feature_dim, embedding), image_shape, decoder)
