"""The result of judging imputations against a truth."""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.results.estimate import Estimate
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict, graded, worst
from analysis.stats.pareto_smoothing import good_k
from vae_pyro.applications.imputation_result import FEWEST_EFFECTIVE
from vae_pyro.core.renamed import Former

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]
type Kind = Literal["continuous", "binary", "classes"]

# Probabilities, under calibration, of a deviation so large, at which a verdict turns.
_WARN, _FAIL = 0.01, 0.001
# Deviations that do not matter: of a coverage and of a mean PIT, of a spread of the PIT, of a Brier score.
_COVERAGE, _PIT, _SPREAD, _BRIER = 0.02, 0.02, 0.1, 0.005
# Shares of an element's standard deviation that its Monte Carlo error may have.
_SMALL, _LARGE = 0.1, 0.3
_SHARE_BAD = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class ImputationQuality(Result):
    """Imputations against a truth.

    Attributes:
        kind: of the elements.
        estimates: by name. ``mse`` and ``mae`` of the mean (``brier`` and ``log_score`` of a probability, in nats;
            ``error_rate`` of classes); with draws ``crps``, in the units of x, and ``pit_mean`` and ``pit_spread``, 1/2
            and 1 where imputations have the distribution of the truth; ``brier_excess``, the Brier score less what it
            would be if the probabilities were right.
        coverage: share of true values inside the intervals; ``None`` without intervals, or of elements that are not
            continuous.
        level: nominal, of the intervals.
        pit: rank of each true value among its draws, with ties broken at random, in (0, 1), ``(element,)``; ``None``
            with fewer than 9 draws.
        monte_carlo: root mean square of the means' Monte Carlo errors as shares of the standard deviations.
        effective_sample_size: of the importance weights of each datum that is judged, ``(datum,)``.
        pareto_k: tail index of the importance weights of each datum that was imputed; ``None`` where it was not given.
        unreliable: whether the weights of each of these are too uneven for their mean, see
            `analysis.stats.importance.unreliable`; likewise.
        num_draws: draws of z for each datum.
        num_data: data with elements that are judged.
        num_elements: elements that are.
        on_lattice: whether all true values are whole numbers; intervals of such cover at least their nominal level.
    """

    kind: Kind
    estimates: dict[str, Estimate]
    coverage: Estimate | None
    level: float | None
    pit: Array | None
    monte_carlo: float | None
    effective_sample_size: Array
    pareto_k: Array | None
    num_draws: int
    num_data: int
    num_elements: int
    on_lattice: bool
    unreliable: Array | None = None
    figures = Former("estimates")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of all estimates that were made."""
        made = [self._coverage(), *self._pit(), self._brier(), self._error(), self._weights()]
        return tuple(verdict for verdict in made if verdict is not None)

    def summary(self) -> dict[str, Any]:
        """Every estimate with ``<name>_se``, for a table or JSON."""
        values: dict[str, Any] = {"kind": self.kind, "n": self.num_data, "num_elements": self.num_elements}
        shown = {**self.estimates, **({} if self.coverage is None else {"coverage": self.coverage})}
        for name, estimate in shown.items():
            values[name], values[f"{name}_se"] = estimate.value, estimate.error
        values["level"] = self.level
        values["monte_carlo_share"] = self.monte_carlo
        values["outcome"] = self.outcome
        return values

    def to_dataframe(self) -> "pd.DataFrame":
        """One row an estimate, by name: value, standard error and unit."""
        import pandas as pd

        shown = {**self.estimates, **({} if self.coverage is None else {"coverage": self.coverage})}
        rows = {name: (estimate.value, estimate.error, estimate.unit) for name, estimate in shown.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "se", "unit"]).rename_axis("estimate")

    def plot(self) -> "Figure":
        """The PIT of the true values where there are draws, else the estimates with their errors."""
        from analysis.plotting import plot_bars, plot_pit

        if self.pit is not None:
            return plot_pit(self.pit)
        errors = [float("nan") if one.error is None else one.error for one in self.estimates.values()]
        values = [one.value for one in self.estimates.values()]
        return plot_bars(list(self.estimates), values, errors, xlabel="estimate, ± one standard error")

    def __str__(self) -> str:
        lines = [f"{self.num_elements:,} imputed elements of {self.num_data:,} data, {self.kind}"]
        lines += [f"  {name}: {estimate}" for name, estimate in self.estimates.items()]
        if self.coverage is not None:
            lines.append(f"  coverage of {self.level:.0%} intervals: {self.coverage}")
        return screen([*lines, *(f"  {verdict}" for verdict in self.verdicts)])

    def _coverage(self) -> Verdict | None:
        if self.coverage is None or self.level is None:
            return None
        low = self.coverage.value < self.level
        outcome = _graded(self.coverage, self.level, _COVERAGE)
        if self.on_lattice and not low:  # no interval of whole numbers has exactly this coverage; ranks break the ties
            outcome = "pass"
        return Verdict(
            "Is the coverage of intervals of imputed elements nominal?",
            self.coverage.value,
            self.coverage.error,
            "of elements",
            f"{self.level:g}, give or take {_COVERAGE:g} and the error",
            f"definition of an interval; rates {_WARN:g} and {_FAIL:g} of false alarms: convention",
            outcome,
            remedy="intervals are too narrow: the model is overconfident; stop the fit earlier, raise min_scale, or "
            "draw more"
            if low
            else "intervals are too wide: fit longer, or with a scale that is learned",
            name="imputation_coverage",
        )

    def _pit(self) -> list[Verdict]:
        if self.pit is None:
            return []
        bias, spread = self.estimates["pit_mean"], self.estimates["pit_spread"]
        placed, scaled = _graded(bias, 0.5, _PIT), _graded(spread, 1.0, _SPREAD)
        return [
            Verdict(
                "Are imputed values biased?",
                bias.value,
                bias.error,
                "mean rank of the truth among draws",
                f"0.5, give or take {_PIT:g} and the error",
                "Dawid 1984, JRSS A 147 (probability integral transform)",
                placed,
                remedy=f"draws lie too {'low' if bias.value > 0.5 else 'high'}: look at each element",
                name="imputation_bias",
            ),
            Verdict(
                "Are draws of imputed values as spread as the truth?",
                spread.value,
                spread.error,
                "12 times the mean square of rank - 1/2",
                f"1, give or take {_SPREAD:g} and the error",
                "variance of a uniform rank, 1/12",
                scaled,
                remedy=f"draws are too {'narrow' if spread.value > 1 else 'wide'}",
                name="imputation_spread",
            ),
        ]

    def _brier(self) -> Verdict | None:
        if "brier_excess" not in self.estimates:
            return None
        excess = self.estimates["brier_excess"]
        outcome = _graded(excess, 0.0, _BRIER)
        over = "overconfident" if excess.value > 0 else "underconfident"
        return Verdict(
            "Are imputed probabilities calibrated?",
            excess.value,
            excess.error,
            "Brier score above that of right probabilities",
            f"0, give or take {_BRIER:g} and the error",
            "Spiegelhalter 1986, Statistics in Medicine 5 (calibration part of the Brier score)",
            outcome,
            remedy=f"probabilities are {over}",
            name="imputation_probability",
        )

    def _error(self) -> Verdict | None:
        if self.monte_carlo is None:
            return None
        share = self.monte_carlo
        outcome = graded(share, _SMALL, _LARGE)
        # Where one draw has all the weight, it has no error to show, and the least is known.
        starved = float((self.effective_sample_size < FEWEST_EFFECTIVE).mean())
        if starved > _SHARE_BAD:
            outcome = worst(outcome, "warn" if starved <= 0.5 else "fail")
        return Verdict(
            "Is the Monte Carlo error of imputed means small enough?",
            share,
            None,
            "Monte Carlo error over standard deviation of the element",
            f"at most {_SMALL:g}",
            "convention: adds 0.5 % to an element's standard deviation",
            outcome,
            remedy=f"{starved:.0%} of the data have fewer than {FEWEST_EFFECTIVE} effective draws, and there the error "
            f"itself is not known: fit the guide longer, or raise num_draws (now {self.num_draws:,})"
            if starved > _SHARE_BAD
            else f"raise num_draws (now {self.num_draws:,})",
            name="imputation_error",
        )

    def _weights(self) -> Verdict | None:
        if self.unreliable is None:
            return None
        limit = good_k(self.num_draws)
        share, n = float(self.unreliable.mean()), len(self.unreliable)
        outcome = graded(share, _SHARE_BAD, 0.5)
        return Verdict(
            "Are the importance weights reliable?",
            share,
            sqrt(share * (1 - share) / n),
            f"of data with k-hat above {limit:.2f} (tied or nearly equal weights: fewer than 100 effective draws)",
            f"at most {_SHARE_BAD:g}",
            "limit: Vehtari et al. 2024, arXiv:1507.02646; share: convention",
            outcome,
            remedy=f"raise num_draws (now {self.num_draws:,}), or fit the guide longer",
            name="imputation_pareto_k",
        )


def _graded(estimate: Estimate, expected: float, margin: float) -> Outcome:
    """Whether an estimate deviates by more than a margin that does not matter and its error."""
    beyond = max(abs(estimate.value - expected) - margin, 0.0)
    chance = erfc(beyond / estimate.error / sqrt(2)) if estimate.error else float(beyond == 0)
    return "pass" if chance >= _WARN else "warn" if chance >= _FAIL else "fail"
