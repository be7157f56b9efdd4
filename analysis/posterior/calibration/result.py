"""The result of a calibration: ranks of the truth among draws of the guide, and their tests."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.posterior.calibration import reading, thresholds
from analysis.posterior.calibration.evidence import EvidenceBounds
from analysis.posterior.calibration.rank_statistics import RankStatistics
from analysis.posterior.calibration.z_scores import ZScores, quietly
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

HIGHEST_DENSITY, TARP = "highest density", "tarp"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Calibration(ZScores, RankStatistics, Result):
    """Ranks of the truth among draws of the guide, and tests of calibration.

    Tests: one of uniform ranks for each name, one of bias and one of width for each latent. Their p-values are
    multiplied by their number (Bonferroni), so that an exact posterior is rejected anywhere with a probability of at
    most ``1 - level``. With enough simulations every approximation is rejected; `verdicts` distinguish serious
    departures. Attributes are those of `ZScores` and `RankStatistics`, and

    Attributes:
        evidence: bounds on log p(x) at the true latents and at the draws; ``None`` where log w was not among the
            quantities. An exact guide has no error in them, so that they take no part in the tests' error rate.

    References:
        Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration.
        arXiv:1804.06788
    """

    evidence: EvidenceBounds | None = None

    @property
    def adjusted_p_values(self) -> Array:
        """`p_values` times `num_tests`, at most 1."""
        return np.minimum(self.p_values * self.num_tests, 1.0)

    @property
    def least_p_value(self) -> float:
        """The smallest p-value of all tests, adjusted for their number, at most 1."""
        return min(float(np.concatenate([self.p_values, self.p_bias, self.p_width]).min()) * self.num_tests, 1.0)

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
        """Ranks, width and bias of the worst latent, joint coverage, TARP, all at one family-wise level; evidence."""
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
            "evidence": self.evidence.summary() if self.evidence else None,
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
                *([f"  {str(self.evidence).splitlines()[0]}"] if self.evidence else []),
            ]
        )
