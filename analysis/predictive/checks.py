"""What a predictive check finds: one statistic, or several at once, of data among replicated data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr

from analysis.results.verdict import Outcome, Verdict, worst
from analysis.stats.ecdf_bands import EcdfBand, ecdf_band, uniformity_p_value
from analysis.stats.p_values import two_sided

type Array = np.ndarray[Any, Any]
type Kind = Literal["posterior", "prior", "held_out"]
type Scale = tuple[float, float]

KINDS: tuple[Kind, ...] = ("posterior", "prior", "held_out")
_WARN_P, _FAIL_P = 0.05, 0.01
# Cohen 1988, sec. 2.2: small and medium differences of means, in standard deviations.
_SMALL, _MEDIUM = 0.2, 0.5
_COHEN = "Cohen 1988, sec. 2.2 (size)"
_TITLES: dict[str, str] = {"posterior": "predictive", "prior": "prior predictive", "held_out": "held-out predictive"}


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
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
        note: what the reader has to know about the weights or the replications; empty where nothing.
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
        """Share of replications at least as large as the data's, ties counted half; near 0 or 1 is a misfit."""
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

        A difference counts where it is both not chance and not small.
        """
        least = 2 / (len(self.replicated) + 1)
        rows = [_row([self], self.p_two_sided, 2 * self.p_value_mcse, [self.p_two_sided], least)]
        if self.pit_p_value is not None:
            rows.append(_pit_row([self], [self.pit_p_value]))
        return tuple(rows)

    def summary(self) -> dict[str, Any]:
        """Scalars for a file."""
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

    def __str__(self) -> str:
        low, high = np.quantile(self.replicated, [0.025, 0.975])
        verdict = "the data look like draws of the model" if 0.025 <= self.p_value <= 0.975 else "the model misses this"
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
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


@dataclass(frozen=True, eq=False)
class PredictiveChecks:
    """Several statistics of the same replications, and what can be said of all of them at once.

    Attributes:
        checks: one for each statistic, from the same replicated data sets.
        p_family: probability under the model that the furthest of so many statistics is as far from its mean as the
            data's is, from the replications' joint distribution, so that correlated statistics are not counted twice.
        adjusted: for each statistic, probability that any of them is as extreme: the p-value to read where several are
            looked at, shape ``(statistic,)``.
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
    def pit_adjusted(self) -> Array | None:
        """p-values of the PITs, multiplied by the number of statistics (Bonferroni); ``None`` for ``posterior``."""
        values = [check.pit_p_value for check in self.checks if check.pit_p_value is not None]
        return np.minimum(len(values) * np.array(values), 1.0) if values else None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One row on all statistics, and for ``prior`` and ``held_out`` one on their distributions over data."""
        count = len(self.checks[0].replicated)
        rows = [_row(self.checks, self.p_family, self.p_family_mcse, list(self.adjusted), 1 / (count + 1))]
        if self.pit_adjusted is not None:
            rows.append(_pit_row([c for c in self.checks if c.pit_p_value is not None], list(self.pit_adjusted)))
        return tuple(rows)

    def summary(self) -> dict[str, Any]:
        """Scalars for a file."""
        rows = [
            {**check.summary(), "p_adjusted": float(p)} for check, p in zip(self.checks, self.adjusted, strict=True)
        ]
        return {"p_family": self.p_family, "p_family_mcse": self.p_family_mcse, "statistics": rows}

    def __str__(self) -> str:
        first = self.checks[0]
        reading = (
            f"some statistic is off, {self.checks[int(np.argmin(self.adjusted))].name!r} first"
            if self.p_family < _WARN_P
            else "no statistic is off beyond chance"
        )
        title = f"{_TITLES[first.kind]} check of {len(self.checks)} statistics, {len(first.replicated):,} replications"
        rows = [
            f"  {check.name:<12} observed {check.observed:9.4g}, replicated {check.replicated.mean():9.4g} ± "
            f"{check.replicated.std():.2g}, p = {check.p_value:.3f}, adjusted {p:.3f}"
            for check, p in zip(self.checks, self.adjusted, strict=True)
        ]
        lines = [f"{title}: family-wise p = {self.p_family:.3f} ± {self.p_family_mcse:.3f}: {reading}", *rows]
        lines.append(f"  {first.meaning}")
        return "\n".join([*lines, *([f"  {first.note}"] if first.note else [])])


def _outcome(p: float, size: float | None, *, outside: bool, least: float, scale: Scale = (_SMALL, _MEDIUM)) -> Outcome:
    """Neither chance nor small. Where no p below the level can be had, lying outside all replications has to do."""
    chance, remote = (p >= level and not (outside and least >= level) for level in (_WARN_P, _FAIL_P))
    if chance:
        return "pass"
    if size is None:
        return "fail" if p < _FAIL_P else "warn"
    if size >= scale[1] and not remote:
        return "fail"
    return "warn" if size >= scale[0] else "pass"


def _row(checks: Sequence[PredictiveCheck], p: float, error: float, adjusted: Sequence[float], least: float) -> Verdict:
    first = checks[0]
    outcomes: list[Outcome] = []
    for check, own in zip(checks, adjusted, strict=True):
        outside = not check.replicated.min() <= check.observed <= check.replicated.max()
        size = None if check.effect is None else abs(check.effect)
        outcomes.append(_outcome(own, size, outside=outside, least=least))
    off = [
        f"{check.name} ({check.observed:.3g} in the data, {check.replicated.mean():.3g} in replications)"
        for check, outcome in zip(checks, outcomes, strict=True)
        if outcome != "pass"
    ]
    few = (
        f"{len(first.replicated)} replications cannot give a p below {least:.2f}; draw more" if least > _WARN_P else ""
    )
    remedy = "" if first.kind == "posterior" else ", a richer prior, or more training"
    look = f"look at {', '.join(off)}; try another likelihood or decoder{remedy}" if off else ""
    replications = "redraws of the same data" if first.kind == "posterior" else "draws of the fitted model"
    what = first.name if len(checks) == 1 else f"{len(checks)} statistics"
    return Verdict(
        question=f"Do {replications} have the data's {what}?",
        figure=p,
        error=error,
        unit="two-sided p" if len(checks) == 1 else "family-wise p",
        threshold=f"at least {_WARN_P}, or a difference below {_SMALL} sd over data",
        source=f"Gelman, Meng & Stern 1996 (check); {_COHEN}",
        outcome=worst(*outcomes),
        advice="; ".join(filter(None, [look, few, first.note])),
        name=f"predictive_{first.kind}",
    )


def _pit_row(checks: Sequence[PredictiveCheck], adjusted: Sequence[float]) -> Verdict:
    # A shift of a normal statistic by d standard deviations moves its PIT's distribution by 2 Phi(d / 2) - 1.
    small, medium = (float(2 * ndtr(d / 2) - 1) for d in (_SMALL, _MEDIUM))
    distances = [check.pit_distance or 0.0 for check in checks]
    outcomes = [
        _outcome(p, d, outside=False, least=0.0, scale=(small, medium))
        for p, d in zip(adjusted, distances, strict=True)
    ]
    off = [check.name for check, one in zip(checks, outcomes, strict=True) if one != "pass"]
    furthest = int(np.argmax(distances))
    return Verdict(
        question="Are the statistics of single data spread as those of the model's draws?",
        figure=distances[furthest],
        error=None,
        unit=f"distance of the PIT of {checks[furthest].name!r} from uniform",
        threshold=f"inside the {1 - _WARN_P:.0%} band, or at most {small:.2f}",
        source=f"Säilynoja, Bürkner & Vehtari 2022, sec. 3 (band); {_COHEN}",
        outcome=worst(*outcomes),
        advice=f"look at the PIT of {', '.join(off)}" if off else "",
        name=f"predictive_pit_{checks[0].kind}",
    )
