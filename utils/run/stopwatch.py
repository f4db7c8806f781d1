"""How long the parts of a run take, over interruptions too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by name. What is timed may lie inside of something else that is timed."""

    def __init__(self, *names: str) -> None:
        self.seconds = dict.fromkeys(names, 0.0)
        """of what is over; those of an interrupted run go in here"""
        self._began: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """What is done inside counts."""
        self._began[name] = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.so_far()[name]
            del self._began[name]

    def so_far(self) -> dict[str, float]:
        """The seconds, with those of what is being timed."""
        now = time.perf_counter()
        return self.seconds | {name: self.seconds[name] + now - began for name, began in self._began.items()}
