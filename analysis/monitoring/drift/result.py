"""The result of a drift test: new data beside reference data."""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.monitoring.drift.thresholds import STATISTICS, verdicts_of
from analysis.results.estimate import plus_minus
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.conformal import conformal_p_values
from analysis.stats.detection_scores import Separation
from analysis.stats.mann_whitney import mann_whitney
from analysis.stats.mmd import MMD
from vae_pyro.core.renamed import Former

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

NAMES = ("log p(x)", "latents, MMD", "latents, classifier")
GIVEN = "the values as given"
_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class Drift(Result):
    """New data beside reference data.

    Attributes:
        log_px_reference: log p(x) of the reference data by importance sampling, nats, ``(reference,)``.
        log_px_new: of the new data, ``(new,)``.
        codes_reference: posterior means of all latents, ``(reference, latent)``; likewise ``codes_new``.
        latents: names of the latents, ``z[0]`` and so on.
        ids_reference: of the reference data; likewise ``ids_new``.
        statistics: of the arrangements of the labels, the given one first, ``(1 + permutation, 3)``: Anderson-Darling
            statistic of log p(x), MMD^2 of the latents, area under the ROC curve of the classifier.
        p_values: of each of these, ``(3,)``.
        adjusted: likewise, for being three; the smallest is `p_value`.
        latent_adjusted: p-value of each latent, adjusted for their number, ``(latent,)``.
        discrepancy: the MMD with its error.
        classifier: how well held-out scores of the classifier separate the samples; its errors take the scores as
            independent, which they are but for the fits they share.
        alpha: false-alarm rate that was asked for.
        num_draws: draws of the guide for each datum.
        space: in words, what the data are.
    """

    log_px_reference: Array
    log_px_new: Array
    codes_reference: Array
    codes_new: Array
    latents: tuple[str, ...]
    ids_reference: Array
    ids_new: Array
    statistics: Array
    p_values: Array
    adjusted: Array
    latent_adjusted: Array
    discrepancy: MMD
    classifier: Separation
    alpha: float
    num_draws: int
    space: str = GIVEN
    level = Former("alpha")

    @property
    def p_value(self) -> float:
        """Of one distribution, by all three statistics together."""
        return float(self.adjusted.min())

    @property
    def p_value_mcse(self) -> float:
        """Its Monte Carlo standard error: with other relabellings."""
        count = self.num_permutations
        return max(sqrt(self.p_value * (1 - self.p_value) / count), 0.5 / (count + 1))

    @property
    def num_permutations(self) -> int:
        """Relabellings beside the given labels."""
        return len(self.statistics) - 1

    @property
    def drifted(self) -> bool:
        """Whether equality is rejected at `alpha`."""
        return self.p_value <= self.alpha

    @property
    def seen_by(self) -> tuple[str, ...]:
        """Which statistics reject it at `alpha`, adjusted for being three."""
        return tuple(name for name, p in zip(STATISTICS, self.adjusted, strict=True) if p <= self.alpha)

    @cached_property
    def less_likely(self) -> tuple[float, float]:
        """P(a new datum has the smaller log p(x) of the two), 1/2 without drift, and its standard error."""
        probability, error, _ = mann_whitney(self.log_px_reference, self.log_px_new)
        return probability, error

    @property
    def log_px_shift(self) -> tuple[float, float]:
        """Mean log p(x) of the new data minus that of the reference, nats per datum, and its standard error."""
        new, reference = self.log_px_new, self.log_px_reference
        with np.errstate(invalid="ignore"):  # data that the model holds for impossible
            error = sqrt(new.var(ddof=1) / len(new) + reference.var(ddof=1) / len(reference))
        return float(new.mean() - reference.mean()), error

    @cached_property
    def strangeness(self) -> Array:
        """Conformal p-value of each new datum: share of reference data as unlikely as it, ``(new,)``."""
        return conformal_p_values(-self.log_px_reference, -self.log_px_new)

    def surprising(self, count: int = 10) -> Array:
        """Rows of `ids_new` of the least likely new data, the least likely first."""
        return np.argsort(self.log_px_new, kind="stable")[:count]

    @property
    def moved(self) -> Array:
        """Latents whose distribution changed, the most certain and largest changes first, as indices."""
        found = np.flatnonzero(self.latent_adjusted <= self.alpha)
        size = np.abs(self.latent_shift) + np.abs(np.log(self.latent_spread))
        return found[np.lexsort((-size[found], self.latent_adjusted[found]))]

    @property
    def latent_shift(self) -> Array:
        """Mean of each latent's posterior means in the new data minus the reference's, in its standard deviations."""
        scale = np.maximum(self.codes_reference.std(0), np.finfo(np.float64).tiny)
        return np.asarray((self.codes_new.mean(0) - self.codes_reference.mean(0)) / scale)

    @property
    def latent_spread(self) -> Array:
        """Standard deviation of each latent's posterior means in the new data, over the reference's."""
        tiny = np.finfo(np.float64).tiny
        return np.asarray(np.maximum(self.codes_new.std(0), tiny) / np.maximum(self.codes_reference.std(0), tiny))

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, JSON-able."""
        shift, shift_se = self.log_px_shift
        less, less_se = self.less_likely
        return {
            "drifted": self.drifted,
            "p_value": self.p_value,
            "p_value_mcse": self.p_value_mcse,
            "level": self.alpha,
            "seen_by": list(self.seen_by),
            "p_values": dict(zip(STATISTICS, self.p_values.tolist(), strict=True)),
            "p_values_adjusted": dict(zip(STATISTICS, self.adjusted.tolist(), strict=True)),
            "log_px_shift": finite_or_none(shift),
            "log_px_shift_se": shift_se if np.isfinite(shift) else None,
            "less_likely": less,
            "less_likely_se": less_se,
            "mmd2": self.discrepancy.value,
            "mmd2_se": self.discrepancy.standard_error,
            "bandwidth": list(self.discrepancy.bandwidth),
            "auroc": self.classifier.auroc,
            "auroc_se": self.classifier.auroc_se,
            "latents": {
                name: {"p_adjusted": float(p), "shift": float(shift), "spread": float(spread)}
                for name, p, shift, spread in zip(
                    self.latents, self.latent_adjusted, self.latent_shift, self.latent_spread, strict=True
                )
            },
            "moved": [self.latents[i] for i in self.moved],
            "surprising": [
                {
                    "id": int(self.ids_new[i]),
                    "log_px": finite_or_none(self.log_px_new[i]),
                    "p_value": float(self.strangeness[i]),
                }
                for i in self.surprising()
            ],
            "num_reference": len(self.log_px_reference),
            "num_new": len(self.log_px_new),
            "num_permutations": self.num_permutations,
            "num_draws": self.num_draws,
            "space": self.space,
        }

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All three statistics together, then each of them, its p-value adjusted for being three."""
        return verdicts_of(self)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a latent, by name: adjusted p-value, shift and spread."""
        import pandas as pd

        columns = {"p_adjusted": self.latent_adjusted, "shift": self.latent_shift, "spread": self.latent_spread}
        return pd.DataFrame(columns, index=pd.Index(self.latents, name="latent"))

    def plot(self) -> "Figure":
        """Each statistic of these data among those of relabelled data."""
        from analysis.monitoring.drift.plot import plot_relabelled

        return plot_relabelled(self.statistics, NAMES, self.adjusted, alpha=self.alpha)

    def __str__(self) -> str:
        shift, shift_se = self.log_px_shift
        less, less_se = self.less_likely
        reading = (
            f"the data have changed (p = {self.p_value:.3g} ± {self.p_value_mcse:.2g}, at most {self.alpha:g})"
            if self.drifted
            else f"no change is detected (p = {self.p_value:.3g} ± {self.p_value_mcse:.2g}, above {self.alpha:g})"
        )
        p = [f"p = {value:.3g}, adjusted {adjusted:.3g}" for value, adjusted in zip(
            self.p_values, self.adjusted, strict=True
        )]  # fmt: skip
        lines = [
            f"{reading}: {len(self.log_px_new):,} new against {len(self.log_px_reference):,} held-out data, "
            f"{self.num_permutations:,} relabellings",
            f"  log p(x)    {plus_minus(shift, shift_se)} nats per datum; a new datum is the less likely one with "
            f"probability {plus_minus(less, less_se)} ({p[0]})",
            f"  latents     MMD^2 {plus_minus(self.discrepancy.value, self.discrepancy.standard_error)} ({p[1]})",
            f"  classifier  AUROC {plus_minus(self.classifier.auroc, self.classifier.auroc_se)} ({p[2]})",
        ]
        if self.drifted:
            moved = [
                f"{self.latents[i]} by {self.latent_shift[i]:+.2f} sd, spread times {self.latent_spread[i]:.2f}"
                for i in self.moved[:_SHOWN]
            ]
            more = len(self.moved) - len(moved)
            lines.append(
                f"  {len(self.moved)} of {len(self.latents)} latents moved: {'; '.join(moved)}"
                + (f"; {more} more" if more > 0 else "")
                if moved
                else f"  none of {len(self.latents)} latents moves significantly by itself"
            )
            strange = ", ".join(
                f"{self.ids_new[i]} ({plus_minus(float(self.log_px_new[i]))})" for i in self.surprising(_SHOWN)
            )
            lines.append(f"  least likely new data, id (log p(x)): {strange}")
        return screen(lines)
