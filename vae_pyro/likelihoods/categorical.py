"""Classes."""

from collections.abc import Sequence
from typing import Annotated

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import LIKELIHOODS, Likelihood
from vae_pyro.nn.features import OneHot


@LIKELIHOODS.register("categorical", order=7)
class Categorical(Likelihood):
    """Independent categorical elements with classes ``0 .. num_classes - 1``; the encoder reads indicators.

    Args:
        num_classes: number of classes of every element.
    """

    discrete = True
    scale_of_data = "none"
    support = "integer classes"

    def __init__(self, x_shape: Sequence[int], *, num_classes: Annotated[int, Field(ge=2)]) -> None:
        super().__init__(x_shape)
        self.num_params = self.num_classes = self.num_values = num_classes
        self.support = f"integers from 0 to {num_classes - 1}"
        self.features = OneHot(x_shape, num_classes)

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=output.movedim(-len(self.x_shape) - 1, -1))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    def holds(self, summary: DataSummary) -> bool:
        return self.accepts(summary) and summary.high <= self.num_classes - 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        count = torch.stack([((x == c) & observed).sum(0) for c in range(self.num_classes)]).to(torch.float64)
        share = (count + 1) / (count.sum(0) + self.num_classes)  # Laplace's rule keeps unseen classes possible.
        return share.log().to(x.dtype)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        assert isinstance(distribution, dist.Categorical)
        return distribution.logits.argmax(-1).to(distribution.logits.dtype)
