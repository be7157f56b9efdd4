"""A diagnostic in one row: a question, an estimate with its error, a threshold with its source, and advice."""

from dataclasses import InitVar, dataclass
from math import isnan
from typing import Any, Literal

from vae_pyro.core.renamed import Former

type Outcome = Literal["pass", "warn", "fail"]

_ORDER: tuple[Outcome, ...] = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Verdict:
    """The answer to one question about a fitted model.

    Attributes:
        question: as a reader would ask it, ending in a question mark.
        value: the estimate.
        error: its standard error, in the same unit; ``None`` where it is exact.
        unit: of the value, such as ``nats per datum``; empty for a pure number.
        threshold: in words, with its number: ``at most 0.7``.
        source: paper and section, or ``convention`` with its reason, where the threshold comes from.
        outcome: ``pass``, ``warn`` or ``fail``.
        advice: what to do about it; for ``pass``, what the answer does not cover, or nothing.
        name: short key for machines, such as ``pareto_k``.

    Args:
        remedy: the advice where the outcome is not ``pass``.
    """

    question: str
    value: float
    error: float | None
    unit: str
    threshold: str
    source: str
    outcome: Outcome
    advice: str = ""
    name: str = ""
    remedy: InitVar[str] = ""
    figure = Former("value")

    def __post_init__(self, remedy: str) -> None:
        if self.outcome not in _ORDER:
            raise ValueError(f"outcome is one of {', '.join(_ORDER)}, got {self.outcome!r}")
        if remedy and self.outcome != "pass":
            object.__setattr__(self, "advice", remedy)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as they stand in ``metrics.json``; the value's key there is ``figure``."""
        return {
            "name": self.name,
            "question": self.question,
            "figure": self.value,
            "error": self.error,
            "unit": self.unit,
            "threshold": self.threshold,
            "source": self.source,
            "outcome": self.outcome,
            "advice": self.advice,
        }

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.2g}"
        unit = f" {self.unit}" if self.unit else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"[{self.outcome}] {self.question} {self.value:.4g}{error}{unit} (expected: {self.threshold}){advice}"


def worst(*outcomes: Outcome) -> Outcome:
    """The least favourable of some outcomes; ``pass`` of none."""
    return max(outcomes, key=_ORDER.index, default="pass")


def judged(value: float, error: float, warn: float, fail: float) -> Outcome:
    """`graded`, beyond two standard errors; an estimate too uncertain to exclude values above ``fail`` does not pass.

    Args:
        value: the estimate.
        error: its standard error; NaN where it is unknown, which does not pass either.
        warn: see `graded`.
        fail: likewise.
    """
    outcome = graded(value - 2 * (0.0 if isnan(error) else error), warn, fail)
    return "warn" if outcome == "pass" and not value + 2 * error <= fail else outcome


def graded(value: float, warn: float, fail: float) -> Outcome:
    """``pass`` for values up to ``warn``, ``warn`` up to ``fail``, else ``fail``; NaN fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"
