"""PRER's generator: one conditional flow on the encoder's codes, and one decoder from codes to images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, as_bytes, concatenate
from flows import Flow, realnvp
from models.encoders import Encoder
from utils.settings import AnyCase, Settings

CHUNK = 1024
"""Images that go through a network at once where no gradient is needed."""
LARGEST_GRADIENT = 10.0
"""The gradient's norm is clipped to this while the flow and the decoder are fitted."""


class ConditioningSettings(Settings):
    """How a class label becomes a condition."""

    type: Annotated[Literal["none", "one_hot", "class_embedding"], AnyCase] = "one_hot"
    """none: not at all; one_hot; class_embedding: a learned vector for each class"""
    dimension: int | None = Field(None, ge=1)
    """class_embedding: the vector's size; by default the number of classes"""


class AutoencoderSettings(Settings):
    """The decoder, and the projection of the encoder's features to the codes that the flow models."""

    epochs: int = Field(10, ge=0)
    """passes over the task's data and the generated data, after each task"""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate"""
    batch_size: int = Field(128, ge=1)
    """images a step"""
    weight_decay: float = Field(0.0, ge=0)
    """Adam's L2 penalty"""
    annealing: bool = True
    """let the learning rate fall to 0 along a cosine"""
    rec_loss: Annotated[Literal["mse", "bce", "gaussian"], AnyCase] = "bce"
    """reconstruction loss: squared error, binary cross-entropy, or Gaussian likelihood with a learned deviation"""
    conditioning: ConditioningSettings = ConditioningSettings()
    """what the decoder is told of the class"""


class FlowSettings(Settings):
    """The normalizing flow and its fit."""

    epochs: int = Field(20, ge=0)
    """passes over the task's data and the generated data, after each task"""
    dimension: int = Field(32, ge=2)
    """size of the codes, where they are a projection of their own (target: past_encoder)"""
    levels: int = Field(2, ge=1)
    """scales; half of the dimensions leave between two of them"""
    blocks: int = Field(5, ge=1)
    """couplings a level"""
    hidden_size: int | float = Field(128, gt=0)
    """units of the couplings' hidden layers; with a decimal point, a multiple of their input's size"""
    hidden_layers: int = Field(1, ge=0)
    """hidden layers of a coupling after its first"""
    lr: float = Field(1e-3, gt=0)
    """Adam's learning rate"""
    weight_decay: float = Field(0.0, ge=0)
    """Adam's L2 penalty"""
    batch_size: int = Field(256, ge=2)
    """codes a step"""
    annealing: bool = True
    """let the learning rate fall to 0 along a cosine"""
    noise: float = Field(0.1, ge=0)
    """deviation of the Gaussian noise on the flow's input while it trains, in units of each code's own deviation"""
    temperature: float = Field(0.8, gt=0)
    """scale of the Gaussian that samples are drawn from; below 1 they keep closer to the data"""
    conditioning: ConditioningSettings = ConditioningSettings()
    """what the flow is told of the class"""


class Condition(nn.Module):
    """Class labels (B,) -> conditions (B, size); None when `size` is 0."""

    def __init__(self, settings: ConditioningSettings, classes: int) -> None:
        super().__init__()
        self.classes, self.kind = classes, settings.type
        sizes = {"none": 0, "one_hot": classes, "class_embedding": settings.dimension or classes}
        self.size = sizes[self.kind]
        if self.kind == "class_embedding":
            self.vectors = nn.Embedding(classes, self.size)

    def forward(self, y: Tensor) -> Tensor | None:
        if self.kind == "none":
            return None
        return self.vectors(y) if self.kind == "class_embedding" else F.one_hot(y, self.classes).float()


@dataclass(frozen=True)
class Generated:
    """Made-up samples: images with the classes asked for, and the codes (N, dimension) they were decoded from."""

    split: Split
    codes: Tensor


