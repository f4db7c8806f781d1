"""An image file as pixels: 8 bits, upright, grey or in colour."""

import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets import reason
from utils.settings import BadInput

MAX_PIXELS = 50_000_000
"""Of one image: more is a mistake, or a file made to fill the memory."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Told by the content. Pillow has readers for more, some of which start other programs."""
DAMAGED = (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)
"""What Pillow raises for metadata that are damaged."""
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}


def decode(file: Path, size: int | None, channels: int | None) -> np.ndarray:
    """Read an image as uint8 (C, H, W).

    Args:
        size: resize it to this height and width; None: keep its own.
        channels: 1 or 3; None: 1 if the file's pixels are grey, 3 if they are stored in colour.

    Raises BadInput if the file is not a whole image with a known range of values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata and palettes; MAX_PIXELS refuses bombs
            return _pixels(file, size, channels)
    except Exception as error:  # Pillow's readers raise many types for damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        why = f"it is none of {', '.join(FORMATS)}" if unknown else reason(error)
        raise BadInput(f"cannot read the image {file} ({why}); mend, convert or remove it") from error


def _pixels(file: Path, size: int | None, channels: int | None) -> np.ndarray:
    if not file.is_file():  # a pipe would be waited for
        raise ValueError("not a regular file")
    # Not by its path: Pillow 13 then maps uncompressed TIFF files, and mixes up the pixels of those on their side.
    with file.open("rb") as content, Image.open(content, formats=FORMATS) as opened:
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
            raise ValueError(f"it holds floats {found}, expected are [0, 1]")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # whose mode I has 16 bits
        raise ValueError(f"it holds signed or 32-bit integers {found}, expected are unsigned ones of 8 or 16 bits")
    return Image.fromarray(((values.astype(np.int32) + 128) // 257).astype(np.uint8))
