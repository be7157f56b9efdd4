"""`posterior_draws`: draws of the posteriors of single data, with what says whether they can be relied on."""

import warnings
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.posterior.annealing import AnnealingConfig
from analysis.posterior.local_guides import LocalConfig
from analysis.posterior.refinement.block import BlockDraws
from analysis.posterior.refinement.methods import AT_ONCE, METHODS, Settings
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import bind

type Array = np.ndarray[Any, Any]
type DrawMethod = Literal["guide", "importance", "local", "annealed"]

# Proposals whose weights are estimated: at least so many, and for each draw that is resampled.
_PROPOSALS, _PER_DRAW = 2000, 10
_REMEDY = {
    "guide": "take method='importance', 'local' or 'annealed', or refit the guide (vae_pyro.refit_guide)",
    "importance": "take method='local' or 'annealed', raise num_proposals, or refit the guide (vae_pyro.refit_guide)",
    "local": "take method='annealed'",
    "annealed": "raise num_draws, annealing.num_temperatures or annealing.num_chains",
}


def posterior_draws(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    method: DrawMethod = "importance",
    num_draws: int = 1000,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
    num_proposals: int | None = None,
    local: LocalConfig | None = None,
    annealing: AnnealingConfig | None = None,
) -> xr.DataTree:
    """Draws of p(z | x) for each datum, with diagnostics.

    - ``guide``: draws of the amortized guide as they are.
    - ``importance``: draws of the guide, resampled by their Pareto smoothed importance weights.
    - ``local``: a full-rank Gaussian optimised for each datum (Cremer et al. 2018), resampled likewise.
    - ``annealed``: chains that annealed importance sampling has brought to the posterior (Neal 2001), from the local
      Gaussian and from the prior, and that then move by Hamiltonian Monte Carlo. They are kept apart.

    The cost rises from the first to the last; the last two take real-valued latents. Groups of the tree:

    - ``posterior``: each latent site, ``(chain, draw, datum, *event)``.
    - ``sample_stats``: ``lp``, log p(x, z) of each draw, nats.
    - ``posterior_diagnostics``, of each datum: ``effective_sample_size``, ``reliable``, ``log_px`` and ``log_px_se``
      (nats); ``pareto_k`` of the weights of the proposals, or ``r_hat`` and ``acceptance`` of chains.
    - ``observed_data``: ``x``, NaN where an element is not observed.

    A warning counts the data whose draws are not reliable.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        method: see above.
        num_draws: draws of each posterior, over all chains.
        seed: of all draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.
        num_proposals: draws whose weights are estimated, for all methods but ``annealed``; 2,000 if not given, and ten
            for each of ``num_draws``.
        local: how a Gaussian is optimised for each datum.
        annealing: number of chains, length of the path.

    Raises:
        ValueError: an unknown method, no draws, fewer proposals than draws or than 25, data outside the support of the
            likelihood, or latents that are not real-valued where the method requires such.

    References:
        Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646
        Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders. arXiv:1801.03558
        Neal 2001, Annealed importance sampling, Statistics and Computing 11. arXiv:physics/9803008
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    proposals = max(_PROPOSALS, _PER_DRAW * num_draws) if num_proposals is None else num_proposals
    if proposals < max(num_draws, 25):
        raise ValueError(f"num_proposals must be at least num_draws={num_draws} and 25, got {proposals}")
    annealing = annealing or AnnealingConfig(num_chains=20)
    data = bind(pair, x, seed=seed, mask=mask, y=y)
    data.programs.require("latents")
    settings = Settings(
        num_draws, proposals, local or LocalConfig(), annealing, np.random.default_rng(derive_seed(seed, 2))
    )
    at_once = proposals if method in ("guide", "importance") else max(annealing.num_chains, AT_ONCE)
    blocks, scores = [], []
    for number, rows in enumerate(data.rows(at_once)):
        values, given = data.batch(rows)
        with isolated(derive_seed(seed, 1, number)):
            block = METHODS[method](data.programs, values, given, settings)
        blocks.append(block)
        with isolated(), torch.no_grad():
            flat = {name: value.flatten(0, 1) for name, value in block.latents.items()}
            scored = data.programs.score(values, flat, **given)
            shape = next(iter(block.latents.values())).shape[:2]
            joint = (scored.log_likelihood + scored.total_prior).double().unflatten(0, shape)
        scores.append(joint.cpu().numpy())
    tree = _tree(blocks, np.concatenate(scores, 2), data.split, data.observed())
    tree.attrs |= {
        "method": method,
        "seed": seed,
        "num_draws": num_draws,
        "units": "nats",
        "space": str(data.split.space),
    }
    bad = int((~tree["posterior_diagnostics"]["reliable"]).sum())
    if bad:
        warnings.warn(
            f"the draws of {bad:,} of {len(data):,} data are not reliable by method={method!r} (see "
            f"posterior_diagnostics); {_REMEDY[method]}",
            stacklevel=2,
        )
    return tree


def _tree(blocks: list[BlockDraws], joint: Array, split: Split, observed: Array) -> xr.DataTree:
    latents = {
        name: np.concatenate([block.latents[name].cpu().numpy() for block in blocks], 2) for name in blocks[0].latents
    }
    coords: dict[str, Any] = {
        "chain": np.arange(joint.shape[0]),
        "draw": np.arange(joint.shape[1]),
        "datum": split.ids.cpu().numpy(),
    }
    event = tuple(f"x_dim_{i}" for i in range(observed.ndim - 1))
    nodes: dict[str, dict[str, Any]] = {
        "posterior": {name: (_dims(name, value, len(latents)), value) for name, value in latents.items()},
        "sample_stats": {"lp": (("chain", "draw", "datum"), joint)},
        "posterior_diagnostics": {
            name: ("datum", np.concatenate([block.diagnostics[name] for block in blocks]))
            for name in blocks[0].diagnostics
        },
        "observed_data": {"x": (("datum", *event), observed)},
    }
    made = {}
    for group, variables in nodes.items():
        used = {dim for dims, _ in variables.values() for dim in ((dims,) if isinstance(dims, str) else dims)}
        made[group] = xr.Dataset(variables, coords={name: value for name, value in coords.items() if name in used})
    return xr.DataTree.from_dict(made)


def _dims(name: str, value: Array, num_sites: int) -> tuple[str, ...]:
    own = ("latent",) if value.ndim == 4 and (name == "z" or num_sites == 1) else None
    return ("chain", "draw", "datum", *(own or (f"{name}_dim_{i}" for i in range(value.ndim - 3))))
