"""PackNet: each task owns some of the encoder's weights, which later tasks use and do not change.

Mallya and Lazebnik, "PackNet: adding multiple tasks to a single network by iterative pruning", CVPR 2018
(arXiv 1711.05769), section 3.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from datasets.data import Task
from methods import Diagnostic, Method, MethodConfig
from methods.mechanisms.gradients import flat_parameters
from models.fitting import Objective, fit
from models.learner import Learner
from utils.settings import BadInput, Settings

FREE = 255  # owner of weights that no task has yet; these are 0


class RetrainingConfig(Settings):
    """The training of what is left after pruning."""

    epochs: int = Field(10, ge=0)
    """passes over the task's images"""
    lr: float = Field(1e-3, gt=0)
    """learning rate of Adam"""
    batch_size: int = Field(64, ge=1)
    """images per step"""


class Config(MethodConfig):
    """The pruning of PackNet."""

    prune: float = Field(0.5, ge=0, lt=1)
    """share of a task's weights, in each layer, that is given to later tasks when it ends: the smallest ones"""
    retraining: RetrainingConfig = RetrainingConfig()
    """of the weights that the task keeps"""


class PackNet(Method):
    """A task trains all weights that no task owns; when it ends it gives up the smallest, and retrains the others.

    A prediction uses the weights of its task and of those before: outputs of old tasks do not change by a bit. Biases
    and normalisation belong to the first task, and each head to its own.

    *Deviation* from the paper: retraining is without dropout, at a constant learning rate.
    """

    title = "PackNet"
    scenarios = ("task",)
    config: Config
    static = True
    off: ClassVar = None
    diagnosed: ClassVar = {"free": Diagnostic("weights of the encoder that no task owns (share)")}

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        if len(learner.groups) > FREE:
            raise BadInput(f"method.name: packnet takes at most {FREE} tasks, got {len(learner.groups)}")
        if not list(learner.encoder.parameters()):
            raise BadInput("method.name: packnet needs an encoder with weights; set model.embedding")
        owner = torch.zeros_like(flat_parameters(learner.encoder), dtype=torch.uint8)
        self.owner: Tensor = nn.Buffer(owner)  # (P,), in the order of `parameters()`: the task that a weight is of
        self.frozen: tuple[Tensor, Tensor] | None = None  # during a task: weights (P,), and which are earlier tasks'

    def weights(self, task: int) -> dict[str, Tensor]:
        """The encoder's parameters by name, as the task of index `task` uses them; gradients reach its own."""
        encoder = self.learner.encoder
        flat = parameters_to_vector(encoder.parameters())
        if self.frozen is not None:  # an optimizer with momentum or decay moves them
            flat = torch.where(self.frozen[1], self.frozen[0], flat)
        flat = torch.where(self.owner <= task, flat, 0.0)
        named = list(encoder.named_parameters())
        parts = flat.split([p.numel() for _, p in named])
        return {name: part.view_as(p) for (name, p), part in zip(named, parts, strict=True)}

    def embed_for(self, x: Tensor, task: int) -> Tensor:
        """Embeddings (B, d) of images x (B, C, H, W) under the weights of the task of index `task`."""
        return functional_call(self.learner.encoder, self.weights(task), x)

    def begin_task(self, task: Task) -> Task:
        if task.index > 0:
            self.owner[self.owner == FREE] = task.index
            self.frozen = flat_parameters(self.learner.encoder), self.owner < task.index
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if task.index == 0:
            return super().loss(x, y, task)
        for part in self.learner.encoder.modules():
            if isinstance(part, _BatchNorm):
                part.eval()  # its statistics are the first task's
        return {"cross_entropy": self.cross_entropy(self.embed_for(x, task.index), y, task)}

    def end_task(self, task: Task) -> None:
        encoder = self.learner.encoder
        self._prune(task.index)
        self._retrain(task)
        with torch.no_grad():
            vector_to_parameters(parameters_to_vector(self.weights(task.index).values()), encoder.parameters())
        self.frozen = None
        self.measured = {"free": float((self.owner == FREE).float().mean())}

    def _prune(self, task: int) -> None:
        """Free the smallest of the task's weights in each layer."""
        weights, sizes = self.weights(task).values(), [p.numel() for p in self.learner.encoder.parameters()]
        for weight, owner in zip(weights, self.owner.split(sizes), strict=True):
            own = (owner == task).nonzero()[:, 0]
            if weight.dim() > 1:
                smallest = weight.detach().flatten()[own].abs().argsort(stable=True)
                owner[own[smallest[: int(self.config.prune * len(own))]]] = FREE

    def _retrain(self, task: Task) -> None:
        options: dict[str, Any] = {"name": "retraining", **self.config.retraining.model_dump()}
        trained = nn.ModuleList([self.learner.encoder, self.learner.heads[task.index]])

        def loss(index: Tensor) -> Tensor:
            x, y = task.train.batch(index)
            return self.cross_entropy(self.embed_for(x, task.index), y, task)

        fit([Objective(trained, loss)], torch.ones_like(task.train.y, dtype=torch.float), self.stream, **options)

    def logits(self, x: Tensor, task: int) -> Tensor:
        return self.learner.class_logits(self.embed_for(x, task), task)
