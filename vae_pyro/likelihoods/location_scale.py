"""Base of the likelihoods of real elements with a location and a scale."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import Likelihood, Positive, inverse_softplus
from vae_pyro.nn.features import Standardize, masked_moments

type ScaleOption = Positive | Literal["learned", "per_dimension", "predicted"]


class LocationScale(Likelihood):
    """Families with a location from the decoder and a scale in the units of x.

    The decoder works in standardised units (`Standardize`) and the density in the user's. A learned scale is
    ``reference * (floor + softplus(parameter))``, where the reference is the training data's standard deviation, and
    never falls below ``step / sqrt(12)``, the standard deviation of rounding, on quantised data: a density on a
    lattice has no upper bound otherwise.

    Args:
        scale: a number fixes it, in units of x; ``learned`` is one for all elements, ``per_dimension`` one for each,
            ``predicted`` one for each from the decoder.
        min_scale: lower bound of a scale that is not fixed, as a fraction of the data's standard deviation.
    """

    discrete = False
    reparameterized = True
    shift_invariant = True
    support = "finite real values"
    reference: Tensor
    floor: Tensor

    def __init__(self, x_shape: Sequence[int], *, scale: ScaleOption = "learned", min_scale: Positive = 1e-3) -> None:
        super().__init__(x_shape)
        self.scale, self.min_scale = scale, min_scale
        self.features = Standardize(x_shape)
        self.num_params = 2 if scale == "predicted" else 1
        shape = self.x_shape if scale in ("per_dimension", "predicted") else ()
        self.register_buffer("reference", torch.ones(shape))
        self.register_buffer("floor", torch.full(shape, min_scale))
        start = inverse_softplus(torch.ones(shape))
        self.raw_scale = nn.Parameter(start) if scale in ("learned", "per_dimension") else None

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return True

    def loc_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Location ``(*batch, *x_shape)`` and a scale that broadcasts to it, both in units of x."""
        standardize = self.features
        assert isinstance(standardize, Standardize)
        loc = standardize.loc + standardize.scale * self.parameter(output, 0)
        if self.scale == "predicted":
            return loc, self.reference * (self.floor + softplus(self.parameter(output, 1)))
        if self.raw_scale is None:
            return loc, torch.as_tensor(self.scale, dtype=loc.dtype, device=loc.device)
        return loc, self.reference * (self.floor + softplus(self.raw_scale))

    def mean_of(self, output: Tensor) -> Tensor:
        return self.loc_scale(output)[0]

    def drop_spread(self) -> None:
        self.scale, self.raw_scale, self.num_params = 0.0, None, 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        standardize = self.features
        assert isinstance(standardize, Standardize)
        standardize.fit(x, observed)
        mean, variance = masked_moments(x, observed, [0])
        overall = float((variance * observed.sum(0)).sum() / observed.sum().clamp(min=1)) ** 0.5 or 1.0
        # Elements of one image share units, so a constant pixel takes the image's scale; a constant column keeps one.
        sd = variance.sqrt() if len(self.x_shape) == 1 else torch.full_like(variance, overall)
        sd = torch.where(sd > 0, sd, torch.ones_like(sd))
        reference = sd if self.reference.dim() else torch.tensor(overall)
        self.reference.copy_(reference)
        rounding = (step or 0.0) / 12**0.5
        self.floor.copy_((rounding / reference).clamp(min=self.min_scale))
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = (mean - standardize.loc.double()) / standardize.scale.double()
        if self.num_params == 2:
            bias[1] = inverse_softplus(torch.ones(()))
        return bias.to(x.dtype)
