"""Real elements with outliers: Student t noise."""

from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.likelihoods.base import LIKELIHOODS, Positive, inverse_softplus
from vae_pyro.likelihoods.double_precision import StudentTInDouble
from vae_pyro.likelihoods.location_scale import LocationScale, ScaleOption


@LIKELIHOODS.register("student_t", order=5)
class StudentT(LocationScale):
    """Independent Student t elements, robust to outliers.

    Args:
        scale: see `LocationScale`.
        min_scale: see `LocationScale`.
        df: degrees of freedom; ``learned`` fits one number above 1 for all elements.
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        scale: ScaleOption = "learned",
        min_scale: Positive = 1e-3,
        df: Positive | Literal["learned"] = 5.0,
    ) -> None:
        super().__init__(x_shape, scale=scale, min_scale=min_scale)
        self.df = df
        self.raw_df = nn.Parameter(inverse_softplus(torch.tensor(4.0))) if df == "learned" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        loc, scale = self.loc_scale(output)
        df = 1 + softplus(self.raw_df) if self.raw_df is not None else self.df
        return StudentTInDouble(torch.as_tensor(df, dtype=loc.dtype, device=loc.device), loc, scale)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        # The mean does not exist for df <= 1; the location is the centre of symmetry at every df.
        assert isinstance(distribution, dist.StudentT)
        return distribution.loc
