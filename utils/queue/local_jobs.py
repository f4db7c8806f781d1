"""Jobs in parallel on this machine, each in a process of its own; and what a queue is, here and on clusters.

Not a pool: workers get no stop signal, and one OOM kill breaks the pool.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from tqdm import tqdm

from utils.config.schema import ClusterConfig
from utils.queue.screen import outlive_readers
from utils.run.signals import SIGNALS, Stop, listening
from utils.store import log

POLL_SECONDS = 0.2  # the longest delay before a request to stop is passed on
INTERRUPTED = 130  # exit code of a job that was asked to stop and has saved a checkpoint
LOST = 255  # exit code of a job whose server is gone


class Job(NamedTuple):
    """One job of a queue."""

    name: str  # for messages
    run: Callable[[Stop], int]  # pickled, called in a process of its own; gives an exit code
    needs: ClusterConfig  # what it takes on a cluster


RunJobs = Callable[[Sequence[Job], int, Stop], Iterator[tuple[int, int]]]
"""`run_side_by_side`, or the same on a cluster: what `connect` in `<backend>_jobs.py` returns."""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(jobs: Sequence[Job], at_once: int, stop: Stop) -> Iterator[tuple[int, int]]:
    """Run the jobs in this order, at most `at_once` at a time; a request to stop ends those that run.

    Yields the index and exit code of each job that has ended; for a killed one minus the signal's number.
    """
    context = _context()
    waiting, running = list(enumerate(jobs)), dict[Any, tuple[int, Any, _Shown]]()
    while waiting or running:
        while waiting and len(running) < at_once and not stop.requested:
            index, job = waiting.pop(0)
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(job.run, writer))
            process.start()
            writer.close()
            line = next(k for k in range(1, at_once + 1) if k not in [shown.line for *_, shown in running.values()])
            running[process.sentinel] = index, process, _Shown(job.name, line, reader)
        if stop.requested:
            waiting.clear()
            for _, process, _ in running.values():
                process.terminate()
        wait([*running, *(shown.reader for *_, shown in running.values() if not shown.ended)], POLL_SECONDS)
        for *_, shown in running.values():
            shown.read()
        for sentinel in wait(list(running), 0):
            index, process, shown = running.pop(sentinel)
            process.join()
            shown.close()
            yield index, process.exitcode


class _Shown:
    """What a job says, on the screen: its lines whole, and a line of status at the bottom of a terminal."""

    def __init__(self, name: str, line: int, reader: Any) -> None:
        self.name, self.line, self.reader, self.ended = name, line, reader, False
        self._status = log.line(line, desc=name, postfix="starting", bar_format="{desc} [{elapsed}]{postfix}")

    def read(self) -> None:
        """Show what has arrived."""
        try:
            while not self.ended and self.reader.poll():
                kind, text = self.reader.recv()
                if kind == "status":
                    self._status.set_postfix_str(text)
                else:
                    tqdm.write(text, file=getattr(sys, kind))
        except (EOFError, OSError):
            self.ended = True

    def close(self) -> None:
        """Show the rest; the job has ended."""
        self.read()
        self.reader.close()
        self._status.close()


class _Said(io.TextIOBase):
    """A stream of a job: whole lines go to the process that shows them, so that no job breaks another's."""

    def __init__(self, kind: str, writer: Any) -> None:
        self._kind, self._writer, self._text = kind, writer, ""

    def write(self, text: str) -> int:
        lines = [text]
        if self._kind != "status":
            *lines, self._text = (self._text + text).split("\n")
        with contextlib.suppress(OSError):  # nobody listens any more
            for line in lines:
                self._writer.send((self._kind, line))
        return len(text)


def _context() -> Any:
    """How processes are started: by a server that has imported everything once, where it can run."""
    if not hasattr(os, "fork"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["utils.queue.launch", "torch._dynamo"])  # which optimizers import
    resource_tracker.ensure_running()  # which would unblock signals
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # for the server: a signal to the group must not end it
    try:
        forkserver.ensure_running()
    except OSError:  # $TMPDIR is too long a path for a socket
        return multiprocessing.get_context("spawn")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return context


def _child(run: Callable[[Stop], int], writer: Any) -> None:
    """Run a job; it also stops when the process that started it is gone."""
    outlive_readers()
    said: Any = partial(_Said, writer=writer)
    sys.stdout, sys.stderr, log.status = said("stdout"), said("stderr"), said("status")
    with listening() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent passes it on
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # which the server blocked

        def orphaned() -> None:
            parent: Any = multiprocessing.parent_process()
            parent.join()
            stop.requested = "the end of the program that started it"

        threading.Thread(target=orphaned, daemon=True).start()
        raise SystemExit(run(stop))
