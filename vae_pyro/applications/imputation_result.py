"""Imputed elements with their uncertainty, as `vae_pyro.applications.imputation.impute` gives them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_pyro.applications.html import SummaryTable

if TYPE_CHECKING:
    import pandas as pd

type Array = np.ndarray[Any, Any]

# Effective draws below which the error of an average of them is unreliable.
FEWEST_EFFECTIVE = 10


@dataclass(frozen=True)
class Imputation(SummaryTable):
    """Estimates of unobserved elements; an observed element is itself, with sd and error 0.

    All arrays but `effective_sample_size` and `ids` have shape ``(datum, *x_shape)``.

    Attributes:
        mean: E[x | x_observed]; of binary elements the probability of a one, of classes the most probable one.
        sd: standard deviation of p(x | x_observed), by the law of total variance; NaN of classes, infinite where
            p(x | z) has no variance.
        mean_se: Monte Carlo standard error of ``mean``; NaN of classes.
        lower: lower end of the central interval that holds ``level`` of p(x | x_observed); ``None`` without a level.
        upper: its upper end.
        imputations: draws of p(x_missing | x_observed) beside the observed elements, ``(imputation, datum, *x_shape)``.
        mask: true where observed.
        effective_sample_size: of the importance weights, between 1 and the number of draws; NaN for a datum that misses
            nothing. ``(datum,)``.
        ids: of the data, ``(datum,)``.
        level: of the intervals.
        num_draws: draws of z for each datum.
    """

    mean: Array
    sd: Array
    mean_se: Array
    lower: Array | None
    upper: Array | None
    imputations: Array
    mask: Array
    effective_sample_size: Array
    ids: Array
    level: float | None
    num_draws: int

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def missing(self) -> Array:
        """Boolean, ``(datum, *x_shape)``: what was imputed."""
        return ~self.mask

    def summary(self) -> dict[str, Any]:
        """Scalars: share of missing elements, effective sample sizes, relative Monte Carlo error of the means."""
        ess = self.effective_sample_size[~np.isnan(self.effective_sample_size)]
        missing = self.missing
        error, sd = self.mean_se[missing], self.sd[missing]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (error / sd)[np.isfinite(sd) & (sd > 0)]
        return {
            "n": len(self),
            "n_incomplete": len(ess),
            "missing": float(missing.mean()),
            "num_draws": self.num_draws,
            "num_imputations": len(self.imputations),
            "level": self.level,
            "effective_sample_size_median": float(np.median(ess)) if len(ess) else None,
            "effective_sample_size_least": float(ess.min()) if len(ess) else None,
            "mean_se_share_of_sd": float(np.sqrt((share**2).mean())) if len(share) else None,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each imputed element, by the id of its datum and its place in the flattened ``x_shape``.

        Columns are ``mean``, ``sd``, ``mean_se``, ``lower`` and ``upper`` where there are intervals, and the
        ``effective_sample_size`` of the datum.
        """
        import pandas as pd

        rows, places = np.nonzero(self.missing.reshape(len(self), -1))
        index = pd.MultiIndex.from_arrays([self.ids[rows], places], names=["id", "element"])
        arrays = {name: getattr(self, name) for name in ("mean", "sd", "mean_se", "lower", "upper")}
        columns = {name: array[self.missing] for name, array in arrays.items() if array is not None}
        return pd.DataFrame({**columns, "effective_sample_size": self.effective_sample_size[rows]}, index=index)

    def __str__(self) -> str:
        facts = self.summary()
        if not facts["n_incomplete"]:
            return f"{facts['n']:,} data, nothing missing"
        error, size = facts["mean_se_share_of_sd"], "effective_sample_size"
        return (
            f"{facts['n_incomplete']:,} of {facts['n']:,} data with missing elements, {facts['missing']:.1%} of all; "
            f"{self.num_draws:,} draws each, effective sample size {facts[f'{size}_median']:.0f} (median) and "
            f"{facts[f'{size}_least']:.1f} (least)"
            + ("" if error is None else f"; Monte Carlo error {error:.1%} of an element's standard deviation")
            + (", itself uncertain with so few effective draws" if facts[f"{size}_median"] < FEWEST_EFFECTIVE else "")
        )
