"""Densities and imputations of a mixed table: the table VAE, independent columns, gradient boosting, frequencies."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from vae_pyro import VAE, FitConfig, VAEConfig, fit
from vae_pyro.core.isolation import isolated
from vae_pyro.data.tables.reading import read_table
from vae_pyro.data.tables.schema import CODED, Schema
from vae_pyro.densities.log_density import log_densities
from vae_pyro.likelihoods.table import Table

type Array = np.ndarray[Any, Any]

_BLOCK = 50


@dataclass(frozen=True)
class Task:
    """A table in three parts.

    Attributes:
        schema: of all of them.
        train: values, ``(datum, column)``.
        validation: likewise.
        test: likewise.
    """

    schema: Schema
    train: Array
    validation: Array
    test: Array

    @classmethod
    def of(cls, frame: pd.DataFrame, test: int, seed: int, kinds: dict[str, str] | None = None) -> "Task":
        """Split a table at random; a tenth of the rows outside the test set is for validation."""
        table = read_table(frame, kinds)
        order = np.random.default_rng(seed).permutation(len(frame))
        rest = order[test:]
        held = len(rest) // 10
        return cls(table.schema, table.values[rest[held:]], table.values[rest[:held]], table.values[order[:test]])


def fitted(task: Task, hide: Callable[[Array], Array], given: argparse.Namespace, seed: int) -> tuple[VAE, float]:
    """A table VAE and the duration of its fit in seconds; early stopping on the validation rows."""
    columns = [column.model_dump() for column in task.schema.columns]
    vae = VAE(
        VAEConfig(
            x_shape=(len(columns),),
            latent_dim=given.latent_dim,
            likelihood={"name": "table", "columns": columns},
            encoder={"name": "mlp", "hidden": [128, 128]},
        ),
        seed=seed,
    )
    batch = min(128, max(16, len(task.train) // 8))
    an_epoch = ceil(len(task.train) / batch)
    config = FitConfig(
        epochs=ceil(given.steps / an_epoch),
        batch_size=batch,
        optimizer={"name": "adam", "lr": 2e-3},
        schedule={"name": "cosine", "warmup": 1},
        patience=ceil(given.patience / an_epoch),
        device="cpu",
    )
    masks = [torch.from_numpy(hide(values)) for values in (task.train, task.validation)]
    x, held_out = (torch.from_numpy(values) for values in (task.train, task.validation))
    began = perf_counter()
    fit(vae, x, mask=masks[0], validation=held_out, validation_mask=masks[1], config=config, seed=seed, progress=False)
    return vae, perf_counter() - began


def marginals(task: Task) -> Array:
    """log p(x) of the test rows under independent columns of the same families, fitted to the training rows."""
    likelihood = Table((len(task.schema.columns),), columns=task.schema.columns).double()
    x = torch.from_numpy(task.train)
    bias = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
    with torch.no_grad():
        return likelihood.observed(bias[None]).log_prob(torch.from_numpy(task.test)).numpy()


@torch.no_grad()
def imputed(vae: VAE, values: Array, mask: Array, schema: Schema, draws: int, seed: int) -> dict[str, Array]:
    """p(code | observed cells) of each coded column, by self-normalised importance sampling."""
    likelihood = vae.model.likelihood
    codes: dict[str, list[Array]] = {column.name: [] for column in schema.columns if column.kind in CODED}
    with isolated(seed):
        for start in range(0, len(values), _BLOCK):
            x = vae.as_input(values[start : start + _BLOCK])
            seen = torch.from_numpy(mask[start : start + _BLOCK])
            densities = log_densities(vae.model, vae.guide, x, num_particles=draws, mask=seen)
            weight = densities.log_weight.softmax(0)
            rows = likelihood(vae.model.output(densities.latents["z"]))
            for place, column in enumerate(schema.columns):
                if column.kind not in CODED:
                    continue
                shares = []
                for code in range(column.num_classes):
                    cell = torch.as_tensor(likelihood.fill).expand(len(x), -1).clone()
                    cell[:, place] = code
                    shares.append((weight * rows.log_prob(cell)[..., place].exp()).sum(0))
                codes[column.name].append(torch.stack(shares, -1).numpy())
    return {name: np.concatenate(parts) for name, parts in codes.items()}


def boosted(task: Task, hide: Callable[[Array], Array], hidden: Array, seed: int) -> dict[str, Array]:
    """p(code | the other columns) of each coded column, by gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    found = {}
    train, test = np.where(hide(task.train), task.train, np.nan), np.where(hidden, np.nan, task.test)
    nominal = np.asarray([column.kind == "category" for column in task.schema.columns])
    for place, column in enumerate(task.schema.columns):
        if column.kind not in CODED:
            continue
        others, known = np.arange(train.shape[1]) != place, ~np.isnan(train[:, place])
        model = HistGradientBoostingClassifier(
            categorical_features=nominal[others],
            early_stopping=True,
            max_iter=300,
            learning_rate=0.05,
            random_state=seed,
        ).fit(train[known][:, others], train[known, place])
        shares = np.full((len(test), column.num_classes), 1e-12)
        shares[:, model.classes_.astype(int)] = model.predict_proba(test[:, others])
        found[column.name] = shares
    return found


def frequent(task: Task) -> dict[str, Array]:
    """Shares of the codes in the training rows, for each coded column."""
    return {
        column.name: np.tile(
            (np.bincount(task.train[:, place].astype(int), minlength=column.num_classes) + 1.0)
            / (len(task.train) + column.num_classes),
            (len(task.test), 1),
        )
        for place, column in enumerate(task.schema.columns)
        if column.kind in CODED
    }


def scored(codes: dict[str, Array], task: Task, hidden: Array) -> tuple[Array, Array]:
    """Hits and log probabilities of all hidden coded cells."""
    hits, logs = [], []
    for place, column in enumerate(task.schema.columns):
        if column.kind in CODED:
            rows = hidden[:, place]
            truth, shares = task.test[rows, place].astype(int), codes[column.name][rows]
            hits.append(shares.argmax(-1) == truth)
            logs.append(np.log(shares[np.arange(len(truth)), truth]))
    return np.concatenate(hits).astype(float), np.concatenate(logs)


def hiding(share: float, seed: int) -> Callable[[Array], Array]:
    """Masks, true where observed, with a share of the cells missing completely at random."""
    random = np.random.default_rng(seed)

    def observed(values: Array) -> Array:
        return np.asarray(random.random(values.shape) >= share)

    return observed
