"""Fitting a generator's parts: class-balanced batches, clipped gradients, early stopping, and going on where it was."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import ceil
from typing import Any, Protocol

import torch
from torch import Tensor, nn

LARGEST_GRADIENT = 10.0
"""The gradient's norm is clipped to this."""


class Stateful(Protocol):
    """Modules, optimizers, schedules."""

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Be what `state_dict` was taken of."""


class Journal:
    """How far the fits of one end of a task have got, so that an interrupted one goes on at the epoch it had reached.

    Fits are known by their order. Whoever resumes runs the whole end of the task again, from the state that it began
    with: what stands between the fits is computed anew, the fits themselves are not.
    """

    def __init__(self, after_epoch: Callable[[], None] = lambda: None) -> None:
        self.after_epoch = after_epoch
        """called between two epochs, where `state` may be asked for"""
        self.begin()

    def begin(self, state: dict[str, Any] | None = None) -> None:
        """The end of a task begins: with nothing fitted, or with what an earlier `state` says."""
        self._known, self._count = dict(state or {}), 0
        self._running: Callable[[], dict[str, Any]] = dict

    def state(self) -> dict[str, Any]:
        """Every fit of this end of a task so far: epochs done, its parts' states, its stream's."""
        return self._known | self._running()

    def run(
        self, epoch: Callable[[int], bool | None], count: int, parts: Mapping[str, Stateful], stream: torch.Generator
    ) -> None:
        """Call epoch(0), epoch(1), ..., epoch(count - 1), or until one returns True.

        Args:
            epoch: changes nothing but `parts` and `stream`.
            parts, stream: what is kept between two epochs.
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


@contextmanager
def recorded(journal: Journal) -> Iterator[None]:
    """Inside, the journal records the fits of generators, and lets an interrupted one continue."""
    token = _journal.set(journal)
    try:
        yield
    finally:
        _journal.reset(token)


def current_journal() -> Journal:
    """The journal of the surrounding `recorded`; elsewhere a new one."""
    return _journal.get(None) or Journal()


class FitSettings(Protocol):
    """What `minimise` reads of the settings."""

    epochs: int
    steps: int | None
    lr: float
    weight_decay: float
    batch_size: int
    annealing: bool


class _Best:
    """The weights with the least loss so far, and for how many epochs there were none better."""

    def __init__(self, modules: nn.Module) -> None:
        self.modules, self.state = modules, {"least": torch.inf, "since": 0, "weights": None}

    def see(self, loss: float) -> int:
        """Take the modules as they are if their loss is the least; returns the epochs since it was."""
        if loss < self.state["least"]:
            self.state = {"least": loss, "since": 0, "weights": copy.deepcopy(self.modules.state_dict())}
        else:
            self.state["since"] += 1
        return self.state["since"]

    def restore(self) -> None:
        """Let the modules have the best weights, if they were ever seen."""
        if self.state["weights"] is not None:
            self.modules.load_state_dict(self.state["weights"])

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def minimise(
    loss: Callable[[Tensor], Tensor],
    modules: Iterable[nn.Module],
    labels: Tensor,
    settings: FitSettings,
    stream: torch.Generator,
    held_out: Tensor | None = None,
) -> None:
    """Adam on `loss(index)` over class-balanced batches of the samples with these labels (N,).

    With samples `held_out` (their indices), it stops early and leaves the modules with the weights that had the least
    loss on them.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    modules = nn.ModuleList(modules)
    parameters = list(modules.parameters())
    weights = 1.0 / labels.bincount().clamp(min=1)[labels]
    if held_out is not None:
        weights[held_out] = 0
    per_epoch = ceil(int((weights > 0).sum()) / settings.batch_size)
    steps = settings.epochs * per_epoch if settings.steps is None else settings.steps
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    parts: dict[str, Stateful] = {"modules": modules, "optimizer": optimizer}
    if settings.annealing:
        parts["schedule"] = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    if held_out is not None:
        parts["best"] = _Best(modules)

    def one_epoch(epoch: int) -> bool:
        total, count = torch.zeros((), device=labels.device), min(per_epoch, steps - epoch * per_epoch)
        order = torch.multinomial(weights, count * settings.batch_size, replacement=True, generator=stream)
        for index in order.split(settings.batch_size):
            optimizer.zero_grad()
            value = loss(index)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimizer.step()
            total += value.detach()
            if settings.annealing:
                parts["schedule"].step()
        if not total.isfinite():
            raise FloatingPointError(f"the generator's loss is {float(total)} in epoch {epoch}; lower its lr")
        if held_out is None:
            return False
        with torch.no_grad():
            return parts["best"].see(float(loss(held_out))) == settings.tolerance

    current_journal().run(one_epoch, ceil(steps / per_epoch), parts, stream)
    if held_out is not None:
        parts["best"].restore()
