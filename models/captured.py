"""Training steps as CUDA graphs.

A small step is bound by the launches of its kernels. Captured as a graph, all of them are launched at once: on an H100
a step takes a fifth of the time (bench/GPU.md).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

WARM_UP = 3  # eager steps before the capture: libraries initialise themselves, optimizers allocate their state
log = logging.getLogger("experiment")
_reasons: ContextVar[set[str] | None] = ContextVar("reasons", default=None)  # logged so far; None: nothing is captured


@contextmanager
def capturing(allowed: bool) -> Iterator[None]:
    """Inside, `Captured` steps become CUDA graphs if it is `allowed` and their device is CUDA."""
    token = _reasons.set(set() if allowed else None)
    try:
        yield
    finally:
        _reasons.reset(token)


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Where graphs are captured. One for all: cuBLAS keeps a workspace for each stream that it ever saw."""
    return torch.cuda.Stream(device)


class CUDAGraph:
    """The kernels of one call of a function, captured to be launched again with the same tensors."""

    def __init__(self, device: torch.device, streams: Sequence[torch.Generator]) -> None:
        self._device, self._graph = device, torch.cuda.CUDAGraph()
        for stream in streams:  # torch's global one is always registered
            self._graph.register_generator_state(stream)

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """Call it where it is captured later."""
        side, current = _side(self._device), torch.cuda.current_stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            outputs = function()
        current.wait_stream(side)
        return outputs

    def capture(self, function: Callable[[], Any]) -> Any:
        """Its outputs, to be filled by each `replay`; nothing is computed yet."""
        with torch.cuda.graph(self._graph, stream=_side(self._device)):
            return function()

    def replay(self) -> None:
        """Compute; random numbers continue where their streams are."""
        self._graph.replay()


GRAPHS: dict[str, type[CUDAGraph]] = {"cuda": CUDAGraph}
"""Type of device -> how its steps are captured; those of other devices run as they are."""


class Captured:
    """A training step, from its `WARM_UP`-th full batch on as a graph; its results are the same, bit for bit.

    A graph repeats kernels, not Python. So the step must be static: whatever it keeps it changes in place, it never
    reads from the device, and its shapes and choices depend on the size of the batch only.

    Args:
        step: indices of samples (B,) -> outputs; includes the optimizer's step.
        optimizer: its learning rates are read from tensors on the device, which follow `param_groups`.
        size: B of a full batch; others run eagerly.
        streams: the random numbers that the step draws, apart from torch's global ones.
        why_not: why the step is not static, for the log; None if it is.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Any],
        optimizer: Optimizer,
        size: int,
        streams: Sequence[torch.Generator],
        why_not: str | None = None,
    ) -> None:
        self._step, self._optimizer, self._size, self._streams = step, optimizer, size, streams
        self._rates: list[Tensor] = []
        self._known_rates: list[float] = []
        self._index = torch.empty(0)
        self._graph: CUDAGraph | None = None
        self._outputs: Any = None
        self._left, self._eager = WARM_UP, why_not is not None  # steps before the capture
        if why_not:
            self._log(why_not)

    def __call__(self, index: Tensor) -> Any:
        """One step; after a replay, the outputs are tensors that the next replay overwrites."""
        kind = GRAPHS.get(index.device.type)
        if kind is None:
            return self._step(index)
        self._follow_rates(index.device)
        if self._eager or len(index) != self._size or _reasons.get() is None:
            return self._with_rates(index)
        self._graph = self._graph or kind(index.device, self._streams)
        if self._left > 0:
            self._left -= 1
            return self._graph.warm_up(lambda: self._with_rates(index))
        if self._left == 0:
            self._left = -1
            self._capture(self._graph, index)
            if self._eager:
                return self._with_rates(index)
        self._index.copy_(index)
        self._graph.replay()
        return self._outputs

    def _capture(self, graph: CUDAGraph, index: Tensor) -> None:
        self._index, groups = index.clone(), self._optimizer.param_groups
        try:
            for group in groups:
                group["capturable"] = True
            self._outputs = graph.capture(lambda: self._with_rates(self._index))
        except RuntimeError as error:
            self._graph, self._eager = None, True
            self._log(str(error).partition("\n")[0])
        finally:
            for group in groups:
                group["capturable"] = False

    def _follow_rates(self, device: torch.device) -> None:
        """Fill the tensors with the learning rates of now, where they changed."""
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        if rates != self._known_rates:
            self._rates = self._rates or [torch.zeros((), device=device) for _ in rates]
            for tensor, rate in zip(self._rates, rates, strict=True):
                tensor.fill_(rate)
            self._known_rates = rates

    def _with_rates(self, index: Tensor) -> Any:
        """The step, with the tensors for learning rates; schedules see numbers."""
        groups = self._optimizer.param_groups
        try:
            for group, tensor in zip(groups, self._rates, strict=True):
                group["lr"] = tensor
            return self._step(index)
        finally:
            for group, rate in zip(groups, self._known_rates, strict=True):
                group["lr"] = rate

    def _log(self, why: str) -> None:
        reasons = _reasons.get()
        if reasons is not None and why not in reasons:
            reasons.add(why)
            log.info("steps run eagerly, not as CUDA graphs: %s", why)
