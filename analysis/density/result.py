"""The result of `analysis.density.elpd`: held-out log p(x) with its two errors, its bounds, and its tail indices."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.density import thresholds
from analysis.density.thresholds import spread
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.importance import effective_draws, unreliable
from analysis.stats.pareto_smoothing import good_k
from vae_pyro.densities.measure import Measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class ELPD(Result):
    """Expected log pointwise predictive density of held-out data, in nats.

    ``elbo <= log p(x_i) <= upper`` in the limit of many draws; ``pointwise`` is the estimate between them.

    Attributes:
        pointwise: importance-sampling estimate of log p(x_i), ``(datum,)``: a lower bound on average.
        pointwise_mcse: Monte Carlo standard error of each; not to be trusted where k-hat is above `good_k`, and too
            small for a single datum at moderate k-hat already.
        pareto_k: tail shape of each datum's importance weights.
        num_draws: K, draws for each datum.
        rise: gain of ``pointwise`` from the second half of the draws, see `bias`.
        smoothed: log p(x_i) from Pareto smoothed weights: less variance, no bound, and too low where k-hat is large.
        elbo: E_q[log w], the lower bound.
        upper: CUBO_2, ``1/2 log E_q[w^2]``, above log p(x_i) in the limit of many draws. Estimated from the same draws
            it is biased down, and never more than ``1/2 log K`` above ``pointwise``.
        ids: of the data.
        space: in words, what the data are; models of other spaces are not comparable.
        measure: ``probability``, ``probability given the total`` of x, or ``density``; ``None`` where
            it is unknown.
        of: what the densities are of, in words: ``x``, ``x given y``, ``x and y`` or ``x and the mask``; likewise.
        fingerprint: of the observed values, which are to be the same in a comparison.
    """

    pointwise: Array
    pointwise_mcse: Array
    pareto_k: Array
    num_draws: int
    rise: Array
    smoothed: Array
    elbo: Array
    upper: Array
    ids: Array
    space: str = "the values as given"
    measure: Measure | None = None
    fingerprint: str = ""
    of: str | None = None

    def __len__(self) -> int:
        return len(self.pointwise)

    @property
    def good_k(self) -> float:
        """k-hat below which estimates are useful on average over data, see `analysis.stats.pareto_smoothing.good_k`."""
        return good_k(self.num_draws)

    @property
    def elpd(self) -> float:
        """Sum over data, nats."""
        return float(self.pointwise.sum())

    @property
    def se(self) -> float:
        """Standard error of `elpd` for another test set of this size and other draws, nats; NaN for one datum.

        The spread of the estimates over data contains both sources; `se_test` is the part without `mcse`.
        """
        return spread(self.pointwise)

    @property
    def mcse(self) -> float:
        """Monte Carlo standard error of `elpd`: other draws, the same test set; nats."""
        return float(np.sqrt((self.pointwise_mcse**2).sum()))

    @property
    def se_test(self) -> float:
        """Standard error of `elpd` from the choice of test set alone, nats."""
        return float(np.sqrt(np.maximum(self.se**2 - self.mcse**2, 0.0)))

    @property
    def bias(self) -> float:
        """Bias of `elpd` to first order, nats, at most 0: ``-sum_i rise_i``.

        The bias falls as 1 / K, so that the gain from doubling the draws equals the bias that remains. Where k-hat is
        above `good_k` it falls more slowly and is several times larger (ten times, at a true index of 0.9 and 500
        draws).

        References:
            Nowozin 2018, Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
            variational inference, ICLR, openreview HyZoi-WRb; here with half of the draws left out instead of one.
        """
        return -float(self.rise.sum())

    @property
    def bad(self) -> Array:
        """Data whose k-hat is above `good_k`; of tied or nearly equal weights, whose effective draws are few.

        Boolean, ``(datum,)``; see `analysis.stats.importance.unreliable`.
        """
        return unreliable(self.pareto_k, self.effective_sample_size, self.num_draws)

    @property
    def hopeless(self) -> Array:
        """Data of `bad` whose k-hat is above 1, or unknown; boolean, ``(datum,)``."""
        return np.asarray(self.bad & ~(self.pareto_k <= 1))

    @property
    def num_bad(self) -> int:
        """Number of `bad` data."""
        return int(self.bad.sum())

    @property
    def trusted(self) -> bool:
        """Whether all but a tenth of the data are not `bad`: `mcse` and `bias` then hold for the average over data."""
        return self.num_bad <= thresholds.FEW_BAD * len(self)

    @property
    def bounded(self) -> bool:
        """Whether ten effective draws stand behind `upper` on average; with fewer it can lie below log p(x)."""
        return float(self.width.mean()) <= thresholds.widest(self)

    @property
    def effective_sample_size(self) -> Array:
        """``(sum w)^2 / sum w^2`` of each datum, between 1 and K."""
        return effective_draws(self.pointwise_mcse, self.num_draws)

    @property
    def width(self) -> Array:
        """``upper - pointwise`` of each datum, nats: ``1/2 log(K / effective_sample_size)``."""
        return self.upper - self.pointwise

    def summary(self) -> dict[str, Any]:
        """Totals and their errors, and averages over data, in nats; JSON-able."""
        n = len(self)
        return {
            "elpd": self.elpd,
            "elpd_se": finite_or_none(self.se),
            "elpd_se_test": finite_or_none(self.se_test),
            "elpd_mcse": self.mcse,
            "elpd_bias": finite_or_none(self.bias),
            "log_px": self.elpd / n,
            "log_px_smoothed": float(self.smoothed.mean()),
            "elbo": float(self.elbo.mean()),
            "cubo": float(self.upper.mean()),
            "num_bad": self.num_bad,
            "good_k": self.good_k,
            "num_draws": self.num_draws,
            "n": n,
            "space": self.space,
            "measure": self.measure,
            "of": self.of,
        }

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the guide is a good enough proposal, and whether the number of draws suffices."""
        return thresholds.verdicts_of(self)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum, by its id: log p(x) with its error, bounds, k-hat and effective sample size."""
        import pandas as pd

        columns = {
            "log_px": self.pointwise,
            "log_px_mcse": self.pointwise_mcse,
            "log_px_smoothed": self.smoothed,
            "elbo": self.elbo,
            "cubo": self.upper,
            "pareto_k": self.pareto_k,
            "effective_sample_size": self.effective_sample_size,
        }
        return pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))

    def plot(self) -> "Figure":
        """k-hat of each datum."""
        from analysis.density.plot import plot_khat

        return plot_khat(self.pareto_k, self.good_k)

    def __str__(self) -> str:
        n = len(self)
        verdict = (
            "the guide is close enough to the posterior to estimate the average"
            if self.num_bad == 0
            else f"there the estimate is too low by an unknown amount: {thresholds.more_draws(self)}"
        )
        return screen(
            [
                f"elpd {self.elpd:.1f} ± {self.se:.1f} nats over {n:,} held-out data ({self.elpd / n:.3f} each)",
                f"  standard error {self.se_test:.1f} (another test set), {self.mcse:.2f} (other draws)",
                f"  log p(x) is between {self.elbo.mean():.3f} (ELBO) and {self.upper.mean():.3f} (CUBO, biased down; "
                f"at most {0.5 * log(self.num_draws):.1f} above the estimate with {self.num_draws:,} draws)",
                f"  k-hat above {self.good_k:.2f}: {self.num_bad:,} of {n:,}; {verdict}",
            ]
        )
