"""PRER on features: pseudo-rehearsal of a frozen encoder's features with a normalizing flow.

Ours, after PRER (arXiv 2202.05694). The encoder's features are frozen (`model.frozen`), and after the first task
projected onto their leading principal directions. A flow on their coordinates learns each task's features and those it
generated itself; during the next task its samples train the layers above, projection and heads. No image is stored or
generated.

With `flow.conditioning.type: separate` and `predict: flow` there is a flow for each class, fitted once, and the largest
density says the class: nothing is generated for training, and nothing of a class changes after its task.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Task, mapped
from methods.mechanisms.prer_config import RehearsingConfig, build_flow
from methods.mechanisms.rehearsal import Rehearsing
from models.learner import Learner
from models.subspace import Subspace
from utils.settings import BadInput

MAX_FEATURES = 4000  # for the principal directions
Config = RehearsingConfig


class PRERFeatures(Rehearsing):
    """Pseudo-rehearsal of features; `flow.dimension` is the number of principal directions."""

    works_on = "features"

    title = "PRER on features"

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        (features,), dimension = learner.encoder.shape, config.flow.dimension
        if dimension > features:
            raise BadInput(f"method.flow: dimension {dimension} is more than the encoder's {features} features")
        self.subspace = Subspace(features, dimension)
        self.flow = build_flow(config.flow, dimension, len(learner.task_of))
        self.trains = config.predict == "head" or self.rehearses  # where the flow classifies, no layer is used
        self.to(stream.device)

    @property
    def layer(self) -> nn.Module:
        """What is trained on the features before the heads."""
        encoder = self.learner.encoder
        return encoder.projection if isinstance(encoder.features, nn.Identity) else encoder

    def embed(self, x: Tensor) -> Tensor:
        return self.layer(self.subspace(x))

    def codes(self, x: Tensor) -> Tensor:
        return self.subspace.codes(x)

    def generate(self, y: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.flow.sample(y, self.stream)
        return codes, codes

    def embed_generated(self, x: Tensor) -> Tensor:
        layer, subspace = self.layer, self.subspace
        if isinstance(layer, nn.Linear):  # both linear maps as one: features have many more dimensions than codes
            return F.linear(x, layer.weight @ subspace.basis.T, layer.bias + layer.weight @ subspace.mean)
        return layer(subspace.features(x))

    def begin_task(self, task: Task) -> Task:
        if task.index > 0 and self.rehearses:
            self.subspace.activate(self.layer)
        return super().begin_task(task)

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None:
            return super().loss(x, y, task) | self.l1(self.layer)
        old = self.rehearsal.draw(self.config.regularization.to_sample or len(y), self.stream)
        codes = self.flow.noisy(self.codes(x), self.stream)  # with the noise that the flow's samples have
        z, z_old = self.embed_generated(torch.cat((codes, old.x))).split((len(x), len(old.x)))
        return self.terms(z, y, z_old, old, task) | self.l1(self.layer)

    def end_task(self, task: Task) -> None:
        """Find the principal directions after the first task; fit the flow to the task's and the generated codes."""
        real, replayed = task.train, self.replayed(task) if self.flow.relearns else None
        self.rehearsal = None
        if self.flow.fits == 0:
            some = torch.randperm(len(real), device=real.y.device, generator=self.stream)[:MAX_FEATURES]
            self.subspace.find(real.x[some], balanced=isinstance(self.layer, nn.Linear))
        z, y = mapped(self.codes, real.x), real.y
        if replayed is not None:
            z, y = torch.cat((z, replayed[0])), torch.cat((y, replayed[1]))
        self.fit_flow(z, y, torch.arange(len(y), device=y.device) < len(real), task)
