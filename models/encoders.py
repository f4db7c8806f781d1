"""Networks from images to embeddings, and back."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import laid_out
from utils.settings import BadInput

ImageShape = tuple[int, int, int]
"""(C, H, W)."""


class Encoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, feature_dim) -> embeddings (B, embedding_dim).

    A method may put a map of features to features in between: `subspace`, the identity to begin with.
    `mirror(inputs, image_shape)` builds the decoder that undoes its shapes.
    """

    def __init__(
        self,
        features: nn.Module,
        projection: nn.Module,
        image_shape: ImageShape,
        mirror: Callable[[int, ImageShape], nn.Module],
    ) -> None:
        super().__init__()
        self.features, self.subspace, self.projection = features, nn.Identity(), projection
        self.image_shape, self.mirror = image_shape, mirror
        with torch.no_grad():
            probe = features(torch.zeros(1, *image_shape))
            self.feature_dim = probe.shape[1]
            self.embedding_dim = projection(probe).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.subspace(self.features(x)))


class LaidOut(nn.Module):
    """`laid_out` as a layer: images (B, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return laid_out(x)


class BlockwiseTranspose(nn.ConvTranspose2d):
    """A transposed convolution, computed as a convolution that makes each stride x stride block of pixels at once.

    Its kernel size is a multiple of its stride, and its output is not padded. With one output channel this is quicker
    on CPU (bench/choices.py); elsewhere, where it was not measured, it is computed as usual.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        stride, padding, taps = self.stride[0], self.padding[0], self.kernel_size[0] // self.stride[0]
        weight = self.weight.unflatten(3, (taps, stride)).unflatten(2, (taps, stride))  # (C, O, taps, s, taps, s)
        weight = weight.flip(2, 4).permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (O s s, C, taps, taps)
        blocks = F.conv2d(x, weight, self.bias.repeat_interleave(stride**2), padding=taps - 1)
        whole = F.pixel_shuffle(blocks, stride)
        return whole[:, :, padding : whole.shape[2] - padding, padding : whole.shape[3] - padding]


def paper(image_shape: ImageShape, embedding: int | None = None) -> Encoder:
    """PRER's encoders (arXiv 2202.05694): one for grey images (there MNIST), one for colour (SVHN, CIFAR).

    Grey: conv 1->12 (kernel 4, stride 2, padding 1), ReLU, conv 12->24 (4, 2), linear to 100.
    Colour: conv 3->24->24->48 (kernel 3) with ReLU, conv 48->48 (4, 2), linear to 200 (the paper: 400 on SVHN).

    Raises:
        BadInput: images too small for the convolutions.
    """
    layers = _convolutions(image_shape)
    sizes = _sizes(image_shape, layers)
    channels, (height, width) = layers[-1].out_channels, sizes[-1]
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [layer, nn.ReLU()]
    features = nn.Sequential(*modules[:-1], nn.Flatten())
    default = 100 if image_shape[0] == 1 else 200
    return Encoder(features, nn.Linear(channels * height * width, embedding or default), image_shape, paper_decoder)


def mlp(image_shape: ImageShape, embedding: int | None = None) -> Encoder:
    """Two hidden layers of 400 ReLU units; the second is the embedding (van de Ven et al. 2022, Methods)."""
    width = embedding or 400
    features = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(image_shape), 400), nn.ReLU(), nn.Linear(400, width), nn.ReLU()
    )
    return Encoder(features, nn.Identity(), image_shape, mlp_decoder)


def paper_decoder(inputs: int, image_shape: ImageShape) -> nn.Sequential:
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


def mlp_decoder(inputs: int, image_shape: ImageShape) -> nn.Sequential:
    """The mirror of the mlp encoder: codes (B, inputs) -> logits of pixels (B, C, H, W)."""
    return nn.Sequential(
        nn.Linear(inputs, 400),
        nn.ReLU(),
        nn.Linear(400, 400),
        nn.ReLU(),
        nn.Linear(400, math.prod(image_shape)),
        nn.Unflatten(1, image_shape),
    )


def pixel_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel: logits and pixels x in [0, 1], both (B, C, H, W) -> the same shape.

    log(1 + e^-|l|) is computed as -log sigmoid(|l|), which is twice as quick on CPU (bench/choices.py).
    """
    return logits.relu() - x * logits - logits.abs().sigmoid().log()


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
        raise BadInput(
            f"model.encoder: images of {image_shape[1]} x {image_shape[2]} pixels are too small for the paper's "
            "encoder; use encoder: mlp, or a larger image_size"
        )
    return sizes


def _mirror(layer: nn.Conv2d, size_in: tuple[int, int], size_out: tuple[int, int]) -> nn.ConvTranspose2d:
    """The transposed convolution that undoes the layer's change of shape, to the pixel."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    missing = tuple(i - ((o - 1) * stride - 2 * padding + kernel) for i, o in zip(size_in, size_out, strict=True))
    to_grey = layer.in_channels == 1 and kernel % stride == 0 and not any(missing)
    kind = BlockwiseTranspose if to_grey else nn.ConvTranspose2d
    return kind(layer.out_channels, layer.in_channels, kernel, stride, padding, output_padding=missing)
