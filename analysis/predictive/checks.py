"""Results of predictive checks: one statistic, or several at once, of data among replicated data sets."""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.predictive.thresholds import WARN_P, verdicts_of
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.ecdf_bands import EcdfBand, ecdf_band, uniformity_p_value
from analysis.stats.p_values import two_sided

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]
type Kind = Literal["posterior", "prior", "held_out"]

KINDS: tuple[Kind, ...] = ("posterior", "prior", "held_out")
_PANELS = 16
_TITLES: dict[str, str] = {"posterior": "predictive", "prior": "prior predictive", "held_out": "held-out predictive"}


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveCheck(Result):
    """A statistic of the data among the same statistic of replicated data sets.

    Attributes:
        name: of the statistic.
        observed: its value for the data.
        replicated: its value for each replicated data set, shape ``(replication,)``.
        kind: where the latents of the replications come from, see `analysis.predictive.checking`.
        weighted: whether replications were resampled with importance weights.
        num_draws: independent draws behind the replications; with weights, the harmonic mean over data of their
            effective number.
        effect: Cohen's d: difference between the data and the mean replication, in standard deviations of the statistic
            over single data, observed and replicated (for a standard deviation over data: as a share of it); ``None``
            where a single datum has no value.
        pit: rank of each datum's statistic among its own replications, in [0, 1], ties and the rank's width spread at
            random, shape ``(datum,)``, without data of which nothing is observed; ``None`` where a single datum has no
            value.
        note: limitations of the weights or the replications; empty where there are none.
    """

    name: str
    observed: float
    replicated: Array
    kind: Kind = "posterior"
    weighted: bool = False
    num_draws: float = float("nan")
    effect: float | None = None
    pit: Array | None = None
    note: str = ""

    @property
    def p_value(self) -> float:
        """Share of replications at least as large as the data's, ties counted half; near 0 or 1: not reproduced."""
        above = (self.replicated > self.observed).mean()
        return float(above + 0.5 * (self.replicated == self.observed).mean())

    @property
    def p_value_mcse(self) -> float:
        """Monte Carlo standard error of `p_value`, never below that of half a replication.

        With weights it adds the error of the resampling and that of the draws, which is bounded by that of so many
        binary draws: the first-order term of a smooth statistic is at most 2 / pi of it.
        """
        size = 1 / len(self.replicated)
        if self.weighted:
            size += 1 / self.num_draws
        return max(sqrt(self.p_value * (1 - self.p_value) * size), 0.5 / len(self.replicated))

    @property
    def p_two_sided(self) -> float:
        """Twice the smaller tail, the data counted among the replications; at most ``a`` with probability at most ``a``
        where data and replications are exchangeable (``prior`` and ``held_out`` under the true model).

        References:
            Davison & Hinkley 1997, Bootstrap methods and their application, sec. 4.2. doi:10.1017/CBO9780511802843
        """
        return float(two_sided(np.append(self.observed, self.replicated)[:, None])[0, 0])

    @cached_property
    def pit_p_value(self) -> float | None:
        """p-value of the hypothesis that `pit` is uniform, by its simultaneous band.

        ``None`` for ``posterior``, where it is not uniform under the true model either.
        """
        if self.pit is None or self.kind == "posterior" or len(self.pit) == 0:
            return None
        return float(uniformity_p_value(self.pit))

    @property
    def pit_distance(self) -> float | None:
        """Largest distance between the ECDF of `pit` and the uniform distribution."""
        if self.pit is None or len(self.pit) == 0:
            return None
        ordered, steps = np.sort(self.pit), np.arange(len(self.pit) + 1) / len(self.pit)
        return float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))

    def pit_band(self, level: float = 0.95) -> EcdfBand:
        """Simultaneous band of the ECDF of `pit`; under ``posterior`` the ECDF of a true model may leave it inwards.

        Raises:
            ValueError: a statistic without a value for each datum has no PIT.

        References:
            Säilynoja, Bürkner & Vehtari 2022, Graphical test for discrete uniformity, sec. 3. arXiv:2103.10522
        """
        if self.pit is None:
            raise ValueError(f"{self.name!r} is a statistic of a whole data set and has no PIT; choose one by name")
        return ecdf_band(len(self.pit), level=level)

    @property
    def meaning(self) -> str:
        """What `p_value` is a p-value of."""
        if self.kind == "posterior":
            source = "the guide with importance weights" if self.weighted else "the guide"
            return f"latents redrawn from {source} at the same data: conservative, p < a in at most 2 a of true models"
        if self.kind == "prior":
            return "latents from the prior: uniform under the true model if the fit has not seen the data"
        return "new latents from the prior, data that the fit has not seen: uniform under the true model"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One row on the statistic of the data set; for ``prior`` and ``held_out`` one on its distribution over data.

        A difference counts where it is both significant and not small.
        """
        least = 2 / (len(self.replicated) + 1)
        return verdicts_of([self], self.p_two_sided, 2 * self.p_value_mcse, [self.p_two_sided], least)

    def summary(self) -> dict[str, Any]:
        """Scalars, JSON-able."""
        return {
            "statistic": self.name,
            "kind": self.kind,
            "weighted": self.weighted,
            "observed": self.observed,
            "replicated_mean": float(self.replicated.mean()),
            "replicated_sd": float(self.replicated.std()),
            "p_value": self.p_value,
            "p_value_mcse": self.p_value_mcse,
            "p_two_sided": self.p_two_sided,
            "effect": self.effect,
            "pit_distance": self.pit_distance,
            "pit_p_value": self.pit_p_value,
            "num_replications": len(self.replicated),
            "num_draws": self.num_draws,
            "note": self.note,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """`summary` as one row."""
        import pandas as pd

        return pd.DataFrame([self.summary()]).set_index("statistic")

    def plot(self) -> "Figure":
        """The statistic of replicated data sets, and where the data's stands among them."""
        from analysis.predictive.plot import plot_predictive

        return plot_predictive([self.observed], [self.replicated], [self.name], [self.p_value])

    def __str__(self) -> str:
        low, high = np.quantile(self.replicated, [0.025, 0.975])
        verdict = "consistent with the model" if 0.025 <= self.p_value <= 0.975 else "inconsistent with the model"
        effect = "" if self.effect is None else f", {self.effect:+.2f} sd over data from their mean"
        lines = [
            f"{_TITLES[self.kind]} check of {self.name!r}: observed {self.observed:.4g}, "
            f"replicated 95 % in [{low:.4g}, {high:.4g}]{effect}",
            f"  p = {self.p_value:.3f} ± {self.p_value_mcse:.3f}: {verdict} ({self.meaning})",
        ]
        if self.pit_p_value is not None:
            lines.append(
                f"  over data: distance of the PIT from uniform {self.pit_distance:.3f}, p = {self.pit_p_value:.3f}"
            )
        return screen([*lines, *([f"  {self.note}"] if self.note else [])])


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveChecks(Result):
    """Several statistics of the same replications, judged jointly.

    Attributes:
        checks: one for each statistic, from the same replicated data sets.
        p_family: probability under the model that the furthest of so many statistics is as far from its mean as the
            data's is, from the replications' joint distribution, so that correlated statistics are not counted twice.
        adjusted: for each statistic, probability that any of them is as extreme: the p-value to use where several are
            examined, shape ``(statistic,)``.
    """

    checks: tuple[PredictiveCheck, ...]
    p_family: float
    adjusted: Array

    def __getitem__(self, name: str) -> PredictiveCheck:
        return next(check for check in self.checks if check.name == name)

    @property
    def p_family_mcse(self) -> float:
        """Monte Carlo standard error of `p_family`."""
        count = len(self.checks[0].replicated) + 1
        return max(sqrt(self.p_family * (1 - self.p_family) / count), 0.5 / count)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One row on all statistics, and for ``prior`` and ``held_out`` one on their distributions over data."""
        count = len(self.checks[0].replicated)
        return verdicts_of(self.checks, self.p_family, self.p_family_mcse, self.adjusted, 1 / (count + 1))

    def summary(self) -> dict[str, Any]:
        """Scalars, JSON-able."""
        rows = [
            {**check.summary(), "p_adjusted": float(p)} for check, p in zip(self.checks, self.adjusted, strict=True)
        ]
        return {"p_family": self.p_family, "p_family_mcse": self.p_family_mcse, "statistics": rows}

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a statistic, by name."""
        import pandas as pd

        return pd.DataFrame(self.summary()["statistics"]).set_index("statistic")

    def plot(self) -> "Figure":
        """Statistics of replicated data sets, and the data's among them; of many, those that differ most."""
        from analysis.predictive.plot import plot_predictive

        shown = [self.checks[place] for place in np.sort(np.argsort(self.adjusted, kind="stable")[:_PANELS])]
        return plot_predictive(
            [check.observed for check in shown],
            [check.replicated for check in shown],
            [check.name for check in shown],
            [check.p_value for check in shown],
        )

    def __str__(self) -> str:
        first = self.checks[0]
        reading = (
            f"a statistic differs from its replications, {self.checks[int(np.argmin(self.adjusted))].name!r} most"
            if self.p_family < WARN_P
            else "no statistic differs from its replications beyond chance"
        )
        title = f"{_TITLES[first.kind]} check of {len(self.checks)} statistics, {len(first.replicated):,} replications"
        rows = [
            f"  {check.name:<12} observed {check.observed:9.4g}, replicated {check.replicated.mean():9.4g} ± "
            f"{check.replicated.std():.2g}, p = {check.p_value:.3f}, adjusted {p:.3f}"
            for check, p in zip(self.checks, self.adjusted, strict=True)
        ]
        lines = [f"{title}: family-wise p = {self.p_family:.3f} ± {self.p_family_mcse:.3f}: {reading}", *rows]
        lines.append(f"  {first.meaning}")
        return screen([*lines, *([f"  {first.note}"] if first.note else [])])
