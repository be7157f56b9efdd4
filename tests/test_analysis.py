"""Tree, elpd and predictive checks: ArviZ reads the first, truths hold for the others, each rejects what is wrong."""

import warnings
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

from analysis import elpd, predictive_check, to_datatree
from analysis.elpd import log_evidence, pareto_k
from tests.truths import PPCA, example
from vae_pyro import VAE, Split, VAEConfig, evaluate, load_data


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example()


@pytest.fixture(scope="module")
def tree(truth: PPCA) -> xr.DataTree:
    return to_datatree(truth.programs(diagonal=True), truth.sample(40, seed=0), num_draws=400, seed=1)


def test_groups_dimensions_and_bookkeeping(tree: xr.DataTree) -> None:
    assert set(tree.children) == {
        "posterior",
        "log_likelihood",
        "log_prior",
        "sample_stats",
        "posterior_predictive",
        "observed_data",
    }
    assert tree["posterior"]["z"].dims == ("chain", "draw", "datum", "latent")
    assert tree["posterior"]["z"].shape == (1, 400, 40, 2)
    assert tree["posterior_predictive"]["x"].shape == (1, 400, 40, 5)
    stats = tree["sample_stats"]
    total = tree["log_likelihood"]["x"] + tree["log_prior"]["z"] - stats["log_guide"]
    np.testing.assert_allclose(stats["log_weight"], total, atol=1e-12)


def test_arviz_reads_it_and_files_keep_it(tree: xr.DataTree, tmp_path: Path) -> None:
    summary = az.summary(tree["posterior"].isel(datum=slice(0, 2)).dataset)
    assert len(summary) == 4
    tree.to_netcdf(tmp_path / "inference.nc", engine="h5netcdf")
    with warnings.catch_warnings():  # xarray adds a filter of its own at every opening
        again = xr.open_datatree(tmp_path / "inference.nc", engine="h5netcdf")
    xr.testing.assert_equal(again.load(), tree)
    again.close()


def test_labels_and_ids_of_a_data_set_travel() -> None:
    data = load_data("digits", binarize="dynamic")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder="mlp:hidden=[8]"))
    tree = to_datatree(vae, data.test, num_draws=3)
    np.testing.assert_array_equal(tree["posterior"]["datum"], data.test.ids)
    np.testing.assert_array_equal(tree["observed_data"]["label"], data.test.labels)
    assert tree["posterior_predictive"]["x"].shape == (1, 3, 359, 1, 8, 8)
    same = to_datatree(vae, data.test, num_draws=3)
    xr.testing.assert_equal(tree, same)


def test_predictive_draws_that_do_not_fit_are_left_out_and_the_check_says_so(
    truth: PPCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.datatree._PREDICTIVE_BYTES", 1000)
    tree = to_datatree(truth.programs(), truth.sample(9, seed=0), num_draws=30)
    assert "posterior_predictive" not in tree
    with pytest.raises(ValueError, match="has no posterior_predictive.*pass fewer data or draws"):
        predictive_check(tree)


def test_data_outside_the_support_are_refused() -> None:
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2))
    with pytest.raises(ValueError, match="likelihood 'bernoulli' wants"):
        to_datatree(vae, torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))


def test_elpd_of_the_exact_posterior_is_exact(truth: PPCA) -> None:
    x = truth.sample(50, seed=3)
    result = elpd(to_datatree(truth.programs(), x, num_draws=100))
    assert result.elpd == pytest.approx(truth.log_evidence(x).sum().item(), abs=1e-8)
    assert result.mcse < 1e-6
    assert (result.pareto_k == -np.inf).all()
    assert result.num_bad == 0
    assert "the guide is close enough everywhere" in str(result)


def test_elpd_meets_the_truth_within_its_error(truth: PPCA) -> None:
    """A wide guide has bounded weights. |z| < 1.96 for 95 % of 200 data, within 4 binomial errors (6e-5)."""
    x = truth.sample(200, seed=4)
    result = elpd(to_datatree(truth.programs(stretch=1.4), x, num_draws=2000))
    z = (result.pointwise - truth.log_evidence(x).numpy()) / result.pointwise_mcse
    assert abs((np.abs(z) < 1.96).mean() - 0.95) < 4 * (0.95 * 0.05 / 200) ** 0.5
    assert result.num_bad == 0
    assert result.se == pytest.approx(200**0.5 * result.pointwise.std(ddof=1))


def test_k_hat_rejects_a_narrow_guide(truth: PPCA) -> None:
    """Half the posterior's scale has tail index 1 - 0.25 = 0.75: above the threshold, and said so."""
    x = truth.sample(60, seed=5)
    result = elpd(to_datatree(truth.programs(stretch=0.5), x, num_draws=4000))
    assert result.pareto_k.mean() == pytest.approx(0.75, abs=0.15)
    assert result.num_bad > 30
    assert "raise num_draws" in str(result)
    wide = elpd(to_datatree(truth.programs(stretch=1.4), x, num_draws=4000))
    assert wide.num_bad == 0


