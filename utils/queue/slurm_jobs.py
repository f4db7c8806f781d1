"""The queue on a Slurm cluster, through submitit's job arrays; a job that loses its machine is queued again.

Options that `cluster:` of the YAML does not have (partition, account, memory) are set by sbatch's own environment
variables, SBATCH_PARTITION and so on. Program, data and results must have the same paths on every machine.
"""

import hashlib
import io
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from utils.queue.local_jobs import INTERRUPTED, Job, RunJobs
from utils.queue.plan import Experiment
from utils.run.signals import Stop, listening
from utils.settings import BadInput
from utils.store.files import BuiltinsOnly

MAX_TIMEOUTS = 1000  # how often a job may reach its time limit and be queued again
POLL_SECONDS = 2.0  # between two calls of squeue
MAX_DELAY_SECONDS = 15  # after a job's end, until its result is visible on shared storage


def connect(experiments: Sequence[Experiment]) -> RunJobs:
    """What runs jobs on the cluster, unless an earlier command's jobs for these seeds have not ended.

    Logs and pickled jobs go to `slurm/` in the folders' common parent.
    """
    import submitit  # noqa: F401

    if not shutil.which("sbatch"):
        raise BadInput("--backend slurm: there is no sbatch here; run it on a machine that submits jobs")
    folders = [experiment.config.save_path.resolve() for experiment in experiments]
    same = sorted((str(folder), *experiment.seeds) for folder, experiment in zip(folders, experiments, strict=True))
    name = f"prer-{hashlib.sha256(repr(same).encode()).hexdigest()[:8]}"
    root = os.path.commonpath(folders)
    left = _in_queue(name)
    if left is None:
        raise BadInput("--backend slurm: squeue does not answer; try again when it does")
    if left:
        ids = " ".join(sorted({job.partition("_")[0] for job in left}))
        raise BadInput(f"{root}: jobs of an earlier command have not ended; wait, or end them: scancel {ids}")
    return partial(run_on_slurm, Path(root, "slurm"), name)


def run_on_slurm(folder: Path, name: str, jobs: Sequence[Job], at_once: int, stop: Stop) -> Iterator[tuple[int, int]]:
    """As `run_side_by_side`, on the cluster: one array of jobs for all with the same needs."""
    import submitit

    python = f"env PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))} {shlex.quote(sys.executable)}"
    running: dict[int, Any] = {}
    for needs in dict.fromkeys(job.needs for job in jobs):
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_TIMEOUTS, python=python)
        executor.update_parameters(
            job_name=name,
            time=math.ceil(60 * needs.hours),
            cpus_per_task=needs.cpus,
            srun_args=[f"--cpus-per-task={needs.cpus}"],  # srun does not take it from sbatch
            array_parallelism=at_once,
            additional_parameters={"requeue": True},
            **({"gpus_per_node": math.ceil(needs.gpus)} if needs.gpus else {}),
        )
        alike = [index for index, job in enumerate(jobs) if job.needs == needs]
        try:
            with executor.batch():
                submitted = {index: executor.submit(_Task(), jobs[index].run) for index in alike}
            running |= submitted
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            for job in running.values():
                job.cancel(check=False)
            said = (str(error).strip() or "no message").splitlines()[-1]
            raise BadInput(f"--backend slurm: sbatch refused {len(alike)} jobs: {said}") from error
    printed, cancelled = Counter[Path](), False  # lines of each log
    while running:
        time.sleep(POLL_SECONDS)
        if stop.requested and not cancelled:
            cancelled = True
            for job in running.values():
                job.cancel(check=False)
        queued = _in_queue(name)
        for index, job in list(running.items()):
            for log, screen in ((job.paths.stdout, sys.stdout), (job.paths.stderr, sys.stderr)):
                lines = log.read_text(errors="replace").split("\n")[:-1] if log.exists() else []
                begun_anew = len(lines) < printed[log]  # by a job that was queued again
                for line in lines[0 if begun_anew else printed[log] :]:
                    if not line.startswith("submitit "):
                        print(line, file=screen, flush=True)
                printed[log] = len(lines)
            if queued is not None and job.job_id not in queued:
                yield index, _exit_code(jobs[index].name, running.pop(index), cancelled)


class _Task:
    """One job, in a process on a machine of the cluster."""

    def __call__(self, run: Callable[[Stop], int]) -> int:
        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's handler, for time limits and pre-emption
        with listening() as stop:
            code = run(stop)
            if code == INTERRUPTED and stop.requested == "SIGUSR2":  # the checkpoint is written
                requeue(signal.SIGUSR2, None)  # exits
            return code

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit runs when the job gets a machine again: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def _in_queue(name: str) -> set[str] | None:
    """The ids of the jobs of this name that wait or run; None if Slurm does not answer: it may be restarting."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i", f"--name={name}"]
    answer = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return set(answer.stdout.split()) if answer.returncode == 0 else None


def _exit_code(name: str, job: Any, cancelled: bool) -> int:
    """The exit code of a job that has ended."""
    result, end = job.paths.result_pickle, time.monotonic() + (0 if cancelled else MAX_DELAY_SECONDS)
    while not result.exists() and time.monotonic() < end:
        time.sleep(1)
    if result.exists():
        kind, value = BuiltinsOnly(io.BytesIO(result.read_bytes())).load()
        return value if kind == "success" else 1
    if not cancelled:
        print(f"{name} ended without a result; its last messages: {job.paths.stderr}", file=sys.stderr)
    return INTERRUPTED if cancelled else 1
