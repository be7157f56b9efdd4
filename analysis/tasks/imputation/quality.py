"""Judge imputations by what was hidden: errors, coverage and calibration, each with its error.

Elements of one datum share its latents, so that data and not elements are independent: every standard error is that of
a ratio of sums over data.
"""

from typing import Any

import numpy as np

from analysis.draws.weights import weigh
from analysis.results.estimate import Estimate
from analysis.stats.importance import unreliable
from analysis.stats.pareto_smoothing import pareto_k
from analysis.stats.proper_scores import crps, pit_of_draws
from analysis.tasks.imputation.result import ImputationQuality, Kind
from vae_pyro.applications.imputation_result import Imputation
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.densities.pair import PairLike

type Array = np.ndarray[Any, Any]

_FEWEST_DRAWS = 9


def imputation_quality(
    imputation: Imputation,
    truth: Any,
    *,
    scored: Any = None,
    kind: Kind | None = None,
    pareto_k: Array | None = None,
    seed: int = 0,
) -> ImputationQuality:
    """Judge imputed elements by what was hidden.

    Args:
        imputation: what `vae_pyro.applications.imputation.impute` gave; with ``num_imputations`` of 9 or more, its
            draws are judged as well.
        truth: ``(datum, *x_shape)``; NaN where it is not known.
        scored: boolean, same shape: judge these of the imputed elements only.
        kind: ``None`` takes ``binary`` where all true values are 0 or 1 and all means between, ``classes`` where the
            imputation has no standard deviations, and else ``continuous``.
        pareto_k: of the same data, see `imputation_k`.
        seed: breaks ties between the truth and draws.

    Raises:
        ValueError: other shapes, k-hat of other data, fewer than 2 data to judge, or classes beside numbers. Binary
            elements beside others count as continuous: judge them apart, with ``scored``.

    References:
        Gneiting & Raftery 2007, Strictly proper scoring rules, prediction, and estimation, JASA 102, sec. 4.2 (CRPS).
        doi:10.1198/016214506000001437
    """
    hidden = np.asarray(truth, dtype=np.float64)
    if hidden.shape != imputation.mean.shape:
        raise ValueError(f"truth has shape {hidden.shape}, the imputation {imputation.mean.shape}")
    chosen = imputation.missing & np.isfinite(hidden)
    if scored is not None:
        which = np.asarray(scored, dtype=bool)
        if which.shape != hidden.shape:
            raise ValueError(f"scored has shape {which.shape}, the imputation {hidden.shape}")
        chosen &= which
    rows = np.nonzero(chosen)[0]
    _, rows = np.unique(rows, return_inverse=True)
    if len(rows) == 0 or rows[-1] < 1:
        raise ValueError("fewer than 2 data have an imputed element whose truth is known; there is nothing to average")
    x, mean, sd = hidden[chosen], imputation.mean[chosen].astype(np.float64), imputation.sd[chosen].astype(np.float64)
    nominal = np.isnan(sd)
    if nominal.any() and not nominal.all():
        raise ValueError("some elements are classes and others numbers; judge them apart, with scored=")
    if kind is None:
        ones = bool(np.isin(x, (0, 1)).all() and (mean >= 0).all() and (mean <= 1).all())
        kind = "classes" if nominal.all() else "binary" if ones else "continuous"

    draws = imputation.imputations[:, chosen].astype(np.float64)
    coverage = pit = None
    if kind == "classes":
        estimates = {"error_rate": _ratio(mean != x, rows)}
    elif kind == "binary":
        p = np.clip(mean, 1e-12, 1 - 1e-12)
        estimates = {
            "brier": _ratio((x - p) ** 2, rows),
            "log_score": _ratio(x * np.log(p) + (1 - x) * np.log1p(-p), rows, "nats per element"),
            "brier_excess": _ratio((x - p) * (1 - 2 * p), rows),
        }
    else:
        estimates = {"mse": _ratio((mean - x) ** 2, rows), "mae": _ratio(np.abs(mean - x), rows)}
        if imputation.lower is not None and imputation.upper is not None:
            inside = (imputation.lower[chosen] <= x) & (x <= imputation.upper[chosen])
            coverage = _ratio(inside, rows)
        if len(draws) >= 2:
            estimates["crps"] = _ratio(crps(draws, x), rows)
        if len(draws) >= _FEWEST_DRAWS:
            pit = pit_of_draws(draws, x, seed=seed)
            estimates["pit_mean"] = _ratio(pit, rows)
            estimates["pit_spread"] = _ratio(12 * (pit - 0.5) ** 2, rows)
    usable = np.isfinite(sd) & (sd > 0)
    errors = imputation.mean_se[chosen][usable] / sd[usable]
    return ImputationQuality(
        kind=kind,
        estimates=estimates,
        coverage=coverage,
        level=imputation.level,
        pit=pit,
        monte_carlo=float(np.sqrt((errors**2).mean())) if len(errors) else None,
        effective_sample_size=imputation.effective_sample_size[np.unique(np.nonzero(chosen)[0])],
        pareto_k=None if pareto_k is None else np.asarray(pareto_k),
        unreliable=None if pareto_k is None else _unreliable(np.asarray(pareto_k), imputation),
        num_draws=imputation.num_draws,
        num_data=int(rows[-1]) + 1,
        num_elements=len(x),
        on_lattice=bool((x == np.round(x)).all()),
    )


def imputation_k(
    pair: PairLike, x: Any, *, mask: Any = None, y: Any = None, num_draws: int = 1000, seed: int = 0
) -> Array:
    """Pareto k-hat of the importance weights of each datum that misses something.

    The arguments are those of `vae_pyro.applications.imputation.impute`.

    Returns:
        ``(incomplete datum,)``, see `analysis.stats.pareto_smoothing.pareto_k`.

    Raises:
        ValueError: nothing is missing, or fewer than 25 draws.
    """
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    if split.mask is None or bool(split.mask.all()):
        raise ValueError("nothing is missing in these data; there are no imputations to judge")
    incomplete = split.take((~split.mask.flatten(1).all(1)).nonzero().flatten())
    assert incomplete.mask is not None
    if incomplete.dtype.is_floating_point:
        # As `impute` shows them to the programs.
        values = incomplete.stored(slice(None)).where(incomplete.mask, 0.0)
        incomplete = as_split(values, incomplete.mask, incomplete.y) if incomplete.top is None else incomplete
    return np.concatenate(
        weigh(pair, incomplete, lambda block: pareto_k(block.log_weight), num_draws=num_draws, seed=seed)
    )


def _unreliable(pareto_k: Array, imputation: Imputation) -> Array:
    """Which data that miss something have weights too uneven for their mean, see `unreliable`."""
    effective = imputation.effective_sample_size[~np.isnan(imputation.effective_sample_size)]
    if pareto_k.shape != effective.shape:
        raise ValueError(
            f"pareto_k has shape {pareto_k.shape}, and {len(effective):,} data miss something; pass that of "
            "analysis.imputation_k at the same data"
        )
    return unreliable(pareto_k, effective, imputation.num_draws)


def _ratio(values: Array, rows: Array, unit: str = "") -> Estimate:
    """Mean over elements, and its standard error where data are independent and elements of one are not."""
    n = int(rows[-1]) + 1
    total, count = np.bincount(rows, values.astype(np.float64), n), np.bincount(rows, minlength=n)
    mean = total.sum() / count.sum()
    error = np.sqrt(((total - mean * count) ** 2).sum() * n / (n - 1)) / count.sum()
    return Estimate(float(mean), float(error), unit)
