"""What every result of a diagnostic can do: verdicts, numbers, a table, a picture, and prints that fit a screen."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict, worst

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ROWS_SHOWN = 10


class Result(ABC):
    """Base of the results of diagnostics.

    A subclass is a frozen dataclass, made with ``repr=False`` so that its arrays are not printed, and defines
    `summary`, `to_dataframe`, `plot` and ``__str__``; it overrides `verdicts` where it is held to a threshold.
    """

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Estimates beside their thresholds; none where a result only describes."""
        return ()

    @property
    def outcome(self) -> Outcome:
        """The least favourable outcome of `verdicts`."""
        return worst(*(verdict.outcome for verdict in self.verdicts))

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Scalars with their errors, as JSON can hold them."""

    @abstractmethod
    def to_dataframe(self) -> "pd.DataFrame":
        """The estimates as a table."""

    @abstractmethod
    def plot(self) -> "Figure":
        """The estimates as a matplotlib figure."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {str(self).partition(chr(10))[0]}>"

    def _repr_html_(self) -> str:
        from markupsafe import Markup, escape

        cell, row = Markup("<td>{}</td>").format, Markup("<tr>{}</tr>").format
        parts = [Markup("<pre>{}</pre>").format(str(self))]
        if self.verdicts:
            names = ("verdict", "question", "estimate", "threshold", "advice")
            head = row(Markup("").join(Markup("<th>{}</th>").format(name) for name in names))
            rows = (
                (verdict.outcome, verdict.question, plus_minus(verdict.value, verdict.error, verdict.unit),
                 verdict.threshold, verdict.advice)
                for verdict in self.verdicts
            )  # fmt: skip
            body = Markup("").join(row(Markup("").join(map(cell, cells))) for cells in rows)
            parts.append(Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body))
        frame = self.to_dataframe()
        parts.append(Markup(frame.to_html(max_rows=_ROWS_SHOWN, escape=True)))
        return str(Markup("<div>{}</div>").format(Markup("").join(map(escape, parts))))


class Findings(Result):
    """Several results of one diagnostic together; a subclass adds the data that its section shows."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Result]:
        """The results by name, the most important first."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of all parts."""
        return tuple(verdict for part in self.parts.values() for verdict in part.verdicts)

    def summary(self) -> dict[str, Any]:
        """Of each part, by name."""
        return {name: part.summary() for name, part in self.parts.items()}

    def to_dataframe(self) -> "pd.DataFrame":
        """Of the first part."""
        return next(iter(self.parts.values())).to_dataframe()

    def plot(self) -> "Figure":
        """Of the first part."""
        return next(iter(self.parts.values())).plot()

    def __str__(self) -> str:
        return "\n".join(str(part) for part in self.parts.values())


def finite_or_none(value: float | None) -> float | None:
    """A number as JSON can hold it: ``None`` for what is not finite."""
    return None if value is None or not isfinite(value) else float(value)
