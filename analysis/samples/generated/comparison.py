"""Compare generated with real data by several measures on the same features."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from analysis.samples.copying import data_copying
from analysis.samples.generated.features import BLOCK, Features, checked, embedding, in_blocks, plane
from analysis.samples.generated.result import NEIGHBOUR_ROWS, SampleComparison
from analysis.stats.classifier_test import classifier_test
from analysis.stats.fidelity import as_rows, frechet_distance, neighbourhoods
from analysis.stats.mmd import mmd
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.renamed import renamed

type Array = np.ndarray[Any, Any]

_MIN_ROWS = 20


@renamed(num_neighbours="num_neighbors", max_rows="max_data")
def compare_samples(
    real: Array,
    generated: Array,
    *,
    seed: int,
    train: Array | None = None,
    features: Features | None = None,
    classifier: str | Any = "boosting",
    num_neighbors: int = 5,
    num_permutations: int = 199,
    max_data: int = 2000,
) -> SampleComparison:
    """Compare draws of a model with data that it was not trained on.

    Args:
        real: held-out data, shape ``(real, *x_shape)``.
        generated: draws of the prior predictive, ``(generated, *x_shape)``.
        seed: of subsamples, folds, permutations and half-samples.
        train: what the model was trained on, for the test of copying, ``(train, *x_shape)``.
        features: from data ``(n, *x_shape)`` to what is compared, ``(n, feature)``; it sees 1,024 data at a time.
            ``None`` takes the numbers as they are where a datum has at most 50, else the first 50 principal components
            of both samples together; the columns of a table are divided by their standard deviation first.
        classifier: see `analysis.stats.classifier_test.classifier_test`.
        num_neighbors: see `analysis.stats.fidelity.neighbourhoods`, which gets at most 2,000 rows of each sample.
        num_permutations: see `analysis.stats.mmd.mmd`.
        max_data: more rows than these are cut down at random, in both samples; the training data stay whole.

    Raises:
        ValueError: shapes that differ, values that are not finite, or fewer than 20 rows.

    References:
        Those of `analysis.stats.classifier_test`, `analysis.stats.mmd`, `analysis.stats.fidelity` and
        `analysis.samples.copying`.
    """
    if train is not None and train.shape[1:] != real.shape[1:]:
        raise ValueError(f"training data of shape {train.shape[1:]} and real data of shape {real.shape[1:]} differ")
    blocks = None if train is None else (train[start : start + BLOCK] for start in range(0, len(train), BLOCK))
    return compare_blocks(
        real, generated, blocks, features, classifier, num_neighbors, num_permutations, max_data=max_data, seed=seed
    )


def compare_blocks(
    real: Array,
    generated: Array,
    train: Iterable[Array] | None,
    features: Features | None = None,
    classifier: str | Any = "boosting",
    num_neighbors: int = 5,
    num_permutations: int = 199,
    *,
    max_data: int,
    seed: int,
) -> SampleComparison:
    """`compare_samples` with the training data in blocks."""
    if min(len(real), len(generated), max_data) < _MIN_ROWS:
        raise ValueError(
            f"at least {_MIN_ROWS} rows of each sample are required, got {len(real)} real, {len(generated)} generated "
            f"(max_data={max_data})"
        )
    random = np.random.default_rng(derive_seed(seed, 0))
    real_rows = random.permutation(len(real))[:max_data]
    real, generated = real[real_rows], generated[random.permutation(len(generated))[:max_data]]
    embed, named = embedding(real, generated, features, derive_seed(seed, 1))
    x, y = as_rows(in_blocks(embed, real), in_blocks(embed, generated))
    copying = None
    if train is not None:
        known = np.concatenate([checked(embed(block), len(block)) for block in train])
        copying = data_copying(y, x, known, seed=derive_seed(seed, 6))
    equal = min(len(x), len(y), NEIGHBOUR_ROWS)
    both = plane(x, y)
    return SampleComparison(
        classifier=classifier_test(x, y, classifier=classifier, seed=derive_seed(seed, 2)),
        discrepancy=mmd(x, y, num_permutations=num_permutations, seed=derive_seed(seed, 3)),
        # Coverage nears 1 with more generated than real data, whatever the model, and falls with more of both.
        neighbourhoods=neighbourhoods(x[:equal], y[:equal], num_neighbors=num_neighbors, seed=derive_seed(seed, 4)),
        frechet=frechet_distance(x, y, seed=derive_seed(seed, 5)),
        copying=copying,
        features=named,
        real_rows=real_rows,
        generated=generated,
        plane_real=both[: len(x)],
        plane_generated=both[len(x) :],
    )
