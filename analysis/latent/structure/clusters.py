"""Clusters among codes: k-means, Gaussian mixtures, HDBSCAN; their stability, and agreement with labels."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from analysis.latent.structure.clustering import Clustering, Method, Select
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.means import mean_and_error

type Array = np.ndarray[Any, Any]

# Shapes of the components of a mixture, from free covariances to balls of one size each.
_COVARIANCES = ("full", "tied", "diag", "spherical")
# Data among which all distances are taken for a silhouette.
_SILHOUETTE_DATA = 2000
# Starts of k-means, whose best end is kept: a single one often ends short of it. A mixture has twice as many.
_STARTS = 5


def cluster(
    codes: Any,
    *,
    method: Method = "mixture",
    num_clusters: int | Iterable[int] | None = None,
    select: Literal["bic", "held_out"] = "bic",
    labels: Any = None,
    min_cluster_size: int | None = None,
    num_bootstrap: int = 10,
    max_data: int = 5000,
    seed: int = 0,
) -> Clustering:
    """Cluster codes, and estimate the stability of the clusters.

    Args:
        codes: ``(datum, latent)``.
        method: ``kmeans``; ``mixture`` of Gaussians, with covariances that are free, shared, diagonal or spherical,
            whichever ``select`` prefers; ``hdbscan``, which finds the number of clusters and leaves noise out.
        num_clusters: or several to choose from, for k-means by the silhouette, for a mixture by ``select``; ``None``
            is 2 to 12 for k-means, 1 to 12 for a mixture.
        select: ``bic``, or ``held_out`` log density by 5-fold cross-validation, the fewest components within a standard
            error of the best.
        labels: of the data, ``(datum,)``; they are compared, never clustered by.
        min_cluster_size: of HDBSCAN; ``None`` is a hundredth of the data, at least 5.
        num_bootstrap: bootstrap samples that are clustered again for the stability; 0 for none. Repeats in a sample
            are taken once, since copies of a datum are a cluster.
        max_data: data, drawn at random, where there are more.
        seed: of the draws and of all starts.

    Raises:
        ValueError: an unknown method or criterion, wrong shapes, codes that are not finite, or fewer data than
            clusters.

    References:
        Rousseeuw 1987, Silhouettes, J. Comput. Appl. Math. 20. doi:10.1016/0377-0427(87)90125-7
        Fraley & Raftery 2002, Model-based clustering, JASA 97, sec. 2.4 (BIC). doi:10.1198/016214502760047131
        Smyth 2000, Model selection for probabilistic clustering using cross-validated likelihood, Stat. Comput. 10.
        Campello, Moulavi & Sander 2013, Density-based clustering based on hierarchical density estimates, PAKDD.
        Hennig 2007, Cluster-wise assessment of cluster stability, CSDA 52. doi:10.1016/j.csda.2006.11.025
    """
    codes = np.asarray(codes, dtype=np.float64)
    if codes.ndim != 2 or len(codes) < 2:
        raise ValueError(f"codes of shape (datum, latent) with at least 2 data required, got {codes.shape}")
    if not np.isfinite(codes).all():
        raise ValueError(f"{int((~np.isfinite(codes)).sum())} codes are not finite; look for data the encoder fails on")
    if labels is not None and np.shape(labels) != (len(codes),):
        raise ValueError(f"labels of shape ({len(codes)},) required, got {np.shape(labels)}")
    if method not in ("kmeans", "mixture", "hdbscan"):
        raise ValueError(f"unknown method {method!r}; choose from kmeans, mixture, hdbscan")
    if select not in ("bic", "held_out"):
        raise ValueError(f"unknown criterion {select!r}; choose from bic, held_out")
    random = np.random.default_rng(derive_seed(seed, 0))
    index = np.sort(random.permutation(len(codes))[:max_data])
    z = codes[index]
    candidates = _candidates(method, num_clusters, len(z))
    size = max(len(z) // 100, 5) if min_cluster_size is None else min_cluster_size

    criterion, criterion_se, used, covariance = np.empty(0), np.empty(0), None, None
    chosen = int(candidates[0]) if len(candidates) else 0
    if len(candidates) > 1 or method == "mixture":
        used = "silhouette" if method == "kmeans" else select
        criterion, criterion_se, chosen, covariance = _compare(z, candidates, used, seed)
    fit = _fitter(method, chosen, covariance, size)
    assigned = fit(z, derive_seed(seed, 1) % 2**32)
    silhouette, silhouette_se = _silhouette(z, assigned, seed)
    stability, jaccard = _stability(z, assigned, fit, num_bootstrap, seed)
    against: dict[str, float] = {}
    if labels is not None:
        against = _agreement(assigned, np.asarray(labels)[index], seed)
    return Clustering(
        method, index, assigned, candidates, criterion, criterion_se, used, covariance, silhouette, silhouette_se,
        stability, jaccard, **against,
    )  # fmt: skip


def _candidates(method: Method, num_clusters: int | Iterable[int] | None, size: int) -> Array:
    if method == "hdbscan":
        if num_clusters is not None:
            raise ValueError("hdbscan finds the number of clusters itself; pass min_cluster_size, or another method")
        return np.empty(0, np.int64)
    lowest = 2 if method == "kmeans" else 1
    if num_clusters is None:
        return np.arange(lowest, min(12, size - 1) + 1)
    candidates = np.unique(
        np.atleast_1d(np.asarray(num_clusters if isinstance(num_clusters, int) else [*num_clusters]))
    )
    single = len(candidates) == 1 and candidates[0] == 1
    if len(candidates) == 0 or (candidates[0] < lowest and not single) or candidates[0] < 1:
        raise ValueError(f"{method} compares numbers of clusters from {lowest}, got {candidates.tolist()}")
    if candidates[-1] >= size:
        raise ValueError(f"{int(candidates[-1])} clusters of {size} data are not possible; ask for fewer")
    return candidates


def _fitter(method: Method, number: int, covariance: str | None, min_size: int) -> Callable[[Array, int], Array]:
    def fit(z: Array, state: int) -> Array:
        if method == "kmeans":
            from sklearn.cluster import KMeans

            found = KMeans(number, n_init=_STARTS, random_state=state).fit_predict(z)
        elif method == "mixture":
            found = _mixture(z, number, covariance or "full", state).predict(z)
        else:
            from sklearn.cluster import HDBSCAN

            found = HDBSCAN(min_cluster_size=min(min_size, len(z)), copy=True).fit_predict(z)
        # Numbered by first appearance, without the gaps that an empty component leaves.
        return _renumbered(np.asarray(found))

    return fit


def _renumbered(labels: Array) -> Array:
    result = np.full(len(labels), -1, np.int64)
    values, first = np.unique(labels[labels >= 0], return_index=True)
    for number, value in enumerate(values[np.argsort(first)]):
        result[labels == value] = number
    return result


def _mixture(z: Array, number: int, covariance: str, state: int) -> Any:
    """The likeliest of several fits: some start from k-means, others from data at random, where k-means misleads."""
    from sklearn.mixture import GaussianMixture

    fits = [
        GaussianMixture(
            number, covariance_type=covariance, init_params=start, n_init=count, max_iter=500, random_state=state
        ).fit(z)
        for start, count in (("kmeans", 2), ("random_from_data", 2 * _STARTS))
    ]
    return max(fits, key=lambda fitted: fitted.lower_bound_)


def _compare(z: Array, candidates: Array, select: Select, seed: int) -> tuple[Array, Array, int, str | None]:
    """Criterion of each candidate and its error, and the best number and shape of components."""
    state = derive_seed(seed, 1) % 2**32
    if select == "silhouette":
        rows = np.random.default_rng(derive_seed(seed, 4)).permutation(len(z))[:_SILHOUETTE_DATA]
        fits = [_fitter("kmeans", int(k), None, 0)(z, state) for k in candidates]
        pointwise = np.stack([_silhouettes(z[rows], labels[rows]) for labels in fits])
        mean, error = _paired(pointwise)
        return mean, error, int(candidates[mean.argmax()]), None
    # With one component, shared and free covariances are the same.
    models = [(shape, int(k)) for shape in _COVARIANCES for k in candidates if (shape, k) != ("tied", 1)]
    numbers = np.array([k for _, k in models])
    if select == "bic":
        values = np.array([_mixture(z, k, shape, state).bic(z) for shape, k in models])
        of_candidate = np.array([values[numbers == k].min() for k in candidates])
        shape, number = models[int(values.argmin())]
        return of_candidate, np.full(len(candidates), np.nan), number, shape
    held_out = _held_out(z, models, seed)
    of_number = [np.flatnonzero(numbers == k) for k in candidates]
    best = [rows[held_out[rows].mean(1).argmax()] for rows in of_number]
    mean, error = _paired(held_out[best])
    # The best of many is best by chance too: the fewest within a standard error of it (Breiman et al. 1984, CART).
    chosen = int(np.flatnonzero(mean >= mean.max() - error)[0])
    shape, number = models[int(best[chosen])]
    return mean, error, number, shape


def _held_out(z: Array, models: list[tuple[str, int]], seed: int) -> Array:
    """Log density of each datum under the fit of the folds without it, nats, ``(model, datum)``."""
    from sklearn.model_selection import KFold

    result = np.empty((len(models), len(z)))
    folds = KFold(min(5, len(z)), shuffle=True, random_state=derive_seed(seed, 2) % 2**32)
    for kept, held_out in folds.split(z):
        most = max(number for _, number in models)
        if most > len(kept):
            raise ValueError(f"{most} components of {len(kept)} data in a fold; ask for fewer")
        for row, (shape, number) in enumerate(models):
            mixture = _mixture(z[kept], number, shape, derive_seed(seed, 3) % 2**32)
            result[row, held_out] = mixture.score_samples(z[held_out])
    return result


def _paired(pointwise: Array) -> tuple[Array, Array]:
    """Means of rows, and the standard errors of their differences from the best."""
    mean = pointwise.mean(1)
    difference = pointwise - pointwise[mean.argmax()]
    return mean, difference.std(1, ddof=1) / np.sqrt(pointwise.shape[1])


def _silhouettes(z: Array, labels: Array) -> Array:
    from sklearn.metrics import silhouette_samples

    if not 2 <= len(np.unique(labels)) < len(labels):
        return np.full(len(z), np.nan)
    return np.asarray(silhouette_samples(z, labels))


def _silhouette(z: Array, labels: Array, seed: int) -> tuple[float, float]:
    rows = np.flatnonzero(labels >= 0)
    rows = np.random.default_rng(derive_seed(seed, 4)).permutation(rows)[:_SILHOUETTE_DATA]
    if len(rows) < 3:
        return float("nan"), float("nan")
    values = _silhouettes(z[rows], labels[rows])
    return mean_and_error(values)


def _stability(
    z: Array, labels: Array, fit: Callable[[Array, int], Array], num_bootstrap: int, seed: int
) -> tuple[Array, Array]:
    from sklearn.metrics import adjusted_rand_score

    random = np.random.default_rng(derive_seed(seed, 5))
    number = int(labels.max(initial=-1)) + 1
    indices, similarities = [], []
    for again in range(num_bootstrap):
        rows = np.unique(random.integers(len(z), size=len(z)))
        other = fit(z[rows], derive_seed(seed, 6, again) % 2**32)
        indices.append(adjusted_rand_score(labels[rows], other))
        similarities.append(_jaccard(labels[rows], other, number))
    jaccard = np.mean(similarities, axis=0) if similarities else np.empty(0)
    return np.array(indices), jaccard


def _jaccard(labels: Array, other: Array, number: int) -> Array:
    """Best Jaccard similarity of each of ``number`` clusters with one of another partition; noise is no cluster."""
    count = int(other.max(initial=-1)) + 1
    if count == 0:
        return np.zeros(number)
    both = (labels >= 0) & (other >= 0)
    shared = np.bincount(labels[both] * count + other[both], minlength=number * count).reshape(number, count)
    size = np.bincount(labels[labels >= 0], minlength=number)[:, None]
    other_size = np.bincount(other[other >= 0], minlength=count)
    return np.asarray((shared / np.maximum(size + other_size - shared, 1)).max(1))


def _agreement(assigned: Array, labels: Array, seed: int, num_bootstrap: int = 100) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    random = np.random.default_rng(derive_seed(seed, 7))
    rows = random.integers(len(labels), size=(num_bootstrap, len(labels)))
    result = {}
    for name, measure in (("ari", adjusted_rand_score), ("nmi", normalized_mutual_info_score)):
        result[name] = float(measure(labels, assigned))
        result[f"{name}_se"] = float(np.std([measure(labels[row], assigned[row]) for row in rows], ddof=1))
    return result
