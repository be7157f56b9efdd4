"""Bounds on log p(x) of simulated data from both sides of the guide: their difference is a symmetric KL divergence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.remedies import REFINE, REFIT
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict, judged
from vae_pyro.core.means import standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# Nats. Half of the divergence is about the loss of the ELBO: below the first number means are off by less than 0.07
# posterior standard deviations in one latent, at the second, for each latent, by 0.7 in all.
_NEGLIGIBLE, _FAIL = 0.005, 0.5


@dataclass(frozen=True, eq=False, repr=False)
class EvidenceBounds(Result):
    """Mean log weights log p(x, z) - log q(z | x) of simulated data, at the latents that made x and at the guide's.

    The first is log p(x) + KL(p(z | x) || q) on average over latents, the second log p(x) - KL(q || p(z | x)), the
    ELBO. Their difference, averaged over data of the model, is the symmetric (Jeffreys) divergence: 0 without any error
    for an exact guide, and infinite where the guide misses support of the posterior, which no weight of its own draws
    can show.

    Attributes:
        upper: log weight at the latents that made each datum, nats, ``(datum,)``; plus infinity where the guide has no
            density there.
        lower: mean log weight of draws of the guide at the same data, ``(datum,)``; minus infinity where one of them
            is impossible under the model.
        latent_dim: numbers in the latents of one datum.
        num_draws: of the guide for each datum.

    References:
        Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo, sec. 3:
        exact posterior draws of simulated data bound log p(x) from above. arXiv:1511.02543
    """

    upper: Array
    lower: Array
    latent_dim: int
    num_draws: int

    @property
    def pointwise(self) -> Array:
        """Upper minus lower of each datum, ``(datum,)``: paired, so that log p(x) cancels."""
        return self.upper - self.lower

    @property
    def symmetric_kl(self) -> float:
        """KL(p || q) + KL(q || p), nats per datum; infinite where either misses support of the other."""
        return float(self.pointwise.mean())

    @property
    def symmetric_kl_se(self) -> float:
        """Standard error of `symmetric_kl`, over simulated data and draws; NaN where it is infinite."""
        return standard_error(self.pointwise)

    @property
    def num_missed(self) -> int:
        """Simulated data whose true latents have density zero under the guide."""
        return int(np.isposinf(self.upper).sum())

    @property
    def num_impossible(self) -> int:
        """Simulated data at which the guide draws latents that the model excludes."""
        return int(np.isneginf(self.lower).sum())

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether both bounds agree."""
        value, error, worst = self.symmetric_kl, self.symmetric_kl_se, _FAIL * self.latent_dim
        outcome = judged(value, error, _NEGLIGIBLE, worst)
        return (
            Verdict(
                "Is the evidence the same at the true latents as at draws of the guide?",
                value,
                None if np.isnan(error) else error,
                "nats per datum, KL(p || q) + KL(q || p) on data of the model",
                f"at most {_NEGLIGIBLE:g} (fail above {worst:g}, {_FAIL:g} for each latent), beyond two standard "
                f"errors, and surely below {worst:g}",
                "0 for an exact guide: Grosse et al. 2015, arXiv:1511.02543, sec. 3; the thresholds are a convention: "
                "means off by 0.07 posterior standard deviations in one latent (fail: by 0.7 in every latent)",
                outcome,
                "" if outcome == "pass" else self._advice(value, error),
                "symmetric_kl",
            ),
        )

    def _advice(self, value: float, error: float) -> str:
        n = len(self.upper)
        if self.num_missed:
            return (
                f"support missed: the guide has density zero at the true latents of {self.num_missed:,} of {n:,} "
                "simulated data, and its ELBO and log p(x) are too low by what it misses; choose a family whose "
                "support covers that of the posterior"
            )
        if self.num_impossible:
            return (
                f"at {self.num_impossible:,} of {n:,} simulated data the guide draws latents that the model excludes, "
                "so that its ELBO is minus infinity; restrict the support of the guide to that of the prior"
            )
        if value - 2 * error <= _NEGLIGIBLE:
            return f"inconclusive: raise num_simulations (now {n:,})"
        return (
            f"the guide is not the posterior; about half of this is lost by the ELBO; {REFIT}, choose a richer family, "
            f"or {REFINE}"
        )

    def summary(self) -> dict[str, Any]:
        """Averages over simulated data, nats per datum; ``None`` for what is infinite."""
        return {
            "upper": finite_or_none(float(self.upper.mean())),
            "lower": finite_or_none(float(self.lower.mean())),
            "symmetric_kl": finite_or_none(self.symmetric_kl),
            "symmetric_kl_se": finite_or_none(self.symmetric_kl_se),
            "num_missed": self.num_missed,
            "num_impossible": self.num_impossible,
            "num_draws": self.num_draws,
            "n": len(self.upper),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a simulated datum: both bounds."""
        import pandas as pd

        return pd.DataFrame({"upper": self.upper, "lower": self.lower}).rename_axis("datum")

    def plot(self) -> "Figure":
        """Difference of both bounds at each simulated datum, without those where it is infinite."""
        from analysis.plotting import plot_scores

        known = self.pointwise[np.isfinite(self.pointwise)]
        return plot_scores(known, names=("simulated data", ""), xlabel="upper minus lower evidence bound, nats")

    def __str__(self) -> str:
        error = "" if np.isnan(self.symmetric_kl_se) else f" ± {self.symmetric_kl_se:.2g}"
        missed = f"; the guide has density zero at {self.num_missed:,} of the former" if self.num_missed else ""
        return screen(
            [
                f"symmetric KL divergence of guide and posterior {self.symmetric_kl:.3g}{error} nats per datum, on "
                f"{len(self.upper):,} simulated data",
                f"  mean log weight {self.upper.mean():.3f} at the latents that made them, {self.lower.mean():.3f} at "
                f"draws of the guide{missed}",
            ]
        )
