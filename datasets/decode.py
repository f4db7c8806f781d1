"""Image files as pixels: 8 bits, upright, grey or in colour; many of them in parallel, into one array."""

import struct
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from datasets import DatasetConfig
from datasets.data import reason
from utils.settings import BadInput

MAX_PIXELS = 50_000_000
"""Of one image: more is a mistake, or a file made to fill the memory."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Told by the content. Pillow has readers for more, some of which start other programs."""
DAMAGED = (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)
"""What Pillow raises for metadata that are damaged."""
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
CHUNK, AHEAD = 16, 32  # images per unit of work of a thread; units decoded before the first of them is copied


class ImageConfig(DatasetConfig):
    """The form of images that are read from files, and their test part."""

    test_split: float | None = Field(None, gt=0, lt=1)
    """share of each class held out as test images, always the same ones; for data without a test part"""
    image_size: int | None = Field(None, ge=8, le=1024)
    """resize every image to this many pixels square; required if the sizes of the images differ"""
    channels: Literal[1, 3] | None = None
    """1 reads grey images, 3 colour; by default, grey if all files are grey"""


def stacked(count: int, image: Callable[[int], np.ndarray], name: Callable[[int], object]) -> np.ndarray:
    """The images of the indices 0 to count - 1 as one array, uint8 (count, C, H, W); grey ones repeated if C is 3.

    Decoded by as many threads as torch has. Beside the array, a few hundred images are in memory; the array is copied
    once if the first images are grey and a later one is in colour.

    Args:
        image: index -> uint8 (C, H, W), C being 1 or 3; called in threads.
        name: index -> what an error calls the image.

    Raises BadInput if the sizes differ.
    """
    x = np.empty((count, 0, 0, 0), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata and palettes; MAX_PIXELS refuses bombs
        for index, pixels in enumerate(_in_order(count, image)):
            if index == 0:
                x = np.empty((count, *pixels.shape), np.uint8)
            if pixels.shape[1:] != x.shape[2:]:
                sizes = " and ".join(f"{width} x {height}" for height, width in (pixels.shape[1:], x.shape[2:]))
                what = f"{name(index)} and the images before it have different sizes, {sizes} pixels"
                raise BadInput(f"{what}; set image_size, e.g. image_size: 32 beside the name of the data set")
            if len(pixels) > x.shape[1]:
                x = np.repeat(x, len(pixels), axis=1)
            x[index] = pixels
    return x


def _in_order(count: int, image: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    """The images of the indices 0 to count - 1, in their order."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(image, range(count))
        return

    def chunk(start: int) -> list[np.ndarray]:
        return [image(index) for index in range(start, min(start + CHUNK, count))]

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, CHUNK * AHEAD):
            for images in pool.map(chunk, range(start, min(start + CHUNK * AHEAD, count), CHUNK)):
                yield from images


def decode(file: Path, size: int | None, channels: int | None) -> np.ndarray:
    """Read an image as uint8 (C, H, W).

    Args:
        size: resize it to this height and width; None: keep its own.
        channels: 1 or 3; None: 1 if the file's pixels are grey, 3 if they are stored in colour.

    Raises BadInput if the file is not a whole image with a known range of values.
    """
    try:
        if not file.is_file():  # a pipe would be waited for
            raise ValueError("not a regular file")
        # Not by its path: Pillow 13 then maps uncompressed TIFF files, and mixes up the pixels of those on their side.
        with file.open("rb") as content, Image.open(content, formats=FORMATS) as opened:
            return as_pixels(opened, size, channels)
    except Exception as error:  # Pillow's readers raise many types for damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        why = f"it is none of {', '.join(FORMATS)}" if unknown else reason(error)
        raise BadInput(f"cannot read the image {file} ({why}); repair, convert or remove it") from error


def as_pixels(opened: Image.Image, size: int | None, channels: int | None) -> np.ndarray:
    """An opened image as uint8 (C, H, W), as from `decode`. ValueError: too large, or of an unknown range."""
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"{opened.width:,} x {opened.height:,} pixels are more than {MAX_PIXELS:,}")
    opened.load()
    with suppress(*DAMAGED):  # metadata that do not say which side is up
        ImageOps.exif_transpose(opened, in_place=True)
    is_grey = channels == 1 or (channels is None and opened.mode in GREY)
    image = _eight_bits(opened).convert("L" if is_grey else "RGB")
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if is_grey else pixels.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with a range of 0 to 255, of 16-bit integers from 0 to 65535 or of floats from 0 to 1."""
    if image.mode not in GREY - {"1", "L", "LA"}:
        return image
    values = np.asarray(image)
    found = f"from {values.min():g} to {values.max():g}"
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # nor NaN
            raise ValueError(f"it holds floats {found}; expected [0, 1]")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # whose mode I has 16 bits
        raise ValueError(f"it holds signed or 32-bit integers {found}; expected unsigned ones of 8 or 16 bits")
    return Image.fromarray(((values.astype(np.int32) + 128) // 257).astype(np.uint8))
