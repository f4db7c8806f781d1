"""Continual-learning methods: each file defines a subclass of `Method` and a `Config` with its options in the YAML."""

import sys
from math import inf
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, Task
from methods.mechanisms.memory import Memory
from models.augment import Augmentation
from models.learner import Learner, Scenario
from utils.settings import AnyCase, BadInput, Settings, modules
from utils.settings import find as find_module


class MethodConfig(Settings):
    """The keys of `method` that every method has."""

    name: str
    """which method: the name of a file in methods/"""
    plot: bool = True
    """draw figures into exp_<seed>/plots"""
    plot_format: Annotated[Literal["png", "pdf", "svg"], AnyCase] = "png"
    """file format of these figures; --compare shows generated samples of png only"""

    def in_scenario(self, scenario: Scenario) -> Self:
        """The options, with those set whose default depends on the scenario; here, none does."""
        return self


class Diagnostic(NamedTuple):
    """What a group of `Method.diagnostics` measures, with its unit, its expected range, and a remedy."""

    meaning: str
    low: float = -inf
    high: float = inf
    remedy: str = ""


class ImageGrid(NamedTuple):
    """Rows of images to be drawn: (label, images (N, C, H, W) in [0, 1])."""

    title: str
    rows: list[tuple[str, Tensor]]


class Method(nn.Module):
    """A continual-learning method: four hooks that the runner calls, each optional. Without them it is fine-tuning.

    All memory is in parameters, buffers or extra state, so that `state_dict()` is complete; only what `begin_task`
    creates and `end_task` drops may be a plain attribute, since a run that resumes inside a task calls `begin_task`
    again. On the first task a method must train exactly as fine-tuning does.

    Args:
        config: the validated `method` section.
        learner: the classifier; not part of the method's own state.
        stream: random numbers of its own. In `__init__`, `begin_task` and `end_task` torch's global generators are
            isolated as well, and the learner is in evaluation mode; in `loss` and `after_backward` draw from the stream
            only.
    """

    title: ClassVar[str] = ""
    """The name in tables, figures and reports; by default that of the YAML."""
    scenarios: ClassVar[tuple[Scenario, ...]] = get_args(Scenario)
    """Where it can be used; elsewhere it is refused."""
    static: bool = False
    """Whether `loss` and `after_backward` may be captured as a CUDA graph: see `models.captured.Captured`."""
    off: ClassVar[dict[str, Any] | None] = {}
    """Options that turn the method into fine-tuning, bit for bit. None if there are none."""
    works_on: ClassVar[Literal["all", "images", "features"]] = "all"
    """images: it cannot learn on features; features: it needs `model.frozen`, or data that are features."""
    trains: bool = True
    """No: no training step is done; the method learns in `end_task`."""
    advice: ClassVar[dict[Scenario, str]] = {}
    """What `--check` tells those who use it in a scenario."""
    augments_itself: bool = False
    """Whether `loss` gets batches as they are, to store them, and calls `augment` on what it trains on."""
    diagnosed: ClassVar[dict[str, Diagnostic]] = {}
    """Group of `diagnostics` -> its meaning (the label of its plot); values outside its range are logged."""

    def __init__(self, config: MethodConfig, learner: Learner, stream: torch.Generator) -> None:
        super().__init__()
        if learner.scenario not in self.scenarios:
            where = " or ".join(self.scenarios)
            raise BadInput(f"scenario.type: {config.name} works with {where} only, got {learner.scenario}")
        self.config, self.stream = config, stream
        self.measured: dict[str, float] = {}  # diagnostics, for `end_task` to set
        self.augmentation: Augmentation | None = None  # set by whoever builds the method
        self._learner = (learner,)  # in a tuple, so that it is no submodule: its weights are not the method's to save

    @property
    def learner(self) -> Learner:
        return self._learner[0]

    def augment(self, x: Tensor) -> Tensor:
        """Training images x (B, C, H, W), stored and generated ones too, with `train.augment`; the current batch of
        `loss` is augmented already."""
        return x if self.augmentation is None else self.augmentation(x)

    def begin_task(self, task: Task) -> Task:
        """Called before the first step of a task; returns what to train on."""
        return task

    def embed(self, x: Tensor) -> Tensor:
        """The embeddings (B, d) of images x (B, C, H, W) in [0, 1] that `loss` and `logits` use."""
        return self.learner.embed(x)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        """Name -> term () of the loss, already weighted, for images x (B, C, H, W) in [0, 1] of classes y (B,).

        A step minimises the sum of the terms; the mean of each is logged per epoch.
        """
        return {"cross_entropy": self.cross_entropy(self.embed(x), y, task)}

    def cross_entropy(self, z: Tensor, y: Tensor, task: Task) -> Tensor:
        """Mean cross-entropy () of the current batch: embeddings z (B, d), global class ids y (B,)."""
        return F.cross_entropy(self.learner.logits(z, task.index), self.learner.columns(y, task.index))

    def after_backward(self) -> None:
        """Called between the backward pass and the optimizer's step: may edit or read gradients."""

    def end_task(self, task: Task) -> None:
        """Called after the last step of a task, with the data it was trained on: consolidate."""

    def diagnostics(self, dev: list[Split]) -> dict[str, float]:
        """Numbers to log after each task, named `group` or `group/series`; each group is drawn as one plot over tasks.

        `dev` has the held-out splits of the tasks so far, for measuring, not for learning; empty if there are none.
        """
        return dict(self.measured)

    def logits(self, x: Tensor, task: int) -> Tensor:
        """Logits (B, k) of images x (B, C, H, W) in [0, 1] for the classes that the task may have.

        Their largest is the prediction, their softmax its probabilities. Columns are as in `Learner.class_logits`; the
        class scenario ignores `task`.
        """
        return self.learner.class_logits(self.embed(x), task)

    def predict(self, x: Tensor, task: int) -> Tensor:
        """The predicted global class ids (B,) of images x (B, C, H, W) in [0, 1]; the class scenario ignores `task`.

        A method that overrides this instead of `logits` has no probabilities, hence neither ECE nor AUROC.
        """
        return self.learner.class_of(self.logits(x, task), task)

    def score(self, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """How much images x (B, C, H, W) with these `logits` look like classes seen so far (B,), for AUROC.

        By default the largest softmax probability (Hendrycks and Gimpel, ICLR 2017).
        """
        return logits.double().softmax(dim=1).amax(dim=1)  # in single precision many would be exactly 1

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
        """The number of real samples of the past that the method keeps."""
        return sum(len(part) for part in self.children() if isinstance(part, Memory))


def known() -> list[str]:
    """The names of all methods: the modules of this package."""
    return modules(sys.modules[__name__])


def find(name: str) -> tuple[type[Method], type[MethodConfig]]:
    """The class and the configuration of the method `name`, whose file is imported; BadInput if there is none."""
    module = find_module(sys.modules[__name__], name)
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Method)]
    own = [value for value in classes if value.__module__ == module.__name__]
    if len(own) != 1:
        raise BadInput(f"methods/{name}.py must define exactly one subclass of Method, it has {len(own)}")
    return own[0], getattr(module, "Config", MethodConfig)
