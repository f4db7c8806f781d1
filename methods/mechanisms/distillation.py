"""Knowledge distillation: what a frozen copy of the classifier says is a target for the classifier."""

import copy

from torch import Tensor
from torch.nn import functional as F

from models.learner import Learner


def frozen_copy(learner: Learner) -> Learner:
    """A copy that is in evaluation mode and gets no gradients: a teacher."""
    return copy.deepcopy(learner).eval().requires_grad_(False)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each sample (B,); 0 when both say the same.

    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531), section 2: the
    factor T^2 keeps the gradient's size. Written as a divergence it has the gradient of their cross-entropy.

    Args:
        student, teacher: logits (B, k).
        temperature: T > 0.
    """
    student, teacher = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
