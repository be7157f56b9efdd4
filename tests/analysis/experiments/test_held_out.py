"""What a run predicts is kept beside its weights: the figures of the one-by-one functions, from one set of draws."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.density.elpd import elpd_of
from analysis.experiments import measurement
from analysis.experiments.held_out import HeldOut
from analysis.experiments.measurement import measure_run, read_held_out
from tests.truths import PPCA, maximum_likelihood
from vae_pyro import VAE, Dataset, FitConfig, Split, VAEConfig, evaluate, fit, load_data
from vae_pyro.core.files import RunError
from vae_pyro.data.dataset import DataConfig
from vae_pyro.data.readers import open_source
from vae_pyro.data.streams.split import StreamedSplit
from vae_pyro.runs.folder import RunFolder

DRAWS = 60


def same(one: HeldOut, two: HeldOut) -> bool:
    """Equal to the last bit."""
    pairs = [(getattr(one, f.name), getattr(two, f.name)) for f in fields(HeldOut)]
    return all(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f") for a, b in pairs)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", binarize="dynamic")


@pytest.fixture(scope="module")
def fitted(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, and its folder."""
    out = tmp_path_factory.mktemp("runs") / "run"
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=4, encoder="mlp:hidden=[16]"))
    fit(vae, data.train, config=FitConfig(epochs=2), seed=3, out=out)
    return out


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(fitted, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_estimates_are_those_of_the_functions_one_by_one(run: RunFolder, data: Dataset) -> None:
    vae, test = run.load_model(), data.split("test")
    made = measure_run(run, vae, data, num_draws=DRAWS, seed=5)
    density, averages = elpd_of(vae, test, num_draws=DRAWS, seed=5), evaluate(vae, test, num_draws=DRAWS, seed=5)
    for name in ("pointwise", "pointwise_mcse", "elbo", "upper", "smoothed", "rise", "pareto_k"):
        np.testing.assert_array_equal(getattr(made.elpd, name), getattr(density, name))
    assert (made.space, made.measure, made.fingerprint) == (density.space, density.measure, density.fingerprint)
    for ours, theirs in (
        ("kl", averages.kl),
        ("kl_mcse", averages.kl_se),
        ("elbo_mcse", averages.elbo_se),
        ("reconstruction", averages.reconstruction),
    ):
        np.testing.assert_allclose(getattr(made, ours), theirs, rtol=1e-5, atol=1e-6)  # there in single precision
    np.testing.assert_allclose(made.elbo, made.reconstruction - made.kl, rtol=1e-12)
    x = test.batch(slice(None))[0]
    loc, scale = (moment.double().numpy() for moment in vae.posterior_moments(x))
    # The decoder's products round by the size of a block.
    np.testing.assert_allclose(made.codes, loc, atol=1e-5)
    np.testing.assert_allclose(made.activity, loc.var(0, ddof=1), rtol=1e-4)
    assert (made.activity_se == 0).all()
    closed = 0.5 * (loc**2 + scale**2 - 1 - 2 * np.log(scale))
    np.testing.assert_allclose(made.code_kl, closed.mean(0), rtol=1e-4)
    # The sum over latents is the KL that the draws estimate: within 5 errors, wrong once in a million seeds.
    error = np.sqrt((made.kl_mcse**2).sum()) / len(made)
    assert abs(made.kl.mean() - made.code_kl.sum()) < 5 * error
    assert made.active.sum() == averages.active_units
    assert made.share_bad == density.num_bad / len(density)
    assert made.epochs == 2
    assert made.seconds == sum(row["seconds"] for row in run.read_history())
    np.testing.assert_array_equal(made.ids, test.ids.numpy())


def test_the_file_gives_the_same_bits_and_is_not_made_again(
    run: RunFolder, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = run.load_model()
    made = measure_run(run, vae, data, num_draws=DRAWS, limit=50)
    assert same(made, read_held_out(run))
    first = (run.path / "held_out.nc").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(measurement, "weigh", lambda *_, **__: pytest.fail("measured again"))
        assert same(made, measure_run(run, vae, data, num_draws=DRAWS, limit=50))
    (run.path / "held_out.nc").unlink()
    assert same(made, measure_run(run, run.load_model(), data, num_draws=DRAWS, limit=50))
    assert (run.path / "held_out.nc").read_bytes() == first
    assert not list(run.path.glob(".held*"))


@pytest.mark.parametrize(
    "change", [{"num_draws": DRAWS + 1}, {"seed": 1}, {"limit": 49}, {"split": "validation"}, {"split": "train"}]
)
def test_what_it_was_made_of_decides_whether_it_is_current(
    run: RunFolder, data: Dataset, change: dict[str, Any]
) -> None:
    vae = run.load_model()
    asked: dict[str, Any] = {"num_draws": DRAWS, "limit": 50}
    made = measure_run(run, vae, data, **asked)
    other = measure_run(run, vae, data, **{**asked, **change})
    assert not same(made, other)
    assert same(other, read_held_out(run))
    assert same(made, measure_run(run, vae, data, **asked))


def test_other_weights_and_other_values_are_measured_anew(run: RunFolder, data: Dataset) -> None:
    vae = run.load_model()
    made = measure_run(run, vae, data, num_draws=DRAWS, limit=50)
    values = data.test.values.clone()
    values[3, 0, 4, 4] = 1 - values[3, 0, 4, 4]
    flipped = replace(data, test=replace(data.test, values=values))
    other = measure_run(run, vae, flipped, num_draws=DRAWS, limit=50)
    assert other.fingerprint != made.fingerprint
    assert np.flatnonzero(made.log_px != other.log_px).tolist() == [3]
    with torch.no_grad():
        next(vae.parameters()).add_(0.1)
    with pytest.raises(ValueError, match=r"the VAE is not the one in '.*model.safetensors': .* differ"):
        measure_run(run, vae, data, num_draws=DRAWS, limit=50)
    run.save_model(vae)
    assert not np.array_equal(measure_run(run, vae, data, num_draws=DRAWS, limit=50).log_px, made.log_px)


def test_a_damaged_file_is_refused_and_made_again(run: RunFolder, data: Dataset) -> None:
    vae, file = run.load_model(), run.path / "held_out.nc"
    with pytest.raises(RunError, match=r"no held_out.nc in .*measure_run"):
        read_held_out(run)
    made = measure_run(run, vae, data, num_draws=DRAWS, limit=50)
    whole = file.read_bytes()
    at = whole.index(made.log_px.tobytes()[:32])
    damages = {
        "truncated or not a netCDF": [whole[: len(whole) // 2], whole[:-1], b"", b"not HDF5 at all"],
        "its checksum does not match": [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]],
    }
    for message, contents in damages.items():
        for content in contents:
            file.write_bytes(content)
            with pytest.raises(RunError, match=message):
                read_held_out(run)
            assert same(measure_run(run, vae, data, num_draws=DRAWS, limit=50), made)
            assert file.read_bytes() == whole
    file.write_bytes(bytes(xr.Dataset({"a": ("b", [1.0])}).to_netcdf(engine="h5netcdf")))
    with pytest.raises(RunError, match="is foreign: format None"):
        read_held_out(run)


def test_what_cannot_be_measured_is_refused_and_nothing_is_written(run: RunFolder, data: Dataset) -> None:
    vae = run.load_model()
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"limit": 0}, "at least 1, got 0"),
        ({"split": "tests"}, "unknown split 'tests'"),
        ({"num_draws": 24, "limit": 20}, "25"),
    )
    for asked, message in cases:
        with pytest.raises(ValueError, match=message):
            measure_run(run, vae, data, **{"num_draws": DRAWS, **asked})
    broken = run.load_model()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(torch.nan)
    run.save_model(broken)
    with pytest.raises(ValueError, match="NaN"):
        measure_run(run, broken, data, num_draws=DRAWS, limit=20)
    run.model_file.unlink()
    with pytest.raises(RunError, match="has no finished weights"):
        measure_run(run, vae, data, num_draws=DRAWS, limit=20)
    assert not list(run.path.glob("*held_out*"))


