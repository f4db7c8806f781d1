"""A conditional generative adversarial network of embeddings, which makes up embeddings of the classes it has seen."""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from flows.transforms import Standardize
from models.fitting import current_journal
from utils.settings import Settings


class FeatureGANSettings(Settings):
    """The generative adversarial network on embeddings and its fit."""

    epochs: int = Field(20, ge=0)
    """after each task, as many steps of the critic as so many passes over the task's own images take"""
    latent: int = Field(100, ge=1)
    """size of the noise that an embedding is made of"""
    hidden_size: int = Field(256, ge=1)
    """units of each of the two hidden layers, of generator and critic"""
    lr: float = Field(2e-3, gt=0)
    """Adam's learning rate"""
    batch_size: int = Field(128, ge=1)
    """embeddings a step, the task's own and made-up ones together"""
    critic_steps: int = Field(5, ge=1)
    """steps of the critic for one of the generator"""
    penalty: float = Field(10.0, ge=0)
    """weight of the critic's gradient penalty"""


class Features(NamedTuple):
    """Embeddings z (N, d) and their global class ids y (N,)."""

    z: Tensor
    y: Tensor


class FeatureGAN(nn.Module):
    """Learns embeddings class by class, and makes new ones; the same size however many tasks there were.

    A Wasserstein GAN with gradient penalty (Gulrajani et al., NeurIPS 2017, equation 3); generator and critic are told
    the class. Inside, features have mean 0 and deviation 1.

    Args:
        dimension: d, the size of the embeddings.
        classes: K, the number of all classes there will be.
        settings: sizes, and how it is fitted.
    """

    def __init__(self, dimension: int, classes: int, settings: FeatureGANSettings) -> None:
        super().__init__()
        self.classes, self.settings = classes, settings
        self.generator = _network(settings.latent + classes, settings.hidden_size, dimension)
        self.critic = _network(dimension + classes, settings.hidden_size, 1)
        self.standardize = Standardize(dimension)

    @torch.no_grad()
    def sample(self, n: int, classes: Sequence[int], stream: torch.Generator) -> Features:
        """Make n embeddings, the classes taking turns."""
        device = self.standardize.mean.device
        y = torch.tensor(tuple(classes), device=device)[torch.arange(n, device=device) % len(classes)]
        return Features(self.standardize.inverse(self._make(y, stream))[0], y)

    def fit(self, real: Features, replayed: Features | None, stream: torch.Generator) -> None:
        """Learn the embeddings of a task, and keep those made up for the classes before, every class the same weight.

        Args:
            real: of the task's images.
            replayed: made up before; None on the first task.
            stream: draws batches and noise.
        """
        settings = self.settings
        pool = real if replayed is None else Features(*(torch.cat(both) for both in zip(real, replayed, strict=True)))
        z = self.standardize.initialize(pool.z)
        weights = 1.0 / pool.y.bincount().clamp(min=1)[pool.y]
        count = ceil(len(real.y) / settings.batch_size) * settings.batch_size
        turn = settings.critic_steps * settings.batch_size  # embeddings that the critic sees before the generator moves
        generator_optimizer, critic_optimizer = (
            torch.optim.Adam(part.parameters(), lr=settings.lr, betas=(0.5, 0.9), fused=True)
            for part in (self.generator, self.critic)
        )

        def one_epoch(_: int) -> None:
            order = torch.multinomial(weights, count, replacement=True, generator=stream)
            for indices in order.split(turn):
                for index in indices.split(settings.batch_size):
                    critic_optimizer.zero_grad()
                    self._critic_loss(z[index], pool.y[index], stream).backward()
                    critic_optimizer.step()
                generator_optimizer.zero_grad()
                y = pool.y[index]
                (-self._judge(self._make(y, stream), y).mean()).backward()
                generator_optimizer.step()

        parts = {"networks": self, "generator_optimizer": generator_optimizer, "critic_optimizer": critic_optimizer}
        current_journal().run(one_epoch, settings.epochs, parts, stream)

    def _critic_loss(self, z: Tensor, y: Tensor, stream: torch.Generator) -> Tensor:
        """The critic's loss () on standardized embeddings z (B, d) of classes y (B,), and as many made-up ones."""
        with torch.no_grad():
            made = self._make(y, stream)
        between = torch.rand(len(z), 1, device=z.device, generator=stream)
        mixed = (between * z + (1 - between) * made).requires_grad_()
        (slope,) = torch.autograd.grad(self._judge(mixed, y).sum(), mixed, create_graph=True)
        penalty = (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
        return self._judge(made, y).mean() - self._judge(z, y).mean() + self.settings.penalty * penalty

    def _make(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """Standardized embeddings (B, d) for classes y (B,)."""
        noise = torch.randn(len(y), self.settings.latent, device=y.device, generator=stream)
        return self.generator(torch.cat((noise, F.one_hot(y, self.classes)), dim=1))

    def _judge(self, z: Tensor, y: Tensor) -> Tensor:
        """The critic's scores (B,) of standardized embeddings z (B, d) of classes y (B,); higher for real ones."""
        return self.critic(torch.cat((z, F.one_hot(y, self.classes)), dim=1))[:, 0]


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LeakyReLU(0.2),
        nn.Linear(hidden, hidden),
        nn.LeakyReLU(0.2),
        nn.Linear(hidden, outputs),
    )
