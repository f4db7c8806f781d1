"""Named random streams, so that what one part of a run draws never changes what another part draws."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`; unrelated for different names."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The stream `name` of the run `seed`, from its beginning. On different devices it draws different numbers."""
    return torch.Generator(device).manual_seed(derive(seed, name))


class Streams:
    """The random streams of one run: `streams["order"]` is a torch.Generator on the run's device.

    The global generators of torch (dropout draws from them) are one stream more; they are seeded here, and their
    state is saved and restored with the others.
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
        """Go on drawing exactly where `state_dict` was taken."""
        for name, value in state.items():
            kind, _, own_name = name.partition("/")
            if kind == "stream":
                self[own_name].set_state(value)
        torch.set_rng_state(state["global/cpu"])
        if self.device.type == "cuda" and "global/cuda" in state:
            torch.cuda.set_rng_state(state["global/cuda"], self.device)


@contextmanager
def isolated(stream: torch.Generator) -> Iterator[None]:
    """Inside, torch's global generators are seeded by a number drawn from `stream`; afterwards they are as before.

    For code that draws from the global generators, such as the initialisation of a layer.
    """
    seed = int(torch.randint(2**62, (1,), generator=stream, device=stream.device))
    devices = [stream.device] if stream.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def preserved(stream: torch.Generator) -> Iterator[None]:
    """Inside, `stream` and torch's global generators may be drawn from; afterwards they are as before."""
    state = stream.get_state()
    try:
        with isolated(stream):
            yield
    finally:
        stream.set_state(state)
