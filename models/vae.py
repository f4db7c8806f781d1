"""A variational autoencoder of images, which makes up images like those of all tasks it was fitted on."""

import copy
from math import ceil

import torch
from pydantic import Field
from torch import Tensor, nn

from datasets.data import as_bytes, as_floats, chunks
from models.decoders import pixel_cross_entropy
from models.encoders import Encoder
from models.fitting import current_journal
from utils.settings import Settings


class VAESettings(Settings):
    """The variational autoencoder and its fit."""

    epochs: int = Field(15, ge=0)
    """after each task, as many batches as so many passes over the task's own images take"""
    latent: int = Field(100, ge=1)
    """size of the codes"""
    lr: float = Field(2e-3, gt=0)
    """Adam's learning rate"""
    batch_size: int = Field(64, ge=1)
    """images a step, the task's own and made-up ones together"""
    annealing: bool = True
    """let the learning rate fall to 0 along a cosine"""


class VAE(nn.Module):
    """Learns images without labels, and makes new ones; the same size however many tasks there were.

    Codes are standard normal before an image is seen, and normal with independent dimensions after; pixels are
    Bernoulli (Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B and C). The networks have
    the shapes of the classifier's encoder and of its mirror, and weights of their own.

    Args:
        encoder: whose shapes are taken.
        settings: the size of the codes, and how it is fitted.
    """

    def __init__(self, encoder: Encoder, settings: VAESettings) -> None:
        super().__init__()
        self.settings = settings
        self.features = _drawn_anew(encoder.features)
        self.mean = nn.Linear(encoder.feature_dim, settings.latent)
        self.log_variance = nn.Linear(encoder.feature_dim, settings.latent)
        self.decoder = encoder.mirror(settings.latent, encoder.image_shape)
        self.register_buffer("fits", torch.zeros((), dtype=torch.long))
        self.eval()

    def negative_elbo(self, x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Both terms for images x (B, C, H, W) in [0, 1], in nats an image.

        Returns:
            The reconstruction's cross-entropy (B,), summed over pixels, of one code drawn for each image; and the
            divergence (B,) of the codes' distribution from the standard normal.
        """
        features = self.features(x)
        mean, log_variance = self.mean(features), self.log_variance(features)
        noise = torch.randn(mean.shape, device=mean.device, generator=stream)
        pixels = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        reconstruction = pixel_cross_entropy(pixels, x).flatten(1).sum(dim=1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return reconstruction, divergence

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1], each encoded to its mean code and decoded."""
        return self.decoder(self.mean(self.features(x))).sigmoid()

    @torch.no_grad()
    def sample(self, n: int, stream: torch.Generator) -> Tensor:
        """Make n images, uint8 (n, C, H, W)."""
        device = self.fits.device
        codes = torch.randn(n, self.settings.latent, device=device, generator=stream)
        return torch.cat([as_bytes(self.decoder(chunk).sigmoid()) for chunk in chunks(codes)])

    def fit(self, real: Tensor, replayed: Tensor | None, stream: torch.Generator) -> None:
        """Learn the images `real` of a task, and keep those that `replayed` stand for, every task with the same weight.

        Args:
            real: the task's images, uint8 (N, C, H, W).
            replayed: images made up for all tasks before, uint8 (M, C, H, W); None on the first.
            stream: draws batches and noise.
        """
        settings, steps = self.settings, ceil(len(real) / self.settings.batch_size)
        weights = torch.full((len(real),), 1 / len(real), device=real.device)
        images = real
        if replayed is not None:
            past = torch.full((len(replayed),), int(self.fits) / len(replayed), device=real.device)
            images, weights = torch.cat((real, replayed)), torch.cat((weights, past))
        optimizer = torch.optim.Adam(self.parameters(), lr=settings.lr, fused=True)
        horizon = max(1, settings.epochs * steps)
        parts = {"networks": self, "optimizer": optimizer}
        if settings.annealing:
            parts["schedule"] = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, horizon)

        def one_epoch(_: int) -> None:
            order = torch.multinomial(weights, steps * settings.batch_size, replacement=True, generator=stream)
            for index in order.split(settings.batch_size):
                reconstruction, divergence = self.negative_elbo(as_floats(images[index]), stream)
                optimizer.zero_grad()
                (reconstruction + divergence).mean().backward()
                optimizer.step()
                if settings.annealing:
                    parts["schedule"].step()

        self.train()  # for encoders with batch normalisation
        current_journal().run(one_epoch, settings.epochs, parts, stream)
        self.eval()
        self.fits += 1


def _drawn_anew(module: nn.Module) -> nn.Module:
    """A copy with weights of its own, initialised as the layers initialise themselves."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module
