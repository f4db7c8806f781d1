"""Features without labels and without a download: a dictionary of whitened patches of the first task's images.

Coates, Lee and Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011.
"""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import as_floats, chunks, mapped
from models.encoders import Encoder, ImageShape
from models.encoders.paper import decoder

SAMPLED = 50_000  # patches for whitening and dictionary
ROUNDS, CHUNK = 20, 8192  # of k-means; points at once
STANDARDISED, MIN_SCALE = 2000, 0.1  # images for the features' means and deviations; least deviation, of the mean one
AT_ONCE = 8  # images: activations stay in the cache
NORM_OFFSET = 10 / 255**2  # added to a patch's variance before it is normalised; 10 on a scale of 0 to 255 in the paper


class Patches(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, 4 * count): how near each quadrant's patches are to each centre.

    Each patch is normalised to mean 0 and variance 1 (section 3.2.1), whitened by ZCA (3.2.2), and encoded by the
    triangle activation max(0, mean distance - distance) to the centres of k-means (section 3.3, f_k); activations are
    pooled over each quadrant of the image (section 4.4), and standardised. All of it is learned by `learn`.
    """

    def __init__(self, image_shape: ImageShape, count: int, size: int, stride: int, whitening: float) -> None:
        super().__init__()
        values = image_shape[0] * size**2
        self.size, self.stride, self.whitening = size, stride, whitening
        self.mean = nn.Buffer(torch.zeros(values))
        self.whiten = nn.Buffer(torch.eye(values))
        self.centres = nn.Buffer(torch.zeros(count, values))  # of whitened patches
        self.centre = nn.Buffer(torch.zeros(4 * count))
        self.scale = nn.Buffer(torch.ones(4 * count))

    def forward(self, x: Tensor) -> Tensor:
        return (self._pooled_all(x) - self.centre) / self.scale

    def _pooled_all(self, x: Tensor) -> Tensor:
        return torch.cat([self._pooled(part) for part in x.split(AT_ONCE)])

    def _pooled(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> mean activations of the quadrants (B, 4 * count)."""
        high, wide = ((side - self.size) // self.stride + 1 for side in x.shape[2:])
        z = self.whiten @ (self._normalised(x) - self.mean[:, None])  # (B, values, high * wide)
        squared = torch.baddbmm(
            self.centres.square().sum(dim=1)[:, None], self.centres.expand(len(x), -1, -1), z, alpha=-2
        )
        distance = (squared + z.square().sum(dim=1, keepdim=True)).clamp_(min=0).sqrt_()  # (B, count, high * wide)
        active = (distance.mean(dim=1, keepdim=True) - distance).relu_().unflatten(2, (high, wide))
        return F.adaptive_avg_pool2d(active, 2).flatten(1)

    def _normalised(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> patches (B, values, L) of mean 0 and variance 1."""
        patches = F.unfold(x, self.size, stride=self.stride)
        variance, mean = torch.var_mean(patches, dim=1, keepdim=True)
        return (patches - mean) / (variance + NORM_OFFSET).sqrt()

    @torch.no_grad()
    def learn(self, images: Tensor, before: nn.Module, stream: torch.Generator) -> None:
        """Find whitening and dictionary from images, uint8 (N, C, H, W), as they are after the layers `before`."""
        patches = self._sample(images, before, stream)
        self.mean.copy_(patches.mean(dim=0))
        centred = (patches - self.mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        scale = (values.clamp(min=0) + self.whitening * values.mean()).rsqrt()
        self.whiten.copy_(vectors * scale @ vectors.T)
        self.centres.copy_(k_means((centred @ self.whiten.double()).float(), len(self.centres), stream))
        some = images[torch.randperm(len(images), device=images.device, generator=stream)[:STANDARDISED]]
        pooled = mapped(lambda x: self._pooled_all(before(x)), some)
        deviation, mean = torch.std_mean(pooled, dim=0)
        self.centre.copy_(mean)
        self.scale.copy_(deviation.clamp(min=float(MIN_SCALE * deviation.mean())))

    def _sample(self, images: Tensor, before: nn.Module, stream: torch.Generator) -> Tensor:
        """Normalised patches (SAMPLED, values) at random places of random images."""
        device, size = images.device, self.size
        high, wide = before(as_floats(images[:1])).shape[2:]
        index, rows, columns = (
            torch.randint(count, (SAMPLED,), device=device, generator=stream)
            for count in (len(images), high - size + 1, wide - size + 1)
        )
        offsets = torch.arange(size, device=device)
        parts = []
        for i, r, c in zip(*map(chunks, (index, rows, columns)), strict=True):
            whole = before(as_floats(images[i]))
            places = torch.arange(len(i), device=device)[:, None, None]
            cut = whole[places, :, (r[:, None] + offsets)[:, :, None], (c[:, None] + offsets)[:, None, :]]
            parts.append(self._normalised(cut.permute(0, 3, 1, 2))[:, :, 0])
        return torch.cat(parts)


def k_means(x: Tensor, count: int, stream: torch.Generator) -> Tensor:
    """Centres (count, d) of points x (N, d) by Lloyd's algorithm from random points; a centre without points stays."""
    centres = x[torch.randperm(len(x), device=x.device, generator=stream)[:count]].clone()
    for _ in range(ROUNDS):
        offsets = centres.square().sum(dim=1)
        nearest = torch.cat([(offsets - 2 * part @ centres.T).argmin(dim=1) for part in x.split(CHUNK)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        members = nearest.bincount(minlength=count)[:, None]
        centres = torch.where(members > 0, sums / members.clamp(min=1), centres)
    return centres


class PatchEncoder(Encoder):
    """An encoder whose features are `Patches`."""

    def prepare(self, images: Tensor, stream: torch.Generator) -> None:
        *before, patches = self.features if isinstance(self.features, nn.Sequential) else [self.features]
        assert isinstance(patches, Patches)
        patches.learn(images, nn.Sequential(*before), stream)


def build(
    image_shape: ImageShape,
    embedding: int | None = None,
    *,
    count: Annotated[int, Ge(2)] = 800,
    size: Annotated[int, Ge(2)] = 6,
    stride: Annotated[int, Ge(1)] = 1,
    whitening: Annotated[float, Gt(0)] = 0.1,
) -> Encoder:
    """4 * count features of whitened patches; with `embedding`, a linear layer follows. Needs model.frozen: yes.

    Args:
        count: patches in the dictionary
        size: height and width of a patch
        stride: pixels between neighbouring patches
        whitening: added to the eigenvalues of the patches' covariance, as a share of their mean
    """
    if min(image_shape[1:]) < size + stride:
        raise ValueError(f"images of {image_shape[1]} x {image_shape[2]} pixels have too few patches of size {size}")
    features = Patches(image_shape, count, size, stride, whitening)
    projection = nn.Linear(4 * count, embedding) if embedding else nn.Identity()
    return PatchEncoder(features, projection, image_shape, decoder)
