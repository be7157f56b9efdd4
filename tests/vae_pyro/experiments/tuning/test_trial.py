"""What a trial keeps, how it is evaluated, and how it fails."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vae_pyro.experiments.tuning.quick_search import QUICK, Crash, quick
from vae_pyro.core.files import read_tensors
from vae_pyro.experiments.tuning import trial as trial_module
from vae_pyro.experiments.tuning import tuning
from vae_pyro.experiments.tuning.search import Search, read_search, validation_file
from vae_pyro.experiments.tuning.space import parse_space
from vae_pyro.experiments.tuning.trial import Watch, trial_settings
from vae_pyro.training.config import FitConfig
from vae_pyro.training.settings import assemble


def test_a_variant_may_be_searched_with_its_options() -> None:
    settings = assemble("digits", assignments=[*QUICK, (["fit", "objective"], "beta:beta=9,num_particles=3")])
    space = [parse_space(text) for text in ("objective=beta:beta=1..4", "optimizer=adam,sgd", "optimizer.lr=0.1..0.2")]
    plan = tuning._plan(settings, space, {})
    _, config = trial_settings(plan, space, {"objective.beta": 2, "optimizer": "sgd", "optimizer.lr": 0.15})
    assert config.objective.options == {"num_particles": 3, "beta": 2.0}  # what the user gave beside it stays
    assert (config.optimizer.name, config.optimizer.options["lr"]) == ("sgd", 0.15)
    wide, _ = trial_settings(plan, [parse_space("encoder.hidden=[5,4],[3]")], {"encoder.hidden": "[5,4]"})
    assert list(wide.encoder.options["hidden"]) == [5, 4]
    assert wide.decoder is not None
    assert list(wide.decoder.options["hidden"]) == [4, 5]  # it goes on mirroring the encoder


def test_what_a_trial_keeps_is_what_it_was_judged_by(searched: Search) -> None:
    """The mean over validation data of what is stored is the value, to rounding: weights and draws are the same."""
    for trial in searched.of_state("complete"):
        figures = trial.validation()
        assert figures is not None
        assert figures.elbo.mean() == pytest.approx(trial.value, rel=1e-6)
        stored = read_tensors(validation_file(trial.folder), "validation")[1]
        assert stored["num_samples"] == figures.num_draws  # the name in files of every version
        config = trial.folder.config()
        assert config["model"]["latent_dim"] == trial.params["latent_dim"]
        assert config["model"]["encoder"]["hidden"] == json.loads(trial.params["encoder.hidden"])
        assert config["fit"]["optimizer"]["lr"] == trial.params["optimizer.lr"]


def test_a_trial_keeps_the_weights_of_its_best_epoch(tmp_path: Path) -> None:
    """At rates so high that the last epoch is not the best one."""
    rough = [*QUICK, (["fit", "epochs"], 8), (["fit", "batch_size"], 64)]
    search = quick(tmp_path / "s", space=["optimizer.lr=0.03,0.06"], assignments=rough, num_trials=2, prune=False)
    early = [trial for trial in search.of_state("complete") if trial.best_epoch != 8]
    assert early
    for trial in early:
        figures = trial.validation()
        assert figures is not None
        assert figures.elbo.mean() == pytest.approx(trial.value, rel=1e-6)
        assert trial.value == max(trial.curve.values()) > trial.curve[8]
        assert len(trial.folder.read_history()) == 8  # it was not stopped there


def test_epochs_of_the_warm_up_do_not_count(tmp_path: Path) -> None:
    warm = [*QUICK, (["fit", "epochs"], 4), (["fit", "kl_warmup"], 2)]
    search = quick(tmp_path / "s", num_trials=1, assignments=warm)
    trial = search.trials[0]
    history = [row["validation_elbo"] for row in trial.folder.read_history()]
    assert list(trial.curve) == [2, 3, 4]
    assert trial.value == max(history[1:])
    with pytest.raises(ValueError, match=r"1 of 1 failed.*no epoch of 4 counts"):
        quick(tmp_path / "t", num_trials=1, assignments=[*warm, (["fit", "kl_cycle"], 2)])
    with pytest.raises(ValueError, match=r"1 of 1 failed.*kl_warmup=5 is longer than the fit of epochs=4"):
        quick(tmp_path / "u", num_trials=1, assignments=[*warm, (["fit", "kl_warmup"], 5)])


@pytest.mark.parametrize(
    ("kl_warmup", "kl_cycle", "wanted"),
    [(0.0, None, "111111"), (0.4, None, "111111"), (2.0, None, "011111"), (2.5, None, "001111"), (1.0, 3.0, "110110"),
     (2.0, 2.0, "000000"), (0.0, 1.0, "111111")],
)  # fmt: skip
def test_the_epochs_that_count_are_those_at_whose_end_the_warm_up_is_over(
    kl_warmup: float, kl_cycle: float | None, wanted: str
) -> None:
    config = FitConfig(kl_warmup=kl_warmup, kl_cycle=kl_cycle)
    assert "".join(str(int(config.epoch_counts(epoch, 3))) for epoch in range(1, 7)) == wanted


def test_a_failing_trial_is_recorded_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    space = ["optimizer.lr=1e-3,1e30", "latent_dim=2..4"]
    search = quick(tmp_path / "s", space=space, num_trials=6, num_random=6, seed=3)
    failed = search.of_state("failed")
    assert failed
    assert {trial.params["optimizer.lr"] for trial in failed} == {"1e30"}
    assert all((trial.failure or "").startswith("NonFiniteLossError: ") for trial in failed)
    assert len(failed) + len(search.of_state("complete", "pruned")) == 6
    assert search.best.params["optimizer.lr"] == "1e-3"


def test_if_every_trial_fails_the_first_reason_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 of 2 failed; the first \(optimizer.lr=1e3[01]\): NonFiniteLossError: "):
        quick(tmp_path / "s", space=["optimizer.lr=1e30,1e31"], num_trials=2, seed=3)
    assert not (tmp_path / "s" / "best.json").exists()


def test_memory_that_does_not_suffice_is_a_failure_of_the_trial(tmp_path: Path) -> None:
    search = quick(tmp_path / "s", space=["encoder.hidden=[8],[4000000000000]"], num_trials=4, num_random=4)
    failed = search.of_state("failed")
    assert {trial.params["encoder.hidden"] for trial in failed} == {"[4000000000000]"}
    assert all("of memory, and at most" in (trial.failure or "") for trial in failed)
    assert search.best.params == {"encoder.hidden": "[8]"}


def test_a_trial_that_kills_its_processes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that ended at the same place; an interruption is none of them."""

    def dying(*args: Any, **options: Any) -> Any:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "fit", dying)
        for raised in (Crash(), KeyboardInterrupt(), Crash(), OSError(28, "no space left"), Crash()):
            with pytest.raises(type(raised)):
                quick(tmp_path / "s")
            assert [trial.state for trial in read_search(tmp_path / "s").trials] == ["stopped"]
    search = quick(tmp_path / "s")
    assert [trial.state for trial in search.trials] == ["failed", "complete", "complete", "complete"]
    assert (search.trials[0].failure or "").startswith("3 processes ended at its epoch 1: killed from outside")


def test_an_error_of_no_known_kind_is_raised_and_in_the_end_the_trials_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("a kernel is missing")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "fit", broken)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="a kernel is missing"):
                quick(tmp_path / "s", num_trials=2)
    search = quick(tmp_path / "s", num_trials=2)
    assert [trial.state for trial in search.trials] == ["failed", "complete"]
    assert search.trials[0].failure == "3 processes ended at its epoch 1: RuntimeError: a kernel is missing"


def test_epochs_that_are_repeated_are_reported_and_judged_once() -> None:
    """A process was killed after it had reported two epochs, and the last checkpoint is from before the first."""
    calls: list[str] = []

    class Asked:
        def report(self, value: float, step: int) -> None:
            calls.append(f"report {step}")

        def should_prune(self) -> bool:
            calls.append("judge")
            return False

    watch = Watch(Asked(), FitConfig(epochs=4), 100, {1: -3.0, 2: -2.0})
    for epoch in range(1, 5):
        assert not watch({"epoch": epoch, "validation_elbo": -1.0})
    # The first was judged before the second began; the second may not have been; the last is the end anyway.
    assert calls == ["judge", "report 3", "judge", "report 4"]
