"""Knowledge distillation: what a frozen copy of the classifier says is a target for the classifier."""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from models.learner import Learner


def frozen_copy(learner: Learner) -> Learner:
    """A copy that is in evaluation mode and gets no gradients: a teacher."""
    return copy.deepcopy(learner).eval().requires_grad_(False)


def update(teacher: Learner, learner: Learner) -> None:
    """Let the teacher say from now on what the learner says now."""
    teacher.load_state_dict(learner.state_dict())


def divergences(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each sample (B,); 0 when both say the same.

    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531), section 2: the
    factor T^2 keeps the gradient's size. Written as a divergence it has the gradient of their cross-entropy.

    Args:
        student, teacher: logits (B, k).
        temperature: T > 0.
    """
    student, teacher = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean of `divergences` over the batch."""
    return divergences(student, teacher, temperature).mean()


def past_divergence(
    learner: Learner, z: Tensor, teacher: Learner, z_teacher: Tensor, tasks_seen: int, temperature: float
) -> Tensor:
    """`divergence` of what both say about images of any origin, over all that the first `tasks_seen` tasks taught.

    Task scenario: the mean over the heads of these tasks. Class scenario: over the columns of their classes. Domain
    scenario: over the one head.

    Args:
        z, z_teacher: the embeddings (B, d) of the same images by learner and teacher.
    """
    if learner.scenario == "task":
        both = [(learner.logits(z, t), teacher.logits(z_teacher, t)) for t in range(tasks_seen)]
    else:
        both = [(learner.logits(z, 0), teacher.logits(z_teacher, 0))]
    if learner.scenario == "class":
        seen = torch.tensor(learner.classes_before(tasks_seen), device=z.device)
        both = [(student[:, seen], old[:, seen]) for student, old in both]
    return torch.stack([divergence(student, old, temperature) for student, old in both]).mean()
