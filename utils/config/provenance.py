"""What results were made with: all beside the configuration that may change their bits."""

import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from utils.settings import Settings


class MadeWith(Settings):
    """The section `made_with` that a run adds to config.yml of its results folder; `--verify` reads it."""

    commit: str | None = None
    """of this program, as git describes it; null where it is no git checkout"""
    python: str
    """version"""
    torch: str
    """version"""
    numpy: str
    """version"""
    device: str
    """cpu, cuda, cuda:1"""
    processor: str
    """the instructions that torch chose its kernels for, or the GPU's name"""
    threads: int
    """of a seed"""

    def __str__(self) -> str:
        commit = f"commit {self.commit}, " if self.commit else ""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        versions = f"Python {self.python}, torch {self.torch}, numpy {self.numpy}"
        return f"{commit}{versions}, {self.device} ({self.processor}), {threads}"

    def changed_to(self, other: "MadeWith") -> str:
        """What the other has different, in words; empty if nothing."""
        before, now = self.model_dump(), other.model_dump()
        return ", ".join(f"{key} {now[key]} instead of {before[key]}" for key in now if now[key] != before[key])


def made_with(device: str, threads: int) -> MadeWith:
    """What a run on this device with so many threads is made with, here and now."""
    import numpy
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return MadeWith(
        commit=_commit(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=numpy.__version__,
        device=device,
        processor=processor,
        threads=threads,
    )


@cache  # of the program as it was started, however many experiments it runs
def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
