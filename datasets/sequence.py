"""Sequence: several data sets in a row, as one with the classes of all, e.g. `scenario.datasets: [mnist, digits]`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets import DATASET, DatasetConfig, read
from datasets.data import Data, Split, as_bytes, concatenate
from utils.settings import BadInput


class Config(DatasetConfig):
    """The data sets, and the common form of their images."""

    datasets: tuple[Annotated[DatasetConfig, DATASET], ...] = Field(min_length=2, strict=False)
    """in their order, each as `dataset` may be; `scenario.datasets: [mnist, digits]` is the short form"""
    image_size: int | None = Field(None, ge=8, le=1024)
    """resize every image to this many pixels square; by default, to the size of the first data set"""

    @property
    def label(self) -> str:
        return "-".join(dataset.label for dataset in self.datasets)


def load(config: Config, root: Path) -> Data:
    """The data sets one after the other: one shape of images, and a class id for each class of each.

    Images are resized (bilinear, antialiased), and grey ones repeated if any data set is in colour. A class is named
    after its data set, e.g. "3 (digits)", and after its place, if there are two of that name: "3 (folder 1)".
    """
    wholes = [read(dataset, root) for dataset in config.datasets]
    for dataset, data in zip(config.datasets, wholes, strict=True):
        if len(data.shape) != 3:
            raise BadInput(f"{dataset.label} holds features {data.shape}; data sets in a row must be of images")
    channels = max(data.shape[0] for data in wholes)
    size = (config.image_size,) * 2 if config.image_size else wholes[0].shape[1:]
    labels, names = [dataset.label for dataset in config.datasets], list[str]()
    splits: tuple[list[Split], list[Split]] = [], []
    for place, (label, data) in enumerate(zip(labels, wholes, strict=True)):
        for of_part, split in zip(splits, (data.train, data.test), strict=True):
            of_part.append(Split(_formed(split.x, channels, size), split.y + len(names)))
        of = label if labels.count(label) == 1 else f"{label} {place}"
        names += [f"{name} ({of})" for name in data.classes]
    train, test = (concatenate(*part) for part in splits)
    return Data(train, test, tuple(names), tuple(len(data.classes) for data in wholes))


def _formed(x: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Images uint8 (N, C, H, W) with this number of channels and this height and width."""
    if x.shape[2:] != torch.Size(size):

        def resized(part: Tensor) -> Tensor:
            floats = part.float().div_(255)
            return as_bytes(F.interpolate(floats, size=tuple(size), mode="bilinear", antialias=True))

        x = torch.cat([resized(part) for part in x.split(1024)])  # in parts: floats are four times as large
    return x.expand(-1, channels, -1, -1)
