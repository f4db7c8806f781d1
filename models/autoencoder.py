"""The decoder of PRER and the projection to the codes that it decodes, learned by reconstruction."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, as_bytes, chunks
from models.code_flow import Condition
from models.fitting import MAX_NORM, Objective, class_weights, fit, length


class Autoencoder(nn.Module):
    """Features of an encoder (B, F) -> codes (B, d) -> images (B, C, H, W); the encoder itself is not part of it.

    Args:
        projection: features to codes
        decoder: builds a new one: (B, d + size of the condition) -> logits of pixels (B, C, H, W)
        steps: batches after each task
        epochs: instead of steps: passes over the task's data and the generated data
        lr: learning rate of Adam
        batch_size: images per step
        weight_decay: L2 penalty of Adam
        annealing: let the learning rate fall to 0 along a cosine
        reset: begin each fit with a new decoder, not with that of the last task
        rec_loss: reconstruction loss: squared error, binary cross-entropy, or Gaussian likelihood with a learned
            standard deviation
    """

    def __init__(
        self,
        projection: nn.Module,
        condition: Condition,
        decoder: Callable[[], nn.Module],
        *,
        steps: Annotated[int, Ge(1)] | None = 500,
        epochs: Annotated[int, Ge(0)] | None = None,
        lr: Annotated[float, Gt(0)] = 1e-3,
        batch_size: Annotated[int, Ge(1)] = 128,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
        annealing: bool = True,
        reset: bool = False,
        rec_loss: Literal["mse", "bce", "gaussian"] = "bce",
    ) -> None:
        super().__init__()
        self.projection, self.condition, self._build, self.reset = projection, condition, decoder, reset
        self.reconstruction = RECONSTRUCTION_LOSSES[rec_loss]
        adam: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "annealing": annealing, "max_norm": MAX_NORM}
        self._fit: Callable[..., None] = partial(
            fit, name="decoder", **length(steps, epochs), batch_size=batch_size, **adam
        )
        self.decoder = decoder()
        self.log_deviation = nn.Parameter(torch.zeros(()))  # of rec_loss: gaussian
        self.fits = nn.Buffer(torch.zeros((), dtype=torch.long))

    def decode(self, codes: Tensor, y: Tensor) -> Tensor:
        """Codes (B, d) and class ids (B,) -> logits of pixels (B, C, H, W)."""
        return self.decoder(torch.cat((codes, self.condition(y)), dim=1))

    @torch.no_grad()
    def images(self, codes: Tensor, y: Tensor) -> Tensor:
        """Codes (N, d) and class ids (N,) -> images, uint8 (N, C, H, W)."""
        parts = zip(chunks(codes), chunks(y), strict=True)
        return torch.cat([as_bytes(self.decode(*part).sigmoid()) for part in parts])

    def fit(self, features: Tensor, pool: Split, stream: torch.Generator) -> None:
        """Learn to reconstruct the images of the pool from their features (N, F), every class with the same weight."""
        if self.fits > 0 and self.reset:
            self.decoder = self._build().to(features.device)

        def loss(index: Tensor) -> Tensor:
            x, y = pool.batch(index)
            return self.reconstruction(self.decode(self.projection(features[index]), y), x, self.log_deviation)

        parts = [self.projection, self.decoder, self.condition, nn.ParameterList([self.log_deviation])]
        self._fit([Objective(nn.ModuleList(parts), loss)], class_weights(pool.y), stream)
        self.fits.add_(1)


def pixel_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel: logits and pixels x in [0, 1], both (B, C, H, W) -> the same shape.

    log(1 + e^-|l|) is computed as -log sigmoid(|l|), twice as fast on CPU (bench/choices.py).
    """
    return logits.relu() - x * logits - logits.abs().sigmoid().log()


def gaussian_loss(logits: Tensor, x: Tensor, log_deviation: Tensor) -> Tensor:
    """Gaussian negative log-likelihood with one learned deviation, softly bounded below by e^-6.

    Rybkin, Daniilidis and Levine, "Simple and effective VAE training with calibrated decoders", ICML 2021, section 3.
    """
    log_deviation = -6 + F.softplus(log_deviation + 6)
    error = ((logits.sigmoid() - x) / log_deviation.exp()).square()
    return (0.5 * error + log_deviation).mean()


RECONSTRUCTION_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": lambda logits, x, _: (logits.sigmoid() - x).square().mean(),
    "bce": lambda logits, x, _: pixel_cross_entropy(logits, x).mean(),
    "gaussian": gaussian_loss,
}
"""`rec_loss` -> loss(logits of pixels (B, C, H, W), images (B, C, H, W), log-deviation ()), mean over pixels."""
