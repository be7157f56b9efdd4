"""Variational Renyi bound."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective, Particles
from vae_pyro.objectives.importance_weights import log_mean_exp


def _not_one(alpha: float | str) -> float | str:
    if alpha == 1:
        raise ValueError("alpha = 1 is the ELBO; choose objective 'elbo'")
    return alpha


@OBJECTIVES.register("renyi", order=10)
class Renyi(MonteCarloObjective):
    """Variational Renyi bound ``1 / (1 - alpha) log 1/K sum_k w_k^(1 - alpha)``.

    It falls as alpha rises: ``alpha = 0`` is `iwae`, ``alpha -> 1`` the ELBO, and ``"max"`` (alpha = -inf) keeps the
    largest weight of each datum alone. In expectation over few draws it is below its limit for alpha < 1 and above for
    alpha > 1. It is the per-datum bound of Pyro's `RenyiELBO`, without the scale of a subsampling plate, which there
    becomes an exponent.

    Args:
        num_particles: K.
        alpha: order, not 1; negative orders do not bound log p(x) from below.

    References:
        Li & Turner 2016, Renyi divergence variational inference, the VR bound and VR-max. arXiv:1602.02311
    """

    importance_weighted = True

    def __init__(
        self,
        *,
        num_particles: Particles = 5,
        alpha: Annotated[Annotated[float, Field(allow_inf_nan=False)] | Literal["max"], AfterValidator(_not_one)] = 0.5,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.alpha = alpha

    def bound(self, densities: LogDensities) -> Tensor:
        if isinstance(self.alpha, str):
            return densities.log_weight.max(0).values
        return log_mean_exp((1 - self.alpha) * densities.log_weight) / (1 - self.alpha)
