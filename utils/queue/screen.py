"""Keep running when stdout or stderr is closed: `| head`, the terminal of a disowned run, a log on a full disk."""

import io
import os
import sys
from typing import Any


class _Unbreakable(io.FileIO):
    """A stream that drops what can no longer be written."""

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def outlive_readers() -> None:
    """Replace stdout and stderr, so that a run without a reader goes on; experiment.log has what it says."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # closed by the shell, `>&-`: no other file may get its number
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            os.set_inheritable(number, True)  # dup2 did not, if open gave this very number
        raw: Any = _Unbreakable(number, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", line_buffering=True))
