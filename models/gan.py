"""A conditional generative adversarial network of embeddings."""

import copy
from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from flows.transforms import Standardize, perceptron
from models.fitting import Objective, class_weights, configured_fit


class FeatureGAN(nn.Module):
    """Learns embeddings (B, dimension) per class and generates new ones, whatever the number of tasks.

    A Wasserstein GAN with gradient penalty (Gulrajani et al., NeurIPS 2017, equation 3), generator and critic being
    conditioned on the class. Inside, embeddings have mean 0 and standard deviation 1.

    Old classes are kept by alignment: the generator is held to what it was before the fit, at the same noise (Wu et
    al., "Memory replay GANs", NeurIPS 2018, section 3.2).

    Args:
        steps: steps of the generator, after each task
        epochs: instead of steps: passes over as many embeddings as the task has images, in steps of the critic
        latent: size of the generator's noise
        hidden_size: units of each of the two hidden layers, of generator and critic
        lr: learning rate of Adam
        batch_size: embeddings per step
        critic_steps: steps of the critic per step of the generator
        penalty: weight of the critic's gradient penalty
        alignment: weight of the squared distance of old classes' embeddings from those of the generator before the fit,
            times old classes / new classes; 0: it learns its own samples of old classes again instead
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        *,
        steps: Annotated[int, Ge(0)] = 4000,
        epochs: Annotated[int, Ge(0)] | None = None,
        latent: Annotated[int, Ge(1)] = 100,
        hidden_size: Annotated[int, Ge(1)] = 256,
        lr: Annotated[float, Gt(0)] = 5e-4,
        batch_size: Annotated[int, Ge(1)] = 128,
        critic_steps: Annotated[int, Ge(1)] = 5,
        penalty: Annotated[float, Ge(0)] = 10.0,
        alignment: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__()
        self.classes, self.latent, self.critic_steps, self.penalty = classes, latent, critic_steps, penalty
        self.alignment = alignment
        options: dict[str, Any] = {"lr": lr, "batch_size": batch_size, "betas": (0.5, 0.9)}
        self._fit = configured_fit("GAN", critic_steps * steps, epochs, every=critic_steps, **options)
        network, hidden = partial(perceptron, activation=partial(nn.LeakyReLU, 0.2)), (hidden_size, hidden_size)
        self.generator, self.critic = (
            network(latent + classes, *hidden, dimension),
            network(dimension + classes, *hidden, 1),
        )
        self.standardize = Standardize(dimension)

    @torch.no_grad()
    def sample(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """Generate embeddings (B, d), one of each class in y (B,)."""
        return self.standardize.inverse(self._generate(y, stream))[0]

    def fit(self, z: Tensor, y: Tensor, past: tuple[Tensor, Tensor] | None, stream: torch.Generator) -> None:
        """Learn a task's embeddings z (N, d) of classes y (N,), every class with the same weight.

        `past`: embeddings (M, d) that were generated for the classes (M,) before; None on the first task. `stream`
        draws batches and noise.
        """
        real, former, scale = len(z), copy.deepcopy(self.standardize), 0.0
        whole = (z, y) if past is None else (torch.cat((z, past[0])), torch.cat((y, past[1])))
        self.standardize.initialize(whole[0])
        if past is not None and self.alignment:
            self._express(former)
            scale = self.alignment * len(past[1].unique()) / len(y.unique())
        else:
            z, y = whole
        z, teacher, old = self.standardize(z)[0], copy.deepcopy(self.generator), past[1] if past else y

        def generator_loss(index: Tensor) -> Tensor:
            loss = -self._judge(self._generate(y[index], stream), y[index]).mean()
            if not scale:
                return loss
            asked = self._asked(old[torch.randint(len(old), index.shape, device=y.device, generator=stream)], stream)
            with torch.no_grad():
                said = teacher(asked)
            return loss + scale * (self.generator(asked) - said).square().sum(dim=1).mean()

        critic = Objective(self.critic, lambda index: self._critic_loss(z[index], y[index], stream))
        generator = Objective(self.generator, generator_loss, every=self.critic_steps)
        self._fit([critic, generator], class_weights(y), stream, real)

    @torch.no_grad()
    def _express(self, former: Standardize) -> None:
        """Let the generator give the embeddings that it gave under the `former` standardisation."""
        last, now = self.generator[-1], self.standardize
        assert isinstance(last, nn.Linear)
        last.weight.mul_((former.deviation / now.deviation)[:, None])
        last.bias.copy_((last.bias * former.deviation + former.mean - now.mean) / now.deviation)

    def _critic_loss(self, z: Tensor, y: Tensor, stream: torch.Generator) -> Tensor:
        """On standardised embeddings z (B, d) of classes y (B,), and as many generated ones."""
        with torch.no_grad():
            generated = self._generate(y, stream)
        between = torch.rand(len(z), 1, device=z.device, generator=stream)
        mixed = (between * z + (1 - between) * generated).requires_grad_()
        (slope,) = torch.autograd.grad(self._judge(mixed, y).sum(), mixed, create_graph=True)
        penalty = (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
        return self._judge(generated, y).mean() - self._judge(z, y).mean() + self.penalty * penalty

    def _asked(self, y: Tensor, stream: torch.Generator) -> Tensor:
        """The generator's input (B, latent + K): noise, and the classes y (B,)."""
        noise = torch.randn(len(y), self.latent, device=y.device, generator=stream)
        return torch.cat((noise, F.one_hot(y, self.classes)), dim=1)

    def _generate(self, y: Tensor, stream: torch.Generator) -> Tensor:
        return self.generator(self._asked(y, stream))

    def _judge(self, z: Tensor, y: Tensor) -> Tensor:
        """The critic's scores (B,) of standardised embeddings z (B, d) of classes y (B,); higher for real ones."""
        return self.critic(torch.cat((z, F.one_hot(y, self.classes)), dim=1))[:, 0]
