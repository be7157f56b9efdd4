"""Small blocks, so that few data fill many."""

import pytest

from vae_pyro.core import minibatches
from vae_pyro.data.readers import store as stores


@pytest.fixture
def odd_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three rows of 15: an odd number of random numbers, and a last block that is shorter."""
    monkeypatch.setattr(minibatches, "_CPU_BLOCK", 50)
    monkeypatch.setattr(stores, "_PASS_BYTES", 50)
