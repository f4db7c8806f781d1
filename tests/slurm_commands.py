"""Stand-ins for Slurm's commands: `python slurm_commands.py sbatch SCRIPT`. Jobs are processes of this machine.

$SLURM_COMMANDS_QUEUE is a folder with a file for each job of the queue, `<array>_<index>`, which holds the job's name;
beside it lie `<job>.pid` of the process that runs it and, when it is to be queued again, `<job>.requeue`.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

QUEUE = Path(os.environ["SLURM_COMMANDS_QUEUE"])


def sbatch(script: str) -> None:
    if (QUEUE / "refuses").exists() or ((QUEUE / "full").exists() and any(QUEUE.glob("*_*"))):
        sys.exit("sbatch: error: invalid account or account/partition combination specified")
    text = Path(script).read_text()
    first, last = re.search(r"#SBATCH --array=(\d+)-(\d+)", text).groups()
    array = 1 + max((int(job.name.partition("_")[0]) for job in QUEUE.glob("*_*")), default=0)
    for index in range(int(first), int(last) + 1):
        job = f"{array}_{index}"
        (QUEUE / job).write_text(re.search(r"#SBATCH --job-name=(\S+)", text)[1])
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen([sys.executable, __file__, "live", job, script], **quiet)
    print(f"Submitted batch job {array}")


def live(job: str, script: str) -> None:
    array, index = job.split("_")
    named = {"SLURM_JOB_ID": array, "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}
    while True:
        subprocess.run(["bash", script], env={**os.environ, **named})
        if not (QUEUE / f"{job}.requeue").exists():
            break
        (QUEUE / f"{job}.requeue").unlink()
    (QUEUE / job).unlink()


def srun(*words: str) -> None:
    array, index = (os.environ[f"SLURM_ARRAY_{name}_ID"] for name in ("JOB", "TASK"))
    values = {"%A": array, "%a": index, "%t": "0"}
    for option, descriptor in (("--output", 1), ("--error", 2)):
        path = re.sub("%[Aat]", lambda found: values[found[0]], words[words.index(option) + 1])
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    (QUEUE / f"{array}_{index}.pid").write_text(str(os.getpid()))
    command = words[words.index("env") :]
    os.execvp(command[0], command)


def squeue(*options: str) -> None:
    if (QUEUE / "silent").exists():
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
    name = next(option.partition("=")[2] for option in options if option.startswith("--name="))
    for job in QUEUE.glob("*_*"):
        if "." not in job.name and job.read_text() == name:
            print(job.name)


def scancel(job: str) -> None:
    (QUEUE / f"{job}.cancelled").touch()
    os.kill(int((QUEUE / f"{job}.pid").read_text()), signal.SIGTERM)


def scontrol(action: str, job: str) -> None:
    (QUEUE / f"{job}.{action}").touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
