"""Elements between 0 and 1: Bernoulli for 0/1, continuous Bernoulli for intensities."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, Likelihood
from vae_pyro.likelihoods.distributions import ContinuousBernoulli
from vae_pyro.nn.features import masked_moments


@LIKELIHOODS.register("bernoulli")
class Bernoulli(Likelihood):
    """Independent Bernoulli elements; the decoder gives logits.

    Args:
        x_shape: event shape of x.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, appendix C.1. arXiv:1312.6114
    """

    discrete = True
    wants = "values in {0, 1}"

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=self.parameter(output, 0))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        # Burda et al. 2016 start the output bias at the logit of the training mean.
        return torch.logit(mean, eps=BIAS_MARGIN).to(x.dtype).unsqueeze(0)


@LIKELIHOODS.register("continuous_bernoulli")
class ContinuousBernoulliLikelihood(Likelihood):
    """Independent continuous Bernoulli elements on [0, 1]; the decoder gives logits.

    Args:
        x_shape: event shape of x.

    References:
        Loaiza-Ganem & Cunningham 2019, The continuous Bernoulli, NeurIPS. arXiv:1907.06845
    """

    discrete = False
    wants = "values in [0, 1]"

    def forward(self, output: Tensor) -> TorchDistribution:
        return ContinuousBernoulli(self.parameter(output, 0))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.low >= 0 and summary.high <= 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        low, high = torch.full_like(mean, -1 / BIAS_MARGIN), torch.full_like(mean, 1 / BIAS_MARGIN)
        for _ in range(60):  # the mean rises with the logit and has no closed inverse: bisection
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low.to(x.dtype).unsqueeze(0)
