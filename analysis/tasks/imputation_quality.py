"""Is what was imputed like what was hidden? Errors, coverage and calibration against a truth, each with its error.

Elements of one datum share its latents, so that data and not elements are independent: every standard error is that of
a ratio of sums over data.
"""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any, Literal

import numpy as np

from analysis.draws.weights import weigh
from analysis.results.estimate import Estimate
from analysis.results.verdict import Outcome, Verdict, worst
from analysis.stats.pareto_smoothing import good_k, pareto_k
from vae_pyro.applications.imputation import FEWEST_EFFECTIVE, Imputation
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.densities.pair import PairLike

type Array = np.ndarray[Any, Any]
type Kind = Literal["continuous", "binary", "classes"]

# Probabilities, when all is as promised, of a deviation so large, at which a verdict turns.
_WARN, _FAIL = 0.01, 0.001
# Deviations that do not matter: of a coverage and of a mean PIT, of a spread of the PIT, of a Brier score.
_COVERAGE, _PIT, _SPREAD, _BRIER = 0.02, 0.02, 0.1, 0.005
# Shares of an element's standard deviation that its Monte Carlo error may have.
_SMALL, _LARGE = 0.1, 0.3
_FEWEST_DRAWS = 9
_SHARE_BAD = 0.05


@dataclass(frozen=True)
class ImputationQuality:
    """Imputations against a truth.

    Attributes:
        kind: of the elements.
        figures: by name. ``mse`` and ``mae`` of the mean (``brier`` and ``log_score`` of a probability, in nats;
            ``error_rate`` of classes); with draws ``crps``, in the units of x, and ``pit_mean`` and ``pit_spread``, 1/2
            and 1 where imputations have the distribution of the truth; ``brier_excess``, the Brier score less what it
            would be if the probabilities were right.
        coverage: share of true values inside the intervals; ``None`` without intervals, or of elements that are not
            continuous.
        level: what the intervals promise.
        pit: rank of each true value among its draws, with ties broken at random, in (0, 1), ``(element,)``; ``None``
            with fewer than 9 draws.
        monte_carlo: root mean square of the means' Monte Carlo errors as shares of the standard deviations.
        effective_sample_size: of the importance weights of each datum that is judged, ``(datum,)``.
        pareto_k: tail index of the importance weights of each datum that was imputed; ``None`` where it was not given.
        num_draws: draws of z for each datum.
        num_data: data with elements that are judged.
        num_elements: elements that are.
        on_lattice: whether all true values are whole numbers; intervals of such hold at least what they promise.
    """

    kind: Kind
    figures: dict[str, Estimate]
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

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the figures say, as far as they were made."""
        made = [self._coverage(), *self._pit(), self._brier(), self._error(), self._weights()]
        return tuple(verdict for verdict in made if verdict is not None)

    @property
    def outcome(self) -> Outcome:
        """The least favourable verdict."""
        return worst(*(verdict.outcome for verdict in self.verdicts))

    def summary(self) -> dict[str, Any]:
        """Every figure with ``<name>_se``, for a table or JSON."""
        figures: dict[str, Any] = {"kind": self.kind, "n": self.num_data, "num_elements": self.num_elements}
        shown = {**self.figures, **({} if self.coverage is None else {"coverage": self.coverage})}
        for name, figure in shown.items():
            figures[name], figures[f"{name}_se"] = figure.value, figure.error
        figures["level"] = self.level
        figures["monte_carlo_share"] = self.monte_carlo
        figures["outcome"] = self.outcome
        return figures

    def __str__(self) -> str:
        lines = [f"{self.num_elements:,} imputed elements of {self.num_data:,} data, {self.kind}"]
        lines += [f"  {name}: {figure}" for name, figure in self.figures.items()]
        if self.coverage is not None:
            lines.append(f"  coverage of {self.level:.0%} intervals: {self.coverage}")
        return "\n".join([*lines, *(f"  {verdict}" for verdict in self.verdicts)])

    def _coverage(self) -> Verdict | None:
        if self.coverage is None or self.level is None:
            return None
        low = self.coverage.value < self.level
        outcome = _graded(self.coverage, self.level, _COVERAGE)
        if self.on_lattice and not low:  # no interval of whole numbers holds exactly so much; ranks break the ties
            outcome = "pass"
        return Verdict(
            "Do intervals of imputed elements hold the truth as often as they say?",
            self.coverage.value,
            self.coverage.error,
            "of elements",
            f"{self.level:g}, give or take {_COVERAGE:g} and the error",
            f"definition of an interval; rates {_WARN:g} and {_FAIL:g} of false alarms: convention",
            outcome,
            ""
            if outcome == "pass"
            else "intervals are too narrow: the model is too sure of itself; stop the fit earlier, raise min_scale, or "
            "draw more"
            if low
            else "intervals are too wide: fit longer, or with a scale that is learned",
            "imputation_coverage",
        )

    def _pit(self) -> list[Verdict]:
        if self.pit is None:
            return []
        bias, spread = self.figures["pit_mean"], self.figures["pit_spread"]
        placed, scaled = _graded(bias, 0.5, _PIT), _graded(spread, 1.0, _SPREAD)
        return [
            Verdict(
                "Are imputed values too high or too low?",
                bias.value,
                bias.error,
                "mean rank of the truth among draws",
                f"0.5, give or take {_PIT:g} and the error",
                "Dawid 1984, JRSS A 147 (probability integral transform)",
                placed,
                ""
                if placed == "pass"
                else f"draws lie too {'low' if bias.value > 0.5 else 'high'}: look at each element",
                "imputation_bias",
            ),
            Verdict(
                "Are draws of imputed values as spread as the truth?",
                spread.value,
                spread.error,
                "12 times the mean square of rank - 1/2",
                f"1, give or take {_SPREAD:g} and the error",
                "variance of a uniform rank, 1/12",
                scaled,
                "" if scaled == "pass" else f"draws are too {'narrow' if spread.value > 1 else 'wide'}",
                "imputation_spread",
            ),
        ]

    def _brier(self) -> Verdict | None:
        if "brier_excess" not in self.figures:
            return None
        excess = self.figures["brier_excess"]
        outcome = _graded(excess, 0.0, _BRIER)
        over = "too sure" if excess.value > 0 else "not sure enough"
        return Verdict(
            "Do imputed probabilities say how often a one is there?",
            excess.value,
            excess.error,
            "Brier score above that of right probabilities",
            f"0, give or take {_BRIER:g} and the error",
            "Spiegelhalter 1986, Statistics in Medicine 5 (calibration part of the Brier score)",
            outcome,
            "" if outcome == "pass" else f"probabilities are {over}",
            "imputation_probability",
        )

    def _error(self) -> Verdict | None:
        if self.monte_carlo is None:
            return None
        share = self.monte_carlo
        outcome: Outcome = "pass" if share <= _SMALL else "warn" if share <= _LARGE else "fail"
        # Where one draw has all the weight, it has no error to show, and the least is known.
        starved = float((self.effective_sample_size < FEWEST_EFFECTIVE).mean())
        if starved > _SHARE_BAD:
            outcome = worst(outcome, "warn" if starved <= 0.5 else "fail")
        return Verdict(
            "Are imputed means exact enough?",
            share,
            None,
            "Monte Carlo error over standard deviation of the element",
            f"at most {_SMALL:g}",
            "convention: adds 0.5 % to an element's standard deviation",
            outcome,
            ""
            if outcome == "pass"
            else f"{starved:.0%} of the data have fewer than {FEWEST_EFFECTIVE} effective draws, and there the error "
            f"itself is not known: fit the guide longer, or raise num_draws (now {self.num_draws:,})"
            if starved > _SHARE_BAD
            else f"raise num_draws (now {self.num_draws:,})",
            "imputation_error",
        )

    def _weights(self) -> Verdict | None:
        if self.pareto_k is None:
            return None
        limit = good_k(self.num_draws)
        bad = ~(self.pareto_k <= limit)
        share, n = float(bad.mean()), len(bad)
        outcome: Outcome = "pass" if share <= _SHARE_BAD else "warn" if share <= 0.5 else "fail"
        return Verdict(
            "Do the importance weights bear the estimates?",
            share,
            sqrt(share * (1 - share) / n),
            f"of data with k-hat above {limit:.2f}",
            f"at most {_SHARE_BAD:g}",
            "limit: Vehtari et al. 2024, arXiv:1507.02646; share: convention",
            outcome,
            "" if outcome == "pass" else f"raise num_draws (now {self.num_draws:,}), or fit the guide longer",
            "imputation_pareto_k",
        )


def imputation_quality(
    imputation: Imputation,
    truth: Any,
    *,
    scored: Any = None,
    kind: Kind | None = None,
    pareto_k: Array | None = None,
    seed: int = 0,
) -> ImputationQuality:
    """Judge imputed elements by what was hidden.

    Args:
        imputation: what `vae_pyro.applications.imputation.impute` gave; with ``num_imputations`` of 9 or more, its
            draws are judged as well.
        truth: ``(datum, *x_shape)``; NaN where it is not known.
        scored: boolean, same shape: judge these of the imputed elements only.
        kind: ``None`` takes ``binary`` where all true values are 0 or 1 and all means between, ``classes`` where the
            imputation has no standard deviations, and else ``continuous``.
        pareto_k: see `imputation_k`.
        seed: breaks ties between the truth and draws.

    Raises:
        ValueError: other shapes, fewer than 2 data to judge, or classes beside numbers. Binary elements beside others
            count as continuous: judge them apart, with ``scored``.

    References:
        Gneiting & Raftery 2007, Strictly proper scoring rules, prediction, and estimation, JASA 102, sec. 4.2 (CRPS).
        doi:10.1198/016214506000001437
    """
    hidden = np.asarray(truth, dtype=np.float64)
    if hidden.shape != imputation.mean.shape:
        raise ValueError(f"truth has shape {hidden.shape}, the imputation {imputation.mean.shape}")
    chosen = imputation.missing & np.isfinite(hidden)
    if scored is not None:
        which = np.asarray(scored, dtype=bool)
        if which.shape != hidden.shape:
            raise ValueError(f"scored has shape {which.shape}, the imputation {hidden.shape}")
        chosen &= which
    rows = np.nonzero(chosen)[0]
    _, rows = np.unique(rows, return_inverse=True)
    if len(rows) == 0 or rows[-1] < 1:
        raise ValueError("fewer than 2 data have an imputed element whose truth is known; there is nothing to average")
    x, mean, sd = hidden[chosen], imputation.mean[chosen].astype(np.float64), imputation.sd[chosen].astype(np.float64)
    nominal = np.isnan(sd)
    if nominal.any() and not nominal.all():
        raise ValueError("some elements are classes and others numbers; judge them apart, with scored=")
    if kind is None:
        ones = bool(np.isin(x, (0, 1)).all() and (mean >= 0).all() and (mean <= 1).all())
        kind = "classes" if nominal.all() else "binary" if ones else "continuous"

    draws = imputation.imputations[:, chosen].astype(np.float64)
    coverage = pit = None
    if kind == "classes":
        figures = {"error_rate": _ratio(mean != x, rows)}
    elif kind == "binary":
        p = np.clip(mean, 1e-12, 1 - 1e-12)
        figures = {
            "brier": _ratio((x - p) ** 2, rows),
            "log_score": _ratio(x * np.log(p) + (1 - x) * np.log1p(-p), rows, "nats per element"),
            "brier_excess": _ratio((x - p) * (1 - 2 * p), rows),
        }
    else:
        figures = {"mse": _ratio((mean - x) ** 2, rows), "mae": _ratio(np.abs(mean - x), rows)}
        if imputation.lower is not None and imputation.upper is not None:
            inside = (imputation.lower[chosen] <= x) & (x <= imputation.upper[chosen])
            coverage = _ratio(inside, rows)
        if len(draws) >= 2:
            figures["crps"] = _ratio(crps(draws, x), rows)
        if len(draws) >= _FEWEST_DRAWS:
            pit = ranks(draws, x, seed=seed)
            figures["pit_mean"] = _ratio(pit, rows)
            figures["pit_spread"] = _ratio(12 * (pit - 0.5) ** 2, rows)
    usable = np.isfinite(sd) & (sd > 0)
    errors = imputation.mean_se[chosen][usable] / sd[usable]
    return ImputationQuality(
        kind=kind,
        figures=figures,
        coverage=coverage,
        level=imputation.level,
        pit=pit,
        monte_carlo=float(np.sqrt((errors**2).mean())) if len(errors) else None,
        effective_sample_size=imputation.effective_sample_size[np.unique(np.nonzero(chosen)[0])],
        pareto_k=None if pareto_k is None else np.asarray(pareto_k),
        num_draws=imputation.num_draws,
        num_data=int(rows[-1]) + 1,
        num_elements=len(x),
        on_lattice=bool((x == np.round(x)).all()),
    )


def imputation_k(
    pair: PairLike, x: Any, *, mask: Any = None, y: Any = None, num_draws: int = 1000, seed: int = 0
) -> Array:
    """Pareto k-hat of the importance weights of each datum that misses something.

    The arguments are those of `vae_pyro.applications.imputation.impute`.

    Returns:
        ``(incomplete datum,)``, see `analysis.stats.pareto_smoothing.pareto_k`.

    Raises:
        ValueError: nothing is missing, or fewer than 25 draws.
    """
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    if split.mask is None or bool(split.mask.all()):
        raise ValueError("nothing is missing in these data; there are no imputations to judge")
    incomplete = split.take((~split.mask.flatten(1).all(1)).nonzero().flatten())
    assert incomplete.mask is not None
    if incomplete.dtype.is_floating_point:
        # As `impute` shows them to the programs.
        values = incomplete.stored(slice(None)).where(incomplete.mask, 0.0)
        incomplete = as_split(values, incomplete.mask, incomplete.y) if incomplete.top is None else incomplete
    return np.concatenate(
        weigh(pair, incomplete, lambda block: pareto_k(block.log_weight), num_draws=num_draws, seed=seed)
    )


def crps(draws: Array, x: Array) -> Array:
    """Continuous ranked probability score from draws, without the bias of few of them; in the units of x.

    Args:
        draws: ``(draw, element)``, at least 2.
        x: what came, ``(element,)``.

    Returns:
        ``E|X - x| - E|X - X'| / 2`` with both expectations estimated without bias, ``(element,)``.

    References:
        Gneiting & Raftery 2007, JASA 102, eq. 21. doi:10.1198/016214506000001437
    """
    m = len(draws)
    ordered = np.sort(draws, 0)
    weight = 2 * np.arange(1, m + 1) - m - 1  # the sum over pairs of |X_i - X_j|, from order statistics
    pairs = np.tensordot(weight, ordered, 1)
    return np.asarray(np.abs(draws - x).mean(0) - pairs / (m * (m - 1)))


def ranks(draws: Array, x: Array, *, seed: int) -> Array:
    """Probability integral transform of x among draws: uniform on (0, 1) where x is one more draw.

    Args:
        draws: ``(draw, element)``.
        x: ``(element,)``.
        seed: places x among equals and within its step, at random.

    Returns:
        ``(element,)``.
    """
    random = np.random.default_rng(seed)
    below, equal = (draws < x).sum(0), (draws == x).sum(0)
    place = below + np.floor(random.random(x.shape) * (equal + 1))
    return np.asarray((place + random.random(x.shape)) / (len(draws) + 1))


def _ratio(values: Array, rows: Array, unit: str = "") -> Estimate:
    """Mean over elements, and its standard error where data are independent and elements of one are not."""
    n = int(rows[-1]) + 1
    total, count = np.bincount(rows, values.astype(np.float64), n), np.bincount(rows, minlength=n)
    mean = total.sum() / count.sum()
    error = np.sqrt(((total - mean * count) ** 2).sum() * n / (n - 1)) / count.sum()
    return Estimate(float(mean), float(error), unit)


def _graded(figure: Estimate, wanted: float, margin: float) -> Outcome:
    """Whether a figure deviates by more than a margin that does not matter and its error."""
    beyond = max(abs(figure.value - wanted) - margin, 0.0)
    chance = erfc(beyond / figure.error / sqrt(2)) if figure.error else float(beyond == 0)
    return "pass" if chance >= _WARN else "warn" if chance >= _FAIL else "fail"
