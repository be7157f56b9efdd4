"""Sampler, pruner, journal and locks of a search."""

from pathlib import Path

from tests.vae_pyro.experiments.tuning.quick_search import QUICK, quick
from vae_pyro.experiments.tuning.search import Search, read_search
from vae_pyro.experiments.tuning.study import next_trial, open_study, quiet, trial_lock
from vae_pyro.parallel.locks import lock


def test_a_trial_below_the_median_is_pruned_and_takes_no_part(tmp_path: Path) -> None:
    """A learning rate that learns nothing is behind one that learns, after one epoch, in every trial."""
    space = ["optimizer.lr=1e-2,1e-8"]
    search = quick(tmp_path / "s", space=space, num_trials=8, num_random=8, num_unpruned=1, seed=3)
    assert search.trials[0].params == {"optimizer.lr": "1e-2"}  # by the seed: the first one complete is a good one
    for trial in search.trials[1:]:
        good = trial.params["optimizer.lr"] == "1e-2"
        assert trial.state == ("complete" if good else "pruned")
        assert len(trial.folder.read_history()) == (2 if good else 1)
    assert search.of_state("pruned")
    assert search.best.params == {"optimizer.lr": "1e-2"}
    without = quick(tmp_path / "t", space=space, num_trials=3, num_random=8, prune=False, seed=3)
    assert {trial.params["optimizer.lr"] for trial in without.trials} == {"1e-2", "1e-8"}
    assert {trial.state for trial in without.trials} == {"complete"}


def test_nothing_is_pruned_in_the_first_tenth_of_the_epochs(tmp_path: Path) -> None:
    long = [*QUICK, (["fit", "epochs"], 21), (["fit", "batch_size"], 1294)]
    search = quick(tmp_path / "s", space=["optimizer.lr=1e-2,1e-8"], num_trials=4, num_random=4, num_unpruned=1, seed=3,
                   assignments=long)  # fmt: skip
    pruned = search.of_state("pruned")
    assert pruned
    assert {len(trial.folder.read_history()) for trial in pruned} == {3}


def test_no_trial_is_pruned_by_the_few_that_came_as_far(tmp_path: Path) -> None:
    """Two of three complete trials ran out of patience after two epochs; the third is no median."""
    search = quick(tmp_path / "s", num_trials=1, num_unpruned=2)
    with quiet():
        study = open_study(search.path, search.plan)
        for epochs in (2, 2, 5):
            trial = study.ask()
            for epoch in range(1, epochs + 1):
                trial.report(-1.0, epoch)
            study.tell(trial, -1.0)
        trial = study.ask()
        trial.report(-2.0, 2)
        assert trial.should_prune()
        trial.report(-2.0, 4)
        assert not trial.should_prune()


def test_the_sampler_learns_from_failures(tmp_path: Path) -> None:
    """Seven tenths of the range at least diverge. Of 24 trials after 6 random ones, 14 that were drawn at random would
    do well with a probability below 0.006; a sampler that left the failures out would draw at random."""
    search = quick(tmp_path / "s", space=["optimizer.lr=1e-3..1e7:log"], num_trials=30, num_random=6, prune=False,
                   assignments=[*QUICK, (["fit", "epochs"], 1)])  # fmt: skip
    assert len(search.of_state("failed")) > 6
    assert max(trial.params["optimizer.lr"] for trial in search.of_state("complete")) < 1
    assert sum(trial.state == "complete" for trial in search.trials[6:]) >= 14


def test_a_journal_that_others_write_on_is_mended(tmp_path: Path) -> None:
    """A process is killed in the middle of a line, and one that is at work writes the next one."""
    search = quick(tmp_path / "s", num_trials=1)
    with quiet():
        study = open_study(search.path, search.plan)
        for number in (2, 3):
            with (search.path / "journal.log").open("ab") as journal:
                journal.write(b'{"op_code": 8, "wor')
            assert len(study.get_trials()) == number - 1  # a reader passes it over
            study.ask()
        assert len(open_study(search.path, search.plan).get_trials()) == 3


def test_a_trial_at_work_is_left_alone(searched: Search, tmp_path: Path) -> None:
    search = quick(tmp_path / "s", num_trials=1)
    study_lock = lock(trial_lock(search.path, 1), wait=False)
    assert study_lock is not None
    with study_lock, quiet():
        study = open_study(search.path, search.plan)
        study.ask({dimension.name: dimension.distribution() for dimension in search.space})
        assert read_search(search.path).trials[1].state == "running"
        assert next_trial(study, search.path, search.space, 2) is None
    assert read_search(search.path).trials[1].state == "stopped"
    assert quick(tmp_path / "s", num_trials=2).trials[1].state == "complete"
