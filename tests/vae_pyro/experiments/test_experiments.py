"""`run_experiment`: the same bits from every backend, crashes that cost at most an epoch, plans, and refusals."""

import ast
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.processes import alive, wait_for
from vae_pyro import VAE, FitConfig, RunError, RunFolder, VAEConfig, fit
from vae_pyro.core import isolation
from vae_pyro.core.files import read_json, read_tensors
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.experiments.config import ExperimentConfig, Variant
from vae_pyro.experiments.folder import Experiment, Status, Trial, lock_file, read_experiment, trials_of
from vae_pyro.experiments.plan import parse_grid, plan_experiment
from vae_pyro.experiments.progress import ExperimentProgress
from vae_pyro.experiments.running import ExperimentInterruptedError, run_experiment
from vae_pyro.parallel.locks import is_held, locked
from vae_pyro.runs.folder import weights

SMALL: list[tuple[list[str], Any]] = [
    (["model", "encoder", "hidden"], [8]),
    (["model", "latent_dim"], 2),
    (["fit", "epochs"], 3),
    (["fit", "batch_size"], 20),
]
EAGER = [*SMALL, (["fit", "compile"], False)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32))
    return str(path)


def go(out: Path, source: str, **options: Any) -> Experiment:
    given = {"objectives": ["elbo"], "seeds": 1, "assignments": EAGER, "backend": "sequential", **options}
    return run_experiment(out, source, **given)


def tensors(experiment: Experiment) -> dict[str, dict[str, torch.Tensor]]:
    read = {trial.name: read_tensors(trial.folder.model_file, "model")[0] for trial in experiment.trials}
    return {name: {key: value.clone() for key, value in found.items()} for name, found in read.items()}


def assert_same_bits(first: Experiment, second: Experiment) -> None:
    expected = tensors(first)
    for name, found in tensors(second).items():
        assert found.keys() == expected[name].keys()
        for key, value in found.items():
            assert torch.equal(value, expected[name][key]), (name, key)


def note_visit(folder: RunFolder, vae: VAE, data: Dataset, *, log: Path, figure: int = 1) -> None:
    """What `analysis` leaves, in small: a file made from the weights, and here a trace of every call."""
    with log.open("a") as file:
        file.write(folder.path.name + "\n")
    total = sum(float(value.double().sum()) for value in vae.state_dict().values())
    (folder.path / "measured.json").write_text(json.dumps({"total": total * figure, "n": len(data.test)}))


def fail_until(folder: RunFolder, vae: VAE, data: Dataset, *, marker: Path, name: str) -> None:
    if folder.path.name == name and not marker.exists():
        raise OSError("the disk\nis full")


def interrupt(folder: RunFolder, vae: VAE, data: Dataset) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


# --- the same numbers everywhere --------------------------------------------------------------------------------------

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


# --- crashes ----------------------------------------------------------------------------------------------------------

LONG = [*SMALL[:2], (["fit", "epochs"], 20), (["fit", "batch_size"], 2), (["fit", "compile"], False)]


@pytest.fixture(scope="module")
def undisturbed(source: str, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return go(tmp_path_factory.mktemp("undisturbed") / "e", source, assignments=LONG, seeds=2)


WHOLE = """
import sys
from vae_pyro.experiments.running import run_experiment
from tests.vae_pyro.experiments.test_experiments import LONG

if __name__ == "__main__":
    run_experiment(sys.argv[1], sys.argv[2], objectives=["elbo"], seeds=2, assignments=LONG, num_workers=2)
"""


def test_kill_a_worker_then_all_and_continue_to_the_same_bits(
    undisturbed: Experiment, source: str, tmp_path: Path
) -> None:
    path = tmp_path / "e"
    folders = [RunFolder(path / "runs" / f"elbo-s{seed}") for seed in range(2)]

    def rows_of(folder: RunFolder) -> list[dict[str, float]]:
        return folder.read_history() if folder.history_file.exists() else []

    def pid_of(folder: RunFolder) -> int:
        return int(lock_file(path, folder.path.name).read_text().split()[0])

    def beyond(epochs: list[int]) -> RunFolder | None:
        return next((one for one, past in zip(folders, epochs, strict=True) if len(rows_of(one)) > past), None)

    (tmp_path / "script.py").write_text(WHOLE)
    whole = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(path), source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        struck = wait_for(lambda: beyond([1, 1]))
        first = pid_of(struck)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not alive(first) and not is_held(lock_file(path, struck.path.name)))
        wait_for(lambda: "running" not in read_experiment(path).status.values())  # with loky one takes the others along
        kept = [rows_of(folder) for folder in folders]
        assert read_experiment(path).status[struck.path.name] == "half-finished", kept
        going = wait_for(lambda: beyond([len(rows) for rows in kept]))
        second = pid_of(going)
        os.kill(whole.pid, signal.SIGKILL)
        os.kill(second, signal.SIGKILL)
        assert first != second
    finally:
        whole.kill()
        whole.wait()
    wait_for(lambda: "running" not in read_experiment(path).status.values())  # the other worker misses its parent
    before = [rows_of(folder) for folder in folders]
    assert read_experiment(path).status[going.path.name] == "half-finished", before
    found = go(path, source, assignments=LONG, seeds=2)
    assert set(found.status.values()) == {"done"}, str(found)
    assert_same_bits(undisturbed, found)
    for folder, one, other in zip(folders, kept, before, strict=True):
        rows = folder.read_history()
        assert rows[: len(one)] == one, "seconds and all: these epochs were not fitted again"
        assert rows[: len(other)] == other
        assert len(one) <= len(other) <= len(rows) == 20
    assert len(rows_of(going)) > len(before[folders.index(going)]) > len(kept[folders.index(going)])


