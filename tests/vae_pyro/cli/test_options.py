"""Groups of options: what they set, and what they open."""

from pathlib import Path

import pytest

from vae_pyro import RunError
from vae_pyro.cli.options import DataOptions, FitOptions, RunOptions, SplitOptions


def test_settings_that_are_not_given_set_nothing() -> None:
    assert FitOptions().assignments() == []
    assert FitOptions().assignments(objective=None, seed=None) == []


def test_every_setting_has_its_key_and_set_comes_last() -> None:
    options = FitOptions(
        likelihood="poisson", latent_dim=3, epochs=4, batch_size=5, lr=0.1, binarize="none", kind=["a=real"],
        data_root=Path("d"), device="cpu", precision="bfloat16", no_compile=True, set_=["latent_dim=9", "seed=2"],
    )  # fmt: skip
    assignments = options.assignments(objective="stl", seed=1, devices=2, num_nodes=3)
    assert {".".join(path): value for path, value in assignments[:-2]} == {
        "model.likelihood": "poisson",
        "model.latent_dim": 3,
        "fit.epochs": 4,
        "fit.batch_size": 5,
        "fit.optimizer.lr": 0.1,
        "fit.device": "cpu",
        "fit.compile": False,
        "fit.precision": "bfloat16",
        "fit.objective": "stl",
        "fit.devices": 2,
        "fit.num_nodes": 3,
        "data.binarize": "none",
        "data.root": "d",
        "data.kinds": {"a": "real"},
        "seed": 1,
    }
    assert assignments[-2:] == [(["model", "latent_dim"], 9), (["seed"], 2)]


def test_groups_open_the_run_and_its_data(digits_run: Path) -> None:
    folder, vae = RunOptions(digits_run).open_model()
    assert folder.path == digits_run
    assert vae.config.latent_dim == 2
    _, _, data = SplitOptions(digits_run).open_all()
    _, _, split = SplitOptions(digits_run, split="validation").open_split()
    assert split.ids.tolist() == data.validation.ids.tolist()
    _, _, own = DataOptions(digits_run).open_data()
    assert own.ids.tolist() == data.test.ids.tolist()
    _, _, other = DataOptions(digits_run, data="digits").open_data()
    assert len(other) == 1797
    with pytest.raises(RunError, match="not a run folder"):
        RunOptions(digits_run / "state").open_model()


def test_data_are_described_in_words() -> None:
    assert DataOptions(Path("r")).described == "the test data of 'r'"
    assert DataOptions(Path("r"), data="x.npy", limit=3).described == "the first 3 of 'x.npy'"
