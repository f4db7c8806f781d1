"""Gradients as flat vectors, and gradients of single samples."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector

from datasets.data import Split
from models.learner import Learner

CHUNK = 64
"""Samples whose gradients are held at once: CHUNK x P numbers."""


def flat_parameters(module: nn.Module) -> Tensor:
    """All parameters of a module as one detached vector (P,), in the order of `parameters()`."""
    return parameters_to_vector(module.parameters()).detach()


def flat_gradients(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The `.grad` of all parameters as one vector (P,); zeros where there is none."""
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


def set_gradients(parameters: Iterable[nn.Parameter], vector: Tensor) -> None:
    """Let a vector (P,) be the `.grad` of the parameters, those that had none included."""
    offset = 0
    for p in parameters:
        p.grad = vector[offset : offset + p.numel()].view_as(p)
        offset += p.numel()


def gradient_of(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The gradient of a loss as one vector (P,), leaving every `.grad` alone; zeros where it does not reach."""
    parameters = list(parameters)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
    )


def image_chunks(split: Split, *rest: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The images of a split in [0, 1], `CHUNK` at a time, each with the rows of `rest` (N, ...) that belong to it."""
    for index in torch.arange(len(split), device=split.y.device).split(CHUNK):
        yield split.batch(index)[0], *(values[index] for values in rest)


def mean_over_samples(
    learner: Learner,
    task: int,
    images: Iterable[tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
    of: Callable[[Tensor], Tensor],
) -> Tensor:
    """Mean over samples of `of(gradient of that one sample's loss)`, as one vector (P,).

    Args:
        learner: in evaluation mode; differentiated with respect to all its parameters.
        task: whose head gives the logits.
        images: chunks of images x (B, C, H, W) in [0, 1], each with what else the loss needs of a sample, (B, ...).
        loss: loss(logits (k,), *the rest) -> () of one sample.
        of: applied to every sample's gradients elementwise before they are averaged, such as `torch.square`.
    """
    parameters = {name: p.detach() for name, p in learner.named_parameters()}

    def one(values: dict[str, Tensor], x: Tensor, *rest: Tensor) -> Tensor:
        logits = functional_call(_Logits(learner, task), {f"learner.{k}": v for k, v in values.items()}, (x[None],))
        return loss(logits[0], *rest)

    total, count = None, 0
    for x, *rest in images:
        per_sample = vmap(grad(one), in_dims=(None, 0, *(0 for _ in rest)))(parameters, x, *rest)
        chunk = torch.cat([of(per_sample[name]).sum(dim=0).flatten() for name in parameters])
        total, count = chunk if total is None else total + chunk, count + len(x)
    return total / count


class _Logits(nn.Module):
    """The learner as one module from images to the logits of a task."""

    def __init__(self, learner: Learner, task: int) -> None:
        super().__init__()
        self.learner, self.task = learner, task

    def forward(self, x: Tensor) -> Tensor:
        return self.learner.logits(self.learner.embed(x), self.task)
