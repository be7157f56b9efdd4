"""A process of mixed tables for which the probability of every row is known."""

from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from torch import Tensor

from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.schema import CODED

type Array = np.ndarray[Any, Any]

# Parameters of each column that depend on the hidden units of the process.
_PARAMETERS = {"real": 1, "positive": 1, "count": 1, "binary": 1, "ordinal": 1}
_CLASSES = {"city": 5, "colour": 3}
_COLUMNS = {
    "height": "real", "weight": "real", "pulse": "real", "income": "positive", "rent": "positive", "visits": "count",
    "rooms": "count", "smokes": "binary", "owns": "binary", "grade": "ordinal", "city": "category",
    "colour": "category",
}  # fmt: skip
_CUTPOINTS = (-2.0, -0.5, 0.8, 2.2)
# Rows whose densities on the grid are in memory at once.
_BLOCK = 50


class Process:
    """Two standard normal latents, one layer of random hidden units, and columns of each kind.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int = 0) -> None:
        widths = [_CLASSES.get(name) or _PARAMETERS[kind] for name, kind in _COLUMNS.items()]
        with seeded(seed):
            self.hidden = 1.5 * torch.randn(2, 8, dtype=torch.float64), 0.5 * torch.randn(8, dtype=torch.float64)
            self.out = [0.7 * torch.randn(8, width, dtype=torch.float64) for width in widths]

    def columns(self, z: Tensor) -> dict[str, Any]:
        """p(column | z) by name, batch shape ``(latent,)``, for z of shape ``(latent, 2)``."""
        weight, bias = self.hidden
        hidden = torch.tanh(z @ weight + bias)
        made: dict[str, Any] = {}
        for (name, kind), out in zip(_COLUMNS.items(), self.out, strict=True):
            eta = hidden @ out
            one = eta[:, 0]
            if kind == "real":
                made[name] = dist.Normal(100 + 10 * one, torch.tensor(5.0, dtype=one.dtype))
            elif kind == "positive":
                made[name] = dist.LogNormal(7 + 0.5 * one, torch.tensor(0.4, dtype=one.dtype))
            elif kind == "count":
                size = torch.tensor(5.0, dtype=one.dtype)
                made[name] = dist.NegativeBinomial(size, logits=1.5 + 0.5 * one - size.log())
            elif kind == "binary":
                made[name] = dist.Bernoulli(logits=1.5 * one)
            elif kind == "ordinal":
                below = torch.sigmoid(torch.tensor(_CUTPOINTS, dtype=one.dtype) - 2 * one.unsqueeze(-1))
                edges = torch.zeros_like(below[:, :1])
                made[name] = dist.Categorical(torch.diff(below, dim=-1, prepend=edges, append=edges + 1))
            else:
                made[name] = dist.Categorical(logits=1.5 * eta)
        return made

    def draw(self, rows: int, seed: int) -> pd.DataFrame:
        """Draw rows."""
        with seeded(seed):
            cells = {
                name: law.sample() for name, law in self.columns(torch.randn(rows, 2, dtype=torch.float64)).items()
            }
        frame = pd.DataFrame({name: column.numpy() for name, column in cells.items()})
        for name, many in _CLASSES.items():
            frame[name] = np.asarray([f"{name} {chr(97 + k)}" for k in range(many)])[frame[name].astype(int)]
        levels = [f"level {k}" for k in range(len(_CUTPOINTS) + 1)]
        frame["grade"] = pd.Categorical.from_codes(frame["grade"].astype(int), levels, ordered=True)
        return frame.astype({"smokes": bool, "owns": bool, "visits": int, "rooms": int})

    def known(self, values: Array, mask: Array, points: int = 161) -> tuple[Array, dict[str, Array]]:
        """log p of the observed cells in nats, and p(code | observed cells) of each coded column.

        Integrated by the trapezoidal rule on ``points`` x ``points`` latents in [-6, 6], which converges geometrically
        here.

        Args:
            values: ``(datum, column)`` as a schema encodes them.
            mask: likewise, true where observed.
            points: on each axis.

        Returns:
            Shape ``(datum,)``, and by name ``(datum, code)``.
        """
        axis = torch.linspace(-6, 6, points, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        log_prior = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1).log_prob(grid)
        log_prior = log_prior + 2 * (axis[1] - axis[0]).log()
        laws = self.columns(grid)
        coded = {name: _shares(law) for name, law in laws.items() if _COLUMNS[name] in CODED}
        densities: list[Tensor] = []
        codes: dict[str, list[Tensor]] = {name: [] for name in coded}
        for start in range(0, len(values), _BLOCK):
            some = slice(start, start + _BLOCK)
            log_p = log_prior.expand(len(values[some]), -1)
            for place, law in enumerate(laws.values()):
                seen = torch.from_numpy(mask[some, place]).unsqueeze(-1)
                cell = torch.where(seen, torch.from_numpy(values[some, place]).unsqueeze(-1), 1.0)
                log_p = log_p + torch.where(seen, law.log_prob(cell), 0.0)
            densities.append(log_p.logsumexp(-1))
            posterior = log_p.softmax(-1)
            for name, shares in coded.items():
                codes[name].append(posterior @ shares)
        return torch.cat(densities).numpy(), {name: torch.cat(parts).numpy() for name, parts in codes.items()}


def _shares(law: Any) -> Tensor:
    return law.probs if isinstance(law, dist.Categorical) else torch.stack([1 - law.probs, law.probs], -1)
