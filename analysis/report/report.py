"""The report of a fitted pair: every diagnostic, its verdict, and one page that says what to believe.

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
from dataclasses import dataclass, field
from importlib.metadata import version
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from analysis.density.elpd import elpd
from analysis.draws.codes import posterior_means
from analysis.draws.datatree import to_datatree, write_netcdf
from analysis.latent.geometry import structure
from analysis.latent.layers import describe_layers
from analysis.latent.summary import describe_latent
from analysis.latent.traversals import interpolate, traverse
from analysis.monitoring.outliers import detect
from analysis.posterior.calibration import calibrate
from analysis.posterior.gaps import inference_gaps
from analysis.predictive.checking import predictive_checks
from analysis.report import sections
from analysis.results.page import Page, Section
from analysis.samples.generated import check_samples, draw_samples
from analysis.samples.leakage import held_out_check
from vae_pyro.core.config import Config
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import Dataset, as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.log_densities import draw_sites
from vae_pyro.densities.pair import Pair, PairLike, as_pair
from vae_pyro.densities.walk import bind
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder

type Array = np.ndarray[Any, Any]
type Name = Literal[
    "fit", "density", "predictive", "calibration", "gaps", "latent", "structure", "samples", "leakage", "outliers"
]

_PACKAGES = ("vae_pyro", "torch", "pyro-ppl", "arviz", "numpy", "scipy", "scikit-learn")
_FIT_KEYS = ("objective", "epochs", "batch_size", "optimizer", "schedule", "kl_warmup", "clip_norm", "patience")
_FEWEST_FOR_STRUCTURE, _MOST_FOR_STRUCTURE = 30, 2000
_FEWEST_FOR_OUTLIERS = 100
# Data of each split that a report takes of what does not stay in memory.
_MOST_STREAMED = 20_000
_SHOWN = 8
# What replications of the saved tree may take on disk; checks and summaries have seen all of them.
_SAVED_BYTES = 64 * 1024**2


class ReportConfig(Config):
    """How much is drawn for a report.

    Attributes:
        num_draws: of the guide for each held-out datum.
        num_predictive: held-out data whose predictive draws are checked, so many at random where there are more.
        num_simulations: latents and data drawn from the model for the calibration.
        num_ranked: draws of the guide that each of them is ranked among; ``num_ranked + 1`` should have many divisors.
        num_gap_data: held-out data whose gaps are measured, each by an optimisation and annealing of its own.
        num_samples: data drawn from the model to compare with real ones.
        only: names of the sections to make; all if empty.
    """

    num_draws: int = Field(default=500, ge=100)
    num_predictive: int = Field(default=1000, ge=1)
    num_simulations: int = Field(default=500, ge=20)
    num_ranked: int = Field(default=99, ge=9)
    num_gap_data: int = Field(default=30, ge=2)
    num_samples: int = Field(default=2000, ge=20)
    only: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Report:
    """A report before it is written.

    Attributes:
        page: what a reader sees.
        tree: draws, ledger and predictive statistics of the held-out data, ``None`` where no section wanted them.
        results: of each diagnostic, by section.
        seconds: that each section took.
    """

    page: Page
    tree: xr.DataTree | None
    results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def write(self, run: RunFolder) -> None:
        """Write ``report.html``, ``inference.nc`` and, into ``metrics.json``, every figure shown; each file whole."""
        if self.tree is not None:
            write_netcdf(_thinned(self.tree), run.inference_file)
        run.update_metrics({"report": self.page.figures()})
        self.page.write(run.report_file)

    @property
    def absent(self) -> list[tuple[str, str]]:
        """Title of each section that could not be made, and why."""
        return [
            (section.title, str(section.blocks[0])) for section in self.page.sections if sections.is_absent(section)
        ]

    def __str__(self) -> str:
        rows = [str(verdict) for _, verdict in self.page.verdicts]
        return "\n".join([self.page.summary(), *rows, *(f"{title} {reason}" for title, reason in self.absent)])


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
    """Ask every question that there is an answer to, and gather the answers.

    A diagnostic that cannot be made of these data (too few of them, a latent that is not real) leaves a sentence that
    says why.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        test: held-out data, ``(datum, *x_shape)``.
        train: data of the fit: whether test data are among them, and whether generated data copy them.
        validation: data that are like the held-out ones, which outliers are told by.
        stored: the held-out data before random observations were drawn, as ``train`` is: identical rows are found in
            these alone. ``test`` itself where it is not given.
        history: of the fit, one row for each epoch.
        config: how much is drawn.
        seed: of all draws.
        title: of the page.
        facts: what was fitted on what, by name.
        model: choices of the model, by name.
        fit: choices of the fit.
        provenance: revisions and fingerprints, added to versions and seed.
        progress: called with the name of each section before it is made.

    Returns:
        The report; `Report.write` puts it into a run folder.

    Raises:
        ValueError: data of another shape, or outside the support of the likelihood.
    """
    config = config or ReportConfig()
    held_out = as_split(test).fixed(derive_seed(seed, 0))
    pair = as_pair(pair)
    pair.check_data(held_out)
    made = _Making(pair, held_out, config, seed, progress)
    trained = None if train is None else as_split(train)
    others = None if validation is None or len(validation) == 0 else as_split(validation)

    if model or history:
        made.section("fit", "What was fitted", lambda: _fit(history, model or {}, fit or {}))
    made.section("density", "How probable are held-out data?", made.density)
    made.section("predictive", "Do data drawn from the model look like the data?", made.predictive)
    made.section("calibration", "Can the posterior be trusted?", made.calibration)
    made.section("gaps", "What does the guide lose?", made.gaps)
    made.section("latent", "What do the latents carry?", made.latent)
    made.section("structure", "How do data lie in the latent space?", made.structure)
    made.section("samples", "Does the model draw what the world draws?", lambda: made.samples(trained))
    if trained is not None:
        made.section("leakage", "Is the test set held out?", lambda: made.leakage(trained, stored or as_split(test)))
    if others is not None and len(others) >= _FEWEST_FOR_OUTLIERS:
        made.section("outliers", "Which held-out data are strange?", lambda: made.outliers(others))
    page = Page(
        title,
        made.sections,
        facts={"held-out data": f"{len(held_out):,}", "observed": held_out.space, **(facts or {})},
        provenance={
            "seed of the report": seed,
            "draws for each datum": config.num_draws,
            **{name: version(name) for name in _PACKAGES},
            "Python": platform.python_version(),
            **(provenance or {}),
        },
    )
    return Report(page, made.tree_or_none, made.results, made.seconds)


def report_run(
    run: RunFolder,
    vae: VAE,
    data: Dataset,
    *,
    split: str = "test",
    limit: int | None = None,
    config: ReportConfig | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """The report of a run folder on one split of its data; of data that are streamed, on a random sample of each split.

    Args:
        run: as `vae_pyro.fit` wrote it.
        vae: its model, see `vae_pyro.RunFolder.load_model`.
        data: its data.
        split: ``test`` or ``validation``.
        limit: take the first data of the split only.
        config: how much is drawn.
        seed: of all draws.
        progress: see `make_report`.

    Raises:
        ValueError: the split is empty or unknown.
    """
    stored = run.config()
    held_out, stored_rows = (_in_memory(part, seed) for part in (data.split(split), getattr(data, split)))
    if limit is not None:
        held_out, stored_rows = held_out.take(slice(limit)), stored_rows.take(slice(limit))
    validation = _in_memory(data.validation, seed) if split == "test" and len(data.validation) else None
    facts = run.facts()
    of = "" if getattr(data, split).resident else f", a random sample of {len(getattr(data, split)):,}"
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
        fit={key: stored["fit"][key] for key in _FIT_KEYS if key in stored["fit"]},
        provenance={
            "seed of the fit": stored["seed"],
            "fitted with": ", ".join(f"{name} {number}" for name, number in stored.get("versions", {}).items()),
            "git revision": stored.get("git_revision") or "unknown",
            "fingerprint of the data": facts.fingerprint[:16],
        },
        progress=progress,
    )


def _in_memory(split: Split, seed: int) -> Split:
    return split if split.resident else split.sample(_MOST_STREAMED, derive_seed(seed, 15))


class _Making:
    """The sections as they are made, with what several of them share."""

    def __init__(
        self, pair: Pair, test: Split, config: ReportConfig, seed: int, progress: Callable[[str], None]
    ) -> None:
        self.pair, self.test, self.config, self.seed, self.progress = pair, test, config, seed, progress
        self.sections: list[Section] = []
        self.results: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.tree_or_none: xr.DataTree | None = None

    def section(self, name: Name, title: str, make: Callable[[], Section]) -> None:
        """Make a section, or one that says why it cannot be made."""
        if self.config.only and name not in self.config.only:
            return
        self.progress(title)
        began = perf_counter()
        try:
            made = make()
        except (ValueError, ArithmeticError) as error:
            # Pyro adds the shapes of a trace to what is raised inside of one.
            made = sections.absent(title, str(error).partition("\nTrace Shapes:")[0], name)
        self.sections.append(made)
        self.seconds[name] = perf_counter() - began

    @property
    def tree(self) -> xr.DataTree:
        """Draws and ledger of all held-out data, with predictive draws where these are few enough; drawn once."""
        if self.tree_or_none is None:
            self.tree_or_none = self._draw(self.test, None if self._few else False)
        return self.tree_or_none

    @property
    def _few(self) -> bool:
        return len(self.test) <= self.config.num_predictive

    def _draw(self, data: Split, predictive: bool | None) -> xr.DataTree:
        seed = derive_seed(self.seed, 1)
        return to_datatree(self.pair, data, num_draws=self.config.num_draws, seed=seed, predictive=predictive)

    def _predictive_tree(self) -> xr.DataTree:
        """The tree itself, or one of some of the data at random, which then stands inside it."""
        if self._few:
            return self.tree
        random = np.random.default_rng(derive_seed(self.seed, 14))
        rows = np.sort(random.permutation(len(self.test))[: self.config.num_predictive])
        some = self._draw(self.test.take(torch.from_numpy(rows)), None)
        if self.tree_or_none is None:
            self.tree_or_none = xr.DataTree()
        self.tree_or_none["predictive_subset"] = some
        return some

    def density(self) -> Section:
        self.results["density"] = result = elpd(self.tree)
        return sections.density_section(result)

    def predictive(self) -> Section:
        tree = self._predictive_tree()
        checks = [predictive_checks(tree, kind="posterior", seed=derive_seed(self.seed, 2))]
        checks.append(predictive_checks(tree, kind="held_out", seed=derive_seed(self.seed, 3)))
        self.results["predictive"] = checks
        shown = None
        if "posterior_predictive_summary" in tree:
            summary = tree["posterior_predictive_summary"]
            observed = tree["observed_data"]["x"].values[:_SHOWN]
            shown = (observed, summary["mean"].values[:_SHOWN], summary["sd"].values[:_SHOWN])
        return sections.predictive_section(checks, shown, num_data=tree["observed_data"].sizes["datum"])

    def calibration(self) -> Section:
        config = self.config
        self.results["calibration"] = result = calibrate(
            self.pair,
            num_simulations=config.num_simulations,
            num_draws=config.num_ranked,
            seed=derive_seed(self.seed, 4),
            y=None if self.test.y is None else self.test.y.to(self.pair.place(self.test)[0]),
        )
        return sections.calibration_section(result)

    def _require_no_missing_site(self) -> None:
        """Refuse a guide that draws what is missing of x: simulated data are whole, and come without such draws."""
        data = bind(self.pair, self.test.take(slice(0, 1)), seed=0, check=False)
        with isolated(0):
            head, given = data.batch(slice(0, 1))
            kinds = draw_sites(self.pair.guide, head, num_particles=1, **given).kinds
        if "data" in kinds.values():
            raise ValueError(
                "the gaps are told by data that are simulated with their latents, and what is missing of x is a latent "
                "here; report on data without a mask"
            )

    def gaps(self) -> Section:
        self._require_no_missing_site()
        number = min(self.config.num_gap_data, len(self.test))
        self.results["gaps"] = result = inference_gaps(
            self.pair, self.test, num_data=number, seed=derive_seed(self.seed, 5)
        )
        return sections.gaps_section(result)

    def latent(self) -> Section:
        self.results["latent"] = result = describe_latent(self.pair, self.test, seed=derive_seed(self.seed, 6))
        section = sections.latent_section(result)
        if len({name.partition("[")[0] for name in result.names}) == 1:
            return section
        self.results["layers"] = layers = describe_layers(self.pair, self.test, seed=derive_seed(self.seed, 6, 1))
        return sections.with_layers(section, layers)

    def structure(self) -> Section:
        codes = posterior_means(self.pair, self.test, seed=derive_seed(self.seed, 7))
        labels = None if self.test.labels is None else self.test.labels.cpu().numpy()
        x = self.test.batch(slice(0, 2 * _SHOWN))[0]
        found = None
        if len(codes) >= _FEWEST_FOR_STRUCTURE and np.ptp(codes, axis=0).max() > 0:
            raw = None if self.test.mask is not None else self.test.stored(slice(None)).flatten(1).cpu().numpy()
            # Gaussian mixtures with their many starts take minutes; `analysis.latent.clusters.cluster` has them.
            found = structure(
                codes,
                labels=labels,
                raw=raw,
                clusterings=("kmeans", "hdbscan"),
                max_data=_MOST_FOR_STRUCTURE,
                seed=derive_seed(self.seed, 8),
            )
        self.results["structure"] = found
        moved, between = None, None
        vae = self.pair.decodable
        if vae is not None and not vae.num_classes:
            moved = traverse(vae, x[:1], seed=derive_seed(self.seed, 9))
            pairs = len(x) // 2
            if pairs:
                between = interpolate(
                    vae, x[: min(pairs, 4)], x[pairs : pairs + min(pairs, 4)], seed=derive_seed(self.seed, 10)
                )
        low, high = float(x[x.isfinite()].min()), float(x[x.isfinite()].max())
        return sections.structure_section(codes, labels, found, moved, between, (low, high))

    def samples(self, train: Split | None) -> Section:
        seed = derive_seed(self.seed, 11)
        number = min(self.config.num_samples, max(len(self.test), 20))
        self.results["samples"] = result = check_samples(
            self.pair, self.test, num_samples=number, seed=seed, train=train
        )
        x = self.test.batch(slice(0, 49))[0].cpu().numpy()
        vae = self.pair.decodable
        if vae is not None:
            y = None if self.test.y is None else self.test.y[torch.arange(49) % len(self.test)]
            shown = vae.sample(49, y=y, seed=seed, expectation=True).cpu().numpy()
        else:
            shown = draw_samples(self.pair, 49, self.test, seed=seed)
        return sections.samples_section(result, x, shown)

    def leakage(self, train: Split, test: Split) -> Section:
        self.results["leakage"] = result = held_out_check(train, test, seed=derive_seed(self.seed, 12))
        return sections.leakage_section(result)

    def outliers(self, validation: Split) -> Section:
        seed = derive_seed(self.seed, 13)
        result = detect(self.pair, validation.fixed(seed), self.test, seed=seed)
        self.results["outliers"] = result
        order = np.argsort(-result.scores)[: 2 * _SHOWN]
        rows = self.test.take(torch.from_numpy(order.copy()))
        return sections.outliers_section(
            result, rows.batch(slice(None))[0].cpu().numpy(), result.scores, result.calibration
        )


def _fit(history: Sequence[Mapping[str, float]], model: Mapping[str, Any], fit: Mapping[str, Any]) -> Section:
    return sections.training_section([dict(row) for row in history], model, fit)


def _thinned(tree: xr.DataTree) -> xr.DataTree:
    """The tree with as many whole replications as fit the room for them."""
    kept = tree.copy()
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
