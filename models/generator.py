"""What PRER asks of a generator: made-up samples of past classes, and what the encoder says of them."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datasets.data import Split, chunks
from models.code_flow import CodeFlow
from models.encoders import Encoder


class Made(NamedTuple):
    """Samples that were made up: x (N, ...), and the codes (N, dimension) they come from."""

    x: Tensor
    codes: Tensor


class Generator(nn.Module, ABC):
    """A flow on codes of images, and what turns codes into samples; the same size however many tasks there were.

    What a sample is, an image or a code, is the generator's own; `inputs` turns samples into what `embed` takes.
    The encoder is read, never trained by the generator, and no part of its state.
    """

    flow: CodeFlow

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.__dict__["encoder"] = encoder  # past nn.Module's registration

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> codes (B, dimension). No gradient reaches the encoder."""

    @abstractmethod
    def sample(self, y: Tensor, stream: torch.Generator) -> Made:
        """Make samples up, one of each class in y (N,)."""

    @abstractmethod
    def codes_of(self, made: Tensor) -> Tensor:
        """The codes (B, dimension) that samples (B, ...) have now."""

    @abstractmethod
    def inputs(self, made: Tensor) -> Tensor:
        """Samples (B, ...) as `embed` takes them."""

    @abstractmethod
    def real_inputs(self, x: Tensor, stream: torch.Generator) -> Tensor:
        """Images (B, C, H, W) in [0, 1] as `embed` takes them, next to samples, in a training step."""

    @abstractmethod
    def embed(self, inputs: Tensor) -> Tensor:
        """Inputs (B, ...) -> embeddings (B, d), with gradients for the part of the encoder that is still learnt."""

    @abstractmethod
    def fit(
        self,
        real: Split,
        replayed: tuple[Tensor, Tensor] | None,
        stream: torch.Generator,
    ) -> None:
        """Learn the images of a task, and keep what was made up before it, every class with the same weight.

        Args:
            real: the task's images.
            replayed: samples (M, ...) and their classes (M,); None on the first task.
            stream: draws batches and noise.

        Raises:
            FloatingPointError: a loss is not finite.
        """

    def begin_rehearsal(self) -> None:
        """A task begins that is not the first: from now on `embed` is asked for."""

    @property
    def learnt(self) -> nn.Module:
        """The part of the encoder that is still learnt."""
        return self.encoder

    def embeddings(self, made: Tensor) -> Tensor:
        """Embeddings (N, d) of samples (N, ...), however many."""
        return torch.cat([self.embed(self.inputs(part)) for part in chunks(made)])
