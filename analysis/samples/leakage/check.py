"""Look for test data among the training data: rows that are identical, and rows that are too close."""

from math import ceil, erfc, sqrt
from typing import Any

import numpy as np
from torch import Tensor

from analysis.samples.leakage.result import Leakage
from analysis.samples.leakage.rows import comparable_rows, parts
from analysis.stats.mann_whitney import mann_whitney
from analysis.stats.nearest import nearest_in_blocks
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.renamed import renamed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split

type Array = np.ndarray[Any, Any]

# Test data nearer than this quantile of the held-in distances count as close.
_CLOSE_QUANTILE = 0.01
# The smallest p-value that so many deals can give is half of the level.
_NUM_DEALS = 1999


@renamed(num_rows="max_data")
def held_out_check(
    train: Split | Tensor | Array, test: Split | Tensor | Array, *, max_data: int = 2000, seed: int = 0
) -> Leakage:
    """Look for test data among the training data: identical by hash (all of them), and close by distance (some).

    Rows are compared as they are stored where both sets are stored alike, so that binarisation or dequantisation does
    not hide a copy; else as they are observed. Hidden elements count as equal to each other, and as the mean in a
    distance. The columns of a table are divided by their standard deviation before distances are taken. A false alarm
    comes once in a thousand for each question.

    Identical rows make groups, of training and test data together. Had the test data been drawn from all at random, the
    groups would be dealt out at random: the share of deals with as many test data in a group with training data is the
    p-value. In a table whose rows all coincide no copy can be seen, and none is claimed.

    Args:
        train: what the model was trained on, ``(datum, *x_shape)``.
        test: what it is evaluated on.
        max_data: test data, and held-in training data, whose distances are taken; all training data that are not held
            in are compared with them.
        seed: of the rows, and of observations that have to be drawn.

    Raises:
        ValueError: shapes that differ, or fewer than 4 training data.

    References:
        Barz & Denzler 2020, Do we train on test data? Purging CIFAR of near-duplicates, J. Imaging 6. arXiv:1902.00423
        Meehan, Chaudhuri & Dasgupta 2020, A non-parametric test to detect data-copying in generative models, AISTATS.
        arXiv:2004.05675
        Balakrishnan & Ng 2006, Precedence-type tests and applications, ch. 3 (data below the r-th of another sample).
        doi:10.1002/0471781827
    """
    known, new = comparable_rows(as_split(train), as_split(test), seed)
    if known.split.x_shape != new.split.x_shape:
        raise ValueError(f"training data of shape {known.split.x_shape}, test data of shape {new.split.x_shape}")
    if len(known) < 4 or max_data < 1:
        raise ValueError(f"at least 4 training data and max_data=1 are required, got {len(known)} and {max_data}")
    for rows in (known, new):
        rows.split.summary()  # refuses what is not finite
    from scipy.stats import nhypergeom

    random = np.random.default_rng(derive_seed(seed, 2))
    order = random.permutation(len(known))
    num_held_in = min(max_data, len(known) // 2)
    held_in, rest = np.sort(order[:num_held_in]), np.sort(order[num_held_in:])
    test_rows = np.sort(random.permutation(len(new))[:max_data])

    identical, expected, identical_p = _coincidences(known.hashes(), new.hashes(), random)

    mean, scale = known.moments(rest)
    queries = np.concatenate([new.numbers(test_rows, mean) / scale, known.numbers(held_in, mean) / scale])
    blocks = ((start, known.numbers(part, mean) / scale) for start, part in parts(rest))
    distance, index = nearest_in_blocks(queries, blocks)
    test_distance, held_in_distance = distance[: len(test_rows)], distance[len(test_rows) :]
    farther, farther_se, z = mann_whitney(test_distance, held_in_distance)

    # The number of test data below the r-th held-in distance has a law of its own, whatever the distances' law.
    r = ceil(_CLOSE_QUANTILE * num_held_in)
    close = int((test_distance < np.sort(held_in_distance)[r - 1]).sum())
    close_p = nhypergeom.sf(close - 1, len(test_rows) + num_held_in, len(test_rows), r)
    nearer_p = erfc(-z / sqrt(2)) / 2
    return Leakage(
        identical=identical,
        identical_expected=expected,
        identical_p=identical_p,
        test_distance=test_distance,
        held_in_distance=held_in_distance,
        test_rows=test_rows,
        nearest_rows=rest[index[: len(test_rows)]],
        close=close / len(test_rows),
        close_expected=r / (num_held_in + 1),
        close_p=min(1.0, 2 * min(float(close_p), nearer_p)),
        farther=farther,
        farther_se=farther_se,
        z=z,
        compared=(
            f"rows as {'stored' if known.stored else 'observed'}; distances of {len(test_rows):,} test and "
            f"{num_held_in:,} held-in training data to the other {len(rest):,}"
        ),
    )


def _coincidences(train: list[bytes], test: list[bytes], random: np.random.Generator) -> tuple[Array, float, float]:
    """Which test data equal a training datum, what share of training data equals another, and the p-value."""
    _, group, size = np.unique(np.array(train + test), return_inverse=True, return_counts=True)
    of_test = np.bincount(group[len(train) :], minlength=len(size))
    identical = (of_test < size)[group[len(train) :]]
    of_train = size - of_test
    expected = float(of_train[of_train > 1].sum() / len(train))
    of_test, size = of_test[size > 1], size[size > 1]
    if not len(size):
        return identical, expected, 1.0
    starts = np.concatenate([[0], np.cumsum(size)[:-1]])
    count = 0
    for _ in range(_NUM_DEALS):
        dealt = np.zeros(size.sum(), dtype=np.int64)
        dealt[random.permutation(len(dealt))[: random.hypergeometric(len(test), len(train), len(dealt))]] = 1
        here = np.add.reduceat(dealt, starts)
        count += here[here < size].sum() >= identical.sum()
    return identical, expected, float((1 + count) / (1 + _NUM_DEALS))
