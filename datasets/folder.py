"""Folder: your own images, train/<class>/* and test/<class>/*."""

import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from datasets import DatasetConfig
from datasets.data import Data, Split
from utils.settings import BadInput

MAX_PIXELS = 50_000_000
"""Of one image: more is a mistake, or a file made to fill the memory."""
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
    """Read every image of the folder `config.path`; classes are its sub-folders' names in alphabetical order."""
    folder = Path(config.path)
    names, in_test = (_class_names(folder / part) for part in ("train", "test"))
    if odd := sorted({*names} ^ {*in_test}):
        raise BadInput(f"{folder}: train/ and test/ must have the same classes; only in one: {odd}")
    files = {part: [_files(folder / part / name) for name in names] for part in ("train", "test")}
    first = _decode(files["train"][0][0], config.image_size, config.channels)
    train, test = (_read(of_part, config.image_size, first.shape) for of_part in files.values())
    return Data(train, test, tuple(names))


def _inside(folder: Path) -> Iterator[Path]:
    """The entries of a folder. Names that break messages, and links out of the folder, are refused."""
    for entry in folder.iterdir():
        if not entry.name.isprintable():  # nor are undecodable bytes
            raise BadInput(f"{folder} holds a name that cannot be printed, {entry.name!a}; rename it")
        if entry.is_symlink() and not entry.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{entry} is a link out of its folder; copy its target, or remove it")
        yield entry


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; expected train/<class>/* and test/<class>/*")
    names = sorted(entry.name for entry in _inside(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise BadInput(f"{folder} has no sub-directories; expected one per class")
    return names


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in _inside(folder) if file.suffix.lower() in EXTENSIONS)
    if not files:
        raise BadInput(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))})")
    return files


def _read(files: list[list[Path]], size: int | None, shape: tuple[int, ...]) -> Split:
    """The images of each class, of one shape (C, H, W)."""
    images = []
    for file in chain(*files):
        images.append(image := _decode(file, size, shape[0]))
        if image.shape != shape:
            sizes = " and ".join(f"{width} x {height}" for _, height, width in (image.shape, shape))
            hint = "set image_size, e.g. {name: folder, path: ..., image_size: 32}"
            raise BadInput(f"{file} and the images before it have different sizes, {sizes} pixels; {hint}")
    labels = [label for label, of_class in enumerate(files) for _ in of_class]
    return Split(torch.from_numpy(np.stack(images)), torch.tensor(labels))


def _decode(file: Path, size: int | None, channels: int | None) -> np.ndarray:
    """An image as uint8 (C, H, W); by default of its own size, and grey or in colour as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS refuses more
            opened = Image.open(file)
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{opened.width:,} x {opened.height:,} pixels are more than {MAX_PIXELS:,}")
            is_grey = channels == 1 or (channels is None and opened.mode in ("1", "L", "LA", "I;16"))
            image = opened.convert("L" if is_grey else "RGB")
            if size is not None:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.array(image, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise BadInput(f"cannot read the image {file} ({error}); fix or remove it") from error
    return pixels[None] if is_grey else pixels.transpose(2, 0, 1)
