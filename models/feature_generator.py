"""PRER's generator of features: a conditional flow on the principal directions of a frozen encoder's features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.data import Split, mapped
from models.code_flow import CodeFlow, FlowSettings
from models.encoders import Encoder
from models.generator import Generator, Made

SMALLEST_SHARE = 1e-2
"""Floor under a direction's deviation, relative to the largest, where directions are balanced."""
MOST_FEATURES = 4000
"""Feature vectors that the principal directions are found from."""


class Subspace(nn.Module):
    """Features (B, F) -> their part in an affine subspace (B, F); until it is activated they pass unchanged.

    Inside the subspace the principal directions may be balanced: each coordinate divided by the root of its deviation,
    so that what is learnt above hears of the small ones too.
    """

    def __init__(self, features: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("directions", torch.zeros(dimension, features))  # orthonormal rows
        self.register_buffer("scale", torch.ones(dimension))
        self.register_buffer("active", torch.zeros((), dtype=torch.bool))

    def find(self, features: Tensor, balanced: bool) -> None:
        """Take the leading principal directions of features (N, F); in force from `activate` on."""
        self.mean.copy_(features.mean(dim=0))
        _, singular, directions = torch.linalg.svd(features - self.mean, full_matrices=False)
        kept = min(len(self.directions), len(directions))
        self.directions[:kept] = directions[:kept]
        if balanced:
            self.scale[:kept] = (singular[:kept] / singular[0]).clamp(min=SMALLEST_SHARE).sqrt()

    def activate(self) -> None:
        """From now on features are projected."""
        self.active.fill_(True)

    def codes(self, features: Tensor) -> Tensor:
        """Features (B, F) -> coordinates (B, dimension)."""
        return (features - self.mean) @ self.directions.T / self.scale

    @property
    def basis(self) -> Tensor:
        """What the coordinates multiply (dimension, F): features as they are, or balanced ones once it is active."""
        return torch.where(self.active, 1.0, self.scale)[:, None] * self.directions

    def features(self, codes: Tensor) -> Tensor:
        """Coordinates (B, dimension) -> features (B, F), as the layer above knows them."""
        return codes @ self.basis + self.mean

    def forward(self, features: Tensor) -> Tensor:
        return torch.where(self.active, self.features(self.codes(features)), features)


class FeatureGenerator(Generator):
    """Learns the features of the classes seen so far, and makes codes of new ones.

    The encoder's features are its own up to the first task's end; then they are frozen, and only their part in the
    leading principal directions is passed on, to what is learnt above them. A code is that part's coordinates.

    Args:
        encoder: whose features are modelled; gets the subspace.
        classes: K, the number of all classes there will be.
        flow: the flow's settings; `dimension` is that of the subspace.

    Raises:
        ValueError: the subspace would have more dimensions than the features, or too few for the flow's levels.
    """

    def __init__(self, encoder: Encoder, classes: int, flow: FlowSettings) -> None:
        super().__init__(encoder)
        if flow.dimension > encoder.feature_dim:
            raise ValueError(f"dimension {flow.dimension} is more than the encoder's {encoder.feature_dim} features")
        self.subspace = encoder.subspace = Subspace(encoder.feature_dim, flow.dimension)
        self.flow = CodeFlow(flow.dimension, classes, flow)
        self.rehearsing = False  # on the host: `learnt` is asked for in every step

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return self.subspace.codes(self.encoder.features(x))

    def sample(self, y: Tensor, stream: torch.Generator) -> Made:
        codes = self.flow.sample(y, stream)
        return Made(codes, codes)

    def codes_of(self, made: Tensor) -> Tensor:
        return made

    def inputs(self, made: Tensor) -> Tensor:
        return made

    def real_inputs(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """Codes (B, dimension) with the noise that the flow's samples bear, so that real and made-up look alike."""
        self.encoder.features.eval()  # frozen, its running statistics too
        codes = self.codes(x)
        noise = torch.randn(codes.shape, device=codes.device, generator=stream)
        return codes + self.flow.settings.noise * self.flow.deviation * noise

    def embed(self, inputs: Tensor) -> Tensor:
        layer, subspace = self.encoder.projection, self.subspace
        if isinstance(layer, nn.Linear):  # the two linear maps as one: there are many more features than codes
            bias = layer.bias + layer.weight @ subspace.mean
            return F.linear(inputs, layer.weight @ subspace.basis.T, bias)
        return layer(subspace.features(inputs))

    @property
    def learnt(self) -> nn.Module:
        return self.encoder.projection if self.rehearsing else self.encoder

    @torch.no_grad()
    def begin_rehearsal(self) -> None:
        """The first task is over: from now on features are frozen, projected and balanced.

        A linear layer above is rewritten so that it says of balanced features what it said of them before.
        """
        layer, subspace = self.encoder.projection, self.subspace
        if isinstance(layer, nn.Linear) and not subspace.active:
            was = layer.weight @ subspace.mean
            layer.weight.copy_(layer.weight @ subspace.directions.T * subspace.scale @ subspace.directions)
            layer.bias += was - layer.weight @ subspace.mean
        subspace.activate()
        self.rehearsing = True

    def fit(
        self,
        real: Split,
        replayed: tuple[Tensor, Tensor] | None,
        stream: torch.Generator,
    ) -> None:
        if self.flow.fits == 0:
            some = torch.randperm(len(real), device=real.y.device, generator=stream)[:MOST_FEATURES]
            features = mapped(self.encoder.features, real.x[some])
            self.subspace.find(features, balanced=isinstance(self.encoder.projection, nn.Linear))
        z, y = mapped(self.codes, real.x), real.y
        noisy = torch.ones(len(z), device=z.device)
        if replayed is not None:
            z, y = torch.cat((z, replayed[0])), torch.cat((y, replayed[1]))
            noisy = torch.cat((noisy, torch.zeros(len(replayed[1]), device=z.device)))
        self.flow.fit(z, y, noisy, stream)
