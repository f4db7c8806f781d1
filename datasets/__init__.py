"""Data sets by name. A new one is a function `(settings, root) -> Data` and a line in `LOADERS`."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from datasets.data import Data
from utils.settings import AnyCase, Settings

LOADERS = {
    "digits": "datasets.digits",
    "mnist": "datasets.downloads",
    "fashion_mnist": "datasets.downloads",
    "kmnist": "datasets.downloads",
    "svhn": "datasets.downloads",
    "cifar10": "datasets.downloads",
    "cifar100": "datasets.downloads",
    "folder": "datasets.folder",
    "npz": "datasets.npz",
}
"""Name in the YAML -> module whose `load(settings, root)` reads it; imported only when asked for."""


class DatasetSettings(Settings):
    """`scenario.dataset`: a name, or a mapping with a name and what `folder` and `npz` need."""

    name: Annotated[Literal[tuple(LOADERS)], AnyCase]
    """which data set"""
    path: str | None = None
    """folder: the directory with train/<class>/ and test/<class>/; npz: the file. Relative to the working directory"""
    image_size: int | None = Field(None, ge=8, le=1024)
    """folder: resize every image to this many pixels square; needed when the images' sizes differ"""
    channels: Literal[1, 3] | None = None
    """folder: 1 reads grey images, 3 colour; by default as the first image is"""

    @model_validator(mode="after")
    def _check(self) -> "DatasetSettings":
        own = self.name in ("folder", "npz")
        if own and self.path is None:
            raise ValueError(f"{self.name} needs its path, e.g. {{name: {self.name}, path: my/images}}")
        if not own and self.path is not None:
            raise ValueError(f"{self.name} takes no path; it is looked for under the data root (--data-root)")
        if self.name != "folder" and (self.image_size or self.channels):
            raise ValueError(f"image_size and channels are for folder, not for {self.name}")
        return self


def load(settings: DatasetSettings, root: Path) -> Data:
    """Read a data set into memory, downloading it to `root` where that is possible.

    Raises:
        BadInput: it is not there, cannot be read, or is not what it should be.
    """
    loader: Callable[[DatasetSettings, Path], Data] = import_module(LOADERS[settings.name]).load
    return loader(settings, root)
