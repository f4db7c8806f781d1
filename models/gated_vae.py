"""A variational autoencoder with a Gaussian per class as its prior and gates in its decoder, the generator of BI-R."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from datasets.data import Shape, as_bytes, as_floats, chunks
from flows.transforms import Standardize, perceptron
from models.autoencoder import pixel_cross_entropy
from models.fitting import Objective, class_weights, configured_fit


class GatedVAE(nn.Module):
    """Learns samples per class and generates new ones of given classes; its size does not depend on the tasks seen.

    Samples are images, whose pixels are Bernoulli, or features, which are Gaussian of variance 1 once standardised by
    the first fit's mean and deviation. The prior of the codes is a normal distribution for each class, with independent
    dimensions, whose means and variances are learned. In the decoder each context inhibits units of its own, chosen at
    random when it is built.

    van de Ven, Siegelmann and Tolias, "Brain-inspired replay for continual learning with artificial neural networks",
    Nature Communications 2020, methods, "Conditional replay" and "Gating based on internal context".

    Args:
        shape: of a sample.
        context_of: (K,) the context of each class, from 0 on.
        steps: batches after each task
        epochs: instead of steps: passes over as many samples as the task has
        latent: size of the codes
        hidden_size: units of each of the two hidden layers, of encoder and decoder
        inhibited: share of the decoder's hidden units that a context switches off
        lr: learning rate of Adam
        batch_size: samples per step, the task's own and generated ones together
        annealing: let the learning rate fall to 0 along a cosine
    """

    def __init__(
        self,
        shape: Shape,
        context_of: Tensor,
        *,
        steps: Annotated[int, Ge(1)] = 2000,
        epochs: Annotated[int, Ge(0)] | None = None,
        latent: Annotated[int, Ge(1)] = 100,
        hidden_size: Annotated[int, Ge(1)] = 400,
        inhibited: Annotated[float, Ge(0), Lt(1)] = 0.8,
        lr: Annotated[float, Gt(0)] = 1e-3,
        batch_size: Annotated[int, Ge(1)] = 256,
        annealing: bool = True,
    ) -> None:
        super().__init__()
        values, contexts = math.prod(shape), int(context_of.max()) + 1
        self._fit = configured_fit("VAE", steps, epochs, lr=lr, batch_size=batch_size, annealing=annealing)
        self.shape = shape
        self.standardize = Standardize(values) if len(shape) == 1 else None
        self.encoder = nn.Sequential(perceptron(values, hidden_size, hidden_size), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(hidden_size, latent), nn.Linear(hidden_size, latent)
        self.prior_mean = nn.Parameter(torch.randn(len(context_of), latent))
        self.prior_log_variance = nn.Parameter(torch.randn(len(context_of), latent))
        self.hidden = nn.ModuleList([nn.Linear(latent, hidden_size), nn.Linear(hidden_size, hidden_size)])
        self.output = nn.Linear(hidden_size, values)
        self.context_of = nn.Buffer(context_of.clone(), persistent=False)
        chosen = torch.rand(contexts, len(self.hidden), hidden_size).argsort(dim=2)
        off = min(round(inhibited * hidden_size), hidden_size - 1)  # at least one unit stays on
        self.gates = nn.Buffer((chosen >= off).float())  # (contexts, layers, units)
        self.fits = nn.Buffer(torch.zeros((), dtype=torch.long))

    def decode(self, codes: Tensor, y: Tensor) -> Tensor:
        """Codes (B, latent) of classes y (B,) -> logits of pixels, or standardised features (B, values)."""
        gates = self.gates[self.context_of[y]]
        for index, layer in enumerate(self.hidden):
            codes = layer(codes).relu() * gates[:, index]
        return self.output(codes)

    def negative_elbo(self, x: Tensor, y: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Both terms (B,) for images x in [0, 1] or standardised features x (B, ...) of classes y (B,), in nats.

        The negative log-likelihood, for features up to a constant, from one code drawn for each; and the divergence of
        the posterior from the prior of the class.
        """
        x, hidden = x.flatten(1), self.encoder(x.flatten(1))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        noise = torch.randn(mean.shape, device=mean.device, generator=stream)
        decoded = self.decode(mean + (0.5 * log_variance).exp() * noise, y)
        error = pixel_cross_entropy(decoded, x) if self.standardize is None else 0.5 * (decoded - x).square()
        ratio, prior = log_variance - self.prior_log_variance[y], self.prior_log_variance[y]
        distance = (mean - self.prior_mean[y]).square() / prior.exp()
        return error.sum(dim=1), 0.5 * (distance + ratio.exp() - 1 - ratio).sum(dim=1)

    @torch.no_grad()
    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """Samples of the classes y (N,): images, uint8 (N, C, H, W), or features (N, F)."""
        noise = torch.randn(len(y), self.prior_mean.shape[1], device=y.device, generator=stream)
        codes = self.prior_mean[y] + (0.5 * self.prior_log_variance[y]).exp() * noise
        decoded = [self.decode(*part) for part in zip(chunks(codes), chunks(y), strict=True)]
        if self.standardize is not None:
            return torch.cat([self.standardize.inverse(part)[0] for part in decoded])
        return torch.cat([as_bytes(part.sigmoid().unflatten(1, self.shape)) for part in decoded])

    def prepared(self, x: Tensor) -> Tensor:
        """Samples as they are stored -> as `negative_elbo` takes them."""
        return as_floats(x) if self.standardize is None else self.standardize(x)[0]

    def fit(self, x: Tensor, y: Tensor, samples: int, stream: torch.Generator) -> None:
        """Learn samples x (N, ...) of classes y (N,), a task's and generated ones, every class with the same weight.

        Args:
            samples: of the task.
            stream: draws batches and noise.
        """
        if self.standardize is not None and not self.fits:
            self.standardize.initialize(x)

        def loss(index: Tensor) -> Tensor:
            error, divergence = self.negative_elbo(self.prepared(x[index]), y[index], stream)
            return (error + divergence).mean()

        self._fit([Objective(self, loss)], class_weights(y), stream, samples)
        self.fits.add_(1)
