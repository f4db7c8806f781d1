"""PRER's encoders (arXiv 2202.05694), convolutions: one for grey images (there MNIST), one for colour (SVHN, CIFAR)."""

from torch import nn

from models.decoders import BlockwiseTranspose, LaidOut
from models.encoders import Encoder, ImageShape


def build(image_shape: ImageShape, embedding: int | None = None) -> Encoder:
    """The encoder for the number of channels, with ReLU between the layers.

    Grey: conv 1->12 (kernel 4, stride 2, padding 1), conv 12->24 (4, 2), linear to 100.
    Colour: conv 3->24->24->48 (kernel 3), conv 48->48 (4, 2), linear to 200 (the paper: 400 on SVHN).

    Raises:
        ValueError: images too small for the convolutions.
    """
    layers = _convolutions(image_shape)
    sizes = _sizes(image_shape, layers)
    channels, (height, width) = layers[-1].out_channels, sizes[-1]
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [layer, nn.ReLU()]
    features = nn.Sequential(*modules[:-1], nn.Flatten())
    default = 100 if image_shape[0] == 1 else 200
    return Encoder(features, nn.Linear(channels * height * width, embedding or default), image_shape, decoder)


def decoder(inputs: int, image_shape: ImageShape) -> nn.Sequential:
    """The mirror of the paper's encoder: codes (B, inputs) -> logits of pixels (B, C, H, W); a sigmoid makes pixels."""
    layers = _convolutions(image_shape)
    sizes = _sizes(image_shape, layers)
    channels, (height, width) = layers[-1].out_channels, sizes[-1]
    modules: list[nn.Module] = [
        nn.Linear(inputs, channels * height * width),
        nn.Unflatten(1, (channels, height, width)),
        LaidOut(),
    ]
    for layer, size_in, size_out in zip(reversed(layers), reversed(sizes[:-1]), reversed(sizes[1:]), strict=True):
        modules += [nn.ReLU(), _mirror(layer, size_in, size_out)]
    return nn.Sequential(*modules)


def _convolutions(image_shape: ImageShape) -> list[nn.Conv2d]:
    if image_shape[0] == 1:
        return [nn.Conv2d(1, 12, 4, stride=2, padding=1), nn.Conv2d(12, 24, 4, stride=2)]
    return [
        nn.Conv2d(image_shape[0], 24, 3),
        nn.Conv2d(24, 24, 3),
        nn.Conv2d(24, 48, 3),
        nn.Conv2d(48, 48, 4, stride=2),
    ]


def _sizes(image_shape: ImageShape, layers: list[nn.Conv2d]) -> list[tuple[int, int]]:
    """Height and width before the first layer and after each."""
    sizes = [(image_shape[1], image_shape[2])]
    for layer in layers:
        kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sizes[-1])
        sizes.append((height, width))
    if min(sizes[-1]) < 1:
        size = f"{image_shape[1]} x {image_shape[2]}"
        raise ValueError(f"images of {size} pixels are too small for the paper's encoder; use mlp, or larger images")
    return sizes


def _mirror(layer: nn.Conv2d, size_in: tuple[int, int], size_out: tuple[int, int]) -> nn.ConvTranspose2d:
    """The transposed convolution that undoes the layer's change of shape, to the pixel."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    missing = tuple(i - ((o - 1) * stride - 2 * padding + kernel) for i, o in zip(size_in, size_out, strict=True))
    to_grey = layer.in_channels == 1 and kernel % stride == 0 and not any(missing)
    kind = BlockwiseTranspose if to_grey else nn.ConvTranspose2d
    return kind(layer.out_channels, layer.in_channels, kernel, stride, padding, output_padding=missing)
