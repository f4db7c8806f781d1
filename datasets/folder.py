"""People's own images: train/<class>/* and test/<class>/*."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from datasets import DatasetSettings
from datasets.data import Data, Split
from utils.settings import BadInput

MOST_PIXELS = 50_000_000
"""Of one image: more is taken for a mistake, or for a file made to fill the memory."""
BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def load(settings: DatasetSettings, root: Path) -> Data:
    """Read every image of the folder `settings.path`; classes are its sub-folders' names in alphabetical order.

    Raises:
        BadInput: a missing part or class, an unreadable or huge image, sizes that differ without `image_size`, a link
            that leads out of the folder, or a name that cannot be printed.
    """
    folder = Path(settings.path)
    names = {part: _class_names(folder / part) for part in ("train", "test")}
    if names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))
        raise BadInput(f"scenario.dataset: {folder}: train/ and test/ must have the same classes; only in one: {odd}")
    reader = _Reader(settings)
    train, test = (reader.read(folder / part, names[part]) for part in ("train", "test"))
    return Data(train, test, tuple(names["train"]))


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"scenario.dataset: {folder} is not a directory; expected train/<class>/* and test/<class>/*")
    names = sorted(entry.name for entry in _inside(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise BadInput(f"scenario.dataset: {folder} has no sub-directories; expected one for each class")
    return names


def _inside(folder: Path) -> Iterator[Path]:
    """What is in a folder; names and links that make trouble later are refused now."""
    root = folder.resolve()
    for entry in folder.iterdir():
        if not entry.name.isprintable():  # undecodable bytes are not printable either
            raise BadInput(f"scenario.dataset: {folder} holds a name that cannot be printed, {entry.name!a}; rename it")
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            raise BadInput(
                f"scenario.dataset: {entry} is a link out of its folder; copy what it leads to, or remove it"
            )
        yield entry


class _Reader:
    """Decodes images to one shape: the settings', or the first image's."""

    def __init__(self, settings: DatasetSettings) -> None:
        self.size, self.channels = settings.image_size, settings.channels
        self.shape: tuple[int, int, int] | None = None

    def read(self, folder: Path, names: list[str]) -> Split:
        images, labels = [], []
        for label, name in enumerate(names):
            files = sorted(f for f in _inside(folder / name) if f.suffix.lower() in EXTENSIONS)
            if not files:
                raise BadInput(f"scenario.dataset: {folder / name} holds no images ({', '.join(sorted(EXTENSIONS))})")
            images += [self._decode(file) for file in files]
            labels += [label] * len(files)
        return Split(torch.from_numpy(np.stack(images)), torch.tensor(labels))

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """uint8 (H, W) or (H, W, 3); ValueError if there are too many of them."""
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width:,} x {image.height:,} pixels are more than {MOST_PIXELS:,}")
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
            raise BadInput(f"scenario.dataset: cannot read the image {file} ({error}); mend or remove it") from error
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self.shape is None:
            self.shape = pixels.shape
        if pixels.shape != self.shape:
            raise BadInput(
                f"scenario.dataset: {file} is {_size(pixels.shape)}, the images before it {_size(self.shape)}; "
                "set image_size, e.g. {name: folder, path: ..., image_size: 32}"
            )
        return pixels


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]} pixels"
