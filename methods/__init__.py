"""Continual-learning methods, one file each; the file's name is the method's name in the YAML.

A method file defines one subclass of `Method`, and beside it a `Config(MethodConfig)` whose fields are the YAML's keys.
"""

import difflib
import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task
from models.fitting import Journal
from models.learner import Learner
from utils.settings import BadInput, Settings


class MethodConfig(Settings):
    """The keys of the YAML's `method` section that every method has."""

    name: str
    """which method: the name of a file in methods/"""
    plot: bool = True
    """draw figures into exp_<seed>/plots"""


class ImageGrid(NamedTuple):
    """Rows of images to be drawn: (label, images (N, C, H, W) in [0, 1])."""

    title: str
    rows: list[tuple[str, Tensor]]


class Method(nn.Module):
    """A continual-learning method: four hooks that the runner calls, each optional. As it stands, it is fine-tuning.

    All its memory is in parameters, buffers or extra state, so that `state_dict()` is the whole truth about it; only
    what `begin_task` makes and nothing changes before `end_task` may be a plain attribute, since a run that goes on in
    the middle of a task calls `begin_task` again. On the first task nothing of it may change what is learnt: there is
    no past yet.

    Args:
        config: the validated `method` section.
        learner: the classifier; not a part of the method's own state.
        stream: random numbers of its own. In `__init__`, `begin_task` and `end_task` torch's global generators are
            isolated as well, and the learner is in evaluation mode; in `loss` and `after_backward` draw from the stream
            only.

    Attributes:
        journal: for the fits of generators in `end_task`, so that an interrupted one goes on where it was.
        parts: terms of the last loss, without gradients, for the message when a loss is not finite.
    """

    off: ClassVar[dict[str, Any] | None] = {}
    """Options that switch the method off: with them it is fine-tuning, bit for bit. None where nothing can."""
    meaning: ClassVar[dict[str, str]] = {}
    """What the groups of `diagnostics` and `examine` are, with their unit: the labels of their plots."""
    healthy: ClassVar[dict[str, tuple[float, float]]] = {}
    """Group -> least and largest value that nobody need worry about; others get a line in the log."""

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__()
        self.config, self.stream, self.journal = config, stream, Journal()
        self.parts: dict[str, Tensor] = {}
        self.__dict__["learner"] = learner  # past nn.Module's registration: its weights are not ours to save

    def begin_task(self, task: Task) -> Task:
        """Called before the first step of a task; returns what to train on."""
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> Tensor:
        """The scalar to minimise for images x (B, C, H, W) in [0, 1] with global class ids y (B,)."""
        return self.current_loss(self.learner.embed(x), y, task)

    def current_loss(self, z: Tensor, y: Tensor, task: Task) -> Tensor:
        """Cross-entropy of the current batch's embeddings z (B, d)."""
        loss = F.cross_entropy(self.learner.logits(z, task.index), self.learner.columns(y, task.index))
        self.parts = {"cross-entropy": loss.detach()}
        return loss

    def after_backward(self) -> None:
        """Called between the backward pass and the optimizer's step: may edit or read gradients."""

    def end_task(self, task: Task) -> None:
        """Called after the last step of a task, with what was trained on: consolidate."""

    def diagnostics(self) -> dict[str, float]:
        """Numbers to log after each task, named `group` or `group/series`; a group is drawn as one plot over tasks."""
        return {}

    def examine(self, dev: Sequence[Split]) -> dict[str, float]:
        """More such numbers, measured on the held-out splits of the tasks so far, from which nothing may be learnt."""
        return {}

    def predict(self, x: Tensor, task: int) -> Tensor:
        """The global class ids (B,) of images x (B, C, H, W) in [0, 1], by the heads as they stand.

        In the class scenario the task plays no part.
        """
        return self.learner.predict(self.learner.embed(x), task)

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        """Image grids to draw after each task, by file name."""
        return {}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Buffers may grow from task to task: each takes the size that was saved."""
        for name, buffer in self.named_buffers(recurse=False):
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, saved.to(buffer.device, copy=True))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def stored_real_samples(self) -> int:
        """How many real samples of the past the method keeps."""
        return 0


def known() -> list[str]:
    """The names of all methods: the modules of this package. What they share is in its sub-package `mechanisms`."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def find(name: str) -> tuple[type[Method], type[MethodConfig]]:
    """The class and the configuration of the method `name`; imports its file and no other.

    Raises:
        BadInput: no such file; names the nearest.
    """
    name = name.lower()
    if name not in known():
        near = difflib.get_close_matches(name, known(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadInput(f"method.name: unknown method {name!r}; {hint}known: {', '.join(known())}")
    module = import_module(f"methods.{name}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise BadInput(f"methods/{name}.py must define exactly one subclass of Method, it has {len(own)}")
    return own[0], getattr(module, "Config", MethodConfig)
