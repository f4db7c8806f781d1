"""What a run says: a line an event in its experiment.log, progress bars on a terminal, plain lines elsewhere."""

import logging
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

log = logging.getLogger("experiment")
"""The run's log. Everything goes into experiment.log; of level INFO and above, to the screen too."""
EPOCH = logging.DEBUG if sys.stderr.isatty() else logging.INFO
"""Level of an epoch's line: on a terminal the bars show it."""


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A log that cannot be written (disk full, folder gone) must not hide why: the run fails at its next file."""


class _Screen(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


@contextmanager
def logging_to(path: Path, prefix: str) -> Iterator[None]:
    """Inside, the log goes to the file, with time, and to the screen behind `prefix`."""
    path.parent.mkdir(exist_ok=True)
    file, screen = _File(path, encoding="utf-8"), _Screen()
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    screen.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    screen.setLevel(logging.INFO)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(file)
    log.addHandler(screen)
    try:
        yield
    finally:
        for handler in (file, screen):
            log.removeHandler(handler)
            handler.close()


def bar(total: int, name: str, level: int, unit: str) -> Any:
    """A progress bar at depth `level`, shown on a terminal only; `update(n)`, `set_postfix_str(text)`, `close()`."""
    return tqdm(
        total=total,
        desc=name,
        position=level,
        leave=False,
        unit=unit,
        disable=not sys.stderr.isatty() or multiprocessing.parent_process() is not None,
        dynamic_ncols=True,
    )
