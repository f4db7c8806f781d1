"""One fit loop for all generators: weighted batches, clipping, annealing, early stopping, resuming inside a fit."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from math import ceil, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from models.captured import Captured

MAX_NORM = 10.0  # of gradients, where they are clipped


class Journal:
    """Progress of the generator fits inside one `end_task`, so that an interrupted fit resumes at its last epoch.

    Fits are identified by their order. A resumed run repeats the whole `end_task` from the state it started with, but
    not the finished epochs of its fits. `after_epoch` is called between two epochs, and may ask for `state`; `report`
    with what is fitted, epochs done, epochs in all, and the mean loss of a step.
    """

    def __init__(
        self,
        after_epoch: Callable[[], None] = lambda: None,
        report: Callable[[str, int, int, float], None] = lambda *_: None,
    ) -> None:
        self.after_epoch, self.report, self._count = after_epoch, report, 0
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
        """Every fit of this `end_task` so far: epochs done, states of its parts and of the random streams."""
        return self._known | self._running()

    def epochs(
        self, count: int, parts: Mapping[str, Any], stream: torch.Generator, stopped: Callable[[], bool]
    ) -> Iterator[int]:
        """The epochs left of a fit of `count`, or until `stopped`; each changes nothing but `parts`, `stream`, and
        PyTorch's own streams (dropout)."""
        name, self._count = f"fit {self._count}", self._count + 1
        known = self._known.get(name, {"epochs": 0})
        if known["epochs"]:
            for key, part in parts.items():
                part.load_state_dict(copy.deepcopy(known[key]))
            stream.set_state(known["stream"].cpu())
            if "global" in known:  # older checkpoints have none
                _continue_global(stream.device, known["global"])

        def state(epochs: int) -> dict[str, Any]:
            kept = {key: copy.deepcopy(part.state_dict()) for key, part in parts.items()}
            streams = {"stream": stream.get_state(), "global": _global_states(stream.device)}
            return {name: {"epochs": epochs, **streams, **kept}}

        for epoch in range(known["epochs"], count):
            if stopped():
                break
            yield epoch
            self._running = partial(state, epoch + 1)
            self.after_epoch()
        self._known, self._running = self._known | state(count), dict


_journal: ContextVar[Journal] = ContextVar("journal")


def _global_states(device: torch.device) -> list[Tensor]:
    """Of PyTorch's own generators, on CPU and on the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _continue_global(device: torch.device, states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)


class _Best:
    """The weights of a module with the least loss so far, and the number of epochs since."""

    def __init__(self) -> None:
        self.loss, self.since, self.weights = torch.inf, 0, dict[str, Any]()

    @torch.no_grad()
    def see(self, objective: "Objective", held_out: Tensor) -> None:
        self.since += 1
        if (loss := float(objective.loss(held_out))) < self.loss:
            self.loss, self.since, self.weights = loss, 0, copy.deepcopy(objective.module.state_dict())

    def restore(self, module: nn.Module) -> None:
        if self.weights:
            module.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


@dataclass(frozen=True)
class Objective:
    """A loss, and the module whose parameters minimise it with an Adam optimizer of their own."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]  # indices of samples (B,) -> the loss ()
    every: int = 1  # batches per step; an epoch's last batch is always one

    def step(self, optimizer: torch.optim.Optimizer, total: Tensor, max_norm: float | None, index: Tensor) -> None:
        """A step of the optimizer; the loss before it is added to `total` ()."""
        optimizer.zero_grad()
        loss = self.loss(index)
        loss.backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)
        optimizer.step()
        total.add_(loss.detach())


def _numbered(**parts: Sequence[Any]) -> dict[str, Any]:
    """Each part under a name of its own, "kind number"."""
    return {f"{kind} {number}": part for kind, group in parts.items() for number, part in enumerate(group)}


def class_weights(y: Tensor) -> Tensor:
    """Weights (N,) of samples with labels y (N,) under which every class is drawn equally often."""
    return 1.0 / y.bincount().clamp(min=1)[y]


def fit(
    objectives: Sequence[Objective],
    weights: Tensor,
    stream: torch.Generator,
    *,
    name: str = "generator",
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
    """Minimise the objectives of the part `name`, in turn, by Adam, on batches that `stream` draws with replacement.

    Args:
        weights: of the samples (N,), proportional to the probability with which each is drawn.
        epochs, steps: passes over `samples`; or batches instead.
        samples: per epoch; by default the number of those with a weight.
        annealing: let the learning rate fall to 0 along a cosine.
        max_norm: the gradient of each objective is clipped to it.
        held_out: indices of samples that are not drawn. The fit restores the weights with the least first loss on them,
            and stops after `tolerance` epochs without a better one.

    Raises FloatingPointError if a loss is not finite.
    """
    weights = weights if held_out is None else weights.index_fill(0, held_out, 0)
    per_epoch = ceil((samples or int((weights > 0).sum())) / batch_size)
    steps = epochs * per_epoch if steps is None else steps
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "fused": True}
    modules, best = [objective.module for objective in objectives], _Best()
    optimizers = [torch.optim.Adam(module.parameters(), **options) for module in modules]
    schedules = [CosineAnnealingLR(optimizer, max(1, steps)) for optimizer in optimizers] if annealing else []
    parts = _numbered(module=modules, optimizer=optimizers, schedule=schedules, best=[best])
    journal = _journal.get(None) or Journal()
    total = torch.zeros((), device=weights.device)  # of this epoch's losses
    pairs = zip(objectives, optimizers, strict=True)
    taken = [Captured(partial(one.step, adam, total, max_norm), adam, batch_size, stream) for one, adam in pairs]
    epochs = ceil(steps / per_epoch)
    for epoch in journal.epochs(epochs, parts, stream, lambda: best.since == tolerance):
        count = min(per_epoch, steps - epoch * per_epoch)
        total.zero_()
        order = torch.multinomial(weights, count * batch_size, replacement=True, generator=stream)
        for position, index in enumerate(order.split(batch_size), start=1):
            for objective, step in zip(objectives, taken, strict=True):
                if position % objective.every == 0 or position == count:
                    step(index)
            for schedule in schedules:
                schedule.step()
        if not isfinite(loss := float(total) / count):
            raise FloatingPointError(f"the loss of the {name} is {loss} in epoch {epoch}; lower its lr")
        journal.report(name, epoch + 1, epochs, loss)
        if held_out is not None:
            best.see(objectives[0], held_out)
    best.restore(modules[0])


def length(steps: int | None, epochs: int | None) -> dict[str, Any]:
    """What `fit` takes of the two: epochs, if they are given, else steps. ValueError: neither is given."""
    if epochs is None and steps is None:
        raise ValueError("steps and epochs are both null; give one of them")
    return {"steps": steps} if epochs is None else {"epochs": epochs}


def configured_fit(
    name: str, steps: int, epochs: int | None, *, batch_size: int, every: int = 1, **options: Any
) -> Callable[[Sequence[Objective], Tensor, torch.Generator, int], None]:
    """`fit` with a generator's options; to be called with objectives, weights, stream and the task's number of samples.

    It takes `steps` batches and reports every 100 * `every` of them; or, if `epochs` is given, passes over that number.
    """

    def fitted(objectives: Sequence[Objective], weights: Tensor, stream: torch.Generator, samples: int) -> None:
        per_epoch = 100 * every * batch_size if epochs is None else samples
        taken = length(steps, epochs)
        fit(objectives, weights, stream, name=name, batch_size=batch_size, samples=per_epoch, **taken, **options)

    return fitted