def test_a_signal_ends_it_and_the_next_call_continues(source: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentInterruptedError, match="SIGTERM; the same call again continues") as stopped:
        go(tmp_path / "e", source, finish=interrupt)
    assert stopped.value.signum == signal.SIGTERM
    assert stopped.value.out == tmp_path / "e"
    assert read_experiment(tmp_path / "e").status == {"elbo-s0": "half-finished"}
    assert go(tmp_path / "e", source).status == {"elbo-s0": "done"}


@pytest.mark.parametrize(
    "damage", ["nothing but a state folder", "a checkpoint cut off", "a model cut off", "a config"]
)
def test_what_a_crash_may_leave_is_no_obstacle(damage: str, source: str, tmp_path: Path) -> None:
    reference = go(tmp_path / "e", source)
    bits = tensors(reference)
    folder = reference.trials[0].folder
    if damage == "nothing but a state folder":
        for file in [*folder.path.glob("*"), *folder.path.glob("state/*")]:
            if file.is_file():
                file.unlink()
    elif damage == "a checkpoint cut off":
        folder.model_file.unlink()
        folder.checkpoint_file.write_bytes(folder.checkpoint_file.read_bytes()[:-9])
    elif damage == "a model cut off":
        folder.model_file.write_bytes(folder.model_file.read_bytes()[:-9])
    else:
        folder.model_file.unlink()
        folder.config_file.write_bytes(folder.config_file.read_bytes()[:-9])
    assert read_experiment(tmp_path / "e").status["elbo-s0"] != "done"
    found = go(tmp_path / "e", source)
    assert found.status == {"elbo-s0": "done"}, str(found)
    assert all(torch.equal(value, bits["elbo-s0"][name]) for name, value in tensors(found)["elbo-s0"].items())


# --- done, broken, again ----------------------------------------------------------------------------------------------


