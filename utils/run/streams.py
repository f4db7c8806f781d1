"""Named random streams: the draws of one part of a run never change those of another."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.settings import BadInput


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`; unrelated for different names."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The stream `name` of the run `seed`, at its start. It draws different numbers on different devices."""
    return torch.Generator(device).manual_seed(derive(seed, name))


class Streams:
    """The random streams of one run: `streams["order"]` is a torch.Generator on the run's device.

    torch's global generators, from which dropout draws, are seeded here, saved and restored with them.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self._generators: dict[str, torch.Generator] = {}
        torch.manual_seed(derive(seed, "global"))

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = generator(self.seed, name, self.device)
        return self._generators[name]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state of every stream, as byte tensors."""
        state = {f"stream/{name}": own.get_state() for name, own in self._generators.items()}
        state["global/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["global/cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue every stream where `state_dict` was taken; the tensors may be on any device.

        BadInput if it was taken on the other kind of device, whose streams draw other numbers.
        """
        theirs = "cuda" if "global/cuda" in state else "cpu"
        if theirs != self.device.type:
            hint = f"resume it with --device {theirs}, or start again with --restart"
            raise BadInput(f"the checkpoint is of a run on {theirs}, and the device is {self.device}; {hint}")
        for name, value in state.items():
            kind, _, own_name = name.partition("/")
            if kind == "stream":
                self[own_name].set_state(value.cpu())
        torch.set_rng_state(state["global/cpu"].cpu())
        if theirs == "cuda":
            torch.cuda.set_rng_state(state["global/cuda"].cpu(), self.device)


@contextmanager
def isolated(stream: torch.Generator) -> Iterator[None]:
    """Inside, torch's global generators, which initialise layers, are seeded from `stream`; they are restored after."""
    seed = int(torch.randint(2**62, (1,), generator=stream, device=stream.device))
    devices = [stream.device] if stream.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Inside, if `wanted`, CUDA computes with kernels that give the same bits each time.

    Raises RuntimeError in an operation that has none.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def preserved(stream: torch.Generator) -> Iterator[None]:
    """Inside, `stream` and torch's global generators may be drawn from; they are restored after."""
    state = stream.get_state()
    try:
        with isolated(stream):
            yield
    finally:
        stream.set_state(state)
