"""`synthetic_data_check`: are the draws of a table good, and do they keep its rows to themselves?"""

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.samples.synthetic.columns import associations, column_distance, copies
from analysis.samples.synthetic.prediction import Scores, auc, predict_column
from analysis.samples.synthetic.result import SyntheticDataCheck
from analysis.stats.multiplicity import holm
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.schema import CODED, Schema

if TYPE_CHECKING:
    from pandas import DataFrame

type Array = np.ndarray[Any, Any]

FEWEST = 50


def synthetic_data_check(
    train: "DataFrame",
    test: "DataFrame",
    draws: "DataFrame",
    *,
    schema: Schema | None = None,
    num_targets: int = 4,
    max_rows: int = 5000,
    seed: int = 0,
) -> SyntheticDataCheck:
    """Compare draws of a table with rows that the model was not trained on, whoever made the draws.

    The training rows beside the same held-out rows are the reference: no model can be expected to come closer.

    - **Columns**: Kolmogorov-Smirnov distance of numbers, total variation of categories, with p-values that hold for
      all columns together.
    - **Pairs**: rank correlation, correlation ratio, Cramér's V.
    - **Classifier**: area under the curve of gradient boosting that distinguishes draws from rows.
    - **Prediction**: some columns are predicted by models that are trained on draws, and tested on real rows.
    - **Disclosure**: draws that equal a training row, and how much better than of other rows the values of training
      rows are guessed by a model that is trained on draws. `analysis.data_copying` compares distances.

    Args:
        train: rows that the model was trained on.
        test: other rows.
        draws: from `vae_pyro.sample_frame` or from elsewhere, with the same columns.
        schema: of the columns; ``None`` infers one from the training rows.
        num_targets: number of columns that are predicted: categories and numbers in turn, those first that the training
            rows predict; 0 leaves prediction out.
        max_rows: rows of each table that are used, chosen at random; training rows are all searched for copies.
        seed: of the choice, the folds and the boosting.

    Raises:
        ValueError: columns that lack, values that the schema cannot hold, or fewer than 50 rows.

    References:
        Esteban, Hyland & Rätsch 2017, Real-valued (medical) time series generation with recurrent conditional GANs,
        sec. 3.1 (train on synthetic, test on real). arXiv:1706.02633
        Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests. arXiv:1610.06545
        Yeom, Giacomelli, Fredrikson & Jha 2018, Privacy risk in machine learning, sec. 4. arXiv:1709.01604
    """
    schema = infer(train) if schema is None else schema
    known, new, drawn = (schema.encode(frame)[0] for frame in (train, test, draws))
    return check_values(known, new, drawn, schema, num_targets=num_targets, max_rows=max_rows, seed=seed)


def check_values(
    train: Array, test: Array, draws: Array, schema: Schema, *, num_targets: int, max_rows: int, seed: int
) -> SyntheticDataCheck:
    """`synthetic_data_check` of tables as numbers, ``(row, column)``, NaN where missing."""
    fewest = min(len(train), len(test), len(draws))
    if fewest < FEWEST:
        raise ValueError(
            f"at least {FEWEST} rows of each table are required, got {len(train)} for training, {len(test)} held out "
            f"and {len(draws)} draws"
        )
    random = np.random.default_rng(derive_seed(seed, 0))
    known = train
    train, test, draws = (rows[random.permutation(len(rows))[:max_rows]] for rows in (train, test, draws))
    classes = [column.num_classes for column in schema.columns]
    places = range(len(classes))
    drawn = [column_distance(draws[:, k], test[:, k], classes[k]) for k in places]
    reference = [column_distance(train[:, k], test[:, k], classes[k])[0] for k in places]
    association_train = associations(train, schema)
    found, found_se = auc(test, draws, schema, derive_seed(seed, 1))
    trained, trained_se = auc(test, train, schema, derive_seed(seed, 2))
    drawn_again, held_out_again = (float(again.mean()) for again in copies(known, draws, test))
    return SyntheticDataCheck(
        names=tuple(schema.names),
        kinds=tuple(column.kind for column in schema.columns),
        distance=np.array([distance for distance, _ in drawn]),
        reference=np.array(reference),
        p_values=holm(np.array([p for _, p in drawn])),
        association=associations(draws, schema),
        association_held_out=associations(test, schema),
        association_train=association_train,
        auc=found,
        auc_se=found_se,
        auc_train=trained,
        auc_train_se=trained_se,
        scores=_scores(train, test, draws, schema, association_train, num_targets, derive_seed(seed, 3)),
        copies=drawn_again,
        copies_held_out=held_out_again,
        num_draws=len(draws),
        num_held_out=len(test),
        values=draws,
        held_out=test,
    )


def _scores(
    train: Array, test: Array, draws: Array, schema: Schema, association: Array, count: int, seed: int
) -> dict[str, Scores]:
    """Scores of the columns that are predicted: those of the strongest association, categories and numbers in turn."""
    if len(schema.columns) < 2 or count < 1:
        return {}
    strength = np.nan_to_num(np.abs(association)).max(0)
    order = np.argsort(-strength, kind="stable").tolist()
    coded = [place for place in order if schema.columns[place].kind in CODED]
    numbers = [place for place in order if schema.columns[place].kind not in CODED]
    half = (count + 1) // 2
    chosen = coded[: max(half, count - len(numbers))][:count]
    chosen += numbers[: count - len(chosen)]
    found = {
        schema.columns[place].name: predict_column(train, test, draws, schema, place, derive_seed(seed, place))
        for place in sorted(chosen)
    }
    return {name: score for name, score in found.items() if score is not None}
