"""File locks, which the system releases when the process that holds one ends, also after SIGKILL."""

import errno
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import inf
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
def exclusive(
    path: Path,
    seconds: float = inf,
    refusal: str = "",
    waiting: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Inside, only this process holds the lock of a file, which is made but not removed.

    BadInput with `refusal` if another one holds it for longer than this; OSError if the file cannot be written. Where
    the file system has no locks, there is one warning, and the process goes on without.

    Args:
        waiting: called once if another process holds the lock.
        check: called again and again while it does; may raise an exception to stop.
    """
    with path.open("ab") as file:  # closing it ends the lock
        end, told = time.monotonic() + seconds, False
        while not _taken(file):
            if time.monotonic() >= end:
                raise BadInput(refusal)
            if not told:
                waiting()
                told = True
            check()
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
        print(
            "the file system of the results or of a cache has no locks: do not run two programs that write there",
            file=sys.stderr,
        )
