"""Conformal regions of latents, as a result."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from analysis.results.result import Result
from analysis.results.text import screen
from vae_pyro.densities.walk import PairData

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class CredibleRegions(Result):
    """Regions of each datum's latents that cover at their level over the fitted model.

    Attributes:
        data: the pair with its data.
        level: of the joint region, and of each latent's interval.
        threshold: of log q(z | x), nats: the joint region is where it is at least this.
        mean: of the guide, ``(datum, latent)``; several sites stand side by side, in the order of their names.
        sd: standard deviation of the guide, likewise.
        factor: standard deviations from the mean to an end of an interval, ``(latent,)``.
        nominal: `factor` of a Gaussian guide that is exact.
        num_calibration: simulated data.
    """

    data: PairData = field(repr=False)
    level: float
    threshold: float
    mean: Array
    sd: Array
    factor: Array
    nominal: float
    num_calibration: int

    @property
    def lower(self) -> Array:
        """Lower ends of the intervals, ``(datum, latent)``."""
        return np.asarray(self.mean - self.factor * self.sd)

    @property
    def upper(self) -> Array:
        """Upper ends of the intervals, ``(datum, latent)``."""
        return np.asarray(self.mean + self.factor * self.sd)

    @torch.no_grad()
    def contains(self, latents: dict[str, Tensor]) -> Array:
        """Whether draws lie in the joint region, boolean ``(draw, datum)``.

        Args:
            latents: of every site, ``(draw, datum, *event)``, of all data.
        """
        x, given = self.data.batch(slice(0, len(self.data)))
        placed = {name: value.to(self.data.device, self.data.dtype) for name, value in latents.items()}
        log_guide = self.data.programs.score_guide(x, placed, **given)
        return np.asarray((log_guide >= self.threshold).cpu().numpy())

    def summary(self) -> dict[str, Any]:
        """Level, threshold, and how much wider the intervals are than an exact Gaussian guide's would be."""
        return {
            "level": self.level,
            "threshold": self.threshold,
            "widening": float(self.factor.mean() / self.nominal),
            "mean_width": float((self.upper - self.lower).mean()),
            "num_calibration": self.num_calibration,
            "n": len(self.mean),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each datum and latent: both ends of the interval."""
        import pandas as pd

        ids = self.data.split.ids.cpu().numpy()
        index = pd.MultiIndex.from_product([ids, range(self.mean.shape[1])], names=["datum", "latent"])
        return pd.DataFrame({"lower": self.lower.ravel(), "upper": self.upper.ravel()}, index=index)

    def plot(self) -> "Figure":
        """Standard deviations of the guide from the mean to an end of each latent's interval."""
        from analysis.plotting import plot_bars

        return plot_bars([str(latent) for latent in range(len(self.factor))], self.factor)

    def __str__(self) -> str:
        return screen(
            [
                f"conformal {self.level:.0%} regions of {len(self.mean):,} data, calibrated on "
                f"{self.num_calibration:,} draws of the model",
                f"  joint: log q(z | x) at least {self.threshold:.3f} nats",
                f"  intervals: mean ± {self.factor.min():.2f} to {self.factor.max():.2f} standard deviations of the "
                f"guide (an exact Gaussian guide: {self.nominal:.2f})",
            ]
        )