@pytest.mark.parametrize(
    ("posterior", "prior", "closed"),
    [("full_rank", "normal", True), ("flow", "normal", False), ("mean_field", "mixture", False)],
)
def test_other_posteriors_and_priors(data: Dataset, tmp_path: Path, posterior: str, prior: str, closed: bool) -> None:
    config = VAEConfig(x_shape=data.x_shape, latent_dim=3, encoder="mlp:hidden=[8]", posterior=posterior, prior=prior)
    vae, run = VAE(config), RunFolder(tmp_path)
    run.save_model(vae)
    made = measure_run(run, vae, data, num_draws=DRAWS, limit=40)
    assert np.isfinite(made.code_kl).all() if closed else np.isnan(made.code_kl).all()
    assert (made.activity_se > 0).all() == (posterior == "flow")
    assert made.codes.shape == (40, 3)
    assert (made.epochs, np.isnan(made.seconds)) == (0, True)  # weights alone: no history
    assert same(made, read_held_out(run))


def test_streamed_data_give_the_same_bits(run: RunFolder, data: Dataset, tmp_path: Path) -> None:
    x = data.test.values[:80].float()
    np.save(tmp_path / "x.npy", x.numpy())
    streamed = StreamedSplit(open_source(tmp_path / "x.npy"))
    vae = run.load_model()
    made = measure_run(run, vae, replace(data, test=streamed), num_draws=DRAWS)
    (run.path / "held_out.nc").unlink()
    assert same(made, measure_run(run, vae, replace(data, test=Split(x)), num_draws=DRAWS))


