"""Weights of two densities of the same samples, chosen on held-out samples, of which only sums are kept."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARES = tuple(k / 10 for k in range(11))
SCALES = tuple(2 ** (-k / 2) for k in range(15))  # 1 to 1/128


class Tempering(nn.Module):
    """Bayes' rule with log-densities scale * ((1 - share) * a + share * b), `a` and `b` being (B, K) of K classes.

    A share below 1 is a geometric mean of two densities: a density that was fitted too closely makes fewer errors when
    it has less weight. A scale below 1 makes the probabilities less certain (Guo et al., ICML 2017), and changes no
    prediction. Of `SHARES` and `SCALES` the pair is taken that makes the labels of all samples ever given to `add`
    the most likely.
    """

    def __init__(self) -> None:
        super().__init__()
        sums = torch.zeros(len(SHARES), len(SCALES), dtype=torch.double)
        self.log_likelihood = nn.Buffer(sums)  # of the labels, in nats

    def add(self, a: Tensor, b: Tensor, y: Tensor) -> None:
        """Add samples of classes y (B,) that neither density was fitted to; -inf: no such class yet."""
        for k, share in enumerate(SHARES):
            mixed = mix(a.double(), b.double(), share)
            losses = [F.cross_entropy(scale * mixed, y, reduction="sum") for scale in SCALES]
            self.log_likelihood[k] -= torch.stack(losses)

    @property
    def chosen(self) -> tuple[float, float]:
        """(share, scale); where several are equally likely the smallest share, and before any sample (1, 1)."""
        if not self.log_likelihood.any():
            return SHARES[-1], SCALES[0]
        share, scale = divmod(int(self.log_likelihood.argmax()), len(SCALES))
        return SHARES[share], SCALES[scale]


def mix(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(1 - share) * a + share * b of (B, K) log-densities; -inf where b is."""
    return torch.where(b.isfinite(), a + share * (b - a), -torch.inf)
