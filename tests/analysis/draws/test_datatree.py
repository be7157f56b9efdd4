"""The tree: groups, dimensions and bookkeeping; what is streamed is what whole draws give; ArviZ and files take it."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

from analysis import to_datatree
from analysis.density.elpd import elpd, to_elpd_data
from analysis.stats.ecdf_bands import uniformity_p_value
from analysis.stats.test_statistics import measure
from tests.truths import PPCA, example
from vae_pyro import VAE, Split, VAEConfig, evaluate, load_data
from vae_pyro.densities.walk import bind


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
        "posterior_predictive_summary",
        "prior_predictive",
        "predictive_statistics",
        "observed_data",
    }
    assert tree["posterior"]["z"].dims == ("chain", "draw", "datum", "latent")
    assert tree["posterior"]["z"].shape == (1, 400, 40, 2)
    for group in ("posterior_predictive", "prior_predictive"):
        assert tree[group]["x"].dims == ("chain", "draw", "datum", "x_dim_0")
        assert tree[group]["x"].shape == (1, 400, 40, 5)
        assert tree["predictive_statistics"][group]["sd"].dims == ("chain", "draw", "datum")
    assert set(tree["predictive_statistics/observed_data"].data_vars) == {"mean", "sd", "min", "max", "zeros"}
    assert tree.attrs == {"space": "the values as given", "seed": 1, "num_draws": 400, "units": "nats"}


def test_log_densities_are_float64_and_add_up_to_the_last_bit() -> None:
    """Also of a float32 model, whose own sum of them would be rounded."""
    data = load_data("digits", binarize="dynamic")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder="mlp:hidden=[8]"))
    tree = to_datatree(vae, data.test, num_draws=60, predictive=False)
    stats = tree["sample_stats"]
    total = tree["log_likelihood"]["x"] + tree["log_prior"]["z"] - stats["log_guide"]
    assert total.dtype == stats["log_weight"].dtype == np.float64
    np.testing.assert_array_equal(stats["log_weight"], total)
    # Each log density was a float32 number, and is kept as one of float64.
    assert {tree[path].dtype.name for path in ("log_likelihood/x", "log_prior/z", "sample_stats/log_guide")} == {
        "float64"
    }
    np.testing.assert_array_equal(stats["log_guide"], stats["log_guide"].astype(np.float32))


def test_the_ledger_is_that_of_the_closed_form(truth: PPCA) -> None:
    x = truth.sample(12, seed=3)
    tree = to_datatree(truth.programs(), x, num_draws=30)
    z = torch.from_numpy(tree["posterior"]["z"].values[0])
    loc, covariance = truth.posterior(x)
    normal = torch.distributions.Normal(0.0, 1.0)
    guide = torch.distributions.MultivariateNormal(loc, covariance)
    likelihood = torch.distributions.Normal(z @ truth.weight.T + truth.mean, truth.variance**0.5)
    expected = {
        "log_prior/z": normal.log_prob(z).sum(-1),
        "sample_stats/log_guide": guide.log_prob(z),
        "log_likelihood/x": likelihood.log_prob(x).sum(-1),
        "sample_stats/log_weight": truth.log_evidence(x).expand(30, 12),
    }
    for path, value in expected.items():
        np.testing.assert_allclose(tree[path].values[0], value, atol=1e-10, err_msg=path)


def test_predictive_draws_have_the_closed_forms_moments(truth: PPCA) -> None:
    """Means over 20,000 numbers at a time, within 5 standard errors: one of 70 fails in 1 of 25,000 seeds."""
    x = truth.sample(7, seed=3)
    tree = to_datatree(truth.programs(), x, num_draws=20_000, statistics=(), seed=2)
    loc, covariance = truth.posterior(x)
    mean = loc @ truth.weight.T + truth.mean
    sd = (truth.weight @ covariance @ truth.weight.T + truth.variance * torch.eye(5)).diagonal().sqrt()
    summary = tree["posterior_predictive_summary"]
    assert (np.abs(summary["mean"] - mean.numpy()) < 5 * sd.numpy() / 20_000**0.5).all()
    np.testing.assert_allclose(summary["sd"], sd.expand(7, 5), rtol=5 / 40_000**0.5)
    prior = tree["prior_predictive"]["x"].values.reshape(-1, 5)
    spread = truth.covariance.diagonal().sqrt().numpy()
    assert (np.abs(prior.mean(0) - truth.mean.numpy()) < 5 * spread / len(prior) ** 0.5).all()
    np.testing.assert_allclose(
        np.cov(prior.T), truth.covariance, atol=5 * 2**0.5 * spread.max() ** 2 / len(prior) ** 0.5
    )


@contextmanager
def small_cells(monkeypatch: pytest.MonkeyPatch, elements: int) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr("analysis.draws.sampler.ELEMENTS_AT_ONCE", elements)
        yield


@pytest.mark.parametrize("elements", [200, 900, 10**9])
def test_what_is_streamed_is_what_whole_draws_give(truth: PPCA, monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    """At any block size: some draws of one datum, all of a few, all of all."""
    x = truth.sample(9, seed=0)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    mask[3] = False
    with small_cells(monkeypatch, elements):
        tree = to_datatree(truth.programs(), Split(x, mask=mask), num_draws=130, statistics=["mean", "max", "q95"])
    statistics, summary = tree["predictive_statistics"], tree["posterior_predictive_summary"]
    observed = tree["observed_data"]["x"].values
    assert (np.isnan(observed) == ~mask.numpy()).all()
    for group in ("posterior_predictive", "prior_predictive"):
        drawn = tree[group]["x"].values
        seen = np.where(np.isnan(observed), np.nan, drawn)
        for name, value in measure(seen, ["mean", "max", "q95"], event_dim=1).items():
            np.testing.assert_array_equal(statistics[group][name], value)
    for name, value in measure(observed, ["mean", "max", "q95"], event_dim=1).items():
        np.testing.assert_array_equal(statistics["observed_data"][name], value)
    drawn = tree["posterior_predictive"]["x"].values[0]
    np.testing.assert_allclose(summary["mean"], drawn.mean(0), atol=1e-12)
    np.testing.assert_allclose(summary["sd"], drawn.std(0, ddof=1), rtol=1e-12)
    rank = (drawn < observed).sum(0)
    pit = summary["pit"].values
    assert (np.isnan(pit) == ~mask.numpy()).all()
    assert ((pit * 131 >= rank) & (pit * 131 <= rank + 1))[mask.numpy()].all()
    # The densities belongs to the draws, block by block.
    z = torch.from_numpy(tree["posterior"]["z"].values[0])
    np.testing.assert_allclose(tree["log_prior"]["z"][0], torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1))
    element = torch.distributions.Normal(z @ truth.weight.T + truth.mean, truth.variance**0.5).log_prob(x)
    np.testing.assert_allclose(tree["log_likelihood"]["x"][0], (element * mask).sum(-1), atol=1e-10)


def test_the_pit_of_discrete_data_is_uniform_under_the_prior() -> None:
    """A guide that is the prior makes data and draws exchangeable, ties included; fails in 1 of 1,000 seeds."""

    def model(x: Any = None, *, size: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", dist.Poisson(z.exp()).to_event(1), obs=x)

    def guide(x: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    random = np.random.default_rng(0)
    x = random.poisson(np.exp(random.normal(size=(2000, 1)))).astype(np.float32)
    tree = to_datatree((model, guide), x, num_draws=40)
    # Both groups are draws of the prior here, and not the same ones.
    same = tree["posterior_predictive"]["x"] == tree["prior_predictive"]["x"]
    assert same.mean() < 0.5
    assert uniformity_p_value(tree["posterior_predictive_summary"]["pit"].values[:, 0]) > 1e-3
    above = to_datatree((model, guide), x + (x == 0), num_draws=40, prior_predictive=0)
    assert uniformity_p_value(above["posterior_predictive_summary"]["pit"].values[:, 0]) < 1e-6


def test_bernoulli_draws_have_their_probabilities() -> None:
    """They are drawn in a way of their own. Shares of 40,000 draws within 5 standard errors (1 of 100,000 seeds)."""
    vae = VAE(VAEConfig(x_shape=(1, 2, 4), latent_dim=1, encoder="mlp:hidden=[4]"))
    x = (torch.rand(3, 1, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    tree = to_datatree(vae, x, num_draws=40_000, prior_predictive=0, statistics=["mean"])
    z = torch.from_numpy(tree["posterior"]["z"].values[0])
    with torch.no_grad():
        probability = vae.decode(z).mean.mean(0).numpy()
    share = tree["posterior_predictive_summary"]["mean"].values
    assert set(np.unique(tree["posterior_predictive"]["x"])) == {0, 1}
    assert (np.abs(share - probability) < 5 * (probability * (1 - probability) / 40_000) ** 0.5).all()


def test_draws_that_do_not_fit_are_thinned_evenly_and_measured_all(
    truth: PPCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget here is 5 of 41 draws, and the same draws are made as without it."""
    x = truth.sample(9, seed=0)
    whole = to_datatree(truth.programs(), x, num_draws=41)
    monkeypatch.setattr("analysis.draws.datatree._PREDICTIVE_BYTES", 9 * 5 * 8 * 5 + 7)
    tree = to_datatree(truth.programs(), x, num_draws=41)
    for group in ("posterior_predictive", "prior_predictive"):
        assert tree[group]["draw"].values.tolist() == [0, 10, 20, 30, 40]
        assert tree[group].nbytes < 9 * 5 * 8 * 6
        xr.testing.assert_equal(tree[group].to_dataset(), whole[group].to_dataset().sel(draw=[0, 10, 20, 30, 40]))
    for same in ("predictive_statistics", "posterior_predictive_summary", "sample_stats", "posterior"):
        xr.testing.assert_equal(tree[same], whole[same])
    assert to_datatree(truth.programs(), x, num_draws=41, predictive=True)["posterior_predictive"].sizes["draw"] == 41
    monkeypatch.setattr("analysis.draws.datatree._PREDICTIVE_BYTES", 1)
    assert to_datatree(truth.programs(), x, num_draws=41)["posterior_predictive"]["draw"].values.tolist() == [0]


