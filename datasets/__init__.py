"""Data sets, one file each; the file's name is the name in the YAML.

A file defines `load(config, root) -> Data` and, if the data set has options, a `Config(DatasetConfig)` with them.
"""

import re
import sys
from pathlib import Path

import torch

from datasets.data import Data
from utils.settings import BadInput, Chosen, Settings, find, prefix_errors

MAX_BLACK = 16
"""Of 255. Images without a larger value were not scaled: they hold 0 and 1, class ids, or 12 bits of 16."""


class DatasetConfig(Settings):
    """The keys of `scenario.dataset` that every data set has."""

    name: str
    """which data set: the name of a file in datasets/"""

    @property
    def label(self) -> str:
        """What tables and results folders call it."""
        return self.name


DATASET = Chosen(sys.modules[__name__], "name", DatasetConfig, "load", short="kind")


def load(config: DatasetConfig, root: Path) -> Data:
    """Read a data set into memory, downloading it to `root` where that is possible; BadInput if it cannot be had."""
    with prefix_errors("scenario.dataset"):
        return read(config, root)


def read(config: DatasetConfig, root: Path) -> Data:
    """The same, for a data set that is part of another: errors do not name the key."""
    data = find(sys.modules[__name__], config.name, "load").load(config, root)
    _check(data)
    return data


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts numbers inside names by their value: 2 before 10, a2 before a10."""
    return [int(part) if part.isascii() and part.isdecimal() else part for part in re.split(r"([0-9]+)", name)], name


def _check(data: Data) -> None:
    """BadInput: labels do not belong to the images or to the classes, or the images are nearly black."""
    for name, split in (("training", data.train), ("test", data.test)):
        if len(split.x) != len(split.y):
            raise BadInput(f"{len(split.x)} {name} images have {len(split.y)} labels; expected one per image")
        if not len(split):
            raise BadInput(f"there are no {name} images")
        if not 0 <= (low := int(split.y.min())) <= (high := int(split.y.max())) < len(data.classes):
            raise BadInput(f"the {name} labels are {low} to {high}; expected 0 to {len(data.classes) - 1}")
        if split.x.dtype == torch.uint8 and 0 < (peak := int(split.x.max())) <= MAX_BLACK:
            mend = "scale them so that white is 255, or 65535 in 16-bit files"
            raise BadInput(f"the largest value in the {name} images is {peak} of 255, which is black; {mend}")
    if len(data.classes) > 1 and all(torch.equal(image, data.train.x[0]) for image in data.train.x):
        hint = "check how they were made; what is drawn only in their transparency is lost"
        raise BadInput(f"all {len(data.train):,} training images are the same; {hint}")
    shapes = [tuple(split.x.shape[1:]) for split in (data.train, data.test)]
    if shapes[0] != shapes[1]:
        raise BadInput(f"the training images are {shapes[0]} and the test images {shapes[1]}; expected one shape")
