"""NCM: the class whose mean feature is nearest.

Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero cost", IEEE TPAMI 2013,
section 3; as a baseline of continual learning: Janson et al., "A simple baseline that questions the use of pretrained
models in continual learning", 2022 (arXiv 2210.04428).
"""

from typing import Annotated, Literal

from torch import Tensor
from torch.nn import functional as F

from methods import MethodConfig
from methods.mechanisms.closed_form import Means
from utils.settings import AnyCase


class Config(MethodConfig):
    """The distance of NCM."""

    distance: Annotated[Literal["euclidean", "cosine"], AnyCase] = "euclidean"
    """between features and class means"""


class NCM(Means):
    """Scores are -|x - mean|^2 / 2, the log-density of a Gaussian with unit variance; or the cosine."""

    title = "Nearest Class Mean"
    config: Config

    def solve(self) -> Tensor:
        return self.means.float()

    def scores(self, x: Tensor) -> Tensor:
        means: Tensor = self.solution
        if self.config.distance == "cosine":
            return F.normalize(x) @ F.normalize(means).T
        return x @ means.T - 0.5 * means.square().sum(dim=1)
