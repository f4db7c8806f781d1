"""DGR: deep generative replay.

Shin et al., "Continual Learning with Deep Generative Replay", NeurIPS 2017 (arXiv 1705.08690); with distillation:
van de Ven and Tolias, "Generative replay with feedback connections", 2018 (arXiv 1809.10635).

After each task a variational autoencoder learns the task's images and those it generated itself. The next task is
trained on real and generated images; the labels of the latter are the classifier's predictions when the task began.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from datasets.data import Task, as_floats, mapped, stratified
from methods import Diagnostic, ImageGrid, Method, MethodConfig
from methods.mechanisms.distance import divergence
from methods.mechanisms.generated import PER_ROW, reconstructions
from methods.mechanisms.rehearsal import MEASURED
from models.learner import Learner
from models.vae import VAE
from utils.settings import configured, options_of

PER_IMAGE = 4  # generated images per real image of the task; with fewer the classifier overfits them
VAEConfig: Any = options_of(VAE)


class Config(MethodConfig):
    """How DGR labels and weighs generated images, and its generator."""

    distillation: bool = False
    """label generated images with the probabilities of all past classes, not with the most likely class"""
    temperature: float = Field(2.0, gt=0)
    """of these probabilities (distillation: yes); above 1 unlikely classes get more"""
    share: float | None = Field(None, ge=0, le=1)
    """weight of the current batch, that of the generated one being 1 - share; by default 1 / tasks seen"""
    replay: float = Field(1.0, ge=0)
    """factor on the generated batch's weight; 0 is naive"""
    fixed_replay: int | None = Field(None, ge=1)
    """images generated per task, when it begins, dropped when it ends; by default 4 per image of the task"""
    vae: VAEConfig = VAEConfig()
    """the generator of images"""


class DGR(Method):
    """Deep generative replay.

    In the task scenario a generated image is labelled by, and trains, every past head. In the class scenario the
    teacher chooses among the past classes, and the learner's softmax is over all columns, so that it learns to separate
    new classes from old ones; soft targets give new classes the probability 0 (van de Ven and Tolias 2018).

    *Deviations*: the generator is a variational autoencoder, not the paper's WGAN, as in van de Ven and Tolias; images
    are generated once per task, where their code generates new ones for each step.
    """

    title = "DGR"
    config: Config
    static = True
    works_on = "images"
    off: ClassVar = {"replay": 0.0}
    diagnosed: ClassVar = {
        "agreement": Diagnostic("generated images classified as before the task (share)"),
        "negative_elbo": Diagnostic("negative evidence lower bound of the task's images (nats per image)"),
    }

    def __init__(self, config: Config, learner: Learner, stream: torch.Generator) -> None:
        super().__init__(config, learner, stream)
        self.vae = configured(VAE, config.vae)(learner.encoder).to(stream.device)
        self.rehearsal: tuple[Tensor, list[Tensor]] | None = None  # images, teacher's logits (N, k) of each past head

    @torch.no_grad()
    def begin_task(self, task: Task) -> Task:
        if task.index > 0:
            x = self.vae.sample(self.config.fixed_replay or PER_IMAGE * len(task.train), self.stream)
            # answered now, so that no copy of the teacher has to be kept
            self.rehearsal = x, self.learner.past_logits(mapped(self.learner.embed, x), task.index)
        return task

    def loss(self, x: Tensor, y: Tensor, task: Task) -> dict[str, Tensor]:
        if self.rehearsal is None or self.config.replay == 0:
            return super().loss(x, y, task)
        x_old, answers = self.rehearsal
        index = torch.randint(len(x_old), (len(y),), device=y.device, generator=self.stream)
        z, z_old = self.learner.embed(torch.cat((x, self.augment(as_floats(x_old[index]))))).chunk(2)
        current, past = self.cross_entropy(z, y, task), []
        for head, answer in enumerate(answers):
            logits, target = self.learner.logits(z_old, head), answer[index]
            if self.config.distillation:
                past.append(divergence(logits, target, self.config.temperature).mean())
            else:
                past.append(F.cross_entropy(logits, target.argmax(dim=1)))
        share = 1 / (task.index + 1) if self.config.share is None else self.config.share
        replay = self.config.replay * (1 - share) * torch.stack(past).mean()
        return {"cross_entropy": share * current, "replay": replay}

    def end_task(self, task: Task) -> None:
        x_old, answers = self.rehearsal or (None, [])
        self.rehearsal = None
        self.vae.fit(task.train.x, x_old, self.stream)
        x, _ = task.train.batch(stratified(task.train.y, MEASURED))
        with torch.no_grad():
            reconstruction, kl = self.vae.negative_elbo(x, self.stream)
        self.measured = {"negative_elbo/reconstruction": float(reconstruction.mean())}
        self.measured["negative_elbo/divergence"] = float(kl.mean())
        if x_old is not None:
            now = self.learner.past_logits(mapped(self.learner.embed, x_old[:MEASURED]), task.index)
            pairs = zip(answers, now, strict=True)
            same = [(old[:MEASURED].argmax(dim=1) == new.argmax(dim=1)).float().mean() for old, new in pairs]
            self.measured["agreement"] = float(torch.stack(same).mean())

    def pictures(self, task: Task) -> dict[str, ImageGrid]:
        samples = [("", row) for row in as_floats(self.vae.sample(5 * PER_ROW, self.stream)).split(PER_ROW)]
        return {
            "samples": ImageGrid(f"Images generated after task {task.index}", samples),
            "reconstructions": reconstructions(task, lambda x, y: self.vae.reconstruct(x)),
        }
