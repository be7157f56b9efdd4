"""Which model predicts better? Paired differences of held-out log p(x), with the two sources of error kept apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analysis.density.comparability import require_comparable
from analysis.density.elpd import elpd
from analysis.density.result import ELPD
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from vae_pyro.core.renamed import Former

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# With fewer data, or models that predict alike, the error of a difference is skewed and a normal interval too short.
_LEAST_DATA, _LEAST_NATS = 100, 4
_SOURCE = (
    "Sivula et al. 2025, Uncertainty in Bayesian leave-one-out cross-validation, arXiv:2008.10296, recommendations"
)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Models on the same data, the best first; differences are from the best, at most 0, in nats.

    Three standard errors are given. ``se`` is for another test set and other draws: the spread of the estimated
    differences over data contains both. ``mcse`` is for other draws alone, of two models that were drawn independently;
    with the same seed for both it is commonly too large. ``se_test`` is the part of ``se`` without ``mcse``.

    Attributes:
        names: of the models.
        results: likewise.
    """

    names: tuple[str, ...]
    results: tuple[ELPD, ...]
    told_apart = Former("distinguishable")

    @property
    def of(self) -> str | None:
        """What the densities are of, where it is known; see `analysis.density.result.ELPD`."""
        return next((result.of for result in self.results if result.of is not None), None)

    @property
    def pointwise(self) -> Array:
        """Difference of each datum, shape ``(model, datum)``."""
        return np.stack([result.pointwise - self.results[0].pointwise for result in self.results])

    @property
    def difference(self) -> Array:
        """Sum over data, ``(model,)``."""
        return self.pointwise.sum(1)

    @property
    def se(self) -> Array:
        """Standard error of `difference`, both sources, ``(model,)``; NaN for one datum."""
        n = len(self.results[0])
        return sqrt(n) * self.pointwise.std(1, ddof=1) if n > 1 else np.full(len(self.names), np.nan)

    @property
    def mcse(self) -> Array:
        """Standard error of `difference` from the draws, ``(model,)``; 0 for the best, which is the reference."""
        own = np.array([result.mcse for result in self.results])
        return np.where(np.arange(len(own)) == 0, 0.0, np.hypot(own, own[0]))

    @property
    def se_test(self) -> Array:
        """Standard error of `difference` from the choice of test set, ``(model,)``."""
        return np.asarray(np.sqrt(np.maximum(self.se**2 - self.mcse**2, 0.0)))

    @property
    def bias(self) -> Array:
        """Bias of `difference` from the finite number of draws, to first order, ``(model,)``; see `ELPD.bias`."""
        own = np.array([result.bias for result in self.results])
        return own - own[0]

    def table(self) -> list[dict[str, Any]]:
        """A row for each model, JSON-able."""
        columns = (self.difference, self.se, self.se_test, self.mcse, self.bias)
        return [
            {
                "name": name,
                "elpd": result.elpd,
                "difference": float(difference),
                "se": finite_or_none(se),
                "se_test": finite_or_none(se_test),
                "mcse": float(mcse),
                "bias": float(bias),
                "num_bad": result.num_bad,
            }
            for name, result, difference, se, se_test, mcse, bias in zip(
                self.names, self.results, *columns, strict=True
            )
        ]

    def summary(self) -> dict[str, Any]:
        """The table, and what all rows share."""
        first = self.results[0]
        shared = {
            "n": len(first),
            "num_draws": first.num_draws,
            "space": first.space,
            "of": self.of,
            "good_k": first.good_k,
        }
        return {"best": self.names[0], "models": self.table(), **shared}

    def distinguishable(self, index: int) -> bool:
        """Whether the best predicts better than another, given the sampling error of the data."""
        n, gap, se = len(self.results[0]), -float(self.difference[index]), float(self.se[index])
        return n >= _LEAST_DATA and gap > max(2 * se, _LEAST_NATS)

    def settled(self, index: int) -> bool:
        """Whether another model would stay behind the best with more draws.

        The best can only rise. The estimate of the other is reliable where its k-hat is small, or bounded by its CUBO.
        """
        best, other = self.results[0], self.results[index]
        gap, se, missing = -float(self.difference[index]), float(self.se[index]), -other.bias
        small = missing <= max((gap - 2 * se) / 2, se / 3)
        return bool((other.trusted and small) or (other.bounded and other.upper.sum() < best.elpd))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """For each model but the best: are the two distinguishable, and could too few draws be the reason?"""
        found = []
        n, best = len(self.results[0]), self.names[0]
        for index, (name, other) in enumerate(zip(self.names[1:], self.results[1:], strict=True), start=1):
            apart, settled = self.distinguishable(index), self.settled(index)
            found.append(
                Verdict(
                    f"Does {best} predict better than {name}?",
                    -float(self.difference[index]),
                    float(self.se[index]) if n > 1 else None,
                    "nats in total",
                    f"above 2 standard errors and above {_LEAST_NATS}, on at least {_LEAST_DATA} data",
                    _SOURCE,
                    "pass" if apart else "warn",
                    "" if apart else f"the two are not distinguishable on {n:,} data; compare on more",
                    "difference",
                )
            )
            found.append(
                Verdict(
                    f"Could more draws bring {name} level with {best}?",
                    -other.bias,
                    None,
                    "nats in total, its bias from the finite number of draws, to first order",
                    "well within the difference with a good k-hat, or its CUBO below the best",
                    "k-hat: Vehtari et al. 2024, arXiv:1507.02646, sec. 3.2; CUBO: Dieng et al. 2017, "
                    "arXiv:1611.00328; well within: convention, half of what the difference has above 2 standard "
                    "errors, or a third of one",
                    "pass" if settled else "warn",
                    ""
                    if settled
                    else f"k-hat of {name} is too large for {other.num_bad:,} of {n:,} data, its bias may be larger; "
                    f"raise num_draws (now {other.num_draws:,}) or bring its guide closer to the posterior",
                    "difference_bias",
                )
            )
        return tuple(found)

    def to_dataframe(self) -> "pd.DataFrame":
        """`table`, one row a model, by name."""
        import pandas as pd

        return pd.DataFrame(self.table()).set_index("name")

    def plot(self) -> "Figure":
        """Differences from the best model with their standard errors."""
        from analysis.plotting import plot_bars

        return plot_bars(self.names, self.difference, self.se, xlabel="difference of log p(x), nats in total, ± se")

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [
            f"{'':{width}}  {'elpd':>12} {'difference':>12} {'se':>9} {'(test set)':>11} {'(draws)':>9}  k-hat bad"
        ]
        for row in self.table():
            errors = [float("nan") if row[key] is None else row[key] for key in ("se", "se_test", "mcse")]
            lines.append(
                f"{row['name']:{width}}  {row['elpd']:12.1f} {row['difference']:12.1f} {errors[0]:9.2f} "
                f"{errors[1]:11.2f} {errors[2]:9.2f}  {row['num_bad']:9,}"
            )
        first = self.results[0]
        relation = "is not distinguishable from"
        if self.distinguishable(1):
            relation = "predicts better than" if self.settled(1) else "has the higher bound, which is no proof, than"
        sentence = (
            f"{self.names[0]} {relation} {self.names[1]}: {-self.difference[1]:.1f} ± {self.se[1]:.1f} nats over "
            f"{len(first):,} held-out data, {first.num_draws:,} draws each"
        )
        return screen([sentence, *lines])


