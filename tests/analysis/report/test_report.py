"""The report: a good model turns no row, and each kind of bad one turns the row that is about it."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import Tensor

from analysis.report.report import Report, ReportConfig, make_report, report_run
from analysis.results.page import Page
from analysis.results.verdict import Verdict
from tests.browser import browser, chromium, faults
from tests.truths import PPCA, example
from vae_pyro import VAE, FitConfig, RunFolder, VAEConfig, fit, load_data

type Pair = tuple[Callable[..., Any], Callable[..., Any]]

QUICK = ReportConfig(num_draws=200, num_simulations=200, num_gap_data=10, num_samples=200)
# Annealing and the comparison of clusterings take most of a report's time, and have tests of their own.
BRISK = ("density", "predictive", "calibration", "latent", "samples", "leakage", "outliers")


def rows(report: Report) -> dict[str, Verdict]:
    return {verdict.name: verdict for _, verdict in report.page.verdicts}


def only(*names: Any) -> ReportConfig:
    return QUICK.replace(only=names)


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example(seed=1)


def of_truth(truth: PPCA, config: ReportConfig) -> Report:
    return make_report(
        truth.programs(),
        truth.sample(300, seed=10),
        train=truth.sample(600, seed=11),
        validation=truth.sample(200, seed=12),
        config=config,
        seed=4,
    )


@pytest.fixture(scope="module")
def good(truth: PPCA) -> Report:
    return of_truth(truth, only(*BRISK))


def test_a_good_model_turns_no_row(good: Report) -> None:
    """The exact posterior of the model that made the data. Rows of chance alone (predictive, calibration, leakage,
    outliers) fail with a probability of 0.05 or less each, so that about one seed in three turns one; this one does
    not, and the rows of size never do."""
    assert [str(verdict) for _, verdict in good.page.verdicts if verdict.outcome != "pass"] == []
    assert tuple(section.name for section in good.page.sections) == BRISK
    assert good.page.summary().startswith("All")


@pytest.mark.slow
def test_a_good_model_turns_no_row_of_the_whole_report(truth: PPCA) -> None:
    made = of_truth(truth, QUICK)
    assert [str(verdict) for _, verdict in made.page.verdicts if verdict.outcome != "pass"] == []
    assert {section.name for section in made.page.sections} == {*BRISK, "gaps", "structure"}


def test_the_page_holds_every_figure_and_the_files_are_whole(good: Report, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.update_metrics({"elbo": -1.0})
    good.write(run)
    html = run.report_file.read_text()
    inside = json.loads(html.split('id="figures">')[1].split("</script>")[0])
    stored = json.loads(run.metrics_file.read_text())
    assert stored["report"] == inside == json.loads(json.dumps(good.page.metrics()))
    assert stored["elbo"] == -1.0, "what evaluate wrote stays"
    assert [row["name"] for row in inside["verdicts"]] == [verdict.name for _, verdict in good.page.verdicts]
    with warnings.catch_warnings():  # xarray adds a filter of its own at every opening
        again = xr.open_datatree(run.inference_file, engine="h5netcdf")
    np.testing.assert_array_equal(again["posterior"]["z"], good.tree["posterior"]["z"])  # type: ignore[index]
    again.close()
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "inference.nc", "report.html"}


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_a_browser_finds_no_fault_with_it(good: Report, tmp_path: Path) -> None:
    good.page.write(tmp_path / "report.html")
    with browser(chromium()) as tab:  # type: ignore[arg-type]
        for width, dark in ((1200, False), (375, True)):
            tab.look(width=width, dark=dark)
            tab.open((tmp_path / "report.html").as_uri())
            assert faults(tab) == []


def test_the_same_seed_gives_the_same_page(truth: PPCA) -> None:
    x = truth.sample(40, seed=5)
    pages = [make_report(truth.programs(), x, config=only("density", "latent"), seed=seed).page for seed in (1, 1, 2)]
    first, second, other = (page.render() for page in pages)
    assert first == second != other


def test_a_narrow_guide_turns_calibration_and_density(truth: PPCA) -> None:
    """Half the posterior's scale: the power at 200 simulations is above 0.999, and the tail index is 0.75."""
    made = make_report(truth.programs(stretch=0.5), truth.sample(60, seed=6), config=only("density", "calibration"))
    found = rows(made)
    assert found["sbc"].outcome == found["guide_width"].outcome == "fail"
    assert "too narrow" in found["sbc"].advice
    assert found["pareto_k"].outcome == "warn"


def test_a_wrong_scale_of_the_likelihood_turns_the_predictive_rows(truth: PPCA) -> None:
    wrong = PPCA(truth.weight, truth.mean, 4 * truth.variance)
    made = make_report(wrong.programs(), truth.sample(300, seed=7), config=only("predictive"))
    assert {verdict.outcome for verdict in rows(made).values()} & {"fail"}


def test_a_collapsed_model_turns_the_latent_row(truth: PPCA) -> None:
    def model(x: Any = None, *, size: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
            loc = truth.mean
            return pyro.sample("x", dist.Normal(loc, torch.full_like(loc, 2.0)).to_event(1), obs=x)

    def guide(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))

    made = make_report((model, guide), truth.sample(100, seed=8), config=only("latent"))
    assert [verdict.outcome for verdict in rows(made).values()].count("fail") >= 1
    assert "collapse" in json.dumps(made.page.metrics()).lower()


