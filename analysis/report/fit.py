"""Model and fit in the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.diagnostics.context import Context, FitRecord
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic
from analysis.plotting import plot_history
from analysis.results.blocks import Block, Picture, Section, Table
from analysis.results.estimate import DASH
from analysis.results.result import Result
from analysis.results.text import flow, screen

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class FitSummary(Result):
    """Choices and training curves of a fit.

    Attributes:
        record: what is known of the fit.
    """

    record: FitRecord

    @property
    def history(self) -> list[dict[str, float]]:
        """One row for each epoch."""
        return [dict(row) for row in self.record.history]

    def summary(self) -> dict[str, Any]:
        """The last epoch, with the number of epochs."""
        return {"epochs": len(self.history), **(self.history[-1] if self.history else {})}

    def to_dataframe(self) -> "pd.DataFrame":
        """The history, one row an epoch."""
        import pandas as pd

        return pd.DataFrame(self.history)

    def plot(self) -> "Figure":
        """Training curves."""
        return plot_history(self.history)

    def __str__(self) -> str:
        if not self.history:
            return "fit without a history"
        last = {name: value for name, value in self.history[-1].items() if name != "epoch"}
        values = ", ".join(f"{name} {value:.5g}" for name, value in last.items())
        return screen([f"fit of {len(self.history)} epochs", f"  at the last: {values}"])


@DIAGNOSTICS.add
class Fit(Diagnostic[FitSummary]):
    """Choices of model and fit, and training curves."""

    name, title, order = "fit", "Model and fit", 10
    question = "What was fitted, and how did the fit proceed?"
    requires = ("record",)

    def run(self, context: Context) -> FitSummary:
        assert context.record is not None
        return FitSummary(context.record)

    def section(self, result: FitSummary) -> Section:
        record = result.record
        rows = [[key, _words(value)] for key, value in record.model.items()]
        fitted = [[key, _words(value)] for key, value in record.fit.items()]
        blocks: list[Block] = [Table("The model", ["choice", "value"], rows, name="model")]
        if fitted:
            blocks.append(Table("The fit", ["choice", "value"], fitted, name="fit"))
        blocks.append(_curves(result) if result.history else "No history of the fit was kept.")
        return Section(self.title, blocks, name=self.name)


def _curves(result: FitSummary) -> Picture:
    history: Sequence[Mapping[str, float]] = result.history
    last = history[-1]
    held_out = f", the validation ELBO at {last['validation_elbo']:.2f}." if "validation_elbo" in last else "."
    return Picture.of(
        result.plot(),
        alt=flow(
            f"""
            Training curves over {len(history)} epochs: ELBO, reconstruction and KL; the training ELBO ends at
            {last["elbo"]:.2f} nats per datum{held_out}
            """
        ),
        caption=flow(
            """
            Training curves, in nats per datum. Training estimates are means over an epoch, while the weights change;
            validation estimates are those of the weights at its end.
            """
        ),
        metrics={key: [row.get(key) for row in history] for key in last},
        name="curves",
    )


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {_words(entry)}" for key, entry in value.items() if key != "name")
        return f"{value['name']} ({rest})" if "name" in value and rest else str(value.get("name", rest))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return DASH if value is None else str(value)
