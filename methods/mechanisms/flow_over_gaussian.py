"""The classifier of `prer_features` with `predict: flow`: a flow for each class, and a Gaussian for the rest."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from datasets.data import Split
from methods.slda import SLDA
from models.code_flow import Density
from models.subspace import Subspace
from models.tempering import Tempering, mix

FLOW_IN_SCORE = 0.1  # of 0, 0.1, 0.25, 0.5, 1; REPRODUCIBILITY.md says on which data


class FlowOverGaussian(nn.Module):
    """Densities of features x (B, F), whose coordinates in `subspace` are z, given their class c:

        log N(x; m_c, C) + share * (log f_c(z) - log N(z; m_c, C)).

    C is the covariance within all classes, exactly that of `slda`; f_c is the flow's density; the last term is the
    Gaussian's marginal on z. With share 1 the flow's density takes the place of that marginal, and the rest of x is
    Gaussian given z; with 0 it is `slda`. `Tempering` chooses share and scale. Subspace and flow are not saved here.
    """

    def __init__(self, gaussian: SLDA, subspace: Subspace, flow: Density) -> None:
        super().__init__()
        self.gaussian, self.tempering = gaussian, Tempering()
        self._parts = subspace, flow  # in a tuple, so that they are no submodules
        self._marginal: MultivariateNormal | None = None  # computed when it is needed

    def add(self, data: Split) -> None:
        """Add features to the Gaussian's sums."""
        self.gaussian.add(data)
        self._marginal = None

    @property
    def marginal(self) -> MultivariateNormal:
        """The Gaussian's, on coordinates (..., dimension), of each class (K,)."""
        if self._marginal is None:
            subspace, _ = self._parts
            factor = torch.linalg.cholesky(subspace.covariance(self.gaussian.shrunk)).float()
            means = subspace.codes(self.gaussian.means.float())
            self._marginal = MultivariateNormal(means, scale_tril=factor, validate_args=False)
        return self._marginal

    @torch.no_grad()
    def densities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities (B, K) with share 0 and 1, in nats relative to the Gaussians' center.

        The second is -inf for classes that the flow does not know.
        """
        subspace, flow = self._parts
        codes, whole = subspace.codes(x), self.gaussian.scores(x)
        return whole, whole + flow.class_densities(codes) - self.marginal.log_prob(codes[:, None])

    def choose(self, unseen: Split) -> None:
        """Choose share and scale, with samples that neither density was fitted to; then add them to the Gaussian."""
        self.tempering.add(*self.densities(unseen.x), unseen.y)
        self.add(unseen)

    def class_densities(self, x: Tensor) -> Tensor:
        """Log-densities (B, K) with the chosen share and scale."""
        share, scale = self.tempering.chosen
        return scale * mix(*self.densities(x), share)

    @torch.no_grad()
    def score(self, x: Tensor, logits: Tensor, task: int) -> Tensor:
        """The score of `slda`, and a part of the flow's largest density of a class (B,), in nats."""
        subspace, flow = self._parts
        of_flow = flow.class_densities(subspace.codes(x)).amax(dim=1)
        return self.gaussian.score(x, logits, task) + FLOW_IN_SCORE * of_flow

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._marginal = None
