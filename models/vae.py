"""A variational autoencoder of images, the generator of DGR."""

import copy
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from datasets.data import as_bytes, as_floats, chunks
from models.autoencoder import pixel_cross_entropy
from models.encoders import Encoder, mlp
from models.fitting import Objective, configured_fit


class VAE(nn.Module):
    """Learns images without labels and generates new ones; its size does not depend on the number of tasks.

    The prior of the codes is standard normal, their posterior normal with independent dimensions; pixels are Bernoulli
    (Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B and C).

    Args:
        encoder: of the classifier; its shapes and those of its mirror are copied, if they are asked for; layers with a
            `reset_parameters` get new weights
        network: mlp: two hidden layers of 400 units in encoder and decoder; encoder: the shapes of the classifier's
            encoder
        steps: batches after each task
        epochs: instead of steps: passes over as many images as the task has
        latent: size of the codes
        lr: learning rate of Adam
        batch_size: images per step, the task's own and generated ones together
        annealing: let the learning rate fall to 0 along a cosine
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        network: Literal["mlp", "encoder"] = "mlp",
        steps: Annotated[int, Ge(1)] = 2000,
        epochs: Annotated[int, Ge(0)] | None = None,
        latent: Annotated[int, Ge(1)] = 100,
        lr: Annotated[float, Gt(0)] = 1e-3,
        batch_size: Annotated[int, Ge(1)] = 256,
        annealing: bool = True,
    ) -> None:
        super().__init__()
        if network == "mlp":
            with torch.random.fork_rng(devices=[]):  # weights are drawn below, whatever the shapes
                encoder = mlp.build(encoder.shape)
        self.latent = latent
        self._fit = configured_fit("VAE", steps, epochs, lr=lr, batch_size=batch_size, annealing=annealing)
        self.features = copy.deepcopy(encoder.features)
        for part in self.features.modules():
            getattr(part, "reset_parameters", lambda: None)()
        self.mean = nn.Linear(encoder.feature_dim, latent)
        self.log_variance = nn.Linear(encoder.feature_dim, latent)
        self.decoder = encoder.mirror(latent, encoder.shape)
        self.fits = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.eval()

    def negative_elbo(self, x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Both terms (B,) for images x (B, C, H, W) in [0, 1], in nats per image.

        The cross-entropy of the reconstruction from one code drawn per image, summed over pixels; and the divergence
        of the posterior from the prior.
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
        """Generate n images, uint8 (n, C, H, W)."""
        codes = torch.randn(n, self.latent, device=self.fits.device, generator=stream)
        return torch.cat([as_bytes(self.decoder(chunk).sigmoid()) for chunk in chunks(codes)])

    def fit(self, real: Tensor, replayed: Tensor | None, stream: torch.Generator) -> None:
        """Learn the images of a task and those generated for the tasks before, every task with the same weight.

        `real` is uint8 (N, C, H, W), `replayed` (M, C, H, W), None on the first task; `stream` draws batches and noise.
        """
        images, weights = real, torch.full((len(real),), 1 / len(real), device=real.device)
        if replayed is not None:
            past = torch.full((len(replayed),), int(self.fits) / len(replayed), device=real.device)
            images, weights = torch.cat((real, replayed)), torch.cat((weights, past))

        def loss(index: Tensor) -> Tensor:
            reconstruction, divergence = self.negative_elbo(as_floats(images[index]), stream)
            return (reconstruction + divergence).mean()

        self.train()  # for encoders with batch normalisation
        self._fit([Objective(self, loss)], weights, stream, len(real))
        self.eval()
        self.fits.add_(1)
