"""Scores of codes by their mutual information with factors: MIG and modularity.

Codes are ``(datum, latent)``, factors are levels 0, 1, 2, ... of shape ``(datum, factor)``.
"""

from typing import Any

import numpy as np

from analysis.latent.disentanglement.scores import Score, checked_factors, gap_of_top_two, half_samples_error

type Array = np.ndarray[Any, Any]


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
    codes, levels = checked_factors(codes, factors)
    return _information(_bins(codes, num_bins), levels)[0]


def mig(codes: Any, factors: Any, *, num_bins: int = 20, num_resamples: int = 100, seed: int = 0) -> Score:
    """Mutual information gap: information on a factor in the best latent less that in the second best, in its entropy.

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
    codes, levels = checked_factors(codes, factors)
    binned = _bins(codes, num_bins)

    def gaps(rows: Array | slice) -> Array:
        information, entropy, _ = _information(binned[rows], levels[rows])
        return gap_of_top_two(information) / np.where(entropy > 0, entropy, np.inf)

    se = half_samples_error(lambda rows: float(gaps(rows).mean()), len(codes), num_resamples, seed, 0)
    parts = gaps(slice(None))
    return Score("MIG", float(parts.mean()), se, parts, _information(binned, levels)[0])


def modularity(codes: Any, factors: Any, *, num_bins: int = 20, num_resamples: int = 100, seed: int = 0) -> Score:
    """Modularity: whether each latent is informative of one factor at most.

    One less the mean squared deviation of a latent's informations from those of a latent that keeps only the largest,
    in units of it, averaged over latents. Left out are latents that tell of no factor (a G-test at 0.001 over all
    pairs), for which it is 0 / 0: noise would have any value. NaN where no latent is informative of any.

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
    codes, levels = checked_factors(codes, factors)
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
        se = half_samples_error(lambda rows: average(each(rows)), len(codes), num_resamples, seed, 1)
    return Score("modularity", value, se, parts, information)
