"""Seconds that the parts of a run take, interrupted or not."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by name; one part may be timed inside another."""

    def __init__(self, *names: str) -> None:
        self.seconds = dict.fromkeys(names, 0.0)
        """of the parts that have ended; a resumed run adds those of the interrupted one"""
        self._began: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count the time inside."""
        self._began[name] = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.so_far()[name]
            del self._began[name]

    def so_far(self) -> dict[str, float]:
        """Seconds by name, the parts that are running included."""
        now = time.perf_counter()
        return self.seconds | {name: self.seconds[name] + now - began for name, began in self._began.items()}
