"""Have the data changed since a model was fitted? New data against held-out data, as the fitted model sees both.

What new data are compared with has to be exchangeable with them where nothing has changed. The training data are not:
the model has seen them, so that they are likelier than new data of the same distribution, and their latents fit better;
a test against them finds drift where there is none. Nor are validation data by which the fit was stopped, to a lesser
degree. The test data of a run are, where they were set apart at random; where a source has test data of its own, the
question is whether new data are like those.

Three statistics look at different things: log p(x), what the model thinks of each datum; the kernel discrepancy of the
latents, a difference of any kind in where data lie; and how well a classifier separates the latents, which is sharp
where few of many latents move. They share one set of relabellings, by which they are judged one by one and together, so
that the false-alarm rate of all three is the nominal one and no less.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.draws.codes import drawn_means
from analysis.monitoring.drift.result import Drift
from analysis.monitoring.outliers.detection import evidence
from analysis.stats.detection_scores import separation
from analysis.stats.mmd import median_distance, mmd
from analysis.stats.two_sample import anderson_darling, discriminant, max_t, min_p, relabellings
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.renamed import renamed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike

type Array = np.ndarray[Any, Any]

_MIN_ROWS = 20
(_ROWS_STREAM, _REFERENCE_STREAM, _NEW_STREAM, _LABEL_STREAM, _FOLD_STREAM, _MEDIAN_STREAM, _FIX_STREAM) = range(7)


@renamed(level="alpha", max_rows="max_data")
def drift_test(
    pair: PairLike,
    reference: Split | Tensor | Array,
    new: Split | Tensor | Array,
    *,
    num_permutations: int = 999,
    alpha: float = 0.05,
    num_draws: int = 100,
    max_data: int = 2000,
    seed: int = 0,
) -> Drift:
    """Test whether new data come from the distribution that a fitted pair was made for, and identify what moved.

    The test is exact: where new and reference data are exchangeable, drift is found with probability ``alpha``, or
    less by no more than 3 / (1 + num_permutations), whatever the model, the guide, and the sizes. All three statistics
    are computed for the same relabellings, the classifier refitted for each (`analysis.stats.two_sample.discriminant`),
    and joined by `analysis.stats.two_sample.min_p`. Power is that of the model: what it is blind to is not seen.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        reference: held-out data of the distribution that the pair was fitted to, ``(datum, *x_shape)``: neither its
            training data, nor data that decided when the fit stopped.
        new: the data in question; copies of training data among them look likelier than new data are.
        num_permutations: relabellings; the smallest p-value is ``1 / (1 + num_permutations)``.
        alpha: false-alarm rate.
        num_draws: draws of the guide for each datum, for log p(x) and posterior means. Both samples get as many, and
            the test is exact with any number.
        max_data: more data than these are cut down at random, in both samples.
        seed: of rows, draws, relabellings and folds.

    Returns:
        p-values, effects with their errors, the least likely data and the latents that moved.

    Raises:
        ValueError: fewer than 20 data in a sample, shapes or observation spaces that differ, classes that are known in
            one sample and not in the other, an alpha that so few permutations cannot reach, data outside the support of
            the likelihood, or a log p(x) that is NaN.

    References:
        Rabanser, Günnemann & Lipton 2019, Failing loudly: an empirical study of methods for detecting dataset shift,
        NeurIPS (two-sample tests on reduced data, one by one and joined). arXiv:1810.11953
        Gretton et al. 2012, A kernel two-sample test, JMLR 13 (MMD).
        Phipson & Smyth 2010, Permutation p-values should never be zero, sec. 3. arXiv:1603.05766
    """
    if not 0 < alpha < 1 or num_permutations < 1 or 1 / (1 + num_permutations) > alpha:
        raise ValueError(
            f"alpha={alpha:g} with {num_permutations} permutations: the smallest p-value is "
            f"{1 / (1 + max(num_permutations, 0)):.3g}; raise num_permutations, or pass an alpha between that and 1"
        )
    samples = [
        _rows(as_split(x), max_data, derive_seed(seed, _ROWS_STREAM, place)).fixed(
            derive_seed(seed, _FIX_STREAM, place)
        )
        for place, x in enumerate((reference, new))
    ]
    _require_alike(samples[0], samples[1], max_data)
    streams = (derive_seed(seed, _REFERENCE_STREAM), derive_seed(seed, _NEW_STREAM))
    log_px, codes, names = [], [], [""]
    for split, stream in zip(samples, streams, strict=True):
        log_px.append(evidence(pair, split, num_draws=num_draws, seed=stream).log_px)
        names, found = drawn_means(pair, split, num_draws=num_draws, seed=derive_seed(stream, 2))
        codes.append(found)
    m, n = len(samples[0]), len(samples[1])
    label_seed = derive_seed(seed, _LABEL_STREAM)
    first = relabellings(m, n, num_permutations, seed=label_seed)
    pooled = np.concatenate(codes)
    bandwidth = median_distance(pooled, np.random.default_rng(derive_seed(seed, _MEDIAN_STREAM)))
    discrepancy = mmd(*codes, seed=label_seed, bandwidth=bandwidth, num_permutations=num_permutations)
    auroc, scores = discriminant(pooled, first, seed=derive_seed(seed, _FOLD_STREAM))
    statistics = np.column_stack(
        [
            anderson_darling(np.concatenate(log_px), first),
            np.concatenate([[discrepancy.value], discrepancy.null]),
            auroc,
        ]
    )
    p_values, adjusted = min_p(statistics)
    return Drift(
        log_px_reference=log_px[0],
        log_px_new=log_px[1],
        codes_reference=codes[0],
        codes_new=codes[1],
        latents=tuple(names),
        ids_reference=samples[0].ids.cpu().numpy(),
        ids_new=samples[1].ids.cpu().numpy(),
        statistics=statistics,
        p_values=p_values,
        adjusted=adjusted,
        latent_adjusted=max_t(np.column_stack([anderson_darling(column, first) for column in pooled.T])),
        discrepancy=discrepancy,
        classifier=separation(scores[:m], scores[m:]),
        alpha=alpha,
        num_draws=num_draws,
        space=str(samples[1].space),
    )


def _rows(split: Split, max_data: int, seed: int) -> Split:
    if len(split) <= max_data:
        return split
    chosen = np.sort(np.random.default_rng(seed).choice(len(split), max_data, replace=False))
    return split.take(torch.from_numpy(chosen).to(split.device))


def _require_alike(reference: Split, new: Split, max_data: int) -> None:
    if min(len(reference), len(new)) < _MIN_ROWS:
        raise ValueError(
            f"at least {_MIN_ROWS} data of each sample are required, got {len(reference)} reference and {len(new)} new "
            f"data (max_data={max_data})"
        )
    if reference.x_shape != new.x_shape:
        raise ValueError(f"reference data of shape {reference.x_shape} and new data of shape {new.x_shape} differ")
    if not reference.space.compatible(new.space):
        raise ValueError(
            f"the reference data are {reference.space!r} and the new data {new.space!r}; prepare both alike, with the "
            "options that the model was fitted with"
        )
    # Of a datum with a class the density is that of both: log p(x, y) beside log p(x) differs where nothing changed.
    one, other = _known_classes(reference), _known_classes(new)
    if one != other:
        raise ValueError(
            f"classes are known of {one} reference data and of {other} new data, so that densities of data with and "
            "without their class would be compared; give y for both samples, or leave it out of both "
            "(split.replace(y=None))"
        )


def _known_classes(split: Split) -> str:
    """Of how many data the programs are given a class: ``all``, ``some`` or ``no``."""
    if split.y is None:
        return "no"
    known = split.y >= 0
    return "all" if bool(known.all()) else "some" if bool(known.any()) else "no"