def test_what_is_not_wanted_is_not_drawn(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    x = truth.sample(9, seed=0)
    tree = to_datatree(truth.programs(), x, num_draws=30, predictive=False)
    assert set(tree.children) == {"posterior", "log_likelihood", "log_prior", "sample_stats", "observed_data"}
    tree = to_datatree(truth.programs(), x, num_draws=30, prior_predictive=0, statistics=())
    assert "posterior_predictive" in tree
    assert not {"prior_predictive", "predictive_statistics"} & set(tree.children)
    tree = to_datatree(truth.programs(), x, num_draws=30, prior_predictive=70)
    assert tree["prior_predictive"].sizes["draw"] == 70
    monkeypatch.setattr("analysis.draws.datatree._PRIOR_ELEMENTS", 45 * 120)
    assert to_datatree(truth.programs(), x, num_draws=300)["prior_predictive"].sizes["draw"] == 120
    monkeypatch.setattr("analysis.draws.datatree._PRIOR_ELEMENTS", 45 * 20)
    assert to_datatree(truth.programs(), x, num_draws=300)["prior_predictive"].sizes["draw"] == 100


def test_the_guide_runs_once_for_a_datum(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = truth.programs()
    seen: list[int] = []

    def counting(x: Any, **rest: Any) -> Any:
        seen.append(len(x))
        return guide(x, **rest)

    x = truth.sample(20, seed=0)
    bind((model, counting), x, seed=0)
    tried = sum(seen)  # a few rows, to find out about the programs
    with small_cells(monkeypatch, 300):
        to_datatree((model, counting), x, num_draws=30)
    assert sum(seen) == 2 * tried + 20


def test_a_vae_and_its_programs_give_the_same_tree_but_for_the_noise() -> None:
    """One run of the decoder scores and draws for a VAE, two for other pairs; the latents are the same."""
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, encoder="mlp:hidden=[4]", likelihood="gaussian:scale=0.5"))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    one, two = (to_datatree(pair, x, num_draws=4000) for pair in (vae, (vae.model, vae.guide)))
    for group in ("posterior", "log_likelihood", "sample_stats"):
        xr.testing.assert_equal(one[group], two[group])
    first, second = (tree["posterior_predictive_summary"]["mean"] for tree in (one, two))
    scale = one["posterior_predictive_summary"]["sd"]
    assert (np.abs(first - second) < 5 * (2 / 4000) ** 0.5 * scale).all()  # 12 numbers at 5 standard errors


