"""Poisson counts."""

from collections.abc import Callable

from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS
from vae_pyro.likelihoods.count_distributions import CountDistribution
from vae_pyro.likelihoods.counts import RatedCounts


@LIKELIHOODS.register("poisson", order=9)
class Poisson(RatedCounts):
    """Independent Poisson counts.

    Args:
        exposure: ``total`` for rates that are shares of the datum's total, given which densities then are.
    """

    def family(self, output: Tensor) -> Callable[[Tensor], CountDistribution]:
        return CountDistribution
