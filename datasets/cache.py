"""Arrays kept on disk, made once for all runs that need the same: pixels of image files, features of images."""

import hashlib
import json
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from utils.locks import exclusive


def cached(
    folder: Path,
    description: dict[str, object],
    make: Callable[[], np.ndarray],
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """What `make` returns, from a file in the folder if one of the same description is there; else it is made and kept.

    Of several processes one makes it, and the others wait. Where the folder cannot be used, it is made each time.

    Args:
        description: JSON that decides the array, to the bit.
        tell: called with one line for what was read or written.
        warn: the same for what was found damaged or could not be kept.
        check: called now and then while another process makes it; may raise an exception to stop.
    """
    key = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    array, about = folder / f"{key}.npy", folder / f"{key}.json"
    if (x := _read(array, about)) is not None:  # of a folder that may not be written to, too
        tell(f"read from {array}")
        return x
    with ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            waiting = partial(tell, f"wait for another process, which writes {array}")
            lock.enter_context(exclusive(folder / f".{key}.lock", waiting=waiting, check=check))
        except OSError as error:
            warn(f"not kept on disk: {folder} cannot be used ({error})")
            return make()
        if (x := _read(array, about)) is not None:
            tell(f"read from {array}")
            return x
        if about.exists():
            warn(f"made again: {array} is damaged")
        x = make()
        try:
            _write(array, about, x, description)
            tell(f"written to {array} ({array.stat().st_size / 1e6:.0f} MB)")
        except OSError as error:
            array.with_suffix(".tmp").unlink(missing_ok=True)
            warn(f"not kept on disk: {folder} cannot be written to ({error})")
        return x


def _write(array: Path, about: Path, x: np.ndarray, description: dict[str, object]) -> None:
    """Both files, each whole or not at all; what a killed process left is overwritten."""
    temporary = array.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.save(file, x)
    temporary.replace(array)
    temporary.write_text(json.dumps(description | {"crc32": zlib.crc32(x.data)}, indent=1))
    temporary.replace(about)


def _read(array: Path, about: Path) -> np.ndarray | None:
    """The array, mapped into memory; None if it is not there, or not what was written."""
    try:
        checksum = json.loads(about.read_text())["crc32"]
        x = np.load(array, mmap_mode="c")  # copy on write: tensors are of memory that may be written to
        return x if zlib.crc32(x.data) == checksum else None
    except (OSError, ValueError, KeyError, EOFError):
        return None
