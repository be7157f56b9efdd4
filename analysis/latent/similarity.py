"""Agreement of seeds on the latents: the same space up to rotation (CKA), and the same axes (UDR), without factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.latent.disentanglement.scores import Score
from analysis.results.estimate import plus_minus
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from vae_pyro.core.isolation import derive_seed
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

_LEAST_DATA = 4
# An HSIC that is smaller beside its three terms is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Result):
    """How far models of different seeds agree, pair by pair.

    A high CKA with a low UDR means that seeds find the same space and rotate it.

    Attributes:
        cka: debiased linear CKA of each pair, ``(seed, seed)``; 1 on its diagonal, NaN where a model has no latent.
        udr: UDR's score of each pair, ``(seed, seed)``, NaN on its diagonal, 0 where a model has no latent.
        cka_mean: mean over pairs of different seeds; pairs without a value are left out.
        cka_se: its standard error for other seeds on the same data; NaN with fewer than 3 seeds.
        udr_mean: mean over pairs. The published score of a model is a median over its partners, see
            `udr`.
        udr_se: likewise.
        num_active: latents that count, for each seed, ``(seed,)``.
        num_data: data.
    """

    cka: Array
    udr: Array
    cka_mean: float
    cka_se: float
    udr_mean: float
    udr_se: float
    num_active: Array
    num_data: int

    def summary(self) -> dict[str, Any]:
        """The means with their errors, JSON-able; what is not known is ``None``."""
        values = {"cka": self.cka_mean, "cka_se": self.cka_se, "udr": self.udr_mean, "udr_se": self.udr_se}
        known = {key: finite_or_none(value) for key, value in values.items()}
        return {**known, "num_active": self.num_active.tolist(), "num_data": self.num_data}

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a pair of seeds: CKA and UDR."""
        import pandas as pd

        first, second = np.triu_indices(len(self.cka), 1)
        index = pd.MultiIndex.from_arrays([first, second], names=["first", "second"])
        return pd.DataFrame({"cka": self.cka[first, second], "udr": self.udr[first, second]}, index=index)

    def plot(self) -> "Figure":
        """CKA of each pair of seeds."""
        from analysis.plotting import plot_matrix

        names = [str(seed) for seed in range(len(self.cka))]
        return plot_matrix(self.cka, names, names, label="linear CKA")

    def __str__(self) -> str:
        cka, shared = (
            plus_minus(mean, se if isfinite(se) else None)
            for mean, se in ((self.cka_mean, self.cka_se), (self.udr_mean, self.udr_se))
        )
        counts = ", ".join(str(count) for count in self.num_active)
        head = f"{len(self.cka)} seeds on {self.num_data:,} data"
        return screen([f"{head}: linear CKA {cka}, UDR {shared}, active latents {counts}"])


def linear_cka(first: Array, second: Array) -> float:
    """Debiased linear CKA of two codes of the same data: 1 for the same up to rotation, scale and shift, about 0 for
    independent ones.

    The estimate of HSIC is unbiased, so that independent codes are at 0 on average with few data and many latents,
    where the plain one is far above it. It can be negative, and is between -1 and 1. All is computed from matrices
    ``(latent, latent)``, never ``(datum, datum)``.

    Args:
        first: codes ``(datum, latent)``, at least 4 data.
        second: codes ``(datum, latent)`` of the same data in the same order; the number of latents may be another.

    Returns:
        NaN where one of the codes is constant but for at most one datum, or has no latent: it has no direction to
        compare.

    Raises:
        ValueError: other shapes, other numbers of data, fewer than 4, or codes that are not finite.

    References:
        Kornblith et al. 2019, Similarity of neural network representations revisited, sec. 3, CKA with linear kernels
        in terms of features. arXiv:1905.00414
        Song et al. 2012, Feature selection via dependence maximization, JMLR 13: the unbiased estimator of HSIC.
        Nguyen, Raghu & Kornblith 2021, Do wide and deep networks learn the same things?: CKA from it.
        arXiv:2010.15327
    """
    first, second = _checked([first, second])
    return _cka(_centred(first), _centred(second))


