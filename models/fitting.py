"""Fitting a generator's parts: class-balanced batches, clipped gradients, early stopping."""

import copy
from collections.abc import Callable, Iterable
from math import ceil
from typing import Protocol

import torch
from torch import Tensor, nn

LARGEST_GRADIENT = 10.0
"""The gradient's norm is clipped to this."""


class FitSettings(Protocol):
    """What `minimise` reads of the settings."""

    epochs: int
    steps: int | None
    lr: float
    weight_decay: float
    batch_size: int
    annealing: bool


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
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps)) if settings.annealing else None
    least, best, since = torch.inf, None, 0
    for epoch in range(ceil(steps / per_epoch)):
        total, count = torch.zeros((), device=labels.device), min(per_epoch, steps - epoch * per_epoch)
        order = torch.multinomial(weights, count * settings.batch_size, replacement=True, generator=stream)
        for index in order.split(settings.batch_size):
            optimizer.zero_grad()
            value = loss(index)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimizer.step()
            total += value.detach()
            if schedule is not None:
                schedule.step()
        if not total.isfinite():
            raise FloatingPointError(f"the generator's loss is {float(total)} in epoch {epoch}; lower its lr")
        if held_out is not None:
            with torch.no_grad():
                now = float(loss(held_out))
            if now < least:
                least, best, since = now, copy.deepcopy(modules.state_dict()), 0
            else:
                since += 1
            if since == settings.tolerance:
                break
    if best is not None:
        modules.load_state_dict(best)
