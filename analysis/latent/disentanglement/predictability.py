"""Scores of codes by how single latents predict factors: SAP, and the FactorVAE score."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.latent.disentanglement.scores import Score, checked_factors, gap_of_top_two, half_samples_error
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]

_NUMBERS_AT_ONCE = 5_000_000


def sap(codes: Any, factors: Any, *, categorical: Sequence[int] = (), num_resamples: int = 20, seed: int = 0) -> Score:
    """Separated attribute predictability: how much better the best latent predicts a factor than the second best.

    Each latent alone predicts each factor: an ordered one by a line, scored by R squared; a categorical one by
    thresholds (as many as it has levels, less one), scored by balanced accuracy.

    Args:
        codes: ``(datum, latent)``.
        factors: levels, ``(datum, factor)``.
        categorical: columns of ``factors`` whose levels have no order, such as shape.
        num_resamples: random halves of the data for the standard error; 0 for none.
        seed: of the halves.

    Raises:
        ValueError: see `checked_factors`; or a column that there is not.

    References:
        Kumar, Sattigeri & Balakrishnan 2018, Variational inference of disentangled latent concepts, sec. 3.
        arXiv:1711.00848
    """
    codes, levels = checked_factors(codes, factors)
    wrong = [column for column in categorical if not 0 <= column < levels.shape[1]]
    if wrong:
        raise ValueError(f"categorical column {wrong[0]} of {levels.shape[1]} factors; count from 0")

    def scores(rows: Array | slice) -> Array:
        z, y = codes[rows], levels[rows]
        centred, target = z - z.mean(0), y - y.mean(0)
        power = (centred**2).sum(0)[:, None] * (target**2).sum(0)
        result = (centred.T @ target) ** 2 / np.where(power > 0, power, np.inf)
        for column in categorical:
            result[:, column] = [_threshold_accuracy(z[:, j], y[:, column]) for j in range(z.shape[1])]
        return np.asarray(result)

    matrix = scores(slice(None))
    parts = gap_of_top_two(matrix)
    se = half_samples_error(lambda rows: float(gap_of_top_two(scores(rows)).mean()), len(codes), num_resamples, seed, 2)
    return Score("SAP", float(parts.mean()), se, parts, matrix)


def _threshold_accuracy(code: Array, level: Array) -> float:
    from sklearn.tree import DecisionTreeClassifier

    count = len(np.unique(level))
    if count == 1:
        return 1.0
    tree = DecisionTreeClassifier(max_leaf_nodes=count, class_weight="balanced", random_state=0)
    right = tree.fit(code[:, None], level).predict(code[:, None]) == level
    return float(np.mean([right[level == k].mean() for k in np.unique(level)]))


def factor_vae_score(
    codes: Any, factors: Any, *, num_votes: int = 1000, num_held_out: int = 1000, group: int = 64, seed: int = 0
) -> Score:
    """FactorVAE score: does the latent that varies least identify the factor that was held fixed?

    A vote takes a factor and one of its levels at random, ``group`` data that have it, and the latent whose variance
    among them, in units of its variance over all data, is least. A majority vote maps latents to factors; the score is
    its accuracy on held-out votes. Chance is one over the number of factors. Constant latents take no part; collapsed
    ones, which vary a little, should be left out of ``codes``.

    Args:
        codes: ``(datum, latent)``.
        factors: levels, ``(datum, factor)``.
        num_votes: votes that the map is made from.
        num_held_out: votes that it is scored on.
        group: data for each vote, drawn with replacement.
        seed: of the votes.

    Raises:
        ValueError: see `checked_factors`; no latent varies; or fewer than 2 data for each vote.

    References:
        Kim & Mnih 2018, Disentangling by factorising, sec. 4. arXiv:1802.05983
    """
    codes, levels = checked_factors(codes, factors)
    if group < 2:
        raise ValueError(f"a variance needs a group of at least 2 data, got {group}")
    variance = codes.var(0)
    active = np.flatnonzero(variance > 0)
    if len(active) == 0:
        raise ValueError("no latent varies over the data; the posterior has collapsed")
    scaled = codes[:, active] / np.sqrt(variance[active])
    random = np.random.default_rng(derive_seed(seed, 3))
    total, num_factors = num_votes + num_held_out, levels.shape[1]
    fixed = random.integers(num_factors, size=total)
    least = np.empty(total, np.int64)
    block = max(_NUMBERS_AT_ONCE // (group * len(active)), 1)
    for f in range(num_factors):
        order = np.argsort(levels[:, f], kind="stable")
        starts = np.searchsorted(levels[order, f], np.arange(levels[:, f].max() + 2))
        votes = np.flatnonzero(fixed == f)
        level = random.integers(len(starts) - 1, size=len(votes))
        size = (starts[level + 1] - starts[level])[:, None]
        place = starts[level][:, None] + (random.random((len(votes), group)) * size).astype(np.int64)
        for start in range(0, len(votes), block):
            rows = order[place[start : start + block]]
            least[votes[start : start + block]] = scaled[rows].var(1).argmin(1)
    counted = np.zeros((codes.shape[1], num_factors), np.int64)
    np.add.at(counted, (active[least[:num_votes]], fixed[:num_votes]), 1)
    right = counted.argmax(1)[active[least[num_votes:]]] == fixed[num_votes:]
    parts = np.array([right[fixed[num_votes:] == f].mean() if (fixed[num_votes:] == f).any() else np.nan
                      for f in range(num_factors)])  # fmt: skip
    se = float(right.std() / np.sqrt(num_held_out))
    return Score("FactorVAE score", float(right.mean()), se, parts, counted)