def reread(path: Path, engine: str) -> xr.DataTree:
    with warnings.catch_warnings():  # xarray adds a filter of its own at every opening
        return xr.open_datatree(path, engine=engine)


def test_netcdf_keeps_it(tree: xr.DataTree, tmp_path: Path) -> None:
    tree.to_netcdf(tmp_path / "inference.nc", engine="h5netcdf")
    again = reread(tmp_path / "inference.nc", "h5netcdf")
    xr.testing.assert_identical(again.load(), tree)
    again.close()


def test_zarr_keeps_it(tree: xr.DataTree, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    with warnings.catch_warnings():  # zarr remarks on the formats of others
        warnings.simplefilter("ignore")
        tree.to_zarr(tmp_path / "inference.zarr")
        again = reread(tmp_path / "inference.zarr", "zarr").load()
    xr.testing.assert_identical(again, tree)


@pytest.mark.parametrize("backend", ["none", "matplotlib"])
class TestArviz:
    """ArviZ's own functions, on the tree as it is."""

    @pytest.fixture(autouse=True)
    def _figures_are_closed(self) -> Iterator[None]:
        assert not plt.get_fignums()
        yield
        plt.close("all")

    def test_plot_khat(self, tree: xr.DataTree, backend: str) -> None:
        data = to_elpd_data(tree)
        az.plot_khat(data, backend=backend)
        result = elpd(tree)
        np.testing.assert_array_equal(data.pareto_k, result.pareto_k)
        assert (data.elpd, data.se, data.good_k) == (result.elpd, result.se, result.good_k)
        assert "elpd" in str(data)

    @pytest.mark.parametrize("group", ["posterior_predictive", "prior_predictive"])
    def test_plot_ppc_dist(self, tree: xr.DataTree, backend: str, group: str) -> None:
        az.plot_ppc_dist(tree, group=group, backend=backend)
        az.plot_ppc_dist(tree["predictive_statistics"], var_names=["sd"], group=group, backend=backend)

    def test_plot_ppc_pit(self, tree: xr.DataTree, backend: str) -> None:
        """Of one element, since ArviZ's default test requires data with one dimension; and of the statistics."""
        az.plot_ppc_pit(tree, coords={"x_dim_0": 2}, backend=backend)
        az.plot_ppc_pit(tree["predictive_statistics"], var_names=["sd"], backend=backend)

    def test_plot_ppc_tstat(self, tree: xr.DataTree, backend: str) -> None:
        az.plot_ppc_tstat(tree, t_stat="median", backend=backend)
        az.plot_ppc_tstat(tree["predictive_statistics"], var_names=["max"], t_stat="mean", backend=backend)


def test_arviz_summarises_and_compares(truth: PPCA, tree: xr.DataTree) -> None:
    summary = az.summary(tree, var_names=["z"], coords={"datum": [0, 1]}, round_to="none")
    np.testing.assert_allclose(summary["mean"], tree["posterior"]["z"][0, :, :2].mean("draw").values.ravel())
    wrong = PPCA(truth.weight, truth.mean, 3 * truth.variance)
    other = to_datatree(wrong.programs(), truth.sample(40, seed=0), num_draws=400)
    table = az.compare({"wrong": to_elpd_data(other), "true": to_elpd_data(tree)}, round_to="none")
    assert list(table.index) == ["true", "wrong"]
    difference = elpd(other).pointwise - elpd(tree).pointwise
    assert table.loc["wrong", "elpd_diff"] == pytest.approx(difference.sum())
    assert table.loc["wrong", "dse"] == pytest.approx(40**0.5 * difference.std())


def test_labels_and_ids_of_a_data_set_travel() -> None:
    data = load_data("digits", binarize="dynamic")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder="mlp:hidden=[8]"))
    tree = to_datatree(vae, data.test, num_draws=3)
    for group in ("posterior", "predictive_statistics/observed_data", "posterior_predictive_summary"):
        np.testing.assert_array_equal(tree[group]["datum"], data.test.ids)
        np.testing.assert_array_equal(tree[group]["label"], data.test.labels)
    assert tree["posterior_predictive"]["x"].shape == (1, 3, 359, 1, 8, 8)
    assert "left_right" in tree["predictive_statistics/prior_predictive"]
    xr.testing.assert_equal(tree, to_datatree(vae, data.test, num_draws=3))
    assert not tree["posterior"].equals(to_datatree(vae, data.test, num_draws=3, seed=1)["posterior"])