def test_test_data_that_were_trained_on_turn_the_leakage_rows(truth: PPCA) -> None:
    train = truth.sample(400, seed=9)
    made = make_report(truth.programs(), train[:150], train=train, config=only("leakage"))
    assert {verdict.outcome for verdict in rows(made).values()} == {"fail"}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_few_data_one_latent_and_no_image_get_a_sensible_page(size: int) -> None:
    """Sections that cannot be made say why, and none is lost."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        x = torch.randn(size, 3)
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]"), seed=0)
    vae.initialize(torch.linspace(-1, 1, 30).reshape(10, 3))
    config = only(*BRISK, "structure")
    made = make_report(vae, x, train=torch.linspace(-2, 2, 60).reshape(20, 3), config=config)
    html = made.page.render()
    assert len(made.page.sections) == 7
    assert "Traceback" not in html
    names = {section.title: section.name for section in made.page.sections}
    assert {names[title] for title, _ in made.absent} <= {"latent", "samples", "leakage"}
    assert "at least 20 held-out data are required" in html


def test_a_mask_and_data_outside_the_support() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1))
    with pytest.raises(ValueError, match="likelihood 'bernoulli' requires"):
        make_report(vae, torch.full((4, 3), 0.5))


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "digits"
    data = load_data("digits", binarize="threshold")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder="mlp:hidden=[16]"), seed=0)
    fit(vae, data.train, validation=data.validation, config=FitConfig(epochs=2), out=out, data=data, progress=False)
    return RunFolder(out)


def test_a_run_gets_a_report_with_its_own_facts(digits_run: RunFolder) -> None:
    vae, data = digits_run.load_model(), digits_run.data_config().load()
    seen: list[str] = []
    config = only("fit", *BRISK).replace(num_draws=100, num_simulations=20)
    made = report_run(digits_run, vae, data, limit=120, config=config, progress=seen.append)
    assert seen[0] == "Draws of the held-out data"
    assert len([line for line in seen if line.endswith("of 8 sections)")]) == len(made.page.sections) == 8
    assert isinstance(made.page, Page)
    assert made.page.facts["held-out data"] == "the test split, 120 data"
    html = made.page.render()
    for piece in ("threshold", "1,294 data, 144 for validation", "seed of the fit", "git revision"):
        assert piece in html, piece
    assert len(html) < 10e6
    assert str(made).count("\n") == len(made.page.verdicts)


SMALL = {"latent_dim": 4, "encoder": "mlp:hidden=[64]"}


def fitted(likelihood: str, objective: str = "elbo", **options: Any) -> tuple[VAE, Any]:
    data = load_data("digits", **options)
    vae = VAE(VAEConfig(x_shape=data.x_shape, likelihood=likelihood, **SMALL), seed=0)
    config = FitConfig(epochs=60, batch_size=64, objective=objective, optimizer="adam:lr=2e-3")
    return fit(vae, data.train, config=config, progress=False).vae, data


@pytest.mark.slow
def test_bad_fits_of_digits_turn_the_right_rows() -> None:
    """A beta of 20 collapses; a Gaussian of scale 1 on 0..16 misses the spread; scales halved after training are
    narrow; training data as test data are found."""
    collapsed, data = fitted("bernoulli", "beta:beta=20", binarize="threshold")
    assert "fail" in {v.outcome for v in rows(make_report(collapsed, data.test, config=only("latent"))).values()}
    wrong, raw = fitted("gaussian:scale=1.0")
    assert "fail" in {v.outcome for v in rows(make_report(wrong, raw.test, config=only("predictive"))).values()}
    narrow, data = fitted("bernoulli", binarize="threshold")
    guide = narrow.guide

    def halved(x: Tensor, **kwargs: Any) -> Tensor:
        posterior = guide.encode(x)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(posterior.mean, posterior.variance.sqrt() / 2).to_event(1))

    made = make_report((narrow.model, halved), data.split("test"), config=only("calibration", "gaps"))
    assert rows(made)["guide_width"].outcome == "fail"
    assert rows(made)["amortization_gap"].outcome != "pass"  # half the scale costs 0.32 nats for each latent
    leaky = make_report(narrow, data.train.take(slice(300)), train=data.train, config=only("leakage"))
    assert rows(leaky)["identical_test_data"].outcome == "fail"
    assert rows(leaky)["close_test_data"].outcome != "pass"


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_the_page_of_mnist_opens_whole(tmp_path: Path) -> None:
    data = load_data("mnist", binarize="dynamic")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=20, encoder="mlp:hidden=[400]"), seed=0)
    config = FitConfig(epochs=1, batch_size=128)
    fit(vae, data.train, validation=data.validation, config=config, out=tmp_path / "run", data=data, progress=False)
    run = RunFolder(tmp_path / "run")
    report_run(run, vae, data).write(run)
    assert run.report_file.stat().st_size < 10e6
    with browser(chromium()) as tab:  # type: ignore[arg-type]
        tab.open(run.report_file.as_uri())
        assert faults(tab) == []
        assert tab.evaluate("document.querySelectorAll('#verdicts table tbody tr').length") > 20
