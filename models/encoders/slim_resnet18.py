"""ResNet-18 with 20 filters in the first layer instead of 64 (Lopez-Paz and Ranzato 2017)."""

from models.encoders import Encoder, ImageShape, resnet18


def build(image_shape: ImageShape, embedding: int | None = None) -> Encoder:
    """See `models/encoders/resnet18.py`; the embedding is 160 wide by default."""
    return resnet18.build(image_shape, embedding, filters=20)
