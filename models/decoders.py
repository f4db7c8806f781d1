"""Parts of decoders: networks from codes back to the logits of pixels."""

from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import laid_out


class LaidOut(nn.Module):
    """`laid_out` as a layer: images (B, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return laid_out(x)


class BlockwiseTranspose(nn.ConvTranspose2d):
    """A transposed convolution, computed as a convolution whose outputs are stride x stride blocks of pixels.

    The kernel size is a multiple of the stride, and there is no output padding. Faster on CPU with one output channel
    (bench/choices.py); other devices, which were not measured, use the usual form.
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


def pixel_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel: logits and pixels x in [0, 1], both (B, C, H, W) -> the same shape.

    log(1 + e^-|l|) is computed as -log sigmoid(|l|), twice as fast on CPU (bench/choices.py).
    """
    return logits.relu() - x * logits - logits.abs().sigmoid().log()
