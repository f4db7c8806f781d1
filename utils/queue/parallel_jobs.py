"""Jobs side by side on this machine, each in a process of its own.

Not a pool: workers get no stop signal, and one OOM kill breaks the pool. Processes are forked from a server that has
everything imported, and so start at once.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from utils.queue.screen import outlive_readers
from utils.run.signals import Interrupted, Stop, listening

POLL_SECONDS = 0.2
"""Longest delay before a request to stop is passed on."""
INTERRUPTED = 130
"""Exit code of a job that was asked to stop and has saved a checkpoint."""


class ClusterJob(NamedTuple):
    """One job of a queue that runs on a cluster."""

    name: str
    """for messages"""
    arguments: tuple[Any, ...]
    """pickled"""
    cpus: int
    gpus: float
    hours: float


RunOnCluster = Callable[[Callable[..., int], Sequence[ClusterJob], int, Callable[[int, int], None], Stop], None]
"""`run_side_by_side` on a cluster: work, jobs, at_once, done, stop."""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(
    work: Callable[..., int],
    arguments: Sequence[tuple[Any, ...]],
    at_once: int,
    done: Callable[[int, int], None],
    stop: Stop,
) -> None:
    """Call work(*arguments, stop) for each job, each in a process of its own.

    Args:
        work: a module's function that returns an exit code; it and its arguments are pickled.
        arguments: one tuple per job; jobs start in this order.
        at_once: the largest number of jobs that run at a time.
        done: done(index, code) is called after each job; the code of a killed job is minus the signal's number.
        stop: a request to stop is passed on to the jobs.

    Raises:
        Interrupted: a stop was requested, and all jobs have ended.
    """
    context: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if hasattr(os, "fork"):
        context.set_forkserver_preload([work.__module__, "torch._dynamo"])  # imported by the first optimizer
    waiting, running = list(enumerate(arguments)), dict[Any, tuple[int, Any]]()
    while waiting or running:
        while waiting and len(running) < at_once and not stop.requested:
            index, job = waiting.pop(0)
            process = context.Process(target=_child, args=(work, job))
            process.start()
            running[process.sentinel] = index, process
        if stop.requested:
            waiting.clear()
            for _, process in running.values():
                process.terminate()
        for sentinel in wait(list(running), POLL_SECONDS):
            index, process = running.pop(sentinel)
            process.join()
            done(index, process.exitcode)
    if stop.requested:
        raise Interrupted(f" by {stop.requested}")


def _child(work: Callable[..., int], job: tuple[Any, ...]) -> None:
    """Run one job; it also stops when the process that started it is gone."""
    outlive_readers()
    with listening() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent passes it on

        def orphaned() -> None:
            parent: Any = multiprocessing.parent_process()
            parent.join()
            stop.requested = "the end of the program that started it"

        threading.Thread(target=orphaned, daemon=True).start()
        try:
            code = work(*job, stop)
        except KeyboardInterrupt:
            code = INTERRUPTED
    raise SystemExit(code)
