"""``python -m benchmarks.tables``: mixed tables beside what is known of them.

A made table, 12 columns of all six kinds on two latents, whose log p(x) is known by numerical integration: held-out
log p(x) of the table VAE beside independent columns and the truth, and hidden categories beside the most frequent one,
a gradient boosting fitted to each column, and the truth. Two tables of measurements from scikit-learn with their
labels as columns: held-out log p(x) beside independent columns.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import common
from benchmarks.table_process import Process
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.core.isolation import isolated
from vae_pyro.data.tables.reading import read_table
from vae_pyro.data.tables.schema import CODED, Schema
from vae_pyro.densities.log_densities import log_densities
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
        """Split a table at random; a tenth of what is not for the test is for validation."""
        table = read_table(frame, kinds)
        order = np.random.default_rng(seed).permutation(len(frame))
        rest = order[test:]
        held = len(rest) // 10
        return cls(table.schema, table.values[rest[held:]], table.values[rest[:held]], table.values[order[:test]])


def fitted(task: Task, hide: Callable[[Array], Array], given: argparse.Namespace, seed: int) -> tuple[VAE, float]:
    """A table VAE and the seconds that it took; early stopping on the validation rows."""
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
    """p(code | what is observed) of each column of codes, by self-normalised importance sampling."""
    likelihood = vae.model.likelihood
    codes: dict[str, list[Array]] = {column.name: [] for column in schema.columns if column.kind in CODED}
    with isolated(seed):
        for start in range(0, len(values), _BLOCK):
            x = vae.as_input(values[start : start + _BLOCK])
            seen = torch.from_numpy(mask[start : start + _BLOCK])
            ledger = log_densities(vae.model, vae.guide, x, num_particles=draws, mask=seen)
            weight = ledger.log_weight.softmax(0)
            rows = likelihood(vae.model.output(ledger.latents["z"]))
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
    """p(code | the other columns) of each column of codes, by a gradient boosting fitted to that column."""
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
    """The shares of the training rows, for each column of codes."""
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
    """Hits and log probabilities of all hidden cells of codes."""
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


def densities(given: argparse.Namespace, rows: int, seed: int) -> dict[str, Any]:
    """One fit of complete rows of the made table: what log p(x) of the test rows loses to the truth."""
    process = Process()
    task = Task.of(process.draw(rows + given.test, seed), given.test, seed)
    truth, _ = process.known(task.test, _everything(task.test))
    vae, seconds = fitted(task, _everything, given, seed)
    figures = evaluate(vae, torch.from_numpy(task.test), num_draws=given.draws, seed=seed)
    found = {"marginals": marginals(task), "vae": np.asarray(figures.log_px), "elbo": np.asarray(figures.elbo)}
    lost = {name: _mean(truth - values) for name, values in found.items()}
    return {"rows": rows, "seed": seed, "seconds": seconds, "truth": _mean(truth), "below truth": lost}


def imputations(given: argparse.Namespace, rows: int, seed: int) -> dict[str, Any]:
    """One fit of rows of the made table with cells missing: how well hidden codes of the test rows are told."""
    process = Process()
    task = Task.of(process.draw(rows + given.test, seed), given.test, seed)
    hide = hiding(given.missing, seed)
    hidden = ~hide(task.test)
    vae, seconds = fitted(task, hide, given, seed)
    codes = {
        "most frequent": frequent(task),
        "gradient boosting": boosted(task, hiding(given.missing, seed + 1), hidden, seed),
        "table VAE": imputed(vae, task.test, ~hidden, task.schema, given.draws, seed),
        "truth": process.known(task.test, ~hidden)[1],
    }
    scores = {name: scored(found, task, hidden) for name, found in codes.items()}
    told = {name: {"share right": _mean(hits), "log score": _mean(logs)} for name, (hits, logs) in scores.items()}
    return {"rows": rows, "seed": seed, "seconds": seconds, "cells": len(scores["truth"][0]), "told": told}


def _everything(values: Array) -> Array:
    return np.ones_like(values, dtype=bool)


def _mean(values: Array) -> list[float]:
    return [float(values.mean()), float(values.std(ddof=1) / sqrt(len(values)))]


def measured_table(name: str, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Held-out log p(x) of scikit-learn's table of that name, its label being a column, beside independent columns."""
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    frame = getattr(datasets, f"load_{name}")(as_frame=True, **options).frame
    # Progression of diabetes is an index, and the class of a wine has no order.
    task = Task.of(frame, len(frame) // 4, seed, {"target": "category"} if name == "wine" else None)
    vae, seconds = fitted(task, _everything, given, seed)
    log_px = np.asarray(evaluate(vae, torch.from_numpy(task.test), num_draws=given.draws, seed=seed).log_px)
    gain = log_px - marginals(task)
    return {"table": name, "seed": seed, "seconds": seconds, "gain": _mean(gain), "space": task.schema.space}


def averaged(pairs: list[list[float]], digits: int = 3) -> str:
    """The mean over seeds, with the standard error of seeds where there are several, of rows where there is one."""
    means = np.asarray([mean for mean, _ in pairs])
    error = means.std(ddof=1) / sqrt(len(means)) if len(means) > 1 else pairs[0][1]
    return f"{means.mean():.{digits}f} ± {error:.{digits}f}"


def report(result: dict[str, Any]) -> str:
    """Tables in Markdown."""
    settings, made, missing, lines, shares = result["settings"], result["densities"], result["imputations"], [], []
    for rows in sorted({run["rows"] for run in made}):
        runs = [run for run in made if run["rows"] == rows]
        below = {name: averaged([run["below truth"][name] for run in runs]) for name in runs[0]["below truth"]}
        seconds = common.Spread.of([run["seconds"] for run in runs]).text(0)
        truth = averaged([run["truth"] for run in runs])
        lines.append([f"{rows:,}", truth, below["marginals"], below["vae"], below["elbo"], seconds])
    for rows in sorted({run["rows"] for run in missing}):
        runs = [run for run in missing if run["rows"] == rows]
        for name in runs[0]["told"]:
            found = [run["told"][name] for run in runs]
            hit, log = (averaged([one[key] for one in found]) for key in ("share right", "log score"))
            shares.append([f"{rows:,}", name, hit, log])
    measured = result["measured"]
    gains = [
        [name, averaged([run["gain"] for run in measured if run["table"] == name], 2), runs[0]["space"]]
        for name in dict.fromkeys(run["table"] for run in measured)
        if (runs := [run for run in measured if run["table"] == name])
    ]
    seeds = len({run["seed"] for run in made})
    return "\n\n".join(
        [
            "Held-out log p(x) of a made table, nats per row; the truth by integration, and what others lose to it:",
            common.markdown_table(
                ["training rows", "truth", "independent columns lose", "VAE loses", "its ELBO loses", "fit, s"], lines
            ),
            f"Hidden cells of category, binary and ordinal columns ({settings['missing']:.0%} of all cells, in "
            "training as well):",
            common.markdown_table(["training rows", "by", "share right", "log score, nats per cell"], shares, left=2),
            "Tables of measurements, held-out log p(x):",
            common.markdown_table(["table", "VAE over independent columns, nats per row", "observed"], gains),
            f"{settings['test']:,} test rows, {settings['draws']:,} draws, ± over {seeds} seeds of data and fit.",
            f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}.",
        ]
    )


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 4000], help="training rows")
    parser.add_argument("--test", type=int, default=1000, help="test rows")
    parser.add_argument("--measured", nargs="*", default=["diabetes", "wine"], help="tables of scikit-learn")
    parser.add_argument("--missing", type=float, default=0.3, help="share of the cells that are hidden")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000, help="of a fit, at most")
    parser.add_argument("--patience", type=int, default=1000, help="steps without a better validation ELBO")
    parser.add_argument("--latent-dim", type=int, default=6)
    parser.add_argument("--draws", type=int, default=500, help="of log p(x) and of imputations")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Fit, score, print, and write after every run; what a run before this one has done is taken from its file."""
    given = arguments()
    file = given.out / "results" / "tables.json"
    settings = {key: value for key, value in vars(given).items() if key not in ("out", "seeds", "rows", "measured")}
    result = common.read_json(file) or {}
    if result.get("settings") != settings:
        result = {"benchmark": "tables", "settings": settings, "densities": [], "imputations": [], "measured": []}
    result |= {"machine": common.machine(), "revision": common.revision()}
    for seed in range(given.seeds):
        for name in given.measured:
            if not any((run["table"], run["seed"]) == (name, seed) for run in result["measured"]):
                result["measured"].append(measured_table(name, given, seed))
                common.write_json(file, result)
        for rows in given.rows:
            for group, run_one in (("densities", densities), ("imputations", imputations)):
                if not any((run["rows"], run["seed"]) == (rows, seed) for run in result[group]):
                    result[group].append(run_one(given, rows, seed))
                    common.write_json(file, result)
    common.replace_block(given.out / "README.md", "tables", report(result))
    print(report(result))


if __name__ == "__main__":
    main()
