"""Provenance of a seed: the code, versions, device and threads that can change its results."""

import inspect
import os
import platform
import shutil
import subprocess
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import numpy
import torch

import methods
from utils.settings import Settings


class Provenance(Settings):
    """What `exp_<seed>/provenance.yml` holds. A field that is null is not known, and not compared."""

    commit: str | None = None  # of this program, from `git describe --always --dirty`
    changed: bool | None = None  # whether the program's files differed from that commit, new ones included
    method_hash: str | None = None  # SHA-256 of the method's file
    encoder_hash: str | None = None  # SHA-256 of the file of an encoder of the user's own
    code_hash: str | None = None  # SHA-256 of all files of the program
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
        return ", ".join(f"{name} {str(now)[:16]} instead of {str(old)[:16]}" for name, old, now in differing)


def current_provenance(method: str, device: str, encoder: str | None = None) -> Provenance:
    """The provenance of a seed of `method` that starts now in this process; `encoder` is a file of the user's own."""
    commit, changed, code_hash = _code()
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return Provenance(
        commit=commit,
        changed=changed,
        method_hash=sha256(Path(inspect.getfile(methods.find(method)[0])).read_bytes()).hexdigest(),
        encoder_hash=sha256(Path(encoder).expanduser().read_bytes()).hexdigest() if encoder else None,
        code_hash=code_hash,
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=numpy.__version__,
        device=device,
        processor=torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu,
        threads=torch.get_num_threads(),
    )


@cache  # of the code as it was loaded, however many seeds follow
def _code() -> tuple[str | None, bool | None, str]:
    """The commit, whether the program's files differ from it, and their hash."""
    root, parts = Path(__file__).parents[2], ["datasets", "flows", "methods", "models", "utils"]
    files = [root / "main.py", root / "prer.py", *(file for part in parts for file in (root / part).rglob("*.py"))]
    digest = sha256(b"".join(file.read_bytes() for file in sorted(files)))
    if not (root / ".git").exists() or not shutil.which("git"):
        return None, None, digest.hexdigest()
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of another repository
    git = partial(subprocess.run, cwd=root, env=own, capture_output=True, text=True)
    commit = git(["git", "describe", "--always", "--dirty"]).stdout.strip()
    changed = bool(git(["git", "status", "--porcelain", "--", "main.py", "prer.py", *parts]).stdout)
    return commit or None, changed, digest.hexdigest()
