"""Pairs written elsewhere in the diagnostics: numbers beside an independent estimate, or the sentence that refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import Tensor

from analysis import (
    ReportConfig,
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    calibrate,
    check_pair,
    check_samples,
    describe_latent,
    elpd,
    inference_gaps,
    make_report,
    nuts_moments,
    predictive_checks,
    to_datatree,
)
from analysis.posterior.annealing import AnnealingConfig
from analysis.posterior.local_guides import LocalConfig
from analysis.samples.generated.draws import draw_samples
from tests.foreign import NUM_DATA, PAIRS, Foreign
from tests.odd import CASES, data, guide_in, plain
from vae_pyro import VAE, Split, VAEConfig

QUICK = ReportConfig(num_draws=100, num_simulations=40, num_gap_data=4)
SHORT = AnnealingConfig(num_temperatures=100, num_chains=6)
REAL = ("tutorial", "mixture", "prodlda", "conditional", "recurrent", "convolutional")


def tree_of(case: Foreign, num_draws: int = 300) -> xr.DataTree:
    return to_datatree(case.pair, case.x, y=case.y, num_draws=num_draws, seed=0)


@pytest.mark.parametrize("name", PAIRS)
def test_trees_hold_densities_whose_elpd_is_that_of_quadrature(name: str) -> None:
    case = PAIRS[name]()
    tree = tree_of(case)
    assert tree["posterior_predictive"]["x"].shape == (1, 300, *case.x.shape)
    assert tree["prior_predictive"]["x"].shape == (1, 300, *case.x.shape)
    np.testing.assert_array_equal(tree["observed_data"]["x"], case.x)
    weight = tree["sample_stats"]["log_weight"][0]
    log_px = np.log(np.exp(weight).mean("draw"))
    error = float(np.sqrt(((np.exp(weight - log_px).std("draw") ** 2) / 300).sum()) / 24)
    assert abs(float(log_px.mean()) - float(case.log_evidence.mean())) < 4.5 * error + 0.02
    if name == "discrete":  # equal weights have no tail index
        return
    assert abs(elpd(tree).elpd / 24 - float(log_px.mean())) < 1e-6


def test_predictive_draws_of_a_discrete_latent_have_the_posterior_mean() -> None:
    """The guide's own mixture of the four centres; 24,000 draws a coordinate, an error of 0.01."""
    case = PAIRS["discrete"]()
    tree = tree_of(case, 1000)
    centres = torch.tensor([[-1.0, 0.5], [0.0, 0.0], [1.0, -1.0], [2.0, 1.0]])
    k = torch.as_tensor(tree["posterior"]["k"].values[0]).long()
    expected = centres[k].mean((0, 1))
    found = tree["posterior_predictive"]["x"].mean(("chain", "draw", "datum"))
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_a_likelihood_that_is_a_factor_has_a_tree_without_predictive_draws() -> None:
    case = CASES["by_factor"]()
    tree = to_datatree(case.pair, case.x, num_draws=300)
    assert "posterior_predictive" not in tree
    assert elpd(tree).elpd == pytest.approx(float(case.log_evidence.sum()), abs=0.5)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no predictive draws: the model observes x in another form"):
        predictive_checks(tree)
    with pytest.raises(ValueError, match="no predictive draws: the model observes x in another form"):
        to_datatree(case.pair, case.x, num_draws=300, predictive=True)


def exact(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.5))


def narrow(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.sum(-1) / 4, 0.3))


def test_calibration_draws_data_beside_those_that_it_is_given() -> None:
    """The exact guide passes in 95 of 100 cases; one of 0.6 its width is rejected with a probability above 0.999."""
    assert not calibrate((plain, exact), x_like=data(), num_simulations=300, seed=1).rejected
    assert calibrate((plain, narrow), x_like=data(), num_simulations=300, seed=1).rejected
    with pytest.raises(ValueError, match="the model takes no argument size.*x_like= of calibrate"):
        calibrate((plain, exact))


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_is_calibrated_or_refused(name: str) -> None:
    case = PAIRS[name]()
    options: dict[str, Any] = {"x_like": case.x, "y": case.y, "num_simulations": 40, "num_draws": 19}
    if "calibrate" in case.refuses:
        with pytest.raises(ValueError, match=case.refuses["calibrate"]):
            calibrate(case.pair, **options)
    else:
        found = calibrate(case.pair, **options)
        assert found.ranks.min() >= 0
        assert found.ranks.max() <= 19


