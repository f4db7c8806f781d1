"""Encoders, one file each; the file's name is a `model.encoder`.

A file defines `build(image_shape, embedding=None, *, own options) -> Encoder`; `embedding` is its size, by default the
encoder's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from datasets.data import Shape, reason

ImageShape = Shape  # (C, H, W); (F,) where the data are features
Mirror = Callable[[int, ImageShape], nn.Module]


class Encoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, feature_dim) -> embeddings (B, embedding_dim).

    Args:
        features: the part that `model.frozen` freezes.
        projection: the part that every method trains.
        shape: of an input, (C, H, W).
        mirror: `mirror(inputs, image_shape)` builds the decoder that undoes its shapes.

    Raises ValueError if the network does not give features (B, F) of such inputs.
    """

    def __init__(self, features: nn.Module, projection: nn.Module, shape: Shape, mirror: Mirror) -> None:
        super().__init__()
        self.features, self.projection, self.shape, self.mirror = features, projection, shape, mirror
        self.eval()  # running statistics of batch normalisation are not touched
        device = next((parameter.device for parameter in self.parameters()), None)
        with torch.no_grad():
            try:
                probe = features(torch.zeros(1, *shape, device=device))
            except Exception as error:  # code of others
                hint = "; model.resize changes the images' size" if len(shape) == 3 else ""
                raise ValueError(
                    f"the network does not take inputs of shape {(1, *shape)} ({reason(error)}){hint}"
                ) from error
            if not isinstance(probe, Tensor) or probe.dim() != 2 or len(probe) != 1 or not probe.is_floating_point():
                got = f"shape {tuple(probe.shape)}" if isinstance(probe, Tensor) else type(probe).__name__
                raise ValueError(f"the network gives {got} for an input of shape {(1, *shape)}; expected (1, F) floats")
            self.feature_dim, self.embedding_dim = probe.shape[1], projection(probe).shape[1]
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.features(x))

    def prepare(self, images: Tensor, stream: torch.Generator) -> None:
        """Learn what needs no labels from the first task's training images, uint8 (N, C, H, W); by default nothing."""

    def on_features(self) -> "Encoder":
        """What is left to train where inputs are the features (B, feature_dim) themselves; shares the projection."""
        return Encoder(nn.Identity(), self.projection, (self.feature_dim,), self.mirror)
