"""Provenance of a seed: the code, versions, device and threads that can change its results."""

import inspect
import platform
import shutil
import subprocess
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy
import torch

import methods
from utils.settings import Settings


class Provenance(Settings):
    """What `exp_<seed>/provenance.yml` holds. A field that is null is not known, and not compared."""

    commit: str | None = None  # of this program, from `git describe --always --dirty`
    changed: bool | None = None  # whether tracked files differed from that commit
    method_hash: str | None = None  # SHA-256 of the method's file
    python: str
    torch: str
    numpy: str
    device: str  # cpu, cuda, cuda:1
    processor: str  # the instruction set that torch chose its kernels for, or the GPU's name
    threads: int

    def __str__(self) -> str:
        commit = f"commit {self.commit}, " if self.commit else ""
        versions = f"Python {self.python}, torch {self.torch}, numpy {self.numpy}"
        return f"{commit}{versions}, {self.device} ({self.processor}), {self.threads} thread{'s' * (self.threads != 1)}"

    def changed_to(self, other: "Provenance") -> str:
        """The fields in which the other differs, in words; empty if there are none."""
        pairs = [(name, getattr(self, name), now) for name, now in other if name != "changed"]  # commit ends in -dirty
        differing = [pair for pair in pairs if None not in pair and pair[1] != pair[2]]
        return ", ".join(f"{name} {now} instead of {old}" for name, old, now in differing)


def current_provenance(method: str, device: str) -> Provenance:
    """The provenance of a seed of `method` that starts now in this process."""
    commit, method_hash = _code(method)
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return Provenance(
        commit=commit,
        changed=commit.endswith("-dirty") if commit else None,
        method_hash=method_hash,
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=numpy.__version__,
        device=device,
        processor=torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu,
        threads=torch.get_num_threads(),
    )


@cache  # of the code as it was loaded, however many seeds follow
def _code(method: str) -> tuple[str | None, str]:
    """The commit, and the hash of the method's file."""
    root, commit = Path(__file__).parents[2], ""
    if (root / ".git").exists() and shutil.which("git"):
        git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return commit or None, sha256(Path(inspect.getfile(methods.find(method)[0])).read_bytes()).hexdigest()
