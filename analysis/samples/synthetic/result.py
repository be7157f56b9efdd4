"""The result of comparing draws of a table with its rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict, judged
from analysis.samples.synthetic.prediction import Scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# Simultaneous over the columns, and rare over the many questions of a report.
_LEVEL = 1e-3
_DISTANCE = (0.05, 0.1)
_LOSS = (0.05, 0.2)
_ADVANTAGE = (0.05, 0.2)


@dataclass(frozen=True, eq=False, repr=False)
class SyntheticDataCheck(Result):
    """Draws of a table beside rows that the model was not trained on, and training rows beside the same as a reference.

    Attributes:
        names: of the columns.
        kinds: of the columns.
        distance: of draws to held-out rows, ``(column,)``: Kolmogorov-Smirnov for numbers, total variation for codes.
        reference: likewise of training rows.
        p_values: of equal columns, adjusted by Holm's method, ``(column,)``.
        association: of each pair of columns among draws, ``(column, column)``.
        association_held_out: likewise among held-out rows.
        association_train: likewise among training rows.
        auc: of a classifier that distinguishes draws from held-out rows.
        auc_se: its standard error.
        auc_train: of one that distinguishes training rows from them.
        auc_train_se: its standard error.
        scores: of each column that was predicted, by name.
        copies: share of draws that equal a training row.
        copies_held_out: share of held-out rows that do.
        num_draws: number of draws.
        num_held_out: number of held-out rows.
        values: draws as numbers, ``(draw, column)``.
        held_out: held-out rows as numbers.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    distance: Array
    reference: Array
    p_values: Array
    association: Array
    association_held_out: Array
    association_train: Array
    auc: float
    auc_se: float
    auc_train: float
    auc_train_se: float
    scores: dict[str, Scores]
    copies: float
    copies_held_out: float
    num_draws: int
    num_held_out: int
    values: Array
    held_out: Array

    @property
    def association_error(self) -> float:
        """Mean absolute difference of the associations of draws and of held-out rows over pairs of columns."""
        return _mean_difference(self.association, self.association_held_out)

    @property
    def association_reference(self) -> float:
        """Likewise of training rows and held-out rows."""
        return _mean_difference(self.association_train, self.association_held_out)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Columns, prediction, and what draws reveal of training rows."""
        rows = [self._columns()]
        if self.scores:
            rows += [self._prediction(), self._inference()]
        return (*rows, self._copies())

    def _columns(self) -> Verdict:
        seen = np.where(self.p_values < _LEVEL, self.distance, 0.0)
        worst = int(np.argmax(np.where(seen > 0, seen, self.distance * 1e-6)))
        warn, fail = _DISTANCE
        return Verdict(
            "Are the columns drawn as they are distributed?",
            float(self.distance[worst]),
            None,
            "",
            f"distance of each column to held-out rows at most {warn:g} (fails above {fail:g}), beyond chance",
            "convention; Kolmogorov-Smirnov and chi-squared tests, Holm's adjusted p below 0.001",
            "fail" if seen.max() > fail else "warn" if seen.max() > warn else "pass",
            name="synthetic_columns",
            remedy=(
                f"look at {self.names[worst]!r}: fitted margins and predicted scales (table:margins=fitted,"
                "scale=predicted) follow a column as it is; a mixture as prior fits the aggregate posterior"
            ),
        )

    def _prediction(self) -> Verdict:
        name, score = max(self.scores.items(), key=lambda item: item[1].loss)
        warn, fail = _LOSS
        return Verdict(
            "Do models that are trained on draws predict real rows?",
            score.loss,
            score.loss_se,
            "",
            f"loss of accuracy, or of R squared, at most {warn:g} (fails above {fail:g}) for each column",
            "Esteban, Hyland & Rätsch 2017, sec. 3.1 (arXiv:1706.02633): train on synthetic, test on real; "
            "the thresholds are a convention",
            judged(score.loss, score.loss_se, warn, fail),
            f"{name!r} loses most" if score.loss > warn else "",
            "synthetic_prediction",
            remedy=(
                f"{name!r} depends on others in a way that draws lack: more latents, predicted scales, a mixture "
                "or flow as prior, more epochs"
            ),
        )

    def _inference(self) -> Verdict:
        name, score = max(self.scores.items(), key=lambda item: item[1].advantage)
        warn, fail = _ADVANTAGE
        return Verdict(
            "Do draws reveal values of training rows?",
            score.advantage,
            score.advantage_se,
            "",
            f"a model trained on draws is better on training than on held-out rows by at most {warn:g} (fails above "
            f"{fail:g}) for each column",
            "attribute inference, Yeom et al. 2018, sec. 4 (arXiv:1709.01604); the thresholds are a convention",
            judged(score.advantage, score.advantage_se, warn, fail),
            name="synthetic_inference",
            remedy=f"{name!r} is guessed better of training rows than of others: stop earlier, or fit fewer weights",
        )

    def _copies(self) -> Verdict:
        excess = self.copies - self.copies_held_out
        error = float(
            np.sqrt(
                self.copies * (1 - self.copies) / self.num_draws
                + self.copies_held_out * (1 - self.copies_held_out) / self.num_held_out
            )
        )
        outcome: Outcome = "pass" if excess <= 3 * error + 1 / self.num_draws else "warn" if excess < 0.1 else "fail"
        return Verdict(
            "Are training rows drawn again, value for value?",
            excess,
            error,
            "",
            "share of draws that equal a training row, less that of held-out rows: 0 within 3 errors (fails at 0.1)",
            "convention",
            outcome,
            name="synthetic_copies",
            remedy="such draws disclose training rows: stop earlier, fit fewer weights, or leave these draws out",
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "mean_distance": float(self.distance.mean()),
            "mean_distance_train": float(self.reference.mean()),
            "largest_distance": float(self.distance.max()),
            "association_error": finite_or_none(self.association_error),
            "association_error_train": finite_or_none(self.association_reference),
            "auc": self.auc,
            "auc_se": self.auc_se,
            "auc_train": self.auc_train,
            "auc_train_se": self.auc_train_se,
            "copies": self.copies,
            "copies_held_out": self.copies_held_out,
            "num_draws": self.num_draws,
            "num_held_out": self.num_held_out,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a column: its distances, p-value, and scores where it was predicted."""
        import pandas as pd

        frame = pd.DataFrame(
            {"kind": self.kinds, "distance": self.distance, "distance_train": self.reference, "p_value": self.p_values},
            index=pd.Index(self.names, name="column"),
        )
        for name in ("draws", "train", "loss", "loss_se", "advantage", "advantage_se"):
            column = {key: getattr(score, name) for key, score in self.scores.items()}
            frame[f"score_{name}" if name in ("draws", "train") else name] = pd.Series(column, dtype=float)
        return frame

    def plot(self) -> "Figure":
        """The distribution of each column among draws and among held-out rows."""
        from analysis.samples.synthetic.plot import plot_columns

        return plot_columns(self)

    def __str__(self) -> str:
        worst = np.argsort(-self.distance, kind="stable")[:5]
        lines = [
            f"{self.num_draws:,} draws against {self.num_held_out:,} held-out rows of {len(self.names)} columns",
            f"  distance of a column: mean {self.distance.mean():.3f} (training rows {self.reference.mean():.3f}); "
            + ", ".join(f"{self.names[k]} {self.distance[k]:.3f}" for k in worst),
            f"  association of pairs: mean difference {self.association_error:.3f} (training rows "
            f"{self.association_reference:.3f})",
            f"  a classifier distinguishes them with AUC {self.auc:.3f} ± {self.auc_se:.3f} (training rows "
            f"{self.auc_train:.3f} ± {self.auc_train_se:.3f})",
        ]
        lines += [
            f"  {name}: trained on draws {score.draws:.3f}, on training rows {score.train:.3f} (loss {score.loss:.3f} "
            f"± {score.loss_se:.3f})"
            for name, score in self.scores.items()
        ]
        lines.append(f"  copies of training rows: {self.copies:.2%} (held-out rows {self.copies_held_out:.2%})")
        return screen(lines)


def _mean_difference(first: Array, second: Array) -> float:
    upper = np.triu_indices(len(first), 1)
    difference = np.abs(first[upper] - second[upper])
    return float(np.nanmean(difference)) if np.isfinite(difference).any() else float("nan")
