"""The steps of one task, resumable after any of them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Any

import torch
from torch import Tensor

from datasets.data import Split, Task
from methods import Method
from models.captured import Captured
from utils.config.schema import TrainConfig
from utils.run.build import SCHEDULES
from utils.run.evaluation import accuracy
from utils.store.log import EPOCH, bar, log

STEPS_BETWEEN_CHECKS = 100
"""Of losses on CUDA, where reading one waits for the device; on CPU every step is checked."""


class TrainingFailed(Exception):
    """A seed cannot continue; the message says where and why."""


def train_step(method: Method, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
    """One step on samples x, images (B, C, H, W) in [0, 1] or features (B, F), with labels y (B,).

    Returns:
        `loss` (), the sum of the method's terms, and each term as `loss/<name>` (), detached and still on the device.
    """
    optimizer.zero_grad()
    terms = method.loss(x if method.augments_itself else method.augment(x), y, task)
    if not isinstance(terms, dict) or not terms:
        expected = "a dict of at least one tensor by its name"
        raise TypeError(f"{type(method).__name__}.loss must return {expected}; it returned {type(terms).__name__}")
    loss = reduce(torch.add, terms.values())
    loss.backward()
    method.after_backward()
    optimizer.step()
    return {"loss": loss.detach(), **{f"loss/{name}": term.detach() for name, term in terms.items()}}


@dataclass(eq=False)
class Training:
    """The steps of one task on the learner of `method`, whose parameters are those of `optimizer`."""

    config: TrainConfig
    method: Method
    optimizer: torch.optim.Optimizer
    task: Task
    watched: Split
    """accuracy is measured on it after each epoch"""
    order: torch.Generator
    """draws the order of the images"""
    measure: Callable[[], list[float]] | None = None
    """the accuracies recorded every `evaluate_every` steps; None: none are"""
    steps_before: int = 0
    """of the tasks before"""
    name: str = ""
    """of these steps, in messages; by default the task's"""

    def __post_init__(self) -> None:
        self.name = self.name or f"task {self.task.index}"
        self.per_epoch = ceil(len(self.task.train) / self.config.batch_size)
        self.steps = (self.config.steps or self.config.epochs * self.per_epoch) * self.method.trains
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr  # the last task's schedule may have lowered it
        self.schedule = SCHEDULES[self.config.schedule](self.optimizer, max(self.steps, 1))
        self.last: dict[str, Tensor] = {}  # of the last step: the loss and its terms
        self.epoch = self.step = 0  # epochs done, steps done in this one
        self.totals: dict[str, Tensor] = {}  # sums over this epoch of the loss and its terms, in place
        self.order_state: Tensor | None = None  # of `order` at the start of this epoch
        self.history: list[dict[str, float]] = []
        self.anytime: list[dict[str, Any]] = []  # what was measured every `evaluate_every` steps
        self.best: dict[str, Any] = {"accuracy": -1.0}  # of the epochs so far, with the states of learner and method

    def state_dict(self) -> dict[str, Any]:
        """The position in the task, without learner, method, optimizer and streams; tensors are not copied."""
        names = ("epoch", "step", "totals", "order_state", "history", "anytime", "best")
        return {"schedule": self.schedule.state_dict(), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where `state_dict` was taken."""
        self.schedule.load_state_dict(state["schedule"])
        for name in state.keys() - {"schedule"}:
            setattr(self, name, copy.deepcopy(state[name]))
        if self.step:  # draw the order of the epoch again; its first steps are skipped
            self.order.set_state(state["order_state"].cpu())

    def run(self, after_step: Callable[[bool], None]) -> list[dict[str, float]]:
        """Do the remaining steps; returns each epoch's mean loss and terms, and accuracy on the watched split.

        Args:
            after_step: called after every step, with whether it was the last of an epoch; may ask for `state_dict`.

        Raises:
            TrainingFailed: a loss, a gradient or a weight is not finite.
        """
        epochs = ceil(self.steps / self.per_epoch)
        self.method.learner.train()
        size, device = self.config.batch_size, self.task.train.y.device
        why_not = None if self.method.static else f"the step of {self.method.config.name} is not static"
        drawn = [self.method.augmentation.stream] if self.method.augmentation else []
        step = Captured(self._step, self.optimizer, size, self.method.stream, why_not, also=drawn)
        with bar(epochs, self.name, 2, "epoch", done=self.epoch) as progress:
            while self.epoch < epochs:
                count = min(self.per_epoch, self.steps - self.epoch * self.per_epoch)
                self.order_state = self.order.get_state()
                order = torch.randperm(len(self.task.train), generator=self.order, device=device)
                for index in order.split(size)[self.step : count]:
                    self.last = step(index)
                    self.schedule.step()
                    self.step += 1
                    if self.step == count or device.type == "cpu" or self.step % STEPS_BETWEEN_CHECKS == 0:
                        self._check(self.totals["loss"])
                    self._measure_if_due()
                    after_step(self.step == count)
                self._end_epoch(count, progress)
        self.check_weights()
        if "learner" in self.best:  # the method too: SI's path ends where the weights do
            self.method.learner.load_state_dict(self.best["learner"])
            self.method.load_state_dict(self.best["method"])
        return self.history

    def _step(self, index: Tensor) -> dict[str, Tensor]:
        """On the images at `index` (B,); everything that a CUDA graph repeats."""
        terms = train_step(self.method, self.optimizer, *self.task.train.batch(index), self.task)
        for name, value in terms.items():
            self.totals.setdefault(name, torch.zeros_like(value)).add_(value)
        return terms

    def _measure_if_due(self) -> None:
        done, every = self.epoch * self.per_epoch + self.step, self.config.evaluate_every
        if every and self.measure and done % every == 0:
            self.anytime.append({"step": self.steps_before + done, "accuracy": self.measure()})

    def _end_epoch(self, count: int, progress: Any) -> None:
        totals = torch.stack(list(self.totals.values())).tolist()
        means = {name: total / count for name, total in zip(self.totals, totals, strict=True)}
        loss, reached = means["loss"], accuracy(self.method, self.watched, self.task.index)
        self.history.append({**means, "accuracy": reached})
        progress.set_postfix_str(f"loss {loss:.4f}, accuracy {reached:.4f}")
        progress.update()
        log.log(EPOCH, "%s epoch %d: loss %.4f, accuracy %.4f", self.name, self.epoch, loss, reached)
        if self.config.selection == "dev" and reached > self.best["accuracy"]:
            parts = {"learner": self.method.learner.state_dict(), "method": self.method.state_dict()}
            self.best = {"accuracy": reached, **copy.deepcopy(parts)}
        self.epoch, self.step = self.epoch + 1, 0
        for total in self.totals.values():
            total.zero_()

    def check_weights(self) -> None:
        """Raise TrainingFailed if a weight is not finite."""
        self._check(torch.stack([p.detach().sum() for p in self.method.learner.parameters()]).sum())

    def _check(self, total: Tensor) -> None:
        """Raise TrainingFailed if a sum () is not finite, naming the last step's terms and the first bad tensor."""
        if total.isfinite():
            return
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in self.last.items())
        named = dict(self.method.learner.named_parameters())
        tensors = named | {f"the gradient of {name}": p.grad for name, p in named.items() if p.grad is not None}
        broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        first = f"the first tensor that is not finite is {broken[0]}" if broken else "all weights are finite"
        raise TrainingFailed(
            f"{self.name}, epoch {self.epoch}, step {self.step}: the loss or a weight is not finite "
            f"(last step: {terms}); {first}. Lower train.lr or the method's weights, and start again with --restart"
        )