@pytest.mark.parametrize("name", PAIRS)
def test_annealed_log_px_is_that_of_quadrature_or_refused(name: str) -> None:
    case = PAIRS[name]()
    if name not in REAL:
        with pytest.raises(ValueError, match=case.refuses["gaps"]):
            annealed_importance_sampling(case.pair, case.x, y=case.y, config=SHORT)
        return
    found = annealed_importance_sampling(case.pair, case.x, y=case.y, config=SHORT, seed=0)
    assert abs(found.mean - float(case.log_evidence.mean())) < 4.5 * found.mean_mcse + found.bias + 1e-3


@pytest.mark.slow
def test_gaps_and_bounds_of_a_folded_decoder() -> None:
    case = PAIRS["recurrent"]()
    found = inference_gaps(
        case.pair,
        case.x,
        num_data=24,
        num_draws=300,
        num_simulated=4,
        local=LocalConfig(num_steps=40),
        annealing=SHORT,
    )
    assert abs(found.annealing.mean - float(case.log_evidence.mean())) < 4.5 * found.annealing.mean_mcse + 0.02
    assert found.sandwich is not None
    assert abs(found.sandwich.gap) < 0.1
    between = bidirectional_monte_carlo(case.pair, num_data=4, x_like=case.x, config=SHORT)
    assert abs(between.gap) < 0.1


def test_nuts_samples_a_foreign_posterior() -> None:
    x = data()[:2]
    found = nuts_moments((plain, exact), x, num_draws=300, num_warmup=100)
    np.testing.assert_allclose(found.mean[:, 0], x.sum(-1) / 4, atol=0.2)
    np.testing.assert_allclose(found.scale, 0.5, rtol=0.25)
    case = PAIRS["mixture"]()
    with pytest.raises(ValueError, match="NUTS runs the model as it is.*component"):
        nuts_moments(case.pair, case.x[:2])


@pytest.mark.parametrize("name", ["tutorial", "semi_supervised", "recurrent"])
def test_latents_and_samples_of_foreign_pairs(name: str) -> None:
    """The rate is the mutual information and the marginal KL, within their brackets; samples have the data's shape."""
    case = PAIRS[name]()
    found = describe_latent(case.pair, case.x, num_draws=200)
    assert np.isfinite([found.rate, found.distortion, found.mutual_information.estimate]).all()
    assert found.rate == pytest.approx(found.mutual_information.estimate + found.marginal_kl.estimate, abs=0.3)
    check_samples(case.pair, case.x, num_samples=100)
    assert draw_samples(case.pair, 30, Split(case.x), seed=0).shape == (30, *case.x.shape[1:])


# --- check_pair -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_a_check_fits_a_screen_and_names_what_is_closed(name: str) -> None:
    case = PAIRS[name]()
    found = check_pair(case.pair, case.x, y=case.y)
    text = str(found)
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 120
    assert "density" in found.open
    assert ("gaps" in found.open) == (name in REAL)
    assert ("calibration" in found.open) == ("calibrate" not in case.refuses)


def test_a_check_says_what_was_found() -> None:
    case = PAIRS["prodlda"]()
    text = " ".join(str(check_pair(case.pair, case.x)).split())
    for part in (
        "24 of shape (8,), torch.float32 on cpu",
        "observed sites obs latent sites logtheta (continuous) plate over data documents model takes x",
        "model: particles as further data; guide: all particles at once",
        "guide amortized",
        "9 modules, in training mode",
        "not fit: requires a record of the fit",
    ):
        assert part in text, part
    summed = str(check_pair(PAIRS["mixture"]().pair, PAIRS["mixture"]().x))
    assert "z (continuous), component (3 values, summed out)" in summed
    automatic = PAIRS["automatic"]()
    assert "not amortized: for these rows alone" in str(check_pair(automatic.pair, automatic.x))


