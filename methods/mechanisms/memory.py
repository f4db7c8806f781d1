"""A memory of real samples, with a fixed number of places."""

import torch
from torch import Tensor, nn

from datasets.data import Shape, Split, as_floats, stored


class Memory(nn.Module):
    """Samples x, labels y, and named vectors of some size of each; a part of the state dictionary.

    `stream` decides what is kept and what is drawn; its device is the memory's.
    """

    def __init__(self, capacity: int, shape: Shape, stream: torch.Generator, **vectors: int) -> None:
        super().__init__()
        self.capacity, self.stream, self.names = capacity, stream, ("x", "y", *vectors)
        self.filled = 0  # places in use
        self.offered: Tensor = nn.Buffer(torch.zeros((), dtype=torch.long, device=stream.device), persistent=False)
        self.x: Tensor = nn.Buffer(stored(capacity, shape, stream.device))
        self.y: Tensor = nn.Buffer(torch.zeros(capacity, dtype=torch.long, device=stream.device))
        for name, size in vectors.items():
            self.register_buffer(name, torch.zeros(capacity, size, device=stream.device))

    def __len__(self) -> int:
        return self.filled

    def append(self, **samples: Tensor) -> None:
        """Put samples into the next free places: x as in a `Split`, y (N,), and every vector (N, size)."""
        count = len(samples["y"])
        for name in self.names:
            getattr(self, name)[self.filled : self.filled + count] = samples[name]
        self.filled += count
        self.offered += count

    def replace(self, **samples: Tensor) -> None:
        """Hold these samples and no others."""
        self.filled = 0
        self.offered.zero_()
        for name in self.names:
            getattr(self, name).zero_()
        self.append(**samples)

    def add_reservoir(self, **samples: Tensor) -> None:
        """Offer samples one after the other; everything ever offered is in the memory with the same probability.

        Vitter, "Random sampling with a reservoir", 1985, algorithm R, a whole batch at a time.
        """
        count, device = len(samples["y"]), self.y.device
        turn = self.offered + torch.arange(count, device=device)
        place = (torch.rand(count, device=device, dtype=torch.double, generator=self.stream) * (turn + 1)).long()
        place = torch.where(turn < self.capacity, turn, place).clamp(max=self.capacity)  # the last place: refused
        last = torch.full((self.capacity + 1,), -1, device=device)  # of two samples at one place the later stays
        last.scatter_reduce_(0, place, torch.arange(count, device=device), "amax")
        # every sample writes, to read nothing from the device: a refused one what another writes or what is there
        accepted = place < self.capacity
        place = torch.where(accepted, place, torch.where(accepted, place, 0).amax())
        writer = last[place]
        for name in self.names:
            kept, new = getattr(self, name), samples[name][writer.clamp(min=0)]
            kept[place] = torch.where((writer >= 0).view(-1, *[1] * (new.dim() - 1)), new, kept[place])
        self.offered += count
        self.filled = min(self.filled + count, self.capacity)

    def recount(self) -> None:
        """Count the places in use on the device: a replayed CUDA graph of `add_reservoir` does not count here."""
        self.filled = min(int(self.offered), self.capacity)

    def add_balanced(self, **samples: Tensor) -> None:
        """Keep a random choice of old and new samples in which the classes' numbers differ by one at the most.

        A class with too few samples leaves its places to the others: the memory is full as soon as it can be.
        """
        everything = {name: torch.cat((getattr(self, name)[: len(self)], samples[name])) for name in self.names}
        kept = balanced_choice(everything["y"], self.capacity, self.stream)
        self.offered += len(samples["y"])
        self.filled = len(kept)
        for name in self.names:
            getattr(self, name)[: len(kept)] = everything[name][kept]

    def draw(self, n: int) -> dict[str, Tensor]:
        """n of the samples at random, with replacement; images as floats in [0, 1] (n, C, H, W)."""
        index = torch.randint(len(self), (n,), device=self.y.device, generator=self.stream)
        drawn = {name: getattr(self, name)[index] for name in self.names}
        return {**drawn, "x": as_floats(drawn["x"])}

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": int(self.offered)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.offered.fill_(state["seen"])
        self.recount()


def balanced_choice(y: Tensor, n: int, stream: torch.Generator) -> Tensor:
    """Indices of n random samples of the labels y (N,), or of all there are, of every class as evenly as can be.

    Of more classes than n, a random choice of n has one sample each.
    """
    shuffled = torch.randperm(len(y), device=y.device, generator=stream)
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    counts = y.bincount()
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(y), device=y.device) - starts[y[by_class]]  # first of its class, second of its class, ...
    if n < int((counts > 0).sum()):
        firsts = by_class[rank == 0]
        return firsts[torch.randperm(len(firsts), device=y.device, generator=stream)[:n]]
    return by_class[rank.argsort(stable=True)[:n]]


def random_choice(split: Split, n: int, stream: torch.Generator) -> Split:
    """n random samples of a split, or all if there are fewer."""
    return split.take(torch.randperm(len(split), device=split.y.device, generator=stream)[:n])
