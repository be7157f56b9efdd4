"""Posterior of clean signals, as `vae_pyro.applications.denoising.denoise` gives it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_pyro.applications.html import SummaryTable

if TYPE_CHECKING:
    import xarray as xr

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Denoised(SummaryTable):
    """The posterior of the clean signal of each datum, element by element.

    Attributes:
        mean: posterior mean, shape ``(datum, *x_shape)``, in units of the clean signal.
        sd: posterior standard deviation, likewise, by the law of total variance over z.
        lower: lower end of the central interval, likewise.
        upper: upper end.
        mean_se: Monte Carlo standard error of ``mean``, likewise. It trusts the importance weights: where the effective
            sample size is small it is too small itself.
        effective_sample_size: of the importance weights, between 1 and ``num_draws``, shape ``(datum,)``.
        draws: draws of the posterior, ``(draw, datum, *x_shape)``; ``None`` where none were asked for.
        level: probability of the intervals.
        num_draws: draws of z for each datum.
        ids: row of each datum in its source, shape ``(datum,)``.
    """

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    mean_se: Array
    effective_sample_size: Array
    draws: Array | None
    level: float
    num_draws: int
    ids: Array

    def __len__(self) -> int:
        return len(self.mean)

    def summary(self) -> dict[str, Any]:
        """Scalars: root mean square posterior sd, share of it that is Monte Carlo error, effective sample size."""
        spread = float(np.sqrt((self.sd**2).mean()))
        return {
            "n": len(self),
            "num_draws": self.num_draws,
            "level": self.level,
            "posterior_sd": spread,
            "monte_carlo_se": float(np.sqrt((self.mean_se**2).mean())),
            "median_effective_sample_size": float(np.median(self.effective_sample_size)),
            "least_effective_sample_size": float(self.effective_sample_size.min()),
        }

    def to_xarray(self) -> "xr.Dataset":
        """Moments and intervals by ``datum``, with ``ids`` as its coordinate, and ``x_dim_0``, ``x_dim_1``, ...

        ``draws`` are among the variables where they were kept. Attributes are ``level`` and ``num_draws``.
        """
        import xarray as xr

        dims = ("datum", *(f"x_dim_{number}" for number in range(self.mean.ndim - 1)))
        variables: dict[str, Any] = {
            name: (dims, getattr(self, name)) for name in ("mean", "sd", "lower", "upper", "mean_se")
        }
        variables["effective_sample_size"] = ("datum", self.effective_sample_size)
        if self.draws is not None:
            variables["draws"] = (("draw", *dims), self.draws)
        attributes = {"level": self.level, "num_draws": self.num_draws}
        return xr.Dataset(variables, coords={"datum": self.ids}, attrs=attributes)

    def __str__(self) -> str:
        summary = self.summary()
        return (
            f"{len(self):,} data denoised with {self.num_draws:,} draws each: posterior sd "
            f"{summary['posterior_sd']:.3g} (root mean square), Monte Carlo error of the mean "
            f"{summary['monte_carlo_se']:.2g}; effective sample size {summary['median_effective_sample_size']:.0f} in "
            f"the median, at least {summary['least_effective_sample_size']:.0f}"
        )
