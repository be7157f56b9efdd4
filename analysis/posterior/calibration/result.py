"""The result of a calibration: ranks of the truth among draws of the guide, and their tests."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.posterior.calibration import reading, thresholds
from analysis.posterior.calibration.z_scores import ZScores, quietly
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.ecdf_bands import EcdfBand, ecdf_band, uniformity_p_value
from analysis.stats.ranks import binomial_se, coverage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

HIGHEST_DENSITY, TARP = "highest density", "tarp"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Calibration(ZScores, Result):
    """Ranks of the truth among draws of the guide, and tests of calibration.

    Tests: one of uniform ranks for each name, one of bias and one of width for each latent. Their p-values are
    multiplied by their number (Bonferroni), so that an exact posterior is rejected anywhere with a probability of at
    most ``1 - level``. With enough simulations every approximation is rejected; `verdicts` distinguish serious
    departures.

    Attributes:
        names: of the columns of ``ranks``: latents, quantities, ``highest density``, ``tarp``.
        ranks: draws below the truth, in ``0..num_draws``, shape ``(simulation, name)``. For ``highest density``, draws
            of a higher log q(z | x) than the truth; for ``tarp``, draws closer to a random point than the truth.
        num_latents: how many of the names are latents, the first ones.
        num_draws: draws of the guide for each simulation.
        level: probability that an exact posterior passes every test, at least.

    References:
        Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration.
        arXiv:1804.06788
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
    def adjusted_p_values(self) -> Array:
        """`p_values` times `num_tests`, at most 1."""
        return np.minimum(self.p_values * self.num_tests, 1.0)

    @property
    def least_p_value(self) -> float:
        """The smallest p-value of all tests, adjusted for their number, at most 1."""
        return min(float(np.concatenate([self.p_values, self.p_bias, self.p_width]).min()) * self.num_tests, 1.0)

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

    def significant(self, p_value: float) -> bool:
        """Whether a p-value that is not adjusted is significant among `num_tests`."""
        return bool(p_value * self.num_tests <= 1 - self.level)

    @property
    def rejected(self) -> bool:
        """Whether any test rejects that the guide is the posterior."""
        p = np.concatenate([self.p_values, self.p_bias, self.p_width])
        return self.significant(p.min())

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of each latent: ``calibrated``, ``too narrow``, ``too wide``, ``biased``, two of them, or ``misshapen``.

        ``misshapen`` is a latent whose ranks are not uniform while bias and width are in order. A bias that changes
        sign from datum to datum makes the guide too narrow for its error, and is called so.
        """
        return reading.labels(self)

    @property
    def statement(self) -> str:
        """How the guide departs from the posterior, in a sentence, with the worst latents and by how much."""
        return reading.statement(self)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Ranks, width and bias of the worst latent, joint coverage, and TARP, all at one family-wise level."""
        return thresholds.verdicts_of(self)

    def summary(self) -> dict[str, Any]:
        """Scalars, by latent where there is one for each; JSON-able."""
        level, cover, cover_se = self.coverage_at(0.9)
        joint_level, joint, joint_se = self.joint_coverage_at(0.9)

        def by_latent(values: Array) -> dict[str, float | None]:
            return {name: finite_or_none(value) for name, value in zip(self.latents, values, strict=True)}

        return {
            "num_simulations": self.num_simulations,
            "num_draws": self.num_draws,
            "num_tests": self.num_tests,
            "level": self.level,
            "rejected": self.rejected,
            "outcome": self.outcome,
            "statement": self.statement,
            "labels": dict(zip(self.latents, self.labels, strict=True)),
            "p_values": dict(zip(self.names, map(float, self.p_values), strict=True)),
            "bias": by_latent(self.bias),
            "bias_se": by_latent(self.bias_se),
            "spread": by_latent(self.spread),
            "spread_se": by_latent(self.spread_se),
            "contraction": by_latent(quietly(lambda: self.contraction.mean(0))),
            "coverage_level": level,
            "coverage": by_latent(cover),
            "coverage_se": by_latent(cover_se),
            "highest_density_level": joint_level,
            "highest_density_coverage": joint,
            "highest_density_coverage_se": joint_se,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a latent, by name: coverage of 90 % intervals, bias, spread, contraction, p-values and label."""
        import pandas as pd

        _, cover, cover_se = self.coverage_at(0.9)
        columns = {
            "coverage": cover,
            "coverage_se": cover_se,
            "bias": self.bias,
            "bias_se": self.bias_se,
            "spread": self.spread,
            "spread_se": self.spread_se,
            "contraction": quietly(lambda: self.contraction.mean(0)),
            "p_rank": self.p_values[: self.num_latents],
            "p_bias": self.p_bias,
            "p_width": self.p_width,
            "label": self.labels,
        }
        return pd.DataFrame(columns, index=pd.Index(self.latents, name="latent"))

    def plot(self) -> "Figure":
        """ECDF of the ranks of every name minus uniform, with its simultaneous band."""
        from analysis.plotting.ecdf import plot_ecdf_difference

        band = self.band
        curves = band.grid[:, None] + self.ecdf_difference
        return plot_ecdf_difference(band.grid, curves, band.lower, band.upper, self.names)

    def __str__(self) -> str:
        level, cover, error = self.coverage_at(0.9)
        low = int(np.argmin(cover))
        return screen(
            [
                f"calibration of the guide: {self.num_simulations:,} simulations, {self.num_draws:,} draws each",
                f"  smallest family-wise p of {self.num_tests} tests: {self.least_p_value:.2g} "
                f"(expected above {1 - self.level:.2g})",
                f"  {level:.0%} intervals cover the truth in {cover.mean():.1%} on average, least in "
                f"{self.names[low]}: {cover[low]:.1%} ± {error[low]:.1%}",
                f"  {self.statement}",
            ]
        )
