"""BI-R: brain-inspired replay.

van de Ven, Siegelmann and Tolias, "Brain-inspired replay for continual learning with artificial neural networks",
Nature Communications 2020.

After each task a variational autoencoder learns the task's samples and those it generated itself. It generates samples
of given classes, each context having units of its own in the decoder. On the features of a frozen encoder this is
internal replay; on images, whole images are replayed. Generated samples are labelled with the probabilities that the
classifier gave them when the task began.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from datasets.data import Task, as_floats, mapped, stratified
from methods import Diagnostic, ImageGrid, Method, MethodConfig
from methods.mechanisms.distance import divergence
from methods.mechanisms.generated import PER_ROW, cycle_labels, past_labels
from methods.mechanisms.rehearsal import MEASURED
from models.gated_vae import GatedVAE
from models.learner import Learner
from utils.settings import configured, options_of

PER_SAMPLE = 4  # generated samples per real one of the task, as in `dgr`
VAEConfig: Any = options_of(GatedVAE)


class Config(MethodConfig):
    """How BI-R labels and weighs generated samples, and its generator."""

    temperature: float = Field(2.0, gt=0)
    """of the probabilities that generated samples are labelled with; above 1 unlikely classes get more"""
    replay: float = Field(1.0, ge=0)
    """factor on the weight of the generated batch, which is 1 - 1 / tasks seen; the current batch's is 1 / tasks seen.
    0 is naive"""
    fixed_replay: int | None = Field(None, ge=1)
    """samples generated per task, when it begins, dropped when it ends; by default 4 per sample of the task"""
    vae: VAEConfig = VAEConfig()
    """the generator of samples"""


class BIR(Method):
    """Brain-inspired replay.

    The decoder's context is the task in the task scenario, and the class in the others. In the class scenario the
    softmax of generated samples is over all columns, new classes having the probability 0, as in `dgr`.

    *Deviations* from the authors' code: the generator is a network of its own that is fitted after each task, and not
    the classifier with feedback connections, trained with it; a generated sample belongs to the prior and gates of the
    class that it was asked for, not to those of the classifier's probabilities; the context is as above, and
    theirs the class (task scenario) or the task (domain scenario); samples are generated once per task, theirs
    for each step.
    """

    title = "Brain-Inspired Replay"
    config: Config
    static = True
    off: ClassVar = {"replay": 0.0}
    diagnosed: ClassVar = {
        "agreement": Diagnostic("generated samples classified as their class (share)"),
        "negative_elbo": Diagnostic("negative evidence lower bound of the task's samples (nats per sample)"),
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        context_of = learner.task_of if learner.scenario == "task" else torch.arange(len(learner.task_of))
        self.vae = configured(GatedVAE, config.vae)(learner.encoder.shape, context_of.cpu()).to(stream.device)
        self.rehearsal: tuple[Tensor, Tensor, Tensor] | None = None  # samples, their classes (N,), answers (N, k)

    def begin_task(self, task: Task) -> Task:
        if task.index > 0 and self.config.replay:
            self.rehearsal = self._generated(task)
        return task

    @torch.no_grad()
    def _generated(self, task: Task) -> tuple[Tensor, Tensor, Tensor]:
        learner = self.learner
        y = past_labels(learner, task, self.config.fixed_replay or PER_SAMPLE * len(task.train), self.stream.device)
        x = self.vae.sample(y, self.stream)
        z = mapped(learner.embed, x)
        return x, y, learner.mixed_logits(z, y) if learner.scenario == "task" else learner.past_logits(z, task.index)[0]

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None:
            return super().loss(x, y, task)
        index = torch.randint(len(self.rehearsal[1]), (len(y),), device=y.device, generator=self.stream)
        x_old, y_old, answers = (part[index] for part in self.rehearsal)
        z, z_old = self.learner.embed(torch.cat((x, self.augment(as_floats(x_old))))).chunk(2)
        replay = divergence(self.learner.mixed_logits(z_old, y_old), answers, self.config.temperature).mean()
        share = 1 / (task.index + 1)
        current = self.cross_entropy(z, y, task)
        return {"cross_entropy": share * current, "replay": self.config.replay * (1 - share) * replay}

    def end_task(self, task: Task) -> None:
        (x, y), real = (task.train.x, task.train.y), len(task.train)
        if task.index > 0:
            x_old, y_old, _ = self.rehearsal or self._generated(task)
            x, y = torch.cat((x, x_old)), torch.cat((y, y_old))
        self.rehearsal = None
        self.vae.fit(x, y, real, self.stream)
        some = task.train.take(stratified(task.train.y, MEASURED))
        asked = cycle_labels(self.learner.classes_before(task.index + 1), MEASURED, self.stream.device)
        with torch.no_grad():
            error, far = self.vae.negative_elbo(self.vae.prepared(some.x), some.y, self.stream)
            z = mapped(self.learner.embed, self.vae.sample(asked, self.stream))
            agreement = (self.learner.predict_mixed(z, asked) == asked).float().mean()
        self.measured = {"negative_elbo/reconstruction": float(error.mean())}
        self.measured |= {"negative_elbo/divergence": float(far.mean()), "agreement": float(agreement)}

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        if len(self.learner.encoder.shape) == 1:
            return {}
        seen = self.learner.classes_before(task.index + 1)
        asked = torch.tensor(seen, device=self.stream.device).repeat_interleave(PER_ROW)
        rows = as_floats(self.vae.sample(asked, self.stream)).split(PER_ROW)
        labels = [f"class {c}" for c in seen]
        return {"samples": ImageGrid(f"Images generated after task {task.index}", list(zip(labels, rows, strict=True)))}
