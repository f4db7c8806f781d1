"""Programs run one at a time and measured from start to exit; what the other measuring programs here are made of.

Programs that measure memory import nothing heavy: a process inherits its parent's peak.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent


class Failed(SystemExit):
    """A program that was to be measured did not end with 0: its last lines, which end this one too."""


class Ran(NamedTuple):
    """What was seen of a program from outside."""

    seconds: float
    """from its start to its exit"""
    cpu_seconds: float
    """of its processes and threads together: what a busy machine changes least"""
    peak_mb: float
    """most memory resident at a time, in 10^6 bytes; of several processes that of the largest"""
    output: str


def run(command: Sequence[str | Path], threads: int = 1) -> Ran:
    """Run a command in the repository, with as many threads as it is given.

    Raises:
        Failed: its exit code is not 0.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise Failed(f"{' '.join(words)} ended with {process.returncode}:\n{output[-3000:]}")
    peak_mb = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return Ran(seconds, usage.ru_utime + usage.ru_stime, peak_mb, output)


def run_ours(
    config: Path, folder: Path, settings: Sequence[str], options: Sequence[str | Path], threads: int = 1
) -> dict[str, Any]:
    """Run main.py on CPU into a folder that is not there yet.

    Returns:
        What `seen` returns; train_s (the steps), method_s (what the method does between tasks) and eval_s, means over
        seeds; accuracy (FinalAccuracy).

    Raises:
        Failed: a run failed.
    """
    command = [sys.executable, "main.py", config, "--device", "cpu", *options]
    ran = run([*command, "--set", *settings, f"train.save_path={folder}"], threads)
    score = json.loads((folder / "final_score.json").read_text())
    seconds = {name: score["time"][name]["mean"] for name in ("train_s", "method_s", "eval_s")}
    accuracy = score["test"]["FinalAccuracy"]["mean"]
    return {**seen(ran), **seconds, "accuracy": accuracy}


def seen(ran: Ran) -> dict[str, float]:
    """end_to_end_s, cpu_s and peak_mb."""
    return {"end_to_end_s": ran.seconds, "cpu_s": ran.cpu_seconds, "peak_mb": ran.peak_mb}


def machine() -> str:
    """What the figures depend on: processor, cores, Python, torch, commit."""
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("model name")]
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {version('torch')}, commit {commit}"
    )


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median and, of several values, the least and the largest, as text."""
    text = f"{median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
