"""Scores of codes against known factors, each a pure function of arrays: MIG, modularity, SAP, FactorVAE score, DCI.

Codes are ``(datum, latent)``, factors are levels 0, 1, 2, ... of shape ``(datum, factor)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]

# Depths that the forests of `dci` choose from.
_DEPTHS = (2, 4, 6, 8, 12, 20)
_NUMBERS_AT_ONCE = 5_000_000


@dataclass(frozen=True)
class Score:
    """One disentanglement score.

    Attributes:
        name: of the score.
        value: between 0 and 1, higher is more disentangled.
        se: standard error of ``value`` for another sample of data; of its draws for the FactorVAE score; of the
            partners for UDR; ``None`` where it was not asked for.
        parts: what the value is the mean of, for each factor (MIG, SAP), latent (modularity, NaN where it is left out)
            or model (UDR).
        matrix: what it was computed from: mutual information or SAP's scores ``(latent, factor)``, votes ``(latent,
            factor)``, or UDR between models ``(model, model)``.
    """

    name: str
    value: float
    se: float | None
    parts: Array
    matrix: Array

    def __str__(self) -> str:
        error = "" if self.se is None else f" ± {self.se:.3f}"
        return f"{self.name} {self.value:.3f}{error}"


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness, see `dci`.

    Attributes:
        disentanglement: whether a latent tells of one factor alone, 0 to 1.
        completeness: whether one latent alone tells of a factor, 0 to 1.
        informativeness: share of held-out data whose level is predicted, averaged over factors.
        chance: the same for the commonest level.
        disentanglement_se: standard error over bootstrap samples of the training data; ``completeness_se`` likewise.
        informativeness_se: of the held-out shares.
        importance: of each latent for each factor, ``(latent, factor)``, columns sum to 1.
        accuracy: for each factor.
    """

    disentanglement: float
    disentanglement_se: float | None
    completeness: float
    completeness_se: float | None
    informativeness: float
    informativeness_se: float
    chance: float
    importance: Array
    accuracy: Array


def _checked(codes: Any, factors: Any) -> tuple[Array, Array]:
    codes, factors = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or 0 in codes.shape + factors.shape:
        raise ValueError(
            f"codes (datum, latent) and factors (datum, factor) of the same data wanted, got {codes.shape} and "
            f"{factors.shape}"
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"{int((~np.isfinite(codes)).sum())} codes are not finite; look for data the encoder fails on")
    if factors.dtype.kind not in "buif" or (factors != np.floor(factors)).any():
        raise ValueError(f"factors are levels 0, 1, 2, ..., got {factors.dtype}; number the distinct values")
    levels = np.stack([np.unique(column, return_inverse=True)[1] for column in factors.T], 1)
    constant = np.flatnonzero(levels.max(0) == 0)
    if len(constant):
        raise ValueError(f"factor {int(constant[0])} has one value in all {len(levels)} data; leave it out")
    return codes, levels


def _bins(codes: Array, num_bins: int) -> Array:
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    return np.minimum(((codes - low) / width * num_bins).astype(np.int64), num_bins - 1)


def _entropy(counts: Array) -> tuple[Array, Array]:
    """Plug-in entropy in nats and number of occupied cells, over the last dimension."""
    share = counts / counts.sum(-1, keepdims=True)
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1), (counts > 0).sum(-1)


def _information(binned: Array, levels: Array) -> tuple[Array, Array, Array]:
    """Mutual information ``(latent, factor)``, entropies ``(factor,)``, and the G-test's p-values of the former."""
    from scipy.stats import chi2

    n, (num_latents, num_factors) = len(binned), (binned.shape[1], levels.shape[1])
    num_bins = int(binned.max()) + 1
    information, p_value = np.empty((num_latents, num_factors)), np.empty((num_latents, num_factors))
    entropy = np.empty(num_factors)
    for f in range(num_factors):
        count = int(levels[:, f].max()) + 1
        cell = (np.arange(num_latents) * num_bins + binned) * count + levels[:, f, None]
        table = np.bincount(cell.ravel(), minlength=num_latents * num_bins * count).reshape(
            num_latents, num_bins, count
        )
        of_code, code_cells = _entropy(table.sum(2))
        of_factor, factor_cells = _entropy(table[0].sum(0))
        joint, joint_cells = _entropy(table.reshape(num_latents, -1))
        plug_in = of_code + of_factor - joint
        information[:, f] = plug_in - (joint_cells - code_cells - factor_cells + 1) / (2 * n)
        entropy[f] = of_factor + (factor_cells - 1) / (2 * n)
        p_value[:, f] = chi2.sf(2 * n * plug_in, np.maximum((code_cells - 1) * (factor_cells - 1), 1))
    return np.maximum(information, 0.0), entropy, p_value


