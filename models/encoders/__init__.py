"""Encoders, one file each; the file's name is a `model.encoder`.

A file defines `build(image_shape, embedding=None, *, own options) -> Encoder`; `embedding` is its size, by default the
encoder's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

ImageShape = tuple[int, int, int]  # (C, H, W)
Mirror = Callable[[int, ImageShape], nn.Module]


class Encoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, feature_dim) -> embeddings (B, embedding_dim).

    `mirror(inputs, image_shape)` builds the decoder that undoes its shapes.
    """

    def __init__(self, features: nn.Module, projection: nn.Module, image_shape: ImageShape, mirror: Mirror) -> None:
        super().__init__()
        self.features, self.projection, self.image_shape, self.mirror = features, projection, image_shape, mirror
        self.eval()  # running statistics of batch normalisation are not touched
        with torch.no_grad():
            probe = features(torch.zeros(1, *image_shape))
            self.feature_dim, self.embedding_dim = probe.shape[1], projection(probe).shape[1]
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.features(x))
