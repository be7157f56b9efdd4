"""All disentanglement scores of one model's codes: does each known factor have a latent of its own?

A score near its maximum means that the axes of the latent space are those factors. A VAE can be right as a model and
have any score: rotating a standard normal latent changes no log p(x) (Locatello et al. 2019, arXiv:1811.12359,
theorem 1).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis.latent.disentanglement.forests import dci
from analysis.latent.disentanglement.mutual_information import mig, modularity
from analysis.latent.disentanglement.predictability import factor_vae_score, sap
from analysis.latent.disentanglement.result import Disentanglement
from analysis.latent.disentanglement.scores import Score
from vae_pyro.core.isolation import derive_seed
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE

type Array = np.ndarray[Any, Any]


def disentanglement(
    codes: Any,
    factors: Any,
    *,
    factor_names: Sequence[str] | None = None,
    categorical: Sequence[str] = ("shape",),
    num_rotations: int = 99,
    num_resamples: int = 50,
    max_data: int = 5000,
    seed: int = 0,
) -> Disentanglement:
    """All scores of the codes of one model, and the MIG of rotated codes beside its own.

    Latents whose codes vary by at most 0.01 are left out: a collapsed latent still maps data to different numbers, but
    all of them lie within the posterior's noise.

    Args:
        codes: posterior means, ``(datum, latent)``, see `analysis.draws.codes.posterior_means`.
        factors: levels 0, 1, 2, ..., ``(datum, factor)``, see `vae_pyro.data.sprites.SpriteGrid.factors_of`.
        factor_names: for the report; ``None`` numbers them.
        categorical: names of factors whose levels have no order, for SAP; names that there are not are ignored.
        num_rotations: for the comparison.
        num_resamples: random halves of the data for standard errors; 0 for none.
        max_data: data, drawn at random, for the forests of `dci` and the rotations.
        seed: of everything that is drawn.

    Raises:
        ValueError: wrong shapes, as many names as factors are not given, or no latent varies.
    """
    codes, factors = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2:
        raise ValueError(f"codes (datum, latent), factors (datum, factor) required, got {codes.shape}, {factors.shape}")
    names = tuple(factor_names) if factor_names is not None else tuple(f"factor {f}" for f in range(factors.shape[1]))
    if len(names) != factors.shape[1]:
        raise ValueError(f"{factors.shape[1]} factors have {len(names)} names ({', '.join(names)})")
    active = np.flatnonzero(codes.var(0) > ACTIVE_VARIANCE)
    if len(active) == 0:
        raise ValueError(
            f"no latent's codes vary by more than {ACTIVE_VARIANCE}; the posterior has collapsed (lower beta), or "
            "they are codes of another kind, to be scaled to unit variance"
        )
    kept = codes[:, active]
    unordered = [names.index(name) for name in categorical if name in names]
    gap = mig(kept, factors, num_resamples=num_resamples, seed=seed)
    single = Score("modularity", float("nan"), None, np.full(len(active), np.nan), gap.matrix)
    rows = np.random.default_rng(derive_seed(seed, 8)).permutation(len(kept))[:max_data]

    def again(z: Array) -> float:
        return mig(z, factors[rows], num_resamples=0).value

    return Disentanglement(
        names,
        active,
        gap,
        dci(kept, factors, max_data=max_data, num_bootstrap=5 if num_resamples else 0, seed=seed),
        sap(kept, factors, categorical=unordered, num_resamples=min(num_resamples, 20), seed=seed),
        factor_vae_score(kept, factors, seed=seed),
        modularity(kept, factors, num_resamples=num_resamples, seed=seed) if len(names) > 1 else single,
        rotated(again, kept[rows], num_rotations=num_rotations, seed=seed) if len(active) > 1 else np.empty(0),
        again(kept[rows]),
        len(codes),
    )


def rotated(score: Callable[[Array], float], codes: Any, *, num_rotations: int = 50, seed: int = 0) -> Array:
    """A score of randomly rotated codes, ``(rotation,)``: the same information on meaningless axes.

    Args:
        score: of codes ``(datum, latent)``.
        codes: ``(datum, latent)``; those latents that vary are standardised and rotated, the others dropped.
        num_rotations: rotations, uniform over the orthogonal group.
        seed: of the rotations.

    Raises:
        ValueError: fewer than 2 latents vary, so that there is nothing to rotate.
    """
    from scipy.stats import ortho_group

    codes = np.asarray(codes, dtype=np.float64)
    variance = codes.var(0)
    active = variance > 0
    if active.sum() < 2:
        raise ValueError(f"a rotation requires at least 2 latents that vary, got {int(active.sum())}")
    scaled = (codes[:, active] - codes[:, active].mean(0)) / np.sqrt(variance[active])
    random = np.random.default_rng(derive_seed(seed, 7))
    matrices = [ortho_group.rvs(int(active.sum()), random_state=random) for _ in range(num_rotations)]
    return np.array([score(scaled @ matrix) for matrix in matrices])
