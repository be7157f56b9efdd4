"""What every result can do: verdicts, numbers, a table, a picture, and prints that fit a screen, on real results."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import analysis
from analysis import DIAGNOSTICS, Result, Verdict
from analysis.plotting import encode
from analysis.posterior.local_guides import LocalConfig
from tests.analysis.experiments import examples
from tests.truths import PPCA, example
from tests.vae_pyro.likelihoods.tables import frame
from vae_pyro import VAE, VAEConfig
from vae_pyro.applications.imputation import impute
from vae_pyro.core.isolation import seeded

SCREEN = (40, 120)
SHORT = analysis.AnnealingConfig(num_chains=3, num_temperatures=10)


@cache
def truth() -> PPCA:
    return example(seed=1)


@cache
def layered() -> VAE:
    vae = VAE(
        VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[8]",
                  structure="bottom_up:latent_dims=[2]"),
        seed=0,
    )  # fmt: skip
    vae.initialize(truth().sample(200, seed=3).float())
    return vae


@cache
def report_of(pair: str) -> analysis.Report:
    """Every diagnostic of the registry."""
    quick = analysis.ReportConfig(
        num_draws=100, num_predictive=40, num_simulations=40, num_ranked=19, num_gap_data=2, num_samples=60
    )
    x, train, validation = (truth().sample(n, seed=seed) for seed, n in enumerate((60, 150, 120)))
    programs: Any = truth().programs(stretch=1.2) if pair == "programs" else layered()
    if pair != "programs":
        x, train, validation, quick = x.float(), train.float(), validation.float(), quick.replace(only=_OF_LAYERS)
    return analysis.make_report(
        programs, x, train=train, validation=validation, config=quick, seed=2, model={"prior": "normal"},
        history=[{"epoch": 1.0, "elbo": -9.0, "reconstruction": -8.0, "kl": 1.0}],
    )  # fmt: skip


_OF_LAYERS = ("latent", "structure", "samples")


def gaps_with_moments() -> Result:
    return analysis.inference_gaps(
        truth().programs(diagonal=True), truth().sample(2, seed=4), num_draws=50, num_simulated=0, num_nuts=0,
        annealing=SHORT, local=LocalConfig(num_steps=5),
    )  # fmt: skip


def comparison() -> Result:
    x = truth().sample(120, seed=5)
    pairs = (truth().programs(), truth().programs(stretch=1.4))
    return analysis.compare(*(analysis.elpd_of(pair, x, num_draws=50) for pair in pairs), names=["exact", "wide"])


def single_check() -> Result:
    tree = analysis.to_datatree(truth().programs(), truth().sample(30, seed=6), num_draws=60)
    return analysis.predictive_check(tree, "mean", kind="held_out")


def drift() -> Result:
    new = truth().sample(40, seed=8) + 1.0
    return analysis.drift_test(
        truth().programs(), truth().sample(40, seed=7), new, num_permutations=39, alpha=0.1, num_draws=20
    )


def class_scores() -> Result:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4), 300)
    labels = np.array([random.choice(4, p=row) for row in p])
    return analysis.class_scores(p, labels, num_bootstrap=50)


def imputation(num_imputations: int) -> Result:
    x = truth().sample(40, seed=9).float()
    mask = torch.from_numpy(np.random.default_rng(0).random(x.shape) > 0.4)
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[8]"), seed=0)
    made = impute(vae, x, mask=mask, num_draws=50, num_imputations=num_imputations)
    k = analysis.imputation_k(vae, x, mask=mask, num_draws=50)
    return analysis.imputation_quality(made, x.numpy(), pareto_k=k)


def denoising() -> Result:
    vae = VAE(
        VAEConfig(x_shape=(1, 6, 6), latent_dim=1, likelihood="gaussian", noise="gaussian:scale=0.3",
                  encoder="mlp:hidden=[8]"),
        seed=0,
    )  # fmt: skip
    with seeded(0):
        clean = torch.rand(160, 1, 1, 1).expand(-1, 1, 6, 6)
        noisy = clean + 0.3 * torch.randn(clean.shape)
    tuning = (noisy[:5].numpy(), clean[:5].numpy())
    pytest.importorskip("skimage")
    return analysis.check_denoising(
        vae, noisy, clean, data_range=1, num_draws=20, validation=tuning, filters=("gaussian",)
    )


def disentanglement() -> Result:
    factors = np.stack(np.unravel_index(np.random.default_rng(0).integers(60, size=240), (3, 4, 5)), axis=1)
    codes = factors + 0.1 * np.random.default_rng(1).normal(size=factors.shape)
    return analysis.disentanglement(codes, factors, num_rotations=5, num_resamples=3)


def agreement() -> Result:
    codes = np.random.default_rng(0).normal(size=(3, 50, 2))
    return analysis.agreement(list(codes))


def linear_probe() -> Result:
    codes = np.random.default_rng(0).normal(size=(80, 2))
    return analysis.probe(codes, codes[:, 0] > 0, raw=codes[:, :1])


def synthetic_data() -> Result:
    tables = (frame(120, seed=seed)[["height", "visits", "smokes", "colour"]] for seed in range(3))
    return analysis.synthetic_data_check(*tables, num_targets=2)


EXAMPLES = {
    "report": lambda: report_of("programs"),
    "report of layers": lambda: report_of("layers"),
    "gaps": gaps_with_moments,
    "moments": lambda: analysis.nuts_moments(
        truth().programs(), truth().sample(2, seed=1), num_draws=100, num_warmup=20
    ),
    "comparison": comparison,
    "predictive check": single_check,
    "drift": drift,
    "class scores": class_scores,
    "imputation with draws": lambda: imputation(10),
    "imputation without draws": lambda: imputation(0),
    "denoising": denoising,
    "disentanglement": disentanglement,
    "agreement": agreement,
    "probe": linear_probe,
    "experiment": examples.experiment_comparison,
    "held-out run": examples.held_out_run,
    "rate and distortion": examples.rate_distortion_curve,
    "search": examples.search_analysis,
    "draws of a table": synthetic_data,
    "credible regions": lambda: analysis.credible_regions(
        truth().programs(stretch=1.3), truth().sample(20, seed=2), num_calibration=100, seed=0
    ),
    "mixture": lambda: analysis.cluster(np.random.default_rng(0).normal(size=(60, 2)), num_clusters=2, num_bootstrap=2),
}


def parts(value: Any) -> Iterator[Result]:
    """A result and every result inside it."""
    if isinstance(value, Result):
        yield value
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from parts(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from parts(getattr(value, field.name))


@cache
def results(example_name: str) -> tuple[Result, ...]:
    return tuple(parts(EXAMPLES[example_name]()))


class Balanced(HTMLParser):
    """Fails where an element is not closed."""

    VOID = ("br", "hr", "img", "col", "input", "meta", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tables += tag == "table"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "report" else n for n in EXAMPLES])
def test_a_result_keeps_the_contract(name: str) -> None:
    found = results(name)
    assert found
    for result in found:
        kind = type(result).__name__
        assert isinstance(result.verdicts, tuple), kind
        for verdict in result.verdicts:
            assert isinstance(verdict, Verdict)
            assert verdict.name, kind
            assert verdict.question.endswith("?"), verdict.question
            assert verdict.threshold, kind
            assert verdict.source, kind
        assert result.outcome == max((v.outcome for v in result.verdicts), key=("pass", "warn", "fail").index,
                                     default="pass")  # fmt: skip
        summary = result.summary()
        assert isinstance(summary, dict), kind
        json.dumps(summary)
        frame = result.to_dataframe()
        assert isinstance(frame, pd.DataFrame), kind
        assert frame.size, kind
        assert all(isinstance(column, str) for column in frame.columns), kind
        figure = result.plot()
        assert isinstance(figure, Figure), kind
        assert encode(figure)[1], kind
        lines = str(result).splitlines()
        assert 1 <= len(lines) <= SCREEN[0], kind
        assert max(map(len, lines)) <= SCREEN[1], (kind, max(lines, key=len))
        assert repr(result).startswith(f"<{kind}: "), repr(result)
        assert len(repr(result)) <= 2 * SCREEN[1], kind
        page = Balanced()
        page.feed(result._repr_html_())
        assert page.open == [], kind
        assert page.tables == (2 if result.verdicts else 1), kind


@pytest.mark.slow
def test_every_result_is_among_the_examples() -> None:
    """So that the contract is that of all; those of the diagnostics of a report come with the registry."""

    def below(kind: type[Result]) -> Iterator[type[Result]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    for name in analysis.__all__:
        getattr(analysis, name)
    assert list(DIAGNOSTICS)
    seen = {type(result) for name in EXAMPLES for result in results(name)}
    missing = {
        kind for kind in below(Result) if not kind.__abstractmethods__ and kind.__module__.startswith("analysis")
    }
    assert sorted(kind.__name__ for kind in missing - seen) == []


def test_whatever_has_verdicts_is_a_result() -> None:
    """No class grows a contract of its own. Pages gather the verdicts of others."""
    for name in analysis.__all__:
        kind = getattr(analysis, name)
        if isinstance(kind, type) and hasattr(kind, "verdicts"):
            assert issubclass(kind, Result) or kind.__module__.startswith("analysis.results")


@pytest.mark.parametrize(
    ("kind", "former", "present"),
    [
        (Verdict, "figure", "value"),
        (analysis.Section, "figures", "metrics"),
        (analysis.Page, "figures", "metrics()"),
        (analysis.ImputationQuality, "figures", "estimates"),
        (analysis.Comparison, "told_apart", "distinguishable"),
        (analysis.Detection, "promised", "nominal"),
        (analysis.Drift, "level", "alpha"),
    ],
)
def test_a_former_attribute_is_refused_with_the_present_one(kind: Any, former: str, present: str) -> None:
    assert present.removesuffix("()") in dir(kind) or present in {field.name for field in fields(kind)}
    with pytest.raises(AttributeError, match=f"{kind.__name__}.{former} of before 0.2 is now {re.escape(present)}$"):
        getattr(object.__new__(kind), former)


@pytest.mark.parametrize(
    ("function", "former", "present"),
    [
        (analysis.drift_test, "level", "alpha"),
        (analysis.drift_test, "max_rows", "max_data"),
        (analysis.compare_samples, "num_neighbours", "num_neighbors"),
        (analysis.check_samples, "max_rows", "max_data"),
        (analysis.held_out_check, "num_rows", "max_data"),
        (analysis.class_scores, "num_resamples", "num_bootstrap"),
    ],
)
def test_a_former_argument_is_refused_with_the_present_one(function: Any, former: str, present: str) -> None:
    with pytest.raises(TypeError, match=f"takes '{present}', which was called '{former}'"):
        function(**{former: 1})