def test_data_outside_the_support_are_refused() -> None:
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2))
    with pytest.raises(ValueError, match="likelihood 'bernoulli' requires"):
        to_datatree(vae, torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
        ({"prior_predictive": -1}, "prior_predictive is a number of data sets, 0 for none, got -1"),
        ({"statistics": ["modus"]}, "unknown statistic 'modus'; "),
        ({"statistics": ["left_right"]}, r"is of images .* shape \(5,\)"),
    ],
)
def test_bad_requests(truth: PPCA, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_datatree(truth.programs(), truth.sample(3, seed=0), **options)
    with pytest.raises(ValueError, match="has no sample_stats/log_weight"):
        to_elpd_data(xr.DataTree())


def test_a_model_that_draws_another_shape_is_told_so(truth: PPCA) -> None:
    model, guide = truth.programs()
    narrow, _ = PPCA(truth.weight[:4], truth.mean[:4], truth.variance).programs()

    def other(x: Any = None, *, size: Any = None) -> Any:
        return model(x) if size is None else narrow(size=size)

    with pytest.raises(ValueError, match=r"draws x of shape \(30, 3, 4\), the data require \(30, 3, 5\)"):
        to_datatree((other, guide), truth.sample(3, seed=0), num_draws=30)


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
    result = evaluate(pair, x, num_draws=400)
    assert len(result.activity) == 6
    tree = to_datatree(pair, x, num_draws=30)
    assert tree["posterior"]["b"].dims[-1] == "b_dim_0"
    assert tree["posterior"]["c"].shape == (1, 30, 5, 3)
    assert tree["posterior_predictive"]["x"].shape == (1, 30, 5, 1)
    c = torch.from_numpy(tree["posterior"]["c"].values)
    np.testing.assert_allclose(tree["log_prior"]["c"], dist.Normal(0.0, 1.0).log_prob(c).sum(-1), rtol=1e-6)


def test_data_that_do_not_depend_on_the_latents_are_drawn_anew_for_each_particle() -> None:
    def model(x: Any = None, *, size: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    tree = to_datatree((model, guide), torch.zeros(3, 2), num_draws=100)
    for group in ("posterior_predictive", "prior_predictive"):
        drawn = tree[group]["x"].values[0]
        assert (drawn.min(0) == 0).all()
        assert (drawn.max(0) == 1).all()
        assert (drawn[:, 0, 0] != drawn[:, 1, 0]).any()


_MNIST = """
import json, resource, time
from analysis import to_datatree
from analysis.predictive.checking import predictive_checks
from vae_pyro import FitConfig, VAE, VAEConfig, fit, load_data
from vae_pyro.models.presets import PRESETS

data = load_data("mnist", binarize="dynamic")
vae = VAE(VAEConfig(x_shape=data.x_shape, **PRESETS["mlp-400-20"].model))
vae = fit(vae, data.train, config=FitConfig(epochs=1), seed=0).vae
start, clock = time.process_time(), time.perf_counter()
tree = to_datatree(vae, data.test, num_draws=500, seed=0)
seconds, wall = time.process_time() - start, time.perf_counter() - clock
start = time.process_time()
checks = {kind: predictive_checks(tree, kind=kind) for kind in ("posterior", "held_out")}
print(json.dumps({
    "seconds": seconds, "wall": wall, "check_seconds": time.process_time() - start,
    "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "draws": tree["predictive_statistics/posterior_predictive"].sizes["draw"],
    "kept": tree["posterior_predictive"].sizes["draw"],
    "prior": tree["predictive_statistics/prior_predictive"].sizes["draw"],
    "p": {kind: check.p_family for kind, check in checks.items()},
    "told": {kind: str(check) for kind, check in checks.items()},
}))
"""


@pytest.mark.slow
@pytest.mark.mnist
def test_mnist_streams_in_bounded_memory() -> None:
    """10,000 images x 500 draws x 784 pixels are 15.7 GB of float32 numbers; the process stays below 4 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", _MNIST], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert (found["draws"], found["kept"], found["prior"]) == (500, 17, 127)
    assert found["gib"] < 4
    assert found["seconds"] < 240  # of processor time; about 90 s on one core of an AMD EPYC
