"""Gradients as flat vectors, and gradients of single samples."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector

from datasets.data import Split
from models.learner import Learner

CHUNK, MAX_NUMBERS = 64, 2**27  # samples whose gradients are held at once, each P numbers; and all numbers of them


def flat_parameters(module: nn.Module) -> Tensor:
    """A copy of all parameters of a module as one vector (P,), in the order of `parameters()`."""
    return parameters_to_vector(module.parameters()).detach()


def flat_gradients(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The `.grad` of all parameters as one vector (P,); zeros where there is none."""
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


def set_gradients(parameters: Iterable[nn.Parameter], vector: Tensor) -> None:
    """Let a vector (P,) be the `.grad` of the parameters, those that had none included, but for fixed ones."""
    parameters = list(parameters)
    for p, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        if p.requires_grad:
            p.grad = part.view_as(p)


def gradient_of(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The gradient of a loss as one vector (P,), leaving every `.grad` alone; zeros where it does not reach."""
    parameters = list(parameters)
    found = iter(torch.autograd.grad(loss, [p for p in parameters if p.requires_grad], materialize_grads=True))
    # detached: the zeros of torch 2.6 ask for gradients
    return torch.cat([(next(found).detach() if p.requires_grad else torch.zeros_like(p)).flatten() for p in parameters])


def mean_over_samples(
    learner: Learner, split: Split, task: int, loss: Callable[..., Tensor], of: Callable[..., Tensor], *rest: Tensor
) -> Tensor:
    """Mean over samples of `of(gradient of that one sample's loss)`, as one vector (P,).

    Args:
        learner: in evaluation mode; its head of `task` gives the logits.
        loss: loss(logits (k,), *a row of each of `rest` (N, ...)) -> () of one sample.
        of: applied elementwise, such as `torch.square`.
    """
    parameters = {name: p.detach() for name, p in learner.named_parameters()}

    def one(values: dict[str, Tensor], x: Tensor, *row: Tensor) -> Tensor:
        return loss(functional_call(learner, values, (x[None], task))[0], *row)

    gradients = vmap(grad(one), in_dims=(None, 0, *(0 for _ in rest)))
    total = torch.zeros_like(flat_parameters(learner))
    chunk = max(1, min(CHUNK, MAX_NUMBERS // len(total)))
    for index in torch.arange(len(split), device=split.y.device).split(chunk):
        found = gradients(parameters, split.batch(index)[0], *(values[index] for values in rest))
        total += torch.cat([of(found[name]).sum(dim=0).flatten() for name in parameters])
    return total / len(split)
