"""The log of a run: one line per event in experiment.log, and on the screen with progress bars on a terminal."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

log = logging.getLogger("experiment")  # of the current run: experiment.log gets every level, the screen INFO and above
EPOCH = logging.DEBUG if os.isatty(2) else logging.INFO  # on a terminal the progress bar shows the same
STATUS_WIDTH = 70  # letters of a job's bar
status: IO[str] | None = None  # where the bars of a job go


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
    """A tqdm progress bar on line `level`, `done` of `total` reached; hidden without terminal.

    In a job of its own process, its text goes to `status` instead, for the process that shows all jobs.
    """
    look: dict[str, Any] = {"position": level, "leave": False, "dynamic_ncols": True, "disable": not os.isatty(2)}
    if multiprocessing.parent_process() is not None:
        look |= {"position": 0, "dynamic_ncols": False, "ncols": STATUS_WIDTH, "file": status}
        look["disable"] |= status is None
    return tqdm(total=total, desc=name, unit=unit, initial=done, **look)


class FitProgress:
    """The epochs of a generator's fits: a bar per fit on a terminal, lines in the log."""

    def __init__(self) -> None:
        self._fit = "", 0
        self._bar: Any = None

    def __call__(self, name: str, done: int, epochs: int, loss: float) -> None:
        """Epoch number `done` of the fit `name` has ended, with this mean loss of a step."""
        if (name, done - 1) != self._fit:  # the first that is seen of a fit
            self.close()
            self._bar = bar(epochs, name, 2, "epoch", done=done - 1)
        self._fit = name, done
        self._bar.set_postfix_str(f"loss {loss:.4f}")
        self._bar.update()
        log.log(EPOCH, "%s epoch %d of %d: loss %.4f", name, done, epochs, loss)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
