"""The rate-distortion curve of fits that differ in beta, with the bounds on it.

For one pair, the rate R = E KL(q(z | x) || p(z)) is the cost of sending the latent of a datum, the distortion
D = -E log p(x | z) the cost of the datum given its latent, both in nats. R + D is minus the ELBO; a beta-VAE minimises
D + beta R. With H the entropy of the data and I the information between x and z under q(z | x), H - D <= I <= R.

References:
    Alemi et al. 2018, Fixing a broken ELBO, eqs. 1-4 and sec. 2.3. arXiv:1711.00464
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.experiments.rate_distortion.points import (
    Dominated,
    RatePoint,
    Secant,
    bound_verdict,
    dominated,
    optimality_verdict,
    secants,
)
from analysis.results.estimate import plus_minus
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.rate_distortion import gaussian_rate, lower_convex_hull

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

_BOUND_POINTS = 50


@dataclass(frozen=True, repr=False)
class RateDistortion(Result):
    """Fits in the plane of rate and distortion, on the same data with the same draws, by increasing beta.

    Attributes:
        points: the fits.
        num_draws: draws for each datum.
        entropy: H of the data in nats, where it is known.
        spectrum: eigenvalues of the covariance of the data, where these are Gaussian; with ``scale`` they give the
            least rate at each distortion.
        scale: standard deviation of the Gaussian likelihood.
    """

    points: tuple[RatePoint, ...]
    num_draws: int
    entropy: float | None = None
    spectrum: Array | None = None
    scale: float | None = None

    @classmethod
    def of(cls, points: Sequence[RatePoint], num_draws: int, **bounds: Any) -> "RateDistortion":
        """Fits in any order; those without a beta come last."""
        ordered = sorted(points, key=lambda point: (point.beta is None, point.beta or 0.0, -point.rate.mean()))
        return cls(tuple(ordered), num_draws, **bounds)

    @cached_property
    def rate(self) -> Array:
        """Mean rates, ``(fit,)``."""
        return np.array([point.rate.mean() for point in self.points])

    @cached_property
    def distortion(self) -> Array:
        """Mean distortions, ``(fit,)``."""
        return np.array([point.distortion.mean() for point in self.points])

    @property
    def hull(self) -> tuple[int, ...]:
        """Fits on the lower convex hull, from the smallest distortion to the smallest rate."""
        return lower_convex_hull(self.distortion, self.rate)

    @cached_property
    def secants(self) -> tuple[Secant, ...]:
        """Slopes between neighbours in beta, see `analysis.experiments.rate_distortion.points.secants`."""
        return secants(self.points)

    @cached_property
    def dominated(self) -> tuple[Dominated, ...]:
        """Fits that another one beats at their own D + beta R, with the one that beats them most clearly."""
        return dominated(self.points)

    @cached_property
    def above_entropy(self) -> tuple[tuple[float, float], ...] | None:
        """R + D - H of each fit, at least 0 in truth, with its standard error for other data and draws."""
        if self.entropy is None:
            return None
        means = [point.mean(1.0, 1.0) for point in self.points]
        return tuple((mean - self.entropy, se) for mean, se in means)

    @cached_property
    def above_bound(self) -> tuple[tuple[float, float], ...] | None:
        """Rate of each fit minus the least rate for Gaussian data at its distortion, at least 0 in truth.

        The standard error, for other data and draws, is that of R minus the bound's slope times D.
        """
        if self.spectrum is None or self.scale is None:
            return None
        found = []
        for point in self.points:
            bound, slope = gaussian_rate(self.spectrum, self.scale, float(point.distortion.mean()))
            found.append((float(point.rate.mean()) - bound, point.mean(1.0, -slope)[1] if isfinite(slope) else nan))
        return tuple(found)

    @cached_property
    def above_information(self) -> tuple[tuple[float, float] | None, ...]:
        """R minus the lower bound on I of each fit, with that bound's standard error; ``None`` where it has none."""
        return tuple(
            None if p.information is None else (float(p.rate.mean()) - p.information.lower, p.information.lower_se)
            for p in self.points
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the curve respects its bounds, and whether each fit is the best of its own objective."""
        found = []
        for name, question, excess, advice in (
            ("entropy_bound", "Is rate plus distortion at least the entropy of the data?", self.above_entropy,
             "R + D below H is impossible: the densities are not normalised, or the entropy is that of other data"),
            ("gaussian_bound", "Is the rate at least that of the best code of Gaussian data?", self.above_bound,
             "a rate below the bound is impossible: the KL is wrong, or the data do not have that covariance"),
            ("information_bound", "Is the rate at least the information in the latents?",
             tuple(one for one in self.above_information if one is not None) or None,
             "R below I is impossible: the KL is not that of q(z | x) from p(z)"),
        ):  # fmt: skip
            if excess is not None:
                found.append(bound_verdict(name, question, excess, advice))
        if sum(point.beta is not None for point in self.points) > 1:
            found.append(optimality_verdict(self.dominated))
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """JSON-able, nats per datum; ``_se`` is for other data and draws, ``_mcse`` for other draws."""
        points: list[dict[str, Any]] = self.to_dataframe().reset_index().to_dict("records")
        for point, row in zip(self.points, points, strict=True):
            row["beta"] = point.beta  # pandas turns None into NaN
            if point.information is not None:
                row["information"] = point.information.summary()
        return {
            "points": points,
            "secants": [vars(one) for one in self.secants],
            "beaten": [vars(one) for one in self.dominated],
            "entropy": self.entropy,
            "n": len(self.points[0]),
            "num_draws": self.num_draws,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each fit: means in nats per datum with their errors, and whether it lies on the hull."""
        import pandas as pd

        hull, rows = self.hull, []
        for index, point in enumerate(self.points):
            row: dict[str, Any] = {"label": point.label, "beta": point.beta}
            for name, weights in (("rate", (1, 0)), ("distortion", (0, 1))):
                mean, error = point.mean(*weights)
                row |= {name: mean, f"{name}_se": error, f"{name}_mcse": point.mcse(name)}
            elbo, error = point.mean(-1, -1)
            rows.append({**row, "elbo": elbo, "elbo_se": error, "on_hull": index in hull})
        return pd.DataFrame(rows).set_index("label")

    def plot(self) -> "Figure":
        """Rate against distortion with the hull and the known bounds, see `plot_rate_distortion`."""
        from analysis.experiments.rate_distortion.plot import plot_rate_distortion

        bound = None
        if self.spectrum is not None and self.scale is not None:
            where = np.linspace(self.distortion.min(), self.distortion.max(), _BOUND_POINTS)
            bound = where, np.array([gaussian_rate(self.spectrum, self.scale, float(d))[0] for d in where])
        return plot_rate_distortion(
            self.rate,
            self.distortion,
            rate_se=np.array([point.mean(1, 0)[1] for point in self.points]),
            distortion_se=np.array([point.mean(0, 1)[1] for point in self.points]),
            labels=[point.label for point in self.points],
            hull=self.hull,
            entropy=self.entropy,
            bound=bound,
        )

    def __str__(self) -> str:
        width = max(len(point.label) for point in self.points)
        lines = [f"{'fit':<{width}}  {'beta':>6}  {'rate':>16}  {'distortion':>18}  {'ELBO':>19}"]
        hull = self.hull
        for i, point in enumerate(self.points):
            beta = "-" if point.beta is None else f"{point.beta:g}"
            cells = [plus_minus(*point.mean(*weights)) for weights in ((1, 0), (0, 1), (-1, -1))]
            mark = "" if i in hull else "  above the hull"
            lines.append(f"{point.label:<{width}}  {beta:>6}  {cells[0]:>16}  {cells[1]:>18}  {cells[2]:>19}{mark}")
        lines.append(f"nats per datum ± standard error over {len(self.points[0])} data, {self.num_draws} draws of each")
        return screen([*lines, *map(str, self.verdicts)])

    def __repr__(self) -> str:
        return f"<RateDistortion: {len(self.points)} fits, {len(self.points[0])} data, {self.num_draws} draws of each>"
