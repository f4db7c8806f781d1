"""Locks of files that end with the process that holds them, however it ends: after kill -9, too."""

import errno
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from utils.settings import BadInput

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what file systems without flock answer
POLL_SECONDS = 0.05


@contextmanager
def exclusive(path: Path, seconds: float, refusal: str) -> Iterator[None]:
    """Inside, only this process holds the lock of a file, which is made but not removed.

    BadInput with `refusal` if another one holds it for longer than this; OSError if the file cannot be written. Where
    the file system has no locks, there is one warning, and the process goes on without.
    """
    with path.open("ab") as file:  # closing it ends the lock
        end = time.monotonic() + seconds
        while not _taken(file):
            if time.monotonic() >= end:
                raise BadInput(refusal)
            time.sleep(POLL_SECONDS)
        yield


def _taken(file: IO[bytes]) -> bool:
    """Whether the lock is ours now."""
    if fcntl is None:
        _warn()
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on some network file systems
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn()
    return True


@cache
def _warn() -> None:
    if multiprocessing.parent_process() is None:  # which has said it
        print("the file system of the results has no locks: do not run a seed twice at the same time", file=sys.stderr)
