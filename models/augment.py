"""Random crops and flips of training images, and noise on their pixels, batched and on their device."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Literal["none", "flip", "crop", "crop_flip"]
PADDING = 4  # pixels of black around an image that is cropped


class Augmentation:
    """Images (B, C, H, W) -> the same number, each cropped at a random place and flipped at random.

    As usual on CIFAR (He et al., CVPR 2016, section 4.2): `PADDING` pixels on each side, a random crop of the original
    size, and a horizontal flip with probability 1/2. `stream`, on the images' device, draws both.
    """

    def __init__(self, kind: Augment, stream: torch.Generator) -> None:
        self.kind, self.stream = kind, stream

    def __call__(self, x: Tensor) -> Tensor:
        count, _, high, wide = x.shape
        device, stream = x.device, self.stream
        rows = torch.arange(high, device=device).expand(count, -1)
        columns = torch.arange(wide, device=device).expand(count, -1)
        if self.kind in ("flip", "crop_flip"):
            flipped = torch.rand(count, 1, device=device, generator=stream) < 0.5
            columns = torch.where(flipped, wide - 1 - columns, columns)
        if self.kind in ("crop", "crop_flip"):
            x = F.pad(x, [PADDING] * 4)
            down, right = torch.randint(2 * PADDING + 1, (2, count, 1), device=device, generator=stream)
            rows, columns = rows + down, columns + right
        images = torch.arange(count, device=device)[:, None, None]
        return x[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def noisy(x: Tensor, deviation: float, stream: torch.Generator) -> Tensor:
    """Images (B, C, H, W) with Gaussian noise of a standard deviation on their pixels; 0: as they are."""
    return x + deviation * torch.randn(x.shape, device=x.device, generator=stream) if deviation else x
