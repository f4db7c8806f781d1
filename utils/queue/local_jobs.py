"""Jobs side by side on this machine, each in a process of its own; and what a queue is, here and on clusters.

Not a pool: workers get no stop signal, and one OOM kill breaks the pool.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from utils.config.schema import ClusterConfig
from utils.queue.screen import outlive_readers
from utils.run.signals import SIGNALS, Stop, listening

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
    waiting, running = list(enumerate(jobs)), dict[Any, tuple[int, Any]]()
    while waiting or running:
        while waiting and len(running) < at_once and not stop.requested:
            index, job = waiting.pop(0)
            process = context.Process(target=_child, args=(job.run,))
            process.start()
            running[process.sentinel] = index, process
        if stop.requested:
            waiting.clear()
            for _, process in running.values():
                process.terminate()
        for sentinel in wait(list(running), POLL_SECONDS):
            index, process = running.pop(sentinel)
            process.join()
            yield index, process.exitcode


def _context() -> Any:
    """How processes are started: by a server that has imported everything once, where it can run."""
    if not hasattr(os, "fork"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["utils.queue.launch", "torch._dynamo"])  # which optimizers import
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # for the server: a signal to the group must not end it
    try:
        forkserver.ensure_running()
    except OSError:  # $TMPDIR is too long a path for a socket
        return multiprocessing.get_context("spawn")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return context


def _child(run: Callable[[Stop], int]) -> None:
    """Run a job; it also stops when the process that started it is gone."""
    outlive_readers()
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
