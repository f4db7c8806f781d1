"""A conditional generative adversarial network of embeddings."""

from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from flows.transforms import Standardize, perceptron
from models.fitting import Objective, class_weights, fit


class FeatureGAN(nn.Module):
    """Learns embeddings (B, dimension) per class and generates new ones, whatever the number of tasks.

    A Wasserstein GAN with gradient penalty (Gulrajani et al., NeurIPS 2017, equation 3), generator and critic being
    conditioned on the class. Inside, embeddings have mean 0 and standard deviation 1.

    Args:
        epochs: passes over as many embeddings as the task has images, after each task, in steps of the critic
        latent: size of the generator's noise
        hidden_size: units of each of the two hidden layers, of generator and critic
        lr: learning rate of Adam
        batch_size: embeddings per step, the task's own and generated ones together
        critic_steps: steps of the critic per step of the generator
        penalty: weight of the critic's gradient penalty
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        *,
        epochs: Annotated[int, Ge(0)] = 20,
        latent: Annotated[int, Ge(1)] = 100,
        hidden_size: Annotated[int, Ge(1)] = 256,
        lr: Annotated[float, Gt(0)] = 2e-3,
        batch_size: Annotated[int, Ge(1)] = 128,
        critic_steps: Annotated[int, Ge(1)] = 5,
        penalty: Annotated[float, Ge(0)] = 10.0,
    ) -> None:
        super().__init__()
        self.classes, self.latent, self.critic_steps, self.penalty = classes, latent, critic_steps, penalty
        self._fit = partial(fit, name="GAN", epochs=epochs, lr=lr, batch_size=batch_size, betas=(0.5, 0.9))
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

    def fit(self, z: Tensor, y: Tensor, real: int, stream: torch.Generator) -> None:
        """Learn embeddings z (N, d) of classes y (N,), every class with the same weight.

        `real` of them are of the task, which is the length of an epoch; the others were generated for the classes
        before. `stream` draws batches and noise.
        """
        z = self.standardize.initialize(z)

        def generator_loss(index: Tensor) -> Tensor:
            return -self._judge(self._generate(y[index], stream), y[index]).mean()

        critic = Objective(self.critic, lambda index: self._critic_loss(z[index], y[index], stream))
        generator = Objective(self.generator, generator_loss, every=self.critic_steps)
        self._fit([critic, generator], class_weights(y), stream, samples=real)

    def _critic_loss(self, z: Tensor, y: Tensor, stream: torch.Generator) -> Tensor:
        """On standardised embeddings z (B, d) of classes y (B,), and as many generated ones."""
        with torch.no_grad():
            generated = self._generate(y, stream)
        between = torch.rand(len(z), 1, device=z.device, generator=stream)
        mixed = (between * z + (1 - between) * generated).requires_grad_()
        (slope,) = torch.autograd.grad(self._judge(mixed, y).sum(), mixed, create_graph=True)
        penalty = (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
        return self._judge(generated, y).mean() - self._judge(z, y).mean() + self.penalty * penalty

    def _generate(self, y: Tensor, stream: torch.Generator) -> Tensor:
        noise = torch.randn(len(y), self.latent, device=y.device, generator=stream)
        return self.generator(torch.cat((noise, F.one_hot(y, self.classes)), dim=1))

    def _judge(self, z: Tensor, y: Tensor) -> Tensor:
        """The critic's scores (B,) of standardised embeddings z (B, d) of classes y (B,); higher for real ones."""
        return self.critic(torch.cat((z, F.one_hot(y, self.classes)), dim=1))[:, 0]
