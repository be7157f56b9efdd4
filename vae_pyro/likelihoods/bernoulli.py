"""Binary elements."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, DataForm, Likelihood
from vae_pyro.nn.features import masked_moments


@LIKELIHOODS.register("bernoulli", order=1)
class Bernoulli(Likelihood):
    """Independent Bernoulli elements; the decoder gives logits.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, appendix C.1. arXiv:1312.6114
    """

    discrete = True
    binary = True
    num_values = 2
    default_for = DataForm.BINARIZED
    support = "values in {0, 1}"

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=self.parameter(output, 0))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        # Burda et al. 2016 start the output bias at the logit of the training mean.
        return torch.logit(mean, eps=BIAS_MARGIN).to(x.dtype).unsqueeze(0)
