"""The queue on a Slurm cluster, through submitit: job arrays; a job that loses its machine is queued again.

What `cluster:` of the YAML does not say (partition, account, memory, ...) is said as to any sbatch, by SBATCH_PARTITION
and its like. Every machine finds the program, the data and the results under the same paths.
"""

import hashlib
import math
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from utils.queue.parallel_jobs import INTERRUPTED, ClusterJob, RunOnCluster
from utils.run.signals import Interrupted, Stop, listening
from utils.settings import BadInput

CLUSTER = "slurm"
"""submitit's name of it; its "local" makes processes of this machine, which is what tests without Slurm say."""
TIME_LIMITS = 1000
"""How often a job may reach its time limit and be queued again."""
POLL_SECONDS = 2.0
"""How often Slurm is asked for the jobs, and their logs are read."""
LATE_SECONDS = 15
"""How long after a job's end its result may take to be seen on shared storage."""


@contextmanager
def slurm_queue(folders: Sequence[Path]) -> Iterator[RunOnCluster]:
    """Gives what runs a queue on the cluster; logs and what jobs begin with lie in `slurm/` of the folders' parent.

    Raises:
        BadInput: submitit is not installed, nothing can be submitted here, or jobs of an earlier command are not over.
    """
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise BadInput(f"--backend slurm: {error}; install it: pip install -r requirements-cluster.txt") from error
    if CLUSTER == "slurm" and not shutil.which("sbatch"):
        raise BadInput("--backend slurm: there is no sbatch here; run it on a machine that submits jobs")
    root = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    name = f"prer-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    if CLUSTER == "slurm" and (left := _in_queue(name)):
        ids = " ".join(sorted({job.partition("_")[0] for job in left}))
        raise BadInput(f"{root}: jobs of an earlier command are not over; wait, or end them: scancel {ids}")
    yield partial(run_on_slurm, root / "slurm", name)


def run_on_slurm(
    folder: Path,
    name: str,
    work: Callable[..., int],
    jobs: Sequence[ClusterJob],
    at_once: int,
    done: Callable[[int, int], None],
    stop: Stop,
) -> None:
    """Call work(*arguments, stop) for each job on the cluster; the rest as `run_side_by_side`.

    Raises:
        Interrupted: it was asked to stop, and all jobs have ended.
    """
    running, asked = _submit(folder, name, work, jobs, at_once), False
    read: dict[Path, int] = defaultdict(int)
    while running:
        time.sleep(POLL_SECONDS)
        if stop.requested and not asked:
            asked = True
            for job in running.values():
                job.cancel(check=False)
        alive = _alive(name, running)
        for index, job in list(running.items()):
            for log, screen in ((job.paths.stdout, sys.stdout), (job.paths.stderr, sys.stderr)):
                read[log] = _echo(log, read[log], screen)
            if index not in alive:
                done(index, _exit_code(jobs[index].name, running.pop(index), asked))
    if stop.requested:
        raise Interrupted(f" by {stop.requested}")


def _submit(
    folder: Path, name: str, work: Callable[..., int], jobs: Sequence[ClusterJob], at_once: int
) -> dict[int, Any]:
    """One array for all jobs that need the same; returns submitit's job for each index."""
    import submitit

    python = f"env PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))} {shlex.quote(sys.executable)}"
    alike: dict[tuple[int, float, float], list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        alike[job.cpus, job.gpus, job.hours].append(index)
    submitted: dict[int, Any] = {}
    for (cpus, gpus, hours), indices in alike.items():
        executor = submitit.AutoExecutor(
            folder, CLUSTER, slurm_max_num_timeout=TIME_LIMITS, **{f"{CLUSTER}_python": python}
        )
        executor.update_parameters(
            name=name,
            timeout_min=math.ceil(60 * hours),
            cpus_per_task=cpus,
            slurm_srun_args=[f"--cpus-per-task={cpus}"],  # srun does not take it from sbatch
            slurm_array_parallelism=at_once,
            slurm_additional_parameters={"requeue": True},
            **({"gpus_per_node": math.ceil(gpus)} if gpus else {}),
        )
        with executor.batch():
            made = [executor.submit(_Task(), work, jobs[index].arguments) for index in indices]
        submitted |= dict(zip(indices, made, strict=True))
    return submitted


class _Task:
    """The life of one job, in a process of a machine of the cluster."""

    def __call__(self, work: Callable[..., int], arguments: tuple[Any, ...]) -> int:
        queue_again = signal.getsignal(signal.SIGUSR2)  # submitit's, for time limits and pre-emption
        with listening() as stop:
            try:
                return work(*arguments, stop)
            except KeyboardInterrupt:
                if stop.requested == "SIGUSR2":  # everything is saved now
                    queue_again(signal.SIGUSR2, None)  # exits
                return INTERRUPTED

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit runs when the job gets a machine again: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _alive(name: str, running: dict[int, Any]) -> set[int]:
    """The jobs that are queued, or queued again, or run."""
    if CLUSTER != "slurm":
        return {index for index, job in running.items() if not job.done()}
    try:
        ids = _in_queue(name)
    except subprocess.CalledProcessError:  # Slurm restarts now and then; its jobs go on
        return set(running)
    return {index for index, job in running.items() if job.job_id in ids}


def _in_queue(name: str) -> set[str]:
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i", f"--name={name}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def _echo(log: Path, start: int, screen: TextIO) -> int:
    """Print a job's log from line `start` on, without submitit's own lines; returns where to go on."""
    lines = log.read_text(errors="replace").split("\n")[:-1] if log.exists() else []
    if len(lines) < start:
        start = 0  # a job that was queued again began it anew
    for line in lines[start:]:
        if not line.startswith("submitit "):
            print(line, file=screen, flush=True)
    return len(lines)


def _exit_code(name: str, job: Any, asked: bool) -> int:
    """What a job that is over came to."""
    result = job.paths.result_pickle
    for _ in range(0 if asked else LATE_SECONDS):
        if not result.exists():
            time.sleep(1)
    if not result.exists():
        if not asked:
            print(f"{name} ended without a result; what was said last: {job.paths.stderr}", file=sys.stderr)
        return INTERRUPTED if asked else 1
    kind, value = pickle.loads(result.read_bytes())  # submitit's own: it was written by the job that was just submitted
    return value if kind == "success" else 1
