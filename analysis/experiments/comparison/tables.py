"""A comparison as data: rows, CSV, a DataTree, a JSON-able summary, and the table that is printed."""

import csv
import io
from collections.abc import Mapping
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analysis.experiments.comparison.runs import canonical
from analysis.experiments.comparison.verdicts import advice, not_significant
from analysis.results.estimate import plus_minus
from analysis.results.result import finite_or_none
from analysis.results.text import screen

if TYPE_CHECKING:
    from analysis.experiments.comparison.estimates import VariantEstimates
    from analysis.experiments.comparison.result import ExperimentComparison

_WIDTH = 120
_POINTWISE = (
    "log_px", "log_px_mcse", "elbo", "elbo_mcse", "kl", "kl_mcse", "reconstruction", "pareto_k", "rise", "smoothed",
    "upper",
)  # fmt: skip
_AGREEMENTS = ("udr", "cka")
# Column of the CSV: key of `analysis.experiments.comparison.differences.Difference.summary`.
_AGAINST = {"difference": "estimate", "difference_se": "se"} | {
    key: key for key in ("low", "high", "se_seeds", "se_data", "p_value", "p_adjusted")
}


def variant_rows(comparison: "ExperimentComparison") -> list[dict[str, Any]]:
    """A row for each variant: mean and standard error over seeds of every estimate; JSON-able, ``None`` for NaN."""
    estimates, rows = comparison.estimates, []
    for index, label in enumerate(estimates.labels):
        row: dict[str, Any] = {
            "variant": label,
            "objective": estimates.objectives[index],
            "grid": dict(estimates.grids[index]),
            "num_seeds": estimates.num_seeds,
        }
        for name in estimates.runs:
            mean, error = (float(value[index]) for value in estimates.mean(name))
            row |= {name: finite_or_none(mean), f"{name}_se": finite_or_none(error)}
        agreed = estimates.agreements[index]
        for name in _AGREEMENTS:
            value = nan if agreed is None else float(getattr(agreed, f"{name}_mean"))
            error = nan if agreed is None else float(getattr(agreed, f"{name}_se"))
            row |= {name: finite_or_none(value), f"{name}_se": finite_or_none(error)}
        rows.append(row)
    return rows


def summary(comparison: "ExperimentComparison") -> dict[str, Any]:
    """All estimates but those of single data, JSON-able; ``told_apart``: the winner is significantly the best."""
    estimates = comparison.estimates
    first = estimates.first
    return {
        "winner": comparison.winner,
        "headline": comparison.headline,
        "told_apart": bool(comparison.rivals) and not not_significant(comparison),
        "variants": variant_rows(comparison),
        "differences": [pair.summary() for pair in comparison.differences],
        "pairs": [pair.summary() for pair in comparison.pairs],
        "num_seeds": estimates.num_seeds,
        "seeds": estimates.seeds.tolist(),
        "n": estimates.num_data,
        "num_draws": estimates.num_draws,
        "good_k": estimates.good_k,
        "space": first.space,
        "measure": first.measure,
        "of": first.of,
        "fingerprint": first.fingerprint,
        "notes": list(comparison.notes),
    }


def csv_text(comparison: "ExperimentComparison") -> str:
    """A row for each run, then a row for each variant.

    In rows of ``level`` ``run`` the estimates are those of one fit and have no error; in rows ``mean`` they are means
    over seeds, ``<estimate>_se`` are their standard errors, and the columns from ``reference`` on hold the difference
    from the baseline with both sources of error. Undefined values are empty. Floats have all their digits.
    """
    estimates = comparison.estimates
    columns = ["level", "variant", "objective", "grid", "seed", "num_seeds", "num_data", "num_draws"]
    for name in (*estimates.runs, *_AGREEMENTS):
        columns += [name, f"{name}_se"]
    columns += ["reference", *_AGAINST]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, restval="", lineterminator="\n")
    writer.writeheader()
    sizes = {"num_data": estimates.num_data, "num_draws": estimates.num_draws}
    about = [
        {"variant": label, "objective": objective, "grid": canonical(grid)}
        for label, objective, grid in zip(estimates.labels, estimates.objectives, estimates.grids, strict=True)
    ]
    for index, seeds in enumerate(estimates.seeds):
        for j, seed in enumerate(seeds):
            values = {name: _cell(runs[index, j]) for name, runs in estimates.runs.items()}
            writer.writerow({"level": "run", **about[index], "seed": int(seed), "num_seeds": 1, **sizes, **values})
    for index, row in enumerate(variant_rows(comparison)):
        values = {key: _cell(row[key]) for key in columns if key in row and key not in (*about[index], "num_seeds")}
        against = _against_baseline(comparison, index)
        counts = {"num_seeds": estimates.num_seeds, **sizes}
        writer.writerow({"level": "mean", **about[index], **counts, **values, **against})
    return text.getvalue()


def _against_baseline(comparison: "ExperimentComparison", index: int) -> dict[str, Any]:
    reference = comparison.references[index]
    if reference is None:
        return {}
    row = next(pair for pair in comparison.differences if pair.first == comparison.labels[index]).summary()
    return {"reference": reference, **{column: _cell(row[key]) for column, key in _AGAINST.items()}}