class Generator(nn.Module):
    """Learns the images of the classes seen so far, and makes new ones; the same size however many tasks there were.

    A code of an image is a projection of the encoder's features, fitted together with the decoder; or, with
    `code="embedding"`, the encoder's embedding itself. The encoder is read, never trained, and not a part of the state.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        code: Literal["projection", "embedding"],
        autoencoder: AutoencoderSettings,
        flow: FlowSettings,
    ) -> None:
        super().__init__()
        self.__dict__["encoder"] = encoder
        self.autoencoder_settings, self.flow_settings = autoencoder, flow
        if code == "projection":
            self.dimension = flow.dimension
            self.projection: nn.Module | None = nn.Linear(encoder.feature_dim, flow.dimension)
        else:
            self.dimension = encoder.embedding_dim
            self.projection = None
        self.decoder_condition = Condition(autoencoder.conditioning, classes)
        self.decoder = encoder.mirror(self.dimension + self.decoder_condition.size, encoder.image_shape)
        self.log_deviation = nn.Parameter(torch.zeros(()))  # of rec_loss: gaussian
        self.flow_condition = Condition(flow.conditioning, classes)
        self.flow: Flow = realnvp(
            self.dimension,
            self.flow_condition.size,
            flow.levels,
            flow.blocks,
            flow.hidden_size,
            flow.hidden_layers,
        )
        self.register_buffer("fits", torch.zeros((), dtype=torch.long))

    def codes(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> codes (B, dimension). No gradient reaches the encoder."""
        with torch.no_grad():
            features = self.encoder.features(x)
            if self.projection is None:
                return self.encoder.projection(features)
        return self.projection(features)

    def decode(self, codes: Tensor, y: Tensor) -> Tensor:
        """Codes (B, dimension) and class ids (B,) -> logits of pixels (B, C, H, W)."""
        condition = self.decoder_condition(y)
        return self.decoder(codes if condition is None else torch.cat((codes, condition), dim=1))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of classes y (B,), encoded and decoded."""
        return self.decode(self.codes(x), y).sigmoid()

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log-density (B,) in nats of the codes of images x (B, C, H, W) given their classes y (B,)."""
        return self.flow.log_prob(self.codes(x), self.flow_condition(y))

    @torch.no_grad()
    def sample(self, n: int, classes: Sequence[int], stream: torch.Generator) -> Generated:
        """Make n images, the classes taking turns."""
        device = self.fits.device
        y = torch.tensor(tuple(classes), device=device)[torch.arange(n, device=device) % len(classes)]
        images, codes = [], []
        for chunk in y.split(CHUNK):
            code = self.flow.sample(
                self.flow_condition(chunk), len(chunk), self.flow_settings.temperature, generator=stream
            )
            codes.append(code)
            images.append(as_bytes(self.decode(code, chunk).sigmoid()))
        return Generated(Split(torch.cat(images), y), torch.cat(codes))

    def fit(self, real: Split, replayed: Split | None, stream: torch.Generator) -> None:
        """Learn the images of `real`, and keep those of `replayed`, every class with the same weight.

        First decoder and projection by reconstruction, then the flow on the codes by maximum likelihood.
        """
        pool = real if replayed is None else concatenate(real, replayed)
        self._fit_autoencoder(pool, stream)
        self._fit_flow(pool, stream)
        self.fits += 1

    def _fit_autoencoder(self, pool: Split, stream: torch.Generator) -> None:
        reconstruction = RECONSTRUCTION_LOSSES[self.autoencoder_settings.rec_loss]
        parts = [self.projection, self.decoder, self.decoder_condition]
        parameters = [p for part in parts if part is not None for p in part.parameters()]

        def loss(index: Tensor) -> Tensor:
            x, y = pool.batch(index)
            return reconstruction(self.decode(self.codes(x), y), x, self.log_deviation)

        _minimise(loss, [*parameters, self.log_deviation], pool.y, self.autoencoder_settings, stream)

    def _fit_flow(self, pool: Split, stream: torch.Generator) -> None:
        with torch.no_grad():
            batches = torch.arange(len(pool), device=pool.y.device).split(CHUNK)
            codes = torch.cat([self.codes(pool.batch(index)[0]) for index in batches])
            standardize = self.flow.transform.transforms[0]
            if self.fits == 0:
                self.flow.initialize(codes, self.flow_condition(pool.y))
            else:  # the learned part goes on from where it is
                standardize.initialize(codes)
        noise = self.flow_settings.noise * standardize.deviation

        def loss(index: Tensor) -> Tensor:
            z = codes[index]
            z = z + noise * torch.randn(z.shape, device=z.device, generator=stream)
            return -self.flow.log_prob(z, self.flow_condition(pool.y[index])).mean()

        parameters = [*self.flow.parameters(), *self.flow_condition.parameters()]
        _minimise(loss, parameters, pool.y, self.flow_settings, stream)


def _mse(logits: Tensor, x: Tensor, log_deviation: Tensor) -> Tensor:
    return (logits.sigmoid() - x).square().mean()


def _bce(logits: Tensor, x: Tensor, log_deviation: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, x)


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


def _minimise(
    loss: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    labels: Tensor,
    settings: AutoencoderSettings | FlowSettings,
    stream: torch.Generator,
) -> None:
    """Adam on `loss(index)` over class-balanced batches of the samples with these labels (N,)."""
    parameters = list(parameters)
    steps = ceil(len(labels) / settings.batch_size)
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    horizon = max(1, settings.epochs * steps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, horizon) if settings.annealing else None
    weights = 1.0 / labels.bincount().clamp(min=1)[labels]
    for _ in range(settings.epochs):
        count = steps * settings.batch_size
        order = torch.multinomial(weights, count, replacement=True, generator=stream)
        for index in order.split(settings.batch_size):
            optimizer.zero_grad()
            loss(index).backward()
            nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimizer.step()
            if schedule is not None:
                schedule.step()
