"""The log of a run: one line per event in experiment.log, and on the screen with progress bars on a terminal."""

import logging
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

log = logging.getLogger("experiment")  # of the current run: experiment.log gets every level, the screen INFO and above
EPOCH = logging.DEBUG if sys.stderr.isatty() else logging.INFO  # on a terminal the progress bar shows the same


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore that the log cannot be written (disk full, folder gone): the next checkpoint reports it."""


class _Screen(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


@contextmanager
def logging_to(path: Path, prefix: str) -> Iterator[None]:
    """Inside, the log is written to the file with the time, and to the screen behind `prefix`."""
    path.parent.mkdir(exist_ok=True)
    file, screen = _File(path, encoding="utf-8"), _Screen(logging.INFO)
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    screen.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for handler in (file, screen):
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in (file, screen):
            log.removeHandler(handler)
            handler.close()


def bar(total: int, name: str, level: int, unit: str, done: int = 0) -> Any:
    """A tqdm progress bar on line `level`, `done` of `total` reached; hidden without terminal or in a child process."""
    hidden = not sys.stderr.isatty() or multiprocessing.parent_process() is not None
    look = {"position": level, "leave": False, "dynamic_ncols": True, "disable": hidden}
    return tqdm(total=total, desc=name, unit=unit, initial=done, **look)
