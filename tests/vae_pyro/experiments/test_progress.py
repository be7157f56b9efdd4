"""An experiment while it runs and as it is printed."""

import io
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from tests.vae_pyro.experiments.small_experiment import fail_until, go
from vae_pyro import RunFolder
from vae_pyro.experiments.config import ExperimentConfig, Variant
from vae_pyro.experiments.folder import Experiment, Status, Trial, lock_file, read_experiment
from vae_pyro.experiments.progress import ExperimentProgress
from vae_pyro.parallel.locks import locked


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


def test_the_view_is_silent_without_a_terminal(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    table = experiment.to_dataframe()
    assert table["status"].value_counts().to_dict() == {"broken": 60, "done": 30}
    assert table.loc["elbo-s1", "error"] == "OSError: the disk is full"
    assert experiment._repr_html_().count("<tr") < 25
