"""Held-out log predictive density: log p(x_i) of each datum by importance sampling, with its errors and k-hat.

With point estimates of the decoder's weights there is no posterior over parameters to leave one out of, and PSIS-LOO of
log p(x_i | z_i) would be a harmonic-mean estimate of log p(x_i). So the criterion is log p(x_i) itself, held out.
"""

from dataclasses import dataclass
from math import log10, sqrt
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ELPD:
    """Expected log pointwise predictive density of held-out data, in nats.

    Attributes:
        pointwise: estimate of log p(x_i), shape ``(datum,)``, on average below the truth.
        pointwise_mcse: Monte Carlo standard error of each.
        pareto_k: tail shape of each datum's importance weights.
        good_k: threshold below which the estimate and its error can be trusted.
        num_draws: draws for each datum.
    """

    pointwise: Array
    pointwise_mcse: Array
    pareto_k: Array
    good_k: float
    num_draws: int

    @property
    def elpd(self) -> float:
        """Sum over data, nats."""
        return float(self.pointwise.sum())

    @property
    def se(self) -> float:
        """Standard error of `elpd` as an estimate for another test set of this size, nats."""
        return (
            float(sqrt(len(self.pointwise)) * self.pointwise.std(ddof=1)) if len(self.pointwise) > 1 else float("nan")
        )

    @property
    def mcse(self) -> float:
        """Monte Carlo standard error of `elpd`, nats."""
        return float(np.sqrt((self.pointwise_mcse**2).sum()))

    @property
    def num_bad(self) -> int:
        """Data whose k-hat is above `good_k`."""
        return int((~(self.pareto_k <= self.good_k)).sum())

    def __str__(self) -> str:
        n = len(self.pointwise)
        verdict = (
            "the guide is close enough everywhere"
            if self.num_bad == 0
            else f"there the estimate is too low by an unknown amount: raise num_draws (now {self.num_draws:,}) or "
            "widen the guide"
        )
        return (
            f"elpd {self.elpd:.1f} nats over {n:,} held-out data ({self.elpd / n:.3f} each)\n"
            f"  standard error {self.se:.1f} (another test set), {self.mcse:.2f} (other draws)\n"
            f"  k-hat above {self.good_k:.2f}: {self.num_bad:,} of {n:,}; {verdict}"
        )


def log_evidence(log_weight: Array) -> tuple[Array, Array]:
    """Importance-sampling estimate of log p(x) and its Monte Carlo standard error.

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``.

    Returns:
        Two arrays of shape ``(datum,)``, float64. The error is the delta method's,
        ``sqrt(sum w^2 / (sum w)^2 - 1 / K)``.

    References:
        Burda et al. 2016, Importance weighted autoencoders, eq. 8. arXiv:1509.00519
    """
    weight = np.asarray(log_weight, dtype=np.float64)
    total = logsumexp(weight, axis=0)
    relative = np.exp(logsumexp(2 * weight, axis=0) - 2 * total) - 1 / len(weight)
    return total - np.log(len(weight)), np.sqrt(np.maximum(relative, 0))


def pareto_k(log_weight: Array) -> Array:
    """Shape of the generalised Pareto tail of the importance weights of each datum (arviz-stats' PSIS).

    Args:
        log_weight: log p(x, z) - log q(z | x) in nats, shape ``(particle, datum)``; at least 25 particles.

    Returns:
        Shape ``(datum,)``, float64. Minus infinity where all weights are equal: the guide is the posterior there. Plus
        infinity where a weight is zero: the guide leaves the support, and no tail says how much it misses.

    Raises:
        ValueError: fewer than 25 particles, or a weight is NaN or +inf (the message gives its datum).

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25, sec. 3. arXiv:1507.02646
    """
    weight = np.asarray(log_weight, dtype=np.float64)
    if len(weight) < 25:
        raise ValueError(f"a tail needs at least 25 draws, got {len(weight)}; raise num_draws")
    bad = np.isnan(weight).any(0) | np.isposinf(weight).any(0)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} data have a log weight that is NaN or +inf, the first is {int(bad.argmax())}"
        )
    from arviz_stats.base import array_stats

    # A weight of zero says that the guide draws where p(x, z) = 0: equal weights elsewhere are then no sign of a match.
    positive = np.isfinite(weight).all(0)
    shape = np.where(positive, -np.inf, np.inf)
    # Rounding leaves equal weights a few ulps apart, and a tail fitted to rounding would be reported as a tail.
    kept = weight[:, positive]
    varied = np.flatnonzero(positive)[np.ptp(kept, axis=0) > 1e-6 * np.maximum(1.0, np.abs(kept).max(0))]
    if len(varied):
        # psislw takes log likelihoods to leave out, whose negative is the log weight.
        _, k = array_stats.psislw(-weight[:, varied], axis=0)
        shape[varied] = k
    return shape


def elpd(tree: xr.DataTree) -> ELPD:
    """Held-out log predictive density from the ``log_weight`` of `analysis.to_datatree`.

    Raises:
        ValueError: the tree has no log weights, or fewer than 25 draws.
    """
    if "sample_stats" not in tree or "log_weight" not in tree["sample_stats"]:
        raise ValueError("the tree has no sample_stats/log_weight; make it with analysis.to_datatree")
    weight = tree["sample_stats"]["log_weight"].stack(sample=("chain", "draw")).transpose("sample", "datum").values
    estimate, error = log_evidence(weight)
    # Vehtari et al. 2024, sec. 3.2.2: the sample size needed grows as 10^(1 / (1 - k)), and 0.7 is a bound at any size.
    good = min(1 - 1 / log10(len(weight)), 0.7)
    return ELPD(estimate, error, pareto_k(weight), good, len(weight))