def test_done_runs_are_kept_until_what_finish_left_is_gone_or_other(source: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    finish = partial(note_visit, log=log)
    made = go(tmp_path / "e", source, seeds=2, finish=finish)
    assert log.read_text().split() == ["elbo-s0", "elbo-s1"]
    stamps = [trial.folder.model_file.stat().st_mtime_ns for trial in made.trials]
    go(tmp_path / "e", source, seeds=2, finish=finish)
    assert len(log.read_text().split()) == 2
    (made.trials[1].folder.path / "measured.json").unlink()
    assert read_experiment(tmp_path / "e").status == {"elbo-s0": "done", "elbo-s1": "half-finished"}
    go(tmp_path / "e", source, seeds=2, finish=finish)
    assert log.read_text().split()[2:] == ["elbo-s1"]
    go(tmp_path / "e", source, seeds=2, finish=partial(note_visit, log=log, figure=2))
    assert log.read_text().split()[3:] == ["elbo-s0", "elbo-s1"]
    assert [trial.folder.model_file.stat().st_mtime_ns for trial in made.trials] == stamps, "nothing was fitted again"


def test_a_broken_run_is_reported_and_tried_again(source: str, tmp_path: Path) -> None:
    finish = partial(fail_until, marker=tmp_path / "repaired", name="elbo-s1")
    found = go(tmp_path / "e", source, seeds=3, finish=finish)
    assert found.status == {"elbo-s0": "done", "elbo-s1": "broken", "elbo-s2": "done"}
    assert [trial.name for trial in found.having("broken")] == ["elbo-s1"]
    assert found.errors["elbo-s1"].startswith("OSError: the disk\nis full (test_experiments.py, line ")
    assert "2 done, 1 broken\nelbo-s1: OSError: the disk" in str(found)
    assert "in fail_until" in read_json(tmp_path / "e" / "errors" / "elbo-s1.json")["traceback"]
    assert read_experiment(tmp_path / "e").status == found.status
    (tmp_path / "repaired").touch()
    again = go(tmp_path / "e", source, seeds=3, finish=finish)
    assert set(again.status.values()) == {"done"}
    assert again.errors == {}
    assert not list((tmp_path / "e" / "errors").iterdir())


def test_a_plan_can_grow_and_nothing_else(source: str, tmp_path: Path) -> None:
    small = go(tmp_path / "e", source, grid={"latent_dim": [2]})
    stamp = small.trials[0].folder.model_file.stat().st_mtime_ns
    grown = {"objectives": ["stl", "elbo"], "seeds": [0, 3], "grid": {"latent_dim": [1, 2]}}
    found = go(tmp_path / "e", source, **grown)
    names = [f"{objective}-latent_dim={k}-s{seed}" for k in (1, 2) for objective in ("stl", "elbo") for seed in (0, 3)]
    assert [trial.name for trial in found.trials] == names
    assert set(found.status.values()) == {"done"}
    assert small.trials[0].folder.model_file.stat().st_mtime_ns == stamp
    assert read_experiment(tmp_path / "e").config == found.config
    assert [variant.label for variant in found.variants] == [
        "stl latent_dim=1",
        "elbo latent_dim=1",
        "stl latent_dim=2",
        "elbo latent_dim=2",
    ]

    other = tmp_path / "y.npy"
    np.save(other, np.random.default_rng(1).normal(size=(120, 6)).astype(np.float32))
    for changes, said in [
        ({"objectives": ["stl"]}, "the objective 'elbo' as well"),
        ({"seeds": [0]}, "the seed 3 as well"),
        ({"grid": {"latent_dim": [2]}}, "the value of latent_dim 1 as well"),
        ({"grid": None}, "the grid key 'latent_dim' as well"),
        ({"grid": {"latent_dim": [1, 2], "batch_size": [20]}}, "this call has the grid key 'batch_size' as well"),
        ({"assignments": [*EAGER, (["fit", "epochs"], 4)]}, "other settings: fit.epochs was 3, now 4"),
        (
            {"assignments": [*EAGER, (["model", "prior"], "vamp")]},
            r"other settings: model.prior\.[a-z_]+ was None, now",
        ),
        ({"assignments": [*EAGER, (["data", "seed"], 1)]}, "other data: data.seed was 0, now 1"),
    ]:
        with pytest.raises(RunError, match=said):
            go(tmp_path / "e", source, **{**grown, **changes})
    with pytest.raises(RunError, match=r"other data: data.source was '.*x.npy', now '.*y.npy'"):
        go(tmp_path / "e", str(other), **grown)
    assert read_experiment(tmp_path / "e").config == found.config


def test_changed_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    x = np.random.default_rng(2).normal(size=(60, 4)).astype(np.float32)
    np.save(path, x)
    go(tmp_path / "e", str(path))
    np.save(path, x + 1)
    with pytest.raises(RunError, match="the data have changed since the experiment in"):
        go(tmp_path / "e", str(path))


def test_one_process_at_a_time_and_no_foreign_folder(source: str, tmp_path: Path) -> None:
    with locked(tmp_path / "e" / "lock", wait=False), pytest.raises(RunError, match="another process runs"):
        go(tmp_path / "e", source)
    (tmp_path / "e" / "thesis.txt").touch()
    with pytest.raises(RunError, match="contains 'thesis.txt' and no experiment"):
        go(tmp_path / "e", source)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file; name a folder"):
        go(tmp_path / "file", source)
    with pytest.raises(RunError, match="not an experiment, or one that never began"):
        read_experiment(tmp_path / "e")
    made = go(tmp_path / "other", source)
    stored = made.path / "experiment.json"
    stored.write_text(stored.read_text().replace('"epochs": 3', '"epochs": 5'))
    with pytest.raises(RunError, match="was changed after it was written"):
        go(tmp_path / "other", source)


# --- the plan ---------------------------------------------------------------------------------------------------------


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


def test_a_device_of_a_worker_is_its_own_choice(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device 'cuda:0' is one GPU, and each worker takes a GPU of its own"):
        go(tmp_path / "e", source, assignments=[*EAGER, (["fit", "device"], "cuda:0")], backend="loky")


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


# --- the live view ----------------------------------------------------------------------------------------------------


def test_the_view_reads_the_run_folders(source: str, tmp_path: Path) -> None:
    finish = partial(fail_until, marker=tmp_path / "never", name="elbo-s1")
    made = go(tmp_path / "e", source, seeds=3, finish=finish)
    folder = made.trials[2].folder
    rows = folder.read_history()
    folder.model_file.unlink()
    folder.write_history(rows[:2])
    now = read_experiment(tmp_path / "e")
    assert now.status == {"elbo-s0": "done", "elbo-s1": "broken", "elbo-s2": "half-finished"}
    with ExperimentProgress(now, show=False) as shown:
        assert shown.remaining_seconds() is None
        shown.ended("elbo-s1", broken=True)
        with locked(lock_file(tmp_path / "e", "elbo-s2"), wait=False):
            text = io.StringIO()
            Console(file=text, width=100).print(shown.view())
        lines = text.getvalue().splitlines()
        assert lines[0].startswith("1/3 done, 1 running, 0 half, 1 broken")
        assert lines[1].split() == [
            *["elbo", "seed", "2", "epoch", "2/3", "validation", "ELBO"],
            f"{rows[1]['validation_elbo']:.2f}",
        ]
        folder.write_history(rows)
        shown.look()
        assert shown.lines["elbo-s2"].status == "half-finished"
        left = shown.remaining_seconds()
        assert left == 0.0
        shown.ended("elbo-s2", broken=False)
        text = io.StringIO()
        Console(file=text, width=100).print(shown.view())
        assert text.getvalue().startswith("2/3 done, 0 running, 0 half, 1 broken")


def test_the_view_is_silent_where_nobody_watches(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(tmp_path / "e", source)
    assert capsys.readouterr() == ("", "")
    go(tmp_path / "e", source, seeds=2, show=True)
    assert "2/2 done" in capsys.readouterr().err


def test_an_experiment_prints_in_a_few_lines(tmp_path: Path) -> None:
    trials = tuple(
        Trial(Variant("elbo", {}, "elbo"), seed, f"elbo-s{seed}", RunFolder(tmp_path / str(seed))) for seed in range(90)
    )
    status: dict[str, Status] = {trial.name: "broken" if trial.seed % 3 else "done" for trial in trials}
    errors = {name: "OSError: the disk is full" for name, state in status.items() if state == "broken"}
    config = ExperimentConfig(
        data={}, fingerprint="", model={}, fit={}, objectives=("elbo",), seeds=(0,), grid={}, variants=()
    )
    experiment = Experiment(tmp_path, config, trials, status, errors)
    lines = str(experiment).splitlines()
    assert lines[0] == f"90 runs in {str(tmp_path)!r}: 30 done, 60 broken"
    assert len(lines) == 7
    assert lines[-1] == f"and 55 more, see {str(tmp_path / 'errors')!r}"
    assert repr(experiment) == f"<Experiment: {lines[0]}>"


# --- the scripts for clusters -----------------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[3] / "docs" / "cluster.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_scripts_of_the_guide_are_whole(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("bash")):
        file = tmp_path / f"{number}.sh"
        file.write_text(text)
        done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(blocks("bash")) == 5
    experiment, on_dask = (ast.parse(text) for text in blocks("python"))
    (call,) = [
        node
        for node in ast.walk(experiment)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_experiment"
    ]
    assert {keyword.arg for keyword in call.keywords} <= set(inspect.signature(run_experiment).parameters)
    assert "main('dask', cluster.scheduler_address)" in ast.unparse(on_dask)


def test_the_guide_asks_slurm_for_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very keywords of the guide make the script of a job with one dask thread and a GPU."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    jobqueue = pytest.importorskip("dask_jobqueue")
    for number, handler in handlers.items():
        signal.signal(number, handler)  # importing it sets its own
    monkeypatch.setenv("FIT_THREADS", "4")
    tree = ast.parse(blocks("python")[1])
    (call,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "SLURMCluster"
    ]
    keywords = {
        keyword.arg: eval(compile(ast.Expression(keyword.value), "guide", "eval"), {"os": os, "int": int})
        for keyword in call.keywords
    }
    with isolation.undisturbed(), jobqueue.SLURMCluster(**{**keywords, "log_directory": str(tmp_path)}) as cluster:
        job = cluster.job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH --gpus=1", "#SBATCH -t 08:00:00"):
        assert line in job.splitlines()
    assert "--nthreads 1 " in job
    assert "--lifetime 465m" in job
    assert job.index("source /shared/venv/bin/activate") < job.index("dask_worker")
