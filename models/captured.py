"""Training steps as CUDA graphs.

A small step is bound by the launches of its kernels. Captured as a graph, all of them are launched at once, which is
several times faster (bench/GPU.md).
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


_broken: list[torch.cuda.CUDAGraph] = []  # torch's allocator refers to a graph whose capture failed


class CUDAGraph:
    """The kernels of one call of a function, captured to be launched again with the same tensors.

    The function may draw from `streams`, which are on one device, and from torch's global generator.
    """

    def __init__(self, *streams: torch.Generator) -> None:
        self._device, self._graph = streams[0].device, torch.cuda.CUDAGraph()
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        self._streams = [*streams, torch.cuda.default_generators[index]]
        for stream in streams:
            self._graph.register_generator_state(stream)  # the global one always is

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """Call it where it is captured later."""
        side, current = _side(self._device), torch.cuda.current_stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            outputs = function()
        current.wait_stream(side)
        return outputs

    def capture(self, function: Callable[[], Any]) -> Any:
        """Its outputs, to be filled by each `replay`; nothing is computed yet.

        Raises RuntimeError if that is not possible; the random streams are as they were.
        """
        side, states = _side(self._device), [stream.get_state() for stream in self._streams]
        try:
            with torch.cuda.graph(self._graph, stream=side):
                outputs = function()
        except RuntimeError as error:
            _broken.append(self._graph)
            for stream, state in zip(self._streams, states, strict=True):  # torch leaves them in the capture
                fresh = torch.Generator(self._device)
                fresh.set_state(state)
                stream.graphsafe_set_state(fresh)
            raise RuntimeError(str(error.__context__ or error).partition("\n")[0]) from error  # the first one says why
        # torch sets seed and offset of the random numbers on that stream; a replay, which sets them too, comes after
        torch.cuda.current_stream(self._device).wait_stream(side)
        return outputs

    def replay(self) -> None:
        """Compute; random numbers continue where their streams are."""
        self._graph.replay()


GRAPHS: dict[str, type[CUDAGraph]] = {"cuda": CUDAGraph}
"""Type of device -> how its steps are captured; those of other devices run as they are."""


class Captured:
    """A training step that becomes a graph after `WARM_UP` full batches; its results are the same, bit for bit.

    A graph repeats kernels, not Python. So the step must be static: whatever it keeps it changes in place, it never
    reads from the device, and its shapes and choices depend on the size of the batch only.

    Args:
        step: indices of samples (B,) -> outputs; includes the step of the optimizer, which has one group of parameters.
        size: B of a full batch; others run eagerly.
        stream: the random numbers that the step draws, apart from torch's global ones; on the samples' device.
        why_not: why the step is not static, for the log; None if it is.
        also: further streams that it draws from.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Any],
        optimizer: Optimizer,
        size: int,
        stream: torch.Generator,
        why_not: str | None = None,
        also: Sequence[torch.Generator] = (),
    ) -> None:
        self._step, self._optimizer, self._size, kind = step, optimizer, size, GRAPHS.get(stream.device.type)
        # a graph can only see a change of the learning rate in a tensor; eager steps use it too, for the same bits
        self._rate = torch.zeros((), device=stream.device) if kind else None
        self._graph = kind(stream, *also) if kind and _reasons.get() is not None else None
        self._number, self._index, self._outputs = 0, torch.empty(0), None
        if self._graph and why_not:
            self._run_eagerly(why_not)

    def __call__(self, index: Tensor) -> Any:
        """One step; after a replay, the outputs are tensors that the next replay overwrites."""
        if self._rate is None:
            return self._step(index)
        self._rate.fill_(self._optimizer.param_groups[0]["lr"])
        if self._graph is None or len(index) != self._size:
            return self._with_rate(index)
        self._number += 1
        if self._number <= WARM_UP:
            return self._graph.warm_up(lambda: self._with_rate(index))
        if self._number == WARM_UP + 1:
            self._index = index.clone()
            try:
                self._outputs = self._graph.capture(lambda: self._with_rate(self._index, capturable=True))
            except RuntimeError as error:
                self._run_eagerly(str(error))
                return self._with_rate(index)
        self._index.copy_(index)
        self._graph.replay()
        return self._outputs

    def _with_rate(self, index: Tensor, capturable: bool = False) -> Any:
        """The step with the tensor for a learning rate; schedules see the number."""
        (group,) = self._optimizer.param_groups
        before = dict(group)
        group.update(lr=self._rate, capturable=capturable)
        try:
            return self._step(index)
        finally:
            group.clear()
            group.update(before)

    def _run_eagerly(self, why: str) -> None:
        self._graph, reasons = None, _reasons.get()
        if reasons is not None and why not in reasons:
            reasons.add(why)
            log.info("steps run eagerly, not as CUDA graphs: %s", why)
