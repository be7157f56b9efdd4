"""Classes that are known for some data of a batch, as one site of static shape."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from vae_pyro.nn.features import indicators

# Log probability of a class that a datum does not have. Its exponential is exactly 0 in every floating-point type, and
# unlike minus infinity it stays 0 when it is multiplied by such a probability, as sums over classes do.
_NEVER = -1e30


class PartlyGiven(dist.Categorical):
    """A class for each datum: drawn where it is unknown, fixed where it is given.

    Known and unknown classes are one site of static shape in this way, so that a batch may mix them, as often as it
    comes in a compiled step. A sum over classes that is weighted by the guide's has the one term of the given class
    there, and all terms elsewhere: the labelled and the unlabelled bound of Kingma et al. 2014, eqs. 6 and 7.

    Args:
        logits: of the classes, shape ``(*batch, class)``.
        given: classes, shape ``batch``, -1 where unknown; ``None`` for none given.
        joint: keep the probability of what was given in the density, as a model does that is conditioned on it; without
            it the density is normalised, as a guide's is.

    Attributes:
        log_given: log probability that ``logits`` give to the given class, 0 where it is unknown, shape ``batch``.
    """

    def __init__(
        self, logits: Tensor, given: Tensor | None = None, *, joint: bool = False, validate_args: bool | None = None
    ) -> None:
        logits = logits.log_softmax(-1)
        self.log_given = torch.zeros_like(logits[..., 0])
        if given is not None:
            logits = logits.expand(*torch.broadcast_shapes(given.shape, logits.shape[:-1]), logits.shape[-1])
            known = given >= 0
            inferred = logits.gather(-1, given.clamp(min=0).expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)
            self.log_given = torch.where(known, inferred, torch.zeros_like(inferred))
            certain = (1 - indicators(given, logits.shape[-1], logits.dtype)) * _NEVER
            logits = torch.where(known.unsqueeze(-1), certain, logits)
        self.log_mass = self.log_given if joint else torch.zeros_like(self.log_given)
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PartlyGiven":
        new = super().expand(batch_shape, self._get_checked_instance(PartlyGiven, _instance or self._bare()))
        new.log_given = self.log_given.expand(batch_shape)
        new.log_mass = self.log_mass.expand(batch_shape)
        return new

    def _bare(self) -> "PartlyGiven":
        return PartlyGiven.__new__(PartlyGiven)

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = super().log_prob(value) + self.log_mass
        return log_prob
