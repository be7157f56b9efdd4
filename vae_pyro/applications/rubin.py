"""Rubin's rules: estimates pooled over imputed data sets, with the uncertainty due to missing elements."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pooled:
    """Estimates pooled over imputations; a number or an array each, in the units of the estimates.

    Attributes:
        estimate: the mean over imputations.
        variance: total variance T, within imputations and between them.
        within: mean of the variances that the imputed data sets give.
        between: variance of the estimates over imputations.
        df: degrees of freedom of the t distribution of ``(estimate - truth) / sqrt(variance)``.
        num_imputations: m.
    """

    estimate: Any
    variance: Any
    within: Any
    between: Any
    df: Any
    num_imputations: int

    @property
    def se(self) -> Any:
        """Standard error, the root of the total variance."""
        return np.sqrt(self.variance)

    @property
    def relative_increase(self) -> Any:
        """r: relative increase in variance due to missing elements; infinite where ``within`` is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            added = np.asarray((1 + 1 / self.num_imputations) * self.between)
            return np.where(added > 0, added / self.within, 0.0)[()]

    @property
    def missing_information(self) -> Any:
        """Fraction of information about the estimand that is missing, ``(r + 2 / (df + 3)) / (r + 1)``.

        References:
            Rubin 1987, Multiple imputation for nonresponse in surveys, eq. 3.1.10.
        """
        r = np.asarray(self.relative_increase)
        with np.errstate(invalid="ignore"):
            share = (r + 2 / (np.asarray(self.df) + 3)) / (r + 1)
        return np.where(np.isinf(r), 1.0, np.where(r == 0, 0.0, share))[()]

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Central interval that holds the truth with this probability.

        Raises:
            ValueError: a level outside (0, 1).
        """
        from scipy.stats import norm, t

        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        upper, df = (1 + level) / 2, np.asarray(self.df)
        finite = np.where(np.isinf(df), 1.0, df)
        half = np.where(np.isinf(df), norm.ppf(upper), t.ppf(upper, finite)) * self.se
        return (self.estimate - half)[()], (self.estimate + half)[()]

    def summary(self) -> dict[str, Any]:
        """Scalars: sizes, and over all estimates the least ``df`` and the largest ``missing_information``."""
        return {
            "num_estimates": int(np.size(self.estimate)),
            "num_imputations": self.num_imputations,
            "df_least": float(np.min(self.df)),
            "missing_information_most": float(np.max(self.missing_information)),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each estimate, flattened: ``estimate``, ``se``, ``df`` and ``missing_information``."""
        import pandas as pd

        names = ("estimate", "se", "df", "missing_information")
        return pd.DataFrame({name: np.ravel(getattr(self, name)) for name in names})

    def __str__(self) -> str:
        if np.ndim(self.estimate):
            return f"{np.size(self.estimate)} estimates pooled over {self.num_imputations} imputations"
        return (
            f"{self.estimate:.4g} ± {self.se:.2g} (df {self.df:.1f}, {self.missing_information:.0%} of the information "
            f"missing, {self.num_imputations} imputations)"
        )

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(max_rows=20, float_format="{:.4g}".format))


def pool(estimates: Any, variances: Any, *, df_complete: float = np.inf) -> Pooled:
    """Pool the estimates of an analysis on each of m imputed data sets.

    Total variance ``T = within + (1 + 1/m) between``; ``df = (m - 1) (1 + 1/r)^2`` with
    ``r = (1 + 1/m) between / within``, and with finite ``df_complete`` the harmonic combination of that and
    ``(df_complete + 1) / (df_complete + 3) df_complete (1 - (1 + 1/m) between / T)``.

    Args:
        estimates: of each imputed data set, shape ``(imputation, ...)``.
        variances: their squared standard errors, same shape.
        df_complete: degrees of freedom that the analysis would have had with nothing missing.

    Returns:
        Of shape ``(...)``.

    Raises:
        ValueError: fewer than 2 imputations, shapes that differ, numbers that are not finite, negative variances, or,
            with ``df_complete``, estimates that differ and have no variance.

    References:
        Rubin 1987, Multiple imputation for nonresponse in surveys, sec. 3.1.
        Barnard & Rubin 1999, Small-sample degrees of freedom with multiple imputation, Biometrika 86.
        doi:10.1093/biomet/86.4.948
    """
    q, u = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if q.shape != u.shape or q.ndim == 0:
        raise ValueError(f"estimates and variances must have one shape (imputation, ...), got {q.shape} and {u.shape}")
    m = len(q)
    if m < 2:
        raise ValueError(f"at least 2 imputations are required, got {m}: one has no variance between imputations")
    if not (np.isfinite(q).all() and np.isfinite(u).all()):
        raise ValueError("estimates and variances must be finite")
    if (u < 0).any():
        raise ValueError(f"a variance is negative: {u.min():g}; pass squared standard errors")
    if not df_complete > 0:
        raise ValueError(f"df_complete must be above 0, got {df_complete}")
    within, between = u.mean(0), q.var(0, ddof=1)
    if np.isfinite(df_complete) and ((within == 0) & (between > 0)).any():
        raise ValueError(
            "all variances of an estimate are 0, which cannot be with finitely many degrees of freedom; give squared "
            "standard errors, or leave df_complete out"
        )
    added = (1 + 1 / m) * between
    total = within + added
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total > 0, added / total, 0.0)
        df = np.where(share > 0, (m - 1) / share**2, np.inf)
        if np.isfinite(df_complete):
            observed = (df_complete + 1) / (df_complete + 3) * df_complete * (1 - share)
            df = np.where(observed > 0, 1 / (1 / df + 1 / observed), 0.0)
    return Pooled(q.mean(0)[()], total[()], within[()], between[()], df[()], m)
