"""`run_experiment`: what is kept, repeated and refused."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.vae_pyro.experiments.small_experiment import EAGER, fail_until, go, note_visit
from vae_pyro import RunError
from vae_pyro.core.files import read_json
from vae_pyro.experiments.folder import read_experiment
from vae_pyro.parallel.locks import locked


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
    assert found.errors["elbo-s1"].startswith("OSError: the disk\nis full (small_experiment.py, line ")
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


def test_a_device_of_a_worker_is_its_own_choice(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device 'cuda:0' is one GPU, and each worker takes a GPU of its own"):
        go(tmp_path / "e", source, assignments=[*EAGER, (["fit", "device"], "cuda:0")], backend="loky")
