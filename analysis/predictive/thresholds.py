"""When a predictive check warns or fails: a difference counts where it is both significant and not small."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr

from analysis.results.verdict import Outcome, Verdict, worst
from analysis.stats.multiplicity import holm

if TYPE_CHECKING:
    from analysis.predictive.checks import PredictiveCheck

type Array = np.ndarray[Any, Any]
type Scale = tuple[float, float]

WARN_P, FAIL_P = 0.05, 0.01
# Cohen 1988, sec. 2.2: small and medium differences of means, in standard deviations.
SMALL, MEDIUM = 0.2, 0.5
_SHOWN = 6
_COHEN = "Cohen 1988, sec. 2.2 (size)"


def verdicts_of(
    checks: "Sequence[PredictiveCheck]", p: float, error: float, adjusted: Sequence[float] | Array, least: float
) -> tuple[Verdict, ...]:
    """One row on the statistics of the data set, and one on their distributions over data where these have PITs.

    Args:
        checks: of the same replications.
        p: p-value of all statistics together.
        error: its Monte Carlo standard error.
        adjusted: p-value of each statistic, adjusted for their number.
        least: the smallest p-value that so many replications can give.
    """
    rows = [_statistics(checks, p, error, adjusted, least)]
    known = [(check, check.pit_p_value) for check in checks if check.pit_p_value is not None]
    if known:
        adjusted_pits = holm(np.array([p for _, p in known]))
        rows.append(_distributions([check for check, _ in known], adjusted_pits.tolist()))
    return tuple(rows)


def _outcome(p: float, size: float | None, *, outside: bool, least: float, scale: Scale = (SMALL, MEDIUM)) -> Outcome:
    """Significant and not small. Where no p below the level is possible, lying outside all replications decides."""
    chance, remote = (p >= level and not (outside and least >= level) for level in (WARN_P, FAIL_P))
    if chance:
        return "pass"
    if size is None:
        return "fail" if p < FAIL_P else "warn"
    if size >= scale[1] and not remote:
        return "fail"
    return "warn" if size >= scale[0] else "pass"


def _statistics(
    checks: "Sequence[PredictiveCheck]", p: float, error: float, adjusted: Sequence[float] | Array, least: float
) -> Verdict:
    first = checks[0]
    outcomes: list[Outcome] = []
    for check, own in zip(checks, adjusted, strict=True):
        outside = not check.replicated.min() <= check.observed <= check.replicated.max()
        size = None if check.effect is None else abs(check.effect)
        outcomes.append(_outcome(float(own), size, outside=outside, least=least))
    off = [
        f"{check.name} ({check.observed:.3g} in the data, {check.replicated.mean():.3g} in replications)"
        for check, outcome in zip(checks, outcomes, strict=True)
        if outcome != "pass"
    ]
    count = len(first.replicated)
    few = f"{count} replications cannot give a p below {least:.2f}; draw more" if least > WARN_P else ""
    remedy = "" if first.kind == "posterior" else ", a richer prior, or more training"
    look = f"look at {_first(off)}; try another likelihood or decoder{remedy}" if off else ""
    replications = "posterior predictive replications" if first.kind == "posterior" else "prior predictive samples"
    what = first.name if len(checks) == 1 else f"{len(checks)} statistics"
    return Verdict(
        f"Do {replications} match the data in {what}?",
        p,
        error,
        "two-sided p" if len(checks) == 1 else "family-wise p",
        f"at least {WARN_P}, or a difference below {SMALL} sd over data",
        f"Gelman, Meng & Stern 1996 (check); {_COHEN}",
        worst(*outcomes),
        "; ".join(filter(None, [look, few, first.note])),
        f"predictive_{first.kind}",
    )


def _distributions(checks: "Sequence[PredictiveCheck]", adjusted: Sequence[float]) -> Verdict:
    # A shift of a normal statistic by d standard deviations moves its PIT's distribution by 2 Phi(d / 2) - 1.
    small, medium = (float(2 * ndtr(d / 2) - 1) for d in (SMALL, MEDIUM))
    distances = [check.pit_distance or 0.0 for check in checks]
    outcomes = [
        _outcome(p, d, outside=False, least=0.0, scale=(small, medium))
        for p, d in zip(adjusted, distances, strict=True)
    ]
    off = [check.name for check, one in zip(checks, outcomes, strict=True) if one != "pass"]
    furthest = int(np.argmax(distances))
    return Verdict(
        "Do statistics of single data have the same distribution over data as in replications?",
        distances[furthest],
        None,
        f"distance of the PIT of {checks[furthest].name!r} from uniform",
        f"inside the {1 - WARN_P:.0%} band, or at most {small:.2f}",
        f"Säilynoja, Bürkner & Vehtari 2022, sec. 3 (band); {_COHEN}",
        worst(*outcomes),
        f"look at the PIT of {_first(off)}" if off else "",
        f"predictive_pit_{checks[0].kind}",
    )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
