"""Sticking the landing: the ELBO with the path-derivative gradient."""

from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.objectives.base import OBJECTIVES, MonteCarloObjective


@OBJECTIVES.register("stl", order=3)
class STL(MonteCarloObjective):
    """Sticking the landing: the ELBO, with the guide's gradient through the draws alone.

    The score ``E_q[d log q]`` that is left out is zero on average and not in a sample, so the gradient is unbiased, and
    exactly zero where the guide is the posterior. (An exact zero holds for the guide's parameters; a prior made of
    posteriors, such as the VampPrior, keeps its gradient through log p(z).)

    References:
        Roeder, Wu & Duvenaud 2017, Sticking the landing, the path derivative. arXiv:1703.09194
    """

    stop_guide = True
    kl_factor = 1.0

    def bound(self, densities: LogDensities) -> Tensor:
        return densities.log_weight.mean(0)
