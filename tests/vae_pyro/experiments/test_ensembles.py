"""`run_experiment(..., ensemble=True)`: the results of runs fitted one by one, after crashes, divergence and growth."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.vae_pyro.experiments.small_experiment import SMALL, go, note_visit, tensors
from vae_pyro import VAE, RunError
from vae_pyro.core.files import read_json, read_tensors
from vae_pyro.experiments import worker as experiment_worker
from vae_pyro.experiments.folder import Experiment, read_experiment
from vae_pyro.experiments.plan import plan_experiment
from vae_pyro.experiments.progress import ExperimentProgress
from vae_pyro.experiments.running import ExperimentInterruptedError
from vae_pyro.models.priors.mixture import Mixture
from vae_pyro.training import ensemble as ensembles
from vae_pyro.training.progress import FitProgress

# Weights and figures are float32 of order one. After 3 to 20 epochs of this fit weights differed by 6e-8 and figures of
# the history by 6e-7; those of two seeds differ by more than 1e-2.
WEIGHTS, FIGURES = 2e-6, 1e-5
SEEDS = ["elbo-s0", "elbo-s1", "elbo-s2"]


def together(out: Path, source: str, **options: Any) -> Experiment:
    return go(out, source, **{"seeds": 3, "assignments": SMALL, "ensemble": True, **options})


@pytest.fixture(scope="module")
def one_by_one(source: str, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return go(tmp_path_factory.mktemp("alone") / "e", source, seeds=3, assignments=SMALL)


def assert_close(wanted: Experiment, found: Experiment) -> None:
    here, there = tensors(found), tensors(wanted)
    folders = {trial.name: trial.folder for trial in wanted.trials}
    for trial in found.trials:
        for key, value in there[trial.name].items():
            torch.testing.assert_close(here[trial.name][key], value, rtol=0, atol=WEIGHTS, msg=f"{trial.name} {key}")
        rows = folders[trial.name].read_history()
        assert len(rows) == len(trial.folder.read_history())
        for row, other in zip(rows, trial.folder.read_history(), strict=True):
            assert row.keys() == other.keys()
            for key in row.keys() - {"seconds"}:
                assert other[key] == pytest.approx(row[key], rel=0, abs=FIGURES), (trial.name, key)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Seeds of each fit of this process, in order: those fitted together, or one."""
    seen: list[list[int]] = []

    def note(name: str, seeds: Callable[..., list[int]]) -> None:
        original = getattr(experiment_worker, name)

        def noting(*args: Any, **options: Any) -> Any:
            seen.append(seeds(options))
            return original(*args, **options)

        monkeypatch.setattr(experiment_worker, name, noting)

    note("fit", lambda options: [options["seed"]])
    note("fit_ensemble", lambda options: list(options["seeds"]))
    return seen


def watch(monkeypatch: pytest.MonkeyPatch, look: Callable[[int, int], None]) -> None:
    """Call ``look`` with epoch and step after each step of an ensemble's training (not of the plan's trial)."""

    class Watching(FitProgress):
        def step(self, epoch: int, batch: int, figures: dict[str, float], data_per_second: float) -> None:
            if self.epochs > 1:
                look(epoch, batch)

    monkeypatch.setattr(ensembles, "FitProgress", Watching)


def place(experiment: Experiment, name: str) -> tuple[int, int]:
    (folder,) = [trial.folder for trial in experiment.trials if trial.name == name]
    state = read_tensors(folder.checkpoint_file, "checkpoint")[1]["state"]
    return state["epoch"], state["batch"]