def tree(comparison: "ExperimentComparison") -> xr.DataTree:
    """All estimates with their dimensions.

    Groups: ``pointwise`` (``variant``, ``seed``, ``datum``), ``runs`` (``variant``, ``seed``), ``latent``
    (``variant``, ``seed``, ``latent``; NaN beyond the latents of a variant), ``summary`` (``variant``),
    ``differences`` (``pair``; of all pairs, ``first`` minus ``second``), ``agreement`` (``variant``, ``seed``,
    ``other_seed``). ``seed`` counts from 0; ``seed_number`` of ``runs`` holds the numbers, which differ between
    variants that share none.
    """
    estimates = comparison.estimates
    variant = {"variant": np.array(estimates.labels, dtype=object)}
    both = {**variant, "seed": np.arange(estimates.num_seeds)}
    pointwise = {name: (("variant", "seed", "datum"), estimates.pointwise(name)) for name in _POINTWISE}
    runs = {name: (("variant", "seed"), values) for name, values in estimates.runs.items()}
    runs["seed_number"] = (("variant", "seed"), estimates.seeds)
    runs["epochs"] = (("variant", "seed"), np.array([[run.epochs for run in row] for row in estimates.held_out]))
    nodes = {
        "pointwise": xr.Dataset(pointwise, coords={**both, "datum": estimates.first.ids}),
        "runs": xr.Dataset(runs, coords=both),
        "latent": xr.Dataset(_latent(estimates), coords=both),
        "summary": xr.Dataset(_averages(comparison), coords=variant),
    }
    if comparison.pairs:
        nodes["differences"] = _differences(comparison)
    if any(agreed is not None for agreed in estimates.agreements):
        nodes["agreement"] = _agreement(estimates, both)
    found = xr.DataTree.from_dict(nodes)
    first = estimates.first
    found.attrs |= {"units": "nats per datum", "space": first.space, "num_draws": estimates.num_draws}
    found.attrs |= {"winner": comparison.winner, "headline": comparison.headline, "fingerprint": first.fingerprint}
    found.attrs |= {name: str(value) for name in ("measure", "of") if (value := getattr(first, name)) is not None}
    return found


def _averages(comparison: "ExperimentComparison") -> dict[str, Any]:
    estimates, rows = comparison.estimates, variant_rows(comparison)
    texts = {"objective": list(estimates.objectives), "grid": [canonical(grid) for grid in estimates.grids]}
    averages = {
        name: ("variant", np.array([nan if row[name] is None else row[name] for row in rows]))
        for name in rows[0]
        if name not in ("variant", "num_seeds", *texts)
    }
    return averages | {name: ("variant", np.array(values, dtype=object)) for name, values in texts.items()}


def _latent(estimates: "VariantEstimates") -> dict[str, Any]:
    size = max(len(run.activity) for row in estimates.held_out for run in row)
    padded = {name: np.full((*estimates.seeds.shape, size), nan) for name in ("activity", "code_kl")}
    for name, values in padded.items():
        for i, row in enumerate(estimates.held_out):
            for j, run in enumerate(row):
                own = getattr(run, name)
                values[i, j, : len(own)] = own
    return {name: (("variant", "seed", "latent"), values) for name, values in padded.items()}


def _agreement(estimates: "VariantEstimates", coords: Mapping[str, Any]) -> xr.Dataset:
    shape = (estimates.num_seeds, estimates.num_seeds)
    matrices = {
        name: np.stack([np.full(shape, nan) if a is None else getattr(a, name) for a in estimates.agreements])
        for name in _AGREEMENTS
    }
    return xr.Dataset(
        {name: (("variant", "seed", "other_seed"), value) for name, value in matrices.items()},
        coords={**coords, "other_seed": np.arange(estimates.num_seeds)},
    )


def _differences(comparison: "ExperimentComparison") -> xr.Dataset:
    rows = [pair.summary() for pair in comparison.pairs]
    columns: dict[str, Any] = {}
    for name in rows[0]:
        values = [nan if row[name] is None else row[name] for row in rows]
        columns[name] = ("pair", np.array(values, dtype=object if name in ("first", "second") else None))
    planned = {frozenset(pair) for pair in zip(comparison.labels, comparison.references, strict=True)}
    against = [frozenset((pair.first, pair.second)) in planned for pair in comparison.pairs]
    return xr.Dataset({**columns, "against_baseline": ("pair", np.array(against))})


def text(comparison: "ExperimentComparison") -> str:
    """The printed table. Durations of fits are left out, so that an interrupted experiment prints the same table."""
    estimates = comparison.estimates
    heads = ("", "log p(x)", "ELBO", "KL", "log p(x) - ELBO", "active units", "high k-hat")
    rows: list[tuple[str, ...]] = [heads]
    means = [estimates.mean(name) for name in ("log_px", "elbo", "kl", "gap", "active_units")]
    for index, label in enumerate(estimates.labels):
        cells = [plus_minus(float(mean[index]), float(error[index])) for mean, error in means]
        rows.append((_one_line(label), *cells, f"{estimates.runs['share_bad'][index].mean():.1%}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    widths[0] = min(widths[0], max(_WIDTH - sum(widths[1:]) - 2 * (len(heads) - 1), 10))
    lines = [
        "  ".join(
            [_shortened(row[0], widths[0]).ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]
    lines.append(
        f"nats per datum, mean ± standard error over {estimates.num_seeds} seed{'s' * (estimates.num_seeds > 1)}; "
        f"{estimates.num_data:,} data, {estimates.num_draws:,} draws each"
    )
    said = [f"{pair.first} minus {pair.second}: {pair}" for pair in comparison.differences]
    said.append(comparison.headline)
    if level := not_significant(comparison):
        said.append(f"{level[0].first} and {level[0].second}: {advice(level[0], len(comparison.pairs))}")
    return screen([*lines, *map(_one_line, [*said, *comparison.notes])])


def _cell(value: Any) -> str:
    return "" if value is None or not isfinite(value) else repr(float(value))


def _one_line(words: str) -> str:
    return " ".join(words.split())


def _shortened(words: str, width: int) -> str:
    if len(words) <= width:
        return words
    tail = (width - 1) // 2
    return f"{words[: width - 1 - tail]}…{words[len(words) - tail :]}"
