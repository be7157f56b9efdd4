"""Disentanglement, completeness and informativeness (DCI), by random forests from codes to factors."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.latent.disentanglement.scores import checked_factors
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]

# Depths that the forests choose from.
_DEPTHS = (2, 4, 6, 8, 12, 20)


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness, see `dci`.

    Attributes:
        disentanglement: whether a latent is informative of one factor alone, 0 to 1.
        completeness: whether a factor is captured by one latent alone, 0 to 1.
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
        ValueError: see `analysis.latent.disentanglement.scores.checked_factors`; or fewer than 20 data.

    References:
        Eastwood & Williams 2018, A framework for the quantitative evaluation of disentangled representations, sec. 2.
        https://openreview.net/forum?id=By-7dz-AZ
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, levels = checked_factors(codes, factors)
    if len(codes) < 20:
        raise ValueError(f"DCI holds data out and requires at least 20, got {len(codes)}")
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
