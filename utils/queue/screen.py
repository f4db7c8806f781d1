"""What a program says must not decide whether it lives."""

import os
import sys
from typing import TextIO


class _Outlived:
    """A stream whose text is dropped from when it can no longer be written."""

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:  # closed by the shell, `>&-`: the jobs' processes must not take its number for a file
            stream = open(os.devnull, "w")  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """From now on into nothing; what the stream still holds too, since at exit it would fail again."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """Go on when nobody reads any more: `| head`, the terminal of a run that was disowned, a log on a full disk.

    experiment.log has it all; without this a night's seeds would fail one after the other. (A terminal that is closed
    under a run that was not disowned kills it, SIGHUP: it goes on from its last checkpoint.)
    """
    sys.stdout, sys.stderr = _Outlived(sys.stdout), _Outlived(sys.stderr)  # type: ignore[assignment]
