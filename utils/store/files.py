"""Files that are written whole or not at all, and whose damage is noticed when they are read."""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

SEAL = b"\nsha256 "  # before the hash of the content at a file's end, where unpicklers do not read


class Damaged(Exception):
    """A file does not hold what was written."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically. Makes its folder, but not the one above: a removed results folder stays removed."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # always this name: the next write replaces what a kill leaves
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
    """As `write_bytes`."""
    write_bytes(path, text.encode())


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """Write what `torch.load(weights_only=True)` reads."""
    write_bytes(path, _as_bytes(state))


def write_pickle(path: Path, plain: object) -> None:
    """Write builtins as a pickle followed by its hash."""
    write_bytes(path, _sealed(pickle.dumps(plain, protocol=4)))


def read_pickle(path: Path) -> Any:
    """Read what `write_pickle` wrote; Damaged if a byte has changed, or if it holds more than builtins."""
    try:
        return BuiltinsOnly(io.BytesIO(_unsealed(path))).load()
    except pickle.UnpicklingError as error:
        raise Damaged(f"{path}: {error}") from error


class BuiltinsOnly(pickle.Unpickler):
    """Reads numbers, strings, lists and dictionaries; no code of the file runs."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"refused to load {module}.{name}: results hold builtins only")


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data with their hash; the one before stays at `previous(path)`, also if this fails."""
    following = checkpoints(path)[0]
    write_bytes(following, _sealed(_as_bytes(state)))
    if path.exists():
        path.replace(previous(path))
    following.replace(path)


def previous(path: Path) -> Path:
    """The file of the checkpoint before the one at `path`."""
    return path.with_name(f"{path.name}.previous")


def checkpoints(path: Path) -> list[Path]:
    """Where checkpoints may be, the newest first: a kill inside `write_checkpoint` leaves one under its first name."""
    return [path.with_name(f"{path.name}.new"), path, previous(path)]


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, with tensors on `device`; runs no code from the file. Damaged: as above."""
    return torch.load(io.BytesIO(_unsealed(path)), map_location=device, weights_only=True)


def _as_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _sealed(content: bytes) -> bytes:
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def _unsealed(path: Path) -> bytes:
    whole = path.read_bytes()
    content = whole.rpartition(SEAL)[0]
    if _sealed(content) != whole:
        raise Damaged(f"{path} is damaged: its {len(whole):,} bytes do not match their hash")
    return content
