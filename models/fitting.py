"""One fit loop for all generators: weighted batches, clipping, annealing, early stopping, resuming inside a fit."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR


class Journal:
    """Progress of the generator fits inside one `end_task`, so that an interrupted fit resumes at its last epoch.

    Fits are identified by their order. A resumed run repeats the whole `end_task` from the state it started with:
    everything between the fits is computed again, finished epochs of the fits are not. `after_epoch` is called between
    two epochs, where `state` may be asked for.
    """

    def __init__(self, after_epoch: Callable[[], None] = lambda: None) -> None:
        self.after_epoch, self._count = after_epoch, 0
        self._known: dict[str, Any] = {}
        self._running: Callable[[], dict[str, Any]] = dict

    @contextmanager
    def recording(self, state: dict[str, Any] | None = None) -> Iterator[None]:
        """Inside, fits are recorded, and those of an earlier `state` continue where they were."""
        self._known, self._count, self._running = dict(state or {}), 0, dict
        token = _journal.set(self)
        try:
            yield
        finally:
            _journal.reset(token)

    def state(self) -> dict[str, Any]:
        """Every fit of this `end_task` so far: epochs done, states of its parts and of its stream."""
        return self._known | self._running()

    def run(self, epoch: Callable[[int], bool], count: int, parts: Mapping[str, Any], stream: torch.Generator) -> None:
        """Call epoch(0), epoch(1), ..., epoch(count - 1), or until one returns True.

        `epoch` changes nothing but `parts`, which have `state_dict` and `load_state_dict`, and `stream`.
        """
        name = f"fit {self._count}"
        self._count += 1
        known = self._known.get(name, {"epochs": 0})
        if known["epochs"]:
            for key, part in parts.items():
                part.load_state_dict(copy.deepcopy(known[key]))
            stream.set_state(known["stream"].cpu())

        def state(epochs: int) -> dict[str, Any]:
            kept = {key: copy.deepcopy(part.state_dict()) for key, part in parts.items()}
            return {name: {"epochs": epochs, "stream": stream.get_state(), **kept}}

        for index in range(known["epochs"], count):
            stop = epoch(index)
            self._running = partial(state, count if stop else index + 1)
            self.after_epoch()
            if stop:
                break
        self._known, self._running = self._known | state(count), dict


_journal: ContextVar[Journal] = ContextVar("journal")


class _Best:
    """The weights of a module with the least loss so far, and the number of epochs since."""

    def __init__(self, module: nn.Module) -> None:
        self.least, self.since, self.weights = torch.inf, 0, copy.deepcopy(module.state_dict())

    def see(self, loss: float, module: nn.Module) -> int:
        """Keep the module's weights if their loss is the least; returns the epochs since the least loss."""
        self.since += 1
        if loss < self.least:
            self.least, self.since, self.weights = loss, 0, copy.deepcopy(module.state_dict())
        return self.since

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def class_weights(y: Tensor) -> Tensor:
    """Weights (N,) of samples with labels y (N,) under which every class is drawn equally often."""
    return 1.0 / y.bincount().clamp(min=1)[y]


@dataclass(frozen=True)
class Objective:
    """A loss, and the module whose parameters minimise it with an Adam optimizer of their own."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    """indices of samples (B,) -> the loss ()"""
    every: int = 1
    """batches per step, an epoch's last batch always being one"""


def fit(
    objectives: Sequence[Objective],
    weights: Tensor,
    stream: torch.Generator,
    *,
    epochs: int = 1,
    steps: int | None = None,
    samples: int | None = None,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    annealing: bool = False,
    max_norm: float | None = None,
    held_out: Tensor | None = None,
    tolerance: int = 5,
) -> None:
    """Minimise the objectives in turn, by Adam, on batches that `stream` draws with replacement.

    Args:
        weights: of the samples (N,), proportional to the probability with which each is drawn.
        epochs: passes over `samples`.
        steps: batches, instead of epochs.
        samples: samples per epoch; by default the number of those with a weight.
        annealing: let the learning rate fall to 0 along a cosine.
        max_norm: the gradient of each objective is clipped to this norm.
        held_out: indices of samples that are not drawn. The fit stops early and restores the weights with the least
            first loss on them.
        tolerance: epochs without a better loss on `held_out` before it stops.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    if held_out is not None:
        weights = weights.index_fill(0, held_out, 0)
    per_epoch = ceil((samples or int((weights > 0).sum())) / batch_size)
    steps = epochs * per_epoch if steps is None else steps
    adam = partial(torch.optim.Adam, lr=lr, weight_decay=weight_decay, betas=betas, fused=True)
    optimizers = [adam(objective.module.parameters()) for objective in objectives]
    schedules = [CosineAnnealingLR(optimizer, max(1, steps)) for optimizer in optimizers] if annealing else []
    groups = {"module": [objective.module for objective in objectives], "optimizer": optimizers, "schedule": schedules}
    parts: dict[str, Any] = {f"{kind} {n}": part for kind, group in groups.items() for n, part in enumerate(group)}
    if held_out is not None:
        parts["best"] = _Best(objectives[0].module)

    def step(objective: Objective, optimizer: torch.optim.Optimizer, index: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss(index)
        loss.backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(objective.module.parameters(), max_norm)
        optimizer.step()
        return loss.detach()

    def one_epoch(epoch: int) -> bool:
        total, count = torch.zeros((), device=weights.device), min(per_epoch, steps - epoch * per_epoch)
        order = torch.multinomial(weights, count * batch_size, replacement=True, generator=stream)
        for position, index in enumerate(order.split(batch_size), start=1):
            for objective, optimizer in zip(objectives, optimizers, strict=True):
                if position % objective.every == 0 or position == count:
                    total += step(objective, optimizer, index)
            for schedule in schedules:
                schedule.step()
        if not total.isfinite():
            raise FloatingPointError(f"the generator's loss is {float(total)} in epoch {epoch}; lower its lr")
        if held_out is None:
            return False
        with torch.no_grad():
            return parts["best"].see(float(objectives[0].loss(held_out)), objectives[0].module) == tolerance

    (_journal.get(None) or Journal()).run(one_epoch, ceil(steps / per_epoch), parts, stream)
    if held_out is not None:
        objectives[0].module.load_state_dict(parts["best"].weights)
