"""``python -m benchmarks.tables``: mixed tables, compared with the process that made them.

A simulated table, 12 columns of all six kinds on two latents, whose log p(x) is known by numerical integration:
held-out log p(x) of the table VAE compared with independent columns and the truth, and hidden categories compared with
the most frequent one, a gradient boosting fitted to each column, and the truth. Two tables of measurements from
scikit-learn with their labels as columns: held-out log p(x) compared with independent columns.
"""

import argparse
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import common
from benchmarks.tables.methods import Task, boosted, fitted, frequent, hiding, imputed, marginals, scored
from benchmarks.tables.process import Process
from benchmarks.tables.report import report
from vae_pyro import evaluate

type Array = np.ndarray[Any, Any]


def densities(given: argparse.Namespace, rows: int, seed: int) -> dict[str, Any]:
    """One fit of complete rows of the simulated table: log p(x) of the test rows below the truth."""
    process = Process()
    task = Task.of(process.draw(rows + given.test, seed), given.test, seed)
    truth, _ = process.known(task.test, _everything(task.test))
    vae, seconds = fitted(task, _everything, given, seed)
    held_out = evaluate(vae, torch.from_numpy(task.test), num_draws=given.draws, seed=seed)
    found = {"marginals": marginals(task), "vae": np.asarray(held_out.log_px), "elbo": np.asarray(held_out.elbo)}
    lost = {name: _mean(truth - values) for name, values in found.items()}
    return {"rows": rows, "seed": seed, "seconds": seconds, "truth": _mean(truth), "below truth": lost}


def imputations(given: argparse.Namespace, rows: int, seed: int) -> dict[str, Any]:
    """One fit of rows of the simulated table with missing cells: accuracy for hidden codes of the test rows."""
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
    accuracy = {name: {"share right": _mean(hits), "log score": _mean(logs)} for name, (hits, logs) in scores.items()}
    return {"rows": rows, "seed": seed, "seconds": seconds, "cells": len(scores["truth"][0]), "told": accuracy}


def _everything(values: Array) -> Array:
    return np.ones_like(values, dtype=bool)


def _mean(values: Array) -> list[float]:
    return [float(values.mean()), float(values.std(ddof=1) / sqrt(len(values)))]


def measured_table(name: str, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Held-out log p(x) of a table of scikit-learn, with its label as a column, minus that of independent columns."""
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    frame = getattr(datasets, f"load_{name}")(as_frame=True, **options).frame
    # The progression of diabetes is an index; the class of a wine has no order.
    task = Task.of(frame, len(frame) // 4, seed, {"target": "category"} if name == "wine" else None)
    vae, seconds = fitted(task, _everything, given, seed)
    log_px = np.asarray(evaluate(vae, torch.from_numpy(task.test), num_draws=given.draws, seed=seed).log_px)
    gain = log_px - marginals(task)
    return {"table": name, "seed": seed, "seconds": seconds, "gain": _mean(gain), "space": task.schema.space}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 4000], help="training rows")
    parser.add_argument("--test", type=int, default=1000, help="test rows")
    parser.add_argument("--measured", nargs="*", default=["diabetes", "wine"], help="tables of scikit-learn")
    parser.add_argument("--missing", type=float, default=0.3, help="share of the cells that are hidden")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000, help="largest number of steps of a fit")
    parser.add_argument("--patience", type=int, default=1000, help="steps without a better validation ELBO")
    parser.add_argument("--latent-dim", type=int, default=6)
    parser.add_argument("--draws", type=int, default=500, help="of log p(x) and of imputations")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Fit, evaluate, print, and write after every run; results of an earlier call are reused."""
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
