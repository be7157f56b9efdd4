"""Finished searches."""

import pytest

from tests.vae_pyro.experiments.tuning.quick_search import CRASHED, quick
from vae_pyro.experiments.tuning.search import Search


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return quick(tmp_path_factory.mktemp("search") / "s", num_trials=5, num_unpruned=2)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return quick(tmp_path_factory.mktemp("search") / "s", **CRASHED)
