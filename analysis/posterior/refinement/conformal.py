"""`credible_regions`: regions of latents that cover at their level over the fitted model, whatever the guide."""

from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.draws.arrays import as_array, side_by_side
from analysis.posterior.refinement.regions import CredibleRegions
from analysis.stats.conformal import conformal_threshold
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Given, Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, bind, pieces
from vae_pyro.training.refit.simulator import Simulator, part_of

type Array = np.ndarray[Any, Any]


def credible_regions(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    level: float = 0.9,
    num_calibration: int = 1000,
    num_draws: int = 200,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> CredibleRegions:
    """Conformal regions of the latents of each datum, calibrated on draws of the fitted model.

    Where (z, x) is drawn from the model, the joint region holds z with a probability from ``level`` to
    ``level + 1 / (num_calibration + 1)``, and so does each latent's interval on its own: in finite samples, whatever
    the guide. The probability is an average over data and calibration sets; it is not that given one x, and says
    nothing where the model is wrong. A better guide makes the regions smaller.

    - The joint region is ``{z : log q(z | x) >= threshold}``, a highest-density region of the guide (Patel et al.
      2024).
    - Intervals are ``mean ± factor * sd`` of the guide's draws, with a factor of each latent's own.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`, whose model draws data
            and whose latents are continuous.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first. Masks and classes
            of the simulated data are drawn from its.
        level: of each region.
        num_calibration: simulated data.
        num_draws: of the guide, for means and standard deviations of each datum.
        seed: of all draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.

    Raises:
        ValueError: a level outside (0, 1), too few simulations for it, a model that draws no data, latents of discrete
            support, or a guide with auxiliary sites.

    References:
        Patel, McNamara, Loper, Regier & Tewari 2024, Variational inference with coverage guarantees in
        simulation-based inference (CANVI), algorithm 1 and lemma 1. arXiv:2305.14275
    """
    if not 0 < level < 1:
        raise ValueError(f"level lies between 0 and 1, got {level}")
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2, got {num_draws}")
    data = bind(pair, x, seed=seed, mask=mask, y=y)
    programs = data.programs
    at_once = max(ELEMENTS_AT_ONCE // (num_draws * data.width), 1)
    joint, standard = [], []
    with isolated(derive_seed(seed, 1)):
        simulated = Simulator(data, data.split).draw(num_calibration)
        for rows in pieces(num_calibration, at_once):
            some = part_of(simulated, rows)
            truth = {name: value[None] for name, value in some.latents.items()}
            joint.append(as_array(programs.score_guide(some.x, truth, **some.given)[0]))
            mean, sd = _moments(programs, some.x, some.given, num_draws)
            standard.append(np.abs(side_by_side(_by_name(truth), 2)[0] - mean) / sd)
    with isolated(derive_seed(seed, 2)):
        moments = [_moments(programs, *data.batch(rows), num_draws) for rows in pieces(len(data), at_once)]
    scores = np.concatenate(standard)
    mean, sd = (np.concatenate(part) for part in zip(*moments, strict=True))
    return CredibleRegions(
        data=data,
        level=level,
        threshold=-float(conformal_threshold(-np.concatenate(joint), level)),
        mean=mean,
        sd=sd,
        factor=conformal_threshold(scores, level),
        nominal=float(sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64))),
        num_calibration=num_calibration,
    )


@torch.no_grad()
def _moments(programs: Programs, x: Tensor, given: Given, num_draws: int) -> tuple[Array, Array]:
    """Mean and standard deviation of draws of the guide, each ``(datum, latent)``."""
    drawn = programs.draw(x, num_draws, **given)
    others = [name for name, kind in drawn.kinds.items() if kind != "code"]
    if others:
        raise ValueError(
            f"latent site {others[0]!r} is discrete or missing data, and has no intervals around a mean; give the "
            "classes with y=, or take posterior_draws"
        )
    flat = side_by_side(_by_name(drawn.latents), 2)
    return flat.mean(0), np.maximum(flat.std(0, ddof=1), 1e-12)


def _by_name(latents: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(sorted(latents.items()))
