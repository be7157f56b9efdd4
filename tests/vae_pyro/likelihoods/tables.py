"""A table with columns of every kind, and its likelihood."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.schema import Column, Schema
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.table import Table

ORDER = {"size": ["s", "m", "l", "xl"], "grade": ["low", "mid", "high"]}
# Kinds in no order, and two of those that are padded to the widest.
NAMES = ["city", "height", "income", "visits", "smokes", "size", "weight", "colour", "grade"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"scale": "predicted"},
    {"real": "student_t", "count": "poisson"},
    {"real": "student_t", "count": "poisson", "scale": "predicted"},
]

MARGINS: list[dict[str, Any]] = [{"margins": "fitted"}, {"margins": "fitted", "scale": "predicted"}]


def frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """A table of every kind, whose columns hang together."""
    random = np.random.default_rng(seed)
    z = random.normal(size=rows)
    made = {
        "city": random.choice(["Bern", "Graz", "Lyon", "Oslo", "Turin"], rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
        "height": 170 + 8 * z + 4 * random.normal(size=rows),
        "income": np.exp(7 + 0.5 * z + 0.7 * random.normal(size=rows)),
        "visits": random.poisson(np.exp(1 + 0.5 * z)),
        "smokes": z + random.logistic(size=rows) > 0.5,
        "weight": 70 + 9 * z + 6 * random.normal(size=rows),
        "colour": np.where(z + random.normal(size=rows) > 0, "red", random.choice(["blue", "green"], rows)),
    }
    for name, levels in ORDER.items():
        cut = np.digitize(z + random.logistic(size=rows), np.linspace(-1, 1.5, len(levels) - 1))
        made[name] = pd.Categorical(np.asarray(levels)[cut], levels, ordered=True)
    return pd.DataFrame({name: made[name] for name in NAMES})


def schema() -> Schema:
    return infer(frame())


def build(chosen: Schema | None = None, **options: Any) -> Table:
    columns = [column.model_dump() for column in (chosen or schema()).columns]
    choice = LIKELIHOODS.resolve({"name": "table", "columns": columns, **options})
    likelihood = LIKELIHOODS.build(choice, (len(columns),)).double()
    assert isinstance(likelihood, Table)
    return likelihood


def rows_of(table: pd.DataFrame, chosen: Schema) -> tuple[Tensor, Tensor]:
    values, mask = chosen.encode(table)
    return torch.from_numpy(values), torch.from_numpy(mask)


def ready(**options: Any) -> tuple[Table, Tensor]:
    """Initialised, with outputs for 5 rows about the start."""
    likelihood = build(**options)
    bias = likelihood.initialize(*rows_of(frame(), likelihood.schema))
    with seeded(1):
        return likelihood, bias + torch.randn(5, *likelihood.output_shape, dtype=torch.float64)


def support(likelihood: Table, column: Column) -> tuple[Tensor, Tensor]:
    """Points of a column's support and their weights."""
    if column.kind == "count":
        points = torch.arange(4_000, dtype=torch.float64)
    elif column.categories:
        points = torch.arange(column.num_classes, dtype=torch.float64)
    else:
        # x = exp(u) or loc + sinh(u) reaches the tails; dx is the weight.
        positive = column.kind == "positive"
        u = torch.linspace(-10, 25, 20_001, dtype=torch.float64) - (0 if positive else 7.5)
        center = 0 if positive else likelihood.fill[likelihood.schema.names.index(column.name)]
        step = u[1] - u[0]
        return (u.exp(), u.exp() * step) if positive else (center + u.sinh(), u.cosh() * step)
    return points, torch.ones_like(points)


def small(chosen: Schema, **options: Any) -> VAE:
    columns = [column.model_dump() for column in chosen.columns]
    likelihood = {"name": "table", "columns": columns, **options}
    return VAE(
        VAEConfig(x_shape=(len(columns),), latent_dim=2, likelihood=likelihood, encoder="mlp:hidden=[16]"), seed=0
    )