def agreement(codes: Sequence[Array], active: Sequence[Array] | None = None) -> Agreement:
    """Agreement of models that differ in their seed, by CKA and by UDR, on the active latents.

    The standard error is the jackknife's over seeds, which respects that pairs share seeds: it leaves out all pairs of
    one seed at a time. On average it is not too small. It holds the data fixed.

    Args:
        codes: posterior means of each model for the same data in the same order, each ``(datum, latent)``; at least 2
            models.
        active: for each model, which latents count, boolean ``(latent,)``; UDR's paper takes those with a mean KL above
            0.01 nats. ``None`` takes those whose codes vary by more than 0.01.

    Raises:
        ValueError: fewer than 2 models, codes that `linear_cka` refuses, or ``active`` of another shape.

    References:
        Duan et al. 2020, Unsupervised model selection for variational disentangled representation learning.
        arXiv:1905.12614
        Arvesen 1969, Jackknifing U-statistics, Annals of Mathematical Statistics 40. Efron & Stein 1981, The jackknife
        estimate of variance, Annals of Statistics 9: it is biased upwards.
    """
    if len(codes) < 2:
        raise ValueError(f"agreement is of at least 2 models, got {len(codes)}; fit more seeds")
    models = _checked(codes)
    if active is None:
        chosen = [model.var(0) > ACTIVE_VARIANCE for model in models]
    else:
        chosen = [np.asarray(each, dtype=bool) for each in active]
        shapes = [(model.shape[1],) for model in models]
        if [each.shape for each in chosen] != shapes:
            raise ValueError(f"active must have the shapes {shapes}, got {[each.shape for each in chosen]}")
    kept = [_centred(model[:, each]) for model, each in zip(models, chosen, strict=True)]
    cka = np.array([[_cka(one, other) for other in kept] for one in kept])
    shared = udr(models, informative=chosen, num_bootstrap=0).matrix
    return Agreement(
        cka, shared, *_pair_mean(cka), *_pair_mean(shared), np.array([each.sum() for each in chosen]), len(models[0])
    )


def _hsic(first: Array, second: Array) -> float:
    """Unbiased HSIC of centred codes with linear kernels; Song et al. 2012, without the datum-by-datum kernels.

    Of centred codes the kernels' rows sum to 0, and without the diagonal to minus the diagonal.
    """
    n = len(first)
    own, others = (first**2).sum(1), (second**2).sum(1)
    terms = (
        float(((first.T @ second) ** 2).sum()),
        -n / (n - 2) * float(own @ others),
        float(own.sum() * others.sum()) / ((n - 1) * (n - 2)),
    )
    total = sum(terms)
    return total / (n * (n - 3)) if abs(total) > _ROUNDING * sum(map(abs, terms)) else 0.0


def _cka(first: Array, second: Array) -> float:
    size = sqrt(max(_hsic(first, first), 0.0)) * sqrt(max(_hsic(second, second), 0.0))
    return min(max(_hsic(first, second) / size, -1.0), 1.0) if size > 0 else nan


def _pair_mean(pairs: Array) -> tuple[float, float]:
    """Mean over pairs of a symmetric matrix, and its jackknife standard error over rows."""
    pairs = np.where(np.eye(len(pairs), dtype=bool), np.nan, pairs)

    def mean(matrix: Array) -> float:
        there = matrix[np.isfinite(matrix)]
        return float(there.mean()) if len(there) else nan

    count = len(pairs)
    if count < 3:
        return mean(pairs), nan
    without = np.array([mean(np.delete(np.delete(pairs, i, 0), i, 1)) for i in range(count)])
    return mean(pairs), sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))


def _centred(codes: Array) -> Array:
    """Centred, and scaled as a whole to unit size, so that no product under- or overflows."""
    centred = codes - codes.mean(0)
    size = np.abs(centred).max(initial=0.0)
    # What rounding leaves of a constant is no direction.
    if size <= 1e-14 * np.abs(codes).max(initial=0.0):
        return np.zeros_like(centred)
    return np.asarray(centred / size)


