"""The result of calibrating a denoiser: coverage, PIT and spread of the posterior of the clean signal.

Errors are those of another sample of data: the elements of one datum depend on each other, so that a datum counts once.
"""

from dataclasses import dataclass
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from analysis.results.estimate import plus_minus
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from vae_pyro.core.means import mean_and_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# What rounding leaves of a variance of shares relative to the largest, of one alone, and of a mean share.
_RELATIVE_ROUNDING, _ROUNDED_VARIANCE, _ROUNDED_SHARE = 1e-14, 1e-30, 1e-10
_CONVENTION = "convention: intervals then miss twice, or half, as often as nominal"


@dataclass(frozen=True, eq=False, repr=False)
class DenoisingCalibration(Result):
    """Whether the posterior of the clean signal is calibrated.

    Under the model the truth is like any draw of the posterior, so that its rank among draws is uniform, an interval
    covers it at its nominal level, and its squared distance from the mean is the posterior variance on average.

    Attributes:
        covered: share of the elements of each datum whose interval holds the truth, shape ``(datum,)``. Of a signal of
            levels intervals are whole levels, and cover more than their nominal level.
        inside: share whose PIT lies in the central ``level``, likewise: of a calibrated posterior exactly the level on
            average, for levels as well.
        bins: share of each datum's PIT values in each of equal bins, ``(datum, bin)``. A PIT value is the rank of the
            truth among the draws, ties and the place within the rank broken at random.
        square: mean squared distance of the truth from the posterior mean, ``(datum,)``.
        variance: mean posterior variance, ``(datum,)``.
        level: of the intervals.

    References:
        Gneiting, Balabdaoui & Raftery 2007, Probabilistic forecasts, calibration and sharpness, JRSS B 69, sec. 3.1.
        doi:10.1111/j.1467-9868.2007.00587.x
        Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration, theorem 1.
        arXiv:1804.06788
    """

    covered: Array
    inside: Array
    bins: Array
    square: Array
    variance: Array
    level: float

    @property
    def coverage(self) -> tuple[float, float]:
        """Share of elements covered by their intervals, and its standard error over data."""
        return mean_and_error(self.covered)

    @property
    def pit_coverage(self) -> tuple[float, float]:
        """Share of PIT values in the central ``level``, and its standard error over data."""
        return mean_and_error(self.inside)

    @property
    def histogram(self) -> tuple[Array, Array]:
        """Share of PIT values in each bin and its standard error over data, each ``(bin,)``."""
        return self.bins.mean(0), self.bins.std(0, ddof=1) / sqrt(len(self.bins))

    @property
    def p_uniform(self) -> float:
        """Of uniform PIT values, by Hotelling's T^2 of the data's shares, which lets elements of a datum depend.

        Shares that are the same for every datum, or sums of shares, have no error: 0 where one is off, and otherwise
        T^2 is that of the other directions alone. NaN where there are no more data than bins.

        References:
            Hotelling 1931, The generalization of Student's ratio, Annals of Mathematical Statistics 2.
            doi:10.1214/aoms/1177732979
        """
        shares = self.bins[:, :-1]  # the last is what is left
        n, p = shares.shape
        off = shares.mean(0) - 1 / (p + 1)
        if n <= p + 1:
            return nan
        variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(shares.T)))
        varies = variances > _RELATIVE_ROUNDING * max(variances[-1], 0.0) + _ROUNDED_VARIANCE
        along = off @ directions
        # A pseudoinverse would leave these directions out, where a deviation is the clearest that there is.
        if (np.abs(along[~varies]) > _ROUNDED_SHARE).any():
            return 0.0
        rank = int(varies.sum())
        if rank == 0:
            return 1.0
        t_square = n * float((along[varies] ** 2 / variances[varies]).sum())
        return float(f_distribution.sf(t_square * (n - rank) / (rank * (n - 1)), rank, n - rank))

    @property
    def spread(self) -> tuple[float, float]:
        """Root of mean squared distance over mean posterior variance, and its standard error: above 1, too sure."""
        mean = float(self.variance.mean())
        if mean == 0:
            return (1.0 if self.square.mean() == 0 else float("inf")), float("nan")
        ratio = float(self.square.mean()) / mean
        error = float((self.square - ratio * self.variance).std(ddof=1)) / mean / sqrt(len(self.square))
        return sqrt(ratio), error / (2 * sqrt(ratio)) if ratio > 0 else float("nan")

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, each with ``<key>_se``."""
        values: dict[str, Any] = {"level": self.level, "n": len(self.covered), "p_uniform": self.p_uniform}
        for key in ("coverage", "pit_coverage", "spread"):
            values[key], values[f"{key}_se"] = getattr(self, key)
        return values

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum: coverage, share of PIT values inside, mean squared distance and posterior variance."""
        import pandas as pd

        names = ("covered", "inside", "square", "variance")
        return pd.DataFrame({name: getattr(self, name) for name in names}).rename_axis("datum")

    def plot(self) -> "Figure":
        """The PIT of the clean signal."""
        from analysis.tasks.denoising.plot import plot_calibration

        return plot_calibration(*self.histogram)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of coverage, spread and uniformity; significant at 5 % over the three together (Bonferroni)."""
        share, share_se = self.pit_coverage
        expected = f"{self.level:g}, within its error; serious where misses are twice, or half, as many"
        significant = p_of_difference(share - self.level, share_se, len(self.inside)) < 0.05 / 3
        serious = not 0.5 <= (1 - share) / (1 - self.level) <= 2
        advice = "the noise's scale is wrong, or the guide misses the posterior; see pareto k of the report"
        rows = [
            Verdict(
                question=f"Is the coverage of {self.level:.0%} intervals of the clean signal nominal?",
                value=share,
                error=share_se,
                unit="",
                threshold=expected,
                source=_CONVENTION,
                outcome=outcome_of(significant, serious),
                advice=advice if significant else "",
                name="denoising_coverage",
            )
        ]
        ratio, ratio_se = self.spread
        known = np.isfinite(ratio_se)
        off = p_of_difference(ratio - 1, ratio_se, len(self.square)) < 0.05 / 3 if known else ratio != 1
        narrow = "too narrow" if ratio > 1 else "too wide"
        rows.append(
            Verdict(
                question="Is the error of the posterior mean of the clean signal as large as the posterior sd?",
                value=ratio,
                error=ratio_se if known else None,
                unit="posterior sd",
                threshold="1, within its error; serious outside 0.84 to 1.28",
                source=_CONVENTION,
                outcome=outcome_of(off, not 1.645 / 1.960 <= ratio <= 1.645 / 1.282),
                advice=f"the posterior is {narrow}: {advice}" if off else "",
                name="denoising_spread",
            )
        )
        p = min(self.p_uniform * 3, 1.0)
        rows.append(
            Verdict(
                question="Is the PIT of the clean signal uniform?",
                value=p,
                error=None,
                unit="",
                threshold="family-wise p above 0.05",
                source="Gneiting et al. 2007, sec. 3.1; Hotelling 1931",
                outcome=outcome_of(p <= 0.05, serious),
                advice=advice if p <= 0.05 else "",
                name="denoising_pit",
            )
        )
        return tuple(rows)

    @property
    def rejected(self) -> bool:
        """Whether any of the three tests rejects calibration; by chance in about 5 % of cases.

        Of 3,000 samples each of 150 and 300 data whose 64 elements share a half or nine tenths of their variance, 4.9 %
        to 5.5 % were rejected; fewer data, whose errors are not known well enough, are not calibrated on.
        """
        return any(verdict.outcome != "pass" for verdict in self.verdicts)

    def __str__(self) -> str:
        return screen(
            [
                f"{self.level:.0%} intervals cover {plus_minus(*self.coverage)} of the clean signal "
                f"({plus_minus(*self.pit_coverage)} with ties broken at random)",
                f"  its distance from the posterior mean is {plus_minus(*self.spread)} posterior sd; "
                f"PIT p = {self.p_uniform:.2g}",
            ]
        )


def p_of_difference(difference: float, error: float, num_data: int) -> float:
    """Two-sided, of a mean difference by Student's t; without an error, whether there is a difference.

    Args:
        difference: of a mean, or a smooth function of means, from what it should be.
        error: its standard error, estimated from the data.
        num_data: that the error is estimated from, at least 2.
    """
    if error == 0:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * t_distribution.sf(abs(difference) / error, num_data - 1))


def outcome_of(significant: bool, serious: bool) -> Outcome:
    """``fail`` of what is significant and serious, ``warn`` of what is significant alone."""
    return ("fail" if serious else "warn") if significant else "pass"
