"""Folder: your own images, train/<class>/* and test/<class>/*."""

import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from datasets import DatasetConfig, reason
from datasets.data import Data, Split
from datasets.decode import decode
from utils.settings import BadInput

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class Config(DatasetConfig):
    """The folder of the images, and their form."""

    path: str
    """the folder with train/<class>/ and test/<class>/, relative to the data root if one is given, else to the working
    directory; classes are in natural order of their names: 2 before 10"""
    image_size: int | None = Field(None, ge=8, le=1024)
    """resize every image to this many pixels square; required if the sizes of the images differ"""
    channels: Literal[1, 3] | None = None
    """1 reads grey images, 3 colour; by default, grey if all files are grey"""


def load(config: Config, root: Path) -> Data:
    """Read every image of the folder `config.path`; classes are in natural order of their folders' names."""
    folder = Path(config.path)
    try:
        names, in_test = (_class_names(folder / part) for part in ("train", "test"))
        if odd := sorted({*names} ^ {*in_test}):
            raise BadInput(f"{folder}: train/ and test/ must have the same classes; only in one: {odd}")
        files = {
            of: sorted(_below(of)) for of in (folder / part / name for part in ("train", "test") for name in names)
        }
        _tell_of_surprises(folder, files)
        images = _decoded([_images(of_class, below) for of_class, below in files.items()], config)
        channels = max(len(image) for of_class in images for image in of_class)
        train, test = (_split(part, channels) for part in (images[: len(names)], images[len(names) :]))
    except (OSError, MemoryError) as error:
        raise BadInput(f"{folder} cannot be read ({reason(error)})") from error
    return Data(train, test, tuple(names))


def _natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts numbers inside names by their value: 2 before 10, a2 before a10."""
    return [int(part) if part.isascii() and part.isdecimal() else part for part in re.split(r"([0-9]+)", name)], name


def _inside(folder: Path, top: Path) -> list[Path]:
    """The entries of a folder. Names that break messages, and links out of `top`, are refused."""
    entries = sorted(folder.iterdir())
    for entry in entries:
        if not entry.name.isprintable():  # nor are undecodable bytes
            raise BadInput(f"{folder} holds a name that cannot be printed, {entry.name!a}; rename it")
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(top.resolve()):
            raise BadInput(f"{entry} is a link out of its folder; copy its target, or remove it")
    return entries


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; expected train/<class>/* and test/<class>/*")
    names = [entry.name for entry in _inside(folder, folder) if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        raise BadInput(f"{folder} has no sub-directories; expected one per class")
    return sorted(names, key=_natural)


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of its sub-folders, without hidden sub-folders. Links to folders are refused."""
    waiting = [folder]
    while waiting:
        for entry in _inside(waiting.pop(), folder):
            if not entry.is_dir():
                yield entry
            elif entry.is_symlink():
                raise BadInput(f"{entry} is a link to a folder; copy its target, or remove it")
            elif not entry.name.startswith("."):
                waiting.append(entry)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS


def _images(folder: Path, files: list[Path]) -> list[Path]:
    images = [file for file in files if _is_image(file)]
    if not images:
        raise BadInput(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))})")
    return images


def _tell_of_surprises(folder: Path, files: dict[Path, list[Path]]) -> None:
    """Print how many files are not read, and how many images are in a sub-folder of the folder of their class."""
    others = [
        entry for part in (folder / "train", folder / "test") for entry in _inside(part, part) if not entry.is_dir()
    ]
    others += [file for below in files.values() for file in below if not _is_image(file)]
    others = [file for file in others if not file.name.startswith(".")]
    nested = [file for of, below in files.items() for file in below if _is_image(file) and file.parent != of]
    read = f"images are {', '.join(sorted(EXTENSIONS))} in train/<class>/ and test/<class>/"
    for surprising, what in ((others, f"not read; {read}"), (nested, "in sub-folders of a class, and read as of it")):
        if surprising and multiprocessing.parent_process() is None:  # once, not in each job
            print(f"note: {folder}: {len(surprising)} files, such as {surprising[0]}, are {what}", file=sys.stderr)


def _decoded(files: list[list[Path]], config: Config) -> list[list[np.ndarray]]:
    """The images of each list of files, (C, H, W) with one height and width; C is 1 or 3 unless it is configured."""
    images: list[list[np.ndarray]] = []
    for of_class in files:
        images.append([])
        for file in of_class:
            images[-1].append(image := decode(file, config.image_size, config.channels))
            if image.shape[1:] != images[0][0].shape[1:]:
                sizes = " and ".join(f"{width} x {height}" for _, height, width in (image.shape, images[0][0].shape))
                hint = "set image_size, e.g. {name: folder, path: ..., image_size: 32}"
                raise BadInput(f"{file} and the images before it have different sizes, {sizes} pixels; {hint}")
    return images


def _split(images: list[list[np.ndarray]], channels: int) -> Split:
    """The images of each class, those in grey repeated if the others are in colour."""
    x = np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for of_class in images for image in of_class])
    y = [label for label, of_class in enumerate(images) for _ in of_class]
    return Split(torch.from_numpy(x), torch.tensor(y))
