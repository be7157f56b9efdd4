"""The report of a fitted pair: every diagnostic of the registry in order, its verdicts, and one page.

>>> from vae_pyro import VAE, VAEConfig
>>> import torch
>>> vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]"))
>>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
>>> made = make_report(vae, x, config=ReportConfig(num_draws=100, only=("density",)))
>>> [section.name for section in made.page.sections]
['density']
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.diagnostics.config import ReportConfig
from analysis.diagnostics.context import Context, FitRecord
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic, sentence, why_not
from analysis.draws.datatree import write_netcdf
from analysis.results.blocks import Section
from analysis.results.page import Page
from analysis.results.result import Result
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import Dataset, as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike, as_pair
from vae_pyro.densities.walk import Reducer
from vae_pyro.evaluation.rows import Limit, choose_rows, sampled
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder

type Array = np.ndarray[Any, Any]

_PACKAGES = ("vae_pyro", "torch", "pyro-ppl", "arviz", "numpy", "scipy", "scikit-learn")
_FIT_KEYS = ("objective", "epochs", "batch_size", "optimizer", "schedule", "kl_warmup", "clip_norm", "patience")
# Data of each split that a report takes of a streamed data set.
_MOST_STREAMED = 20_000
# Operations for each draw of each datum that diagnostics take (smoothing of importance weights, above all), beside
# those of its densities.
_BESIDE_DENSITIES = 1.5e6
# Bytes on disk of the replications in the saved tree; checks and summaries use all of them.
_SAVED_BYTES = 64 * 1024**2
# Likewise of the latents and log densities, of all draws of as many data as these hold.
_SAVED_DRAWS_BYTES = 512 * 1024**2
_DRAWN = ("posterior", "log_likelihood", "log_prior", "sample_stats")


@dataclass(frozen=True)
class Report:
    """A report before it is written.

    Attributes:
        page: what a reader sees.
        tree: draws, log densities and predictive statistics of the held-out data; ``None`` where no diagnostic required
            them.
        results: of each diagnostic, by name.
        seconds: that each diagnostic took.
        failed: reason of each section that could not be made, by title.
        skipped: missing inputs of each diagnostic that was left out, by title.
    """

    page: Page
    tree: xr.DataTree | None
    results: dict[str, Result] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def write(self, run: RunFolder | str | Path) -> None:
        """Write ``report.html``, ``inference.nc`` and, into ``metrics.json``, every number shown; each file whole.

        Args:
            run: a run, or the path of a folder, which is made where there is none.

        Raises:
            RunError: another process writes to the run, or the run has been replaced.
        """
        if not isinstance(run, RunFolder):
            Path(run).mkdir(parents=True, exist_ok=True)
            run = RunFolder(run)
        with run.writing():
            if self.saved is not None:
                write_netcdf(self.saved, run.inference_file)
            run.update_metrics({"report": self.page.metrics()})
            self.page.write(run.report_file)

    @cached_property
    def saved(self) -> xr.DataTree | None:
        """What is kept of `tree` on disk: at most 512 MiB of draws, and 64 MiB of each set of replications."""
        return None if self.tree is None else _thinned(self.tree)

    @property
    def saved_size(self) -> str:
        """How much is kept of the draws, in words; empty without draws."""
        if self.saved is None or self.tree is None:
            return ""
        size = sum(node.to_dataset(inherit=False).nbytes for node in self.saved.subtree) / 1024**2
        parts = ""
        if "log_likelihood" in self.saved.children:
            kept, all_ = (tree["log_likelihood"].sizes for tree in (self.saved, self.tree))
            of = f" of {all_['datum']:,}" if kept["datum"] < all_["datum"] else ""
            parts = f" ({kept['draw']:,} draws of {kept['datum']:,}{of} data)"
        return f"about {size:,.0f} MiB{parts}"

    @property
    def absent(self) -> list[tuple[str, str]]:
        """Title of each section that could not be made, and why."""
        return [(title, _absence(reason)) for title, reason in self.failed.items()]

    def __str__(self) -> str:
        rows = [str(verdict) for _, verdict in self.page.verdicts]
        return "\n".join([self.page.summary(), *(f"  {title}: {reason}" for title, reason in self.absent), *rows])

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        return str(Markup("<pre>{}</pre>").format(str(self)))


def make_report(
    pair: PairLike,
    test: Split | Tensor | Array,
    *,
    train: Split | Tensor | Array | None = None,
    validation: Split | Tensor | Array | None = None,
    stored: Split | None = None,
    history: Sequence[Mapping[str, float]] = (),
    config: ReportConfig | None = None,
    seed: int = 0,
    title: str = "A variational autoencoder",
    facts: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run every diagnostic that applies, and gather the results.

    A diagnostic that cannot be run on these data (too few of them, a latent that is not real) leaves a sentence that
    gives the reason; one whose inputs are not given is left out.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`.
        test: held-out data, ``(datum, *x_shape)``.
        train: data of the fit: whether test data are among them, and whether generated data copy them.
        validation: data that are like the held-out ones, against which outliers are judged.
        stored: the held-out data before random observations were drawn, as ``train`` is: identical rows are found in
            these alone. ``test`` itself where it is not given.
        history: of the fit, one row for each epoch.
        config: how much is drawn, and which diagnostics are run.
        seed: of all draws.
        title: of the page.
        facts: what was fitted on what, by name.
        model: choices of the model, by name.
        fit: choices of the fit.
        provenance: revisions and fingerprints, added to versions and seed.
        progress: called with the title of each section before it is made.

    Returns:
        The report; `Report.write` puts it into a run folder.

    Raises:
        ValueError: data of another shape, or outside the support of the likelihood.
    """
    config = config or ReportConfig()
    held_out = as_split(test).fixed(derive_seed(seed, 0))
    pair = as_pair(pair)
    pair.check_data(held_out)
    pair.programs(held_out)  # that no density can be had of is refused here, once
    context = Context(
        pair=pair,
        test=held_out,
        stored=stored or as_split(test),
        train=None if train is None else as_split(train),
        validation=None if validation is None or len(validation) == 0 else as_split(validation),
        record=FitRecord(history, model or {}, fit or {}) if model or history else None,
        config=config,
        seed=seed,
    )
    sections: list[Section] = []
    made = Report(Page(title, []), None)
    chosen = [DIAGNOSTICS[name]() for name in DIAGNOSTICS if not config.only or name in config.only]
    _collect(chosen, context, made, progress)
    for number, diagnostic in enumerate(chosen, 1):
        section = _run(diagnostic, context, made, partial(_numbered, progress, f"{number} of {len(chosen)}"))
        if section is not None:
            sections.append(section)
    page = Page(
        title,
        sections,
        absent=made.absent,
        facts={"held-out data": f"{len(held_out):,}", "observed": held_out.space, **(facts or {})},
        provenance={
            "seed of the report": seed,
            "draws for each datum": config.num_draws,
            **{name: version(name) for name in _PACKAGES},
            "Python": platform.python_version(),
            **(provenance or {}),
        },
    )
    return replace(made, page=page, tree=context.drawn)


