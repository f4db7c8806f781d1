"""What images go through before an encoder: resizing and normalisation, on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import as_floats, chunks

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation of the channels of ImageNet, for which pretrained networks were made."""
MIN_DEVIATION = 1e-3  # of a channel, in [0, 1]: one that is constant is only centred


class Prepare(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> (B, C', size, size), resized and normalised.

    Args:
        size: height and width after bilinear resizing with antialiasing; None: the images keep theirs.
        mean, std: of each channel, subtracted and divided by; three of them make grey images colour images.
    """

    def __init__(self, size: int | None, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.size = size
        self.mean = nn.Buffer(torch.tensor(mean).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(-1, 1, 1))

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(C', H', W') of prepared images of (C, H, W)."""
        return max(channels, len(self.mean)), self.size or height, self.size or width

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"size={self.size}"


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of images uint8 (N, C, H, W) as floats in [0, 1]."""
    sums = torch.zeros(2, images.shape[1], dtype=torch.double, device=images.device)
    for part in chunks(images):
        x = as_floats(part).double()
        sums += torch.stack((x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))))
    mean, square = sums / (images[:, 0].numel())
    return mean.tolist(), (square - mean.square()).clamp(min=0).sqrt().clamp(min=MIN_DEVIATION).tolist()
