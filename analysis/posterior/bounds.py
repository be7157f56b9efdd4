"""Results of annealing: log p(x) from below, and between two bounds on simulated data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict, graded, judged
from analysis.stats.importance import log_evidence
from vae_pyro.core.means import standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Annealing(Result):
    """log p(x) of each datum by annealed importance sampling, in nats.

    Attributes:
        log_weight: log weight of each chain, shape ``(chain, datum)``.
        acceptance: mean probability that a move was accepted, shape ``(move, datum)``.
        step_size: of the moves, in units of the guide's standard deviations, shape ``(move, datum)``.
        temperatures: from 0, the start, to 1, the joint density; one more than there are moves, and one again.
        start: where the chains start: ``guide``, ``prior``, ``gaussian``, or ``best of`` several of them by datum.
    """

    log_weight: Array
    acceptance: Array
    step_size: Array
    temperatures: Array
    start: str

    @property
    def log_px(self) -> Array:
        """Estimate for each datum, ``(datum,)``; on average below the truth."""
        return log_evidence(self.log_weight)[0]

    @property
    def log_px_se(self) -> Array:
        """Monte Carlo standard error of each, ``(datum,)``, from the spread of the chains."""
        return log_evidence(self.log_weight)[1]

    @property
    def mean(self) -> float:
        """Average over data, nats per datum."""
        return float(self.log_px.mean())

    @property
    def mean_mcse(self) -> float:
        """Monte Carlo standard error of `mean`."""
        return float(np.sqrt((self.log_px_se**2).sum()) / len(self.log_px))

    @property
    def bias(self) -> float:
        """About how much `mean` lies below the truth: (exp(v) - 1) / (2 K) for K log-normal weights of log variance v.

        On a long path log weights are sums of many steps and nearly normal (Neal 2001). The standard error, from the
        weights themselves, cannot exceed 1 - 1/K and so does not reveal how poor a very short path is.
        """
        variance = min(float(self.log_weight.var(0, ddof=1).mean()), 50.0)
        return float(np.expm1(variance) / (2 * len(self.log_weight)))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the path was long enough, and the moves were accepted."""
        lowest = float(self.acceptance.mean(1).min())
        return (
            Verdict(
                "Is the annealing path long enough to estimate log p(x)?",
                self.bias,
                None,
                "nats per datum below the truth",
                "at most 0.05 (fail above 0.5)",
                "delta method on log-normal weights; convention: small beside gaps of 1 to 2 nats (Cremer et al. 2018, "
                "arXiv:1801.03558)",
                graded(self.bias, 0.05, 0.5),
                "" if self.bias <= 0.05 else "raise num_temperatures, then num_chains",
                "annealing_bias",
            ),
            Verdict(
                "Is the acceptance rate of the Hamiltonian moves high enough?",
                lowest,
                None,
                "lowest mean acceptance along the path",
                "at least 0.4",
                "convention: half of the rate that the step size is tuned to (Betancourt et al. 2014, arXiv:1411.6669)",
                "pass" if lowest >= 0.4 else "warn",
                "" if lowest >= 0.4 else "the step size could not follow the path: raise num_temperatures",
                "annealing_acceptance",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """Averages over data, in nats per datum."""
        return {
            "log_px": self.mean,
            "log_px_se": self.mean_mcse,
            "bias": self.bias,
            "acceptance": float(self.acceptance.mean()),
            "num_chains": len(self.log_weight),
            "num_temperatures": len(self.temperatures) - 1,
            "start": self.start,
            "n": len(self.log_px),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum: log p(x), its Monte Carlo standard error, and the mean acceptance of its moves."""
        import pandas as pd

        columns = {"log_px": self.log_px, "log_px_se": self.log_px_se, "acceptance": self.acceptance.mean(0)}
        return pd.DataFrame(columns).rename_axis("datum")

    def plot(self) -> "Figure":
        """Spread of the chains' log weights around log p(x) of their datum."""
        from analysis.plotting import plot_scores

        spread = self.log_weight - self.log_px
        return plot_scores(spread.ravel(), names=("chains", ""), xlabel="log weight of a chain - log p(x), nats")

    def __str__(self) -> str:
        long, _ = self.verdicts
        return screen(
            [
                f"log p(x) by annealing {self.mean:.3f} ± {self.mean_mcse:.2g} nats per datum over "
                f"{len(self.log_px):,} data ({len(self.log_weight)} chains, {len(self.temperatures) - 1} temperatures "
                f"from the {self.start})",
                f"  acceptance {self.acceptance.mean():.2f}; about {self.bias:.2g} below the truth: "
                f"{'long enough' if long.outcome == 'pass' else long.advice}",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False)
class Sandwich(Result):
    """log p(x) of simulated data from below and from above, in nats: bidirectional Monte Carlo.

    Attributes:
        log_weight: of chains from the start to the posterior, ``(chain, datum)``.
        log_weight_reverse: of chains from an exact posterior draw back to the start, ``(chain, datum)``.
    """

    log_weight: Array
    log_weight_reverse: Array

    @property
    def lower(self) -> Array:
        """Stochastic lower bound of each log p(x), ``(datum,)``."""
        return log_evidence(self.log_weight)[0]

    @property
    def upper(self) -> Array:
        """Stochastic upper bound of each log p(x), ``(datum,)``: minus the log of the mean of 1 / w."""
        return -log_evidence(-self.log_weight_reverse)[0]

    @property
    def gap(self) -> float:
        """Average of upper minus lower; at least zero in expectation, and it bounds what either misses."""
        return float((self.upper - self.lower).mean())

    @property
    def gap_se(self) -> float:
        """Standard error of `gap`, over chains and simulated data; NaN for a single datum."""
        return standard_error(self.upper - self.lower)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether annealing finds log p(x) where it is bounded from both sides."""
        outcome = judged(self.gap, self.gap_se, 0.1, 0.5)
        surely = self.gap - 2 * np.nan_to_num(self.gap_se) > 0.1
        return (
            Verdict(
                "How large is the error of annealing at most, on data simulated from the model?",
                self.gap,
                self.gap_se,
                "nats per datum between upper and lower bound",
                "at most 0.1 (fail above 0.5), beyond two standard errors, and surely below 0.5",
                "Grosse et al. 2015, arXiv:1511.02543; the threshold is a convention: a tenth of the usual gaps",
                outcome,
                "does not apply to data that the model would not generate"
                if outcome == "pass"
                else "raise num_temperatures: until then the approximation gap is uncertain by this much"
                if surely
                else "inconclusive: the bounds are too noisy; raise num_simulated, num_chains or num_temperatures",
                "bdmc_gap",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """Averages over simulated data, in nats per datum."""
        return {
            "lower": float(self.lower.mean()),
            "upper": float(self.upper.mean()),
            "gap": self.gap,
            "gap_se": finite_or_none(self.gap_se),
            "n": len(self.lower),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a simulated datum: both bounds."""
        import pandas as pd

        return pd.DataFrame({"lower": self.lower, "upper": self.upper}).rename_axis("datum")

    def plot(self) -> "Figure":
        """Averages of both bounds, and their difference."""
        from analysis.plotting import plot_bars

        values, errors = [float(self.lower.mean()), float(self.upper.mean()), self.gap], [0.0, 0.0, self.gap_se]
        return plot_bars(["lower bound", "upper bound", "difference"], values, errors)

    def __str__(self) -> str:
        (verdict,) = self.verdicts
        return screen(
            [
                f"log p(x) of {len(self.lower):,} simulated data between {self.lower.mean():.3f} and "
                f"{self.upper.mean():.3f} nats per datum",
                f"  they differ by {self.gap:.3f} ± {self.gap_se:.2g}: {verdict.advice}",
            ]
        )