def test_an_ensemble_gives_the_results_of_its_members_alone_and_the_view_shows_them(
    one_by_one: Experiment, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: list[list[int]]
) -> None:
    seen: list[list[str]] = []

    def look(epoch: int, batch: int) -> None:
        if (epoch, batch) == (2, 1):
            with ExperimentProgress(read_experiment(tmp_path / "e"), show=False) as shown:
                text = io.StringIO()
                Console(file=text, width=100).print(shown.view())
                seen.append(text.getvalue().splitlines())

    watch(monkeypatch, look)
    finish = partial(note_visit, log=tmp_path / "log")
    found = together(tmp_path / "e", source, finish=finish)
    assert fitted == [[0, 1, 2]]
    assert found.status == dict.fromkeys(SEEDS, "done"), str(found)
    assert (tmp_path / "log").read_text().split() == SEEDS
    assert_close(one_by_one, found)
    first, second, _ = tensors(found).values()
    assert max(float((first[key] - value).abs().max()) for key, value in second.items() if "weight" in key) > 1e-2
    for here, there in zip(found.trials, one_by_one.trials, strict=True):
        ours, theirs = here.folder.config(), there.folder.config()
        assert [ours[key] for key in ("model", "fit", "seed")] == [theirs[key] for key in ("model", "fit", "seed")]
    ((total, *members),) = seen
    assert total.startswith("0/3 done, 3 running, 0 half, 0 broken")
    assert [line.split()[:6] for line in members] == [
        ["elbo", "seed", str(seed), "epoch", "2/3", "validation"] for seed in range(3)
    ]
    assert read_experiment(tmp_path / "e").config.ensemble
    (found.trials[1].folder.path / "measured.json").unlink()
    together(tmp_path / "e", source, finish=finish)
    assert fitted == [[0, 1, 2]], "what is fitted is kept"
    assert (tmp_path / "log").read_text().split() == [*SEEDS, "elbo-s1"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.vae_pyro.experiments.test_ensembles import together
from vae_pyro.training import ensemble as ensembles

write, written = ensembles._Together.checkpoint, []

def count(self, member):
    write(self, member)
    written.append(member)
    if len(written) == 4:  # the second epoch of the first member
        os.kill(os.getpid(), signal.SIGKILL)

ensembles._Together.checkpoint = count
together(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_killed_between_two_checkpoints_members_go_on_apart_and_the_rest_together(
    one_by_one: Experiment, source: str, tmp_path: Path, fitted: list[list[int]]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "e"), source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = read_experiment(tmp_path / "e")
    assert left.status == dict.fromkeys(SEEDS, "half-finished")
    assert [place(left, name) for name in SEEDS] == [(2, 0), (1, 0), (1, 0)]
    before = [trial.folder.read_history() for trial in left.trials]
    found = together(tmp_path / "e", source)
    assert fitted == [[0], [1, 2]]
    assert found.status == dict.fromkeys(SEEDS, "done"), str(found)
    assert_close(one_by_one, found)
    for rows, trial in zip(before, found.trials, strict=True):
        assert len(rows) == 1
        assert trial.folder.read_history()[:1] == rows, "seconds and all: this epoch was not fitted again"


@pytest.mark.slow
def test_a_signal_ends_an_ensemble_and_the_next_call_continues_it(
    one_by_one: Experiment, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: list[list[int]]
) -> None:
    with monkeypatch.context() as patched:
        watch(patched, lambda epoch, batch: (epoch, batch) == (1, 2) and os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(ExperimentInterruptedError, match="SIGTERM; the same call again continues"):
            together(tmp_path / "e", source)
    left = read_experiment(tmp_path / "e")
    assert left.status == dict.fromkeys(SEEDS, "half-finished")
    assert [place(left, name) for name in SEEDS] == [(1, 2)] * 3
    found = together(tmp_path / "e", source)
    assert fitted == [[0, 1, 2], [0, 1, 2]]
    assert found.status == dict.fromkeys(SEEDS, "done"), str(found)
    assert_close(one_by_one, found)


@pytest.mark.slow
def test_a_member_that_diverges_is_tried_again_beside_a_seed_that_was_added_and_the_choice_stays(
    one_by_one: Experiment, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: list[list[int]]
) -> None:
    whole = experiment_worker.Task.vae

    def poisoned(task: experiment_worker.Task, name: str) -> VAE:
        vae = whole(task, name)
        if name == "elbo-s1":
            with torch.no_grad():
                next(iter(vae.parameters())).fill_(torch.nan)
        return vae

    with monkeypatch.context() as patched:
        patched.setattr(experiment_worker.Task, "vae", poisoned)
        found = together(tmp_path / "e", source, seeds=2)
    assert found.status == {"elbo-s0": "done", "elbo-s1": "broken"}
    assert found.errors["elbo-s1"].startswith("NonFiniteLossError: the loss is not finite at step 1 (epoch 1)")
    assert "weights diverged" in found.errors["elbo-s1"]
    assert "NonFiniteLossError" in read_json(tmp_path / "e" / "errors" / "elbo-s1.json")["traceback"]
    again = together(tmp_path / "e", source, seeds=3)
    assert fitted == [[0, 1], [1, 2]]
    assert again.status == dict.fromkeys(SEEDS, "done"), str(again)
    assert again.errors == {}
    assert_close(one_by_one, again)
    with pytest.raises(RunError, match=r"was begun with ensemble=True, .* rounding; pass ensemble=True \(with --ens"):
        together(tmp_path / "e", source, ensemble=False)
    with pytest.raises(RunError, match=r"was begun with ensemble=False, .* pass ensemble=False \(no --ensemble\)"):
        together(one_by_one.path, source)
    assert read_experiment(one_by_one.path).status == dict.fromkeys(SEEDS, "done")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ((["fit", "patience"], 3), "'elbo' has fit.patience=3, and .* stop together; leave patience out, or fit the"),
        ((["fit", "compile"], False), "'elbo' has fit.compile=False, and .* let it compile, or fit the seeds one by"),
        ((["fit", "devices"], 2), "'elbo': the runs of an experiment are fitted side by side, each on one device"),
        ((["fit", "num_nodes"], 2), "'elbo': the runs of an experiment are fitted side by side, each on one device"),
    ],
)
def test_settings_that_cannot_are_refused_before_any_fit(
    setting: tuple[list[str], Any], said: str, source: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        together(tmp_path / "e", source, assignments=[*SMALL, setting])
    assert not (tmp_path / "e").exists()
    if setting[0][1] == "patience":
        plan_experiment(source, objectives=["elbo"], seeds=2, assignments=[*SMALL, setting])  # one by one they can


def test_programs_that_depend_on_values_are_refused_before_any_fit(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Mixture.forward

    def branching(self: Mixture, *arguments: Any, **options: Any) -> Any:
        float(next(self.parameters()).detach().sum())
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Mixture, "forward", branching)
    setting = (["model", "prior"], "mixture:components=3")
    with pytest.raises(
        ValueError, match="'elbo' cannot be fitted as an ensemble: .* gives the values of a tensor to Python"
    ):
        together(tmp_path / "e", source, assignments=[*SMALL, setting])
    assert not (tmp_path / "e").exists()
    plan_experiment(source, objectives=["elbo"], seeds=2, assignments=[*SMALL, setting])  # one by one they can


def die_once(folder: Any, vae: VAE, data: Any, *, log: Path) -> None:
    with log.open("a") as file:
        file.write(f"{folder.path.name}\n")
    if folder.path.name == "elbo-s1" and log.read_text().count("elbo-s1") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_a_worker_that_dies_at_a_member_is_replaced(
    backend: str, one_by_one: Experiment, source: str, tmp_path: Path
) -> None:
    found = together(
        tmp_path / "e", source, backend=backend, num_workers=1, finish=partial(die_once, log=tmp_path / "log")
    )
    assert found.status == dict.fromkeys(SEEDS, "done"), str(found)
    assert (tmp_path / "log").read_text().split() == ["elbo-s0", "elbo-s1", *SEEDS]
    assert_close(one_by_one, found)
