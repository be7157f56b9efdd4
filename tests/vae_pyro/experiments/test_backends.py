"""`run_experiment` gives the same bits from every backend."""

import os
from pathlib import Path

import pytest
import torch

from tests.vae_pyro.experiments.small_experiment import EAGER, SMALL, assert_same_bits, go, tensors
from vae_pyro import VAE, FitConfig, VAEConfig, fit
from vae_pyro.core import isolation
from vae_pyro.data.dataset import DataConfig
from vae_pyro.experiments.folder import Experiment, lock_file
from vae_pyro.runs.weights import weights

BOTH = {"objectives": ["elbo", "iwae:num_particles=3"], "seeds": [4], "assignments": EAGER}


TRACED = {**BOTH, "assignments": SMALL}


@pytest.fixture(scope="module")
def alone(source: str, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    made = go(tmp_path_factory.mktemp("alone") / "e", source, **BOTH)
    assert [made.status[trial.name] for trial in made.trials] == ["done", "done"], str(made)
    return made


@pytest.mark.slow
def test_a_local_ray_gives_the_same_bits(alone: Experiment, source: str, tmp_path: Path) -> None:
    assert_same_bits(alone, go(tmp_path / "e", source, **BOTH, backend="ray", num_workers=2))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_every_backend_gives_the_same_bits_of_traced_steps(backend: str, source: str, tmp_path: Path) -> None:
    here = go(tmp_path / "here", source, **TRACED)
    assert_same_bits(here, go(tmp_path / "there", source, **TRACED, backend=backend, num_workers=2))


@pytest.mark.slow
def test_a_dask_cluster_of_two_processes_gives_the_same_bits(alone: Experiment, source: str, tmp_path: Path) -> None:
    import distributed

    with (
        isolation.undisturbed(),  # a cluster leaves variables in the environment
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
    ):
        found = go(tmp_path / "e", source, **BOTH, backend="dask", address=cluster.scheduler_address)
    assert_same_bits(alone, found)
    pids = {lock_file(found.path, trial.name).read_text().split()[0] for trial in found.trials}
    assert str(os.getpid()) not in pids


def test_seeds_differ_and_the_split_does_not(source: str, tmp_path: Path) -> None:
    made = go(tmp_path / "e", source, seeds=2)
    first, second = tensors(made).values()
    assert any(not torch.equal(value, second[name]) for name, value in first.items())
    configs = [trial.folder.config() for trial in made.trials]
    assert configs[0]["data"] == configs[1]["data"]
    assert configs[0]["facts"]["fingerprint"] == configs[1]["facts"]["fingerprint"] == made.config.fingerprint
    assert [config["seed"] for config in configs] == [0, 1]
    assert all("seconds" in row for row in made.trials[0].folder.read_history())


def test_a_run_is_the_fit_with_its_seed(source: str, tmp_path: Path) -> None:
    made = go(tmp_path / "e", source, seeds=[3])
    data, variant = DataConfig(**made.config.data).load(), made.config.variants[0]
    alone = fit(
        VAE(VAEConfig(**variant["model"]), seed=3),
        data.train,
        validation=data.validation,
        config=FitConfig(**variant["fit"]),
        seed=3,
    )
    for name, value in weights(alone.vae).items():
        assert torch.equal(value, tensors(made)["elbo-s3"][name]), name