def compare(*models: ELPD | xr.DataTree, names: Sequence[str] | None = None) -> Comparison:
    """Compare models by held-out log p(x) on the same data.

    Estimates from different numbers of draws are refused and not corrected: each is the bound of its own K, and the
    bias of one relative to the other is known only where both guides are close to their posteriors.

    Args:
        models: two or more results of `analysis.density.elpd.elpd` or `analysis.density.elpd.elpd_of`, or trees of
            `analysis.to_datatree`.
        names: of the models; ``model 1``, ``model 2``, ... where they are not given.

    Raises:
        ValueError: fewer than two models, names that do not fit, other data, other observed values under the same ids
            (another binarization, say), another observation space, a density against a probability, densities of
            different things (log p(x) against log p(x | y), log p(x, y) or log p(x, mask)), or other numbers of draws.

    References:
        Vehtari, Gelman & Gabry 2017, Practical Bayesian model evaluation, Statistics and Computing 27, sec. 5.2: the
        paired standard error. arXiv:1507.04544
    """
    results = [elpd(model) if isinstance(model, xr.DataTree) else model for model in models]
    if len(results) < 2:
        raise ValueError(f"a comparison requires at least two models, got {len(results)}")
    labels = [f"model {i + 1}" for i in range(len(results))] if names is None else list(names)
    if len(labels) != len(results) or len(set(labels)) != len(labels):
        raise ValueError(f"names must be {len(results)} distinct names, got {labels}")
    for label, result in zip(labels[1:], results[1:], strict=True):
        require_comparable(labels[0], results[0], label, result)
    order = sorted(range(len(results)), key=lambda index: -results[index].elpd)
    return Comparison(tuple(labels[i] for i in order), tuple(results[i] for i in order))
