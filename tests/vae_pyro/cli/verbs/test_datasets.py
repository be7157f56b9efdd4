"""``vae-pyro datasets``: every named data set."""

from tests.vae_pyro.cli.calls import done
from vae_pyro.data.datasets import DATASETS


def test_every_data_set_is_listed() -> None:
    shown = done("datasets")
    assert all(name in shown for name in DATASETS)
