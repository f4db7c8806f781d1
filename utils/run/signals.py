"""Requests to stop: a run finishes its step, saves where it is, and ends."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
"""Ctrl-C; a plain `kill`; what schedulers send before pre-emption."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; it has saved a checkpoint, if `train.save` is yes."""


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.requested: str | None = None
        """the signal's name"""


@contextmanager
def interruptible(ended: Callable[[Interrupted], int]) -> Iterator[None]:
    """Inside, each signal, not only Ctrl-C, raises Interrupted: a program that starts has nothing to save.

    While a module is imported the program exits at once with the code that `ended` returns: packages in C++ that import
    others while they start abort on an exception.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        interruption = Interrupted(f" by {signal.Signals(number).name}")
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                os._exit(ended(interruption))
            frame = frame.f_back
        raise interruption

    with _handling(interrupt):
        yield


@contextmanager
def listening() -> Iterator[Stop]:
    """Inside, a signal asks to stop; a second Ctrl-C interrupts at once (KeyboardInterrupt)."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = signal.Signals(number).name

    with _handling(ask):
        yield stop


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