def factor_information(codes: Any, factors: Any, *, num_bins: int = 20) -> Array:
    """Mutual information of each latent and factor, nats, with Miller and Madow's correction of its bias.

    Args:
        codes: ``(datum, latent)``.
        factors: levels, ``(datum, factor)``.
        num_bins: bins of equal width that each latent is cut into, as in Locatello et al.

    Returns:
        ``(latent, factor)``, not below 0.

    Raises:
        ValueError: wrong shapes, codes that are not finite, or a factor that does not vary.

    References:
        Miller 1955, Note on the bias of information estimates. Information theory in psychology, 95-100.
        Locatello et al. 2019, Challenging common assumptions, appendix C (the bins). arXiv:1811.12359
    """
    codes, levels = _checked(codes, factors)
    return _information(_bins(codes, num_bins), levels)[0]


def _half_samples(
    statistic: Callable[[Array], float], size: int, num_resamples: int, seed: int, stream: int
) -> float | None:
    """Standard error of a statistic of rows, from random halves of the data.

    The variance of a half's statistic given the data is that of the whole's over data. A bootstrap sample would hold
    data twice, which looks like information.

    References:
        Politis, Romano & Wolf 1999, Subsampling, sec. 2.3. doi:10.1007/978-1-4612-1554-7
    """
    if num_resamples < 2:
        return None
    random = np.random.default_rng(derive_seed(seed, stream))
    values = [statistic(random.permutation(size)[: size // 2]) for _ in range(num_resamples)]
    return float(np.nanstd(values, ddof=1)) if np.isfinite(values).sum() > 1 else None


def _top_two(scores: Array) -> Array:
    """Largest less second largest over latents, ``(factor,)``; a single latent competes with none."""
    if len(scores) == 1:
        return scores[0]
    ordered = np.sort(scores, axis=0)
    return ordered[-1] - ordered[-2]


def mig(codes: Any, factors: Any, *, num_bins: int = 20, num_resamples: int = 100, seed: int = 0) -> Score:
    """Mutual information gap: how much more the best latent tells of a factor than the second best, in its entropy.

    Args:
        codes: posterior means (as in Locatello et al.) or draws of q(z | x) (as in Chen et al.), ``(datum, latent)``.
        factors: levels, ``(datum, factor)``.
        num_bins: see `factor_information`.
        num_resamples: random halves of the data for the standard error; 0 for none.
        seed: of the halves.

    Raises:
        ValueError: see `factor_information`.

    References:
        Chen et al. 2018, Isolating sources of disentanglement in VAEs, sec. 4.1, eq. 6. arXiv:1802.04942
    """
    codes, levels = _checked(codes, factors)
    binned = _bins(codes, num_bins)

    def gaps(rows: Array | slice) -> Array:
        information, entropy, _ = _information(binned[rows], levels[rows])
        return _top_two(information) / np.where(entropy > 0, entropy, np.inf)

    se = _half_samples(lambda rows: float(gaps(rows).mean()), len(codes), num_resamples, seed, 0)
    parts = gaps(slice(None))
    return Score("MIG", float(parts.mean()), se, parts, _information(binned, levels)[0])


def modularity(codes: Any, factors: Any, *, num_bins: int = 20, num_resamples: int = 100, seed: int = 0) -> Score:
    """Modularity: whether each latent tells of one factor at most.

    One less the mean squared deviation of a latent's informations from those of a latent that keeps only the largest,
    in units of it, averaged over latents. Left out are latents that tell of no factor (a G-test at 0.001 over all
    pairs), for which it is 0 / 0: noise would have any value. NaN where no latent tells of any.

    Args:
        codes: ``(datum, latent)``.
        factors: levels, ``(datum, factor)``; at least 2 factors.
        num_bins: see `factor_information`.
        num_resamples: random halves of the data for the standard error; 0 for none.
        seed: of the halves.

    Raises:
        ValueError: see `factor_information`; or a single factor.

    References:
        Ridgeway & Mozer 2018, Learning deep disentangled embeddings with the F-statistic loss, sec. 3, eq. 1-2.
        arXiv:1802.05312
    """
    codes, levels = _checked(codes, factors)
    if levels.shape[1] < 2:
        raise ValueError("modularity compares factors, got one; choose MIG or the linear probe")
    binned = _bins(codes, num_bins)
    information = _information(binned, levels)[0]

    def each(rows: Array | slice) -> Array:
        found, _, p_value = _information(binned[rows], levels[rows])
        square = found**2
        largest = square.max(1)
        telling = (p_value < 0.001 / p_value.size).any(1) & (largest > 0)
        spread = (square.sum(1) - largest) / (np.where(largest > 0, largest, np.inf) * (square.shape[1] - 1))
        return np.where(telling, 1 - spread, np.nan)

    def average(parts: Array) -> float:
        return float(np.nanmean(parts)) if np.isfinite(parts).any() else float("nan")

    parts = each(slice(None))
    value = average(parts)
    se = None
    if np.isfinite(value):
        se = _half_samples(lambda rows: average(each(rows)), len(codes), num_resamples, seed, 1)
    return Score("modularity", value, se, parts, information)


def sap(
    codes: Any,
    factors: Any,
    *,
    categorical: Sequence[int] = (),
    num_resamples: int = 20,
    seed: int = 0,
) -> Score:
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
        ValueError: see `factor_information`; or a column that there is not.

    References:
        Kumar, Sattigeri & Balakrishnan 2018, Variational inference of disentangled latent concepts, sec. 3.
        arXiv:1711.00848
    """
    codes, levels = _checked(codes, factors)
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
    parts = _top_two(matrix)
    se = _half_samples(lambda rows: float(_top_two(scores(rows)).mean()), len(codes), num_resamples, seed, 2)
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
    """FactorVAE score: does the latent that varies least tell which factor was held fixed?

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
        ValueError: see `factor_information`; no latent varies; or fewer than 2 data for each vote.

    References:
        Kim & Mnih 2018, Disentangling by factorising, sec. 4. arXiv:1802.05983
    """
    codes, levels = _checked(codes, factors)
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


def _one_less_entropy(weights: Array, axis: int) -> Array:
    """1 - H(weights / sum) / log(count) along an axis; 0 where all weights are 0."""
    count = weights.shape[axis]
    total = weights.sum(axis, keepdims=True)
    share = weights / np.where(total > 0, total, 1.0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis)
    if count == 1:
        return np.ones_like(entropy)
    return np.where(total.squeeze(axis) > 0, 1 - entropy / np.log(count), 0.0)


def dci(
    codes: Any,
    factors: Any,
    *,
    num_trees: int = 20,
    test_fraction: float = 0.25,
    max_data: int = 5000,
    num_bootstrap: int = 5,
    seed: int = 0,
) -> DCI:
    """Disentanglement, completeness and informativeness by random forests that predict each factor from the codes.

    The importance of a latent is the share of impurity that its splits take away. Every split sees all latents, since
    one that is not offered the right latent must credit a wrong one; the depth of the trees is, for each factor, the
    least whose accuracy on validation data is within a standard error of the best, since deeper splits would credit
    latents with noise. Disentanglement averages ``1 - H(importance over
    factors) / log(number of factors)`` over latents, weighted by their importance; completeness ``1 - H(importance
    over latents) / log(number of latents)`` over factors.

    Args:
        codes: ``(datum, latent)``.
        factors: levels, ``(datum, factor)``.
        num_trees: trees of a forest.
        test_fraction: share of the data held out for informativeness.
        max_data: data used, drawn at random, where there are more.
        num_bootstrap: refits on bootstrap samples for the standard errors; 0 for none.
        seed: of the split, the forests and the bootstrap.

    Raises:
        ValueError: see `factor_information`; or fewer than 20 data.

    References:
        Eastwood & Williams 2018, A framework for the quantitative evaluation of disentangled representations, sec. 2.
        https://openreview.net/forum?id=By-7dz-AZ
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, levels = _checked(codes, factors)
    if len(codes) < 20:
        raise ValueError(f"DCI holds data out and wants at least 20, got {len(codes)}")
    random = np.random.default_rng(derive_seed(seed, 4))
    order = random.permutation(len(codes))[:max_data]
    held_out, kept = np.split(order, [max(round(test_fraction * len(order)), 1)])
    validation, rest = np.split(kept, [max(round(test_fraction * len(kept)), 1)])

    def forest(rows: Array, f: int, depth: int, number: int) -> Any:
        state = derive_seed(seed, 5, number, f) % 2**32
        made = RandomForestClassifier(
            num_trees, max_features=None, max_depth=depth, min_samples_leaf=2, random_state=state
        )
        return made.fit(codes[rows], levels[rows, f])

    def right(fitted: Any, rows: Array, f: int) -> Array:
        return np.asarray(fitted.predict(codes[rows]) == levels[rows, f])

    depths = []
    for f in range(levels.shape[1]):
        tried = [right(forest(rest, f, depth, 0), validation, f) for depth in _DEPTHS]
        best = max(tried, key=np.mean)
        enough = best.mean() - best.std() / np.sqrt(len(validation))
        depths.append(next(depth for depth, each in zip(_DEPTHS, tried, strict=True) if each.mean() >= enough))

    def importances(rows: Array, number: int) -> tuple[Array, Array]:
        fitted = [forest(rows, f, depth, number) for f, depth in enumerate(depths)]
        known = np.stack([right(each, held_out, f) for f, each in enumerate(fitted)], 1)
        return np.stack([each.feature_importances_ for each in fitted], 1), known

    def averages(importance: Array) -> tuple[float, float]:
        weight = importance.sum(1) / max(importance.sum(), 1e-300)
        return float((weight * _one_less_entropy(importance, 1)).sum()), float(_one_less_entropy(importance, 0).mean())

    importance, known = importances(kept, 1)
    disentangled, complete = averages(importance)
    resampled = [
        averages(importances(random.choice(kept, len(kept)), number)[0]) for number in range(2, num_bootstrap + 2)
    ]
    errors = np.std(resampled, axis=0, ddof=1) if num_bootstrap > 1 else None
    chance = np.mean([np.bincount(column).max() / len(column) for column in levels[order].T])
    return DCI(
        disentangled,
        None if errors is None else float(errors[0]),
        complete,
        None if errors is None else float(errors[1]),
        float(known.mean()),
        float(known.mean(1).std() / np.sqrt(len(held_out))),
        float(chance),
        importance,
        known.mean(0),
    )
