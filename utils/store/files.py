"""Files that are whole or as they were before, and that are told from damaged ones when they are read."""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

SEAL = b"\nsha256 "
"""Ends a file, before the hash of all that comes before it. Unpicklers do not read that far."""


class Damaged(Exception):
    """A file is not what was written; the message says which, and why."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before.

    Its folder may be missing, the one above not: a results folder that was removed is not made again by half.

    Raises:
        OSError: disk full, not writable, folder gone.
    """
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """The same for text."""
    write_bytes(path, text.encode())


def write_pickle(path: Path, plain: object) -> None:
    """The same for a pickle of builtins, with its hash behind it."""
    write_bytes(path, _sealed(pickle.dumps(plain, protocol=4)))


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """The same for what `torch.load(weights_only=True)` reads."""
    write_bytes(path, _as_bytes(state))


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"refused to load {module}.{name}: results hold builtins only")


def read_pickle(path: Path) -> Any:
    """What `write_pickle` wrote.

    Raises:
        Damaged: a byte of it is not as it was written, or it holds more than builtins.
    """
    try:
        return _BuiltinsOnly(io.BytesIO(_unsealed(path))).load()
    except pickle.UnpicklingError as error:
        raise Damaged(f"{path}: {error}") from error


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data with their hash; the checkpoint that was there is kept beside it, as the one before.

    Raises:
        OSError: as `write_bytes`; a whole checkpoint is left, this one or the one before.
    """
    following = path.with_name(f"{path.name}.new")
    write_bytes(following, _sealed(_as_bytes(state)))
    if path.exists():
        path.replace(previous(path))
    following.replace(path)


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is."""
    return path.with_name(f"{path.name}.previous")


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `write_checkpoint` wrote, its tensors on `device`; nothing of it can run code.

    Raises:
        Damaged: a byte of it is not as it was written.
    """
    return torch.load(io.BytesIO(_unsealed(path)), map_location=device, weights_only=True)


def _as_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _sealed(content: bytes) -> bytes:
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def _unsealed(path: Path) -> bytes:
    whole = path.read_bytes()
    content, seal, digest = whole.rpartition(SEAL)
    if not seal or digest != hashlib.sha256(content).hexdigest().encode():
        raise Damaged(f"{path} is damaged: its {len(whole):,} bytes are not those that were written")
    return content
