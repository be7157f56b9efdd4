"""The length of a fit: its bound, how long it waits for a better epoch, and a sentence on how it ended.

Without a number of epochs the data decide. Adam requires some thousands of steps whatever the size of the data, and
a large data set is seen often enough in fewer epochs. With validation data the bound is a generous one, since the fit
stops where the validation objective no longer rises, and keeps the best weights; a learning rate that falls towards
the bound has a shorter one. Without them nothing prevents overfitting but the shorter bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from vae_pyro.core.means import mean_and_error

# Least epochs, unless these take more than so many steps; then as many epochs as they do, but not fewer than these.
_EPOCHS, _MOST_STEPS, _FEWEST_EPOCHS = 50, 50_000, 5
# Least steps where validation data stop a fit of constant learning rate, and of every other.
_STEPS_STOPPED, _STEPS = 10_000, 3000
# A fit waits for so many steps, and at least so many epochs.
_PATIENCE_STEPS, _PATIENCE_EPOCHS = 1500, 5
# Fewer validation data have a standard error that is none.
LEAST_VALIDATION = 5
# Standard errors by which the ELBO has to rise, or the validation objective to have fallen, for a sentence to say so.
_CLEAR = 2.0


@dataclass(frozen=True)
class Length:
    """How long a fit may last.

    Attributes:
        epochs: the bound.
        steps_per_epoch: steps in an epoch.
        patience: epochs without a better validation objective after which the fit stops; ``None`` runs to the bound.
        automatic: whether the data decided.
    """

    epochs: int
    steps_per_epoch: int
    patience: int | None
    automatic: bool

    @property
    def judged(self) -> bool:
        """Whether an epoch is better only beyond the paired standard error of the difference."""
        return self.automatic and self.patience is not None

    def __str__(self) -> str:
        steps = self.epochs * self.steps_per_epoch
        text = f"at most {self.epochs:,} epochs of {self.steps_per_epoch:,} steps ({steps:,})"
        if self.judged:
            return (
                f"{text}; stops after {self.patience:,} epochs without a validation objective that is better by its "
                "paired standard error, and keeps the best weights"
            )
        if self.patience is not None:
            return f"{text}; stops after {self.patience:,} epochs without a better validation ELBO"
        return text.replace("at most ", "", 1)


def automatic(steps_per_epoch: int, num_validation: int, warmup: float = 0.0, *, open_ended: bool = True) -> Length:
    """The length that the numbers of data give.

    Args:
        steps_per_epoch: steps in an epoch.
        num_validation: validation data; fewer than `LEAST_VALIDATION` do not stop a fit.
        warmup: epochs of warm-ups, which come on top.
        open_ended: whether the schedule of the learning rate has no course, which an early end would cut off.
    """
    stopped = num_validation >= LEAST_VALIDATION
    epochs = max(_EPOCHS, ceil((_STEPS_STOPPED if stopped and open_ended else _STEPS) / steps_per_epoch))
    epochs = min(epochs, max(ceil(_MOST_STEPS / steps_per_epoch), _FEWEST_EPOCHS)) + ceil(warmup)
    patience = max(_PATIENCE_EPOCHS, ceil(_PATIENCE_STEPS / steps_per_epoch)) if stopped else None
    return Length(epochs, steps_per_epoch, patience, True)


def paired(values: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Mean of ``values - others`` and its standard error, over data that both are values of.

    Draws of z that are the same for both cancel in the difference, and so does most of the variation between data.
    """
    return mean_and_error(values - others)


def slope(values: Sequence[float]) -> tuple[float, float]:
    """Least squares slope of a sequence and its standard error; 0 and infinity for fewer than 4 values."""
    if len(values) < 4:
        return 0.0, float("inf")
    x = np.arange(len(values)) - (len(values) - 1) / 2
    y = np.asarray(values) - np.mean(values)
    rate = float((x * y).sum() / (x**2).sum())
    residual = y - rate * x
    return rate, float(np.sqrt((residual**2).sum() / (len(values) - 2) / (x**2).sum()))


def ending(
    length: Length,
    history: Sequence[dict[str, float]],
    *,
    key: str,
    best_epoch: int | None,
    fallen: tuple[float, float] | None,
    stopped: bool,
) -> str:
    """How a fit ended, as a sentence without a full stop; empty where there is nothing to say.

    Args:
        length: of the fit.
        history: its rows.
        key: of the validation objective in a row.
        best_epoch: whose weights are kept.
        fallen: by how much the validation objective lies below its best at the last epoch, with the paired standard
            error; ``None`` without validation data.
        stopped: whether patience ran out.
    """
    name = {"validation_bound": "validation bound"}.get(key, "validation ELBO")
    window = [row[key] for row in history if key in row][-max(length.patience or 0, 10) :]
    rate, error = slope(window)
    rising = rate > _CLEAR * error
    if not length.automatic:
        planned = length.patience is None and fallen is None and rising
        return f"{name} still rising by {rate:.2g} nats an epoch after the epochs planned" if planned else ""
    bound = f"the bound of {length.epochs:,} epochs ({length.epochs * length.steps_per_epoch:,} steps)"
    if fallen is None:
        return f"stopped at {bound}; without enough validation data, convergence is not judged"
    kept = f"weights of epoch {best_epoch}"
    # A few data that are far off can hide in their standard error what the epochs since the best one show.
    if fallen[0] > _CLEAR * fallen[1] or (fallen[0] > 0 and rate < -_CLEAR * error):
        return f"overfitting since epoch {best_epoch}; {kept}"
    if not stopped and rising:
        return f"stopped at {bound}, {name} still rising by {rate:.2g} nats an epoch; {kept}"
    return f"converged; {kept}"
