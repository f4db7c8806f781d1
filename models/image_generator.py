"""PRER's generator of images: a decoder, and a conditional flow on its codes."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, as_bytes, as_floats, chunks, concatenate, mapped
from models.code_flow import CodeFlow, Condition, ConditioningSettings, FlowSettings
from models.decoders import pixel_cross_entropy
from models.encoders import Encoder
from models.fitting import minimise
from models.generator import Generator, Made
from utils.settings import AnyCase, Settings


class AutoencoderSettings(Settings):
    """The decoder, and the projection of the encoder's features to the codes that the flow models."""

    epochs: int = Field(10, ge=0)
    """passes over the task's data and the generated data, after each task"""
    steps: int | None = Field(None, ge=1)
    """batches after each task, instead of epochs"""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate"""
    batch_size: int = Field(128, ge=1)
    """images a step"""
    weight_decay: float = Field(0.0, ge=0)
    """Adam's L2 penalty"""
    annealing: bool = True
    """let the learning rate fall to 0 along a cosine"""
    reset: bool = False
    """begin each fit with a new decoder, not with that of the last task"""
    rec_loss: Annotated[Literal["mse", "bce", "gaussian"], AnyCase] = "bce"
    """reconstruction loss: squared error, binary cross-entropy, or Gaussian likelihood with a learned deviation"""
    conditioning: ConditioningSettings = ConditioningSettings()
    """what the decoder is told of the class"""


class ImageGenerator(Generator):
    """Learns the images of the classes seen so far, and makes new ones, uint8 (N, C, H, W).

    A code of an image is a projection of the encoder's features, fitted together with the decoder; or, with
    `code="embedding"`, the encoder's embedding itself.

    Args:
        encoder: whose features or embeddings are modelled.
        classes: K, the number of all classes there will be.
        code: what an image's code is.
        autoencoder, flow: settings of the parts.

    Raises:
        ValueError: the codes have too few dimensions for the flow's levels.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        code: Literal["projection", "embedding"],
        autoencoder: AutoencoderSettings,
        flow: FlowSettings,
    ) -> None:
        super().__init__(encoder)
        self.settings = autoencoder
        self.projection = nn.Linear(encoder.feature_dim, flow.dimension) if code == "projection" else None
        dimension = encoder.embedding_dim if self.projection is None else flow.dimension
        self.condition = Condition(autoencoder.conditioning, classes)
        self.decoder = self._new_decoder(dimension)
        self.log_deviation = nn.Parameter(torch.zeros(()))  # of rec_loss: gaussian
        self.flow = CodeFlow(dimension, classes, flow)

    def _new_decoder(self, dimension: int) -> nn.Module:
        return self.encoder.mirror(dimension + self.condition.size, self.encoder.image_shape)

    @torch.no_grad()
    def read(self, x: Tensor) -> Tensor:
        """What the encoder says of images (B, C, H, W) in [0, 1]: features to be projected, or the codes themselves."""
        features = self.encoder.features(x)
        return self.encoder.projection(features) if self.projection is None else features

    def project(self, read: Tensor) -> Tensor:
        """What was read of images (B, ...) -> their codes (B, dimension)."""
        return read if self.projection is None else self.projection(read)

    def codes(self, x: Tensor) -> Tensor:
        return self.project(self.read(x))

    def codes_of(self, made: Tensor) -> Tensor:
        return self.codes(as_floats(made))

    def inputs(self, made: Tensor) -> Tensor:
        return as_floats(made)

    def real_inputs(self, x: Tensor, stream: torch.Generator) -> Tensor:
        return x

    def embed(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs)

    def decode(self, codes: Tensor, y: Tensor) -> Tensor:
        """Codes (B, dimension) and class ids (B,) -> logits of pixels (B, C, H, W)."""
        condition = self.condition(y)
        return self.decoder(codes if condition is None else torch.cat((codes, condition), dim=1))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of classes y (B,), encoded and decoded."""
        return self.decode(self.codes(x), y).sigmoid()

    @torch.no_grad()
    def sample(self, y: Tensor, stream: torch.Generator) -> Made:
        codes = self.flow.sample(y, stream)
        parts = zip(chunks(codes), chunks(y), strict=True)
        return Made(torch.cat([as_bytes(self.decode(*part).sigmoid()) for part in parts]), codes)

    def fit(
        self,
        real: Split,
        replayed: tuple[Tensor, Tensor] | None,
        stream: torch.Generator,
    ) -> None:
        """First decoder and projection by reconstruction, then the flow on the codes by maximum likelihood."""
        pool = real if replayed is None else concatenate(real, Split(*replayed))
        if self.flow.fits > 0 and self.settings.reset:
            self.decoder = self._new_decoder(self.flow.dimension).to(pool.y.device)
        read = mapped(self.read, pool.x)  # once: the encoder stays as it is
        self._fit_autoencoder(pool, read, stream)
        noisy = torch.ones(len(pool), device=pool.y.device)  # decoding and encoding took the noise out again
        with torch.no_grad():
            codes = self.project(read)
        self.flow.fit(codes, pool.y, noisy, stream)

    def _fit_autoencoder(self, pool: Split, read: Tensor, stream: torch.Generator) -> None:
        reconstruction = RECONSTRUCTION_LOSSES[self.settings.rec_loss]
        parts = [part for part in (self.projection, self.decoder, self.condition) if part is not None]

        def loss(index: Tensor) -> Tensor:
            x, y = pool.batch(index)
            return reconstruction(self.decode(self.project(read[index]), y), x, self.log_deviation)

        minimise(loss, [*parts, nn.ParameterList([self.log_deviation])], pool.y, self.settings, stream)


def _mse(logits: Tensor, x: Tensor, log_deviation: Tensor) -> Tensor:
    return (logits.sigmoid() - x).square().mean()


def _bce(logits: Tensor, x: Tensor, log_deviation: Tensor) -> Tensor:
    return pixel_cross_entropy(logits, x).mean()


def _gaussian(logits: Tensor, x: Tensor, log_deviation: Tensor) -> Tensor:
    """Gaussian negative log-likelihood with one learned deviation, softly bounded below by e^-6.

    Rybkin, Daniilidis and Levine, "Simple and effective VAE training with calibrated decoders", ICML 2021, section 3.
    """
    log_deviation = -6 + F.softplus(log_deviation + 6)
    error = ((logits.sigmoid() - x) / log_deviation.exp()).square()
    return (0.5 * error + log_deviation).mean()


RECONSTRUCTION_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": _mse,
    "bce": _bce,
    "gaussian": _gaussian,
}
"""`rec_loss` -> loss(logits of pixels (B, C, H, W), images (B, C, H, W), log-deviation ()), mean over pixels."""