def _checked(codes: Sequence[Any]) -> list[Array]:
    models = [np.asarray(each, dtype=np.float64) for each in codes]
    shapes = [each.shape for each in models]
    if any(each.ndim != 2 or len(each) != len(models[0]) for each in models):
        raise ValueError(f"codes (datum, latent) of the same data required, got {shapes}")
    if len(models[0]) < _LEAST_DATA:
        raise ValueError(f"CKA requires at least {_LEAST_DATA} data, got {len(models[0])}")
    for index, each in enumerate(models):
        if not np.isfinite(each).all():
            raise ValueError(f"codes {index} hold {np.sum(~np.isfinite(each)):,} values that are not finite; drop them")
    return models


def udr(
    codes: Sequence[Any], *, informative: Sequence[Any] | None = None, num_bootstrap: int = 200, seed: int = 0
) -> Score:
    """Unsupervised disentanglement ranking: do models that differ in their seed find the same latents? No factors.

    Between two models the absolute Spearman correlations of their latents are compared: each informative latent should
    match one latent of the other model and no second one. A model's score is the median over the others.

    Args:
        codes: of each model for the same data in the same order, each ``(datum, latent)``; at least 2 models.
        informative: for each model, which latents count, boolean ``(latent,)``; the paper takes those with a mean KL
            above 0.01 nats. ``None`` takes those whose codes vary by more than 0.01.
        num_bootstrap: bootstrap samples of the partners for the standard error of the mean score.
        seed: of the bootstrap.

    Returns:
        The mean over models as ``value``, the models' scores as ``parts``, pairs as ``matrix`` (NaN on its diagonal).

    Raises:
        ValueError: fewer than 2 models, or codes of different data.

    References:
        Duan et al. 2020, Unsupervised model selection for variational disentangled representation learning, sec. 4,
        eq. 2-3 (UDR_S). arXiv:1905.12614
    """
    from scipy.stats import rankdata

    models = [np.asarray(each, dtype=np.float64) for each in codes]
    if len(models) < 2:
        raise ValueError(f"UDR compares at least 2 models, got {len(models)}")
    if any(each.ndim != 2 or len(each) != len(models[0]) for each in models):
        raise ValueError(f"codes (datum, latent) of the same data required, got {[each.shape for each in models]}")
    chosen = [each.var(0) > ACTIVE_VARIANCE for each in models] if informative is None else [
        np.asarray(each, dtype=bool) for each in informative
    ]  # fmt: skip
    ranks = []
    for each in models:
        rank = rankdata(each, axis=0)
        rank = rank - rank.mean(0)
        length = np.sqrt((rank**2).sum(0))
        ranks.append(rank / np.where(length > 0, length, np.inf))
    pairs = np.full((len(models), len(models)), np.nan)
    for i in range(len(models)):
        for j in range(i):
            kept = np.abs(ranks[i][:, chosen[i]].T @ ranks[j][:, chosen[j]])
            pairs[i, j] = pairs[j, i] = _relative_strength(kept)
    scores = np.nanmedian(pairs, axis=1)
    others = [np.delete(row, i) for i, row in enumerate(pairs)]
    random = np.random.default_rng(derive_seed(seed, 6))
    means = [np.mean([np.median(random.choice(row, len(row))) for row in others]) for _ in range(max(num_bootstrap, 0))]
    se = float(np.std(means, ddof=1)) if num_bootstrap > 1 and len(models) > 2 else None
    return Score("UDR", float(scores.mean()), se, scores, pairs)


def _relative_strength(correlation: Array) -> float:
    if correlation.size == 0:
        return 0.0
    total = 0.0
    for axis in (0, 1):
        summed = correlation.sum(axis)
        total += float((correlation.max(axis) ** 2 / np.where(summed > 0, summed, np.inf)).sum())
    return total / sum(correlation.shape)