def test_k_hat_is_ordered_by_the_true_tail_index() -> None:
    """Mean-field on correlation rho has k = |rho|: for precisions P and Q it is 1 - lambda_min(Q^-1 P)."""
    random = np.random.default_rng(0)
    estimates = []
    for rho in (0.2, 0.5, 0.8):
        z = random.normal(size=(2, 5000, 40)) * (1 - rho**2) ** 0.5
        log_target = -(z[0] ** 2 - 2 * rho * z[0] * z[1] + z[1] ** 2) / (2 * (1 - rho**2))
        log_guide = -(z**2).sum(0) / (2 * (1 - rho**2))
        estimates.append(pareto_k(log_target - log_guide).mean())
    assert estimates[0] < estimates[1] < estimates[2]
    np.testing.assert_allclose(estimates, (0.2, 0.5, 0.8), atol=0.15)


def test_log_evidence_is_a_stable_log_mean_exp() -> None:
    weight = np.array([[-1e4, 0.0], [-1e4 + np.log(3), 0.0]])
    estimate, error = log_evidence(weight)
    np.testing.assert_allclose(estimate, [-1e4 + np.log(2), 0.0])
    # Two weights 1 and 3: sum w^2 / (sum w)^2 - 1/2 = 10/16 - 1/2.
    np.testing.assert_allclose(error, [0.125**0.5, 0.0], atol=1e-7)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros((10, 3)), "a tail needs at least 25 draws, got 10; raise num_draws"),
        (np.where(np.arange(120).reshape(30, 4) == 2, np.nan, 0.0), "NaN or \\+inf, the first is 2"),
    ],
)
def test_bad_weights(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pareto_k(weight)
    with pytest.raises(ValueError, match="make it with analysis.to_datatree"):
        elpd(xr.DataTree())


def test_a_predictive_check_accepts_the_true_model(truth: PPCA) -> None:
    """At the true model at most 5 % fall outside 0.025..0.975 (the check is conservative); 80 values give 4 on
    average, and more than 12 in 1 of 4,000 seeds."""
    values = []
    for seed in range(40):
        tree = to_datatree(truth.programs(), truth.sample(30, seed=seed), num_draws=200, seed=seed)
        values.append([predictive_check(tree, name).p_value for name in ("mean", "sd")])
    p = np.array(values)
    assert ((p < 0.025) | (p > 0.975)).sum() <= 12
    assert np.abs(p.mean(0) - 0.5).max() < 4 * (1 / 12 / 40) ** 0.5


def test_a_predictive_check_rejects_a_wrong_scale(truth: PPCA) -> None:
    wrong = PPCA(truth.weight, truth.mean, 4 * truth.variance)
    rejected = 0
    for seed in range(20):
        tree = to_datatree(wrong.programs(), truth.sample(100, seed=seed), num_draws=200, seed=seed)
        rejected += predictive_check(tree, "sd").p_value > 0.975
    assert rejected >= 19  # power of 0.95 at 100 data


def test_statistics_by_name_or_function(tree: xr.DataTree) -> None:
    def largest_column(x: Any) -> float:
        return float(x.mean(0).max())

    check = predictive_check(tree, largest_column)
    assert check.name == "largest_column"
    assert check.observed == largest_column(tree["observed_data"]["x"].values)
    assert "predictive check of 'largest_column'" in str(check)
    assert check.p_value_mcse >= 0.5 / 400
    with pytest.raises(ValueError, match="unknown statistic 'median'; choose from mean, sd, min, max, zeros"):
        predictive_check(tree, "median")


def test_a_guide_that_leaves_the_support_is_not_called_good() -> None:
    weight = np.zeros((100, 3))
    weight[0, 1] = -np.inf
    weight[:, 2] = -np.inf
    assert pareto_k(weight).tolist() == [-np.inf, np.inf, np.inf]


def test_masked_values_do_not_reach_a_check(truth: PPCA) -> None:
    x = truth.sample(30, seed=0)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 3:] = False
    model, _ = truth.programs()
    _, guide = PPCA(truth.weight[:3], truth.mean[:3], truth.variance).programs()
    pair = (model, lambda x, mask=None: guide(x[:, :3]))
    p = []
    for hidden in (0.0, 1e6, float("nan")):
        split = Split(torch.where(mask, x, torch.tensor(hidden, dtype=x.dtype)), mask=mask)
        tree = to_datatree(pair, split, num_draws=50)
        p.append((predictive_check(tree, "mean").p_value, predictive_check(tree, np.nanmax).p_value))
        assert np.isnan(tree["observed_data"]["x"].values[:, 3:]).all()
    assert p[0] == p[1] == p[2]


def test_latents_of_any_shape_and_number() -> None:
    def model(x: Any = None, *, size: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            c = pyro.sample("c", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(a + b.sum(-1) + c.sum(-1), 1.0), obs=x)

    def guide(x: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("c", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    x = torch.linspace(-1, 1, 5)[:, None]
    pair = (lambda x=None, *, size=None: model(None if x is None else x[:, 0], size=size), lambda x: guide(x[:, 0]))
    result = evaluate(pair, x, num_samples=400)
    assert len(result.activity) == 6
    tree = to_datatree(pair, x, num_draws=30, predictive=False)
    assert tree["posterior"]["b"].dims[-1] == "b_dim_0"
    assert tree["posterior"]["c"].shape == (1, 30, 5, 3)
