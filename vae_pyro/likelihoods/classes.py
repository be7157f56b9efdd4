"""Elements with finitely many values: categorical, and levels in order (a rounded logistic)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, Likelihood, inverse_softplus
from vae_pyro.likelihoods.distributions import DiscretizedLogistic
from vae_pyro.nn.features import Levels, OneHot, masked_moments


@LIKELIHOODS.register("categorical")
class Categorical(Likelihood):
    """Independent categorical elements with classes ``0 .. num_classes - 1``; the encoder sees indicators.

    Args:
        x_shape: event shape of x.
        num_classes: number of classes of every element.
    """

    discrete = True
    wants = "integer classes"

    def __init__(self, x_shape: Sequence[int], *, num_classes: Annotated[int, Field(ge=2)]) -> None:
        super().__init__(x_shape)
        self.num_params = self.num_classes = num_classes
        self.features = OneHot(x_shape, num_classes)

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=output.movedim(-len(self.x_shape) - 1, -1))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    def holds(self, summary: DataSummary) -> bool:
        return self.accepts(summary) and summary.high <= self.num_classes - 1

    def wants_with_options(self) -> str:
        return f"integers from 0 to {self.num_classes - 1}"

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        count = torch.stack([((x == c) & observed).sum(0) for c in range(self.num_classes)]).to(torch.float64)
        share = (count + 1) / (count.sum(0) + self.num_classes)  # Laplace's rule keeps unseen classes possible.
        return share.log().to(x.dtype)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        assert isinstance(distribution, dist.Categorical)
        return distribution.logits.argmax(-1).to(distribution.logits.dtype)


@LIKELIHOODS.register("discretized_logistic")
class DiscretizedLogisticLikelihood(Likelihood):
    """Independent logistic elements rounded to the integers ``0 .. levels - 1``: a probability of raw bytes.

    Args:
        x_shape: event shape of x.
        levels: number of levels.
        scale: ``per_dimension``, ``learned`` as one number, or ``predicted`` by the decoder.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow. arXiv:1606.04934
    """

    discrete = True
    wants = "integer levels"

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        levels: Annotated[int, Field(ge=2)] = 256,
        scale: Literal["learned", "per_dimension", "predicted"] = "per_dimension",
    ) -> None:
        super().__init__(x_shape)
        self.levels, self.scale = levels, scale
        self.features = Levels(x_shape, levels)
        self.num_params = 2 if scale == "predicted" else 1
        shape = self.x_shape if scale == "per_dimension" else ()
        self.start = inverse_softplus(torch.tensor(levels / 16))
        self.raw_scale = nn.Parameter(self.start.expand(shape).clone()) if scale != "predicted" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        half = (self.levels - 1) / 2
        loc = half * (1 + self.parameter(output, 0))
        raw = self.parameter(output, 1) if self.raw_scale is None else self.raw_scale
        return DiscretizedLogistic(loc, softplus(raw) + BIAS_MARGIN, self.levels)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= 255

    def holds(self, summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= self.levels - 1

    def wants_with_options(self) -> str:
        return f"integers from 0 to {self.levels - 1}"

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = mean * (2 / (self.levels - 1)) - 1
        if self.num_params == 2:
            bias[1] = self.start
        return bias.to(x.dtype)
