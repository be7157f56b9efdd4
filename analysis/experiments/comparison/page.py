"""The report page of a comparison, and its files: HTML, CSV, netCDF and a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import plotting as plots
from analysis.draws.datatree import write_netcdf
from analysis.experiments.comparison.plot import Forest, plot_variants
from analysis.experiments.comparison.result import ExperimentComparison
from analysis.experiments.comparison.run_sections import Histories, agreement_section, runs_section
from analysis.experiments.comparison.sections import differences_section, literal, ranking_section, reliability_section
from analysis.experiments.comparison.tables import csv_text
from analysis.results.page import Cell, Page
from vae_pyro.core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Z = 1.959964


def experiment_page(
    comparison: ExperimentComparison,
    facts: Mapping[str, Cell] | None = None,
    *,
    histories: Histories | None = None,
    provenance: Mapping[str, Cell] | None = None,
) -> Page:
    """The page of a comparison.

    Args:
        comparison: of `analysis.experiments.comparison.compare.compare_variants`.
        facts: about data and models, shown under the title, such as ``{"data": "mnist, 10,000 held out"}``.
        histories: rows of ``history.csv`` by label and seed, for training curves; runs without one are left out.
        provenance: versions and settings, shown at the end.
    """
    estimates, first = comparison.estimates, comparison.estimates.first
    shown: dict[str, Cell] = {
        **(facts or {}),
        "variants": len(comparison.labels),
        "seeds of each": estimates.num_seeds,
        "test data": f"{estimates.num_data:,}",
        "observed as": first.space,
        "draws for each datum": f"{estimates.num_draws:,}",
    }
    sections = [
        ranking_section(comparison, variants_figure(comparison)),
        differences_section(comparison),
        reliability_section(comparison),
        agreement_section(estimates),
        runs_section(estimates, histories or {}),
    ]
    return Page(
        title=f"{len(comparison.labels)} variants, {estimates.num_seeds} seed{'s' * (estimates.num_seeds > 1)} of each",
        sections=[section for section in sections if section is not None],
        facts=shown,
        lead="\n\n".join(map(literal, [comparison.headline, *comparison.notes])),
        provenance={**(provenance or {}), "fingerprint of the test data": first.fingerprint[:16] or "unknown"},
        subtitle="Comparison of objectives",
    )


def write_comparison(
    comparison: ExperimentComparison,
    path: str | Path,
    *,
    histories: Histories | None = None,
    facts: Mapping[str, Cell] | None = None,
    provenance: Mapping[str, Cell] | None = None,
) -> list[Path]:
    """Write ``comparison.nc``, ``.csv``, ``.png`` and ``.html`` into a folder, each whole or not at all.

    All contents are computed before the first file is written, and the same comparison gives the same bytes.

    Args:
        comparison: of `analysis.experiments.comparison.compare.compare_variants`.
        path: the folder, which is created where it does not exist.
        histories: see `experiment_page`; likewise ``facts`` and ``provenance``.

    Returns:
        The files.
    """
    folder = Path(path)
    html = experiment_page(comparison, facts, histories=histories, provenance=provenance).render().encode()
    table, tree, figure = csv_text(comparison).encode(), comparison.to_xarray(), variants_figure(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"comparison.{kind}" for kind in ("nc", "csv", "png", "html")]
    write_netcdf(tree, files[0])
    write_atomically(files[1], table)
    plots.save(figure, files[2])
    write_atomically(files[3], html)
    return files


def variants_figure(comparison: ExperimentComparison) -> "Figure":
    """log p(x) of every variant and its difference from the baseline, see `plot_variants`."""
    estimates = comparison.estimates
    runs = estimates.runs["log_px"]
    levels = Forest(comparison.labels, runs, *_intervals(estimates.levels))
    chosen = comparison.differences
    if not chosen:
        return plot_variants(levels)
    place = {label: index for index, label in enumerate(comparison.labels)}
    one_baseline = len({pair.second for pair in chosen}) == 1
    differences = Forest(
        [pair.first if one_baseline else f"{pair.first} - {pair.second}" for pair in chosen],
        np.stack([runs[place[pair.first]] - runs[place[pair.second]] for pair in chosen]),
        *_intervals([pair.mean for pair in chosen]),
        [pair.significant for pair in chosen],
    )
    return plot_variants(levels, differences, baseline=chosen[0].second if one_baseline else "its baseline")


def _intervals(means: Any) -> tuple[Any, Any]:
    """95 % intervals, and the half-width of their part from the test data alone."""
    return np.array([mean.interval() for mean in means]), np.array([_Z * mean.se_data for mean in means])
