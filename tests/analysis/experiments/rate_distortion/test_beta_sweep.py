"""The curve of an experiment over beta."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.experiments.measurement import measure
from analysis.experiments.rate_distortion.beta_sweep import beta_of, rate_distortion_of
from analysis.experiments.rate_distortion.estimate import rate_distortion
from vae_pyro.experiments.running import run_experiment


@pytest.mark.parametrize(
    ("objective", "beta"), [("elbo", 1.0), ("beta:beta=4", 4.0), ("beta", 4.0), ("iwae:num_particles=5", None)]
)
def test_the_beta_of_an_objective(objective: str, beta: float | None) -> None:
    assert beta_of(objective) == beta


def test_an_experiment_over_beta_is_the_curve_of_its_runs(tmp_path: Path) -> None:
    source = tmp_path / "x.npy"
    np.save(source, np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32))
    experiment = run_experiment(
        tmp_path / "e",
        str(source),
        objectives=["beta:beta=4", "elbo", "iwae:num_particles=2"],
        seeds=1,
        finish=partial(measure, num_draws=30),
        assignments=[
            (["model", "encoder", "hidden"], [8]),
            (["model", "latent_dim"], 2),
            (["model", "likelihood"], "gaussian"),
            (["fit", "epochs"], 2),
            (["fit", "compile"], False),
        ],
        backend="sequential",
    )
    found = rate_distortion_of(tmp_path / "e")
    assert [point.beta for point in found.points] == [1.0, 4.0, None]
    assert found.points[0].label.startswith("elbo")
    four, one, _ = (trial.folder for trial in experiment.trials)
    data = one.data_config().load()
    again = rate_distortion(
        [(1.0, one.load_model()), (4.0, four.load_model())],
        data.split("test"),
        num_draws=30,
        seed=0,
    )
    for ours, theirs in zip(found.points, again.points, strict=False):
        np.testing.assert_allclose(ours.rate, theirs.rate)
        np.testing.assert_allclose(ours.distortion, theirs.distortion)
        assert (ours.distortion_mcse >= theirs.distortion_mcse).all()


@pytest.mark.parametrize(
    ("how", "beta"),
    [
        ({"kl_warmup": 2}, None),  # the last step is one short of the weight
        ({"kl_warmup": 1, "kl_cycle": 2}, None),
        ({"kl_warmup": 1}, 4.0),
    ],
)
def test_a_run_has_the_beta_of_its_objective_where_its_kl_came_to_it(
    tmp_path: Path, how: dict[str, Any], beta: float | None
) -> None:
    source = tmp_path / "x.npy"
    np.save(source, np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    run_experiment(
        tmp_path / "e",
        str(source),
        objectives=["beta:beta=4"],
        seeds=1,
        finish=partial(measure, num_draws=30),
        assignments=[
            (["model", "encoder", "hidden"], [4]),
            (["model", "latent_dim"], 1),
            (["model", "likelihood"], "gaussian"),
            (["fit", "epochs"], 2),
            (["fit", "compile"], False),
            *((["fit", key], value) for key, value in how.items()),
        ],
        backend="sequential",
    )
    assert [point.beta for point in rate_distortion_of(tmp_path / "e").points] == [beta]


def test_an_experiment_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an experiment"):
        rate_distortion_of(tmp_path)
