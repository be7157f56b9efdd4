"""Do seeds agree on the latents? The same space up to rotation (CKA), and the same axes (UDR), without factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import Any

import numpy as np

from analysis.latent.disentanglement import udr
from analysis.results.estimate import plus_minus
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE

type Array = np.ndarray[Any, Any]

_LEAST_DATA = 4
# An HSIC that is smaller beside its three terms is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Agreement:
    """How far models of different seeds agree, pair by pair.

    A high CKA with a low UDR says that seeds find the same space and rotate it.

    Attributes:
        cka: debiased linear CKA of each pair, ``(seed, seed)``; 1 on its diagonal, NaN where a model has no latent.
        udr: UDR's score of each pair, ``(seed, seed)``, NaN on its diagonal, 0 where a model has no latent.
        cka_mean: mean over pairs of different seeds; pairs without a value are left out.
        cka_se: its standard error for other seeds on the same data; NaN with fewer than 3 seeds.
        udr_mean: mean over pairs. The published score of a model is a median over its partners, see
            `analysis.latent.disentanglement.udr`.
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
        figures = {"cka": self.cka_mean, "cka_se": self.cka_se, "udr": self.udr_mean, "udr_se": self.udr_se}
        known = {key: value if isfinite(value) else None for key, value in figures.items()}
        return {**known, "num_active": self.num_active.tolist(), "num_data": self.num_data}

    def __str__(self) -> str:
        cka, shared = (
            plus_minus(mean, se if isfinite(se) else None)
            for mean, se in ((self.cka_mean, self.cka_se), (self.udr_mean, self.udr_se))
        )
        return (
            f"{len(self.cka)} seeds on {self.num_data:,} data: linear CKA {cka}, UDR {shared}, active latents "
            f"{', '.join(str(count) for count in self.num_active)}"
        )


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
        wanted = [(model.shape[1],) for model in models]
        if [each.shape for each in chosen] != wanted:
            raise ValueError(f"active is to be of shapes {wanted}, got {[each.shape for each in chosen]}")
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
        raise ValueError(f"codes (datum, latent) of the same data wanted, got {shapes}")
    if len(models[0]) < _LEAST_DATA:
        raise ValueError(f"CKA wants at least {_LEAST_DATA} data, got {len(models[0])}")
    for index, each in enumerate(models):
        if not np.isfinite(each).all():
            raise ValueError(f"codes {index} hold {np.sum(~np.isfinite(each)):,} values that are not finite; drop them")
    return models
