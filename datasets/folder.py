"""Folder: your own images, train/<class>/* and test/<class>/*."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from datasets import DatasetConfig
from datasets.data import Data, Split
from utils.settings import BadInput

MAX_PIXELS = 50_000_000
"""Per image; a larger one is taken for a mistake, or for a decompression bomb."""
BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class Config(DatasetConfig):
    """The folder of the images, and their form."""

    path: str
    """the folder with train/<class>/ and test/<class>/, relative to the working directory"""
    image_size: int | None = Field(None, ge=8, le=1024)
    """resize every image to this many pixels square; required if the sizes of the images differ"""
    channels: Literal[1, 3] | None = None
    """1 reads grey images, 3 colour; by default, as the first image is"""


def load(config: Config, root: Path) -> Data:
    """Read every image of the folder `config.path`; classes are its sub-folders' names in alphabetical order.

    Raises:
        BadInput: a missing part or class, an unreadable or huge image, sizes that differ without `image_size`, a link
            out of the folder, or a name that cannot be printed.
    """
    folder = Path(config.path)
    names = {part: _class_names(folder / part) for part in ("train", "test")}
    if names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))
        raise BadInput(f"{folder}: train/ and test/ must have the same classes; only in one: {odd}")
    reader = _Reader(config)
    train, test = (reader.read(folder / part, names[part]) for part in ("train", "test"))
    return Data(train, test, tuple(names["train"]))


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; expected train/<class>/* and test/<class>/*")
    names = sorted(entry.name for entry in _inside(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise BadInput(f"{folder} has no sub-directories; expected one per class")
    return names


def _inside(folder: Path) -> Iterator[Path]:
    """The entries of a folder. Refuses names that cannot be printed and links out of the folder."""
    root = folder.resolve()
    for entry in folder.iterdir():
        if not entry.name.isprintable():  # undecodable bytes are not printable either
            raise BadInput(f"{folder} holds a name that cannot be printed, {entry.name!a}; rename it")
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            raise BadInput(f"{entry} is a link out of its folder; copy its target, or remove it")
        yield entry


class _Reader:
    """Decodes images to one shape: that of the configuration, or of the first image."""

    def __init__(self, config: Config) -> None:
        self.size, self.channels = config.image_size, config.channels
        self.shape: tuple[int, int, int] | None = None

    def read(self, folder: Path, names: list[str]) -> Split:
        images, labels = [], []
        for label, name in enumerate(names):
            files = sorted(f for f in _inside(folder / name) if f.suffix.lower() in EXTENSIONS)
            if not files:
                raise BadInput(f"{folder / name} holds no images ({', '.join(sorted(EXTENSIONS))})")
            images += [self._decode(file) for file in files]
            labels += [label] * len(files)
        return Split(torch.from_numpy(np.stack(images)), torch.tensor(labels))

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """uint8 (H, W) or (H, W, 3); ValueError if there are more than MAX_PIXELS."""
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width:,} x {image.height:,} pixels are more than {MAX_PIXELS:,}")
        if self.channels is None:
            self.channels = 1 if image.mode in ("1", "L", "LA", "I;16") else 3
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.array(image, dtype=np.uint8)

    def _decode(self, file: Path) -> np.ndarray:
        """One image as uint8 (C, H, W)."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file) as image:
                    pixels = self._pixels(image)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, MemoryError, *BOMBS) as error:
            raise BadInput(f"cannot read the image {file} ({error}); fix or remove it") from error
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self.shape is None:
            self.shape = pixels.shape
        if pixels.shape != self.shape:
            sizes = " and ".join(f"{width} x {height}" for _, height, width in (pixels.shape, self.shape))
            hint = "set image_size, e.g. {name: folder, path: ..., image_size: 32}"
            raise BadInput(f"{file} and the images before it have different sizes, {sizes} pixels; {hint}")
        return pixels
