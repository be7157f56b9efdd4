"""Runs measured where they were fitted, gathered and compared."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.density.elpd import elpd_of
from analysis.experiments.comparison.compare import compare_experiment, compare_variants
from analysis.experiments.comparison.runs import MeasuredRun
from analysis.experiments.held_out import HeldOut
from analysis.experiments.measurement import GAPS_FILE, _measure, gather, measure, measure_run, read_held_out
from tests.truths import normal_kl
from vae_pyro import VAE, Dataset, FitConfig, RunFolder, Split, VAEConfig, fit, load_data
from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import seeded
from vae_pyro.experiments.folder import Experiment, identity, read_experiment
from vae_pyro.experiments.running import run_experiment

FAST: list[tuple[list[str], Any]] = [
    (["fit", "epochs"], 3),
    (["fit", "compile"], False),
    (["model", "latent_dim"], 2),
    (["model", "encoder", "hidden"], [8]),
]
FINISH = partial(measure, num_draws=30, seed=4, limit=60)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    out = tmp_path_factory.mktemp("measurement") / "e"
    return run_experiment(
        out, "digits", objectives=["elbo", "iwae:num_particles=3"], seeds=2, assignments=FAST, finish=FINISH,
        backend="sequential",
    )  # fmt: skip


def test_every_run_is_measured_with_the_same_draws_on_the_same_data(experiment: Experiment) -> None:
    measured, histories = gather(experiment)
    assert [(one.objective, one.seed) for one in measured] == [
        ("elbo", 0), ("elbo", 1), ("iwae:num_particles=3", 0), ("iwae:num_particles=3", 1),
    ]  # fmt: skip
    assert len({one.held_out.fingerprint for one in measured}) == 1
    assert all(len(one.held_out) == 60 and one.held_out.num_draws == 30 and one.gaps is None for one in measured)
    assert {key: len(rows) for key, rows in histories.items()} == dict.fromkeys(histories, 3)
    assert set(histories) == {(one.label, one.seed) for one in measured}


def test_measuring_again_changes_no_byte_and_other_options_measure_anew(experiment: Experiment, tmp_path: Path) -> None:
    folder = experiment.trials[0].folder
    vae, data = folder.load_model(), folder.data_config().load()
    before = folder.held_out_file.read_bytes()
    stamp = folder.held_out_file.stat().st_mtime_ns
    measure(folder, vae, data, num_draws=30, seed=4, limit=60)
    assert folder.held_out_file.stat().st_mtime_ns == stamp
    measure(folder, vae, data, num_draws=30, seed=5, limit=60)
    assert folder.held_out_file.read_bytes() != before
    measure(folder, vae, data, num_draws=30, seed=4, limit=60)
    assert folder.held_out_file.read_bytes() == before


def test_experiments_record_what_measured_them_under_the_names_of_every_version() -> None:
    """An experiment that was done stays done where these functions have moved."""
    assert identity(FINISH) == "analysis.measurement.measure(limit=60, num_draws=30, seed=4)"
    assert identity(partial(measure_run, num_draws=500)) == "analysis.held_out.measure_run(num_draws=500)"


@pytest.mark.slow
def test_gaps_are_measured_once_and_are_parts_of_the_whole(experiment: Experiment) -> None:
    folder = experiment.trials[0].folder
    vae, data = folder.load_model(), folder.data_config().load()
    call = partial(measure, folder, vae, data, num_draws=30, seed=4, limit=60)
    call(num_gap_data=3)
    stored = json.loads((folder.path / GAPS_FILE).read_text())
    assert stored["made_of"]["num_gap_data"] == 3
    stamp = (folder.path / GAPS_FILE).stat().st_mtime_ns
    call(num_gap_data=3)
    assert (folder.path / GAPS_FILE).stat().st_mtime_ns == stamp
    for other in ({"limit": 50}, {"num_draws": 40}, {"seed": 5}):  # other data, or other draws of the same
        call(num_gap_data=3, **other)
        assert json.loads((folder.path / GAPS_FILE).read_text())["made_of"].items() >= other.items()
    call(num_gap_data=3)
    assert json.loads((folder.path / GAPS_FILE).read_text()) == stored
    gaps = next(one.gaps for one in gather(experiment)[0] if one.seed == 0 and one.objective == "elbo")
    assert gaps is not None
    assert gaps.amortization > -3 * gaps.amortization_se
    assert gaps.approximation_se > 0
    call(num_gap_data=0)
    assert not (folder.path / GAPS_FILE).exists()


def test_the_comparison_is_written_and_read_from_the_folder_alone(experiment: Experiment) -> None:
    comparison, files = compare_experiment(read_experiment(experiment.path), baseline="elbo")
    assert [file.name for file in files] == ["comparison.nc", "comparison.csv", "comparison.png", "comparison.html"]
    assert comparison.estimates.num_seeds == 2
    page = files[3].read_text()
    for word in ("digits", "iwae:num_particles=3", "3 epochs", "Versions"):
        assert word.split(" ")[-1] in page
    with files[1].open(newline="") as table:
        rows = list(csv.DictReader(table))
    run_rows = [row for row in rows if row["level"] == "run"]
    assert len(run_rows) == 4
    held_out = read_held_out(experiment.trials[0].folder)
    wanted = {row["seed"]: row for row in run_rows if row["variant"] == "elbo"}["0"]["log_px"]
    assert float(wanted) == pytest.approx(held_out.log_px.mean(), rel=1e-12)
    again, none = compare_experiment(experiment, write=False)
    assert none == []
    assert str(again) == str(comparison)


def test_an_experiment_without_a_finished_run_is_not_compared(experiment: Experiment, tmp_path: Path) -> None:
    waiting = Experiment(
        tmp_path, experiment.config, experiment.trials, dict.fromkeys(experiment.status, "waiting"), {}
    )
    with pytest.raises(ValueError, match="no run of .* is done"):
        compare_experiment(waiting)
    folder = RunFolder(tmp_path / "empty")
    with pytest.raises(RunError):
        read_held_out(folder)


WIDE = {"name": "mlp", "hidden": [16]}


def held_out_of(objective: str, seed: int, data: Dataset) -> HeldOut:
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, likelihood="gaussian", encoder=WIDE), seed=seed)
    config = FitConfig(objective=objective, epochs=4, batch_size=256, compile=False, optimizer="adam:lr=1e-2")
    fit(vae, data.train, config=config, seed=seed)
    result = elpd_of(vae, data.test, num_draws=50, seed=0)
    zero, codes = np.zeros(len(result)), np.zeros((len(result), 2))
    return HeldOut(
        log_px=result.pointwise, log_px_mcse=result.pointwise_mcse, elbo=result.elbo, elbo_mcse=zero, kl=zero,
        kl_mcse=zero, reconstruction=zero, pareto_k=result.pareto_k, rise=result.rise, smoothed=result.smoothed,
        upper=result.upper, activity=codes[0], activity_se=codes[0], codes=codes, code_kl=codes[0], ids=result.ids,
        num_draws=50, space=result.space, measure=result.measure, fingerprint=result.fingerprint, epochs=4, seconds=0.0,
    )  # fmt: skip


@pytest.mark.slow
def test_the_same_objective_with_other_seeds_does_not_differ_significantly_and_another_does() -> None:
    """Real fits: 100 experiments of 3 seeds against 3 others of the same objective, and 20 against one that is worse.

    A false alarm at 5 % comes more than 13 times in 100 once in 2,000 such tests. The other objective is found about
    every second time with so few seeds: fewer than 5 times in 20 once in 170 tests, and by chance once in 400.
    """
    data = load_data("digits")
    alarms = found = 0
    for number in range(100):
        seeds = range(6 * number, 6 * number + 6)
        held_out = {seed: held_out_of("elbo", seed, data) for seed in seeds}
        runs = [MeasuredRun("a", "elbo", {}, i, held_out[seeds[i]]) for i in range(3)]
        same = [MeasuredRun("b", "elbo", {"again": 1}, i, held_out[seeds[3 + i]]) for i in range(3)]
        (pair,) = compare_variants([*runs, *same]).pairs
        alarms += pair.significant
        if number < 20:
            worse = [MeasuredRun("c", "beta", {}, i, held_out_of("beta:beta=20", seeds[i], data)) for i in range(3)]
            (pair,) = compare_variants([*runs, *worse]).pairs
            found += pair.significant and pair.first == "a"
    print(f"{alarms} of 100 false alarms, {found} of 20 differences found")
    assert alarms <= 13
    assert found >= 5


STRUCTURES: dict[str, dict[str, Any]] = {
    "single": {"name": "single"},
    "bottom_up": {"name": "bottom_up", "latent_dims": [2]},
    "ladder": {"name": "ladder", "latent_dims": [2]},
    "m2": {"name": "m2", "num_classes": 2},
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_activity_of_a_guide_that_ignores_the_data_is_zero_in_every_structure(name: str, tmp_path: Path) -> None:
    """Within 5 standard errors, though the mean of 30 draws varies by 0.03, which would count as active. KL of single
    latents to N(0, 1) is given where q(z | x) is Gaussian and p(z) is N(0, I), and meets its closed form."""
    config = VAEConfig(x_shape=(6,), latent_dim=3, likelihood="gaussian", structure=STRUCTURES[name])
    vae = VAE(config, seed=0)
    with torch.no_grad():
        for parameter in vae.guide.parameters():
            parameter.zero_()
    with seeded(0):
        x = torch.randn(200, 6)
        y = torch.randint(0, 2, (200,)) if name == "m2" else None
    split = Split(x, y=y)
    found = _measure(RunFolder(tmp_path), vae, split, "", 30, 0)
    assert (found.activity <= 5 * found.activity_se + 1e-12).all()
    assert not found.active.any()
    codes, scale = vae.posterior_moments(x, num_draws=2, seed=0) if name == "single" else (torch.zeros(1, 3),) * 2
    if name == "single":
        np.testing.assert_allclose(found.code_kl, 3 * [normal_kl(codes, scale).mean() / 3], atol=1e-6)
        assert (found.activity_se == 0).all()
    else:
        assert np.isnan(found.code_kl).all()
