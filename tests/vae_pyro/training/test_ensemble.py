"""An ensemble of seeds: every member is the fit alone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vae_pyro import VAE, FitConfig, FitResult, NonFiniteLossError, RunFolder, VAEConfig, fit, load_data
from vae_pyro.core.files import RunError, read_tensors
from vae_pyro.data.dataset import Dataset
from vae_pyro.runs.weights import weights
from vae_pyro.training.ensemble import fit_ensemble

SEEDS = (3, 0, 7)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", dequantize=True)


def model(data: Dataset, seed: int, **options: Any) -> VAE:
    config = VAEConfig(
        x_shape=data.x_shape, latent_dim=3, likelihood="gaussian", encoder={"name": "mlp", "hidden": [12]}, **options
    )
    return VAE(config, seed=seed).double()


def config(**options: Any) -> FitConfig:
    return FitConfig(**{"epochs": 3, "batch_size": 100, "kl_warmup": 1, "schedule": "cosine", **options})


def ensemble(data: Dataset, seeds: tuple[int, ...] = SEEDS, **options: Any) -> list[Any]:
    vaes = [model(data, seed) for seed in seeds]
    return fit_ensemble(vaes, data.train, validation=data.validation, seeds=seeds, data=data, **options)


@pytest.mark.parametrize("objective", ["elbo", pytest.param("iwae:num_particles=3", marks=pytest.mark.slow)])
def test_a_member_is_the_fit_alone(data: Dataset, tmp_path: Path, objective: str) -> None:
    settings = config(objective=objective, checkpoint_seconds=0)
    results = ensemble(data, config=settings, out=[tmp_path / str(seed) for seed in SEEDS])
    for seed, result in zip(SEEDS, results, strict=True):
        assert isinstance(result, FitResult)
        alone = fit(
            model(data, seed), data.train, validation=data.validation, config=settings, seed=seed, data=data,
            out=tmp_path / f"alone-{seed}",
        )  # fmt: skip
        for (name, ours), theirs in zip(weights(result.vae).items(), weights(alone.vae).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9, msg=name)
        for row, expected in zip(result.history, alone.history, strict=True):
            assert {key: pytest.approx(value, rel=1e-8) for key, value in expected.items() if key != "seconds"} == {
                key: value for key, value in row.items() if key != "seconds"
            }
        here, there = (RunFolder(tmp_path / name) for name in (str(seed), f"alone-{seed}"))
        assert here.config()["fit"] == there.config()["fit"]
        ours_at, info = read_tensors(here.checkpoint_file, "checkpoint")
        theirs_at, expected_info = read_tensors(there.checkpoint_file, "checkpoint")
        assert set(ours_at) == set(theirs_at)
        assert torch.equal(ours_at["random/cpu"], theirs_at["random/cpu"])
        assert info["state"]["epoch"] == expected_info["state"]["epoch"] == 3
        for name, tensor in theirs_at.items():
            if name.startswith("optimizer"):
                torch.testing.assert_close(ours_at[name], tensor, rtol=1e-6, atol=1e-12, msg=name)
    first, second, *_ = (next(iter(result.vae.parameters())) for result in results)
    assert not torch.allclose(first, second)
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


@pytest.mark.slow
def test_an_interrupted_ensemble_goes_on_together_or_one_by_one(data: Dataset, tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
import os, signal
from pathlib import Path
from vae_pyro.training import progress
from tests.vae_pyro.training.test_ensemble import config, ensemble, load_data
steps = 0
class Killer(progress.FitProgress):
    def step(self, *args):
        global steps
        steps += 1
        if steps == 20:  # in the second epoch, between two of its 13 steps
            os.kill(os.getpid(), signal.SIGTERM)
from vae_pyro.training import ensemble as ensembles
ensembles.FitProgress = Killer
out = Path({str(tmp_path)!r})
ensemble(load_data("digits", dequantize=True), config=config(), out=[out / str(seed) for seed in (3, 0, 7)])
"""
    stopped = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert "FitInterruptedError: stopped by SIGTERM" in stopped.stderr, stopped.stderr
    _, info = read_tensors(RunFolder(tmp_path / "3").checkpoint_file, "checkpoint")
    assert (info["state"]["epoch"], info["state"]["batch"]) == (1, 7)
    whole = ensemble(data, config=config())
    alone = fit(
        model(data, 7), data.train, validation=data.validation, config=config(), seed=7, data=data,
        out=tmp_path / "7", resume=True,
    )  # fmt: skip
    for ours, theirs in zip(weights(alone.vae).values(), weights(whole[2].vae).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    with pytest.raises(RunError, match="stand at different steps"):
        ensemble(data, config=config(), out=[tmp_path / str(seed) for seed in SEEDS], resume=True)
    level = ensemble(data, (3, 0), config=config(), out=[tmp_path / "3", tmp_path / "0"], resume=True)
    for result, expected in zip(level, whole, strict=False):
        for ours, theirs in zip(weights(result.vae).values(), weights(expected.vae).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_a_member_that_diverges_is_left_behind(data: Dataset) -> None:
    vaes = [model(data, seed) for seed in (0, 1)]
    with torch.no_grad():
        next(iter(vaes[0].parameters())).fill_(torch.nan)
    broken, sound = fit_ensemble(vaes, data.train, validation=data.validation, seeds=(0, 1), config=config())
    assert isinstance(broken, NonFiniteLossError)
    assert "weights diverged" in str(broken)
    alone = fit(model(data, 1), data.train, validation=data.validation, config=config(), seed=1)
    assert isinstance(sound, FitResult)
    assert sound.history[-1]["elbo"] == pytest.approx(alone.history[-1]["elbo"], rel=1e-8)
    assert sound.epochs == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (0, 0)}, "each of its different seeds"),
        ({"seeds": (0,)}, "each of its different seeds"),
        ({"config": FitConfig(patience=3)}, "patience=3 may stop one"),
        ({"config": FitConfig(compile=False)}, "compile=False"),
        ({"config": FitConfig(devices=2)}, "fitted by one process"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_what_is_no_ensemble_is_refused(data: Dataset, options: dict[str, Any], message: str) -> None:
    vaes = [model(data, seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=message):
        fit_ensemble(vaes, data.train, **{"seeds": (0, 1), "config": config(), **options})


def test_members_of_several_configurations_are_refused(data: Dataset) -> None:
    with pytest.raises(ValueError, match="of one configuration"):
        fit_ensemble([model(data, 0), model(data, 1).float()], data.train, seeds=(0, 1), config=config())


@pytest.mark.cuda
def test_a_member_on_a_gpu_is_the_fit_alone(data: Dataset) -> None:
    settings = config(device="cuda")
    for seed, result in zip(SEEDS, ensemble(data, config=settings), strict=True):
        alone = fit(model(data, seed), data.train, validation=data.validation, config=settings, seed=seed)
        for ours, theirs in zip(weights(result.vae).values(), weights(alone.vae).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
