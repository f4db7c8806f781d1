"""PRER's encoders (arXiv 2202.05694), convolutions: one for grey images (there MNIST), one for colour (SVHN, CIFAR)."""

import math
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import laid_out
from models.encoders import Encoder, ImageShape


def build(image_shape: ImageShape, embedding: int | None = None) -> Encoder:
    """The encoder for the number of channels, with ReLU between the layers.

    Grey: conv 1->12 (kernel 4, stride 2, padding 1), conv 12->24 (4, 2), linear to 100.
    Colour: conv 3->24->24->48 (kernel 3), conv 48->48 (4, 2), linear to 200 (the paper: 400 on SVHN).
    """
    layers, shapes = _convolutions(image_shape)
    modules = [module for layer in layers for module in (layer, nn.ReLU())]
    projection = nn.Linear(math.prod(shapes[-1]), embedding or (100 if image_shape[0] == 1 else 200))
    return Encoder(nn.Sequential(*modules[:-1], nn.Flatten()), projection, image_shape, decoder)


def decoder(inputs: int, image_shape: ImageShape) -> nn.Sequential:
    """The mirror of the paper's encoder: codes (B, inputs) -> logits of pixels (B, C, H, W); a sigmoid makes pixels."""
    layers, shapes = _convolutions(image_shape)
    modules: list[nn.Module] = [nn.Linear(inputs, math.prod(shapes[-1])), nn.Unflatten(1, shapes[-1]), LaidOut()]
    for layer, before, after in list(zip(layers, shapes, shapes[1:], strict=False))[::-1]:
        modules += [nn.ReLU(), _mirror(layer, before, after)]
    return nn.Sequential(*modules)


def _convolutions(image_shape: ImageShape) -> tuple[list[nn.Conv2d], list[tuple[int, ...]]]:
    """The layers, and the shapes (C, H, W) before the first and after each."""
    if image_shape[0] == 1:
        layers = [nn.Conv2d(1, 12, 4, stride=2, padding=1), nn.Conv2d(12, 24, 4, stride=2)]
    else:
        layers = [nn.Conv2d(image_shape[0], 24, 3), nn.Conv2d(24, 24, 3), nn.Conv2d(24, 48, 3)]
        layers.append(nn.Conv2d(48, 48, 4, stride=2))
    try:
        maps = accumulate(layers, lambda x, layer: layer(x), initial=torch.zeros(image_shape))
        return layers, [tuple(x.shape) for x in maps]
    except RuntimeError as error:
        size = f"{image_shape[1]} x {image_shape[2]} pixels"
        raise ValueError(
            f"images of {size} are too small for the paper's encoder; use mlp, or larger images"
        ) from error


def _mirror(layer: nn.Conv2d, before: tuple[int, ...], after: tuple[int, ...]) -> nn.ConvTranspose2d:
    """The transposed convolution that undoes the layer's change of shape, to the pixel."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    high, wide = (i - ((o - 1) * stride - 2 * padding + kernel) for i, o in zip(before[1:], after[1:], strict=True))
    to_grey = layer.in_channels == 1 and kernel % stride == 0 and high == wide == 0
    kind = BlockwiseTranspose if to_grey else nn.ConvTranspose2d
    return kind(layer.out_channels, layer.in_channels, kernel, stride, padding, output_padding=(high, wide))


class LaidOut(nn.Module):
    """`laid_out` as a layer: images (B, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return laid_out(x)


class BlockwiseTranspose(nn.ConvTranspose2d):
    """A transposed convolution, computed as a convolution whose outputs are stride x stride blocks of pixels.

    Faster on CPU with one output channel (bench/choices.py); other devices, which were not measured, use the usual
    form. The kernel size is a multiple of the stride, and there is no output padding.
    """

    bias: nn.Parameter

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        stride, padding, taps = self.stride[0], int(self.padding[0]), self.kernel_size[0] // self.stride[0]
        weight = self.weight.unflatten(3, (taps, stride)).unflatten(2, (taps, stride))  # (C, O, taps, s, taps, s)
        weight = weight.flip(2, 4).permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (O s s, C, taps, taps)
        blocks = F.conv2d(input, weight, self.bias.repeat_interleave(stride**2), padding=taps - 1)
        whole = F.pixel_shuffle(blocks, stride)
        return whole[:, :, padding : whole.shape[2] - padding, padding : whole.shape[3] - padding]
