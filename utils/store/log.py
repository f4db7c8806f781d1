"""The log of a run: one line per event in experiment.log, and on the screen with progress bars on a terminal."""

import io
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil
from pathlib import Path
from typing import IO, Any, ClassVar
from weakref import WeakSet

from tqdm import tqdm

log = logging.getLogger("experiment")  # of the current run: experiment.log gets every level, the screen INFO and above
EPOCH = logging.DEBUG if os.isatty(2) else logging.INFO  # on a terminal the progress bar shows the same
FIT_LINES = 5  # at most, of one fit in the log
MARGIN = 3  # columns at the right: the `^C` that a terminal shows for Ctrl-C must not break a line
status: IO[str] | None = None  # in a job of its own process: where its line of status goes
_lines: WeakSet[Any] = WeakSet()


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
    screen.setFormatter(logging.Formatter(f"{prefix.replace('%', '%%')}%(message)s"))
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


def complain(text: str) -> None:
    """Write a line to stderr, above the bars."""
    tqdm.write(text, file=sys.stderr)


def bar(total: int, name: str, level: int, unit: str, done: int = 0) -> Any:
    """A tqdm progress bar on line `level`, `done` of `total` reached; hidden without terminal.

    In a job of its own process, it is text in the job's line of status, which the process that shows all jobs draws.
    """
    look: dict[str, Any] = {"total": total, "desc": name, "unit": unit, "initial": done}
    if multiprocessing.parent_process() is None:
        return line(level, **look)
    count = f"{{n_fmt}}/{{total_fmt}} {unit}s"
    look["bar_format"] = count if level == 1 else f"{{desc}}: {count}{{postfix}}"
    return tqdm(position=0, leave=False, disable=status is None, file=_Part(level), **look)


def line(level: int, **look: Any) -> Any:
    """A tqdm bar on this line of those at the bottom of the terminal, redrawn every second: clocks tick."""
    terminal = os.isatty(2)
    width = (os.get_terminal_size(2).columns or 80) - MARGIN if terminal else None
    made = _Line(position=level, leave=False, ncols=width, disable=not terminal, **look)
    if terminal:
        _lines.add(made)
        _start_clock()
    return made


class _Line(tqdm):
    def __repr__(self) -> str:
        """What is drawn; longer than the terminal is wide, it would break the lines below."""
        return super().__repr__()[: self.ncols]


@cache
def _start_clock() -> None:
    def tick() -> None:
        while True:
            time.sleep(1)
            with tqdm.get_lock():
                for each in [each for each in _lines if not each.disable]:  # else it was closed
                    each.refresh(nolock=True)

    threading.Thread(target=tick, daemon=True).start()


class _Part(io.TextIOBase):
    """What the bar of a level says in a job's line of status; all levels are sent together."""

    texts: ClassVar[dict[int, str]] = {}

    def __init__(self, level: int) -> None:
        self.level = level

    def write(self, text: str) -> int:
        self.texts[self.level] = text.strip()
        if status is not None:
            status.write(", ".join(part for part in self.texts.values() if part))
        return len(text)


class FitProgress:
    """The epochs of a generator's fits: a bar per fit on a terminal, at most `FIT_LINES` lines per fit in the log."""

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
        if done % ceil(epochs / FIT_LINES) == 0 or done == epochs:
            log.log(EPOCH, "%s epoch %d of %d: loss %.4f", name, done, epochs, loss)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