def linear_vae(truth: PPCA) -> VAE:
    """The VAE that is a pPCA, and whose guide is its posterior, in float64."""
    d, q = truth.weight.shape
    vae = VAE(
        VAEConfig(
            x_shape=(d,),
            latent_dim=q,
            encoder="mlp:hidden=[]",
            decoder="mlp:hidden=[]",
            likelihood=f"gaussian:scale={truth.variance**0.5!r}",
        )
    ).double()
    names = dict(vae.named_parameters())
    loc, covariance = truth.posterior(torch.eye(d, dtype=torch.float64) + truth.mean)
    with torch.no_grad():
        heads = [name for name in names if name.startswith("guide") and name.endswith("linear.weight")]
        bodies = [name for name in names if name.startswith("model.decoder")]
        assert (len(heads), len(bodies)) == (1, 2), sorted(names)
        names[heads[0]].copy_(torch.cat([loc.T, torch.zeros_like(loc.T)]))
        bias = torch.cat([-(loc.T @ truth.mean), covariance.diagonal().sqrt().log()])
        names[heads[0].replace("weight", "bias")].copy_(bias)
        for name in bodies:
            names[name].copy_(truth.weight if name.endswith("weight") else truth.mean)
    return vae


def test_an_exact_guide_meets_every_closed_form(tmp_path: Path) -> None:
    """Linear VAE at the optimum of pPCA: ELBO = log p(x) to rounding, and KL and activity are closed."""
    x = torch.randn(400, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.8, 0.7, 0.6], dtype=torch.float64)) + 1.5
    truth = maximum_likelihood(x, 2)
    vae, run = linear_vae(truth), RunFolder(tmp_path)
    run.save_model(vae)
    data = Dataset(Split(x), Split(x[:5]), Split(x[:100]), DataConfig(source="none"), {})
    made = measure_run(run, vae, data, num_draws=50)
    exact = truth.log_evidence(x[:100]).numpy()
    np.testing.assert_allclose(made.log_px, exact, rtol=1e-9)
    np.testing.assert_allclose(made.elbo, exact, rtol=1e-9)
    assert made.share_bad == 0
    mean, covariance = truth.posterior(x[:100])
    np.testing.assert_allclose(made.codes, mean.numpy(), atol=1e-9)
    np.testing.assert_allclose(made.activity, mean.numpy().var(0, ddof=1), rtol=1e-9)
    variance = covariance.diagonal()
    kl = 0.5 * (mean**2 + variance - 1 - variance.log()).mean(0)
    np.testing.assert_allclose(made.code_kl, kl.numpy(), rtol=1e-9)
