"""Samples and labels as tensors, and the tasks made of them. Samples are images, or features of them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from utils.settings import BadInput

Shape = tuple[int, ...]
"""Of a sample: (C, H, W) of images, (F,) of features."""
IMAGES_ON_CPU, AT_ONCE = 128, 1024
"""Samples that are evaluated at once: on CPU so few images that their activations stay in the cache
(bench/choices.py); else so many."""


@dataclass(frozen=True)
class Split:
    """Samples x, uint8 images (N, C, H, W) or float32 features (N, F), and global class ids y, int64 (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The samples at `index`, images as floats in [0, 1] (B, C, H, W), and their labels (B,)."""
        return as_floats(self.x[index]), self.y[index]

    def to(self, device: torch.device) -> "Split":
        return Split(self.x.to(device), self.y.to(device))

    def take(self, index: Tensor | slice) -> "Split":
        return Split(self.x[index], self.y[index])


@dataclass(frozen=True)
class Data:
    """A data set: its two splits, and the names of its classes in the order of their ids.

    `parts` are the numbers of classes of the data sets that it consists of, if it is several in a row.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    parts: tuple[int, ...] = ()

    @property
    def shape(self) -> Shape:
        """Of a sample."""
        return tuple(self.train.x.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell data sets apart: of the classes' names and of all samples, in their order."""
        tensors = [tensor.cpu() for split in (self.train, self.test) for tensor in (split.x, split.y)]
        digest = hashlib.sha256(repr((self.classes, [(t.dtype, tuple(t.shape)) for t in tensors])).encode())
        for tensor in tensors:
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """Some of the classes, with all their samples. `dev` is held out of the training data; None without `dev_split`."""

    index: int
    classes: tuple[int, ...]
    train: Split
    dev: Split | None
    test: Split


def stratified(y: Tensor, n: int) -> Tensor:
    """Indices (min(n, N),) of a fixed sample of the labels y (N,): of each class its share of n, up to rounding.

    Example:
        >>> stratified(torch.tensor([1, 0, 0, 1, 0, 0]), 3)
        tensor([2, 5, 3])
    """
    if len(y) <= n:
        return torch.arange(len(y), device=y.device)
    return y.argsort(stable=True)[torch.arange(1, 2 * n, 2, device=y.device) * len(y) // (2 * n)]


def held_out(y: Tensor, classes: Iterable[int], share: float, generator: torch.Generator, key: str) -> Tensor:
    """A mask (N,) of a random `share` of the samples of every class, at least one and never all.

    BadInput, which names the `key` of the configuration, if a class has one sample only.
    """
    mask = torch.zeros(len(y), dtype=torch.bool)
    for c in classes:
        members = (y == c).nonzero().squeeze(1)
        if len(members) < 2:
            raise BadInput(f"{key}: a class with one training image has none to hold out; remove {key}, or the class")
        count = min(max(1, round(share * len(members))), len(members) - 1)
        mask[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return mask


def laid_out(x: Tensor) -> Tensor:
    """Images (B, C, H, W), on CPU in channels-last memory: convolutions of colour images are a quarter faster."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def stored(n: int, shape: Shape, device: torch.device) -> Tensor:
    """Room for n samples (n, *shape): zeros, uint8 of images and float32 of features."""
    return torch.zeros(n, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32, device=device)


def as_floats(x: Tensor) -> Tensor:
    """uint8 images (B, C, H, W) as float32 in [0, 1]; features (B, F) as they are."""
    return x if x.dtype != torch.uint8 else laid_out(x).float().div_(255)


def chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Parts of x (N, ...), images or what becomes images, to evaluate at once."""
    return x.split(IMAGES_ON_CPU if x.device.type == "cpu" else AT_ONCE)


def at_once(x: Tensor) -> int:
    """How many of the samples x (N, ...), images or features, to evaluate at once."""
    return IMAGES_ON_CPU if x.device.type == "cpu" and x.dim() > 2 else AT_ONCE


@torch.no_grad()
def mapped(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The outputs (N, ...) of a network for samples x, images uint8 (N, C, H, W) given as floats; no gradients."""
    return torch.cat([network(as_floats(part)) for part in x.split(at_once(x))])


def as_bytes(x: Tensor) -> Tensor:
    """Float images in [0, 1] (B, C, H, W) as uint8, rounded; features (B, F) as they are."""
    return x if x.dim() == 2 else (x.clamp(0, 1) * 255).round().to(torch.uint8)


def concatenate(*splits: Split) -> Split:
    """The samples of all splits in one."""
    return Split(torch.cat([s.x for s in splits]), torch.cat([s.y for s in splits]))


def reason(error: Exception) -> str:
    """The first line of an error's text, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