def test_a_vae_keeps_the_contract() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood="gaussian", structure="m2:num_classes=3"), seed=0)
    found = check_pair(vae, data())
    assert found.facts["observed sites"] == "x"
    assert found.facts["latent sites"] == "y (discrete), z (continuous)"
    assert found.facts["model takes"] == "x, size, mask, y"
    assert found.facts["guide"] == "amortized"
    assert "predictive" in found.open


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_opens_with_what_is_missing_and_that_is_no_pass(tmp_path: Path) -> None:
    case = PAIRS["semi_supervised"]()
    made = make_report(case.pair, case.x, config=QUICK.replace(only=("density", "gaps", "calibration")))
    first, second, *_ = str(made).splitlines()
    assert first.startswith("Incomplete: 1 of 3 sections could not be made (Inference gaps).")
    assert "All" not in first
    assert "of the other sections passed" in first
    assert second.startswith("  Inference gaps: Not made: Hamiltonian moves require real-valued latents")
    html = made.page.render()
    assert html.index("Incomplete: 1 of 3") < html.index("Hamiltonian moves require real-valued") < html.index("<table")
    made.write(str(tmp_path / "new" / "out"))
    names = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert names == {"metrics.json", "inference.nc", "report.html"}
    made.write(tmp_path / "other")
    assert (tmp_path / "other" / "report.html").read_text() == html


def test_a_useless_guide_of_another_plate_is_no_pass() -> None:
    weight = torch.tensor([[1.0, -0.5, 0.3, 2.0], [0.2, 1.5, -1.0, 0.4]])

    def model(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        with pyro.plate("batch", size if x is None else x.shape[-2]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            value: Tensor = pyro.sample("x", dist.Normal(z @ weight, 0.6).to_event(1), obs=x)
            return value

    def guide(x: Tensor) -> None:
        with pyro.plate("batch", x.shape[0]):
            pyro.sample("z", dist.Normal(torch.full((2,), 5.0), 0.1).to_event(1))

    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    made = make_report((model, guide), x, config=QUICK.replace(only=("density", "calibration", "predictive")))
    assert not made.absent
    assert {verdict.name for _, verdict in made.page.verdicts if verdict.outcome == "fail"} >= {"sbc", "pareto_k"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_ranked": 9}, "num_ranked"),
        ({"num_gap_data": 1}, "num_gap_data"),
        ({"num_samples": 3}, "num_samples"),
        ({"num_simulations": 5}, "num_simulations"),
        ({"num_draws": 10}, "num_draws"),
    ],
)
def test_what_a_section_would_refuse_is_refused_by_the_configuration(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReportConfig(**options)


def test_data_that_no_density_can_be_had_of_are_refused_before_the_first_draw() -> None:
    with pytest.raises(ValueError, match="the model requires labels beside the data"):
        make_report(PAIRS["conditional"]().pair, PAIRS["conditional"]().x, config=QUICK)


# Sections that a pair has none of. Where all weights are equal, as at few discrete draws, there is no tail index.
CLOSED = {
    "semi_supervised": {"Inference gaps"},
    "scanvi": {"Inference gaps"},
    "automatic": {"Calibration of the guide", "Inference gaps", "Information in the latent variables"},
    "discrete": {"Inference gaps", "Information in the latent variables", "Latent-space structure"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_the_whole_report_of_every_foreign_pair(name: str) -> None:
    case = PAIRS[name]()
    x = Split(case.x, y=case.y)
    made = make_report(case.pair, x, train=x, config=QUICK)
    assert set(made.failed) - {"Held-out log predictive density"} == CLOSED.get(name, set())
    assert ("Held-out log predictive density" in made.failed) <= (name == "discrete")
    assert set(made.results) >= {"leakage", "samples", "predictive"}
    if "density" in made.results:
        density = made.results["density"]
        assert density.elpd / NUM_DATA == pytest.approx(float(case.log_evidence.mean()), abs=0.15)  # type: ignore[attr-defined]


def test_guides_of_one_site_are_vectorised_whatever_the_plate() -> None:
    found = check_pair((plain, guide_in()), data())
    assert "model: all particles at once; guide: all particles at once" in found.facts["particles"]
