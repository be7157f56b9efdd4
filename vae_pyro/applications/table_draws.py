"""`sample_frame`: draws of a table's model as a table, of all rows or of those that meet conditions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vae_pyro.applications.imputation import impute
from vae_pyro.core.isolation import checked_seed, derive_seed
from vae_pyro.core.memory import require_memory
from vae_pyro.data.tables.conditions import Where, as_frame, conditions
from vae_pyro.models.vae import VAE

if TYPE_CHECKING:
    from pandas import DataFrame

type Array = np.ndarray[Any, Any]

# Rows that are drawn at once, and rows of which none meets the conditions before they are said to have no mass.
_AT_ONCE, _TRIED = 4096, 100_000
_SMALLEST_SAMPLE = 30
_PRIOR_STREAM, _POSTERIOR_STREAM = 1, 2


def sample_frame(
    vae: VAE,
    num: int,
    *,
    where: str | Mapping[str, Any] | None = None,
    num_draws: int = 10_000,
    seed: int = 0,
) -> "DataFrame":
    """Draw rows of a table from a fitted model, with its names, categories, types, rounding and range.

    Values that columns are to have (``cut=Ideal``) are conditioned on: latents are drawn from the guide given them,
    weighted by importance and resampled, as in `impute`, and rows are drawn given those. Of the other conditions
    (``price>5000``) rows that do not meet them are rejected. The draws are therefore of the model's own conditional
    distribution, to the error of the importance weights.

    Args:
        vae: fitted with the likelihood ``table``.
        num: number of rows.
        where: conditions, see `vae_pyro.data.tables.conditions.conditions`; ``None`` draws from the whole distribution.
        num_draws: draws of the guide that are resampled where values are given.
        seed: of the draws.

    Returns:
        A table of ``num`` rows. ``attrs["effective_sample_size"]`` is that of the weights of the latents (``num`` where
        no values are given), ``attrs["acceptance"]`` the share of draws that met the other conditions.

    Raises:
        ValueError: no model of a table, conditions that it has no columns or categories for, or conditions without
            mass: none of 100,000 draws meets them, or the effective sample size is below 30.

    References:
        Rubin 1988, Using the SIR algorithm to simulate posterior distributions, Bayesian Statistics 3, 395-402.
    """
    schema = vae.model.likelihood.schema
    if schema is None:
        raise ValueError(
            f"the likelihood {vae.config.likelihood.name!r} has no columns; sample_frame draws from models of tables "
            "(likelihood='table'), vae.sample from others"
        )
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    seed = checked_seed(seed)
    require_memory(8 * num * len(schema.columns), f"num={num:,} rows of {len(schema.columns):,} columns", "draw fewer")
    asked = Where(conditions(where), schema)
    kept: list[Array] = []
    accepted = tried = 0
    smallest = float("inf")
    while accepted < num:
        missing = num - accepted
        if tried and asked.tests:  # as many as should meet the conditions, and some more
            missing = int(1.1 * missing * tried / max(accepted, 1)) + 1
        rows, size = _draw(vae, asked, min(missing, _AT_ONCE), num_draws, derive_seed(seed, tried))
        smallest = min(smallest, size)
        met = rows[asked.holds(rows)]
        tried += len(rows)
        kept.append(met[: num - accepted])
        accepted += len(met)
        if not accepted and tried >= _TRIED:
            raise ValueError(
                f"where {where}: none of {tried:,} draws meets the conditions; they have no mass in the model"
            )
    frame = as_frame(np.concatenate(kept), schema)
    size = smallest if asked.given else float(num)
    frame.attrs |= {"effective_sample_size": size, "acceptance": 1.0 if not asked.tests else accepted / tried}
    return frame


def _draw(vae: VAE, asked: Where, count: int, num_draws: int, seed: int) -> tuple[Array, float]:
    """Rows given the values that are asked for, and the effective sample size of their latents."""
    if not asked.given:
        return vae.sample(count, seed=derive_seed(seed, _PRIOR_STREAM)).double().cpu().numpy(), float("inf")
    values, mask = asked.row()
    x = torch.from_numpy(values).to(vae.dtype)
    made = impute(
        vae,
        x,
        mask=torch.from_numpy(mask),
        num_draws=num_draws,
        num_imputations=count,
        level=None,
        seed=derive_seed(seed, _POSTERIOR_STREAM),
    )
    size = float(made.effective_sample_size[0]) if not mask.all() else float("inf")
    if size < _SMALLEST_SAMPLE:
        raise ValueError(
            f"the values that are given have hardly any mass in the model: {num_draws:,} draws of the guide have an "
            f"effective sample size of {size:.1f}, below {_SMALLEST_SAMPLE}; raise num_draws, or give other values"
        )
    return np.asarray(made.imputations[:, 0], dtype=np.float64), size
