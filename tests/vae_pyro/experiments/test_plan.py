"""The plan of an experiment: its variants, names and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vae_pyro.experiments.small_experiment import EAGER, go
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.experiments.folder import trials_of
from vae_pyro.experiments.plan import parse_grid, plan_experiment


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objectives": ["elbow"]}, "unknown objective 'elbow'; did you mean 'elbo'"),
        ({"objectives": []}, "at least one objective and one seed"),
        ({"seeds": 0}, "at least one objective and one seed"),
        ({"seeds": [1, 1]}, r"different numbers of at least 0, got 1 in \[1, 1\]"),
        ({"seeds": [-1]}, "different numbers of at least 0, got -1"),
        ({"objectives": ["elbo", "elbo:num_particles=1"]}, "'elbo' and 'elbo' are the same variant"),
        ({"grid": {"lr": [1]}}, "unknown key 'lr'"),
        ({"grid": {"optimizer.lr": [1e-3, 0.001]}}, "'elbo optimizer.lr=0.001' and .* are the same variant"),
        ({"grid": {"latent_dim": []}}, "grid key 'latent_dim' has no values"),
        ({"grid": {"latent_dim": [2, 0]}}, "latent_dim=0: .*greater than 0"),
        ({"grid": {"binarize": ["none", "dynamic"]}}, "grid key 'binarize' changes the data"),
        ({"grid": {"data.test_fraction": [0.1]}}, "grid key 'data.test_fraction' changes the data"),
        ({"grid": {"seed": [1]}}, "grid key 'seed' must be passed as seeds or objectives"),
        ({"grid": {"objective.num_particles": [1]}}, "grid key 'objective.num_particles' must be passed as"),
        ({"grid": {"device": ["cpu"]}}, "grid key 'device' does not change what is fitted"),
        (
            {"assignments": [(["seed"], 3)]},
            "seed = 3 sets what varies in an experiment; pass it as one of seeds or objectives",
        ),
        ({"assignments": [(["fit", "objective"], "stl")]}, "fit.objective = 'stl' sets what varies in an experiment"),
        (
            {"objectives": ["elbo", "dip"], "assignments": [*EAGER, (["model", "posterior"], "flow")]},
            "'dip:.*' cannot be fitted: objective 'dip' requires",
        ),
        ({"assignments": [*EAGER, (["model", "likelihood"], "poisson")]}, "'elbo' cannot be fitted: .*poisson"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(
    options: dict[str, Any], said: str, source: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        go(tmp_path / "e", source, **options)
    assert not (tmp_path / "e").exists()


def test_probabilities_and_densities_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    np.save(path, np.random.default_rng(0).poisson(2.0, size=(60, 4)))
    grid = {"likelihood": ["poisson", "negative_binomial"]}
    plan_experiment(str(path), objectives=["elbo"], seeds=1, grid=grid, assignments=EAGER)
    kept = [*EAGER, (["data", "scale"], "none")]
    for names in (["poisson", "gaussian"], ["gaussian", "poisson"]):
        with pytest.raises(ValueError, match="which cannot be compared; run an experiment for each") as refused:
            plan_experiment(str(path), objectives=["elbo"], seeds=1, grid={"likelihood": names}, assignments=kept)
        assert f"'elbo likelihood={names[1]}'" in str(refused.value)
    with pytest.raises(
        ValueError, match="likelihood=poisson changes the observation of the data .data.scale was 'auto'"
    ):
        plan_experiment(
            str(path), objectives=["elbo"], seeds=1, grid={"likelihood": ["gaussian", "poisson"]}, assignments=EAGER
        )


def test_the_data_are_read_once_for_all_points(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[DataConfig] = []
    load = DataConfig.load

    def count(config: DataConfig) -> Dataset:
        read.append(config)
        return load(config)

    monkeypatch.setattr(DataConfig, "load", count)
    grid = {"latent_dim": [1, 2], "batch_size": [10, 20]}
    assert len(plan_experiment(source, objectives=["elbo", "stl"], seeds=2, grid=grid, assignments=EAGER).variants) == 8
    assert [config.source for config in read] == [source]


def test_names_are_safe_short_and_of_their_own(source: str, tmp_path: Path) -> None:
    grid = {"encoder.hidden": [[8], [8, 8]], "encoder.activation": ["tanh"], "optimizer": ["adam:lr=1e-2,eps=1e-3"]}
    config = plan_experiment(
        source,
        objectives=["elbo", "iwae:num_particles=7", "beta:beta=0.5", "elbo:num_particles=2"],
        seeds=2,
        grid=grid,
        assignments=EAGER,
    )
    names = [trial.name for trial in trials_of(tmp_path, config)]
    assert len(set(names)) == 16
    assert all(name.replace("=", "").replace("-", "").replace(".", "").replace("_", "").isalnum() for name in names)
    assert max(map(len, names)) < 80
    assert names[2].startswith("iwae-k7-encoder.hidden=_8_-encoder.activation=tanh-")
    assert [variant["label"] for variant in config.variants[:4]] == [
        f"{objective} encoder.hidden=[8] encoder.activation=tanh optimizer=adam:lr=1e-2,eps=1e-3"
        for objective in ("elbo", "iwae:num_particles=7", "beta:beta=0.5", "elbo:num_particles=2")
    ]
    assert config.objectives == ("elbo", "iwae:num_particles=7", "beta:beta=0.5", "elbo:num_particles=2")
    assert "encoder" not in config.model
    assert config.model["latent_dim"] == 2
    assert "objective" not in config.fit
    assert config.fit["checkpoint_seconds"] == 0


def test_parse_grid() -> None:
    assert parse_grid("latent_dim=2,8") == ("latent_dim", [2, 8])
    assert parse_grid("encoder.hidden=[8],[16, 8]") == ("encoder.hidden", [[8], [16, 8]])
    assert parse_grid("prior=normal,vamp") == ("prior", ["normal", "vamp"])
    for text in ("latent_dim", "latent_dim=", "=3", "latent_dim=1,,2"):
        with pytest.raises(ValueError, match="--grid must have the form key=value,value, got"):
            parse_grid(text)
