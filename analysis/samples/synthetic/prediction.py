"""Gradient boosting on the columns of a table: does what is learned from draws hold of real rows?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.stats.mann_whitney import mann_whitney
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.tables.schema import CODED, Schema

type Array = np.ndarray[Any, Any]

_FOLDS = 5


@dataclass(frozen=True)
class Scores:
    """How well one column is predicted from the others, by models trained on draws and on training rows.

    A score is the accuracy for codes, and R squared of the ranks for numbers.

    Attributes:
        draws: score on held-out rows of the model trained on draws.
        train: likewise of the model trained on training rows.
        loss: ``train - draws``.
        loss_se: its standard error over held-out rows, which are the same for both.
        advantage: score on training rows less that on held-out rows, of the model trained on draws: what draws disclose
            of the rows that they were learned from.
        advantage_se: its standard error.
    """

    draws: float
    train: float
    loss: float
    loss_se: float
    advantage: float
    advantage_se: float


def predict_column(train: Array, held_out: Array, draws: Array, schema: Schema, place: int, seed: int) -> Scores | None:
    """Predict one column from the others.

    Args:
        train: training rows, ``(row, column)``; NaN is missing.
        held_out: other rows.
        draws: of the model; as many of these and of the training rows are used as there are of the fewer.
        schema: of the columns.
        place: which one is predicted.
        seed: of the boosting.

    Returns:
        The scores; ``None`` where the column does not vary in one of the tables.
    """
    column = schema.columns[place]
    coded = column.kind in CODED
    size = min(len(train), len(draws))
    tables = {}
    for name, rows in (("train", train[:size]), ("held_out", held_out), ("draws", draws[:size])):
        seen = rows[~np.isnan(rows[:, place])]
        x, y = np.delete(seen, place, 1), seen[:, place]
        if len(np.unique(y)) < 2:
            return None
        tables[name] = (x, y)
    if not coded:  # ranks among the training rows: whatever the units and the tails
        scale = np.sort(tables["train"][1])
        tables = {name: (x, np.searchsorted(scale, y) / len(scale)) for name, (x, y) in tables.items()}
    losses = {}
    variance = 1.0 if coded else max(float(np.var(tables["held_out"][1])), 1e-12)
    for source in ("draws", "train"):
        model = _boosting(coded, _features(schema, place), derive_seed(seed, 0)).fit(*tables[source])
        for target in ("held_out", "train"):
            x, y = tables[target]
            found = model.predict(x)
            losses[source, target] = (found != y).astype(float) if coded else (found - y) ** 2 / variance
    of_draws, of_train, known = losses["draws", "held_out"], losses["train", "held_out"], losses["draws", "train"]
    return Scores(
        draws=1 - float(of_draws.mean()),
        train=1 - float(of_train.mean()),
        loss=float((of_draws - of_train).mean()),
        loss_se=float((of_draws - of_train).std(ddof=1) / np.sqrt(len(of_draws))),
        advantage=float(of_draws.mean() - known.mean()),
        advantage_se=float(np.sqrt(of_draws.var(ddof=1) / len(of_draws) + known.var(ddof=1) / len(known))),
    )


def auc(rows: Array, draws: Array, schema: Schema, seed: int) -> tuple[float, float]:
    """Area under the curve of a classifier that distinguishes draws from rows, by cross-validation; its error.

    1/2 where the distributions are equal, 1 where each datum is recognised. As many draws as rows are used.

    References:
        DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44 (the error of the area). doi:10.2307/2531595
    """
    from sklearn.model_selection import StratifiedKFold

    size = min(len(rows), len(draws))
    x = np.concatenate([draws[:size], rows[:size]])
    drawn = np.repeat([1, 0], size)
    score = np.empty(2 * size)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=derive_seed(seed, 0) % 2**31)
    for number, (known, new) in enumerate(folds.split(x, drawn)):
        model = _boosting(True, _features(schema, None), derive_seed(seed, 1 + number)).fit(x[known], drawn[known])
        score[new] = model.predict_proba(x[new])[:, 1]
    probability, error, _ = mann_whitney(score[:size], score[size:])
    return probability, error


def _features(schema: Schema, without: int | None) -> list[bool]:
    """Which of the features are categories without an order, of no more levels than boosting takes."""
    return [
        column.kind == "category" and column.num_classes <= 255
        for place, column in enumerate(schema.columns)
        if place != without
    ]


def _boosting(classifies: bool, categories: list[bool], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
    return kind(max_iter=60, categorical_features=np.array(categories), early_stopping=False, random_state=seed % 2**31)
