"""Ranks of the truth among draws of the guide: their bands, p-values and histograms, and coverage."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.stats.ecdf_bands import EcdfBand, ecdf_band, uniformity_p_value
from analysis.stats.ranks import binomial_se, coverage

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RankStatistics:
    """Ranks of the truth among draws of the guide, which are uniform where the guide is the posterior.

    Attributes:
        names: of the columns of ``ranks``: latents, quantities, ``highest density``, ``tarp``.
        ranks: draws below the truth, in ``0..num_draws``, shape ``(simulation, name)``. For ``highest density``, draws
            of a higher log q(z | x) than the truth; for ``tarp``, draws closer to a random point than the truth.
        num_latents: how many of the names are latents, the first ones.
        num_draws: draws of the guide for each simulation.
        level: probability that an exact posterior passes every test, at least.
    """

    names: tuple[str, ...]
    ranks: Array
    num_latents: int
    num_draws: int
    level: float = 0.95

    @property
    def num_simulations(self) -> int:
        """Latents and data drawn from the model."""
        return len(self.ranks)

    @property
    def num_tests(self) -> int:
        """Number of tests, by which p-values are multiplied."""
        return len(self.names) + 2 * self.num_latents

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the latents."""
        return self.names[: self.num_latents]

    @cached_property
    def band(self) -> EcdfBand:
        """Band of every column's ECDF; any column outside has an adjusted p-value of at most ``1 - level``."""
        level = 1 - (1 - self.level) / self.num_tests
        return ecdf_band(self.num_simulations, level=level, num_ranks=self.num_draws + 1)

    @property
    def ecdf_difference(self) -> Array:
        """ECDF of the ranks minus uniform on `band`'s grid, shape ``(point, name)``; the band minus grid bounds it."""
        return self.band.difference(self.ranks)

    @cached_property
    def p_values(self) -> Array:
        """Of uniform ranks, each on its own (not adjusted), shape ``(name,)``."""
        return np.asarray(uniformity_p_value(self.ranks, num_ranks=self.num_draws + 1))

    @property
    def coverage(self) -> tuple[Array, Array]:
        """Nominal levels ``(level,)`` of central intervals, and how often they cover the truth, ``(level, latent)``."""
        return coverage(self.ranks[:, : self.num_latents], self.num_draws)

    @cached_property
    def coverage_band(self) -> EcdfBand:
        """Band of each latent's coverage curve, simultaneous over levels and (as `band`) over tests."""
        level = 1 - (1 - self.level) / self.num_tests
        return ecdf_band(self.num_simulations, level=level, grid=self.coverage[0])

    @property
    def highest_density_coverage(self) -> tuple[Array, Array]:
        """Nominal levels (`band`'s grid) of highest-density regions of the guide, and how often they cover the truth.

        References:
            Hermans et al. 2022, A trust crisis in simulation-based inference? arXiv:2110.06581
        """
        return self.band.grid, self.band.ecdf(self.ranks[:, -2])

    @property
    def tarp_coverage(self) -> tuple[Array, Array]:
        """Nominal levels (`band`'s grid) of balls around random points, and how often they cover the truth.

        References:
            Lemos et al. 2023, Sampling-based accuracy testing of posterior estimators for general inference.
            arXiv:2302.03026
        """
        return self.band.grid, self.band.ecdf(self.ranks[:, -1])

    def coverage_at(self, nominal: float = 0.9) -> tuple[float, Array, Array]:
        """Coverage of the central intervals of the nearest level that the number of draws allows.

        Returns:
            That level, the coverage of each latent, and its binomial standard error, each ``(latent,)``.
        """
        levels, curve = self.coverage
        nearest = int(np.abs(levels - nominal).argmin())
        share = curve[nearest]
        return float(levels[nearest]), share, binomial_se(share, self.num_simulations)

    def joint_coverage_at(self, nominal: float = 0.9) -> tuple[float, float, float]:
        """The same of highest-density regions of all latents together: level, coverage and its standard error."""
        nearest = int(np.abs(self.band.grid - nominal).argmin())
        joint = self.highest_density_coverage[1][nearest]
        return float(self.band.grid[nearest]), float(joint), float(binomial_se(joint, self.num_simulations))

    def histogram(self, num_bins: int | None = None) -> tuple[Array, Array, float, float]:
        """Rank histogram of every name.

        Args:
            num_bins: must divide ``num_draws + 1``; ``None`` takes the largest such number up to 20.

        Returns:
            Edges ``(num_bins + 1,)``, counts ``(bin, name)``, and the counts between which a single bin of uniform
            ranks lies with a probability of 0.95.

        Raises:
            ValueError: bins that would hold different numbers of ranks.

        References:
            Talts et al. 2018. arXiv:1804.06788
        """
        possible = self.num_draws + 1
        divisors = [bins for bins in range(1, possible + 1) if possible % bins == 0]
        if num_bins is None:
            num_bins = max(bins for bins in divisors if bins <= 20)
        if num_bins not in divisors:
            raise ValueError(
                f"num_bins must divide num_draws + 1 = {possible}, got {num_bins}; choose from "
                f"{', '.join(map(str, divisors))}"
            )
        width = possible // num_bins
        counts = np.stack([np.bincount(column // width, minlength=num_bins) for column in self.ranks.T], axis=1)
        edges = np.arange(num_bins + 1) * width
        if num_bins == 1:
            return edges, counts, float(self.num_simulations), float(self.num_simulations)
        single = ecdf_band(self.num_simulations, grid=np.array([1 / num_bins]))
        low, high = (float(bound[0]) * self.num_simulations for bound in (single.lower, single.upper))
        return edges, counts, low, high
