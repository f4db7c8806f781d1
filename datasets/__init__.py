"""Data sets, one file each; the file's name is the name in the YAML.

A file defines `load(config, root) -> Data` and, if the data set has options, a `Config(DatasetConfig)` with them.
"""

import sys
from pathlib import Path

from datasets.data import Data
from utils.settings import Settings, find, prefix_errors


class DatasetConfig(Settings):
    """The keys of `scenario.dataset` that every data set has."""

    name: str
    """which data set: the name of a file in datasets/"""


def load(config: DatasetConfig, root: Path) -> Data:
    """Read a data set into memory, downloading it to `root` where that is possible; BadInput if it cannot be had."""
    with prefix_errors("scenario.dataset"):
        return find(sys.modules[__name__], config.name, "load").load(config, root)
