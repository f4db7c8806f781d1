"""The queue on a Ray cluster: each job is a task; one whose machine dies resumes on another machine.

RAY_ADDRESS names the cluster; without it, one is started on this machine for as long as the queue lasts. Program, data
and results must have the same paths on every machine. Ray stops a task by an interrupt, like Ctrl-C.
"""

import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from utils.queue.local_jobs import INTERRUPTED, POLL_SECONDS, Job, RunJobs, cores
from utils.queue.plan import Experiment
from utils.run.signals import Stop, listening
from utils.settings import BadInput

MAX_DEATHS = 5  # of one job's processes, by a lost machine or for lack of memory, before the job counts as failed
ANSWER_SECONDS = 10.0  # for the cluster's address to answer
LOG_SECONDS = 1.0  # for the tasks' last lines to arrive


def connect(experiments: Sequence[Experiment]) -> RunJobs:
    """Connect the cluster; returns what runs jobs there. ImportError: Ray is not installed."""
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # keep every seed's lines, also equal ones
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on loopback only, there and here
    import ray

    here: dict[str, Any] = {"num_cpus": cores(), "_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        if address and ":" in address:
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()  # Ray tries for minutes
        ray.init(address or "local", logging_level=logging.ERROR, **({} if address else here))
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        where = f"no cluster at RAY_ADDRESS={address}" if address else "no cluster can be started here"
        raise BadInput(f"--backend ray: {where} ({reason})") from error
    return run_on_ray


def run_on_ray(jobs: Sequence[Job], at_once: int, stop: Stop) -> Iterator[tuple[int, int]]:
    """As `run_side_by_side`, on the connected cluster; disconnects it at the end."""
    import ray

    waiting, running, deaths, cancelled = list(range(len(jobs))), dict[Any, int](), Counter[int](), False
    task, folder = ray.remote(max_retries=0)(_task), os.getcwd()
    try:
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        for needs in {job.needs for job in jobs}:
            if any(own.get("CPU", 0) >= needs.cpus and own.get("GPU", 0) >= needs.gpus for own in machines):
                continue
            message = f"cluster: no machine of it has {needs.cpus} CPUs and {needs.gpus:g} GPUs"
            if "RAY_ADDRESS" not in os.environ:  # it would wait for ever
                raise BadInput(f"{message}; lower cluster.cpus or cluster.gpus, or set RAY_ADDRESS")
            print(f"{message}; waiting for one", file=sys.stderr)
        while waiting or running:
            while waiting and len(running) < at_once and not stop.requested:
                job = jobs[index := waiting.pop(0)]
                placed = task.options(num_cpus=job.needs.cpus, num_gpus=job.needs.gpus)
                running[placed.remote(job.run, folder)] = index
            if stop.requested and not cancelled:
                cancelled = True  # a second time would interrupt a task without a checkpoint
                waiting.clear()
                for reference in running:
                    ray.cancel(reference)  # interrupts it, or removes it from the queue
            for reference in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
                index = running.pop(reference)
                code, death = _outcome(reference)
                deaths[index] += bool(death)
                if not death or stop.requested:
                    yield index, code
                elif deaths[index] == MAX_DEATHS:
                    print(f"{jobs[index].name} is given up, after {MAX_DEATHS} deaths: {death}", file=sys.stderr)
                    yield index, code
                else:
                    print(f"{jobs[index].name} resumes from its last checkpoint: {death}", file=sys.stderr)
                    waiting.append(index)
    finally:
        time.sleep(LOG_SECONDS)
        ray.shutdown()


def _task(run: Callable[[Stop], int], folder: str) -> int:
    """One job, in a process on a machine of the cluster."""
    os.chdir(folder)  # relative paths are those of the queue's machine
    with listening() as stop:
        return run(stop)


def _outcome(reference: Any) -> tuple[int, str | None]:
    """The exit code of a task that has ended, and why its process or machine died, if one did."""
    from ray import exceptions, get

    try:
        code = get(reference)
    except exceptions.TaskCancelledError:
        return INTERRUPTED, None
    except exceptions.RayTaskError as error:  # a bug, or machines with different versions
        print(error, file=sys.stderr)
        return 1, None
    except exceptions.RayError as error:
        return 1, str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return code, "its machine asked it to stop" if code == INTERRUPTED else None