def report_run(
    run: RunFolder,
    vae: VAE,
    data: Dataset,
    *,
    split: str = "test",
    limit: Limit = None,
    config: ReportConfig | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """The report of a run folder on one split of its data, or a random sample of it.

    A sample is taken of data that are streamed, of each split, and where all data of the split would take more than
    about two minutes; of the validation data, against which outliers are judged, then as many.

    Args:
        run: as `vae_pyro.fit` wrote it.
        vae: its model, see `vae_pyro.RunFolder.load_model`.
        data: its data.
        split: ``test`` or ``validation``.
        limit: see `vae_pyro.evaluation.rows.choose_rows`.
        config: how much is drawn.
        seed: of all draws.
        progress: see `make_report`.

    Raises:
        ValueError: the split is empty or unknown.
    """
    stored = run.config()
    held_out, stored_rows = (_in_memory(part, seed) for part in (data.split(split), getattr(data, split)))
    draws = (config or ReportConfig()).num_draws
    rows = choose_rows(vae, held_out, num_draws=draws, limit=limit, seed=seed, beside=_BESIDE_DENSITIES)
    held_out = rows.split
    stored_rows = (
        sampled(stored_rows, len(held_out), seed).split if rows.random else stored_rows.take(slice(len(held_out)))
    )
    validation = _in_memory(data.validation, seed) if split == "test" and len(data.validation) else None
    if validation is not None and rows.random:
        validation = sampled(validation, len(held_out), seed).split
    facts = run.facts()
    streamed, total = not getattr(data, split).resident, len(getattr(data, split))
    of = f", a random sample of {total:,}" if streamed or rows.random else ""
    if rows.random:
        of += f" (beside all of them, it adds {rows.added_error(1.0):.2f} of each sampling standard error)"
    return make_report(
        vae,
        held_out,
        train=_in_memory(data.train, seed),
        validation=validation,
        stored=stored_rows,
        history=run.read_history() if run.history_file.exists() else (),
        config=config,
        seed=seed,
        title=f"{data.config.source}, {vae.config.latent_dim} latents",
        facts={
            "data": f"{data.config.source}, {' x '.join(map(str, data.x_shape))}",
            "fitted on": f"{len(data.train):,} data, {len(data.validation):,} for validation",
            "held-out data": f"the {split} split, {len(held_out):,} data{of}",
            "observed": f"{held_out.space}; {facts.evaluation}".rstrip("; "),
            "parameters": f"{sum(parameter.numel() for parameter in vae.parameters()):,}",
        },
        model=stored["model"],
        fit=_length_named({key: stored["fit"][key] for key in _FIT_KEYS if key in stored["fit"]}),
        provenance={
            "seed of the fit": stored["seed"],
            "fitted with": ", ".join(f"{name} {number}" for name, number in stored.get("versions", {}).items()),
            "git revision": stored.get("git_revision") or "unknown",
            "fingerprint of the data": facts.fingerprint[:16],
        },
        progress=progress,
    )


def _length_named(fit: dict[str, Any]) -> dict[str, Any]:
    return fit if fit.get("epochs", 0) is not None else {**fit, "epochs": "decided by the data"}


def _in_memory(split: Split, seed: int) -> Split:
    return split if split.resident else split.sample(_MOST_STREAMED, derive_seed(seed, 15))


def _collect(
    chosen: Sequence[Diagnostic[Any]], context: Context, report: Report, progress: Callable[[str], None]
) -> None:
    """Run the guide on the held-out data, once, for all diagnostics that use draws of them."""
    reducers: dict[str, Callable[[], Reducer[Any]]] = {}
    for diagnostic in chosen:
        if not context.lacks(diagnostic.requires) and why_not(diagnostic, context) is None:
            reducers = {**diagnostic.reducers(context), **reducers}
    if reducers:
        progress("Draws of the held-out data")
        began = perf_counter()
        context.collect(reducers, lambda done, total: progress(_time_left(done, total, perf_counter() - began)))
        report.seconds["draws"] = perf_counter() - began


def _numbered(progress: Callable[[str], None], number: str, title: str) -> None:
    progress(f"{title} ({number} sections)")


def _time_left(done: int, total: int, seconds: float) -> str:
    return f"Draws of the held-out data: {done:,} of {total:,}, {seconds * (total - done) / done:.0f} s left"


def _run(
    diagnostic: Diagnostic[Any], context: Context, report: Report, progress: Callable[[str], None]
) -> Section | None:
    """The section of one diagnostic, whose result and times go into the report; ``None`` where inputs are missing."""
    missing = context.lacks(diagnostic.requires)
    if missing:
        report.skipped[diagnostic.title] = missing
        return None
    progress(diagnostic.title)
    began = perf_counter()
    reason = why_not(diagnostic, context)
    try:
        if reason is None:
            result = report.results[diagnostic.name] = diagnostic.run(context)
            section = diagnostic.section(result)
    except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:
        reason = sentence(error)
    if reason is not None:
        report.failed[diagnostic.title] = reason
        section = Section(diagnostic.title, [_absence(reason)], name=diagnostic.name)
    report.seconds[diagnostic.name] = perf_counter() - began
    return section


def _of_fewer_data(tree: xr.DataTree) -> xr.DataTree:
    """The tree with as many of the data, at even distances, as the size of their draws on disk allows."""
    groups = [tree[name].to_dataset(inherit=False) for name in _DRAWN if name in tree.children]
    size = sum(group.nbytes for group in groups)
    if size <= _SAVED_DRAWS_BYTES:
        return tree
    total = groups[0].sizes["datum"]
    rows = np.unique(np.linspace(0, total - 1, max(int(total * _SAVED_DRAWS_BYTES // size), 1)).round().astype(int))
    for name, node in list(tree.children.items()):
        group = node.to_dataset(inherit=False)
        if group.sizes.get("datum") == total:
            tree[name] = xr.DataTree(group.isel(datum=rows), children=dict(node.children))
    return tree


def _absence(reason: str) -> str:
    return f"Not made: {reason}."


def _thinned(tree: xr.DataTree) -> xr.DataTree:
    """The tree with as many whole replications as its size on disk allows."""
    kept = _of_fewer_data(tree.copy())
    names = ("posterior_predictive", "prior_predictive")
    for group in (*names, *(f"predictive_subset/{name}" for name in names)):
        try:
            dataset = kept[group].to_dataset()
        except KeyError:
            continue
        size = dataset.sizes["draw"]
        fit = max(int(size * _SAVED_BYTES // max(dataset.nbytes, 1)), 1)
        if fit < size:
            rows = np.unique(np.linspace(0, size - 1, fit).round().astype(int))
            kept[group] = xr.DataTree(dataset.isel(draw=rows))
    return kept
