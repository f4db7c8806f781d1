"""Encoders, decoders, heads, the Learner that joins encoder and heads, and the generators that replay the past."""

from collections.abc import Callable

from models.encoders import Encoder, ImageShape, mlp, paper
from models.resnet import resnet18, slim_resnet18

ENCODERS: dict[str, Callable[[ImageShape, int | None], Encoder]] = {
    "paper": paper,
    "mlp": mlp,
    "resnet18": resnet18,
    "slim_resnet18": slim_resnet18,
}
"""`model.encoder` -> its builder, given the images' shape and the size of the embedding (None: its own)."""
