"""Is the test set really held out? Rows that are identical, and rows that are too close, in training and test data."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, erfc, prod, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.results.verdict import Outcome, Verdict, worst
from analysis.samples.copying import mann_whitney, nearest_in_blocks
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split

type Array = np.ndarray[Any, Any]

# Rows that are read, hashed or compared at once.
_BLOCK = 4096
# One false alarm in a thousand for each question: a report asks many.
_LEVEL = 1e-3
# Barz & Denzler 2020 found 3.3 % and 10 % of the CIFAR test sets to be copies, and called that a bias.
_FEW, _MANY = 0.01, 0.10
# Test data nearer than this quantile of the held-in distances count as close.
_CLOSE_QUANTILE = 0.01
_TINY = 1e-12
# The smallest p-value that so many deals can give is half of the level.
_NUM_DEALS = 1999


@dataclass(frozen=True)
class Leakage:
    """Whether test data stand among the training data, identical or nearly so.

    Rows that coincide by chance, as in small tables, do so among the training data too. For distances, a part of the
    training data is held in: set aside, and compared with the rest of the training data as the test data are.

    Attributes:
        identical: which test data equal a training datum, shape ``(test,)``.
        identical_expected: share of training data that equal another training datum.
        identical_p: p-value of no more identical test data than if test data had been drawn from all data at random.
        test_distance: of some test data to the rest of the training data, shape ``(query,)``.
        held_in_distance: of held-in data to the rest, shape ``(held_in,)``.
        test_rows: which test data `test_distance` belongs to, ``(query,)``.
        nearest_rows: which training datum is nearest to each of them, ``(query,)``.
        close: share of these nearer than nearly all held-in data.
        close_expected: what ``close`` is on average for data that are held out.
        close_p: p-value of distances that are not smaller than the held-in ones: of ``close`` and of all of them.
        farther: P(a test datum is farther than a held-in one), 1/2 if held out and alike.
        farther_se: its standard error.
        z: Mann-Whitney statistic of the distances, negative where the test data are nearer.
        compared: in words, what was compared.
    """

    identical: Array
    identical_expected: float
    identical_p: float
    test_distance: Array
    held_in_distance: Array
    test_rows: Array
    nearest_rows: Array
    close: float
    close_expected: float
    close_p: float
    farther: float
    farther_se: float
    z: float
    compared: str

    @property
    def identical_share(self) -> float:
        """Share of all test data that equal a training datum."""
        return float(self.identical.mean())

    @property
    def identical_share_se(self) -> float:
        """Binomial standard error of `identical_share`, as an estimate for another test set."""
        return sqrt(self.identical_share * (1 - self.identical_share) / len(self.identical))

    @property
    def close_se(self) -> float:
        """Standard error of ``close``, of the test data and of the quantile they are compared with."""
        return sqrt(
            self.close * (1 - self.close) / len(self.test_distance)
            + self.close_expected * (1 - self.close_expected) / len(self.held_in_distance)
        )

    def _outcome(self, p: float, excess: float, limit: float) -> Outcome:
        if p >= _LEVEL:
            return "pass"
        return "fail" if excess > limit else "warn"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Two rows: identical test data, and close ones."""
        identical = self._outcome(self.identical_p, self.identical_share - self.identical_expected, _FEW)
        close = self._outcome(self.close_p, self.close - self.close_expected, _MANY)
        remove = "take the test data that are listed out of one of the two sets, and evaluate again"
        return (
            Verdict(
                "Are test data among the training data?",
                self.identical_share,
                self.identical_share_se,
                "share of test data",
                f"no more than by chance (p at least {_LEVEL:g}); fails {_FEW:.0%} above the "
                f"{self.identical_expected:.2%} of training data that equal another",
                "Barz & Denzler 2020, arXiv:1902.00423 (3.3 % of copies bias a comparison)",
                identical,
                "" if identical == "pass" else remove,
                "identical_test_data",
            ),
            Verdict(
                "Are test data nearly copies of training data?",
                self.close,
                self.close_se,
                "share of test data",
                f"about {self.close_expected:.2%}, as within the training data (p at least {_LEVEL:g}); "
                f"fails {_MANY:.0%} above",
                "Meehan et al. 2020, arXiv:2004.05675 (distances); the share by convention: a tenth of the test set",
                close,
                ""
                if close == "pass"
                else "look at the pairs that are listed: if they are copies, remove them; if not, the test data come "
                "from an easier distribution than the training data",
                "close_test_data",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "num_test": len(self.identical),
            "num_identical": int(self.identical.sum()),
            "identical_share": self.identical_share,
            "identical_expected": self.identical_expected,
            "identical_p": self.identical_p,
            "close": self.close,
            "close_se": self.close_se,
            "close_expected": self.close_expected,
            "close_p": self.close_p,
            "farther": self.farther,
            "farther_se": self.farther_se,
            "z": self.z,
            "num_distances": [len(self.test_distance), len(self.held_in_distance)],
            "compared": self.compared,
        }

    def __str__(self) -> str:
        says = {
            "pass": "no sign that test data were trained on",
            "warn": "some test data may have been trained on",
            "fail": "the test data are not held out: figures on them say little about new data",
        }[worst(*(verdict.outcome for verdict in self.verdicts))]
        shift = "; they lie farther off than training data do from each other" if self.z > 4 else ""
        return (
            f"{int(self.identical.sum()):,} of {len(self.identical):,} test data equal a training datum "
            f"({self.identical_expected:.2%} of the training data equal another, p = {self.identical_p:.2g})\n"
            f"  {self.close:.1%} ± {self.close_se:.1%} are closer than expected of {self.close_expected:.1%} "
            f"(p = {self.close_p:.2g}); P(farther) {self.farther:.3f} ± {self.farther_se:.3f}, z {self.z:.1f}{shift}\n"
            f"  {says} ({self.compared})"
        )


def held_out_check(
    train: Split | Tensor | Array, test: Split | Tensor | Array, *, num_rows: int = 2000, seed: int = 0
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
        num_rows: test data, and held-in training data, whose distances are taken; all training data that are not held
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
    known, new = _rows(as_split(train), as_split(test), seed)
    if known.split.x_shape != new.split.x_shape:
        raise ValueError(f"training data of shape {known.split.x_shape}, test data of shape {new.split.x_shape}")
    if len(known) < 4 or num_rows < 1:
        raise ValueError(f"at least 4 training data and num_rows=1 wanted, got {len(known)} and {num_rows}")
    for rows in (known, new):
        rows.split.summary()  # refuses what is not finite
    from scipy.stats import nhypergeom

    random = np.random.default_rng(derive_seed(seed, 2))
    order = random.permutation(len(known))
    num_held_in = min(num_rows, len(known) // 2)
    held_in, rest = np.sort(order[:num_held_in]), np.sort(order[num_held_in:])
    test_rows = np.sort(random.permutation(len(new))[:num_rows])

    identical, expected, identical_p = _coincidences(known.hashes(), new.hashes(), random)

    mean, scale = known.moments(rest)
    queries = np.concatenate([new.numbers(test_rows, mean) / scale, known.numbers(held_in, mean) / scale])
    blocks = ((start, known.numbers(part, mean) / scale) for start, part in _parts(rest))
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


@dataclass(frozen=True)
class _Rows:
    """Data as they are compared: as they are stored, or as they are observed."""

    split: Split
    stored: bool

    def __len__(self) -> int:
        return len(self.split)

    def observed(self, rows: Array) -> Array | None:
        """Where elements are observed, ``(row, element)``; ``None`` if everywhere."""
        if self.split.mask is None:
            return None
        mask: Array = self.split.mask[_index(self.split, rows)].cpu().numpy().reshape(len(rows), -1)
        return mask

    def numbers(self, rows: Array, fill: Array | float) -> Array:
        """Floating-point numbers, ``(row, element)``, with ``fill`` where nothing is observed."""
        values = self.split.stored(_index(self.split, rows))
        if not values.dtype.is_floating_point:
            values = values.to(torch.float32)
        if self.split.top is not None:
            values = values / self.split.top
        array: Array = values.cpu().numpy().reshape(len(rows), -1)
        observed = self.observed(rows)
        return array if observed is None else np.where(observed, array, fill)

    def hashes(self) -> list[bytes]:
        """A digest of each row, of the stored bytes or of the numbers, and of what is hidden."""
        digests: list[bytes] = []
        for _, rows in _parts(np.arange(len(self))):
            values = self.split.stored(_index(self.split, rows)).cpu().numpy().reshape(len(rows), -1)
            if not self.stored:
                values = self.numbers(rows, 0.0).astype(np.float32)
            if values.dtype.kind == "f":
                values = values + 0.0  # the two zeros are equal and differ in their bytes
            observed = self.observed(rows)
            if observed is not None:
                values = np.where(observed, values, np.zeros((), values.dtype))
                values = np.concatenate([values.view(np.uint8), np.packbits(observed, axis=1)], axis=1)
            digests += [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in values]
        return digests

    def moments(self, rows: Array) -> tuple[Array, Array]:
        """Mean of the observed numbers of each element, and what to divide it by: 1 but for the columns of a table."""
        count, total, square = np.zeros((3, prod(self.split.x_shape)))
        for _, part in _parts(rows):
            observed = self.observed(part)
            count += len(part) if observed is None else observed.sum(0)
            total += self.numbers(part, 0.0).sum(0, dtype=np.float64)
        mean = total / np.maximum(count, 1)
        if len(self.split.x_shape) > 1:
            return mean, np.ones_like(mean)
        for _, part in _parts(rows):
            square += ((self.numbers(part, mean) - mean) ** 2).sum(0, dtype=np.float64)
        scale = np.sqrt(square / np.maximum(count, 1))
        return mean, np.where(scale > _TINY * np.maximum(np.abs(mean), 1), scale, 1.0)


def _rows(train: Split, test: Split, seed: int) -> tuple[_Rows, _Rows]:
    if (train.draw == "none") != (test.draw == "none"):
        train, test = (split.fixed(derive_seed(seed, stream)) for stream, split in enumerate((train, test)))
    if (train.mask is None) != (test.mask is None):
        train, test = (
            split.replace(mask=torch.ones((len(split), *split.x_shape), dtype=torch.bool, device=split.device))
            if split.mask is None
            else split
            for split in (train, test)
        )
    stored = train.dtype == test.dtype and train.top == test.top and train.draw == test.draw
    return _Rows(train, stored), _Rows(test, stored)


def _parts(rows: Array) -> Iterator[tuple[int, Array]]:
    return ((start, rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))


def _index(split: Split, rows: Array) -> Tensor:
    return torch.from_numpy(rows).to(split.device)
